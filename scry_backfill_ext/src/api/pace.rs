//! What `status` shows of rates and of the WAL that is kept: one row a job.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;

use pgrx::iter::TableIterator;
use pgrx::{name, pg_extern};

use crate::guc;
use crate::pg::shared;
use crate::worker::adaptive::Cause;
use crate::worker::pace::Limiter;
use crate::worker::shmem::JobRef;
use crate::worker::wal_level::Level;

/// Thousandths of the time that workers wait for the sender, from which on it
/// is what limits.
const BLOCKED_PERMILLE: u32 = 300;

/// The pace of the jobs of this database that have a place in shared memory.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the signature")]
fn live_pace() -> TableIterator<
    'static,
    (
        name!(job, String),
        name!(limiter, String),
        name!(limiter_detail, String),
        name!(copy_rows_per_second, i64),
        name!(copy_bytes_per_second, i64),
        name!(stream_rows_per_second, i64),
        name!(stream_bytes_per_second, i64),
        name!(wal_state, String),
        name!(wal_growth, i64),
        name!(seconds_to_critical, Option<i64>),
        name!(seconds_to_hard, Option<i64>),
        name!(wal_disk_free, Option<i64>),
    ),
> {
    TableIterator::new(JobRef::of_this_database().into_iter().map(|job| {
        let pace = &job.live().pace;
        let big = |number: &AtomicU64| i64::try_from(number.load(Acquire)).unwrap_or(i64::MAX);
        let left = |seconds: i64| (seconds >= 0).then_some(seconds);
        let server = &shared::live().pace;
        let (limiter, detail) = limiter(job);
        (
            job.name(),
            limiter,
            detail,
            big(&pace.copy_rows_rate),
            big(&pace.copy_bytes_rate),
            big(&pace.stream_rows_rate),
            big(&pace.stream_bytes_rate),
            Level::from_u32(pace.wal_level.load(Acquire)).as_str().to_owned(),
            big(&pace.wal_growth),
            left(pace.to_critical_s.load(Acquire)),
            left(pace.to_hard_s.load(Acquire)),
            (server.wal_disk_size.load(Acquire) > 0).then(|| big(&server.wal_disk_free)),
        )
    }))
}

/// What limits a job now, and how much.
fn limiter(job: JobRef) -> (String, String) {
    let pace = &job.live().pace;
    let lately = Limiter::lately(job);
    let detail = match lately {
        Limiter::Wal => "a slot keeps more WAL than that: copies hold until it keeps less".to_owned(),
        Limiter::JobRows => format!("{} rows a second are copied", pace.copy_rows_rate.load(Acquire)),
        Limiter::JobBytes => format!("{} bytes a second are copied", pace.copy_bytes_rate.load(Acquire)),
        Limiter::Adaptive => {
            let server = &shared::live().pace;
            let amount = f64::from(u32::try_from(server.amount_milli.load(Acquire)).unwrap_or(u32::MAX));
            let cause = Cause::from_u32(server.cause.load(Acquire)).describe(amount / 1000.0);
            let speed = 100 - server.brake_permille.load(Acquire).min(1000) / 10;
            format!("gives way to production ({cause}): copies at {speed} % of its speed")
        }
        Limiter::None => return outside(job),
    };
    (lately.as_str().to_owned(), detail)
}

/// What limits a job outside this server: the sender's rates, or what comes behind it.
fn outside(job: JobRef) -> (String, String) {
    let pace = &job.live().pace;
    if pace.blocked_permille.load(Acquire) < BLOCKED_PERMILLE {
        return (String::new(), String::new());
    }
    for (rate, limit, setting, unit) in [
        (&pace.copy_rows_rate, guc::max_rows_per_second(), "max_rows_per_second", "rows"),
        (&pace.copy_bytes_rate, guc::max_bytes_per_second(), "max_bytes_per_second", "bytes"),
        (&pace.stream_rows_rate, guc::max_stream_rows_per_second(), "max_stream_rows_per_second", "rows"),
        (&pace.stream_bytes_rate, guc::max_stream_bytes_per_second(), "max_stream_bytes_per_second", "bytes"),
    ] {
        let rate = rate.load(Acquire);
        // Batches are lumps: half of the limit is near enough to be it.
        if limit > 0 && rate >= limit / 2 {
            return (setting.to_owned(), format!("{rate} {unit} a second of {limit}"));
        }
    }
    let share = pace.blocked_permille.load(Acquire).min(1000) / 10;
    ("shadow".to_owned(), format!("workers wait for sender, network or shadow {share} % of the time"))
}
