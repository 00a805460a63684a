//! Whether server and database are ready for a job: the checks that `start()`
//! makes first and `check()` lists.

use pgrx::PgSqlErrorCode;

use super::refusal::Refusal;
use crate::guc;
use crate::pg::read;
use crate::pg::server::{self, WalLevel};
use crate::pg::shared::{self, JOBS_MAX};
use crate::worker::shmem::JobRef;

/// Workers a job needs to copy: stream worker, leader, one snapshot worker.
const WORKERS_NEEDED: i64 = 3;

/// The library must be preloaded: its workers are started by the postmaster.
pub fn preloaded() -> Result<(), Refusal> {
    if shared::available() {
        return Ok(());
    }
    Err(Refusal::not_ready(NOT_LOADED)
        .detail("Its workers and shared memory exist only if the server loads it at start.")
        .hint(preload_hint()))
}

/// Said wherever workers are missed.
pub const NOT_LOADED: &str = "scry_backfill is not loaded by the server";

/// What to do then.
pub fn preload_hint() -> String {
    let loaded = server::setting(c"shared_preload_libraries").unwrap_or_default();
    let line = match loaded.trim() {
        "" => "scry_backfill".to_owned(),
        others => format!("{others}, scry_backfill"),
    };
    format!("Add this line to postgresql.conf and restart the server: shared_preload_libraries = '{line}'")
}

/// Streaming needs the WAL to say what changed.
pub fn wal_level() -> Result<(), Refusal> {
    match server::wal_level() {
        WalLevel::Logical => Ok(()),
        level => Err(Refusal::not_ready("changes cannot be followed: wal_level is not \"logical\"")
            .detail(format!("wal_level is \"{}\".", level.as_str()))
            .hint("Add this line to postgresql.conf and restart the server: wal_level = logical")),
    }
}

/// A standby has no jobs of its own; `what` cannot be done there.
pub fn not_standby(what: &str) -> Result<(), Refusal> {
    if server::in_recovery() {
        return Err(Refusal::not_ready(format!("{what} during recovery"))
            .detail("This server is a standby.")
            .hint("Do it on the primary, or after this server's promotion."));
    }
    Ok(())
}

/// There must be a platform to send to.
pub fn endpoint() -> Result<(), Refusal> {
    const HINT: &str = "Set it to the platform's address, as ALTER SYSTEM SET scry_backfill.endpoint = \
                        'https://host:port'; and SELECT pg_reload_conf();";
    let endpoint = guc::endpoint();
    if endpoint.is_empty() {
        return Err(Refusal::not_ready("scry_backfill.endpoint is not set").hint(HINT));
    }
    guc::check_endpoint(&endpoint)
        .map_err(|problem| Refusal::invalid("scry_backfill.endpoint is not valid").detail(problem).hint(HINT))
}

/// Text crosses as UTF-8.
pub fn encoding() -> Result<(), Refusal> {
    let encoding = server::encoding();
    if encoding == "UTF8" {
        return Ok(());
    }
    Err(Refusal::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("databases with encoding {encoding} are not supported"),
    )
    .detail("Rows are sent as they are stored, and the shadow stores UTF8.")
    .hint("Only databases with encoding UTF8 can be shadowed."))
}

/// A replication slot must be free. As superuser.
pub fn free_slot(own_slot: &str) -> Result<(), Refusal> {
    let most: i64 = number(c"max_replication_slots");
    let used = read::one::<i64>(
        "SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE slot_name <> $1::name",
        &[pgrx::datum::DatumWithOid::from(own_slot)],
    )?
    .unwrap_or(0);
    if used < most {
        return Ok(());
    }
    Err(Refusal::new(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "all replication slots are in use",
    )
    .detail(format!("max_replication_slots is {most}."))
    .hint(format!(
        "Drop a slot that nobody needs (see pg_replication_slots), or add this line to postgresql.conf and \
             restart the server: max_replication_slots = {}",
        most.saturating_add(4)
    )))
}

/// Background workers must be free. As superuser.
pub fn free_workers() -> Result<(), Refusal> {
    const OTHERS: &str = "'client backend', 'autovacuum launcher', 'autovacuum worker', 'background writer', \
                          'checkpointer', 'startup', 'walwriter', 'walsender', 'walreceiver', 'archiver', 'logger', \
                          'standalone backend', 'walsummarizer', 'slotsync worker', 'io worker'";
    let most = number(c"max_worker_processes");
    let used = read::one::<i64>(
        &format!("SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type NOT IN ({OTHERS})"),
        &[],
    )?
    .unwrap_or(0);
    if used.saturating_add(WORKERS_NEEDED) <= most {
        return Ok(());
    }
    Err(Refusal::new(PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED, "too few background workers are free")
        .detail(format!(
            "max_worker_processes is {most}, {used} are in use, and a job that copies needs {WORKERS_NEEDED} or more."
        ))
        .hint(format!(
            "Add this line to postgresql.conf and restart the server: max_worker_processes = {}",
            used.saturating_add(8)
        )))
}

/// A server runs so many jobs and no more.
pub fn free_place() -> Result<(), Refusal> {
    if JobRef::in_use().count() < JOBS_MAX {
        return Ok(());
    }
    Err(Refusal::new(
        PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        "this server runs as many jobs as it can",
    )
    .detail(format!("At most {JOBS_MAX} jobs run at a time."))
    .hint("Stop another job."))
}

fn number(name: &std::ffi::CStr) -> i64 {
    server::setting(name).and_then(|value| value.parse().ok()).unwrap_or(0)
}
