//! The scout: a short worker that reads the jobs of one database and takes a
//! place in shared memory for each that is wanted.
//!
//! It passes over rows that a transaction is changing (`SKIP LOCKED`): that
//! transaction asks for another scan when it ends. A database that was copied
//! from another one (`CREATE DATABASE ... TEMPLATE`, pg_upgrade keeps the OID)
//! holds that one's jobs: they are stopped here, and told.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::spi::{self, Spi};

use super::launcher;
use super::shmem::{Desired, JobRef, Level, State, add_event};
use crate::pg::{latch, server, shared};

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
    if let Err(error) = BackgroundWorker::transaction(|| scan(database)) {
        pgrx::warning!("could not read the jobs of the database: {error}");
    }
    latch::wake(&shared::live().launcher);
}

fn scan(database: u32) -> Result<(), spi::Error> {
    let exists = Spi::get_one::<bool>(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'scry_backfill')",
    )?;
    if exists != Some(true) {
        return Ok(());
    }
    for row in read_jobs()? {
        if row.database == database {
            take_place(database, &row);
        } else {
            stop_copied(database, &row)?;
        }
    }
    Ok(())
}

fn read_jobs() -> Result<Vec<JobRow>, spi::Error> {
    Spi::connect_mut(|client| {
        let rows = client.update(
            "SELECT name, slot_name, desired, generation, copy_id, database_oid \
             FROM scry_backfill.job \
             WHERE desired IN ('run', 'pause') AND state <> 'finished' FOR SHARE SKIP LOCKED",
            None,
            &[],
        )?;
        let mut jobs = Vec::new();
        for row in rows {
            jobs.push(JobRow {
                name: row.get::<String>(1)?.unwrap_or_default(),
                slot: row.get::<String>(2)?.unwrap_or_default(),
                desired: Desired::from_text(&row.get::<String>(3)?.unwrap_or_default()),
                generation: row.get::<i64>(4)?.unwrap_or_default(),
                copy_id: row.get::<i64>(5)?.unwrap_or_default(),
                database: row.get::<pg_sys::Oid>(6)?.map_or(0, pg_sys::Oid::to_u32),
            });
        }
        Ok(jobs)
    })
}

fn take_place(database: u32, row: &JobRow) {
    let generation = row.generation.unsigned_abs();
    if let Some(old) = JobRef::find(database, &row.name)
        && old.live().generation.load(Acquire) != generation
    {
        if launcher::has_workers(old) {
            // The last generation is still ending; the launcher gives the place back and scans again.
            old.set_desired(Desired::Stop);
            super::shmem::request_scan(database);
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
    live.generation.store(generation, Release);
    live.copy_id.store(row.copy_id.unsigned_abs(), Relaxed);
    if row.desired == Desired::Run && job.desired() != Desired::Run {
        live.failures.store(0, Relaxed);
        live.retry_at.store(0, Relaxed);
        job.set_state(State::Starting);
        job.say("", "", "");
    }
    job.set_desired(row.desired);
    latch::wake(&live.stream);
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
