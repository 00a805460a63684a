//! Brings what the shadow shows to its disk, beside the applier.
//!
//! ```text
//! applier ─► COMMIT, not waited for ─► shown ─┐
//!                                             ├─ a pause ─► a commit that is waited for ─► journal: applied
//! keeper  ◄───────────────────────────────────┘
//! ```
//!
//! Changes that stand in a journal need not wait for the shadow's disk: what a crash of the shadow
//! takes back is applied again. So the applier commits with `synchronous_commit = off`, whoever
//! reads the shadow sees its changes at once, and this, on a session of its own, has the shadow's
//! WAL flushed a moment later. Only then is anything called applied, confirmed to the source, or
//! removed from the journal: what has been told is never taken back.
//!
//! Invariant: the session was opened before the commits that it vouches for, so that a crash of the
//! server ends it with them. A WAL is flushed in order (access/transam/README, "Asynchronous Commit").

use crate::journal::Journal;
use crate::shadow::{Purpose, Session, Shadow};
use crate::{Error, Result};
use scry_failpoint::{hit, step};
use scry_wire::Lsn;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Waits for the disk, so that the applier need not.
pub struct Keeper {
    session: Session,
    shown: watch::Receiver<Lsn>,
    journal: Arc<Journal>,
}

impl Keeper {
    /// To be opened before the applier commits anything that it tells `shown` of.
    pub async fn open(shadow: &Shadow, shown: watch::Receiver<Lsn>, journal: Arc<Journal>) -> Result<Self> {
        Ok(Keeper { session: shadow.owner.open(Purpose::Own).await?, shown, journal })
    }

    /// Keeps what is shown, until that fails.
    pub async fn run(&mut self) -> Error {
        let mut pause = PAUSE_MIN;
        loop {
            if self.shown.changed().await.is_err() {
                // The applier ends, and says why.
                std::future::pending::<()>().await;
            }
            self.gather(pause).await;
            let begun = Instant::now();
            if let Err(error) = self.keep().await {
                return error;
            }
            pause = pause_after(begun.elapsed());
        }
    }

    /// Waits for more to be shown, for as long as more comes, at most so long.
    async fn gather(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            self.shown.mark_unchanged();
            match tokio::time::timeout(PAUSE_MIN, self.shown.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }

    /// Keeps what is shown now.
    pub async fn keep(&mut self) -> Result<()> {
        let shown = *self.shown.borrow_and_update();
        if shown > self.journal.applied() {
            hit(step::SHOWN).await?;
            flush(&self.session).await?;
            self.journal.set_applied(shown);
        }
        Ok(())
    }
}

/// When this returns, all that was committed before is on the shadow's disk. The session must wait
/// for its commits.
pub async fn flush(session: &Session) -> Result<()> {
    session.batch_execute(FLUSH).await.map_err(Error::sql("bring the shadow's WAL to its disk"))
}

/// A transaction with an xid and WAL of its own is waited for, whatever it wrote (xact.c,
/// `RecordTransactionCommit`).
const FLUSH: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'scry_shadow', '')";
/// From a commit to the flush that covers it, while more commits come: all of that time share one. A
/// disk that takes its time is asked less often: it may be the source's too.
fn pause_after(flush: Duration) -> Duration {
    (flush * DISK_SHARE).clamp(PAUSE_MIN, PAUSE_MAX)
}

const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Nobody waits for a position longer than that, beside the flush itself.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// The keeper has the disk busy a twentieth of the time.
const DISK_SHARE: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_disk_is_asked_less_often() {
        let ms = Duration::from_millis;
        assert_eq!([ms(0), ms(1), ms(4), ms(900)].map(pause_after), [ms(5), ms(20), ms(80), ms(200)]);
    }
}
