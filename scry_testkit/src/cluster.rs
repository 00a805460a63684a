//! A PostgreSQL cluster of a test: its own data directory, socket and port.
//!
//! The data directory is a copy of a template (so the system identifier is the
//! template's, too, unless `own_identity` asks for an initdb of its own), and
//! nothing is synced to disk: a killed process loses nothing by that, only a
//! dying machine would.

use crate::lab::Lab;
use crate::port::Port;
use crate::program::Program;
use crate::server_files::ServerFiles;
use crate::user::ClusterUser;
use crate::wait;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use postgres::{Client, Config, NoTls};
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// How a cluster is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Sessions are ended, a checkpoint is written.
    Fast,
    /// No checkpoint: the next start recovers.
    Immediate,
    /// SIGKILL of the postmaster: as a crash of the machine, but for its memory.
    Kill,
}

/// What a cluster is made with.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// Lines for postgresql.conf.
    pub conf: Vec<String>,
    /// A system identifier of its own (an initdb, about a second).
    pub own_identity: bool,
}

/// A cluster; stopped and gone when dropped.
#[derive(Debug)]
pub struct Cluster {
    /// Its name, and that of its directory in the lab.
    pub name: String,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The directory of its Unix socket.
    pub socket_dir: PathBuf,
    /// The postmaster.
    pub postmaster: Program,
    port: Port,
    server: ServerFiles,
    user: ClusterUser,
}

impl Cluster {
    /// Makes a cluster; it is not started yet.
    pub fn create(lab: &Lab, name: &str, options: &ClusterOptions) -> Result<Cluster> {
        let home = lab.path(name);
        lab.user.make_dir(&home)?;
        let (data_dir, socket_dir) = (home.join("data"), home.join("s"));
        lab.user.make_dir(&socket_dir)?;
        let mut maker = if options.own_identity {
            lab.user.make_dir(&data_dir)?;
            let mut initdb = lab.user.command(lab.server.bin("initdb"));
            initdb.args(["--no-sync", "--no-instructions", "-U", "postgres", "-A", "trust"]);
            initdb.args(["-E", "UTF8", "--locale=C.UTF-8", "-D"]).arg(&data_dir);
            initdb
        } else {
            let mut copy = lab.user.command("cp");
            copy.args(["-a", "--reflink=auto"]).arg(&lab.server.template).arg(&data_dir);
            copy
        };
        let output = maker.output().context("make the data directory")?;
        if !output.status.success() {
            bail!("could not make {}: {}", data_dir.display(), String::from_utf8_lossy(&output.stderr));
        }
        let mut postmaster =
            Program::new(name, lab.server.bin("postgres"), home.join("postgresql.log"), &lab.user);
        postmaster.arg("-D").arg(&data_dir).stop_signal(Signal::SIGINT);
        let cluster = Cluster {
            name: name.to_owned(),
            data_dir,
            socket_dir,
            postmaster,
            port: Port::reserve()?,
            server: lab.server.clone(),
            user: lab.user.clone(),
        };
        cluster.append("pg_hba.conf", "local all all trust\nhost all all 127.0.0.1/32 trust\n")?;
        cluster.add_conf(&[
            "listen_addresses = '127.0.0.1'",
            &format!("port = {}", cluster.port()),
            &format!("unix_socket_directories = '{}'", cluster.socket_dir.display()),
            "fsync = off",
            "log_line_prefix = '%m [%p] %b %d '",
            "log_checkpoints = off",
            "max_wal_size = 4GB",
        ])?;
        cluster.add_conf(&options.conf)?;
        Ok(cluster)
    }

    /// Makes a cluster and starts it.
    pub fn start_new(lab: &Lab, name: &str, options: &ClusterOptions) -> Result<Cluster> {
        let mut cluster = Cluster::create(lab, name, options)?;
        cluster.start()?;
        Ok(cluster)
    }

    /// The TCP port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Appends lines to postgresql.conf; the last one of a setting counts.
    /// `reload` or `restart` makes them known.
    pub fn add_conf<S: AsRef<str>>(&self, lines: &[S]) -> Result<()> {
        let text: String = lines.iter().map(|line| format!("{}\n", line.as_ref())).collect();
        self.append("postgresql.conf", &text)
    }

    /// Starts the server and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        // After a kill of the postmaster its children may still hold the
        // shared memory for a moment: the start is tried again.
        wait::until_true(&format!("{} to start", self.name), Duration::from_secs(60), || {
            self.postmaster.start()?;
            self.client("postgres")?;
            Ok(true)
        })
        .with_context(|| format!("log of {}:\n{}", self.name, crate::program::tail(&self.postmaster.log, 15)))
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self, how: Shutdown) -> Result<()> {
        match how {
            Shutdown::Fast => self.postmaster.stop_with(Signal::SIGINT, Duration::from_secs(60)).map(|_| ()),
            Shutdown::Immediate => {
                self.postmaster.stop_with(Signal::SIGQUIT, Duration::from_secs(30)).map(|_| ())
            }
            Shutdown::Kill => self.postmaster.kill(),
        }
    }

    /// Stops and starts the server.
    pub fn restart(&mut self, how: Shutdown) -> Result<()> {
        self.stop(how)?;
        self.start()
    }

    /// Has the server read its configuration again.
    pub fn reload(&mut self) -> Result<()> {
        self.postmaster.signal(Signal::SIGHUP)
    }

    /// The configuration of a client of `database`, as superuser, by socket.
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host_path(&self.socket_dir).port(self.port()).user("postgres").dbname(database);
        config.connect_timeout(Duration::from_secs(10));
        config
    }

    /// Connects to `database` as superuser.
    pub fn client(&self, database: &str) -> Result<Client> {
        self.config(database)
            .connect(NoTls)
            .with_context(|| format!("connect to {} of {}", database, self.name))
    }

    /// Connects to `database` as role `user`.
    pub fn client_as(&self, user: &str, database: &str) -> Result<Client> {
        let mut config = self.config(database);
        config.user(user).connect(NoTls).with_context(|| format!("connect to {} as {user}", self.name))
    }

    /// The URL of a database, over TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port())
    }

    /// Runs a script by psql (stops at the first error) and returns its output,
    /// unaligned and without headers.
    pub fn psql(&self, database: &str, script: &str) -> Result<String> {
        self.psql_with(database, script, &[])
    }

    /// `psql` with variables (`-v name=value`).
    pub fn psql_with(&self, database: &str, script: &str, variables: &[(&str, &str)]) -> Result<String> {
        let mut command = self.command("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]);
        for (name, value) in variables {
            command.arg("-v").arg(format!("{name}={value}"));
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start psql")?;
        if let Some(mut stdin) = child.stdin.take() {
            let script = script.to_owned();
            std::thread::spawn(move || stdin.write_all(script.as_bytes()));
        }
        let output = child.wait_with_output().context("wait for psql")?;
        if !output.status.success() {
            bail!("psql on {}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// A client program of the installation (`pgbench`, `pg_dump`, ...) with
    /// this cluster in its environment.
    pub fn command(&self, program: &str) -> std::process::Command {
        let mut command = self.user.command(self.server.bin(program));
        command
            .env("PGHOST", &self.socket_dir)
            .env("PGPORT", self.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGAPPNAME", program);
        command
    }

    /// All that the server logged so far.
    pub fn log_text(&self) -> String {
        self.postmaster.log_text()
    }

    /// The lines of the log that say a process of the server died of a signal:
    /// there must be none, as each one restarts all sessions.
    pub fn crashes(&self) -> Vec<String> {
        let text = self.log_text();
        text.lines().filter(|line| line.contains("was terminated by signal")).map(str::to_owned).collect()
    }

    fn append(&self, name: &str, text: &str) -> Result<()> {
        let path = self.data_dir.join(name);
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Cluster, ClusterOptions, Shutdown};
    use crate::lab::scenario;
    use anyhow::ensure;

    #[test]
    fn a_cluster_survives_every_way_of_stopping() {
        scenario("cluster_stops", |lab| {
            let options =
                ClusterOptions { conf: vec!["wal_level = logical".to_owned()], own_identity: false };
            let mut cluster = Cluster::start_new(lab, "one", &options)?;
            cluster.psql("postgres", "CREATE TABLE kept(i int); INSERT INTO kept VALUES (1)")?;
            for how in [Shutdown::Fast, Shutdown::Immediate, Shutdown::Kill] {
                cluster.restart(how)?;
                ensure!(cluster.psql("postgres", "SELECT count(*) FROM kept")? == "1", "lost by {how:?}");
            }
            ensure!(cluster.psql("postgres", "SHOW wal_level")? == "logical");
            ensure!(cluster.crashes().is_empty());
            Ok(())
        });
    }
}
