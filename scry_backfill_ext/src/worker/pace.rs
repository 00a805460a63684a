//! How fast a job's workers go: its own limits, what production leaves, and
//! the guard of the WAL. Applied by the workers themselves between batches, so
//! that a change acts at once, whoever runs the sender.
//!
//! ```text
//! batch sent ─► hold? (the WAL) ─► debt of the job's buckets ─► share of the time (adaptive) ─► next batch
//! ```
//!
//! The job's buckets are one number each in shared memory: the time until which
//! what was sent is paid for. All copiers of a job push it on; who pushed it
//! into the future waits until then. The limits of the settings are the
//! sender's (`scry_sender/src/throttle.rs`), for all jobs together.
//!
//! Invariants: no wait is longer than [`SLICE`] without a look at what the user
//! wants; the clock never jumps.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::{Duration, Instant};

use super::adaptive;
use super::shmem::{JobRef, State};
use super::wal_level::Level;
use crate::pg::{latch, shared};

/// Longest wait between two looks at the round and the user's wishes.
const SLICE: Duration = Duration::from_millis(200);
/// Shorter pauses are saved up: a sleep costs a switch of processes.
const PAUSE_MIN: Duration = Duration::from_millis(4);
/// Longest pause for one batch: a new brake is seen after it.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a wait is shown as the limiter.
const SHOWN_US: i64 = 2_000_000;
/// A second, in microseconds.
const SECOND_US: f64 = 1e6;

/// Why a worker waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Limiter {
    /// It did not.
    #[default]
    None = 0,
    /// A slot keeps too much WAL: copies hold.
    Wal = 1,
    /// The job's own limit of rows.
    JobRows = 2,
    /// The job's own limit of bytes.
    JobBytes = 3,
    /// Production needs the machine.
    Adaptive = 4,
}

impl Limiter {
    const ALL: [Limiter; 5] =
        [Limiter::None, Limiter::Wal, Limiter::JobRows, Limiter::JobBytes, Limiter::Adaptive];

    /// As `status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Limiter::None => "",
            Limiter::Wal => "max_wal_critical",
            Limiter::JobRows => "the job's max_rows_per_second",
            Limiter::JobBytes => "the job's max_bytes_per_second",
            Limiter::Adaptive => "adaptive",
        }
    }

    /// What a job's workers waited for lately.
    pub fn lately(job: JobRef) -> Limiter {
        let pace = &job.live().pace;
        let limiter = Limiter::ALL.get(pace.limiter.load(Acquire) as usize).copied().unwrap_or_default();
        let ago = latch::monotonic_us() - pace.limited_at.load(Acquire);
        if ago < SHOWN_US { limiter } else { Limiter::None }
    }
}

/// A job's own limits (`start(options => ...)`); 0 is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// Rows a second, of all its copiers together.
    pub rows_per_second: u64,
    /// Bytes a second.
    pub bytes_per_second: u64,
    /// Seconds' worth that may pass at once after a pause.
    pub burst_multiplier: f64,
}

/// The pace of one worker.
pub struct Pace {
    job: JobRef,
    limits: Limits,
    /// Since when it has worked without a pause.
    since: Instant,
    /// What it had computed then, in microseconds.
    computed_us: i64,
    /// Pauses that are still to be made.
    owed: Duration,
}

impl Pace {
    /// For a worker of `job`.
    pub fn new(job: JobRef, limits: Limits) -> Pace {
        Pace { job, limits, since: Instant::now(), computed_us: latch::computed_us(), owed: Duration::ZERO }
    }

    /// A copier begins a chunk: what it waited for before was no work.
    pub fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// A copier has sent a batch, and meanwhile waited `blocked` for the
    /// sender. `look` is called at least once a slice and may end the process.
    pub fn after_batch(&mut self, rows: u64, bytes: u64, blocked: Duration, look: impl Fn()) {
        let pace = &self.job.live().pace;
        pace.copy_blocked_us.fetch_add(blocked.as_micros() as u64, Relaxed);
        pace.copy_rows_sent.fetch_add(rows, Relaxed);
        let worked = self.since.elapsed().saturating_sub(blocked);
        while pace.copy_held.load(Acquire) {
            self.wait(SLICE, Limiter::Wal, &look);
        }
        for (paid_until, amount, rate, limiter) in [
            (&pace.rows_paid_until, rows, self.limits.rows_per_second, Limiter::JobRows),
            (&pace.bytes_paid_until, bytes, self.limits.bytes_per_second, Limiter::JobBytes),
        ] {
            let wait = charge(paid_until, latch::monotonic_us(), amount, rate, self.limits.burst_multiplier);
            self.wait(wait, limiter, &look);
        }
        self.give_way(worked, self.brake(), &look);
        self.since = Instant::now();
    }

    /// The stream worker has sent a batch. It waits for production only, and
    /// never while its WAL is a matter of concern. Its work is what it has
    /// computed: most of its time it waits for WAL.
    pub fn after_stream(&mut self) {
        let computed_us = latch::computed_us();
        let worked = Duration::from_micros(u64::try_from(computed_us - self.computed_us).unwrap_or(0));
        self.computed_us = computed_us;
        let concern = Level::from_u32(self.job.live().pace.wal_level.load(Acquire)) != Level::Ok;
        let brake = shared::live().pace.brake_permille.load(Acquire);
        let brake = if concern { 0 } else { adaptive::stream_brake(brake) };
        self.give_way(worked, brake, &|| ());
    }

    /// The brake of a copy. The first copy of a job whose WAL is critical goes
    /// at full speed: only its end lets the WAL go.
    fn brake(&self) -> u32 {
        let level = Level::from_u32(self.job.live().pace.wal_level.load(Acquire));
        if level >= Level::Critical && is_first_copy(self.job) {
            return 0;
        }
        shared::live().pace.brake_permille.load(Acquire)
    }

    /// Sleeps for as long as makes `worked` the share of the time that is left.
    fn give_way(&mut self, worked: Duration, brake: u32, look: &impl Fn()) {
        if brake == 0 {
            self.owed = Duration::ZERO;
            return;
        }
        self.owed += pause(worked, brake);
        if self.owed >= PAUSE_MIN {
            let begun = Instant::now();
            self.wait(self.owed, Limiter::Adaptive, look);
            self.owed = self.owed.saturating_sub(begun.elapsed());
        }
    }

    fn wait(&self, wait: Duration, limiter: Limiter, look: &impl Fn()) {
        if wait.is_zero() {
            return;
        }
        let pace = &self.job.live().pace;
        pace.limiter.store(limiter as u32, Relaxed);
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            pace.limited_at.store(latch::monotonic_us(), Relaxed);
            latch::wait(left.min(SLICE).max(Duration::from_millis(1)));
            look();
        }
    }
}

/// Whether the job's copy is the one before it streams: what its slot keeps
/// goes only when this copy is done.
pub fn is_first_copy(job: JobRef) -> bool {
    !matches!(job.state(), State::Streaming | State::Finished)
}

/// The pause that goes with so much work under this brake.
fn pause(worked: Duration, brake: u32) -> Duration {
    let brake = brake.min(999);
    (worked * brake / (1000 - brake)).min(PAUSE_MAX)
}

/// Charges `amount` to a bucket of `rate` a second and `burst` seconds; how
/// long to wait until it is paid.
fn charge(paid_until: &AtomicI64, now_us: i64, amount: u64, rate: u64, burst: f64) -> Duration {
    if rate == 0 || amount == 0 {
        return Duration::ZERO;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // `as` saturates.
    let (cost_us, burst_us) = ((amount as f64 * SECOND_US / rate as f64) as i64, (burst * SECOND_US) as i64);
    let push = |until: i64| until.max(now_us - burst_us).saturating_add(cost_us);
    let before = paid_until.fetch_update(AcqRel, Acquire, |until| Some(push(until))).unwrap_or_default();
    Duration::from_micros(u64::try_from(push(before) - now_us).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(wait: Duration) -> u128 {
        wait.as_millis()
    }

    #[test]
    fn the_burst_is_free_and_the_rest_takes_its_time() {
        let bucket = AtomicI64::new(0);
        let now = 1_000_000_000;
        assert_eq!(ms(charge(&bucket, now, 1500, 1000, 1.5)), 0);
        assert_eq!(ms(charge(&bucket, now, 500, 1000, 1.5)), 500);
        // Another copier, at the same moment, waits behind it.
        assert_eq!(ms(charge(&bucket, now, 500, 1000, 1.5)), 1000);
        assert_eq!(ms(charge(&bucket, now + 1_000_000, 100, 1000, 1.5)), 100);
    }

    #[test]
    fn a_pause_fills_the_bucket_to_its_burst_and_no_further() {
        let bucket = AtomicI64::new(0);
        charge(&bucket, 1_000_000_000, 10_000, 1000, 1.0);
        let later = 3_600_000_000;
        assert_eq!(ms(charge(&bucket, later, 2000, 1000, 1.0)), 1000);
    }

    #[test]
    fn no_limit_and_absurd_amounts_are_fine() {
        let bucket = AtomicI64::new(0);
        assert_eq!(charge(&bucket, 5, u64::MAX, 0, 1.5), Duration::ZERO);
        assert!(charge(&bucket, 5, u64::MAX, 1, 100.0) > Duration::from_secs(1 << 30));
        assert!(charge(&bucket, 5, 1, u64::MAX, 0.01) > Duration::ZERO);
    }

    #[test]
    fn pauses_are_the_share_that_is_given_up() {
        let worked = Duration::from_millis(10);
        assert_eq!(ms(pause(worked, 0)), 0);
        assert_eq!(ms(pause(worked, 500)), 10);
        assert_eq!(ms(pause(worked, 950)), 190);
        assert_eq!(pause(Duration::from_secs(60), 950), PAUSE_MAX);
        assert_eq!(ms(pause(Duration::from_millis(1), 5000)), 999);
    }
}
