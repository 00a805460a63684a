//! Facts about the server and this session: read only, cheap, no catalogs.

use std::ffi::{CStr, CString};
use std::path::PathBuf;

use pgrx::pg_sys;

/// `wal_level` as the server runs with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalLevel {
    /// Crash recovery only.
    Minimal,
    /// Physical replication.
    Replica,
    /// Logical decoding.
    Logical,
}

impl WalLevel {
    /// As in `postgresql.conf`.
    pub fn as_str(self) -> &'static str {
        match self {
            WalLevel::Minimal => "minimal",
            WalLevel::Replica => "replica",
            WalLevel::Logical => "logical",
        }
    }
}

/// The server's `wal_level`.
pub fn wal_level() -> WalLevel {
    // SAFETY: a plain global, fixed at server start.
    match unsafe { pg_sys::wal_level } as pg_sys::WalLevel::Type {
        pg_sys::WalLevel::WAL_LEVEL_MINIMAL => WalLevel::Minimal,
        pg_sys::WalLevel::WAL_LEVEL_LOGICAL => WalLevel::Logical,
        _ => WalLevel::Replica,
    }
}

/// Whether the libraries of `shared_preload_libraries` are being loaded.
pub fn preloading() -> bool {
    // SAFETY: a plain global.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Whether the server is a standby or recovers.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared memory that exists since server start.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// The session's database; 0 for none.
pub fn database() -> u32 {
    // SAFETY: a plain global.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// The current user.
pub fn user() -> pg_sys::Oid {
    // SAFETY: reads a global.
    unsafe { pg_sys::GetUserId() }
}

/// This process.
pub fn pid() -> i32 {
    // SAFETY: a plain global.
    unsafe { pg_sys::MyProcPid }
}

/// The server's data directory.
pub fn data_directory() -> PathBuf {
    // SAFETY: set before anything of ours runs, never changed, NUL-terminated.
    let dir = unsafe { pg_sys::DataDir };
    path(dir.cast_const())
}

/// The directory of the running `postgres` binary.
pub fn bin_directory() -> PathBuf {
    let mut exec = path((&raw const pg_sys::my_exec_path).cast());
    exec.pop();
    exec
}

fn path(text: *const std::ffi::c_char) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    if text.is_null() {
        return PathBuf::new();
    }
    // SAFETY: the callers pass NUL-terminated globals of the server.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// A setting of the server as text; `None` if there is none of this name.
pub fn setting(name: &CStr) -> Option<String> {
    // SAFETY: a NUL-terminated name; `missing_ok`, and no privilege check because the values stay in here.
    let value = unsafe { pg_sys::GetConfigOption(name.as_ptr(), true, false) };
    if value.is_null() {
        return None;
    }
    // SAFETY: a NUL-terminated string, valid until the next call; copied at once.
    Some(unsafe { CStr::from_ptr(value) }.to_string_lossy().into_owned())
}

/// Sets a setting for this process only, as `SET` would. For background workers.
pub fn set_setting(name: &CStr, value: &str) {
    let Ok(value) = CString::new(value) else { return };
    // SAFETY: NUL-terminated strings that live across the call; raises an ERROR for a bad value.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// Sets a setting until the (sub)transaction ends, as `SET LOCAL` would.
pub fn set_local(name: &CStr, value: &str) {
    let Ok(value) = CString::new(value) else { return };
    // SAFETY: as `set_setting`; the old value is put back by the end of the (sub)transaction (guc.c).
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}

/// This process's database, by name. For workers, outside a transaction.
pub fn database_name() -> String {
    super::snapshot::transaction(database_name_here)
}

/// As [`database_name`], inside a transaction.
pub fn database_name_here() -> String {
    // SAFETY: inside a transaction; the name is palloc'd, null if the database is gone.
    unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() { String::new() } else { CStr::from_ptr(name).to_string_lossy().into_owned() }
    }
}

/// `server_version_num` of the running server.
pub fn version_num() -> u32 {
    setting(c"server_version_num").and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Name of the database's encoding.
pub fn encoding() -> String {
    // SAFETY: points into a static table.
    unsafe { CStr::from_ptr(pg_sys::GetDatabaseEncodingName()) }.to_string_lossy().into_owned()
}

/// 63 random bits, never 0.
pub fn random_positive() -> i64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: fills the buffer of the length given.
    let strong = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    let random = if strong { i64::from_ne_bytes(bytes) } else { super::latch::now() };
    (random & i64::MAX).max(1)
}
