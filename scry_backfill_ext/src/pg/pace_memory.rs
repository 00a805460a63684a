//! What the guard of the WAL, the controller of the load and the copiers tell
//! each other through shared memory. Data only, part of [`super::shared`].

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64};

/// A job's part.
#[derive(Default)]
pub struct JobPace {
    /// `worker::wal_level::Level`. Set by the guard.
    pub wal_level: AtomicU32,
    /// Bytes of WAL that the slot keeps.
    pub wal_kept: AtomicU64,
    /// Bytes a second by which that grows.
    pub wal_growth: AtomicU64,
    /// Seconds until the critical bound at this rate; -1 for never.
    pub to_critical_s: AtomicI64,
    /// Seconds until the slot is given up at this rate; -1 for never.
    pub to_hard_s: AtomicI64,
    /// The copiers wait: the stream gets everything.
    pub copy_held: AtomicBool,
    /// The end of a given-up slot has been written into the job's table.
    pub end_stored: AtomicBool,
    /// Until when the job's rows are paid for (monotonic microseconds).
    pub rows_paid_until: AtomicI64,
    /// Until when the job's bytes are.
    pub bytes_paid_until: AtomicI64,
    /// `worker::pace::Limiter`: why a worker of the job waited last.
    pub limiter: AtomicU32,
    /// When that was (monotonic microseconds).
    pub limited_at: AtomicI64,
    /// Rows that copiers have sent; those that are repeated count again.
    pub copy_rows_sent: AtomicU64,
    /// Microseconds that copiers have waited until the sender took more.
    pub copy_blocked_us: AtomicU64,
    /// Rows a second that were copied lately.
    pub copy_rows_rate: AtomicU64,
    /// Bytes a second that were copied lately.
    pub copy_bytes_rate: AtomicU64,
    /// Row changes a second that were streamed lately.
    pub stream_rows_rate: AtomicU64,
    /// Bytes a second that were streamed lately.
    pub stream_bytes_rate: AtomicU64,
    /// Thousandths of the last second that the job's workers waited for the sender.
    pub blocked_permille: AtomicU32,
}

impl JobPace {
    /// As for a job that has just begun.
    pub fn reset(&self) {
        for number in [
            &self.wal_kept,
            &self.wal_growth,
            &self.copy_rows_sent,
            &self.copy_blocked_us,
            &self.copy_rows_rate,
            &self.copy_bytes_rate,
            &self.stream_rows_rate,
            &self.stream_bytes_rate,
        ] {
            number.store(0, Relaxed);
        }
        for time in [&self.rows_paid_until, &self.bytes_paid_until, &self.limited_at] {
            time.store(0, Relaxed);
        }
        for seconds in [&self.to_critical_s, &self.to_hard_s] {
            seconds.store(-1, Relaxed);
        }
        for number in [&self.wal_level, &self.limiter, &self.blocked_permille] {
            number.store(0, Relaxed);
        }
        self.copy_held.store(false, Relaxed);
        self.end_stored.store(false, Relaxed);
    }
}

/// The server's part.
#[derive(Default)]
pub struct ServerPace {
    /// Thousandths of its speed that a copy gives up for production.
    pub brake_permille: AtomicU32,
    /// `worker::adaptive::Cause`: why.
    pub cause: AtomicU32,
    /// How much of the cause there is, in thousandths.
    pub amount_milli: AtomicU64,
    /// A slot of ours keeps more than the critical bound: streams have no limits.
    pub wal_critical: AtomicBool,
    /// Free bytes of the disk that holds the WAL; 0 when not known.
    pub wal_disk_free: AtomicU64,
    /// Size of that disk.
    pub wal_disk_size: AtomicU64,
}
