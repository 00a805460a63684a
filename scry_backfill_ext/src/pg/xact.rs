//! What happens at the end of each transaction, in every backend.
//!
//! Two things, both a flag or a latch: a job that this transaction changed is
//! looked for by the launcher, and a stream worker that sleeps is woken by a
//! commit in its database. Costs one atomic load where neither applies.
//!
//! Nothing here may fail: an error after the commit record stops the server.

use std::cell::Cell;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

use pgrx::{pg_guard, pg_sys};

use super::{latch, server, shared};

thread_local! {
    static JOBS_CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Registers the callback for the life of the process; with shared memory only.
pub fn register() {
    // SAFETY: the callback is guarded and takes no argument.
    unsafe { pg_sys::RegisterXactCallback(Some(on_transaction_end), std::ptr::null_mut()) };
}

/// Notes that this transaction changed a job: at its end, whichever it is, the
/// launcher looks at the jobs of this database again.
pub fn jobs_changed() {
    JOBS_CHANGED.set(true);
}

/// Whether this transaction has changed something: its own snapshots see it,
/// nobody else does.
pub fn has_written() -> bool {
    // SAFETY: reads this process's transaction state.
    unsafe { pg_sys::GetTopTransactionIdIfAny() != pg_sys::TransactionId::INVALID }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_transaction_end(event: pg_sys::XactEvent::Type, _arg: *mut std::ffi::c_void) {
    let committed = match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => true,
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => false,
        _ => return,
    };
    if !shared::available() {
        return;
    }
    if JOBS_CHANGED.replace(false) {
        crate::worker::shmem::request_scan(server::database());
    }
    if committed {
        wake_sleepers();
    }
}

fn wake_sleepers() {
    let live = shared::live();
    if live.sleepers.load(Acquire) == 0 {
        return;
    }
    // SAFETY: valid inside a transaction's end; its state is cleared after the callbacks.
    let wrote = unsafe { pg_sys::GetTopTransactionIdIfAny() } != pg_sys::TransactionId::INVALID;
    if !wrote {
        return;
    }
    let database = server::database();
    for job in &live.jobs {
        if job.sleeping.load(Acquire) && job.database.load(Relaxed) == database {
            latch::wake(&job.stream);
        }
    }
}
