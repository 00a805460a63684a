//! How many statements of a transaction have touched one row each.
//!
//! For the shadow's applier, which must not commit before it knows that every update and delete has
//! found its one row: where the server itself says so, the COMMIT can travel with the statements instead
//! of waiting for their answers. A hook at the end of a statement counts, in the session that has asked
//! for it, and in no other. Statements that others run inside of a statement are counted too: then the
//! sums do not agree, and nothing is committed.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{pg_guard, pg_sys};

/// The hook that was there before ours, if any.
static mut PREVIOUS: pg_sys::ExecutorEnd_hook_type = None;
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// INSERTs, UPDATEs and DELETEs of one transaction.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    /// Whose they are; a statement that touches nothing may have none.
    xid: u32,
    /// All of them.
    all: i64,
    /// Those that have touched exactly one row.
    ones: i64,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { xid: 0, all: 0, ones: 0 }) };
}

/// Begins to count, in this session.
pub fn count() {
    if INSTALLED.swap(true, Relaxed) {
        return;
    }
    // SAFETY: the process's one thread; no statement ends meanwhile.
    unsafe {
        PREVIOUS = pg_sys::ExecutorEnd_hook;
        pg_sys::ExecutorEnd_hook = Some(on_end);
    }
}

/// Whether the transaction has had exactly so many statements, each of which has touched one row.
pub fn are_ones(statements: i64) -> bool {
    let counts = COUNTS.get();
    let counts = if counts.xid == transaction() { counts } else { Counts::default() };
    counts.all == statements && counts.ones == statements
}

fn transaction() -> u32 {
    // SAFETY: in a transaction.
    unsafe { pg_sys::GetTopTransactionIdIfAny().into_inner() }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_end(query: *mut pg_sys::QueryDesc) {
    use pg_sys::CmdType::{CMD_DELETE, CMD_INSERT, CMD_UPDATE};
    // SAFETY: the server hands over a statement that has run.
    unsafe {
        if [CMD_INSERT, CMD_UPDATE, CMD_DELETE].contains(&(*query).operation) && !(*query).estate.is_null() {
            let (xid, one) = (transaction(), (*(*query).estate).es_processed == 1);
            let mut counts = COUNTS.get();
            if counts.xid != xid {
                counts = Counts { xid, ..Counts::default() };
            }
            counts.all += 1;
            counts.ones += i64::from(one);
            COUNTS.set(counts);
        }
        match PREVIOUS {
            Some(previous) => pg_guard_ffi_boundary(|| previous(query)),
            None => pg_sys::standard_ExecutorEnd(query),
        }
    }
}
