//! A shadow somewhere else: `--shadow-url`.
//!
//! One database, one job. Its role applies; extensions are made by it too, so
//! what it may not make is left out and said.

use super::Connector;
use crate::{Error, Result};
use tokio_postgres::Config;

/// The database that `--shadow-url` names.
pub struct External {
    owner: Connector,
}

impl External {
    /// Reads the URL; connects later.
    ///
    /// # Errors
    /// It is not a PostgreSQL URL. The text does not repeat it: it may hold a password.
    pub fn new(url: &str) -> Result<Self> {
        let config: Config = url.parse().map_err(|e: tokio_postgres::Error| Error::Shadow {
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
        Ok(External { owner: Connector::new(config) })
    }

    /// Sessions as the role of the URL.
    #[must_use]
    pub fn owner(&self) -> &Connector {
        &self.owner
    }
}
