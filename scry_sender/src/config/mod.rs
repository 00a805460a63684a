//! Every setting of the sender, once: unit, default with its reason, range,
//! and when it takes effect.
//!
//! Role: reads `scry-backfill.toml`, lets environment variables
//! `SCRY_BACKFILL_SECTION__KEY` override it, and checks the result into types.
//! Flow: file, environment → `raw` fields → [`Config`]; the rest of the program
//! sees only checked values. On SIGHUP the same is read again.
//! Invariants: a [`Config`] that exists is valid; an unknown key in a known
//! section is an error that names it; the token itself is never here, only its
//! file's name.
//! What it does not do: it opens none of the files it names.

mod endpoint;
mod size;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use figment::Figment;
use figment::providers::{Env, Format, Toml};
use serde::Deserialize;

use crate::queue::PIECE_BYTES;

pub use endpoint::Endpoint;
pub use size::Size;

/// Prefix of the environment variables.
const ENV_PREFIX: &str = "SCRY_BACKFILL_";
/// Sections that the sender reads; others belong to other programs.
const SECTIONS: [&str; 6] = ["socket", "platform", "rate_limit", "log", "metrics", "limits"];

/// All settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The Unix socket. Takes effect at start.
    pub socket: SocketConfig,
    /// The platform. Takes effect for new connections after a reload.
    pub platform: PlatformConfig,
    /// The rates. Take effect at once after a reload.
    pub rate_limit: RateLimitConfig,
    /// The log. Takes effect at start.
    pub log: LogConfig,
    /// Where metrics are served: a loopback address, or nowhere (the default).
    /// Takes effect at start.
    pub metrics_listen: Option<SocketAddr>,
    /// Bounds. Take effect at start.
    pub limits: LimitsConfig,
}

/// `[socket]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketConfig {
    /// `path`: where workers connect. No default: it is the one thing that the
    /// server and the sender must agree on.
    pub path: PathBuf,
    /// `owner_uid`: a user besides our own and root who may own the directory
    /// and connect. Default none.
    pub owner_uid: Option<u32>,
}

/// `[platform]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformConfig {
    /// `endpoint`: `https://host:port`, or `http://` to a loopback address.
    pub endpoint: Endpoint,
    /// `auth_token_file`: read at each request, mode 0600. Default none: the
    /// platform then has to be told to ask for none.
    pub auth_token_file: Option<PathBuf>,
    /// `ca_file`: PEM; the only roots that are trusted when it is set. Default
    /// none: the system's roots.
    pub ca_file: Option<PathBuf>,
    /// `client_cert_file` and `client_key_file`: PEM, for mutual TLS; both or none.
    pub client_identity: Option<(PathBuf, PathBuf)>,
    /// `ping_interval_ms`, 100 to 600000: between PINGs. Default 10000. A
    /// platform that answers none for twice as long is given up.
    pub ping_interval: Duration,
    /// `compression`: `auto`, `always` or `never`. Default `auto`: nothing is
    /// spent where the link is fast, and where it is slow a processor buys
    /// more than it costs.
    pub compression: Compression,
}

/// When what goes up is compressed, for a platform that takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// While the link is slower than compressing is.
    #[default]
    Auto,
    /// Whatever the link is.
    Always,
    /// Not at all.
    Never,
}

/// `[rate_limit]`: of the copy; `[rate_limit.stream]`: of the changes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct RateLimitConfig {
    /// For connections that copy tables.
    pub copy: Rates,
    /// For connections that stream changes. Default unlimited: holding back
    /// changes keeps WAL on the source.
    pub stream: Rates,
}

/// One pair of rates; 0 is unlimited, the default.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// `max_rows_per_second` or `rows_per_second`.
    pub rows_per_second: u64,
    /// `max_bytes_per_second` or `bytes_per_second`: a number or `"20MB"`.
    pub bytes_per_second: u64,
    /// `burst_multiplier`, 0.01 to 100: how many seconds' worth may pass at
    /// once after a pause. Default 1.5: room for a late timer, no more.
    pub burst_multiplier: f64,
}

impl Default for Rates {
    fn default() -> Self {
        Rates { rows_per_second: 0, bytes_per_second: 0, burst_multiplier: 1.5 }
    }
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `level`: a filter of `tracing`, as `info` or `scry_sender=debug`.
    pub level: String,
    /// `format`: `text` or `json`.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitsConfig {
    /// `max_connections`, 1 to 512: workers at once. A job has a stream
    /// worker, a leader and a few snapshot workers.
    pub max_connections: usize,
    /// `queue_bytes`, from 1 MiB: bytes of frames held in all. Default 32 MiB:
    /// half of the sender's memory. Every connection has one piece for itself,
    /// so that none can starve another.
    pub queue_bytes: usize,
    /// `connection_queue_bytes`: bytes of frames read ahead by one connection.
    /// Default 4 MiB.
    pub connection_queue_bytes: usize,
    /// `copy_connections`, 1 to 16: HTTP/2 connections for the copy. Default
    /// 4: enough for TLS on several cores.
    pub copy_connections: usize,
}

impl Config {
    /// Reads the file and the environment, and checks all of it.
    pub fn load(file: &Path) -> Result<Config> {
        ensure!(file.is_file(), "could not read configuration file \"{}\": no such file", file.display());
        let figment = Figment::from(Toml::file_exact(file)).merge(environment());
        Config::from_figment(&figment)
            .with_context(|| format!("configuration file \"{}\" is not valid", file.display()))
    }

    fn from_figment(figment: &Figment) -> Result<Config> {
        let raw: Raw = figment.extract().map_err(|e| anyhow::anyhow!(one_line(&e.to_string())))?;
        raw.check()
    }

    /// Sections of the file that the sender does not know.
    #[must_use]
    pub fn unknown_sections(file: &Path) -> Vec<String> {
        let Ok(all) = Figment::from(Toml::file_exact(file)).extract::<figment::value::Dict>() else {
            return Vec::new();
        };
        all.into_keys().filter(|key| !SECTIONS.contains(&key.as_str())).collect()
    }

    /// The settings that only a restart changes, and that differ in `new`.
    #[must_use]
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        [
            ("socket", self.socket != new.socket),
            ("log", self.log != new.log),
            ("metrics", self.metrics_listen != new.metrics_listen),
            ("limits", self.limits != new.limits),
        ]
        .into_iter()
        .filter_map(|(section, differs)| differs.then_some(section))
        .collect()
    }
}

/// A complaint of the libraries without the lines of the file that it quotes:
/// they may hold a secret that somebody put there.
fn one_line(complaint: &str) -> String {
    let quoted = |line: &&str| line.contains('|') || line.trim().is_empty();
    complaint.lines().filter(|line| !quoted(line)).map(str::trim).collect::<Vec<_>>().join(", ")
}

fn environment() -> Env {
    // Only names with a section: others with the prefix belong to other programs.
    Env::prefixed(ENV_PREFIX).filter(|key| key.as_str().contains("__")).split("__")
}

/// The file as it is written; everything optional, so that what is missing is
/// told in our words.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Raw {
    socket: RawSocket,
    platform: RawPlatform,
    rate_limit: RawRateLimit,
    log: RawLog,
    metrics: RawMetrics,
    limits: RawLimits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawSocket {
    path: Option<PathBuf>,
    owner_uid: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawPlatform {
    endpoint: Option<String>,
    auth_token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    client_cert_file: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
    ping_interval_ms: Option<u64>,
    compression: Compression,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawRateLimit {
    #[serde(alias = "rows_per_second")]
    max_rows_per_second: Option<Size>,
    #[serde(alias = "bytes_per_second")]
    max_bytes_per_second: Option<Size>,
    burst_multiplier: Option<f64>,
    stream: RawRates,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawRates {
    #[serde(alias = "rows_per_second")]
    max_rows_per_second: Option<Size>,
    #[serde(alias = "bytes_per_second")]
    max_bytes_per_second: Option<Size>,
    burst_multiplier: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLog {
    level: Option<String>,
    format: LogFormat,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawMetrics {
    listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawLimits {
    max_connections: Option<usize>,
    queue_bytes: Option<Size>,
    connection_queue_bytes: Option<Size>,
    copy_connections: Option<usize>,
}

impl Raw {
    fn check(self) -> Result<Config> {
        Ok(Config {
            socket: SocketConfig {
                path: non_empty(self.socket.path)
                    .context("[socket] path is missing: set it to the path of the Unix socket")?,
                owner_uid: self.socket.owner_uid,
            },
            platform: self.platform.check()?,
            rate_limit: RateLimitConfig {
                copy: rates(
                    "rate_limit",
                    &RawRates {
                        max_rows_per_second: self.rate_limit.max_rows_per_second,
                        max_bytes_per_second: self.rate_limit.max_bytes_per_second,
                        burst_multiplier: self.rate_limit.burst_multiplier,
                    },
                )?,
                stream: rates("rate_limit.stream", &self.rate_limit.stream)?,
            },
            log: LogConfig {
                level: self.log.level.unwrap_or_else(|| "info".to_owned()),
                format: self.log.format,
            },
            metrics_listen: self
                .metrics
                .listen
                .filter(|l| !l.is_empty())
                .map(|l| loopback(&l))
                .transpose()?,
            limits: self.limits.check()?,
        })
    }
}

impl RawPlatform {
    fn check(self) -> Result<PlatformConfig> {
        let endpoint = self
            .endpoint
            .filter(|e| !e.is_empty())
            .context("[platform] endpoint is missing: set it to https://host:port")?;
        let identity = match (non_empty(self.client_cert_file), non_empty(self.client_key_file)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => bail!("[platform] client_cert_file and client_key_file go together: set both or none"),
        };
        let ping_ms = self.ping_interval_ms.unwrap_or(10_000);
        ensure!(
            (100..=600_000).contains(&ping_ms),
            "[platform] ping_interval_ms is {ping_ms}: 100 to 600000 are allowed"
        );
        Ok(PlatformConfig {
            endpoint: Endpoint::parse(&endpoint).context("[platform] endpoint is not valid")?,
            auth_token_file: non_empty(self.auth_token_file),
            ca_file: non_empty(self.ca_file),
            client_identity: identity,
            ping_interval: Duration::from_millis(ping_ms),
            compression: self.compression,
        })
    }
}

impl RawLimits {
    fn check(self) -> Result<LimitsConfig> {
        let limits = LimitsConfig {
            max_connections: self.max_connections.unwrap_or(512),
            queue_bytes: size(self.queue_bytes, 32 << 20)?,
            connection_queue_bytes: size(self.connection_queue_bytes, 4 << 20)?,
            copy_connections: self.copy_connections.unwrap_or(4),
        };
        ensure!(
            (1..=512).contains(&limits.max_connections),
            "[limits] max_connections is {}: 1 to 512 are allowed",
            limits.max_connections
        );
        ensure!(
            (1 << 20..=1 << 30).contains(&limits.queue_bytes),
            "[limits] queue_bytes is {}: 1MB to 1GB are allowed",
            limits.queue_bytes
        );
        ensure!(
            limits.queue_bytes >= limits.max_connections * PIECE_BYTES,
            "[limits] queue_bytes is {}: {} connections need at least {}",
            limits.queue_bytes,
            limits.max_connections,
            limits.max_connections * PIECE_BYTES
        );
        ensure!(
            limits.connection_queue_bytes <= limits.queue_bytes,
            "[limits] connection_queue_bytes is above queue_bytes"
        );
        ensure!(
            (1..=16).contains(&limits.copy_connections),
            "[limits] copy_connections is {}: 1 to 16 are allowed",
            limits.copy_connections
        );
        Ok(limits)
    }
}

fn non_empty(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|p| !p.as_os_str().is_empty())
}

fn size(value: Option<Size>, default: usize) -> Result<usize> {
    value.map_or(Ok(default), |s| usize::try_from(s.0).context("size does not fit this machine"))
}

fn rates(section: &str, raw: &RawRates) -> Result<Rates> {
    let default = Rates::default();
    let rates = Rates {
        rows_per_second: raw.max_rows_per_second.map_or(0, |s| s.0),
        bytes_per_second: raw.max_bytes_per_second.map_or(0, |s| s.0),
        burst_multiplier: raw.burst_multiplier.unwrap_or(default.burst_multiplier),
    };
    ensure!(
        (0.01..=100.0).contains(&rates.burst_multiplier),
        "[{section}] burst_multiplier is {}: 0.01 to 100 are allowed",
        rates.burst_multiplier
    );
    Ok(rates)
}

fn loopback(listen: &str) -> Result<SocketAddr> {
    let addr: SocketAddr = listen
        .parse()
        .with_context(|| format!("[metrics] listen is \"{listen}\": write an address as 127.0.0.1:9187"))?;
    ensure!(
        addr.ip().is_loopback(),
        "[metrics] listen is \"{listen}\": only a loopback address is allowed, metrics have no password"
    );
    Ok(addr)
}

#[cfg(test)]
mod tests {
    // The closures of `Jail` return the library's own error.
    #![allow(clippy::result_large_err)]

    use super::*;
    use figment::Jail;

    const MINIMAL: &str = "[socket]\npath = \"/run/scry/s\"\n[platform]\nendpoint = \"https://h:1\"\n";

    fn load(text: &str) -> Result<Config> {
        Config::from_figment(&Figment::from(Toml::string(text)))
    }

    fn refused(text: &str) -> String {
        format!("{:#}", load(text).unwrap_err())
    }

    #[test]
    fn accepts_the_minimum_with_defaults() {
        let config = load(MINIMAL).unwrap();
        assert_eq!(config.limits.queue_bytes, 32 << 20);
        assert_eq!(config.limits.max_connections, 512);
        assert_eq!(config.rate_limit, RateLimitConfig::default());
        assert_eq!(config.metrics_listen, None);
        assert_eq!(config.log.format, LogFormat::Text);
        assert_eq!(config.platform.compression, Compression::Auto);
    }

    #[test]
    fn reads_rates_by_both_names_and_with_units() {
        let text = format!(
            "{MINIMAL}[rate_limit]\nrows_per_second = 100\nbytes_per_second = \"20MB\"\nburst_multiplier = 2\n\
             [rate_limit.stream]\nmax_rows_per_second = 7\n"
        );
        let config = load(&text).unwrap();
        assert_eq!(config.rate_limit.copy.rows_per_second, 100);
        assert_eq!(config.rate_limit.copy.bytes_per_second, 20 << 20);
        assert!((config.rate_limit.copy.burst_multiplier - 2.0).abs() < 1e-9);
        assert_eq!(config.rate_limit.stream.rows_per_second, 7);
    }

    #[test]
    fn rejects_what_is_missing_unknown_or_out_of_range() {
        assert!(refused("").contains("[socket] path is missing"));
        assert!(refused("[socket]\npath='/x'").contains("endpoint is missing"));
        assert!(refused(&format!("{MINIMAL}auth_token = 's'")).contains("auth_token"));
        assert!(refused(&format!("{MINIMAL}client_key_file = '/k'")).contains("go together"));
        assert!(refused(&format!("{MINIMAL}compression = 'fast'")).contains("compression"));
        assert!(refused(&format!("{MINIMAL}[metrics]\nlisten='0.0.0.0:1'")).contains("loopback"));
        assert!(refused(&format!("{MINIMAL}[rate_limit]\nburst_multiplier=0")).contains("burst_multiplier"));
        assert!(refused(&format!("{MINIMAL}[rate_limit]\nmax_bytes_per_second='fast'")).contains("fast"));
        assert!(refused(&format!("{MINIMAL}[limits]\nmax_connections=0")).contains("max_connections"));
    }

    #[test]
    fn the_example_file_holds_every_key_and_its_default() {
        let text = include_str!("../../scry-backfill.example.toml");
        let config = load(text).unwrap();
        let minimal = load(MINIMAL).unwrap();
        assert_eq!(config.rate_limit, minimal.rate_limit);
        assert_eq!(config.limits, minimal.limits);
        assert_eq!(config.log, minimal.log);
        assert_eq!(config.platform.ping_interval, minimal.platform.ping_interval);
        assert_eq!(config.platform.compression, minimal.platform.compression);
        let commented: String = text
            .lines()
            .map(|l| l.strip_prefix("# ").filter(|l| l.contains(" = ")).unwrap_or(l))
            .fold(String::new(), |mut all, line| {
                all.push_str(line);
                all.push('\n');
                all
            });
        load(&commented).unwrap();
    }

    #[test]
    fn environment_stands_above_the_file() {
        Jail::expect_with(|jail| {
            jail.create_file("c.toml", MINIMAL)?;
            jail.set_env("SCRY_BACKFILL_PLATFORM__ENDPOINT", "http://127.0.0.1:9");
            jail.set_env("SCRY_BACKFILL_PLATFORM__COMPRESSION", "never");
            jail.set_env("SCRY_BACKFILL_RATE_LIMIT__MAX_BYTES_PER_SECOND", "3kB");
            jail.set_env("SCRY_BACKFILL_RATE_LIMIT__STREAM__MAX_ROWS_PER_SECOND", "5");
            jail.set_env("SCRY_BACKFILL_TOKEN", "of another program");
            let config = Config::load(Path::new("c.toml")).map_err(|e| e.to_string())?;
            assert_eq!(config.platform.endpoint.to_string(), "http://127.0.0.1:9");
            assert_eq!(config.platform.compression, Compression::Never);
            assert_eq!(config.rate_limit.copy.bytes_per_second, 3072);
            assert_eq!(config.rate_limit.stream.rows_per_second, 5);
            Ok(())
        });
    }

    #[test]
    fn names_sections_of_other_programs_and_what_a_reload_cannot_change() {
        Jail::expect_with(|jail| {
            jail.create_file("c.toml", &format!("{MINIMAL}[snapshot]\nworkers = 4\n"))?;
            assert_eq!(Config::unknown_sections(Path::new("c.toml")), ["snapshot"]);
            let old = Config::load(Path::new("c.toml")).map_err(|e| e.to_string())?;
            let mut new = old.clone();
            new.socket.path = "/elsewhere".into();
            new.rate_limit.copy.rows_per_second = 9;
            assert_eq!(old.needs_restart(&new), ["socket"]);
            Ok(())
        });
    }
}
