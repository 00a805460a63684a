//! One connection to a shadow's database, with the settings that apply needs.
//!
//! Invariants: names are always schema-qualified (`search_path` is empty),
//! values mean the same whatever the database's or role's defaults are, no
//! ordinary trigger, rule or foreign key fires. A session that is dropped in
//! the middle of a statement cancels it, so that its transaction ends at once
//! and whoever takes over need not wait.

use super::tls::ShadowTls;
use crate::apply::schema::quote;
use crate::{Error, Result};
use std::ops::{Deref, DerefMut};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client, Config, Connection, NoTls};

/// Makes sessions on one database as one role.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Config,
    tls: Option<ShadowTls>,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Changes of the source: triggers, rules and foreign keys stay silent.
    Apply,
    /// The platform's own tables, and statements about the schema.
    Own,
}

impl Connector {
    /// A connector to what `config` names.
    #[must_use]
    pub fn new(mut config: Config, tls: Option<ShadowTls>) -> Self {
        config.connect_timeout(CONNECT_TIMEOUT).application_name("scry_platform");
        Connector { config, tls }
    }

    /// The same role and server, another database.
    #[must_use]
    pub fn on_database(&self, database: &str) -> Self {
        let mut config = self.config.clone();
        config.dbname(database);
        Connector { config, tls: self.tls.clone() }
    }

    /// The database's name.
    #[must_use]
    pub fn database(&self) -> &str {
        self.config.get_dbname().or(self.config.get_user()).unwrap_or_default()
    }

    /// The role's name.
    #[must_use]
    pub fn role(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// A plain connection with its task: for code that brings its own settings.
    pub async fn client(&self) -> std::result::Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                Ok((client, tokio::spawn(drive(connection))))
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                Ok((client, tokio::spawn(drive(connection))))
            }
        }
    }

    /// Cancels what a connection is doing; does not wait for it to end.
    pub async fn cancel(&self, token: CancelToken) {
        let cancelled = async {
            match &self.tls {
                None => token.cancel_query(NoTls).await,
                Some(tls) => token.cancel_query(tls.clone()).await,
            }
        };
        // It may have ended by itself.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, cancelled).await;
    }

    /// Opens a session.
    ///
    /// # Errors
    /// The shadow cannot be reached, or lacks a right: then the statement that
    /// grants it is in the hint.
    pub async fn open(&self, purpose: Purpose) -> Result<Session> {
        let (client, task) = self.client().await.map_err(|source| self.unreachable(&source))?;
        let session =
            Session { client: Some(client), task: Some(task), connector: self.clone(), armed: false };
        session.batch_execute(SETTINGS).await.map_err(Error::sql("prepare a session on the shadow"))?;
        if purpose == Purpose::Apply {
            session.batch_execute(APPLY_SETTINGS).await.map_err(|source| self.no_replica(source))?;
        }
        Ok(session)
    }

    fn unreachable(&self, source: &tokio_postgres::Error) -> Error {
        Error::Shadow {
            message: format!(
                "could not connect to the shadow's database \"{}\": {}",
                self.database(),
                crate::error_text(source)
            ),
            hint: String::new(),
            retry: true,
        }
    }

    fn no_replica(&self, source: tokio_postgres::Error) -> Error {
        if source.code() != Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            return Error::sql("prepare a session on the shadow")(source);
        }
        let role = quote::ident(self.role());
        Error::Shadow {
            message: format!("role {role} may not set session_replication_role on the shadow"),
            hint: format!(
                "Run on the shadow as a superuser: GRANT SET ON PARAMETER session_replication_role TO {role}; \
                 (PostgreSQL 14 and older: use a superuser in --shadow-url)"
            ),
            retry: true,
        }
    }
}

async fn drive<S, T>(connection: Connection<S, T>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(error) = connection.await {
        tracing::debug!(error = %crate::error_text(&error), "connection to the shadow ended");
    }
}

/// A connection whose settings are in place.
#[derive(Debug)]
pub struct Session {
    client: Option<Client>,
    task: Option<JoinHandle<()>>,
    connector: Connector,
    armed: bool,
}

impl Session {
    /// From here on a drop in the middle of a statement cancels it.
    #[must_use]
    pub fn cancelled_on_drop(mut self) -> Self {
        self.armed = true;
        self
    }

    /// Closes the connection and waits until the server has seen it.
    pub async fn close(mut self) {
        self.armed = false;
        drop(self.client.take());
        if let Some(task) = self.task.take() {
            // The server answers a closed connection at once.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, task).await;
        }
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        match &self.client {
            Some(client) => client,
            None => unreachable!("the client is taken by close and drop only"),
        }
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        match &mut self.client {
            Some(client) => client,
            None => unreachable!("the client is taken by close and drop only"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        if !self.armed || client.is_closed() {
            return;
        }
        let (connector, token) = (self.connector.clone(), client.cancel_token());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { connector.cancel(token).await });
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Text values come from a source session with ISO dates; everything that
/// could change how input is read is set here.
const SETTINGS: &str = "\
    SET search_path = '';\
    SET client_encoding = 'UTF8';\
    SET standard_conforming_strings = on;\
    SET DateStyle = 'ISO, MDY';\
    SET IntervalStyle = 'postgres';\
    SET TimeZone = 'UTC';\
    SET extra_float_digits = 1;\
    SET xmloption = content;\
    SET lc_monetary = 'C';\
    SET lc_numeric = 'C';\
    SET row_security = off;\
    SET check_function_bodies = off;\
    SET default_transaction_isolation = 'read committed';\
    SET default_transaction_read_only = off;\
    SET synchronous_commit = on;\
    SET statement_timeout = 0;\
    SET idle_in_transaction_session_timeout = 0;\
    SET lock_timeout = '30s';\
    SET jit = off";

/// Plans look up one row by an index: one generic plan, never a scan while an
/// index is there.
const APPLY_SETTINGS: &str = "\
    SET session_replication_role = replica;\
    SET plan_cache_mode = force_generic_plan;\
    SET enable_seqscan = off";
