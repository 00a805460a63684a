//! A shadow somewhere else: `--shadow-url`.
//!
//! One database, one job. Its role applies; extensions are made by it too, so
//! what it may not make is left out and said.

use super::Connector;
use super::tls::ShadowTls;
use crate::{Error, Result};
use std::path::Path;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

/// The database that `--shadow-url` names.
pub struct External {
    owner: Connector,
}

impl External {
    /// Reads the URL; connects later.
    ///
    /// # Errors
    /// It is not a PostgreSQL URL. The text does not repeat it: it may hold a password.
    pub fn new(url: &str, ca_file: Option<&Path>) -> Result<Self> {
        let mut config: Config = url.parse().map_err(|e: tokio_postgres::Error| Error::Shadow {
            message: format!("--shadow-url is not a PostgreSQL connection URL: {e}"),
            hint: "Expected postgresql://user:password@host:port/database.".to_owned(),
            retry: false,
        })?;
        if config.get_dbname().is_none() {
            return Err(Error::Shadow {
                message: "--shadow-url names no database".to_owned(),
                hint: "Expected postgresql://user:password@host:port/database.".to_owned(),
                retry: false,
            });
        }
        let unfit = |message: String| Error::Shadow { message, hint: String::new(), retry: false };
        let tls = ca_file.map(ShadowTls::new).transpose().map_err(unfit)?;
        if tls.is_none() && config.get_ssl_mode() == SslMode::Require {
            return Err(Error::Shadow {
                message: "--shadow-url asks for sslmode=require, but no authority is trusted".to_owned(),
                hint: "Name the server's certificate authority with --shadow-ca FILE.".to_owned(),
                retry: false,
            });
        }
        if tls.is_some() {
            // Whoever names an authority wants it checked.
            config.ssl_mode(SslMode::Require);
        }
        Ok(External { owner: Connector::new(config, tls) })
    }

    /// Sessions as the role of the URL.
    #[must_use]
    pub fn owner(&self) -> &Connector {
        &self.owner
    }
}
