//! Every `scry_backfill.*` setting, once: name, unit, default with its reason,
//! range, and when a change takes effect.
//!
//! All but `socket_dir` take effect at a reload (`SELECT pg_reload_conf()`):
//! the launcher writes the sender's configuration anew, workers read the
//! setting where they use it. None can be set in a session: they say where
//! production's rows go and how fast.
//!
//! Not here: the token itself. A setting is shown by `pg_settings` and stands
//! in backups; the file that holds the token is named instead.

use std::ffi::CString;
use std::path::PathBuf;

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};

use crate::failpoint;
use crate::pg::{guc_hook, server, shared};

/// Who runs the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum SenderKind {
    /// The launcher starts and watches it.
    #[name = c"managed"]
    Managed,
    /// Something else does (systemd, say).
    #[name = c"external"]
    External,
}

static ENDPOINT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static SHADOW_ID: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"default"));
static AUTH_TOKEN_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CLIENT_CERT_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static CLIENT_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static SENDER: GucSetting<SenderKind> = GucSetting::<SenderKind>::new(SenderKind::Managed);
static SENDER_PATH: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static SOCKET_DIR: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
// Two: one keeps a disk busy, the second hides its latency; more is the owner's choice.
static SNAPSHOT_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static MAX_ROWS_PER_SECOND: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_BYTES_PER_SECOND: GucSetting<i32> = GucSetting::<i32>::new(0);
// Held back changes are WAL kept: no limit unless the owner wants one.
static MAX_STREAM_ROWS_PER_SECOND: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_STREAM_BYTES_PER_SECOND: GucSetting<i32> = GucSetting::<i32>::new(0);
// Room for a late timer and a short burst of writes, no more.
static BURST_MULTIPLIER: GucSetting<f64> = GucSetting::<f64>::new(1.5);
// A frame's bytes are bounded anyway; this bounds the work one frame stands for.
static BATCH_SIZE: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static ADAPTIVE: GucSetting<bool> = GucSetting::<bool>::new(true);
// A large transaction would be spilled to production's disk otherwise.
static STREAM_IN_PROGRESS: GucSetting<bool> = GucSetting::<bool>::new(true);
static WAL_CHECK_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(30);
static MAX_WAL_WARNING: GucSetting<i32> = GucSetting::<i32>::new(1024);
static MAX_WAL_CRITICAL: GucSetting<i32> = GucSetting::<i32>::new(5 * 1024);
static MAX_WAL_HARD: GucSetting<i32> = GucSetting::<i32>::new(20 * 1024);

/// Defines all settings. Called once from `_PG_init`.
pub fn define() {
    define_connection();
    define_sender();
    define_rates();
    define_wal();
    failpoint::define();
    guc_hook::reserve_prefix();
}

fn define_connection() {
    guc_hook::define_endpoint(
        c"scry_backfill.endpoint",
        c"Address of the scry-platform that keeps the shadow.",
        c"https://host:port; http:// only to a loopback address.",
        &ENDPOINT,
    );
    GucRegistry::define_string_guc(
        c"scry_backfill.shadow_id",
        c"Name of the shadow at the platform.",
        c"",
        &SHADOW_ID,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"scry_backfill.auth_token_file",
        c"File that holds the platform's token.",
        c"Readable by the server's user only. Empty for none.",
        &AUTH_TOKEN_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"scry_backfill.ca_file",
        c"Certificates (PEM) that the platform's certificate must lead to.",
        c"Empty for those of the operating system.",
        &CA_FILE,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"scry_backfill.client_cert_file",
        c"Certificate (PEM) that the sender shows to the platform.",
        c"Goes with client_key_file. Empty for none.",
        &CLIENT_CERT_FILE,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"scry_backfill.client_key_file",
        c"Private key (PEM) of client_cert_file.",
        c"Readable by the server's user only. Empty for none.",
        &CLIENT_KEY_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
}

fn define_sender() {
    GucRegistry::define_enum_guc(
        c"scry_backfill.sender",
        c"Who runs scry_sender: the server (managed) or something else (external).",
        c"",
        &SENDER,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"scry_backfill.sender_path",
        c"The scry_sender program.",
        c"Empty for the one beside the postgres program.",
        &SENDER_PATH,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_string_guc(
        c"scry_backfill.socket_dir",
        c"Directory of the socket between server and sender.",
        c"Empty for scry_backfill in the data directory. Must belong to the server's user alone (mode 0700).",
        &SOCKET_DIR,
        // The server refuses one fixed at start from a library that is loaded later.
        if server::preloading() { GucContext::Postmaster } else { GucContext::Sighup },
        GucFlags::SUPERUSER_ONLY,
    );
}

fn define_rates() {
    GucRegistry::define_int_guc(
        c"scry_backfill.snapshot_workers",
        c"Workers that copy a job's tables at a time.",
        c"Each takes one of max_worker_processes while a job copies.",
        &SNAPSHOT_WORKERS,
        1,
        i32::try_from(shared::SNAPSHOT_WORKERS_MAX).unwrap_or(1),
        GucContext::Sighup,
        GucFlags::default(),
    );
    for (name, short, setting, flags) in [
        (
            c"scry_backfill.max_rows_per_second",
            c"Most rows copied in a second, by all jobs together.",
            &MAX_ROWS_PER_SECOND,
            GucFlags::default(),
        ),
        (
            c"scry_backfill.max_bytes_per_second",
            c"Most bytes copied in a second, by all jobs together.",
            &MAX_BYTES_PER_SECOND,
            GucFlags::UNIT_BYTE,
        ),
        (
            c"scry_backfill.max_stream_rows_per_second",
            c"Most row changes streamed in a second, by all jobs together.",
            &MAX_STREAM_ROWS_PER_SECOND,
            GucFlags::default(),
        ),
        (
            c"scry_backfill.max_stream_bytes_per_second",
            c"Most bytes streamed in a second, by all jobs together.",
            &MAX_STREAM_BYTES_PER_SECOND,
            GucFlags::UNIT_BYTE,
        ),
    ] {
        GucRegistry::define_int_guc(
            name,
            short,
            c"0 for no limit.",
            setting,
            0,
            i32::MAX,
            GucContext::Sighup,
            flags,
        );
    }
    GucRegistry::define_float_guc(
        c"scry_backfill.burst_multiplier",
        c"How many seconds' worth of rows and bytes may be sent at once.",
        c"",
        &BURST_MULTIPLIER,
        0.01,
        100.0,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"scry_backfill.batch_size",
        c"Most row changes sent together.",
        c"A batch is closed earlier when it is large in bytes, or when the stream is idle.",
        &BATCH_SIZE,
        1,
        1_000_000,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"scry_backfill.adaptive",
        c"Copies slower while the server is busy.",
        c"A copy gives up to 95 %, the stream up to half of its speed.",
        &ADAPTIVE,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

fn define_wal() {
    GucRegistry::define_bool_guc(
        c"scry_backfill.stream_in_progress",
        c"Sends transactions larger than logical_decoding_work_mem before they end.",
        c"Off, the server spills them to its own disk until they end. Takes effect when a job's worker starts.",
        &STREAM_IN_PROGRESS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"scry_backfill.wal_check_interval",
        c"How often the WAL kept for jobs is measured at least.",
        c"More often while a bound is near.",
        &WAL_CHECK_INTERVAL,
        1,
        3600,
        GucContext::Sighup,
        GucFlags::UNIT_S,
    );
    for (name, short, setting, min) in [
        (
            c"scry_backfill.max_wal_warning",
            c"A job that keeps more WAL than this is warned about.",
            &MAX_WAL_WARNING,
            1,
        ),
        (
            c"scry_backfill.max_wal_critical",
            c"While a job keeps more WAL than this, copies hold and streams have no limits.",
            &MAX_WAL_CRITICAL,
            1,
        ),
        (
            c"scry_backfill.max_wal_hard",
            c"A job that keeps more WAL than this, or too much for the disk, loses its slot; -1 for never.",
            &MAX_WAL_HARD,
            -1,
        ),
    ] {
        GucRegistry::define_int_guc(
            name,
            short,
            c"",
            setting,
            min,
            i32::MAX,
            GucContext::Sighup,
            GucFlags::UNIT_MB,
        );
    }
}

fn text(setting: &GucSetting<Option<CString>>) -> String {
    setting.get().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The platform's address; empty when it is not set.
pub fn endpoint() -> String {
    text(&ENDPOINT)
}

/// The shadow's name at the platform.
pub fn shadow_id() -> String {
    let id = text(&SHADOW_ID);
    if id.is_empty() { "default".to_owned() } else { id }
}

/// The file with the platform's token; `None` for no token.
pub fn auth_token_file() -> Option<String> {
    Some(text(&AUTH_TOKEN_FILE)).filter(|file| !file.is_empty())
}

/// The file with trusted certificates; `None` for the system's.
pub fn ca_file() -> Option<String> {
    Some(text(&CA_FILE)).filter(|file| !file.is_empty())
}

/// The certificate that the sender shows; `None` for none.
pub fn client_cert_file() -> Option<String> {
    Some(text(&CLIENT_CERT_FILE)).filter(|file| !file.is_empty())
}

/// The private key of [`client_cert_file`].
pub fn client_key_file() -> Option<String> {
    Some(text(&CLIENT_KEY_FILE)).filter(|file| !file.is_empty())
}

/// Who runs the sender.
pub fn sender() -> SenderKind {
    SENDER.get()
}

/// The sender's program.
pub fn sender_path() -> PathBuf {
    let path = text(&SENDER_PATH);
    if path.is_empty() { server::bin_directory().join("scry_sender") } else { PathBuf::from(path) }
}

/// The directory of the socket as set; `None` for the default.
pub fn socket_dir() -> Option<PathBuf> {
    Some(text(&SOCKET_DIR)).filter(|dir| !dir.is_empty()).map(PathBuf::from)
}

/// Snapshot workers of a job at a time.
pub fn snapshot_workers() -> usize {
    usize::try_from(SNAPSHOT_WORKERS.get()).unwrap_or(1).clamp(1, shared::SNAPSHOT_WORKERS_MAX)
}

/// Rows copied a second; 0 for no limit.
pub fn max_rows_per_second() -> u64 {
    u64::try_from(MAX_ROWS_PER_SECOND.get()).unwrap_or(0)
}

/// Bytes copied a second; 0 for no limit.
pub fn max_bytes_per_second() -> u64 {
    u64::try_from(MAX_BYTES_PER_SECOND.get()).unwrap_or(0)
}

/// Row changes streamed a second; 0 for no limit.
pub fn max_stream_rows_per_second() -> u64 {
    u64::try_from(MAX_STREAM_ROWS_PER_SECOND.get()).unwrap_or(0)
}

/// Bytes streamed a second; 0 for no limit.
pub fn max_stream_bytes_per_second() -> u64 {
    u64::try_from(MAX_STREAM_BYTES_PER_SECOND.get()).unwrap_or(0)
}

/// Seconds' worth of allowance that may be used at once.
pub fn burst_multiplier() -> f64 {
    BURST_MULTIPLIER.get()
}

/// Row changes in a batch, at most.
pub fn batch_size() -> u32 {
    u32::try_from(BATCH_SIZE.get()).unwrap_or(1).max(1)
}

/// Whether copying gives way to the server's load.
pub fn adaptive() -> bool {
    ADAPTIVE.get()
}

/// Whether transactions larger than the server's memory for them are sent before they end.
pub fn stream_in_progress() -> bool {
    STREAM_IN_PROGRESS.get()
}

/// Time between two looks at the WAL kept.
pub fn wal_check_interval() -> std::time::Duration {
    std::time::Duration::from_secs(u64::try_from(WAL_CHECK_INTERVAL.get()).unwrap_or(30))
}

/// Bytes of WAL kept that are warned about.
pub fn max_wal_warning() -> u64 {
    megabytes(&MAX_WAL_WARNING).unwrap_or(u64::MAX)
}

/// Bytes of WAL kept from which on the stream gets everything.
pub fn max_wal_critical() -> u64 {
    megabytes(&MAX_WAL_CRITICAL).unwrap_or(u64::MAX)
}

/// Bytes of WAL kept at which the slot is given up; `None` for never.
pub fn max_wal_hard() -> Option<u64> {
    megabytes(&MAX_WAL_HARD).filter(|size| *size > 0)
}

fn megabytes(setting: &GucSetting<i32>) -> Option<u64> {
    u64::try_from(setting.get()).ok().map(|size| size * 1024 * 1024)
}

/// Says what is wrong with an endpoint, in a sentence.
pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let (scheme, rest) = endpoint
        .split_once("://")
        .ok_or("The endpoint must begin with https:// (or http:// for a loopback address).")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#', '@', '\\'])
        || authority.chars().any(|c| c.is_whitespace() || c.is_control())
    {
        return Err("The endpoint must be a scheme, a host and a port only.".to_owned());
    }
    let host = host_of(authority)?;
    match scheme {
        "https" => Ok(()),
        "http" if is_loopback(host) => Ok(()),
        "http" => Err("http:// is allowed to a loopback address only: the rows would be readable on \
                       the network. Use https://."
            .to_owned()),
        _ => Err("The endpoint must begin with https:// (or http:// for a loopback address).".to_owned()),
    }
}

/// Host of `host:port`, `[v6]:port` or either without a port.
fn host_of(authority: &str) -> Result<&str, String> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(v6) => {
            let (host, after) =
                v6.split_once(']').ok_or("The endpoint's IPv6 address has no closing bracket.")?;
            (host, after.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err("The endpoint has no host.".to_owned());
    }
    match port {
        Some(port) if port.parse::<u16>().map_or(true, |port| port == 0) => {
            Err("The endpoint's port must be a number from 1 to 65535.".to_owned())
        }
        _ => Ok(host),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::check_endpoint;

    #[test]
    fn accepts_https_and_loopback() {
        for endpoint in [
            "https://shadow.example.com:7443",
            "https://shadow.example.com",
            "https://[2001:db8::1]:7443/",
            "http://127.0.0.1:7070",
            "http://localhost:7070",
            "http://[::1]:7070",
        ] {
            assert_eq!(check_endpoint(endpoint), Ok(()), "{endpoint}");
        }
    }

    #[test]
    fn rejects_plain_http_to_others_and_nonsense() {
        for endpoint in [
            "http://shadow.example.com:7443",
            "http://127.0.0.1.example.com:1",
            "http://127.0.0.1@evil:1",
            "ftp://x",
            "localhost:80",
            "https://",
            "https://h:0",
            "https://h:99999",
            "https://h/path",
            "https://h o:1",
        ] {
            assert!(check_endpoint(endpoint).is_err(), "{endpoint}");
        }
    }
}
