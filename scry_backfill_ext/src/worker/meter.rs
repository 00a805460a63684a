//! Rates lately, from counters that only grow: what `status` shows as rows and
//! bytes a second. One a job, in the launcher.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::shmem::JobRef;

/// Shortest time that a rate is measured over.
const MEASURE_MIN: Duration = Duration::from_secs(1);

/// What the counters showed last, and when.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    at: Instant,
    seen: [u64; 5],
}

impl Meter {
    /// Begins to measure.
    pub fn new() -> Meter {
        Meter { at: Instant::now(), seen: [0; 5] }
    }

    /// Shows the job's rates, once a second.
    pub fn measure(&mut self, job: JobRef) {
        let passed = self.at.elapsed();
        if passed < MEASURE_MIN {
            return;
        }
        let live = job.live();
        let blocked = live.blocked_us.load(Relaxed).saturating_add(live.pace.copy_blocked_us.load(Relaxed));
        let counters = [&live.pace.copy_rows_sent, &live.copy_bytes, &live.stream_rows, &live.stream_bytes];
        let seen = counters.map(|counter| counter.load(Relaxed));
        let seen = [seen[0], seen[1], seen[2], seen[3], blocked];
        let rates: [u64; 5] = std::array::from_fn(|i| rate(self.seen[i], seen[i], passed));
        (self.at, self.seen) = (Instant::now(), seen);
        let pace = &live.pace;
        for (place, rate) in
            [&pace.copy_rows_rate, &pace.copy_bytes_rate, &pace.stream_rows_rate, &pace.stream_bytes_rate]
                .into_iter()
                .zip(rates)
        {
            place.store(rate, Relaxed);
        }
        // Microseconds a second are millionths of the time.
        pace.blocked_permille.store(u32::try_from(rates[4] / 1000).unwrap_or(u32::MAX), Relaxed);
    }
}

/// A counter's growth a second. One that is smaller than before has begun anew.
fn rate(before: u64, now: u64, passed: Duration) -> u64 {
    let grown = now.checked_sub(before).unwrap_or(now);
    let micros = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX).max(1);
    u64::try_from(u128::from(grown) * 1_000_000 / u128::from(micros)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::rate;
    use std::time::Duration;

    #[test]
    fn counts_growth_and_new_beginnings() {
        assert_eq!(rate(100, 300, Duration::from_secs(2)), 100);
        assert_eq!(rate(300, 50, Duration::from_secs(1)), 50);
        assert_eq!(rate(0, u64::MAX, Duration::from_micros(1)), u64::MAX);
    }
}
