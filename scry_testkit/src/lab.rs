//! What one test owns: a directory, the user its processes run as, a seed, the
//! relocated server files.
//!
//! ```text
//!   TMPDIR/scry-testkit-UID/        one per user, mode 0755, checked
//!     ports/NUMBER                  locks, see `port`
//!     pg-HASH/                      see `server_files`
//!     runs/PID-N/, runs/PID-N.lock  a lab: locked while its process lives
//! ```
//!
//! A lab removes its directory when it is dropped. What a killed process left
//! behind (also its servers) is cleared away by the next process that makes a
//! lab: a run whose lock is free has no owner any more. `SCRY_KEEP=1` keeps
//! directories for looking at.

use crate::program::tail;
use crate::rng::Rng;
use crate::server_files::ServerFiles;
use crate::user::ClusterUser;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT_RUN: AtomicU32 = AtomicU32::new(1);
static SWEEP: Once = Once::new();

/// Lines of each log that a failed test prints.
const LOG_TAIL_LINES: usize = 60;

/// The environment of one test; see the module.
#[derive(Debug)]
pub struct Lab {
    /// The test's name, for messages.
    pub name: String,
    /// The directory of everything the test makes.
    pub dir: PathBuf,
    /// Whose processes the test starts.
    pub user: ClusterUser,
    /// The PostgreSQL installation with the extension in it.
    pub server: ServerFiles,
    /// What every random choice of the test follows from.
    pub seed: u64,
    _lock: File,
}

impl Lab {
    /// A lab with an empty directory; prints the seed.
    pub fn new(name: &str) -> Result<Lab> {
        let runs = base_dir()?.join("runs");
        std::fs::create_dir_all(&runs).with_context(|| format!("create {}", runs.display()))?;
        SWEEP.call_once(|| sweep(&runs));
        let user = ClusterUser::detect()?;
        let server = ServerFiles::prepare(&user)?;
        let dir = runs.join(format!("{}-{}", std::process::id(), NEXT_RUN.fetch_add(1, Ordering::Relaxed)));
        // Locked before the directory exists: whoever sees the directory and
        // gets the lock knows that its owner is gone.
        let lock = File::create(lock_of(&dir)).context("create the lab's lock")?;
        lock.try_lock().context("lock the lab's directory")?;
        std::fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        user.own(&dir)?;
        let seed = Rng::seed_from_env();
        eprintln!("{name}: seed {seed} (SCRY_SEED={seed} replays it), directory {}", dir.display());
        Ok(Lab { name: name.to_owned(), dir, user, server, seed, _lock: lock })
    }

    /// The random sequence of the test's seed.
    pub fn rng(&self) -> Rng {
        Rng::new(self.seed)
    }

    /// A path in the lab's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Prints the end of every log in the lab's directory.
    pub fn print_logs(&self) {
        for log in logs_below(&self.dir, 4) {
            let text = tail(&log, LOG_TAIL_LINES);
            eprintln!("---- {} (end)\n{text}", log.strip_prefix(&self.dir).unwrap_or(&log).display());
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        kill_users_of(&self.dir);
        if std::env::var_os("SCRY_KEEP").is_none() {
            let _ = std::fs::remove_dir_all(&self.dir);
            let _ = std::fs::remove_file(lock_of(&self.dir));
        }
    }
}

/// Runs one test in a lab of its own: an error fails the test with its whole
/// chain of causes and the end of every log.
pub fn scenario(name: &str, test: impl FnOnce(&Lab) -> Result<()>) {
    let lab = match Lab::new(name) {
        Ok(lab) => lab,
        Err(error) => panic!("{name}: could not set up: {error:#}"),
    };
    if let Err(error) = test(&lab) {
        // `lab` is dropped by the unwinding and prints the logs.
        panic!("{name} (seed {}): {error:#}", lab.seed);
    }
}

/// The directory everything of this user lives below.
pub(crate) fn base_dir() -> Result<PathBuf> {
    let uid = Uid::effective().as_raw();
    let dir = std::env::temp_dir().join(format!("scry-testkit-{uid}"));
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let meta = std::fs::symlink_metadata(&dir).with_context(|| format!("look at {}", dir.display()))?;
    // The name is known to everybody who can write to the temporary directory.
    if !meta.is_dir() || meta.uid() != uid {
        bail!("{} is not a directory of user {uid}; remove it", dir.display());
    }
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("set mode of {}", dir.display()))?;
    Ok(dir)
}

/// Removes the runs whose owner is gone.
fn sweep(runs: &Path) {
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        let dir = entry.path();
        let Ok(lock) = File::open(lock_of(&dir)) else { continue };
        if dir.is_dir() && lock.try_lock().is_ok() && std::env::var_os("SCRY_KEEP").is_none() {
            kill_users_of(&dir);
            let _ = std::fs::remove_dir_all(&dir);
            let _ = std::fs::remove_file(lock_of(&dir));
        }
    }
}

fn lock_of(run: &Path) -> PathBuf {
    run.with_extension("lock")
}

/// Kills the processes that name `dir` on their command line: servers and
/// programs of a lab. (A server's children go with it.)
fn kill_users_of(dir: &Path) {
    let needle = format!("{}/", dir.display());
    let own_pid = std::process::id();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(cmdline) = std::fs::read(entry.path().join("cmdline")) else { continue };
        if pid != own_pid && String::from_utf8_lossy(&cmdline).contains(&needle) {
            let pid = Pid::from_raw(pid as i32);
            let _ = kill(pid, Signal::SIGKILL);
            // A stopped process dies of SIGKILL too; this is for its children.
            let _ = kill(pid, Signal::SIGCONT);
        }
    }
}

/// The files named `*.log` below `dir`, in the order of their names.
fn logs_below(dir: &Path, depth: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 0 {
            found.extend(logs_below(&path, depth - 1));
        } else if path.extension().is_some_and(|ext| ext == "log") {
            found.push(path);
        }
    }
    found.sort();
    found
}
