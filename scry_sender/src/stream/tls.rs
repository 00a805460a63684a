//! TLS to the platform, and what its errors mean.
//!
//! Invariants: TLS 1.2 or newer; the certificate's chain and name are always
//! checked, no switch turns that off; HTTP/2 must be agreed on (ALPN). With
//! `ca_file` only its certificates are roots, else the system's. All files are
//! read for each new connection.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, CertificateError, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::credentials::read_private;
use crate::config::{Endpoint, PlatformConfig};
use crate::error::{Failure, FailureKind};

const ALPN_H2: &[u8] = b"h2";

/// Shakes hands over `tcp`.
pub async fn handshake(config: &PlatformConfig, tcp: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
    let endpoint = &config.endpoint;
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| {
        Failure::new(FailureKind::CertificateName, format!("\"{}\" is no name of a host", endpoint.host))
            .detail(&error.to_string())
    })?;
    let connector = TlsConnector::from(Arc::new(client_config(config)?));
    let stream = connector.connect(name, tcp).await.map_err(|e| explain(&e, config))?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_H2) {
        return Err(not_http2(config));
    }
    Ok(stream)
}

fn client_config(config: &PlatformConfig) -> Result<ClientConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|e| Failure::new(FailureKind::Tls, "could not set up TLS").detail(&e.to_string()))?
        .with_root_certificates(roots(config.ca_file.as_deref())?);
    let mut tls = match &config.client_identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates(cert, "client certificate file")?;
            let key = private_key(key)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                credentials("client certificate and key do not belong together").detail(&e.to_string())
            })?
        }
    };
    tls.alpn_protocols = vec![ALPN_H2.to_vec()];
    Ok(tls)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut store = RootCertStore::empty();
    if let Some(file) = ca_file {
        for cert in certificates(file, "CA file")? {
            store.add(cert).map_err(|e| {
                credentials(format!("CA file \"{}\" holds a certificate that is not valid", file.display()))
                    .detail(&e.to_string())
            })?;
        }
        return Ok(store);
    }
    let (added, _) = store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(credentials("the system has no root certificates")
            .hint("Install the system's CA certificates, or set [platform] ca_file."));
    }
    Ok(store)
}

fn certificates(file: &Path, what: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let shown = file.display();
    let cannot = |e: &dyn std::fmt::Display| {
        credentials(format!("could not read {what} \"{shown}\"")).detail(&e.to_string())
    };
    let certs = CertificateDer::pem_file_iter(file).map_err(|e| cannot(&e))?;
    let certs = certs.collect::<Result<Vec<_>, _>>().map_err(|e| cannot(&e))?;
    if certs.is_empty() {
        return Err(credentials(format!("{what} \"{shown}\" holds no certificate in PEM form")));
    }
    Ok(certs)
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    let text = read_private(file, "client key file")?;
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| {
        credentials(format!("client key file \"{}\" holds no private key in PEM form", file.display()))
    })
}

fn credentials(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Credentials, message)
}

fn not_http2(config: &PlatformConfig) -> Failure {
    let message = format!("endpoint {} does not offer HTTP/2 (ALPN h2)", config.endpoint);
    Failure::new(FailureKind::NotHttp2, message).hint(
        "Point the endpoint at scry_platform itself; a proxy in between must speak HTTP/2 to both sides.",
    )
}

/// Whether the platform has ended the connection for the certificate that we
/// showed, or did not. TLS 1.3 lets it do so after the handshake: then only the
/// words of the alert are left of it.
pub(super) fn is_about_our_certificate(words: &str) -> bool {
    const ALERTS: [&str; 8] = [
        "CertificateRequired",
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "UnknownCA",
        // The authority's name is known, its key is another.
        "DecryptError",
    ];
    let alert = words.split_once("received fatal alert: ").map_or("", |(_, alert)| alert);
    ALERTS.iter().any(|name| alert.starts_with(name))
}

/// What is said then.
pub(super) fn refuses_our_certificate(endpoint: &Endpoint, words: &str) -> Failure {
    Failure::new(FailureKind::Tls, format!("endpoint {endpoint} refuses our client certificate"))
        .detail(words)
        .hint(
            "Set client_cert_file and client_key_file to a certificate that is signed by an authority of the \
             platform's --tls-client-ca.",
        )
}

/// Tells certificates that have expired, are for another name, or come from
/// nobody we trust from everything else.
fn explain(error: &io::Error, config: &PlatformConfig) -> Failure {
    let endpoint = &config.endpoint;
    let words = error.to_string();
    let Some(tls) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
        let message = format!("connection to {endpoint} was lost during the TLS handshake");
        return Failure::new(FailureKind::Lost, message).detail(&words);
    };
    match tls {
        rustls::Error::InvalidCertificate(why) => certificate(why, config, &words),
        rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
        | rustls::Error::NoApplicationProtocol => not_http2(config),
        rustls::Error::AlertReceived(_) if is_about_our_certificate(&words) => {
            refuses_our_certificate(endpoint, &words)
        }
        rustls::Error::InvalidMessage(_) => {
            Failure::new(FailureKind::Tls, format!("endpoint {endpoint} does not speak TLS"))
                .detail(&words)
                .hint("Check the port, and that scry_platform was started with --tls-cert and --tls-key.")
        }
        _ => Failure::new(FailureKind::Tls, format!("TLS handshake with {endpoint} failed")).detail(&words),
    }
}

fn certificate(why: &CertificateError, config: &PlatformConfig, words: &str) -> Failure {
    let endpoint = &config.endpoint;
    let (kind, what, hint) = match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            FailureKind::CertificateExpired,
            "has expired",
            "Renew the platform's certificate; the connection then comes back by itself.",
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (FailureKind::CertificateExpired, "is not valid yet", "Check the clocks of both machines.")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            FailureKind::CertificateName,
            "is for another name",
            "Use a name in the endpoint that the certificate is for.",
        ),
        // A bad signature: the issuer's name is known, its key is another.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            FailureKind::CertificateIssuer,
            "is signed by an authority that is not trusted",
            "Set [platform] ca_file to the certificate of the authority that signed it.",
        ),
        _ if words.contains("CaUsedAsEndEntity") => (
            FailureKind::Tls,
            "is an authority's own, which is no server's",
            "Make a certificate with basicConstraints CA:FALSE for the server.",
        ),
        _ => (FailureKind::Tls, "is not acceptable", ""),
    };
    Failure::new(kind, format!("certificate of {endpoint} {what}")).detail(words).hint(hint)
}
