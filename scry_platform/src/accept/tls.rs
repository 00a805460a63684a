//! TLS of the listener: rustls, TLS 1.2 and newer, `h2` by ALPN.
//!
//! The files are read again when they change, so that certificates are
//! replaced without a restart: what is new counts for handshakes from then on.
//! Files that do not fit (half replaced, say) keep the last good ones, and are
//! looked at again.

use crate::config::TlsFiles;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;

/// What changes when a file does.
type Stamp = Vec<Option<(u64, i64, i64, u64)>>;

/// The listener's side of TLS, as the files are now.
#[derive(Debug, Clone)]
pub struct Tls {
    files: TlsFiles,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug)]
struct Held {
    config: Arc<ServerConfig>,
    stamp: Stamp,
    looked: Instant,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One line that names the file and what is wrong with it.
    pub fn new(files: &TlsFiles) -> Result<Self, String> {
        let stamp = stamp(files);
        let held = Held { config: server_config(files)?, stamp, looked: Instant::now() };
        Ok(Tls { files: files.clone(), held: Arc::new(Mutex::new(held)) })
    }

    /// Takes the next connection; looks at the files if that is due.
    pub fn acceptor(&self) -> TlsAcceptor {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.looked.elapsed() >= LOOK_EVERY {
            self.renew(&mut held);
        }
        held.config.clone().into()
    }

    /// Looks at the files now, however recently that was done.
    pub fn reread(&self) {
        self.renew(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn renew(&self, held: &mut Held) {
        held.looked = Instant::now();
        let now = stamp(&self.files);
        if now == held.stamp {
            return;
        }
        match server_config(&self.files) {
            Ok(config) => {
                tracing::info!(file = %self.files.cert.display(), "certificates read again");
                (held.config, held.stamp) = (config, now);
            }
            Err(error) => tracing::error!(%error, "keeping the last certificates"),
        }
    }
}

fn stamp(files: &TlsFiles) -> Stamp {
    let of = |file: &Path| {
        let meta = std::fs::metadata(file).ok()?;
        Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
    };
    let client_ca = files.client_ca.as_deref();
    [Some(files.cert.as_path()), Some(files.key.as_path()), client_ca]
        .into_iter()
        .map(|file| file.and_then(of))
        .collect()
}

/// Reads the files and makes the server's configuration.
fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates("--tls-cert", &files.cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|e| format!("cannot use --tls-key {}: {e}", files.key.display()))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("cannot set up TLS: {e}"))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for cert in certificates("--tls-client-ca", file)? {
                roots.add(cert).map_err(|e| format!("cannot use --tls-client-ca {}: {e}", file.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|e| format!("cannot use --tls-client-ca {}: {e}", file.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|e| format!("cannot use --tls-cert {}: {e}", files.cert.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(flag: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let cannot = |e: &dyn std::fmt::Display| format!("cannot use {flag} {}: {e}", file.display());
    let list: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file).map_err(|e| cannot(&e))?.collect();
    match list {
        Ok(list) if list.is_empty() => Err(cannot(&"it holds no certificate")),
        Ok(list) => Ok(list),
        Err(error) => Err(cannot(&error)),
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(1);
