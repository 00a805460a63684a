//! Answers to statements that came together leave together.
//!
//! For the shadow's applier, which sends the statements of a transaction in one go. After each of them the
//! server sends its answer (tcop/postgres.c, `ReadyForQuery` ends with `pq_flush`): a system call, and a
//! client that is woken, and preempts the server where both share a processor, to read a few bytes. In a
//! session that has asked for it, ReadyForQuery is kept back while the next statement's bytes are here
//! already. Whatever else is sent, COPY's answers and errors among it, leaves as ever and takes with it what was kept.
//!
//! Invariant: the server never waits for a new statement with an answer kept back. The rest of one whose
//! beginning is here comes without the client having to read anything.

use std::ffi::{c_char, c_int};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use pgrx::pg_guard;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

use super::ffi::{CommMethods, PqCommMethods};
use super::{compat, latch};

/// The methods that were there before ours.
static mut PREVIOUS: *const CommMethods = std::ptr::null();
/// Those with ours among them.
static mut METHODS: Option<CommMethods> = None;
/// The last message was ReadyForQuery.
static IS_READY: AtomicBool = AtomicBool::new(false);
/// When the first answer was kept back that has not left yet; 0 for none. One thread has all of this.
static mut KEPT_SINCE: i64 = 0;

/// Begins to keep answers together, in this session. Once is enough.
pub fn keep_together() {
    // SAFETY: the process's one thread; the table lives as long as the process, as the server's own do.
    unsafe {
        if PREVIOUS.is_null() {
            PREVIOUS = PqCommMethods;
            METHODS = Some((*PREVIOUS).with(flush, put_message));
            if let Some(methods) = (&raw const METHODS).as_ref().and_then(Option::as_ref) {
                PqCommMethods = methods;
            }
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn put_message(kind: c_char, body: *const c_char, len: usize) -> c_int {
    IS_READY.store(kind == READY_FOR_QUERY, Relaxed);
    // SAFETY: the server's own method, with what it has handed over.
    unsafe { pg_guard_ffi_boundary(|| ((*PREVIOUS).put_message)(kind, body, len)) }
}

#[pg_guard]
unsafe extern "C-unwind" fn flush() -> c_int {
    // SAFETY: a session with a client; one thread.
    unsafe {
        if IS_READY.swap(false, Relaxed) && compat::has_input() {
            let now = latch::monotonic_us();
            if KEPT_SINCE == 0 {
                KEPT_SINCE = now;
            }
            if now - KEPT_SINCE < KEPT_MAX_US {
                return 0;
            }
        }
        KEPT_SINCE = 0;
        pg_guard_ffi_boundary(|| ((*PREVIOUS).flush)())
    }
}

/// protocol.h, `PqMsg_ReadyForQuery`
const READY_FOR_QUERY: c_char = b'Z' as c_char;
/// Where one statement follows the other, the client still learns how far they are.
const KEPT_MAX_US: i64 = 1000;
