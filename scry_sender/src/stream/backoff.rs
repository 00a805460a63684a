//! How long to wait between attempts.
//!
//! Invariants: 0.2 s at first, never above 30 s, doubled each time, with
//! jitter, so that many workers do not come back at the same moment.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// The first delay, before jitter.
const MIN: Duration = Duration::from_millis(200);
/// The last delay, before jitter: the library adds up to as much again.
const MAX: Duration = Duration::from_secs(15);
/// The first delay where somebody has to mend something first.
const SLOW_MIN: Duration = Duration::from_secs(2);
/// The most that a platform can make us wait by Retry-After.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The delays of one worker's attempts.
#[derive(Debug)]
pub struct Backoff {
    delays: ExponentialBackoff,
}

impl Default for Backoff {
    fn default() -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(MIN)
            .with_max_delay(MAX)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter();
        Backoff { delays: builder.build() }
    }
}

impl Backoff {
    /// The next delay.
    pub fn next(&mut self, slowly: bool, at_least: Option<Duration>) -> Duration {
        let delay = self.delays.next().unwrap_or(MAX);
        let floor = if slowly { SLOW_MIN } else { Duration::ZERO };
        delay.max(floor).max(at_least.unwrap_or_default().min(RETRY_AFTER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_from_a_fifth_of_a_second_to_half_a_minute() {
        let mut backoff = Backoff::default();
        let first = backoff.next(false, None);
        assert!(first >= MIN && first <= 2 * MIN, "{first:?}");
        let delays: Vec<_> = (0..100).map(|_| backoff.next(false, None)).collect();
        assert!(delays.iter().all(|d| *d <= Duration::from_secs(30)));
        assert!(delays[20..].iter().all(|d| *d >= MAX));
        assert!(delays[20..].windows(2).any(|w| w[0] != w[1]), "jittered");
    }

    #[test]
    fn respects_what_the_platform_asks_for_within_bounds() {
        let mut backoff = Backoff::default();
        assert!(backoff.next(true, None) >= SLOW_MIN);
        assert!(backoff.next(false, Some(Duration::from_secs(9))) >= Duration::from_secs(9));
        assert!(backoff.next(false, Some(Duration::from_secs(9999))) <= RETRY_AFTER_MAX);
    }
}
