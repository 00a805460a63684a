//! When the open shadow transaction ends: at the first source commit past a
//! bound, or as soon as nothing more has come.
//!
//! The bounds say how long rows stay invisible and locks are held. A stream
//! that is behind shows nothing new anyhow, and writes fewer, larger sets:
//! keys that change often are written once, and commits wait for the disk less
//! often. How far it is behind is told by the source's clock against ours; a
//! clock that is wrong costs nothing but that choice.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the open shadow transaction holds.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Row changes.
    pub rows: u64,
    /// Bytes of changes, as they came.
    pub bytes: usize,
    /// Since it was begun.
    pub age: Duration,
}

/// Whether `held` is committed now. `lag` is the age of the newest source commit in it.
#[must_use]
pub fn is_full(held: Held, lag: Duration) -> bool {
    let (rows, age) = if lag > BEHIND { (ROWS_BEHIND, AGE_BEHIND) } else { (ROWS, AGE) };
    held.rows >= rows || held.bytes >= BYTES || held.age >= age
}

/// How long ago something was committed; nothing if our clock says in the
/// future. `commit_time`: microseconds since 2000-01-01 UTC.
#[must_use]
pub fn lag(commit_time: i64, now: SystemTime) -> Duration {
    let now = now.duration_since(UNIX_EPOCH + POSTGRES_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_micros(u64::try_from(commit_time).unwrap_or_default()))
}

const ROWS: u64 = 20_000;
const AGE: Duration = Duration::from_millis(25);
const ROWS_BEHIND: u64 = 256_000;
const AGE_BEHIND: Duration = Duration::from_millis(500);
/// What is written stays invisible for so many bytes at most. Memory is bounded by the log.
const BYTES: usize = 64 << 20;
const BEHIND: Duration = Duration::from_secs(1);
/// 2000-01-01 UTC, since 1970 (src/include/datatype/timestamp.h).
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

#[cfg(test)]
mod tests {
    use super::*;

    fn held(rows: u64, bytes: usize, ms: u64) -> Held {
        Held { rows, bytes, age: Duration::from_millis(ms) }
    }

    #[test]
    fn commits_early_unless_behind() {
        let (near, far) = (Duration::from_millis(5), Duration::from_secs(5));
        assert!(!is_full(held(1, 100, 1), near));
        assert!(is_full(held(20_000, 100, 1), near));
        assert!(is_full(held(1, 100, 25), near));
        assert!(!is_full(held(20_000, 100, 25), far));
        assert!(is_full(held(ROWS_BEHIND, 100, 25), far));
        assert!(is_full(held(1, 100, 500), far));
        assert!(is_full(held(1, 64 << 20, 1), far));
    }

    #[test]
    fn a_clock_that_is_ahead_is_no_lag() {
        let now = UNIX_EPOCH + POSTGRES_EPOCH + Duration::from_secs(10);
        assert_eq!(lag(4_000_000, now), Duration::from_secs(6));
        assert_eq!(lag(11_000_000, now), Duration::ZERO);
        assert_eq!(lag(-1, now), Duration::from_secs(10));
        assert_eq!(lag(i64::MAX, UNIX_EPOCH), Duration::ZERO);
    }
}
