//! The embedded shadow: a PostgreSQL cluster of our own.
//!
//! ```text
//! initdb into shadow.new ─ rename ─► shadow ─ start ─► roles, database "shadow"
//! ```
//!
//! Invariants: half a cluster is never used (the rename is the last step);
//! steps after the start are repeatable; whoever connects needs a password,
//! over TCP on 127.0.0.1 or the Unix socket in `run/`. Roles: `scry_admin`,
//! superuser, for extensions and settings only; `scry_shadow`, which owns the
//! shadows and applies. BYPASSRLS lets it write where policies are forced.

use super::Connector;
use super::files::Files;
use super::programs::Programs;
use super::server::{Server, end_orphan};
use crate::apply::schema::quote;
use crate::verify::SCRATCH_PREFIX;
use crate::{Error, Result};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config};

/// Superuser of the embedded cluster.
pub const ADMIN: &str = "scry_admin";
/// Owner of the shadows.
pub const OWNER: &str = "scry_shadow";
/// Database of the first job's shadow.
pub const FIRST_DATABASE: &str = "shadow";

/// The embedded cluster, running.
pub struct Embedded {
    admin: Connector,
    owner: Connector,
    server: Mutex<Option<Server>>,
}

impl Embedded {
    /// Makes the cluster where there is none, starts it and prepares roles and
    /// the first database.
    pub async fn start(files: Files, pg_bin: Option<&Path>) -> Result<Self> {
        let programs = Programs::find(pg_bin, cluster_major(&files))?;
        let passwords = [ADMIN, OWNER].map(|role| files.password_or_new(role));
        let [Ok(admin_password), Ok(owner_password)] = passwords else {
            return Err(failed("read or write the password files", files.dir().display()));
        };
        let (server, port) = {
            let (files, programs) = (files.clone(), programs.clone());
            tokio::task::spawn_blocking(move || {
                end_orphan(&files)?;
                let port = choose_port(&files)?;
                init_cluster(&files, &programs)?;
                let arguments = configure(&files, port)?;
                Server::start(programs, files, arguments).map(|server| (server, port))
            })
            .await
            .map_err(|e| failed("start the embedded PostgreSQL server", e))??
        };
        tracing::info!(port, version = programs.major(), "embedded PostgreSQL server started");
        let base = address(&files, port);
        let role = |user: &str, password: &str| {
            let mut config = base.clone();
            config.user(user).password(password);
            Connector::new(config, None)
        };
        let embedded = Embedded {
            admin: role(ADMIN, &admin_password),
            owner: role(OWNER, &owner_password),
            server: Mutex::new(Some(server)),
        };
        embedded.wait_until_up(&files).await?;
        embedded.prepare(&owner_password).await?;
        Ok(embedded)
    }

    /// Sessions as the superuser.
    #[must_use]
    pub fn admin(&self, database: &str) -> Connector {
        self.admin.on_database(database)
    }

    /// Sessions as the owner.
    #[must_use]
    pub fn owner(&self, database: &str) -> Connector {
        self.owner.on_database(database)
    }

    /// The databases that are shadows.
    pub async fn databases(&self) -> Result<Vec<String>> {
        let client = self.maintenance().await?;
        let rows = client
            .query(
                "SELECT datname::text FROM pg_catalog.pg_database WHERE datdba = \
                 (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1::text) \
                 AND datallowconn AND datname ~ '^shadow(_|$)' ORDER BY oid",
                &[&OWNER],
            )
            .await
            .map_err(Error::sql("list the shadows"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Makes the database of a further job: `shadow_<database>_<job>`. One that an attempt has made
    /// and then ended, when its connection did, is taken as it is.
    pub async fn create(&self, taken: &[String], database: &str, job: &str) -> Result<String> {
        if taken.len() >= SHADOWS_MAX {
            return Err(failed("make another shadow", format!("there are {} already", taken.len())));
        }
        let name = database_name(taken, database, job);
        let client = self.maintenance().await?;
        have_database(&client, &name).await?;
        Ok(name)
    }

    /// Stops the server.
    pub async fn stop(&self) {
        if let Some(mut server) = self.server.lock().await.take() {
            let _ = tokio::task::spawn_blocking(move || server.stop()).await;
        }
    }

    async fn maintenance(&self) -> Result<Client> {
        let (client, _task) =
            self.admin("postgres").client().await.map_err(Error::sql("connect to the embedded server"))?;
        Ok(client)
    }

    /// Recovery after a crash can take a while; a server that keeps ending is
    /// given up.
    async fn wait_until_up(&self, files: &Files) -> Result<()> {
        let start = Instant::now();
        let mut down_since = None;
        loop {
            let error = match self.maintenance().await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let running = self.server.lock().await.as_ref().is_some_and(Server::is_running);
            // Between two attempts the process is missing for a moment only.
            let down: &mut Option<Instant> = &mut down_since;
            if running && error.sqlstate().is_some() {
                *down = None;
            } else {
                down.get_or_insert_with(Instant::now);
            }
            if down.is_some_and(|since| since.elapsed() > UP_TIMEOUT) {
                let last = last_line(&files.log());
                return Err(failed("start the embedded PostgreSQL server", format!("{error}; {last}")));
            }
            if start.elapsed() > Duration::from_secs(5) {
                tracing::info!(%error, "waiting for the embedded PostgreSQL server");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn prepare(&self, owner_password: &str) -> Result<()> {
        let client = self.maintenance().await?;
        let owner = quote::ident(OWNER);
        if !exists(&client, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = $1", OWNER).await? {
            run(&client, "make role scry_shadow", &format!("CREATE ROLE {owner}")).await?;
        }
        let alter = format!(
            "ALTER ROLE {owner} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS PASSWORD {}",
            quote::literal(owner_password)
        );
        run(&client, "set up role scry_shadow", &alter).await?;
        let version: String = client
            .query_one("SELECT pg_catalog.current_setting('server_version_num')", &[])
            .await
            .map_err(Error::sql("read the embedded server's version"))?
            .get(0);
        if version.parse::<u32>().is_ok_and(|v| v < 150_000) {
            return Err(failed(
                "use the embedded PostgreSQL server",
                "it is older than 15, which cannot grant session_replication_role",
            ));
        }
        let grant = format!("GRANT SET ON PARAMETER session_replication_role TO {owner}");
        run(&client, "grant session_replication_role", &grant).await?;
        compress_fast(&client, &owner).await?;
        drop_leftovers(&client).await?;
        have_database(&client, FIRST_DATABASE).await
    }
}

/// Large values are compressed by lz4 where the server was built with it: pglz is a good part of what
/// loading rows with values of some kilobytes costs (decision 26). A column that names its method keeps it.
async fn compress_fast(client: &Client, owner: &str) -> Result<()> {
    let sql = "SELECT 1 FROM pg_catalog.pg_settings WHERE name = 'default_toast_compression' AND $1 = ANY (enumvals)";
    if exists(client, sql, "lz4").await? {
        let alter = format!("ALTER ROLE {owner} SET default_toast_compression = 'lz4'");
        run(client, "set up role scry_shadow", &alter).await?;
    }
    Ok(())
}

/// Databases of verify() that a crash has left behind.
async fn drop_leftovers(client: &Client) -> Result<()> {
    let sql = "SELECT datname::text FROM pg_catalog.pg_database WHERE pg_catalog.starts_with(datname::text, $1::text)";
    let rows = client.query(sql, &[&SCRATCH_PREFIX]).await;
    for row in rows.map_err(Error::sql("list the databases of the embedded cluster"))? {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote::ident(row.get(0)));
        run(client, "drop a database of verify()", &sql).await?;
    }
    Ok(())
}

async fn exists(client: &Client, sql: &str, name: &str) -> Result<bool> {
    let row = client.query_opt(sql, &[&name]).await;
    row.map(|row| row.is_some()).map_err(Error::sql("read the embedded cluster's catalog"))
}

/// Makes the database where it is missing, and closes it to others.
async fn have_database(client: &Client, name: &str) -> Result<()> {
    if !exists(client, "SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1", name).await? {
        let sql = format!(
            "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'",
            quote::ident(name),
            quote::ident(OWNER)
        );
        run(client, "make the shadow's database", &sql).await?;
    }
    let own = format!("REVOKE ALL ON DATABASE {} FROM PUBLIC", quote::ident(name));
    run(client, "close the shadow's database to others", &own).await
}

async fn run(client: &Client, what: &str, sql: &str) -> Result<()> {
    client.batch_execute(sql).await.map_err(Error::sql(what))
}

/// A free name of at most 63 bytes for a job's database.
fn database_name(taken: &[String], database: &str, job: &str) -> String {
    let mut base: String = format!("{FIRST_DATABASE}_{database}_{job}")
        .chars()
        .map(|c| if c.is_control() { '_' } else { c })
        .collect();
    while base.len() > NAME_MAX {
        base.pop();
    }
    let numbered = (2..).map(|n| format!("{base}_{n}"));
    std::iter::once(base.clone()).chain(numbered).find(|name| !taken.contains(name)).unwrap_or(base)
}

/// The URL of the first shadow, from the files alone.
///
/// # Errors
/// There is no embedded shadow here yet.
pub fn shadow_url(files: &Files) -> std::result::Result<String, String> {
    let none = || {
        format!(
            "no embedded shadow in {}: start `scry_platform serve --data-dir {}` first",
            files.dir().display(),
            files.dir().display()
        )
    };
    let port = files.port().ok_or_else(none)?;
    let password = files.password(OWNER).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => none(),
        _ => format!(
            "cannot read {}: {e}; run this as the platform's user",
            files.password_file(OWNER).display()
        ),
    })?;
    Ok(format!("postgresql://{OWNER}:{password}@127.0.0.1:{port}/{FIRST_DATABASE}"))
}

fn cluster_major(files: &Files) -> Option<u32> {
    std::fs::read_to_string(files.cluster().join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// The port of last time if it is free, else another.
fn choose_port(files: &Files) -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|l| l.local_addr());
    let kept = files.port().filter(|port| bind(*port).is_ok());
    if let Some(port) = kept {
        return Ok(port);
    }
    let port = bind(0).map_err(|e| failed("find a free port for the shadow", e))?.port();
    files.write_port(port).map_err(|e| failed("write the port file", e))?;
    Ok(port)
}

/// The Unix socket where its path is short enough, else TCP.
fn address(files: &Files, port: u16) -> Config {
    let mut config = Config::new();
    config.port(port);
    if socket_fits(files) {
        config.host_path(files.run());
    } else {
        config.host(Ipv4Addr::LOCALHOST.to_string());
    }
    config
}

fn socket_fits(files: &Files) -> bool {
    files.run().as_os_str().len() + "/.s.PGSQL.65535".len() <= SOCKET_PATH_MAX
}

fn init_cluster(files: &Files, programs: &Programs) -> Result<()> {
    if files.cluster().join("PG_VERSION").is_file() {
        return Ok(());
    }
    if files.cluster().exists() {
        return Err(failed(
            "use the data directory",
            format!("{} is there but is not a PostgreSQL cluster", files.cluster().display()),
        ));
    }
    tracing::info!(cluster = %files.cluster().display(), "making the embedded cluster");
    let new = files.dir().join("shadow.new");
    if new.exists() {
        // An initdb that did not come to its end.
        std::fs::remove_dir_all(&new).map_err(|e| failed("remove half a cluster", e))?;
    }
    let output = Command::new(programs.path("initdb"))
        .arg("-D")
        .arg(&new)
        .args(["-U", ADMIN, "-E", "UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256"])
        .arg("--pwfile")
        .arg(files.password_file(ADMIN))
        .env_remove("PGDATA")
        .output()
        .map_err(|e| failed("run initdb", e))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find(|l| l.contains("error")).or(text.lines().last()).unwrap_or_default();
        return Err(failed("make the embedded cluster", line));
    }
    std::fs::rename(&new, files.cluster()).map_err(|e| failed("put the embedded cluster in place", e))
}

/// Writes the server's settings and returns its arguments. The files are
/// ours; what a superuser sets with ALTER SYSTEM goes above them.
fn configure(files: &Files, port: u16) -> Result<Vec<String>> {
    let write = |name: &str, text: &str| {
        std::fs::write(files.cluster().join(name), text).map_err(|e| failed("write the shadow's settings", e))
    };
    let (buffers, sorting) = (buffers_mb(memory_mb()), maintenance_mb(memory_mb()));
    let by_memory = format!("shared_buffers = {buffers}MB\nmaintenance_work_mem = {sorting}MB\n");
    write("postgresql.conf", &format!("{SETTINGS}{by_memory}"))?;
    write("pg_hba.conf", "local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n")?;
    let socket = if socket_fits(files) { files.run().display().to_string() } else { String::new() };
    Ok(vec![
        "-p".to_owned(),
        port.to_string(),
        "-k".to_owned(),
        socket,
        "-h".to_owned(),
        "127.0.0.1".to_owned(),
    ])
}

/// The machine's memory; 0 where it cannot be told.
fn memory_mb() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total() >> 20)
}

/// A sixteenth of the machine's memory: the platform may not have it for itself. Less makes the one
/// writer write out pages between its changes; more than the upper bound brings it little.
fn buffers_mb(memory_mb: u64) -> u64 {
    (memory_mb / 16).clamp(128, 1024)
}

/// What building one index may take; of those of several tables at once each.
fn maintenance_mb(memory_mb: u64) -> u64 {
    (memory_mb / 32).clamp(256, 1024)
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let fatal = text.lines().rev().find(|l| l.contains("FATAL") || l.contains("PANIC"));
    fatal.or(text.lines().last()).map_or_else(String::new, |l| format!("its log says: {l}"))
}

fn failed(what: &str, why: impl std::fmt::Display) -> Error {
    Error::Shadow { message: format!("could not {what}: {why}"), hint: String::new(), retry: true }
}

/// Shadows of one platform: each is a database with its own autovacuum.
const SHADOWS_MAX: usize = 256;
/// NAMEDATALEN less the terminator and room for a number.
const NAME_MAX: usize = 58;
/// `sun_path` less its terminator.
const SOCKET_PATH_MAX: usize = 107;
const UP_TIMEOUT: Duration = Duration::from_secs(15);

/// Safe against crashes (fsync, full_page_writes), set up for one writer that
/// loads and applies. Nobody replicates from the shadow, so its WAL is minimal.
/// Its log leaves out what could hold a row's value.
const SETTINGS: &str = "\
# Written by scry_platform at every start; use ALTER SYSTEM for settings of your own.
max_connections = 100
superuser_reserved_connections = 5
work_mem = 16MB
wal_level = minimal
max_wal_senders = 0
max_replication_slots = 0
max_wal_size = 4GB
min_wal_size = 256MB
wal_buffers = 16MB
checkpoint_timeout = 15min
checkpoint_completion_target = 0.9
fsync = on
full_page_writes = on
max_locks_per_transaction = 256
password_encryption = scram-sha-256
timezone = 'UTC'
datestyle = 'ISO, MDY'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
log_error_verbosity = terse
log_min_error_statement = panic
log_checkpoints = off
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_grow_with_memory_within_bounds() {
        assert_eq!([0, 1_000, 8_192, 1 << 20].map(buffers_mb), [128, 128, 512, 1024]);
        assert_eq!([0, 1_000, 24_000, 1 << 20].map(maintenance_mb), [256, 256, 750, 1024]);
    }

    #[test]
    fn names_databases_within_the_limit() {
        let first = database_name(&[], "shop", "default");
        assert_eq!(first, "shadow_shop_default");
        assert_eq!(database_name(&[first], "shop", "default"), "shadow_shop_default_2");
        let long = database_name(&[], &"é".repeat(40), "x\ny");
        assert!(long.len() <= NAME_MAX && !long.contains('\n'));
    }
}
