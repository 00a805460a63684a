//! Work that may fail inside a transaction that goes on: in an internal subtransaction.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};

use super::server;

/// Runs `work` in a subtransaction that is rolled back whatever happens, so
/// that its locks, snapshots and settings end with it; an error of the server
/// becomes what `recover` makes of it (which may raise it again).
///
/// Inside a transaction. A subtransaction that only reads gets no ID.
pub fn rolled_back<R>(work: impl FnOnce() -> R, recover: impl FnOnce(CaughtError) -> R) -> R {
    within(work, recover, false)
}

/// As [`rolled_back`], but what `work` has done stays unless it fails.
pub fn kept<R>(work: impl FnOnce() -> R, recover: impl FnOnce(CaughtError) -> R) -> R {
    within(work, recover, true)
}

/// From here to the end of the subtransaction no lock is waited for longer than a moment, which
/// is below any `deadlock_timeout` in use: in a deadlock with a user's transaction it is this
/// process that gives way.
pub fn wait_briefly() {
    server::set_local(c"lock_timeout", LOCK_TIMEOUT);
}

/// What becomes of an error: nothing, if somebody holds a lock ([`wait_briefly`]).
pub fn none_if_locked<R>(error: CaughtError) -> Option<R> {
    match error {
        CaughtError::PostgresError(ref report) | CaughtError::ErrorReport(ref report)
            if report.sql_error_code() == PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE =>
        {
            None
        }
        other => other.rethrow(),
    }
}

fn within<R>(work: impl FnOnce() -> R, recover: impl FnOnce(CaughtError) -> R, keep: bool) -> R {
    // SAFETY: as exec_stmt_block of PL/pgSQL does with blocks that catch errors (pl_exec.c):
    // memory context and resource owner are the caller's own again at the end.
    let (context, owner) = unsafe {
        let saved = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(saved.0);
        saved
    };
    let result = PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
        .catch_others(|error| Err(Box::new(error)))
        .execute();
    // SAFETY: ends the subtransaction begun above.
    unsafe {
        if keep && result.is_ok() {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    result.unwrap_or_else(|error: Box<CaughtError>| recover(*error))
}

/// Milliseconds; `deadlock_timeout` is 1 s by default.
const LOCK_TIMEOUT: &str = "100";
