//! Keeps `DROP EXTENSION scry_backfill` from leaving workers and slots behind.
//!
//! Dropping the extension (by itself, with its schema or by DROP OWNED) is
//! refused while the database has a job that runs, a job's slot, or a place in
//! shared memory. It is looked at twice:
//!
//! - before the command takes its first lock, by an event trigger: the server
//!   locks everything that would go, one object after another, before it tells
//!   anybody, and would meet our workers' locks in another order;
//! - when the server says what goes (`object_access_hook`), which no command
//!   escapes. A job that has just been started has neither slot nor place yet:
//!   it is looked for in its table, which is dropped before the extension is.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};

use super::{message, read, server, shared};
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
        refuse(&job);
    }
}

/// Refuses the command that an event trigger stands before, if it would take the extension away.
pub fn before_command(fcinfo: pg_sys::FunctionCallInfo) {
    let Some(event) = message::event_data(fcinfo) else { return };
    // SAFETY: the parse tree of the command lives as long as the call.
    if unsafe { drops_extension(event.parsetree) }
        && let Some(job) = job_of_this_database()
    {
        refuse(&job);
    }
}

/// Whether a statement is a DROP that would take our extension with it, and the user may drop it.
/// One that may not is refused by the server in its own words.
unsafe fn drops_extension(statement: *mut pg_sys::Node) -> bool {
    const MINE: &str = "SELECT true FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'scry_backfill' \
        AND pg_catalog.pg_has_role(extowner, 'USAGE')";
    const OWNED: &str = "SELECT true FROM pg_catalog.pg_extension WHERE extname OPERATOR(pg_catalog.=) 'scry_backfill' \
        AND extowner OPERATOR(pg_catalog.=) ANY ($1) AND pg_catalog.pg_has_role(extowner, 'USAGE')";
    // SAFETY: the tag says which node it is; the lists are those that gram.y builds for it.
    let found = unsafe {
        if pgrx::is_a(statement, pg_sys::NodeTag::T_DropStmt) {
            let drop = &*statement.cast::<pg_sys::DropStmt>();
            let ours = drop.removeType == pg_sys::ObjectType::OBJECT_EXTENSION
                && elements(drop.objects).any(|name| {
                    let name = (*name.cast::<pg_sys::String>()).sval;
                    !name.is_null() && CStr::from_ptr(name) == c"scry_backfill"
                });
            if !ours {
                return false;
            }
            read::one::<bool>(MINE, &[])
        } else if pgrx::is_a(statement, pg_sys::NodeTag::T_DropOwnedStmt) {
            let drop = &*statement.cast::<pg_sys::DropOwnedStmt>();
            let roles: Vec<_> = elements(drop.roles)
                .map(|role| pg_sys::get_rolespec_oid(role.cast::<pg_sys::RoleSpec>(), true))
                .collect();
            read::one::<bool>(OWNED, &[roles.into()])
        } else {
            return false;
        }
    };
    matches!(found, Ok(Some(true)))
}

/// The pointers of a list of nodes; none for NIL.
unsafe fn elements(list: *mut pg_sys::List) -> impl Iterator<Item = *mut c_void> {
    // SAFETY: a `List` has `length` cells, NIL is a null pointer (pg_list.h).
    let cells = unsafe {
        list.as_ref().map_or(&[][..], |list| {
            std::slice::from_raw_parts(list.elements, usize::try_from(list.length).unwrap_or(0))
        })
    };
    // SAFETY: a list of nodes holds pointers.
    cells.iter().map(|cell| unsafe { cell.ptr_value })
}

fn refuse(job: &str) {
    pgrx::pg_sys::panic::ErrorReport::new(
        PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
        format!("cannot drop extension scry_backfill because job \"{job}\" exists"),
        "drop_guard",
    )
    .set_detail("Its slot would keep WAL that nobody reads.")
    .set_hint(format!("Stop it first: SELECT scry_backfill.stop('{}');", job.replace('\'', "''")))
    .report(pgrx::PgLogLevel::ERROR);
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
