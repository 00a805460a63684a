//! Processes outside the server: the sender as a child of the launcher.
//!
//! The child gets its own process group, no descriptor above 2, the default
//! signal mask and dispositions, and dies with the launcher (and so with the
//! postmaster, whose death ends the launcher). Only SIGHUP is ignored until the
//! program listens to it: a reload may come before, and by default it kills. Between fork and exec only
//! async-signal-safe calls run.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The server's user.
pub fn effective_user() -> u32 {
    // SAFETY: no preconditions, cannot fail.
    unsafe { libc::geteuid() }
}

/// Starts `command` detached from everything of the server but its death.
/// `output` takes what it prints.
pub fn spawn(command: &mut Command, output: File) -> io::Result<Child> {
    let launcher = std::process::id().cast_signed();
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    // SAFETY: the closure calls async-signal-safe functions only and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            for signal in 1..32 {
                libc::signal(signal, libc::SIG_DFL);
            }
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            close_above_2();
            die_with_parent(launcher)
        });
    }
    command.spawn()
}

/// Marks every descriptor above 2 to be closed by exec. (Not closed at once:
/// the standard library reports a failed exec over one of them.)
fn close_above_2() {
    // SAFETY: takes plain numbers.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) == 0 };
    if !done {
        for fd in 3..4096 {
            // SAFETY: a bad descriptor is an error that is ignored.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
}

fn die_with_parent(launcher: i32) -> io::Result<()> {
    // SAFETY: takes plain numbers.
    unsafe {
        if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM as libc::c_ulong) != 0 {
            return Err(io::Error::last_os_error());
        }
        // The launcher may have died before the call above took effect.
        if libc::getppid() != launcher {
            libc::_exit(1);
        }
    }
    Ok(())
}

/// A signal for a child of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End cleanly.
    Terminate,
    /// Read the configuration again.
    Reload,
}

/// Sends a signal to a child that has not been reaped yet.
pub fn signal(child: &Child, signal: Signal) {
    let number = match signal {
        Signal::Terminate => libc::SIGTERM,
        Signal::Reload => libc::SIGHUP,
    };
    // SAFETY: the child is not reaped, so its number is still its own.
    unsafe { libc::kill(child.id().cast_signed(), number) };
}
