//! Holds statements to the one row that they must touch.
//!
//! For the shadow's applier, which must not commit before it knows that every update and delete has
//! found its one row: where the server itself sees to that, the COMMIT can travel with the statements instead
//! of waiting for their answers. A hook at the end of a statement looks at those that are marked in their
//! text (`scry_wire::one_row`), in the session that has asked for it, and in no other. Statements that
//! others run inside of a marked one have texts of their own.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{PgSqlErrorCode, pg_guard, pg_sys};
use scry_wire::one_row::{MARK, message};

use super::report::raise;

/// The hook that was there before ours, if any.
static mut PREVIOUS: pg_sys::ExecutorEnd_hook_type = None;
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Begins to look, in this session.
pub fn hold() {
    if INSTALLED.swap(true, Relaxed) {
        return;
    }
    // SAFETY: the process's one thread; no statement ends meanwhile.
    unsafe {
        PREVIOUS = pg_sys::ExecutorEnd_hook;
        pg_sys::ExecutorEnd_hook = Some(on_end);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: the server hands over a statement that has run; its memory is gone once it has ended.
    let touched = unsafe {
        let touched = is_held(&*query).then(|| (*(*query).estate).es_processed);
        match PREVIOUS {
            Some(previous) => pg_guard_ffi_boundary(|| previous(query)),
            None => pg_sys::standard_ExecutorEnd(query),
        }
        touched
    };
    if let Some(touched) = touched.filter(|touched| *touched != 1) {
        raise(PgSqlErrorCode::ERRCODE_CARDINALITY_VIOLATION, message(touched));
    }
}

/// Whether the statement is a marked one, and not what a rule has added to it.
///
/// # Safety
/// It has run, and not ended.
unsafe fn is_held(query: &pg_sys::QueryDesc) -> bool {
    use pg_sys::CmdType::{CMD_DELETE, CMD_INSERT, CMD_UPDATE};
    if ![CMD_INSERT, CMD_UPDATE, CMD_DELETE].contains(&query.operation) || query.sourceText.is_null() {
        return false;
    }
    // SAFETY: a plan, a state and a text that ends with a zero.
    unsafe {
        !query.estate.is_null()
            && (*query.plannedstmt).canSetTag
            && libc::strncmp(query.sourceText, MARK.as_ptr().cast(), MARK.len()) == 0
    }
}
