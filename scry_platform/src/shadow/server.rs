//! The embedded server as a child process.
//!
//! ```text
//! platform ─ thread "shadow" ─ spawn ─► scry_platform shadow-exec ─ exec ─► postgres
//!                  │  ◄──────────────────── ends by itself: again, with back-off
//!                  └─ told to stop: SIGINT (fast), then SIGQUIT
//! ```
//!
//! Invariants: the server lives and dies with the platform (a parent-death
//! signal, set by `shadow-exec` on itself before it becomes the server); a
//! server that an earlier platform left behind is ended before ours starts.
//! The thread that spawns lives as long as the child: the parent-death signal
//! is sent when that thread ends.

use super::files::Files;
use super::programs::Programs;
use crate::{Error, Result, metrics};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server that is kept running until it is told to stop.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stopping: AtomicBool,
    /// The child's process id; 0 while there is none.
    pid: AtomicI32,
}

impl Server {
    /// Starts the server and the thread that keeps it running.
    pub fn start(programs: Programs, files: Files, arguments: Vec<String>) -> Result<Self> {
        files.rotate_log();
        let shared = Arc::new(Shared { stopping: AtomicBool::new(false), pid: AtomicI32::new(0) });
        let (first_tx, first_rx) = std::sync::mpsc::channel();
        let keeper = Keeper { programs, files, arguments, shared: shared.clone() };
        let thread = std::thread::Builder::new()
            .name("shadow".to_owned())
            .spawn(move || keeper.run(&first_tx))
            .map_err(|e| failed("start the shadow's thread", &e))?;
        match first_rx.recv() {
            Ok(Ok(())) => Ok(Server { shared, thread: Some(thread) }),
            Ok(Err(error)) => Err(failed("start the embedded PostgreSQL server", &error)),
            Err(_) => Err(failed("start the embedded PostgreSQL server", &"its thread ended")),
        }
    }

    /// Whether the process is there.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.shared.pid.load(Ordering::Acquire) != 0
    }

    /// Stops the server: fast shutdown first, immediate when that takes too long.
    pub fn stop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Keeper {
    programs: Programs,
    files: Files,
    arguments: Vec<String>,
    shared: Arc<Shared>,
}

impl Keeper {
    fn run(&self, first: &std::sync::mpsc::Sender<std::io::Result<()>>) {
        let mut first = Some(first);
        let mut pause = BACKOFF_MIN;
        while !self.stopping() {
            let started = Instant::now();
            match self.spawn() {
                Ok(child) => {
                    if let Some(first) = first.take() {
                        let _ = first.send(Ok(()));
                    }
                    self.watch(child);
                }
                Err(error) => match first.take() {
                    Some(first) => {
                        let _ = first.send(Err(error));
                        return;
                    }
                    None => tracing::error!(%error, "could not start the embedded PostgreSQL server"),
                },
            }
            if self.stopping() {
                return;
            }
            pause =
                if started.elapsed() > BACKOFF_RESET { BACKOFF_MIN } else { (pause * 2).min(BACKOFF_MAX) };
            ::metrics::counter!(metrics::SHADOW_RESTARTS).increment(1);
            tracing::warn!(
                retry_ms = pause.as_millis(),
                log = %self.files.log().display(),
                "the embedded PostgreSQL server ended by itself; starting it again"
            );
            self.sleep(pause);
        }
    }

    fn stopping(&self) -> bool {
        self.shared.stopping.load(Ordering::Acquire)
    }

    fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.stopping() {
            std::thread::sleep(POLL);
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        // A server that was killed may leave children behind that still hold
        // its shared memory; the new one would refuse to start meanwhile and
        // is tried again.
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(self.files.log())?;
        let mut command = Command::new(SELF);
        command
            .args(["shadow-exec", "--parent", &std::process::id().to_string(), "--"])
            .arg(self.programs.path("postgres"))
            .arg("-D")
            .arg(self.files.cluster())
            .args(&self.arguments)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("PGDATA")
            .current_dir(self.files.dir())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the platform; it stops the server itself.
            .process_group(0);
        let child = command.spawn()?;
        self.shared.pid.store(child.id().cast_signed(), Ordering::Release);
        Ok(child)
    }

    /// Waits until the child ends; ends it when told to stop.
    fn watch(&self, mut child: Child) {
        let pid = Pid::from_raw(child.id().cast_signed());
        let mut asked: Option<Instant> = None;
        let mut forced = false;
        loop {
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    tracing::debug!(%status, "embedded PostgreSQL server ended");
                    break;
                }
                Err(error) => {
                    tracing::error!(%error, "could not wait for the embedded PostgreSQL server");
                    break;
                }
            }
            match asked {
                None if self.stopping() => {
                    let _ = kill(pid, Signal::SIGINT);
                    asked = Some(Instant::now());
                }
                Some(since) if !forced && since.elapsed() > FAST_TIMEOUT => {
                    tracing::warn!("the embedded PostgreSQL server takes long to stop; stopping it at once");
                    let _ = kill(pid, Signal::SIGQUIT);
                    forced = true;
                }
                _ => {}
            }
            std::thread::sleep(POLL);
        }
        self.shared.pid.store(0, Ordering::Release);
    }
}

/// Ends a server that an earlier platform left behind in our cluster. The
/// directory's lock is ours, so no living platform owns it.
pub(super) fn end_orphan(files: &Files) -> Result<()> {
    let Some(pid) = postmaster(&files.cluster()) else { return Ok(()) };
    tracing::warn!(pid = pid.as_raw(), "an earlier platform left its PostgreSQL server behind; stopping it");
    for (signal, time) in [(Signal::SIGINT, ORPHAN_TIMEOUT), (Signal::SIGQUIT, ORPHAN_TIMEOUT)] {
        let _ = kill(pid, signal);
        let end = Instant::now() + time;
        while Instant::now() < end {
            if postmaster(&files.cluster()) != Some(pid) {
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
    }
    Err(failed(
        "start the embedded PostgreSQL server",
        &format!("process {} holds {} and does not stop", pid.as_raw(), files.cluster().display()),
    ))
}

/// The living server of `cluster`, by its postmaster.pid. A file left behind by
/// a crash names a process that is gone, or one that works elsewhere.
fn postmaster(cluster: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let pid: i32 = text.lines().next()?.trim().parse().ok()?;
    let pid = Pid::from_raw(pid);
    kill(pid, None).ok()?;
    let works_in = std::fs::read_link(format!("/proc/{pid}/cwd"));
    match (works_in, std::fs::canonicalize(cluster)) {
        (Ok(cwd), Ok(cluster)) if cwd != cluster => None,
        _ => Some(pid),
    }
}

/// `shadow-exec`: becomes the server, and is told when the platform dies.
///
/// # Errors
/// Only returns when it could not become the server.
pub fn become_server(parent: u32, command: &[std::ffi::OsString]) -> String {
    // Immediate shutdown: no waiting for sessions; what was committed is safe.
    if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGQUIT) {
        return format!("could not tie the server to its parent: {error}");
    }
    if nix::unistd::getppid().as_raw().cast_unsigned() != parent {
        return "the platform is gone".to_owned();
    }
    let Some((program, arguments)) = command.split_first() else {
        return "no server named".to_owned();
    };
    let error = Command::new(program).args(arguments).exec();
    format!("could not run {}: {error}", program.display())
}

fn failed(what: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Shadow { message: format!("could not {what}: {why}"), hint: String::new(), retry: false }
}

/// This program, even when its file was replaced or lies where only root may look.
const SELF: &str = "/proc/self/exe";
const POLL: Duration = Duration::from_millis(50);
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A server that ran this long was well: the next pause is short again.
const BACKOFF_RESET: Duration = Duration::from_secs(60);
const FAST_TIMEOUT: Duration = Duration::from_secs(20);
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(15);
