//! Keeps `DROP EXTENSION scry_backfill` from leaving workers and slots behind.
//!
//! The server calls the object access hook before it drops anything; dropping
//! the extension (by itself, with its schema or by DROP OWNED) is refused
//! while the database has a job that runs, a job's slot, or a place in shared
//! memory. A job that has just been started has neither slot nor place: it is
//! looked for in its table, which is dropped before the extension is.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};

use super::{read, server, shared};
use crate::worker::launcher;
use crate::worker::shmem::{Desired, JobRef};

/// The hook that was there before ours, if any.
static mut PREVIOUS: pg_sys::object_access_hook_type = None;
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Installs the hook; once a process.
pub fn install() {
    if INSTALLED.swap(true, Relaxed) {
        return;
    }
    // SAFETY: single-threaded server process, in _PG_init.
    unsafe {
        PREVIOUS = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(on_access);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    sub: i32,
    argument: *mut c_void,
) {
    // SAFETY: set once at load; called with what the server gave us.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(access, class, object, sub, argument);
        }
    }
    if access != pg_sys::ObjectAccessType::OAT_DROP {
        return;
    }
    let job = match class {
        pg_sys::ExtensionRelationId if is_ours(object) => job_of_this_database(),
        pg_sys::RelationRelationId if sub == 0 && is_job_table(object) => job_in_table(),
        _ => None,
    };
    if let Some(job) = job {
        pgrx::pg_sys::panic::ErrorReport::new(
            PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
            format!("cannot drop extension scry_backfill because job \"{job}\" exists"),
            "drop_guard",
        )
        .set_detail("Its slot would keep WAL that nobody reads.")
        .set_hint(format!("Stop it first: SELECT scry_backfill.stop('{}');", job.replace('\'', "''")))
        .report(pgrx::PgLogLevel::ERROR);
    }
}

fn is_ours(extension: pg_sys::Oid) -> bool {
    // SAFETY: a catalog lookup inside the transaction that drops; NULL for an unknown OID.
    unsafe {
        let name = pg_sys::get_extension_name(extension);
        !name.is_null() && CStr::from_ptr(name) == c"scry_backfill"
    }
}

fn is_job_table(relation: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookups inside the transaction that drops; NULL for an unknown OID.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        if name.is_null() || CStr::from_ptr(name) != c"job" {
            return false;
        }
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation));
        !schema.is_null() && CStr::from_ptr(schema) == c"scry_backfill"
    }
}

/// Name of a job that somebody has started and nobody has stopped.
fn job_in_table() -> Option<String> {
    const SQL: &str = "SELECT j.name FROM scry_backfill.job AS j \
        WHERE j.desired OPERATOR(pg_catalog.<>) 'stop' ORDER BY j.name LIMIT 1";
    let found =
        read::rows(SQL, &[], |rows| rows.map(|row| row.get::<String>(1)).collect::<Result<Vec<_>, _>>());
    found.ok()?.into_iter().flatten().next()
}

/// Name of a job that runs here, or of a slot of ours that stands here.
fn job_of_this_database() -> Option<String> {
    let database = server::database();
    if shared::available()
        && let Some(job) = JobRef::in_use().find(|job| {
            // A stopped job's place may wait for the launcher to clear it away.
            let ended = job.desired() == Desired::Stop && !launcher::has_workers(*job);
            job.live().database.load(Relaxed) == database && !ended
        })
    {
        return Some(job.name());
    }
    super::slot_drop::ours_in(database)
}
