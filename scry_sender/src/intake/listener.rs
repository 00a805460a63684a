//! The Unix socket: made in a directory that only its owner can enter.
//!
//! Role: checks the directory, takes the lock, removes what a dead sender left
//! behind, binds, and turns away strangers.
//! Invariants: the directory belongs to a trusted user and has mode 0700; one
//! sender a socket (lock file beside it); nothing but a socket that nobody
//! listens on is ever removed; no symbolic link is followed. At the end only
//! our own socket is removed.
//! What it does not do: it reads nothing from a connection.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tokio::net::{UnixListener, UnixStream};

use super::peer::Peers;
use crate::config::SocketConfig;
use crate::metrics;

/// Bytes of a socket's path: `sun_path` without its final zero (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
    peers: Peers,
    _lock: File,
}

impl Listener {
    /// Binds the socket, or says why not. Call inside the runtime.
    pub fn bind(config: &SocketConfig) -> Result<Listener> {
        let (path, peers) = (&config.path, Peers::new(config.owner_uid));
        ensure!(path.is_absolute(), "[socket] path \"{}\" is not absolute", path.display());
        ensure!(
            path.as_os_str().len() <= PATH_BYTES_MAX,
            "[socket] path \"{}\" is longer than {PATH_BYTES_MAX} bytes, the system's limit for a Unix socket",
            path.display()
        );
        let directory = path.parent().context("[socket] path names no file")?;
        check_directory(directory, &peers)?;
        let lock = lock(path)?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path)
            .with_context(|| format!("could not create Unix socket \"{}\"", path.display()))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("could not set the mode of Unix socket \"{}\"", path.display()))?;
        if let Some(owner) = config.owner_uid.filter(|uid| nix::unistd::Uid::effective().as_raw() != *uid) {
            std::os::unix::fs::chown(path, Some(owner), None).with_context(|| {
                format!("could not give Unix socket \"{}\" to user {owner}", path.display())
            })?;
        }
        let meta = fs::symlink_metadata(path)
            .with_context(|| format!("could not read Unix socket \"{}\"", path.display()))?;
        Ok(Listener { listener, path: path.clone(), inode: (meta.dev(), meta.ino()), peers, _lock: lock })
    }

    /// The next connection of a trusted user.
    pub async fn accept(&self) -> UnixStream {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: wait for some to be closed.
                    tracing::warn!(%error, "could not accept a connection, trying again in a second");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    continue;
                }
            };
            let Some(who) = self.peers.stranger(&stream) else { return stream };
            metrics::turned_away("peer");
            tracing::warn!(peer = who, "connection refused: this user may not send");
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "could not remove the Unix socket");
        }
    }
}

fn check_directory(directory: &Path, peers: &Peers) -> Result<()> {
    let shown = directory.display();
    match DirBuilder::new().mode(0o700).create(directory) {
        Ok(()) => tracing::info!(path = %shown, "directory of the Unix socket created"),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error).with_context(|| format!("could not create directory \"{shown}\"")),
    }
    let meta =
        fs::symlink_metadata(directory).with_context(|| format!("could not read directory \"{shown}\""))?;
    ensure!(!meta.is_symlink(), "\"{shown}\" is a symbolic link: name the directory itself in [socket] path");
    ensure!(meta.is_dir(), "\"{shown}\" is not a directory");
    ensure!(
        peers.trusts(meta.uid()),
        "directory \"{shown}\" belongs to user {}: it must belong to the user that runs scry_sender",
        meta.uid()
    );
    let mode = meta.mode() & 0o777;
    ensure!(
        mode & 0o077 == 0,
        "directory \"{shown}\" has mode {mode:04o}: others could pose as the sender, set it to 0700"
    );
    Ok(())
}

/// Takes the lock file beside the socket; the system frees it with the process.
fn lock(path: &Path) -> Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&name)
        .with_context(|| format!("could not open lock file \"{}\"", name.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another scry_sender serves \"{}\"", path.display()),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("could not lock \"{}\"", name.display()))
        }
    }
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> Result<()> {
    let shown = path.display();
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("could not read \"{shown}\"")),
    };
    ensure!(!meta.is_symlink(), "\"{shown}\" is a symbolic link: remove it if nobody needs it");
    ensure!(
        meta.file_type().is_socket(),
        "\"{shown}\" exists and is not a socket: remove it if nobody needs it"
    );
    match StdUnixStream::connect(path) {
        Ok(_) => bail!("another program listens on Unix socket \"{shown}\""),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) => return Err(error).with_context(|| format!("could not tell who uses \"{shown}\"")),
    }
    fs::remove_file(path).with_context(|| format!("could not remove stale Unix socket \"{shown}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(mode: u32) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        dir
    }

    fn bind(path: PathBuf) -> Result<Listener> {
        Listener::bind(&SocketConfig { path, owner_uid: None })
    }

    fn refused(path: PathBuf) -> String {
        format!("{:#}", bind(path).unwrap_err())
    }

    #[tokio::test]
    async fn binds_with_mode_0600_and_removes_its_socket() {
        let dir = directory(0o700);
        let path = dir.path().join("s");
        let listener = bind(path.clone()).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(refused(path.clone()).contains("another scry_sender"));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn makes_a_missing_directory_private() {
        let dir = directory(0o700);
        let _listener = bind(dir.path().join("new/s")).unwrap();
        assert_eq!(fs::metadata(dir.path().join("new")).unwrap().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn rejects_a_directory_that_others_can_enter() {
        let dir = directory(0o750);
        assert!(refused(dir.path().join("s")).contains("mode 0750"));
    }

    #[tokio::test]
    async fn rejects_symbolic_links_and_files_and_leaves_them() {
        let dir = directory(0o700);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        assert!(refused(link.clone()).contains("symbolic link"));
        assert!(fs::symlink_metadata(&link).is_ok());
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(refused(file.clone()).contains("not a socket"));
        assert!(file.exists());
        let real = dir.path().join("real");
        DirBuilder::new().mode(0o700).create(&real).unwrap();
        std::os::unix::fs::symlink(&real, dir.path().join("dir")).unwrap();
        assert!(refused(dir.path().join("dir/s")).contains("symbolic link"));
    }

    #[tokio::test]
    async fn removes_a_stale_socket_but_not_one_in_use() {
        let dir = directory(0o700);
        let path = dir.path().join("s");
        let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(refused(path.clone()).contains("another program listens"));
        drop(other);
        bind(path).unwrap();
    }

    #[tokio::test]
    async fn rejects_paths_that_no_socket_can_have() {
        assert!(refused("relative/s".into()).contains("not absolute"));
        assert!(refused(Path::new("/").join("x".repeat(120))).contains("longer than"));
    }
}
