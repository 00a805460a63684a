//! Certificates for the tests of TLS: a CA and servers' certificates that are
//! good, expired, for another name, or signed by themselves.

use crate::user::ClusterUser;
use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use std::path::{Path, PathBuf};

/// What is right or wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Signed by the CA, for `localhost` and 127.0.0.1, valid today.
    Good,
    /// As `Good`, but its last day was in 2001.
    Expired,
    /// As `Good`, but for `other.example` only.
    WrongName,
    /// For the right name, signed by itself instead of by the CA.
    SelfSigned,
}

/// Where a certificate and its key stand, in PEM.
#[derive(Debug, Clone)]
pub struct CertFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key, mode 0600, owned by the clusters' user.
    pub key: PathBuf,
}

/// A certificate authority that lives as long as the test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The CA's certificate in PEM: what `scry_backfill.ca_file` names.
    pub ca_file: PathBuf,
    dir: PathBuf,
    user: ClusterUser,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.ca_file.display())
    }
}

impl Authority {
    /// Makes a new CA; its certificate is written to `dir/ca.pem`.
    pub fn new(dir: &Path, user: &ClusterUser) -> Result<Authority> {
        user.make_dir(dir)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "scry test CA");
        let key = KeyPair::generate().context("make the CA's key")?;
        let cert = params.self_signed(&key).context("sign the CA's certificate")?;
        let ca_file = dir.join("ca.pem");
        user.write_file(&ca_file, cert.pem().as_bytes(), 0o644)?;
        Ok(Authority { issuer: Issuer::new(params, key), ca_file, dir: dir.to_owned(), user: user.clone() })
    }

    /// Writes a client's certificate and its key; each call makes new ones in
    /// the place of the old.
    pub fn client(&self) -> Result<CertFiles> {
        let mut params = CertificateParams::new(Vec::new()).context("name the client")?;
        params.distinguished_name.push(DnType::CommonName, "scry test client");
        let key = KeyPair::generate().context("make the client's key")?;
        let cert = params.signed_by(&key, &self.issuer).context("sign the client's certificate")?;
        let files = CertFiles { cert: self.dir.join("client.pem"), key: self.dir.join("client.key") };
        self.user.write_file(&files.cert, cert.pem().as_bytes(), 0o644)?;
        self.user.write_file(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
        Ok(files)
    }

    /// Writes a server certificate of this kind and its key.
    pub fn server(&self, kind: Kind) -> Result<CertFiles> {
        let names = match kind {
            Kind::WrongName => vec!["other.example".to_owned()],
            _ => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        };
        let mut params = CertificateParams::new(names).context("name the server")?;
        params.distinguished_name.push(DnType::CommonName, "scry test server");
        if kind == Kind::Expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().context("make the server's key")?;
        let cert = match kind {
            Kind::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        }
        .context("sign the server's certificate")?;
        let files = CertFiles {
            cert: self.dir.join(format!("{kind:?}.pem")),
            key: self.dir.join(format!("{kind:?}.key")),
        };
        self.user.write_file(&files.cert, cert.pem().as_bytes(), 0o644)?;
        self.user.write_file(&files.key, key.serialize_pem().as_bytes(), 0o600)?;
        Ok(files)
    }
}
