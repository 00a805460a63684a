//! Waking and waiting.
//!
//! A process announces its place in `ProcGlobal->allProcs`; others set its
//! latch through it. A latch that belongs to another process by now is only
//! woken for nothing: every waiter looks again.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use pgrx::pg_sys;

use super::shared::Process;

/// Announces this process in `place`, until [`retire`].
pub fn announce(place: &Process) {
    // SAFETY: set by InitProcess before any of our code runs; every process
    // stands in the array (proc.h, GetNumberFromPGProc).
    let (procno, pid) =
        unsafe { (pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs), pg_sys::MyProcPid) };
    place.procno.store(procno as u32, Relaxed);
    place.pid.store(pid, Release);
}

/// Takes this process's announcement back, if it is still its own.
pub fn retire(place: &Process) {
    // SAFETY: a plain global, set at process start.
    let pid = unsafe { pg_sys::MyProcPid };
    let _ = place.pid.compare_exchange(pid, 0, Release, Relaxed);
}

/// Sets the latch of the process in `place`, if there is one.
pub fn wake(place: &Process) {
    if place.pid.load(Acquire) == 0 {
        return;
    }
    let procno = place.procno.load(Relaxed) as usize;
    // SAFETY: allProcs is an array in shared memory, never freed; procno was
    // an index of it when it was announced and stays one.
    unsafe {
        let proc_global = &*pg_sys::ProcGlobal;
        if procno < proc_global.allProcCount as usize {
            pg_sys::SetLatch(&raw mut (*proc_global.allProcs.add(procno)).procLatch);
        }
    }
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, Default)]
pub struct Woken {
    /// The latch was set.
    pub latch: bool,
    /// The socket can be read.
    pub readable: bool,
}

/// Sleeps until the latch is set or `timeout` is over; then serves interrupts.
pub fn wait(timeout: Duration) -> Woken {
    wait_for(None, false, timeout)
}

/// As [`wait`], also until `socket` can be read or, if `write`, written.
///
/// Ends the process when the postmaster is gone (`WL_EXIT_ON_PM_DEATH`) and
/// raises the pending interrupts: shutdown, termination, barriers.
pub fn wait_for(socket: Option<RawFd>, write: bool, timeout: Duration) -> Woken {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let fd = socket.unwrap_or(pg_sys::PGINVALID_SOCKET);
    if socket.is_some() {
        events |= pg_sys::WL_SOCKET_READABLE;
        if write {
            events |= pg_sys::WL_SOCKET_WRITEABLE;
        }
    }
    let timeout_ms = timeout.as_millis().min(i32::MAX as u128) as i64;
    // SAFETY: MyLatch is this process's own latch from InitProcess on.
    let got = unsafe {
        let got = pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            fd,
            timeout_ms,
            pg_sys::PG_WAIT_EXTENSION,
        ) as u32;
        pg_sys::ResetLatch(pg_sys::MyLatch);
        got
    };
    serve_interrupts();
    Woken { latch: got & pg_sys::WL_LATCH_SET != 0, readable: got & pg_sys::WL_SOCKET_READABLE != 0 }
}

/// `CHECK_FOR_INTERRUPTS`, and a pending reload of the configuration.
pub fn serve_interrupts() {
    pgrx::check_for_interrupts!();
    // SAFETY: a sig_atomic_t flag of this process, read and cleared by its one thread.
    unsafe {
        // A user's session reloads between two statements, by itself.
        if pg_sys::MyBackendType != pg_sys::BackendType::B_BACKEND
            && (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0
        {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Now, as the server counts: microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    // SAFETY: reads the clock; no preconditions.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Microseconds that this process has computed.
pub fn computed_us() -> i64 {
    clock_us(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Microseconds of a clock that never jumps, the same in all processes.
pub fn monotonic_us() -> i64 {
    clock_us(libc::CLOCK_MONOTONIC)
}

fn clock_us(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct; these clocks are always there.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}
