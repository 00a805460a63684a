//! Reading that may fail: inside an internal subtransaction that leaves nothing behind.

use std::panic::AssertUnwindSafe;

use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgTryBuilder, pg_sys};

/// Runs `work` in a subtransaction that is rolled back whatever happens, so
/// that its locks, snapshots and settings end with it; an error of the server
/// becomes what `recover` makes of it (which may raise it again).
///
/// Inside a transaction. A subtransaction that only reads gets no ID.
pub fn rolled_back<R>(work: impl FnOnce() -> R, recover: impl FnOnce(CaughtError) -> R) -> R {
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
        pg_sys::RollbackAndReleaseCurrentSubTransaction();
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    result.unwrap_or_else(|error: Box<CaughtError>| recover(*error))
}
