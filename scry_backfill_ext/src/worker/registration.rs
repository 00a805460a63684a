//! The extension's background workers, as the postmaster knows them.
//!
//! All run as the bootstrap superuser, so that members of `pg_signal_backend`
//! cannot end them, and none is restarted by the postmaster but the launcher:
//! the launcher decides when a worker is tried again.

use std::time::Duration;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker};
use pgrx::pg_sys;

use super::shmem::JobRef;
use crate::pg::{server, worker};

/// The library all workers are loaded from.
const LIBRARY: &str = "scry_backfill";

/// The postmaster waits this long before it starts the launcher again.
const LAUNCHER_RESTART: Duration = Duration::from_secs(5);

/// Registers the launcher; only while `shared_preload_libraries` are loaded.
/// It starts once the server accepts writes: on a standby, at promotion.
pub fn register_launcher() {
    BackgroundWorkerBuilder::new("scry_backfill launcher")
        .set_type("scry_backfill launcher")
        .set_library(LIBRARY)
        .set_function("scry_backfill_launcher_main")
        .enable_spi_access()
        .set_restart_time(Some(LAUNCHER_RESTART))
        .load();
}

/// Starts a job's stream worker. `None`: no background worker slot is free.
pub fn start_stream(job: JobRef) -> Option<Started> {
    let name = format!("scry_backfill stream of job {}", job.name());
    start(&name, "scry_backfill stream", "scry_backfill_stream_main", u32::try_from(job.index()).ok()?)
}

/// Starts the snapshot leader of a job. `None`: no background worker slot is free.
pub fn start_leader(job: JobRef) -> Option<Started> {
    let name = format!("scry_backfill snapshot leader of job {}", job.name());
    let argument = u32::try_from(job.index()).ok()?;
    start(&name, "scry_backfill snapshot leader", "scry_backfill_leader_main", argument)
}

/// Starts the leader of a late copy. `None`: no background worker slot is free.
pub fn start_late_leader(job: JobRef) -> Option<Started> {
    let name = format!("scry_backfill late leader of job {}", job.name());
    let argument = u32::try_from(super::leader::late_argument(job)).ok()?;
    start(&name, "scry_backfill snapshot leader", "scry_backfill_leader_main", argument)
}

/// Starts snapshot worker `number` of a job. `None`: no background worker slot is free.
pub fn start_copier(job: JobRef, number: usize) -> Option<Started> {
    let name = format!("scry_backfill snapshot worker {number} of job {}", job.name());
    let argument = u32::try_from(super::copier::argument(job, number)).ok()?;
    start(&name, "scry_backfill snapshot worker", "scry_backfill_copier_main", argument)
}

/// Sends a scout into a database. `None`: no background worker slot is free.
pub fn start_scout(database: u32) -> Option<Started> {
    start("scry_backfill scout", "scry_backfill scout", "scry_backfill_scout_main", database)
}

fn start(name: &str, kind: &str, function: &str, argument: u32) -> Option<Started> {
    // The name's field has 96 bytes.
    let mut end = name.len().min(95);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let builder = BackgroundWorkerBuilder::new(name.get(..end).unwrap_or(kind))
        .set_type(kind)
        .set_library(LIBRARY)
        .set_function(function)
        .set_argument(Some(pg_sys::Datum::from(argument)))
        .enable_spi_access()
        .set_notify_pid(server::pid())
        .set_restart_time(None);
    // The stream worker starts leaders from within the decoder's callbacks.
    worker::in_lasting_memory(|| builder.load_dynamic()).ok().map(Started)
}

/// A worker that this process has started.
pub struct Started(DynamicBackgroundWorker);

impl Started {
    /// Whether it has ended, or never came up.
    pub fn is_gone(&self) -> bool {
        matches!(self.0.pid(), Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied))
    }
}
