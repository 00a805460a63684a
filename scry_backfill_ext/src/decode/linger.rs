//! When a worker that has handed on a batch stays awake for a moment before it looks for more.
//!
//! ```text
//! few commits:   commit ─► woken ─► batch …            each is on its way at once
//! many commits:  commit, commit, commit ─ a pause ─► batch     one batch, one wake-up a hop, for several
//! ```
//!
//! Where commits follow each other faster than [`GAP`], a batch for each would cost every process on
//! the way a wake-up a commit, and the source's backends a latch each. While the worker lingers
//! nobody has to wake it. Invariant: a commit never waits for longer than [`PAUSE`], and one that comes
//! alone not at all.
//! What it does not do: sleep, or look at a clock.

use std::time::{Duration, Instant};

/// Tells a busy stream from one where commits come one by one.
#[derive(Debug)]
pub struct Linger {
    handed_on: Instant,
    /// Signs of a busy stream, less signs of a calm one.
    busy: u32,
    lingered: bool,
}

impl Linger {
    /// A calm stream.
    pub fn new(now: Instant) -> Linger {
        Linger { handed_on: now, busy: 0, lingered: false }
    }

    /// A batch with so many transactions has been handed on; how long to stay away from the WAL.
    pub fn after(&mut self, now: Instant, transactions: u32) -> Option<Duration> {
        let soon = now.saturating_duration_since(self.handed_on) < GAP;
        self.handed_on = now;
        let is_busy = if self.lingered { transactions >= MANY } else { soon };
        self.busy = match is_busy {
            true => (self.busy + 1).min(2 * BUSY_FROM),
            false => self.busy.saturating_sub(CALM_WEIGHS),
        };
        self.lingered = self.busy >= BUSY_FROM;
        self.lingered.then_some(PAUSE)
    }
}

/// Commits that follow each other faster are many.
const GAP: Duration = Duration::from_millis(1);
/// The pause: what a busy source's commits are behind at most by it.
const PAUSE: Duration = Duration::from_millis(4);
/// So many transactions after a pause are as many as commits at [`GAP`].
const MANY: u32 = 4;
/// So many signs more of a busy stream than of a calm one make it busy.
const BUSY_FROM: u32 = 16;
/// A calm sign weighs so many busy ones: at 1,000 commits a second (exp(-1) of the gaps are longer) a
/// stream stays calm.
const CALM_WEIGHS: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    /// Commits at these gaps in turn, until the pattern is settled; how many of the last hundred batches
    /// were followed by a pause.
    fn pauses(gaps_us: &[u64]) -> usize {
        let mut now = Instant::now();
        let mut linger = Linger::new(now);
        let (mut pauses, mut waited) = (0, Duration::ZERO);
        let mut transactions = 0;
        let mut batches = 0;
        for gap in gaps_us.iter().cycle().take(100_000) {
            now += Duration::from_micros(*gap);
            transactions += 1;
            let gap = Duration::from_micros(*gap);
            if waited > gap {
                waited -= gap;
                continue;
            }
            let pause = linger.after(now, std::mem::take(&mut transactions));
            waited = pause.unwrap_or_default();
            batches += 1;
            if batches > 200 && batches <= 300 && pause.is_some() {
                pauses += 1;
            }
        }
        pauses
    }

    #[test]
    fn commits_one_by_one_never_wait() {
        assert_eq!(pauses(&[2_000]), 0);
        assert_eq!(pauses(&[5_000, 400, 300, 6_000]), 0);
    }

    #[test]
    fn many_commits_share_a_batch() {
        assert_eq!(pauses(&[250]), 100);
        assert_eq!(pauses(&[100, 900, 50, 300]), 100);
    }

    #[test]
    fn a_busy_stream_becomes_calm_again() {
        let mut now = Instant::now();
        let mut linger = Linger::new(now);
        for _ in 0..1000 {
            now += Duration::from_micros(100);
            linger.after(now, 1);
        }
        let mut left = 0;
        while linger.after(now, 1).is_some() {
            now += Duration::from_millis(5);
            left += 1;
        }
        assert!(left <= 16, "{left}");
    }
}
