//! The command line, checked into types before anything starts.
//!
//! Each setting stands once, with its unit and default. Flags may also come
//! from the environment as `SCRY_PLATFORM_<FLAG>`. A combination that cannot
//! work (plain HTTP on an address others can reach) is an error here.

use crate::journal::parse_size;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// The platform's command line.
#[derive(Debug, Parser)]
#[command(name = "scry_platform", version, about = "Takes the stream of scry-backfill and keeps the shadow")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: accept streams and keep shadows until told to stop
    Serve(Box<ServeArgs>),
    /// Print the URL of the embedded shadow
    ShadowUrl(ShadowUrlArgs),
    /// Become the embedded shadow's server, bound to the life of its parent
    #[command(name = "shadow-exec", hide = true)]
    ShadowExec(ShadowExecArgs),
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on; plain HTTP only on a loopback address
    #[arg(long, value_name = "HOST:PORT", env = "SCRY_PLATFORM_LISTEN")]
    pub listen: String,
    /// Directory for the embedded shadow and the platform's own files
    #[arg(long, value_name = "DIR", env = "SCRY_PLATFORM_DATA_DIR")]
    pub data_dir: PathBuf,
    /// Keep the shadow in this database instead of an embedded cluster
    #[arg(long, value_name = "URL", env = "SCRY_PLATFORM_SHADOW_URL", hide_env_values = true)]
    pub shadow_url: Option<String>,
    /// Speak TLS with the database of --shadow-url, trusting these authorities (PEM)
    #[arg(long, value_name = "FILE", env = "SCRY_PLATFORM_SHADOW_CA", requires = "shadow_url")]
    pub shadow_ca: Option<PathBuf>,
    /// Certificate chain in PEM; turns TLS on
    #[arg(long, value_name = "FILE", env = "SCRY_PLATFORM_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key in PEM
    #[arg(long, value_name = "FILE", env = "SCRY_PLATFORM_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Take only clients with a certificate of these authorities (PEM)
    #[arg(
        long = "tls-client-ca",
        alias = "client-ca",
        value_name = "FILE",
        env = "SCRY_PLATFORM_CLIENT_CA",
        requires = "tls_cert"
    )]
    pub client_ca: Option<PathBuf>,
    /// File of mode 0600 with the token that senders show, or several, one a line; read again when it changes
    #[arg(long, value_name = "FILE", env = "SCRY_PLATFORM_AUTH_TOKEN_FILE")]
    pub auth_token_file: Option<PathBuf>,
    /// Directory of PostgreSQL's programs for the embedded shadow
    #[arg(long, value_name = "DIR", env = "SCRY_PLATFORM_PG_BIN")]
    pub pg_bin: Option<PathBuf>,
    /// Run as this user (when started as root)
    #[arg(long, value_name = "USER", env = "SCRY_PLATFORM_RUN_AS")]
    pub run_as: Option<String>,
    /// Where changes wait for the shadow: in files below the data directory, or nowhere
    #[arg(long, value_name = "KIND", default_value = "file", env = "SCRY_PLATFORM_JOURNAL")]
    pub journal: JournalKind,
    /// Bytes that the journal of a shadow may take; beyond that the source keeps its WAL
    #[arg(long, value_name = "SIZE", default_value = "8GB", value_parser = parse_size,
          env = "SCRY_PLATFORM_JOURNAL_MAX_SIZE")]
    pub journal_max_size: u64,
    /// Form of log lines
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "SCRY_PLATFORM_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// Arguments of `shadow-url`.
#[derive(Debug, Args)]
pub struct ShadowUrlArgs {
    /// The platform's data directory
    #[arg(long, value_name = "DIR", env = "SCRY_PLATFORM_DATA_DIR")]
    pub data_dir: PathBuf,
}

/// Arguments of the hidden `shadow-exec`.
#[derive(Debug, Args)]
pub struct ShadowExecArgs {
    /// Process id of the platform
    #[arg(long)]
    pub parent: u32,
    /// The server and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<std::ffi::OsString>,
}

/// Where changes wait for the shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JournalKind {
    /// In files below the data directory: the source need not keep them
    File,
    /// Nowhere: the source keeps its WAL until the shadow has the changes
    None,
}

/// Form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// TLS of the listener.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
}

/// What `serve` works with.
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The data directory, absolute.
    pub data_dir: PathBuf,
    /// An external shadow.
    pub shadow_url: Option<String>,
    /// Authorities of the external shadow's certificate.
    pub shadow_ca: Option<PathBuf>,
    /// TLS, if any.
    pub tls: Option<TlsFiles>,
    /// The token's file.
    pub auth_token_file: Option<PathBuf>,
    /// Where PostgreSQL's programs are, if told.
    pub pg_bin: Option<PathBuf>,
    /// The largest size of a journal; `None` without journals.
    pub journal_bytes_max: Option<u64>,
}

impl ServeArgs {
    /// Checks the arguments.
    ///
    /// # Errors
    /// One line that says what to change.
    pub fn check(&self) -> Result<ServeConfig, String> {
        let listen = resolve(&self.listen)?;
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                Some(TlsFiles { cert: cert.clone(), key: key.clone(), client_ca: self.client_ca.clone() })
            }
            _ => None,
        };
        if tls.is_none() && !listen.ip().is_loopback() {
            return Err(format!(
                "cannot listen on {listen} without TLS: others can reach this address; \
                 give --tls-cert and --tls-key, or listen on 127.0.0.1"
            ));
        }
        let data_dir = std::path::absolute(&self.data_dir)
            .map_err(|e| format!("cannot use --data-dir {}: {e}", self.data_dir.display()))?;
        Ok(ServeConfig {
            listen,
            data_dir,
            shadow_url: self.shadow_url.clone(),
            shadow_ca: self.shadow_ca.clone(),
            tls,
            auth_token_file: self.auth_token_file.clone(),
            pg_bin: self.pg_bin.clone(),
            journal_bytes_max: (self.journal == JournalKind::File).then_some(self.journal_max_size),
        })
    }
}

fn resolve(listen: &str) -> Result<SocketAddr, String> {
    let mut addresses = listen.to_socket_addrs().map_err(|e| {
        format!("cannot use --listen {listen}: {e}; expected HOST:PORT, for example 127.0.0.1:7400")
    })?;
    addresses.next().ok_or_else(|| format!("cannot use --listen {listen}: the name has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(extra: &[&str]) -> Result<ServeConfig, String> {
        let mut line = vec!["scry_platform", "serve", "--data-dir", "d"];
        line.extend_from_slice(extra);
        match Cli::try_parse_from(line).map_err(|e| e.to_string())?.command {
            Command::Serve(args) => args.check(),
            _ => Err("not serve".to_owned()),
        }
    }

    #[test]
    fn accepts_plain_http_on_loopback_only() {
        assert!(args(&["--listen", "127.0.0.1:0"]).is_ok());
        assert!(args(&["--listen", "[::1]:0"]).is_ok());
        assert!(args(&["--listen", "0.0.0.0:0"]).unwrap_err().contains("--tls-cert"));
    }

    #[test]
    fn takes_a_journal_of_a_size_or_none() {
        let of = |extra: &[&str]| args(&[&["--listen", "127.0.0.1:0"], extra].concat());
        assert_eq!(of(&["--journal", "none"]).unwrap().journal_bytes_max, None);
        assert_eq!(of(&[]).unwrap().journal_bytes_max, Some(8 << 30));
        let sized = of(&["--journal", "file", "--journal-max-size", "1GB"]);
        assert_eq!(sized.unwrap().journal_bytes_max, Some(1 << 30));
        assert!(of(&["--journal", "file", "--journal-max-size", "1MB"]).unwrap_err().contains("16MB"));
    }

    #[test]
    fn rejects_half_a_key_pair_and_bad_addresses() {
        assert!(args(&["--listen", "127.0.0.1:0", "--tls-cert", "c"]).is_err());
        assert!(args(&["--listen", "nonsense"]).is_err());
    }
}
