//! What the views show of shared memory: one row a job, the sender, the events.

use std::sync::atomic::Ordering::Acquire;

use pgrx::iter::TableIterator;
use pgrx::pg_sys::Oid;
use pgrx::{name, pg_extern};
use scry_wire::Lsn;

use super::preflight;
use super::refusal::{Refusal, or_raise};
use crate::guc::{self, SenderKind};
use crate::pg::privileged::as_superuser;
use crate::pg::{read, server, shared};
use crate::snapshot::plan;
use crate::worker::shmem::{self, JobRef, State};

/// The jobs of this database that have a place in shared memory; without the
/// library's memory, those that would run, with the reason why they do not.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the signature")]
fn live_jobs() -> TableIterator<
    'static,
    (
        name!(job, String),
        name!(state, String),
        name!(message, String),
        name!(detail, String),
        name!(hint, String),
        name!(shadow, String),
        name!(started_at_us, i64),
        name!(failures, i64),
        name!(retry_at_us, i64),
        name!(sent_lsn, String),
        name!(applied_lsn, String),
        name!(flushed_lsn, String),
        name!(applied_commit_us, i64),
        name!(rows_streamed, i64),
        name!(bytes_streamed, i64),
        name!(transactions_streamed, i64),
        name!(rows_copied, i64),
        name!(bytes_copied, i64),
        name!(finish_step, String),
        name!(finish_done, i64),
        name!(finish_total, i64),
        name!(blocked_us, i64),
        name!(worker_pid, i32),
    ),
> {
    if !shared::available() {
        let (jobs, hint) = (or_raise(as_superuser(jobs_that_wait)), preflight::preload_hint());
        return TableIterator::new(jobs.into_iter().map(move |job| {
            let state = State::Starting.as_str().to_owned();
            let [detail, shadow, finish_step] = [const { String::new() }; 3];
            let [sent, applied, flushed] = [(); 3].map(|()| Lsn::INVALID.to_string());
            let (message, hint) = (preflight::NOT_LOADED.to_owned(), hint.clone());
            #[rustfmt::skip]
            let row = (
                job, state, message, detail, hint, shadow, 0, 0, 0, sent, applied, flushed, 0,
                0, 0, 0, 0, 0, finish_step, 0, 0, 0, 0,
            );
            row
        }));
    }
    TableIterator::new(JobRef::of_this_database().into_iter().map(|job| {
        let live = job.live();
        let text = job.texts();
        let count =
            |counter: &std::sync::atomic::AtomicU64| i64::try_from(counter.load(Acquire)).unwrap_or(i64::MAX);
        let lsn = |place: &std::sync::atomic::AtomicU64| Lsn::from(place.load(Acquire)).to_string();
        (
            text.name.as_str().to_owned(),
            job.state().as_str().to_owned(),
            text.message.as_str().to_owned(),
            text.detail.as_str().to_owned(),
            text.hint.as_str().to_owned(),
            text.shadow.as_str().to_owned(),
            live.started_at.load(Acquire),
            i64::from(live.failures.load(Acquire)),
            live.retry_at.load(Acquire),
            lsn(&live.sent_lsn),
            lsn(&live.applied_lsn),
            lsn(&live.flushed_lsn),
            live.applied_commit_time.load(Acquire),
            count(&live.stream_rows),
            count(&live.stream_bytes),
            count(&live.stream_transactions),
            count(&live.copy_rows),
            count(&live.copy_bytes),
            text.finish_step.as_str().to_owned(),
            i64::from(live.finish_done.load(Acquire)),
            i64::from(live.finish_total.load(Acquire)),
            count(&live.blocked_us),
            live.stream.pid.load(Acquire),
        )
    }))
}

/// The jobs that would run if the server had loaded the library. As superuser:
/// who may read the status need not be able to read the tables behind it.
fn jobs_that_wait() -> Result<Vec<String>, Refusal> {
    let sql = "SELECT array_agg(name ORDER BY name) FROM scry_backfill.job \
               WHERE desired = 'run' AND state NOT IN ('finished', 'needs_resync')";
    Ok(read::one::<Vec<String>>(sql, &[])?.unwrap_or_default())
}

/// The copies that are under way in this database, a row a table.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the signature")]
fn live_copies() -> TableIterator<
    'static,
    (
        name!(job, String),
        name!(relid, Oid),
        name!(chunks, i64),
        name!(chunks_done, i64),
        name!(blocks, i64),
        name!(rows, i64),
        name!(bytes, i64),
        name!(started_at_us, i64),
    ),
> {
    let big = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut rows = Vec::new();
    for job in JobRef::of_this_database() {
        let name = job.name();
        for table in plan::progress(job) {
            rows.push((
                name.clone(),
                Oid::from(table.relid),
                i64::from(table.chunks),
                i64::from(table.done_chunks),
                i64::from(table.blocks),
                big(table.rows),
                big(table.bytes),
                table.started_at,
            ));
        }
    }
    TableIterator::new(rows)
}

/// The sender, one row.
#[pg_extern(sql = false)]
fn live_sender() -> TableIterator<
    'static,
    (
        name!(sender, String),
        name!(message, String),
        name!(hint, String),
        name!(max_rows_per_second, i64),
        name!(max_bytes_per_second, i64),
    ),
> {
    let rate = |rate: u64| i64::try_from(rate).unwrap_or(i64::MAX);
    let (sender, message, hint) = if !shared::available() {
        ("not loaded".to_owned(), String::new(), String::new())
    } else {
        let pid = shared::live().sender_pid.load(Acquire);
        let sender = match guc::sender() {
            SenderKind::External => "external".to_owned(),
            SenderKind::Managed if pid != 0 => format!("managed, pid {pid}"),
            SenderKind::Managed => "managed, not running".to_owned(),
        };
        let (message, hint) = shared::read_texts(|texts| {
            (texts.launcher_message.as_str().to_owned(), texts.launcher_hint.as_str().to_owned())
        });
        (sender, message, hint)
    };
    TableIterator::once((
        sender,
        message,
        hint,
        rate(guc::max_rows_per_second()),
        rate(guc::max_bytes_per_second()),
    ))
}

/// The events of this database and of the server that are still in the ring.
#[pg_extern(sql = false)]
fn recent_events() -> TableIterator<
    'static,
    (
        name!(at_us, i64),
        name!(job, String),
        name!(level, String),
        name!(message, String),
        name!(hint, String),
    ),
> {
    if !shared::available() {
        return TableIterator::empty();
    }
    let database = server::database();
    let events = shmem::events_after(0);
    TableIterator::new(
        events.into_iter().filter(move |event| event.database == 0 || event.database == database).map(
            |event| {
                (
                    event.at,
                    event.job.as_str().to_owned(),
                    event.level_name().to_owned(),
                    event.message.as_str().to_owned(),
                    event.hint.as_str().to_owned(),
                )
            },
        ),
    )
}
