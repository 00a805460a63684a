//! Where the sender's Unix socket stands, and the directory it stands in.
//!
//! `scry_backfill.socket_dir`, or `scry_backfill` in the data directory. A
//! Unix socket's path has room for 107 bytes; where the data directory's is
//! longer, the directory stands in `/tmp`, named by user, port and data
//! directory. Either way it must be a real directory (no link), belong to the
//! server's user and be closed to others: whoever could put a socket there
//! would be given production's rows.
//!
//! [`path`] is a pure look; only the launcher makes the directory.

use std::fs::DirBuilder;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::guc;
use crate::pg::{child, server};

/// Name of the socket in its directory.
const SOCKET_NAME: &str = "sender.sock";

/// Bytes that `sockaddr_un.sun_path` holds besides the closing NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The socket's path; an error in words when no usable one is set.
pub fn path() -> Result<PathBuf, String> {
    let path = dir().join(SOCKET_NAME);
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(format!(
            "scry_backfill.socket_dir is too long: \"{}\" has {} bytes, a Unix socket's path at most {SOCKET_PATH_BYTES_MAX}",
            path.display(),
            path.as_os_str().len()
        ));
    }
    Ok(path)
}

/// The socket's directory, made or not.
pub fn dir() -> PathBuf {
    if let Some(dir) = guc::socket_dir() {
        return if dir.is_absolute() { dir } else { server::data_directory().join(dir) };
    }
    let own = server::data_directory().join("scry_backfill");
    if own.as_os_str().len() + 1 + SOCKET_NAME.len() <= SOCKET_PATH_BYTES_MAX {
        return own;
    }
    let mut hasher = DefaultHasher::new();
    server::data_directory().as_os_str().as_bytes().hash(&mut hasher);
    let port = server::setting(c"port").unwrap_or_default();
    PathBuf::from(format!("/tmp/scry_backfill-{}-{port}-{:016x}", child::effective_user(), hasher.finish()))
}

/// Makes the directory if it is missing and checks that nobody else can reach
/// into it. The launcher calls this before it starts the sender.
pub fn prepare_dir() -> Result<PathBuf, String> {
    let dir = dir();
    match DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(format!("could not create directory \"{}\": {error}", dir.display())),
    }
    check_dir(&dir)?;
    Ok(dir)
}

/// Refuses a directory that is a link, another's, or open to others.
pub fn check_dir(dir: &Path) -> Result<(), String> {
    let name = dir.display();
    let meta = std::fs::symlink_metadata(dir)
        .map_err(|error| format!("could not look at directory \"{name}\": {error}"))?;
    if !meta.is_dir() {
        return Err(format!("\"{name}\" is not a directory (a symbolic link is refused)"));
    }
    if meta.uid() != child::effective_user() {
        return Err(format!("directory \"{name}\" belongs to user {}, not to the server's user", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        // It is ours: closing it is safe, and what was planted before is refused by the sender's own checks.
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
            .map_err(|error| format!("could not close directory \"{name}\" to others: {error}"))?;
    }
    Ok(())
}
