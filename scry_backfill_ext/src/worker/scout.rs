//! The scout: a short worker that reads the jobs of one database and takes a
//! place in shared memory for each that is wanted. It also stores the events
//! of the database, and which of its jobs had their slot given up.
//!
//! It passes over jobs that a transaction is changing (it holds the job's
//! advisory lock): that transaction asks for another scan when it ends. It gives
//! way to whoever holds a lock on the extension's tables, and looks again. A
//! database that was copied from another one (`CREATE DATABASE ... TEMPLATE`)
//! holds that one's jobs: they are stopped here, and told.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::{self, Spi};

use super::launcher;
use super::shmem::{Desired, JobRef, Level, State, add_event};
use crate::api::job;
use crate::pg::{latch, read, server, shared, subtransaction};

/// How long to wait before a job that is being changed is looked at again.
const PASSED_OVER_RETRY: Duration = Duration::from_secs(2);

/// Events that the table keeps.
const EVENTS_KEPT: i64 = 10_000;

/// A row of the table `job`.
struct JobRow {
    name: String,
    slot: String,
    desired: Desired,
    generation: i64,
    copy_id: i64,
    database: u32,
}

/// Entry point of the scout; the argument is the database.
pub fn main(argument: usize) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    let Ok(database) = u32::try_from(argument) else { return };
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(database)), None);
    server::set_setting(c"search_path", "pg_catalog, pg_temp");
    let mut found = Found::default();
    match BackgroundWorker::transaction(|| scan_or_give_way(database)) {
        Ok(scanned) => found = scanned,
        Err(error) => pgrx::warning!("could not read the jobs of the database: {error}"),
    }
    // Only now it is committed.
    for job in found.given_up {
        job.live().pace.end_stored.store(true, Release);
    }
    if found.passed_over {
        // The transaction that changes the job asks for a scan just before it
        // gives the lock back; that scan may have been this one.
        latch::wait(PASSED_OVER_RETRY);
        super::shmem::request_scan(database);
    }
    latch::wake(&shared::live().launcher);
}

/// What a scan leaves to be done.
#[derive(Default)]
struct Found {
    /// A job was passed over because it is being changed, or all because of a lock on their tables.
    passed_over: bool,
    /// Jobs whose given-up slots have been written down.
    given_up: Vec<JobRef>,
}

/// Scans, unless somebody holds a lock on the extension's tables, to drop them for instance.
fn scan_or_give_way(database: u32) -> Result<Found, spi::Error> {
    let scanning = || {
        subtransaction::wait_briefly();
        Some(scan(database))
    };
    let scanned = subtransaction::kept(scanning, subtransaction::none_if_locked);
    scanned.unwrap_or(Ok(Found { passed_over: true, given_up: Vec::new() }))
}

fn scan(database: u32) -> Result<Found, spi::Error> {
    let exists = read::one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'scry_backfill')",
        &[],
    )?;
    if exists != Some(true) {
        return Ok(Found::default());
    }
    store_events(database)?;
    let mut found = Found { passed_over: false, given_up: store_given_up(database)? };
    for name in wanted_jobs()? {
        if !job::try_lock(&name)? {
            found.passed_over = true;
            continue;
        }
        // Read again: it may have changed before the lock was got.
        match read_job(&name)? {
            Some(row) if row.database == database => take_place(database, &row),
            Some(row) => stop_copied(database, &row)?,
            None => {}
        }
    }
    Ok(found)
}

const WANTED: &str = "desired IN ('run', 'pause') AND state NOT IN ('finished', 'needs_resync')";

fn wanted_jobs() -> Result<Vec<String>, spi::Error> {
    let sql = format!("SELECT array_agg(name ORDER BY name) FROM scry_backfill.job WHERE {WANTED}");
    Ok(read::one::<Vec<String>>(&sql, &[])?.unwrap_or_default())
}

fn read_job(name: &str) -> Result<Option<JobRow>, spi::Error> {
    let sql = format!(
        "SELECT name, slot_name, desired, generation, copy_id, database_oid \
         FROM scry_backfill.job WHERE name = $1 AND {WANTED}"
    );
    read::rows(&sql, &[DatumWithOid::from(name)], |rows| {
        if rows.is_empty() {
            return Ok(None);
        }
        let row = rows.first();
        Ok(Some(JobRow {
            name: row.get::<String>(1)?.unwrap_or_default(),
            slot: row.get::<String>(2)?.unwrap_or_default(),
            desired: Desired::from_text(&row.get::<String>(3)?.unwrap_or_default()),
            generation: row.get::<i64>(4)?.unwrap_or_default(),
            copy_id: row.get::<i64>(5)?.unwrap_or_default(),
            database: row.get::<pg_sys::Oid>(6)?.map_or(0, pg_sys::Oid::to_u32),
        }))
    })
}

fn take_place(database: u32, row: &JobRow) {
    if let Some(old) = JobRef::find(database, &row.name)
        && old.desired() == Desired::GiveUp
    {
        // Its end is not stored yet.
        return;
    }
    if let Some(old) = JobRef::find(database, &row.name)
        && old.desired() == Desired::Stop
    {
        if launcher::has_workers(old) {
            // The job's last life is still ending; the launcher scans again when it has.
            return;
        }
        old.release();
    }
    let Some(job) = JobRef::take(database, &row.name, &row.slot) else {
        add_event(
            database,
            &row.name,
            Level::Error,
            "the job cannot run: this server already runs as many jobs as it can",
            "Stop another job.",
        );
        return;
    };
    let live = job.live();
    if live.generation.load(Acquire) == 0 {
        live.generation.store(row.generation.unsigned_abs(), Release);
        live.copy_id.store(row.copy_id.unsigned_abs(), Relaxed);
    }
    if row.desired == Desired::Run && job.desired() != Desired::Run {
        live.failures.store(0, Relaxed);
        live.retry_at.store(0, Relaxed);
        job.set_state(State::Starting);
        job.say("", "", "");
    }
    job.set_desired(row.desired);
    latch::wake(&live.stream);
}

/// Moves the events of this database and of the server from the ring, where a
/// restart loses them, into the table; keeps the newest [`EVENTS_KEPT`] there.
fn store_events(database: u32) -> Result<(), spi::Error> {
    let mut stored = false;
    for event in super::shmem::events_after(0) {
        if event.database != 0 && event.database != database {
            continue;
        }
        let args = [
            DatumWithOid::from(event.at),
            DatumWithOid::from(event.job.as_str()),
            DatumWithOid::from(event.message.as_str()),
            DatumWithOid::from(event.level_name()),
            DatumWithOid::from(event.hint.as_str()),
        ];
        let known = read::one::<bool>(
            "SELECT EXISTS (SELECT FROM scry_backfill.event_log AS l \
             WHERE l.at = to_timestamp(946684800 + $1::float8 / 1000000) AND l.job = $2 AND l.message = $3)",
            args.get(..3).unwrap_or_default(),
        )?;
        if known == Some(true) {
            continue;
        }
        Spi::run_with_args(
            "INSERT INTO scry_backfill.event_log (at, job, message, level, hint) \
             VALUES (to_timestamp(946684800 + $1::float8 / 1000000), $2, $3, $4, $5)",
            &args,
        )?;
        stored = true;
    }
    if stored {
        Spi::run_with_args(
            "DELETE FROM scry_backfill.event_log WHERE id <= (SELECT max(id) FROM scry_backfill.event_log) - $1",
            &[DatumWithOid::from(EVENTS_KEPT)],
        )?;
    }
    Ok(())
}

/// Writes down which jobs had their slot given up: they wait for `resume()`.
/// One that a transaction is changing is written by the next scout.
fn store_given_up(database: u32) -> Result<Vec<JobRef>, spi::Error> {
    let mut stored = Vec::new();
    for job in JobRef::in_use() {
        let live = job.live();
        if live.database.load(Relaxed) != database
            || job.desired() != Desired::GiveUp
            || job.state() != State::NeedsResync
            || live.pace.end_stored.load(Acquire)
            || !job::try_lock(&job.name())?
        {
            continue;
        }
        Spi::run_with_args(
            "UPDATE scry_backfill.job SET desired = 'pause', state = 'needs_resync', state_reason = $2, \
             changed_at = pg_catalog.now() WHERE name = $1",
            &[DatumWithOid::from(job.name()), DatumWithOid::from(job.texts().message.as_str())],
        )?;
        stored.push(job);
    }
    Ok(stored)
}

fn stop_copied(database: u32, row: &JobRow) -> Result<(), spi::Error> {
    Spi::run_with_args(
        "UPDATE scry_backfill.job SET desired = 'stop', state = 'stopped', \
         changed_at = pg_catalog.now() WHERE name = $1",
        &[DatumWithOid::from(row.name.as_str())],
    )?;
    add_event(
        database,
        &row.name,
        Level::Warning,
        "the job came with a copy of another database and was not started here",
        "Start a job of this database with scry_backfill.start().",
    );
    Ok(())
}
