//! The platform's own files in its data directory.
//!
//! ```text
//! DIR/shadow/                  the embedded cluster
//! DIR/shadow.log               what its server says
//! DIR/run/                     its Unix socket
//! DIR/spool/                   large transactions in progress, in files without names
//! DIR/port                     its TCP port on 127.0.0.1
//! DIR/scry_admin.password      0600: superuser, for extensions and settings
//! DIR/scry_shadow.password     0600: owner of the shadows
//! DIR/platform.lock            held while a platform runs here
//! ```

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Paths below one data directory.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
}

impl Files {
    /// Paths below `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Files { dir: dir.to_owned() }
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The embedded cluster's directory.
    #[must_use]
    pub fn cluster(&self) -> PathBuf {
        self.dir.join("shadow")
    }

    /// The embedded server's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.dir.join("shadow.log")
    }

    /// Keeps the log from growing for ever: a large one becomes `shadow.log.1`.
    pub fn rotate_log(&self) {
        if std::fs::metadata(self.log()).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            let _ = std::fs::rename(self.log(), self.dir.join("shadow.log.1"));
        }
    }

    /// The directory of the Unix socket.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Where large transactions are put aside, in files without names.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// Makes the data directory, closed to others.
    pub fn create(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        DirBuilder::new().recursive(true).mode(0o700).create(self.run())?;
        std::fs::set_permissions(self.run(), std::fs::Permissions::from_mode(0o700))
    }

    /// Takes the lock of the directory; `None` when another platform has it.
    pub fn lock(&self) -> io::Result<Option<File>> {
        let path = self.dir.join("platform.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The port, if one was chosen.
    pub fn port(&self) -> Option<u16> {
        std::fs::read_to_string(self.dir.join("port")).ok()?.trim().parse().ok()
    }

    /// Keeps the port.
    pub fn write_port(&self, port: u16) -> io::Result<()> {
        self.write("port", &format!("{port}\n"), 0o644)
    }

    /// A role's password.
    pub fn password(&self, role: &str) -> io::Result<String> {
        Ok(std::fs::read_to_string(self.password_file(role))?.trim().to_owned())
    }

    /// A role's password file.
    #[must_use]
    pub fn password_file(&self, role: &str) -> PathBuf {
        self.dir.join(format!("{role}.password"))
    }

    /// A role's password, made when there is none yet.
    pub fn password_or_new(&self, role: &str) -> io::Result<String> {
        match self.password(role) {
            Ok(password) if !password.is_empty() => return Ok(password),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let password = random_password()?;
        self.write(&format!("{role}.password"), &format!("{password}\n"), 0o600)?;
        Ok(password)
    }

    /// Writes a small file whole or not at all.
    fn write(&self, name: &str, text: &str, mode: u32) -> io::Result<()> {
        let path = self.dir.join(format!("{name}.new"));
        let _ = std::fs::remove_file(&path);
        let mut file = OpenOptions::new().create_new(true).write(true).mode(mode).open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&path, self.dir.join(name))
    }
}

const LOG_BYTES_MAX: u64 = 16 << 20;

/// 192 random bits in letters that need no quoting anywhere.
fn random_password() -> io::Result<String> {
    let mut bytes = [0u8; 24];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_port_and_password_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        files.create().unwrap();
        assert_eq!(files.port(), None);
        files.write_port(5).unwrap();
        assert_eq!(files.port(), Some(5));
        let password = files.password_or_new("r").unwrap();
        assert_eq!(files.password_or_new("r").unwrap(), password);
        let mode = std::fs::metadata(files.password_file("r")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn one_platform_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(dir.path());
        let held = files.lock().unwrap();
        assert!(held.is_some());
        assert!(files.lock().unwrap().is_none());
    }
}
