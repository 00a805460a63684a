//! `scry_sender` run by hand, as an administrator does with
//! `scry_backfill.sender = external`.

use crate::lab::Lab;
use crate::program::Program;
use anyhow::{Context, Result};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

/// A sender; stopped and gone when dropped.
#[derive(Debug)]
pub struct Sender {
    /// The process.
    pub program: Program,
    /// Its configuration file.
    pub config_file: PathBuf,
}

impl Sender {
    /// Writes `config` (TOML) and prepares a sender that reads it; it is not
    /// started yet.
    pub fn create(lab: &Lab, name: &str, config: &str) -> Result<Sender> {
        let home = lab.path(name);
        lab.user.make_dir(&home)?;
        let config_file = home.join("scry-backfill.toml");
        lab.user.write_file(&config_file, config.as_bytes(), 0o600)?;
        let binary = lab.server.program("scry_sender")?;
        let mut program = Program::new(name, binary, home.join("sender.log"), &lab.user);
        program.arg("--config").arg(&config_file).env("RUST_BACKTRACE", "1");
        Ok(Sender { program, config_file })
    }
}

/// Says `bytes` on a sender's socket as the clusters' user, and returns what
/// came back; the exit status is a failure when the connection was still open
/// after `seconds`.
pub fn poke(lab: &Lab, socket: &Path, bytes: &[u8], seconds: u32) -> Result<Output> {
    let mut peer = lab
        .user
        .command(lab.server.program("scry_poke")?)
        .arg(socket)
        .arg(seconds.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start scry_poke")?;
    peer.stdin.take().context("no stdin")?.write_all(bytes).context("write to scry_poke")?;
    peer.wait_with_output().context("wait for scry_poke")
}
