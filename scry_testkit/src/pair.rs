//! Source, platform and shadow, wired together: what most tests start with.
//!
//! ```text
//!   source (Cluster, scry_backfill preloaded) ── sender ── Platform ── shadow
//! ```

use crate::certs::{Authority, Kind};
use crate::cluster::{Cluster, ClusterOptions};
use crate::content::{self, Report, TableName};
use crate::lab::Lab;
use crate::platform::{Platform, PlatformOptions};
use crate::sender::Sender;
use crate::wait;
use anyhow::{Context, Result, ensure};
use postgres::{Client, SimpleQueryMessage};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Who starts the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SenderMode {
    /// The launcher in the source (the default).
    #[default]
    Managed,
    /// The test.
    External,
}

/// Where the shadow lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShadowKind {
    /// In a cluster that the platform makes and runs (the default).
    #[default]
    Embedded,
    /// In a cluster of the test, given by `--shadow-url`.
    External,
}

/// What a pair is made with; the default is a managed sender, an embedded
/// shadow, plain HTTP and no token.
#[derive(Debug, Clone, Default)]
pub struct PairOptions {
    /// Lines for the source's postgresql.conf, after those that wire it.
    pub source_conf: Vec<String>,
    /// Lines for the external shadow's postgresql.conf.
    pub shadow_conf: Vec<String>,
    /// Who starts the sender.
    pub sender: SenderMode,
    /// Where the shadow lives.
    pub shadow: ShadowKind,
    /// Serve TLS with such a certificate.
    pub tls: Option<Kind>,
    /// The platform wants a certificate of the sender, too (with `tls`).
    pub client_certificates: bool,
    /// The token the platform wants.
    pub platform_token: Option<String>,
    /// The token the sender shows; the platform's if not set.
    pub sender_token: Option<String>,
    /// Further arguments of `scry_platform serve`.
    pub platform_args: Vec<String>,
    /// An address for the sender in place of the platform's (a proxy's, say).
    pub endpoint: Option<String>,
}

/// A source and its platform; see the module.
#[derive(Debug)]
pub struct Pair {
    /// The cluster that is shadowed.
    pub source: Cluster,
    /// The platform.
    pub platform: Platform,
    /// The shadow's cluster when it is external.
    pub shadow: Option<Cluster>,
    /// The sender when it is external.
    pub sender: Option<Sender>,
    /// The source's database that `start_job` and the others use.
    pub database: String,
    /// The source's configuration, for a later change of a part of it.
    pub socket_dir: PathBuf,
    /// Who signs the certificates, with `tls`.
    pub authority: Option<Authority>,
}

impl Pair {
    /// Makes and starts all parts; the extension is not created yet.
    pub fn start(lab: &Lab, options: &PairOptions) -> Result<Pair> {
        lab.server.require_extension()?;
        let authority = options.tls.map(|_| Authority::new(&lab.path("certs"), &lab.user)).transpose()?;
        let client = match &authority {
            Some(authority) if options.client_certificates => Some(authority.client()?),
            _ => None,
        };
        let shadow = match options.shadow {
            ShadowKind::Embedded => None,
            ShadowKind::External => {
                let cluster_options =
                    ClusterOptions { conf: options.shadow_conf.clone(), own_identity: true };
                let cluster = Cluster::start_new(lab, "shadow", &cluster_options)?;
                cluster.psql("postgres", "CREATE DATABASE shadow")?;
                Some(cluster)
            }
        };
        let platform_options = PlatformOptions {
            shadow_url: shadow.as_ref().map(|cluster| cluster.url("shadow")),
            tls: authority
                .as_ref()
                .zip(options.tls)
                .map(|(authority, kind)| authority.server(kind))
                .transpose()?,
            ca_file: authority.as_ref().map(|authority| authority.ca_file.clone()),
            client: client.clone(),
            token: options.platform_token.clone(),
            args: options.platform_args.clone(),
        };
        let mut platform = Platform::create(lab, "platform", &platform_options)?;
        match options.tls {
            // The test's own requests would refuse these as the sender does.
            Some(Kind::Expired | Kind::WrongName | Kind::SelfSigned) => platform.program.start()?,
            _ => platform.start()?,
        }

        let socket_dir = lab.path("x");
        lab.user.make_dir(&socket_dir)?;
        let endpoint = options.endpoint.clone().unwrap_or_else(|| platform.url.clone());
        let mut conf = source_conf(&endpoint, &socket_dir, options.sender);
        if let Some(authority) = &authority {
            conf.push(format!("scry_backfill.ca_file = '{}'", authority.ca_file.display()));
        }
        if let Some(client) = &client {
            conf.push(format!("scry_backfill.client_cert_file = '{}'", client.cert.display()));
            conf.push(format!("scry_backfill.client_key_file = '{}'", client.key.display()));
        }
        if let Some(token) = options.sender_token.as_ref().or(options.platform_token.as_ref()) {
            let file = lab.path("sender-token");
            lab.user.write_file(&file, token.as_bytes(), 0o600)?;
            conf.push(format!("scry_backfill.auth_token_file = '{}'", file.display()));
        }
        conf.extend(options.source_conf.iter().cloned());
        let source = Cluster::start_new(lab, "source", &ClusterOptions { conf, own_identity: false })?;
        let sender = match options.sender {
            SenderMode::Managed => None,
            SenderMode::External => {
                let config = sender_config(&endpoint, &socket_dir);
                let mut sender = Sender::create(lab, "sender", &config)?;
                sender.program.start()?;
                Some(sender)
            }
        };
        Ok(Pair { source, platform, shadow, sender, database: "postgres".to_owned(), socket_dir, authority })
    }

    /// A connection to the source's database.
    pub fn source_client(&self) -> Result<Client> {
        self.source.client(&self.database)
    }

    /// A connection to the shadow.
    pub fn shadow_client(&self) -> Result<Client> {
        self.platform.shadow_client(None)
    }

    /// A connection to the shadow of a job of this database: the platform gives
    /// the first database to the job that comes first.
    pub fn shadow_client_of(&self, job: &str) -> Result<Client> {
        let sql = "SELECT shadow FROM scry_backfill.status WHERE job = $1";
        let row =
            self.source_client()?.query_one(sql, &[&job]).with_context(|| format!("look for job {job}"))?;
        let shadow: Option<String> = row.get(0);
        let shadow = shadow.with_context(|| format!("job {job} has no shadow yet"))?;
        self.platform.shadow_client(Some(&shadow))
    }

    /// Runs a script on the source.
    pub fn sql(&self, script: &str) -> Result<String> {
        self.source.psql(&self.database, script)
    }

    /// `CREATE EXTENSION` (unless it is there) and `start(tables)`.
    pub fn start_job(&self, tables: &str) -> Result<()> {
        self.start_job_with(tables, "")
    }

    /// `start_job` with further arguments as they stand in SQL, after a comma.
    pub fn start_job_with(&self, tables: &str, more: &str) -> Result<()> {
        let tables = tables.replace('\'', "''");
        let comma = if more.is_empty() { "" } else { ", " };
        self.sql(&format!(
            "CREATE EXTENSION IF NOT EXISTS scry_backfill; SELECT scry_backfill.start('{tables}'{comma}{more})"
        ))
        .map(|_| ())
    }

    /// Waits until the shadow of the default job holds all that is committed
    /// now; fails with the job's status when it does not come to that.
    pub fn wait_for_shadow(&self, timeout: Duration) -> Result<()> {
        self.wait_for_shadow_of("default", timeout)
    }

    /// `wait_for_shadow` of a job.
    pub fn wait_for_shadow_of(&self, job: &str, timeout: Duration) -> Result<()> {
        let sql = format!("SELECT scry_backfill.wait_for_shadow('{job}', '{}s')", timeout.as_secs().max(1));
        let caught_up = self.sql(&sql).with_context(|| self.describe_status())?;
        ensure!(
            caught_up == "t",
            "the shadow did not catch up within {timeout:?}; {}",
            self.describe_status()
        );
        Ok(())
    }

    /// The rows of `scry_backfill.status`, as text.
    pub fn status(&self) -> Result<Vec<BTreeMap<String, String>>> {
        rows(&mut self.source_client()?, "SELECT * FROM scry_backfill.status")
    }

    /// Waits until a row of `scry_backfill.status` satisfies `wanted`.
    pub fn wait_status(
        &self,
        what: &str,
        timeout: Duration,
        mut wanted: impl FnMut(&BTreeMap<String, String>) -> bool,
    ) -> Result<BTreeMap<String, String>> {
        wait::until(what, timeout, || Ok(self.status()?.into_iter().find(|row| wanted(row))))
            .with_context(|| self.describe_status())
    }

    /// The status and the newest events, for messages.
    pub fn describe_status(&self) -> String {
        let events = self
            .source_client()
            .and_then(|mut client| rows(&mut client, "SELECT * FROM scry_backfill.events LIMIT 10"));
        format!("status: {:#?}\nevents: {events:#?}", self.status())
    }

    /// Compares these tables of source and shadow.
    pub fn compare(&self, tables: &[TableName]) -> Result<Report> {
        content::compare(&mut self.source_client()?, &mut self.shadow_client()?, tables)
    }

    /// Waits for the shadow and requires all tables of the source's database
    /// to be equal on both sides. Nobody may be writing.
    pub fn assert_equal(&self) -> Result<()> {
        let tables = content::user_tables(&mut self.source_client()?)?;
        if tables.is_empty() {
            self.wait_for_shadow(Duration::from_secs(120))?;
            let left = content::user_tables(&mut self.shadow_client()?)?;
            ensure!(left.is_empty(), "the source has no tables, the shadow has {left:?}");
            return Ok(());
        }
        self.assert_equal_tables(&tables)
    }

    /// `assert_equal` for some tables.
    pub fn assert_equal_tables(&self, tables: &[TableName]) -> Result<()> {
        self.wait_for_shadow(Duration::from_secs(120))?;
        self.compare(tables)?.require_equal()
    }

    /// What must hold after every test: no process of the source died of a
    /// signal.
    pub fn assert_source_unharmed(&self) -> Result<()> {
        let crashes = self.source.crashes();
        ensure!(crashes.is_empty(), "processes of the source died: {crashes:?}");
        Ok(())
    }
}

/// The lines that make a cluster a source.
pub fn source_conf(endpoint: &str, socket_dir: &std::path::Path, sender: SenderMode) -> Vec<String> {
    let sender = match sender {
        SenderMode::Managed => "managed",
        SenderMode::External => "external",
    };
    vec![
        "shared_preload_libraries = 'scry_backfill'".to_owned(),
        "wal_level = logical".to_owned(),
        "max_worker_processes = 24".to_owned(),
        format!("scry_backfill.endpoint = '{endpoint}'"),
        "scry_backfill.shadow_id = 'test'".to_owned(),
        format!("scry_backfill.socket_dir = '{}'", socket_dir.display()),
        format!("scry_backfill.sender = '{sender}'"),
    ]
}

/// What an external sender reads, in its least form.
pub fn sender_config(endpoint: &str, socket_dir: &std::path::Path) -> String {
    let socket = socket_dir.join(SOCKET);
    format!("[socket]\npath = \"{}\"\n\n[platform]\nendpoint = \"{endpoint}\"\n", socket.display())
}

/// The socket's name in its directory.
pub const SOCKET: &str = "sender.sock";

/// The result of a query, every value as text, NULL as an empty text.
pub fn rows(client: &mut Client, sql: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let messages = client.simple_query(sql).with_context(|| format!("run {sql}"))?;
    let mut result = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            let names = row.columns().iter().map(|column| column.name().to_owned());
            let values = (0..row.len()).map(|index| row.get(index).unwrap_or_default().to_owned());
            result.push(names.zip(values).collect());
        }
    }
    Ok(result)
}
