//! Rates: token buckets for rows and bytes, shared by all connections of a kind.
//!
//! ```text
//! queue ──► rows bucket ──► bytes bucket ──► stream
//! ```
//!
//! Role: one stage in the chain; a piece passes when both buckets have paid
//! for it. Flow: what is above a bucket's burst is paid in parts. SIGHUP
//! replaces the buckets, and whoever waits goes on by the new ones.
//! Invariants: unlimited costs nothing; the way down is never throttled; the
//! clock is monotonic, so a jump of the wall clock changes nothing.
//! What it does not do: it does not adapt to the source's load.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::watch;

use crate::config::{RateLimitConfig, Rates};
use crate::metrics;
use crate::scan::Scanned;

/// Tokens a second of a bucket at most: a token then lasts at least a
/// microsecond, and the library's rounding to nanoseconds stays below a
/// thousandth. Larger rates count in larger units.
const TOKENS_PER_SECOND_MAX: u64 = 1_000_000;

type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// One token bucket.
#[derive(Debug)]
struct Bucket<C: Clock> {
    limiter: Limiter<C>,
    clock: C,
    unit: u64,
    burst: u32,
}

impl<C: Clock + Clone> Bucket<C> {
    /// A bucket for `rate` a second; none when 0, which is unlimited.
    fn new(rate: u64, burst_multiplier: f64, clock: C) -> Option<Self> {
        let unit = (rate / TOKENS_PER_SECOND_MAX).max(1);
        let tokens = NonZeroU32::new(u32::try_from(rate / unit).unwrap_or(u32::MAX))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        // `as` saturates, and the multiplier is checked to be 0.01 to 100.
        let burst = (f64::from(tokens.get()) * burst_multiplier) as u32;
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let limiter =
            RateLimiter::direct_with_clock(Quota::per_second(tokens).allow_burst(burst), clock.clone());
        Some(Bucket { limiter, clock, unit, burst: burst.get() })
    }

    /// Pays for as much of `left` as one burst allows: what is left then, or
    /// how long to wait first.
    fn pay(&self, left: u64) -> Result<u64, Duration> {
        let tokens = left.div_ceil(self.unit).min(self.burst.into());
        let Some(count) = u32::try_from(tokens).ok().and_then(NonZeroU32::new) else { return Ok(0) };
        match self.limiter.check_n(count) {
            Ok(Ok(())) => Ok(left.saturating_sub(tokens.saturating_mul(self.unit))),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.clock.now())),
            // Never: the count is at most the burst.
            Err(_) => Ok(0),
        }
    }
}

/// The buckets of one kind of connection.
#[derive(Debug)]
struct Buckets {
    rows: Option<Bucket<MonotonicClock>>,
    bytes: Option<Bucket<MonotonicClock>>,
}

impl Buckets {
    fn new(rates: &Rates) -> Self {
        let bucket = |rate| Bucket::new(rate, rates.burst_multiplier, MonotonicClock);
        Buckets { rows: bucket(rates.rows_per_second), bytes: bucket(rates.bytes_per_second) }
    }

    fn of(&self, what: What) -> Option<&Bucket<MonotonicClock>> {
        match what {
            What::Rows => self.rows.as_ref(),
            What::Bytes => self.bytes.as_ref(),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum What {
    Rows,
    Bytes,
}

/// Where the connections of one kind pass; clones share the buckets.
#[derive(Debug, Clone)]
pub struct Gate(watch::Receiver<Buckets>);

impl Gate {
    /// Waits until a piece may pass. Safe to drop; what was paid stays paid.
    pub async fn pass(&mut self, scanned: Scanned, bytes: usize) {
        self.pay(What::Rows, scanned.rows).await;
        self.pay(What::Bytes, bytes as u64).await;
    }

    /// Whether a piece may have to wait here.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        let buckets = self.0.borrow();
        buckets.rows.is_some() || buckets.bytes.is_some()
    }

    async fn pay(&mut self, what: What, mut left: u64) {
        while left > 0 {
            let paid = match self.0.borrow_and_update().of(what) {
                None => return,
                Some(bucket) => bucket.pay(left),
            };
            match paid {
                Ok(rest) => left = rest,
                Err(wait) => self.wait(wait).await,
            }
        }
    }

    async fn wait(&mut self, wait: Duration) {
        let begun = Instant::now();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // New rates: count again.
            Ok(()) = self.0.changed() => {}
        }
        metrics::throttled(begun.elapsed());
    }
}

/// Both gates, and the means to change their rates.
#[derive(Debug)]
pub struct Throttle {
    copy: watch::Sender<Buckets>,
    stream: watch::Sender<Buckets>,
    rates: std::sync::Mutex<RateLimitConfig>,
}

impl Throttle {
    /// Full buckets at these rates.
    #[must_use]
    pub fn new(rates: &RateLimitConfig) -> Self {
        Throttle {
            copy: watch::Sender::new(Buckets::new(&rates.copy)),
            stream: watch::Sender::new(Buckets::new(&rates.stream)),
            rates: std::sync::Mutex::new(*rates),
        }
    }

    /// Changes the rates for everything that runs. Unchanged rates keep their
    /// buckets as full as they are.
    pub fn set(&self, rates: &RateLimitConfig) {
        let mut old = self.rates.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if old.copy != rates.copy {
            self.copy.send_replace(Buckets::new(&rates.copy));
        }
        if old.stream != rates.stream {
            self.stream.send_replace(Buckets::new(&rates.stream));
        }
        *old = *rates;
    }

    /// The gate of connections that copy tables.
    #[must_use]
    pub fn copy(&self) -> Gate {
        Gate(self.copy.subscribe())
    }

    /// The gate of connections that stream changes.
    #[must_use]
    pub fn stream(&self) -> Gate {
        Gate(self.stream.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    /// Pays `amount` on a fake clock; how long it took.
    fn time_to_pay(bucket: &Bucket<FakeRelativeClock>, mut amount: u64) -> Duration {
        let mut waited = Duration::ZERO;
        while amount > 0 {
            match bucket.pay(amount) {
                Ok(left) => amount = left,
                Err(wait) => {
                    bucket.clock.advance(wait);
                    waited += wait;
                }
            }
        }
        waited
    }

    fn about(got: Duration, want: f64) {
        let got = got.as_secs_f64();
        assert!((got - want).abs() <= want * 0.01 + 1e-6, "{got} s instead of {want} s");
    }

    #[test]
    fn zero_is_unlimited() {
        assert!(Bucket::new(0, 1.0, FakeRelativeClock::default()).is_none());
    }

    #[test]
    fn the_burst_is_free_and_the_rest_takes_its_time() {
        let bucket = Bucket::new(1000, 2.0, FakeRelativeClock::default()).unwrap();
        about(time_to_pay(&bucket, 2000), 0.0);
        about(time_to_pay(&bucket, 500), 0.5);
    }

    #[test]
    fn a_piece_larger_than_the_burst_is_paid_in_parts() {
        let bucket = Bucket::new(1000, 0.5, FakeRelativeClock::default()).unwrap();
        about(time_to_pay(&bucket, 1 << 20), ((1 << 20) as f64 - 500.0) / 1000.0);
    }

    #[test]
    fn high_rates_are_exact_too() {
        for rate in [300_000_000_u64, 700_000_000, 10_000_000_000, u64::MAX / 2] {
            let bucket = Bucket::new(rate, 0.1, FakeRelativeClock::default()).unwrap();
            about(time_to_pay(&bucket, rate), 0.9);
        }
    }

    #[test]
    fn a_pause_fills_the_bucket_to_its_burst_and_no_further() {
        let bucket = Bucket::new(100, 1.0, FakeRelativeClock::default()).unwrap();
        time_to_pay(&bucket, 100);
        bucket.clock.advance(Duration::from_secs(3600));
        about(time_to_pay(&bucket, 200), 1.0);
    }

    #[test]
    fn the_smallest_rates_work() {
        let bucket = Bucket::new(1, 0.01, FakeRelativeClock::default()).unwrap();
        about(time_to_pay(&bucket, 3), 2.0);
    }

    #[tokio::test(start_paused = true)]
    async fn new_rates_free_whoever_waits() {
        let slow = Rates { bytes_per_second: 1, ..Rates::default() };
        let throttle = Throttle::new(&RateLimitConfig { copy: slow, stream: Rates::default() });
        let mut gate = throttle.copy();
        throttle.stream().pass(Scanned::default(), 1 << 30).await;
        let waiting = tokio::spawn(async move { gate.pass(Scanned::default(), 1 << 30).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        throttle.set(&RateLimitConfig::default());
        waiting.await.unwrap();
    }
}
