//! Answers to statements that came together leave together.
//!
//! For the shadow's applier, which sends the statements of a transaction in one go. After each of them the
//! server sends its answer (tcop/postgres.c, `ReadyForQuery` ends with `pq_flush`): a system call, and a
//! client that is woken, and preempts the server where both share a processor, to read a few bytes. In a
//! session that has asked for it, ReadyForQuery is kept back while the next statement's bytes are here
//! already. Whatever else is sent, COPY's answers and errors among it, leaves as ever and takes with it what
//! was kept.
//!
//! Invariant: the server never waits for a new statement with an answer kept back. The rest of one whose
//! beginning is here comes without the client having to read anything.

use std::ffi::{c_char, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use pgrx::pg_guard;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use super::ffi::{CommMethods, PqCommMethods};
use super::{compat, latch};

/// The connection's methods.
struct Methods {
    /// As they were before.
    theirs: CommMethods,
    /// With ours among them.
    ours: CommMethods,
}

/// Set once, by the process's one thread, for as long as it lives.
static METHODS: OnceLock<Methods> = OnceLock::new();
/// The last message was ReadyForQuery.
static IS_READY: AtomicBool = AtomicBool::new(false);
/// When the first answer was kept back that has not left yet; 0 for none.
static KEPT_SINCE: AtomicI64 = AtomicI64::new(0);

/// Begins to keep answers together, in this session. Once is enough.
pub fn keep_together() {
    if METHODS.get().is_some() {
        return;
    }
    // SAFETY: a session with a client, one thread; the table lives as long as the process, as the server's own does.
    unsafe {
        let theirs = *PqCommMethods;
        let methods = METHODS.get_or_init(|| Methods { theirs, ours: theirs.with(flush, put_message) });
        PqCommMethods = &raw const methods.ours;
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn put_message(kind: c_char, body: *const c_char, len: usize) -> c_int {
    IS_READY.store(kind == READY_FOR_QUERY, Relaxed);
    let Some(methods) = METHODS.get() else { return EOF };
    // SAFETY: the server's own method, with what it has handed over.
    unsafe { pg_guard_ffi_boundary(|| (methods.theirs.put_message)(kind, body, len)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn flush() -> c_int {
    // SAFETY: a session with a client.
    if IS_READY.swap(false, Relaxed) && unsafe { compat::has_input() } {
        let now = latch::monotonic_us();
        let since = KEPT_SINCE.load(Relaxed);
        if since == 0 {
            KEPT_SINCE.store(now, Relaxed);
        }
        if since == 0 || now - since < KEPT_MAX_US {
            return 0;
        }
    }
    KEPT_SINCE.store(0, Relaxed);
    let Some(methods) = METHODS.get() else { return EOF };
    // SAFETY: the server's own method.
    unsafe { pg_guard_ffi_boundary(|| (methods.theirs.flush)()) }
}

/// What the methods return when they fail (libpq/pqcomm.c).
const EOF: c_int = -1;
/// protocol.h, `PqMsg_ReadyForQuery`
const READY_FOR_QUERY: c_char = b'Z' as c_char;
/// Where one statement follows the other, the client still learns how far they are.
const KEPT_MAX_US: i64 = 1000;
