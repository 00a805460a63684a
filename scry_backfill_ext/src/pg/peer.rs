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
    unsafe { pg_sys::proc_exit(1) }
}
