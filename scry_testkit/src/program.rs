//! A process under test: started with fixed arguments, its output in a log
//! file, killed, stopped and continued at will, started again, and gone when
//! dropped.

use crate::user::ClusterUser;
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A program with its arguments, running or not.
#[derive(Debug)]
pub struct Program {
    /// Its name in messages.
    pub name: String,
    /// Where its standard output and error go (appended).
    pub log: PathBuf,
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    user: ClusterUser,
    child: Option<Child>,
    stop_signal: Signal,
}

impl Program {
    /// Describes a program; nothing is started yet.
    pub fn new(name: &str, path: PathBuf, log: PathBuf, user: &ClusterUser) -> Program {
        Program {
            name: name.to_owned(),
            log,
            path,
            args: Vec::new(),
            env: Vec::new(),
            user: user.clone(),
            child: None,
            stop_signal: Signal::SIGTERM,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl Into<OsString>) -> &mut Self {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The signal that asks for a clean stop when the program is dropped.
    pub fn stop_signal(&mut self, signal: Signal) -> &mut Self {
        self.stop_signal = signal;
        self
    }

    /// Starts the process; does nothing when it runs already.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))?;
        let errors = log.try_clone().context("share the log")?;
        let child = self
            .user
            .command(&self.path)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {}", self.path.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// The process's id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Whether the process runs (or is stopped).
    pub fn is_running(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && !matches!(child.try_wait(), Ok(None))
        {
            self.child = None;
        }
        self.child.is_some()
    }

    /// Sends a signal; an error when the process does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_running() {
            bail!("{} does not run", self.name);
        }
        let pid = self.pid().context("no process")?;
        kill(Pid::from_raw(pid as i32), signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// SIGSTOP: the process is alive but does nothing.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT: ends `freeze`.
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            child.kill().with_context(|| format!("kill {}", self.name))?;
            child.wait().with_context(|| format!("wait for {}", self.name))?;
        }
        self.child = None;
        Ok(())
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        let child = self.child.as_mut().with_context(|| format!("{} was not started", self.name))?;
        loop {
            if let Some(status) = child.try_wait().with_context(|| format!("wait for {}", self.name))? {
                self.child = None;
                return Ok(status);
            }
            if start.elapsed() > timeout {
                bail!("{} still runs after {timeout:?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks for a clean stop with `signal` and waits for it.
    pub fn stop_with(&mut self, signal: Signal, timeout: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(timeout)
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.stop_with(self.stop_signal, Duration::from_secs(20))
    }

    /// All that the process wrote so far.
    pub fn log_text(&self) -> String {
        read_lossy(&self.log)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.thaw();
            let stopped = self.stop_with(self.stop_signal, Duration::from_secs(10));
            if stopped.is_err() {
                let _ = self.kill();
            }
        }
    }
}

/// The last `lines` lines of a file.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = read_lossy(path);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn read_lossy(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The processes named `name` that descend from process `ancestor`: the
/// sender that a server's launcher started, say.
pub fn descendants_named(ancestor: u32, name: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| comm(*pid).is_some_and(|comm| comm == name) && descends(*pid, ancestor)).collect()
}

/// Sends a signal to a process that this one did not start itself.
pub fn signal_pid(pid: u32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid as i32), signal).with_context(|| format!("send {signal} to process {pid}"))
}

fn comm(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|text| text.trim_end().to_owned())
}

fn descends(mut pid: u32, ancestor: u32) -> bool {
    while pid > 1 {
        if pid == ancestor {
            return true;
        }
        match parent(pid) {
            Some(next) => pid = next,
            None => return false,
        }
    }
    false
}

fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")).and_then(|rest| rest.trim().parse().ok())
}
