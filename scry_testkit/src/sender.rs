//! `scry_sender` run by hand, as an administrator does with
//! `scry_backfill.sender = external`.

use crate::lab::Lab;
use crate::program::Program;
use anyhow::Result;
use std::path::PathBuf;

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
