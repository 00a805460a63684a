//! Where the platform is: `https://host:port`, or `http://` to this machine.
//!
//! Invariant: an [`Endpoint`] without TLS leads to a loopback address; there is
//! no switch that loosens it. What it does not do: it resolves no names.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use http::Uri;

/// A checked endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port; 443 for `https://`, 80 for `http://` when none is written.
    pub port: u16,
}

impl Endpoint {
    /// Reads and checks an endpoint.
    pub fn parse(text: &str) -> Result<Endpoint> {
        let uri: Uri =
            text.parse().with_context(|| format!("\"{text}\" is not a URL: write https://host:port"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("\"{text}\" is not a URL of this kind: write https://host:port"),
        };
        let authority = uri.authority().context("the host is missing: write https://host:port")?;
        // The text is not shown: it may hold a password.
        ensure!(
            !authority.as_str().contains('@'),
            "an endpoint holds no user or password: use auth_token_file"
        );
        ensure!(
            matches!(uri.path(), "" | "/") && uri.query().is_none(),
            "\"{text}\" has a path: write only https://host:port"
        );
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        ensure!(!host.is_empty(), "the host is missing: write https://host:port");
        if !tls && !is_loopback(&host) {
            bail!(
                "\"{text}\" would send data and token unencrypted: http:// is allowed only to a loopback address \
                 (127.0.0.1, ::1, localhost); use https://"
            );
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Endpoint { tls, host, port })
    }

    /// `host:port`, as a URL writes it.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            return format!("[{}]:{}", self.host, self.port);
        }
        format!("{}:{}", self.host, self.port)
    }

    /// The URL of a path on it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Whether a host is this machine by its very name; other names could be made
/// to resolve to anything.
fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_tls_anywhere_and_plain_on_loopback() {
        for (text, url) in [
            ("https://shadow.example:8443", "https://shadow.example:8443"),
            ("https://shadow.example", "https://shadow.example:443"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost:1", "http://localhost:1"),
        ] {
            assert_eq!(Endpoint::parse(text).unwrap().to_string(), url);
        }
    }

    #[test]
    fn rejects_plain_http_to_other_machines() {
        for text in ["http://10.0.0.1:80", "http://shadow.example:80", "http://localhost.evil.example:80"] {
            let err = Endpoint::parse(text).unwrap_err().to_string();
            assert!(err.contains("unencrypted"), "{err}");
        }
    }

    #[test]
    fn rejects_paths_other_schemes_and_credentials() {
        for text in ["ftp://h:1", "h:1", "", "https://h:1/x", "https://h:1/?q", "https://:1"] {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
        let err = format!("{:#}", Endpoint::parse("https://u:secret@h:1").unwrap_err());
        assert!(!err.contains("secret"), "{err}");
    }
}
