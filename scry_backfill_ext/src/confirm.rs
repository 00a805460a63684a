//! How far shadow and journal are, and what may be confirmed to the slot.
//!
//! ```text
//! decoded ≥ sent ≥ flushed ≥ the slot's confirmed_flush_lsn
//!                  sent ≥ applied: what the shadow shows
//! ```
//!
//! `flushed` is ahead of `applied` where the platform keeps a journal and the
//! shadow is behind it.
//!
//! Invariant (delivery contract, rule 2): nothing but a confirmation of the
//! platform moves the slot, never beyond what was sent on this connection or
//! was there before, and never back. A confirmation that breaks this is
//! refused: the platform lies or is another one.

use scry_wire::Lsn;
use scry_wire::message::Confirm;

/// Positions of one connection, each only ever moving forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    sent: Lsn,
    applied: Lsn,
    flushed: Lsn,
}

/// A confirmation that cannot be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lie {
    /// What was confirmed.
    pub confirmed: Lsn,
    /// What had been sent.
    pub sent: Lsn,
}

impl Progress {
    /// The state after a handshake: the shadow shows everything up to
    /// `applied`, and everything up to `flushed` is safe on the other side.
    pub fn new(applied: Lsn, flushed: Lsn) -> Self {
        Progress { sent: flushed, applied, flushed }
    }

    /// A transaction or keepalive that ends at `end` has been handed over.
    pub fn sent(&mut self, end: Lsn) {
        self.sent.advance(end);
    }

    /// What has been handed over.
    pub fn sent_lsn(&self) -> Lsn {
        self.sent
    }

    /// What the shadow shows.
    pub fn applied_lsn(&self) -> Lsn {
        self.applied
    }

    /// Takes a confirmation. Returns the position to confirm to the slot when
    /// it has moved.
    pub fn confirm(&mut self, confirm: Confirm) -> Result<Option<Lsn>, Lie> {
        if confirm.applied_lsn > self.sent || confirm.flushed_lsn > self.sent {
            let confirmed = confirm.applied_lsn.max(confirm.flushed_lsn);
            return Err(Lie { confirmed, sent: self.sent });
        }
        self.applied.advance(confirm.applied_lsn);
        Ok(self.flushed.advance(confirm.flushed_lsn).then_some(self.flushed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confirm(lsn: u64) -> Confirm {
        Confirm { applied_lsn: Lsn(lsn), flushed_lsn: Lsn(lsn) }
    }

    #[test]
    fn moves_forward_only() {
        let mut progress = Progress::new(Lsn(10), Lsn(10));
        progress.sent(Lsn(30));
        assert_eq!(progress.confirm(confirm(20)), Ok(Some(Lsn(20))));
        assert_eq!(progress.confirm(confirm(15)), Ok(None));
        assert_eq!(progress.flushed, Lsn(20));
    }

    #[test]
    fn rejects_what_was_never_sent() {
        let mut progress = Progress::new(Lsn(10), Lsn(10));
        progress.sent(Lsn(30));
        assert_eq!(progress.confirm(confirm(31)), Err(Lie { confirmed: Lsn(31), sent: Lsn(30) }));
        assert_eq!(progress.flushed, Lsn(10));
    }

    #[test]
    fn confirms_what_is_safe_and_shows_what_is_applied() {
        let mut progress = Progress::new(Lsn(10), Lsn(30));
        assert_eq!((progress.applied_lsn(), progress.sent_lsn()), (Lsn(10), Lsn(30)));
        progress.sent(Lsn(50));
        let ahead = Confirm { applied_lsn: Lsn(20), flushed_lsn: Lsn(40) };
        assert_eq!(progress.confirm(ahead), Ok(Some(Lsn(40))));
        assert_eq!(progress.applied_lsn(), Lsn(20), "the shadow does not show it yet");
        let caught_up = Confirm { applied_lsn: Lsn(40), flushed_lsn: Lsn(40) };
        assert_eq!(progress.confirm(caught_up), Ok(None));
        assert_eq!(progress.applied_lsn(), Lsn(40));
    }
}
