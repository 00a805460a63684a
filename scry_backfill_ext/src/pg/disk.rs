//! Free space of the disk that holds the WAL.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use super::server;

/// A disk's size and what of it the server may still use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that are free to the server's user.
    pub free: u64,
    /// Bytes in all, without those kept for root.
    pub size: u64,
}

/// Looks at the disk of `pg_wal`, wherever a link leads.
pub fn wal_space() -> Option<Space> {
    let path = CString::new(server::data_directory().join("pg_wal").as_os_str().as_bytes()).ok()?;
    // SAFETY: statvfs fills the struct it is given; all zeroes are valid before.
    let stat = unsafe {
        let mut stat: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(path.as_ptr(), &raw mut stat) != 0 {
            return None;
        }
        stat
    };
    let used = stat.f_blocks.saturating_sub(stat.f_bfree);
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(Space { free: bytes(stat.f_bavail), size: bytes(used.saturating_add(stat.f_bavail)) })
}
