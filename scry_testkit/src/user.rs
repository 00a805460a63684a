//! Whose processes the clusters are. As a normal user: one's own. As root:
//! `SCRY_TEST_USER` (default `postgres`), because PostgreSQL refuses root.

use anyhow::{Context, Result};
use nix::unistd::{Uid, User};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The user that clusters and programs run as.
#[derive(Debug, Clone)]
pub struct ClusterUser {
    /// Its login name.
    pub name: String,
    /// `Some` when this process is root and has to change to it.
    switch_to: Option<(u32, u32)>,
}

impl ClusterUser {
    /// Finds the user; fails when this is root and there is no such user.
    pub fn detect() -> Result<Self> {
        let uid = Uid::effective();
        if !uid.is_root() {
            let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
            return Ok(ClusterUser { name, switch_to: None });
        }
        let name = std::env::var("SCRY_TEST_USER").unwrap_or_else(|_| "postgres".to_owned());
        let user =
            User::from_name(&name).with_context(|| format!("look up user {name}"))?.with_context(|| {
                format!("user {name} does not exist; set SCRY_TEST_USER to one that is not root")
            })?;
        Ok(ClusterUser { name, switch_to: Some((user.uid.as_raw(), user.gid.as_raw())) })
    }

    /// A command that will run as this user, in a directory it can read.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir("/");
        // Nothing of the caller's PostgreSQL settings may lead a client or a
        // server to another cluster.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("PG") || name_text.starts_with("SCRY_BACKFILL") {
                command.env_remove(&name);
            }
        }
        if let Some((uid, gid)) = self.switch_to {
            command.uid(uid).gid(gid).env("HOME", "/").env("USER", &self.name).env("LOGNAME", &self.name);
        }
        command
    }

    /// Makes the user the owner of `path`.
    pub fn own(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.switch_to {
            chown(path, Some(uid), Some(gid))
                .with_context(|| format!("give {} to {}", path.display(), self.name))?;
        }
        Ok(())
    }

    /// Makes a directory that belongs to the user, with the mode PostgreSQL
    /// wants for its own.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
            .with_context(|| format!("set mode of {}", path.display()))?;
        self.own(path)
    }

    /// Writes a file that belongs to the user.
    pub fn write_file(&self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        std::fs::write(path, content).with_context(|| format!("write {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .with_context(|| format!("set mode of {}", path.display()))?;
        self.own(path)
    }
}
