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
///
/// Ends the process when the postmaster is gone (`WL_EXIT_ON_PM_DEATH`) and
/// raises the pending interrupts: shutdown, termination, barriers.
pub fn wait(timeout: Duration) -> Woken {
    wait_once(0, pg_sys::PGINVALID_SOCKET, timeout)
}

/// As [`wait`], also until `socket` can be read or written.
pub fn wait_to_write(socket: RawFd, timeout: Duration) -> Woken {
    wait_once(pg_sys::WL_SOCKET_READABLE | pg_sys::WL_SOCKET_WRITEABLE, socket, timeout)
}

fn wait_once(events: u32, socket: RawFd, timeout: Duration) -> Woken {
    let events = events | pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: MyLatch is this process's own latch from InitProcess on.
    let came = unsafe {
        pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            socket,
            millis(timeout),
            pg_sys::PG_WAIT_EXTENSION,
        )
    };
    woken(came as u32)
}

fn millis(timeout: Duration) -> i64 {
    timeout.as_millis().min(i32::MAX as u128) as i64
}

/// After a wait: what came.
fn woken(came: u32) -> Woken {
    // SAFETY: as above.
    unsafe { pg_sys::ResetLatch(pg_sys::MyLatch) };
    serve_interrupts();
    Woken { latch: came & pg_sys::WL_LATCH_SET != 0, readable: came & pg_sys::WL_SOCKET_READABLE != 0 }
}

/// Waits for the latch and one socket again and again: what is waited for is told to the kernel once.
#[derive(Debug)]
pub struct Waiter {
    set: *mut pg_sys::WaitEventSet,
}

impl Waiter {
    /// For this socket, which must outlive the waiter.
    pub fn on(socket: RawFd) -> Self {
        // SAFETY: in a process with a latch, which is its own from InitProcess on; what fails here gives
        // the set back.
        unsafe {
            let waiter = Waiter { set: super::compat::create_wait_event_set(WAITS_FOR) };
            let add = |events: u32, socket, latch| {
                pg_sys::AddWaitEventToSet(waiter.set, events, socket, latch, std::ptr::null_mut());
            };
            add(pg_sys::WL_LATCH_SET, pg_sys::PGINVALID_SOCKET, pg_sys::MyLatch);
            add(pg_sys::WL_EXIT_ON_PM_DEATH, pg_sys::PGINVALID_SOCKET, std::ptr::null_mut());
            add(pg_sys::WL_SOCKET_READABLE, socket, std::ptr::null_mut());
            waiter
        }
    }

    /// As [`wait`], also until the socket can be read.
    pub fn wait(&mut self, timeout: Duration) -> Woken {
        let mut events = [pg_sys::WaitEvent::default(); WAITS_FOR];
        // SAFETY: the set is whole, and there is room for every event of it.
        let count = unsafe {
            pg_sys::WaitEventSetWait(
                self.set,
                millis(timeout),
                events.as_mut_ptr(),
                WAITS_FOR as i32,
                pg_sys::PG_WAIT_EXTENSION,
            )
        };
        woken(events.iter().take(count.max(0) as usize).fold(0, |came, event| came | event.events))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // SAFETY: made by CreateWaitEventSet, and freed once.
        unsafe { pg_sys::FreeWaitEventSet(self.set) }
    }
}

/// The latch, the postmaster's end, a socket.
const WAITS_FOR: usize = 3;

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
