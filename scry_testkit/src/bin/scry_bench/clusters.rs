//! The clusters of a measurement: a source with its job, and the peers' target.
//!
//! ```text
//!   ours    job ─► scry_sender ─► scry_platform ─► its embedded shadow
//!   peer    CREATE SUBSCRIPTION in another cluster
//! ```
//!
//! All write to the disk as they would in production: `fsync` is on, the
//! peers' target commits without waiting for it, as a shadow may.

use crate::measure::{Figures, Meter, Part};
use crate::relay::Relay;
use crate::{setting, workload};
use anyhow::{Context, Result, ensure};
use scry_testkit::content::{self, TableName};
use scry_testkit::{Client, Cluster, ClusterOptions, Lab, Pair, PairOptions, Platform, wait};
use std::path::Path;
use std::time::Duration;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(1800);

/// More would push out what the source has in memory.
const MEMORY_MAX: usize = 8 << 30;

/// Settings of the source and of the peers' target.
const CONF: [&str; 5] = [
    "fsync = on",
    "shared_buffers = '1GB'",
    "max_wal_size = '8GB'",
    "checkpoint_timeout = '30min'",
    "autovacuum = off",
];

/// The tables that are there besides pgbench's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// Documents: what is copied.
    Docs,
    /// Wide rows with keys far apart, and a probe: what is followed.
    Spread,
    /// Thousands of small ones, and none of pgbench's.
    Small(u64),
}

/// A source with its job, and the cluster of the peers.
pub struct Bench {
    pub pair: Pair,
    pub peer: Cluster,
    /// What is copied and followed.
    pub tables: Vec<TableName>,
}

impl Bench {
    /// Clusters with the tables, filled on the source.
    pub fn new(lab: &Lab, tables: Tables) -> Result<Bench> {
        Self::scaled(lab, tables, 1)
    }

    /// The same with so many times the rows.
    pub fn scaled(lab: &Lab, tables: Tables, times: u64) -> Result<Bench> {
        let conf: Vec<String> = CONF.map(str::to_owned).to_vec();
        let pair = Pair::start(lab, &PairOptions { source_conf: conf.clone(), ..PairOptions::default() })?;
        let mut peer_conf = conf;
        // Else a subscription may idle for five seconds at its start.
        peer_conf
            .extend(["wal_retrieve_retry_interval = '100ms'", "synchronous_commit = off"].map(str::to_owned));
        let peer = Cluster::start_new(lab, "peer", &ClusterOptions { conf: peer_conf, own_identity: false })?;
        let mut bench = Bench { pair, peer, tables: Vec::new() };
        match tables {
            Tables::Small(count) => {
                bench.pair.sql(&workload::small_tables(count, true))?;
            }
            Tables::Docs => {
                bench.pgbench_tables(times)?;
                let docs = (times * setting("BENCH_DOCS", 300_000)).to_string();
                bench.pair.source.psql_with("postgres", workload::DOCS, &[("docs", &docs)])?;
            }
            Tables::Spread => {
                bench.pgbench_tables(times)?;
                let probe = "CREATE TABLE probe(id int PRIMARY KEY);";
                bench.pair.sql(&format!("{}{}{probe}", workload::SPREAD_TABLE, workload::SPREAD_ROWS))?;
            }
        }
        bench.pair.sql("CREATE PUBLICATION peer FOR TABLES IN SCHEMA public; VACUUM ANALYZE")?;
        bench.tables = content::user_tables(&mut bench.pair.source_client()?)?;
        bench.copy_schema(&bench.peer, "postgres", &[])?;
        Ok(bench)
    }

    fn pgbench_tables(&self, times: u64) -> Result<()> {
        let scale = (times * setting("BENCH_SCALE", 20)).to_string();
        let made =
            self.pair.source.command("pgbench").args(["-i", "-q", "-s", &scale, "postgres"]).output()?;
        ensure!(made.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&made.stderr));
        self.pair.sql("ALTER TABLE pgbench_history REPLICA IDENTITY FULL").map(drop)
    }

    /// Makes the tables of the source in a database of another cluster.
    pub fn copy_schema(&self, cluster: &Cluster, database: &str, more: &[&str]) -> Result<()> {
        let mut dump = self.pair.source.command("pg_dump");
        dump.args(["--schema=public", "--schema-only", "--no-publications"]).args(more).arg("postgres");
        let dumped = dump.output().context("start pg_dump")?;
        ensure!(dumped.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dumped.stderr));
        let sql = String::from_utf8_lossy(&dumped.stdout).replace("CREATE SCHEMA public;", "");
        cluster.psql(database, &sql).map(drop)
    }

    /// Runs a script on the peers' cluster.
    pub fn peer_sql(&self, sql: &str) -> Result<String> {
        self.peer.psql("postgres", sql)
    }

    /// Rows of all tables.
    pub fn rows(&self) -> Result<u64> {
        let mut client = self.pair.source_client()?;
        let mut rows = 0;
        for table in &self.tables {
            let count: i64 =
                client.query_one(&format!("SELECT count(*) FROM {}", table.quoted()), &[])?.get(0);
            rows += count.unsigned_abs();
        }
        Ok(rows)
    }

    /// Subscribes, and waits until everything is copied.
    pub fn subscribe(&self) -> Result<()> {
        let from = Self::connection(&self.pair.source.socket_dir, self.pair.source.port());
        self.peer_sql(&format!(
            "CREATE SUBSCRIPTION peer CONNECTION {from} PUBLICATION peer WITH (binary = true)"
        ))?;
        wait::until_true("the subscription's first copy", PATIENCE, || {
            let sql = "SELECT count(*) > 0 AND bool_and(srsubstate IN ('s', 'r')) FROM pg_subscription_rel";
            Ok(self.peer_sql(sql)? == "t")
        })
    }

    fn connection(host: &Path, port: u16) -> String {
        format!("'host={} port={port} user=postgres dbname=postgres'", host.display())
    }

    /// The subscription alone follows, through two relays as long as `work` runs.
    pub fn peer_through_relays<T>(&self, lab: &Lab, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let (own, port) = (&self.pair.source.socket_dir, self.pair.source.port());
        let socket = |folder: &Path| folder.join(format!(".s.PGSQL.{port}"));
        let folders = [lab.path("r1"), lab.path("r2")];
        for folder in &folders {
            // What an earlier one has left.
            let _ = std::fs::remove_dir_all(folder);
            std::fs::create_dir(folder)?;
        }
        let [first, second] = &folders;
        let _relays =
            [Relay::start(&socket(first), &socket(second))?, Relay::start(&socket(second), &socket(own))?];
        wait::until_true("the relays", PATIENCE, || Ok(socket(first).exists() && socket(second).exists()))?;
        self.peer_sql(&format!("ALTER SUBSCRIPTION peer CONNECTION {}", Self::connection(first, port)))?;
        self.only_peer()?;
        let done = work()?;
        self.peer_sql("ALTER SUBSCRIPTION peer DISABLE")?;
        self.peer_sql(&format!("ALTER SUBSCRIPTION peer CONNECTION {}", Self::connection(own, port)))?;
        Ok(done)
    }

    /// Both follow.
    pub fn begin(&self) -> Result<()> {
        self.pair.start_job("*")?;
        self.subscribe()?;
        self.pair.wait_for_shadow(PATIENCE)
    }

    /// Nobody follows.
    pub fn neither(&self) -> Result<()> {
        self.pair.sql("SELECT scry_backfill.pause('default')")?;
        self.peer_sql("ALTER SUBSCRIPTION peer DISABLE").map(drop)
    }

    /// Both follow, and have caught up.
    pub fn both(&self) -> Result<()> {
        self.pair.sql("SELECT scry_backfill.resume('default')")?;
        self.peer_sql("ALTER SUBSCRIPTION peer ENABLE")?;
        self.pair.wait_for_shadow(PATIENCE)?;
        self.wait_for_peer()
    }

    /// The job alone follows, and has caught up.
    pub fn only_ours(&self) -> Result<()> {
        self.peer_sql("ALTER SUBSCRIPTION peer DISABLE")?;
        self.pair.sql("SELECT scry_backfill.resume('default')")?;
        self.pair.wait_for_shadow(PATIENCE)
    }

    /// The subscription alone follows, and has caught up.
    pub fn only_peer(&self) -> Result<()> {
        self.pair.sql("SELECT scry_backfill.pause('default')")?;
        self.peer_sql("ALTER SUBSCRIPTION peer ENABLE")?;
        self.wait_for_peer()
    }

    /// Until the subscription has what the source has now.
    pub fn wait_for_peer(&self) -> Result<()> {
        let end = self.pair.sql("SELECT pg_current_wal_lsn()")?;
        let sql =
            format!("SELECT latest_end_lsn >= '{end}' FROM pg_stat_subscription WHERE subname = 'peer'");
        wait::until_true("the subscription", PATIENCE, || Ok(self.peer_sql(&sql)? == "t"))
    }

    /// Measures work between the source and a shadow, of this platform or in
    /// another cluster, with everything before it written to disk.
    pub fn measure(
        &self,
        platform: &Platform,
        other: Option<&Cluster>,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Figures> {
        for cluster in [Some(&self.pair.source), Some(&self.peer), other].into_iter().flatten() {
            cluster.psql("postgres", "CHECKPOINT")?;
        }
        nix::unistd::sync();
        self.have_memory()?;
        let pid_of = |cluster: &Cluster| cluster.postmaster.pid().context("a cluster does not run");
        let mut meter = Meter::new()
            .with(pid_of(&self.pair.source)?, Part::Source)
            .with(pid_of(&self.peer)?, Part::Shadow)
            .with(platform.program.pid().context("the platform does not run")?, Part::Programs)
            .with(platform.shadow_postmaster()?, Part::Shadow);
        if let Some(other) = other {
            meter = meter.with(pid_of(other)?, Part::Shadow);
        }
        meter.measure(work)
    }

    /// Has the machine's host give thrice the memory that the source's tables take, so that nobody pays for
    /// that whose files are new, or who comes after a program that gave much back.
    fn have_memory(&self) -> Result<()> {
        let bytes: usize = self.pair.sql("SELECT pg_database_size(current_database())")?.parse()?;
        let pages = std::hint::black_box(vec![1_u8; (3 * bytes).min(MEMORY_MAX)]);
        drop(pages);
        Ok(())
    }

    /// Compares the content of every table on all sides.
    pub fn compare(&self) -> Result<()> {
        self.require_equal(&mut self.pair.shadow_client()?)?;
        self.require_equal(&mut self.peer.client("postgres")?)
    }

    /// Compares the content of every table with another database's.
    pub fn require_equal(&self, other: &mut Client) -> Result<()> {
        content::compare(&mut self.pair.source_client()?, other, &self.tables)?.require_equal()
    }
}

/// Runs pgbench's own transactions on the source; how many a second.
pub fn pgbench(pair: &Pair, args: &[&str]) -> Result<f64> {
    let done = pair.source.command("pgbench").arg("-n").args(args).arg("postgres").output()?;
    ensure!(done.status.success(), "pgbench: {}", String::from_utf8_lossy(&done.stderr));
    let out = String::from_utf8_lossy(&done.stdout);
    let line = out.lines().find_map(|line| line.strip_prefix("tps = "));
    let number = line.and_then(|rest| rest.split(' ').next()?.parse().ok());
    number.with_context(|| format!("pgbench said nothing of transactions a second: {out}"))
}
