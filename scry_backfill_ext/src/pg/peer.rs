//! Processes of the server: whether one lives, how to end one, how to leave.

use pgrx::pg_sys;

/// Whether a process of the server has this pid.
pub fn is_running(pid: i32) -> bool {
    // SAFETY: takes a lock and looks into shared memory; 0 finds nothing.
    pid != 0 && unsafe { !pg_sys::BackendPidGetProc(pid).is_null() }
}

/// Asks a process of the server to end, if it is still one.
pub fn terminate(pid: i32) {
    if is_running(pid) {
        // SAFETY: plain numbers; the pid was a process of this server a moment ago, as pg_terminate_backend has it.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// Ends this process so that the postmaster starts it again later.
pub fn exit_for_restart() -> ! {
    // SAFETY: runs the server's exit callbacks and does not return.
    unsafe { super::compat::proc_exit(1) }
}

/// Sleeps in a backend, interruptibly: cancel and terminate end the statement.
pub fn nap(timeout: std::time::Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let timeout_ms = timeout.as_millis().clamp(1, 60_000) as i64;
    // SAFETY: MyLatch is this process's own latch from InitProcess on.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events.cast_signed(), timeout_ms, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
}
