//! The sender as the launcher's child: its configuration, start, restart, end.
//!
//! ```text
//!   settings ──► scry_sender.toml (0600) ──► scry_sender --config FILE
//!                                              │ stdout, stderr
//!                                              ▼
//!                                         scry_sender.log (bounded) ──last line──► status, event
//! ```
//!
//! Runs while any job does and `scry_backfill.sender` is `managed`. A sender
//! that ends is started again after 1 s, doubled up to 60 s; one that has run
//! for a while starts the count anew. Why there is none stands in every job's
//! status.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use pgrx::log;

use super::shmem::{Level, add_event};
use super::socket;
use crate::guc::{self, SenderKind};
use crate::pg::child::{self, Signal};
use crate::pg::{latch, shared};

/// A sender that is there after this long has come up.
const UP: Duration = Duration::from_secs(2);
/// One that ran this long is not counted as failing.
const RAN_WELL: Duration = Duration::from_secs(10);
/// How long a sender may take to end before it is killed.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// The log is put aside when it has grown beyond this.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How often the log's size is looked at, and the longest wait for nothing.
const LOOK: Duration = Duration::from_secs(10);

/// The sender, if it runs, and what is known about the last one.
pub struct SenderChild {
    running: Option<Running>,
    failures: u32,
    retry_at: Option<Instant>,
    /// What was last told, so that it is told once.
    told: String,
}

struct Running {
    child: Child,
    since: Instant,
    log: PathBuf,
    /// Where the log stood when this sender started.
    log_start: u64,
    config: String,
}

impl SenderChild {
    /// No sender yet.
    pub fn new() -> SenderChild {
        shared::live().sender_pid.store(0, Release);
        SenderChild { running: None, failures: 0, retry_at: None, told: String::new() }
    }

    /// Starts, restarts or ends the sender; returns when to look again.
    pub fn tend(&mut self, wanted: bool) -> Duration {
        let wanted = wanted && guc::sender() == SenderKind::Managed;
        self.notice_end(wanted);
        match (&self.running, wanted) {
            (Some(running), true) => {
                bound_log(&running.log);
                let ran = running.since.elapsed();
                if ran < UP {
                    return UP;
                }
                if ran >= RAN_WELL {
                    self.failures = 0;
                }
                self.tell("", "");
                LOOK
            }
            (None, false) => {
                self.retry_at = None;
                self.failures = 0;
                self.tell("", "");
                LOOK
            }
            (Some(_), false) => {
                self.shut_down();
                LOOK
            }
            (None, true) => self.start_when_due(),
        }
    }

    /// Gives a running sender the settings anew. After a reload of the server's.
    pub fn reload(&mut self) {
        // A corrected setting deserves a try at once.
        self.retry_at = None;
        let Some(running) = &mut self.running else { return };
        match write_config() {
            Ok((_, config)) if config == running.config => {}
            Ok((_, config)) => {
                running.config = config;
                child::signal(&running.child, Signal::Reload);
            }
            Err(error) => self.tell(&error, ""),
        }
    }

    /// Ends the sender and waits for it, not longer than a few seconds.
    pub fn shut_down(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        child::signal(&running.child, Signal::Terminate);
        let deadline = Instant::now() + END_PATIENCE;
        while Instant::now() < deadline {
            if !matches!(running.child.try_wait(), Ok(None)) {
                break;
            }
            latch::wait(Duration::from_millis(50));
        }
        // Does nothing to one that has ended.
        let _ = running.child.kill();
        let _ = running.child.wait();
        shared::live().sender_pid.store(0, Release);
        // The waits above took the latch: a reload or a stop that came meanwhile is still to be seen.
        latch::wake(&shared::live().launcher);
        log!("scry_sender stopped");
    }

    fn notice_end(&mut self, wanted: bool) {
        let Some(running) = &mut self.running else { return };
        // Only one that gave up by itself has said why in its last line.
        let (status, gave_up) = match running.child.try_wait() {
            Ok(None) => return,
            Ok(Some(status)) => (status.to_string(), status.code().is_some_and(|code| code != 0)),
            Err(error) => (error.to_string(), false),
        };
        let last_words = last_line(&running.log, running.log_start).filter(|_| gave_up);
        if running.since.elapsed() >= RAN_WELL {
            self.failures = 0;
        }
        self.running = None;
        shared::live().sender_pid.store(0, Release);
        if wanted {
            let message = match last_words {
                Some(line) => format!("scry_sender ended ({status}): {line}"),
                None => format!("scry_sender ended ({status})"),
            };
            self.failed(
                &message,
                "See scry_sender.log beside the sender's socket (scry_backfill.socket_dir).",
            );
        }
    }

    fn start_when_due(&mut self) -> Duration {
        if let Some(retry_at) = self.retry_at {
            let wait = retry_at.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return wait;
            }
        }
        match start() {
            Ok(running) => {
                shared::live().sender_pid.store(running.child.id().cast_signed(), Release);
                log!("scry_sender started with pid {}", running.child.id());
                self.running = Some(running);
                UP
            }
            Err((message, hint)) => self.failed(&message, hint),
        }
    }

    fn failed(&mut self, message: &str, hint: &str) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let wait = Duration::from_secs((1_u64 << self.failures.saturating_sub(1).min(16)).min(60));
        self.retry_at = Some(Instant::now() + wait);
        self.tell(message, hint);
        wait
    }

    fn tell(&mut self, message: &str, hint: &str) {
        if self.told == message {
            return;
        }
        message.clone_into(&mut self.told);
        shared::write_texts(|texts| {
            texts.launcher_message.set(message);
            texts.launcher_hint.set(hint);
        });
        if !message.is_empty() {
            log!("{message}");
            add_event(0, "", Level::Error, message, hint);
        }
    }
}

type Problem = (String, &'static str);

fn start() -> Result<Running, Problem> {
    if guc::endpoint().is_empty() {
        return Err((
            "scry_backfill.endpoint is not set".to_owned(),
            "Set it to the platform's https:// address and reload the server.",
        ));
    }
    let program = guc::sender_path();
    check_program(&program)?;
    let dir = socket::prepare_dir().map_err(|error| {
        (error, "Set \"scry_backfill.socket_dir\" to a directory of the server's user alone.")
    })?;
    let (file, config) =
        write_config().map_err(|error| (error, "Look at the directory of scry_backfill.socket_dir."))?;
    let log = dir.join("scry_sender.log");
    bound_log(&log);
    let output = open_log(&log).map_err(|error| {
        (
            format!("could not open \"{}\": {error}", log.display()),
            "Look at the directory of scry_backfill.socket_dir.",
        )
    })?;
    let log_start = output.metadata().map_or(0, |meta| meta.len());
    let mut command = Command::new(&program);
    command.arg("--config").arg(&file).current_dir(&dir);
    match child::spawn(&mut command, output) {
        Ok(child) => Ok(Running { child, since: Instant::now(), log, log_start, config }),
        Err(error) => Err((
            format!("could not start \"{}\": {error}", program.display()),
            "Install scry_sender there or set \"scry_backfill.sender_path\".",
        )),
    }
}

/// Says why a program cannot be run, if it can't.
pub fn check_program(program: &Path) -> Result<(), Problem> {
    let hint = "Install scry_sender there or set \"scry_backfill.sender_path\".";
    let meta = fs::metadata(program)
        .map_err(|error| (format!("could not find the sender \"{}\": {error}", program.display()), hint))?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err((format!("the sender \"{}\" is not an executable file", program.display()), hint));
    }
    Ok(())
}

/// Writes the sender's configuration from the settings; returns file and text.
fn write_config() -> Result<(PathBuf, String), String> {
    let file = socket::dir().join("scry_sender.toml");
    let text = config_text(&socket::path()?);
    let fresh = file.with_extension("toml.new");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        out.write_all(text.as_bytes())?;
        drop(out);
        fs::rename(&fresh, &file)
    };
    write().map_err(|error| format!("could not write \"{}\": {error}", file.display()))?;
    Ok((file, text))
}

fn config_text(socket: &Path) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("# Written by the launcher of scry_backfill from the server's settings.\n");
    let _ = writeln!(text, "[socket]\npath = {}", quoted(&socket.to_string_lossy()));
    let _ = writeln!(text, "[platform]\nendpoint = {}", quoted(&guc::endpoint()));
    for (key, file) in [
        ("auth_token_file", guc::auth_token_file()),
        ("ca_file", guc::ca_file()),
        ("client_cert_file", guc::client_cert_file()),
        ("client_key_file", guc::client_key_file()),
    ] {
        if let Some(file) = file {
            let _ = writeln!(text, "{key} = {}", quoted(&file));
        }
    }
    let _ = writeln!(
        text,
        "[rate_limit]\nmax_rows_per_second = {}\nmax_bytes_per_second = {}\nburst_multiplier = {:?}",
        guc::max_rows_per_second(),
        guc::max_bytes_per_second(),
        guc::burst_multiplier()
    );
    // While a slot keeps too much WAL, nothing holds a stream back.
    if !shared::live().pace.wal_critical.load(Acquire) {
        let _ = writeln!(
            text,
            "[rate_limit.stream]\nmax_rows_per_second = {}\nmax_bytes_per_second = {}\nburst_multiplier = {:?}",
            guc::max_stream_rows_per_second(),
            guc::max_stream_bytes_per_second(),
            guc::burst_multiplier()
        );
    }
    let _ = writeln!(text, "[log]\nlevel = \"info\"");
    text
}

/// A TOML basic string: JSON's escapes, and DEL, which JSON leaves alone.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn open_log(log: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(log)
}

/// Puts a log that has grown too long aside. The sender appends, so it goes on
/// at the start of the emptied file.
fn bound_log(log: &Path) {
    if fs::metadata(log).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        let _ = fs::copy(log, log.with_extension("log.old"));
        if let Ok(file) = open_log(log) {
            let _ = file.set_len(0);
        }
    }
}

/// The last line written since `start`, cut to a bearable length.
fn last_line(log: &Path, start: u64) -> Option<String> {
    const TAIL: u64 = 4096;
    let mut file = File::open(log).ok()?;
    let end = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(start.min(end).max(end.saturating_sub(TAIL)))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().filter(|c| !c.is_control()).take(300).collect())
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quotes_for_toml() {
        assert_eq!(quoted("a\"b\\c\n\u{7f}"), "\"a\\\"b\\\\c\\n\\u007f\"");
    }
}
