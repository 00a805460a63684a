//! Copying and following beside PostgreSQL's own logical replication: the same
//! source, the same rows, one right after the other.
//!
//! ```text
//!   ours    job ─► scry_sender ─► scry_platform ─► its embedded shadow
//!   peer    CREATE SUBSCRIPTION in another cluster
//!   peer    pgcopydb clone into that cluster, where it is installed
//! ```
//!
//! Each round has both, in turns; what is printed are the ratios of each
//! round, as smallest, median and largest. The content of all tables is compared at the
//! end. `BENCH_SCALE` (20) is pgbench's, `BENCH_CHANGES` (800,000) the row changes of
//! a backlog, `BENCH_TABLES` (2,000) how many small ones, `BENCH_ROUNDS` (3).

use crate::{cpu, setting};
use anyhow::{Context, Result, ensure};
use scry_testkit::content::{self, TableName};
use scry_testkit::{Cluster, ClusterOptions, Lab, Pair, PairOptions, Platform, PlatformOptions, wait};
use std::path::Path;
use std::time::{Duration, Instant};

/// What one way of doing the work took.
#[derive(Debug, Clone, Copy)]
struct Figures {
    wall: Duration,
    source_cpu: Duration,
    shadow_cpu: Duration,
    /// Of our own programs; the peer has none.
    programs_cpu: Duration,
}

/// The work of the spread workload: inserts, updates, deletes over keys far apart.
const SPREAD: &str = "
\\set k random(1, 2000000)
\\set op random(1, 10)
\\if :op <= 4
INSERT INTO spread VALUES (:k, now(), repeat('x', 100), :k) ON CONFLICT (id) DO NOTHING;
\\elif :op <= 8
UPDATE spread SET at = now(), n = n + 1 WHERE id = :k;
\\else
DELETE FROM spread WHERE id = :k;
\\endif
";

const TABLES: &str = "CREATE TABLE spread(id bigint PRIMARY KEY, at timestamptz, note text, n bigint);
    INSERT INTO spread SELECT i * 2, now(), repeat('y', 100), i FROM generate_series(1, 500000) i;
    CREATE TABLE probe(id int PRIMARY KEY);
    ALTER TABLE pgbench_history REPLICA IDENTITY FULL;
    CREATE PUBLICATION peer FOR TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history, spread, probe";

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// Following a backlog, of pgbench and of spread keys.
pub fn follow(lab: &Lab) -> Result<()> {
    let bench = Bench::new(lab)?;
    bench.begin()?;
    for spread in [false, true] {
        let mut rounds = Vec::new();
        for round in 0..setting("BENCH_ROUNDS", 3) {
            bench.neither()?;
            let changes = bench.write_backlog(spread)?;
            let (ours, peer) = if round % 2 == 0 {
                (bench.follow_ours()?, bench.follow_peer()?)
            } else {
                let peer = bench.follow_peer()?;
                (bench.follow_ours()?, peer)
            };
            rounds.push((ours, peer));
            println!("round {}: {changes} transactions", round + 1);
        }
        bench.compare()?;
        let what = if spread { "follow, spread keys" } else { "follow, pgbench" };
        print(what, "PostgreSQL's own subscription", &rounds);
    }
    Ok(())
}

/// The initial copy, keys and indexes in place at the end.
pub fn copy(lab: &Lab) -> Result<()> {
    copy_of("copy", lab, &Bench::new(lab)?)
}

/// The initial copy of many small tables.
pub fn small(lab: &Lab) -> Result<()> {
    let count = setting("BENCH_TABLES", 2_000);
    copy_of(&format!("copy of {count} small tables"), lab, &Bench::of_small_tables(lab, count)?)
}

fn copy_of(what: &str, lab: &Lab, bench: &Bench) -> Result<()> {
    let mut rounds = Vec::new();
    let mut by_pgcopydb = Vec::new();
    let has_pgcopydb = std::process::Command::new("pgcopydb").arg("version").output().is_ok();
    for round in 0..setting("BENCH_ROUNDS", 3) {
        let ours = |bench: &Bench| bench.copy_ours(lab, round);
        let (ours, peer) = if round % 2 == 0 {
            (ours(bench)?, bench.copy_peer()?)
        } else {
            let peer = bench.copy_peer()?;
            (ours(bench)?, peer)
        };
        rounds.push((ours, peer));
        if has_pgcopydb {
            by_pgcopydb.push((ours, bench.copy_pgcopydb(lab)?));
        }
    }
    print(what, "PostgreSQL's own subscription", &rounds);
    if has_pgcopydb {
        print(what, "pgcopydb clone", &by_pgcopydb);
    } else {
        println!("\npgcopydb is not installed: not measured");
    }
    Ok(())
}

/// A source with its job, and the cluster of the peer.
pub struct Bench {
    pub pair: Pair,
    pub peer: Cluster,
    /// What is copied.
    tables: Vec<TableName>,
}

impl Bench {
    /// Two clusters without tables.
    fn empty(lab: &Lab) -> Result<Bench> {
        let conf = ["synchronous_commit = off", "max_wal_size = '8GB'", "checkpoint_timeout = '30min'"];
        let mut source_conf: Vec<String> = conf.map(str::to_owned).to_vec();
        source_conf.extend(["shared_buffers = '512MB'", "autovacuum = off"].map(str::to_owned));
        let pair =
            Pair::start(lab, &PairOptions { source_conf: source_conf.clone(), ..PairOptions::default() })?;
        source_conf.push("wal_retrieve_retry_interval = '100ms'".to_owned());
        let peer =
            Cluster::start_new(lab, "peer", &ClusterOptions { conf: source_conf, own_identity: false })?;
        Ok(Bench { pair, peer, tables: Vec::new() })
    }

    /// With pgbench's tables, `spread` and `probe`.
    pub fn new(lab: &Lab) -> Result<Bench> {
        let mut bench = Bench::empty(lab)?;
        let names =
            ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history", "spread", "probe"];
        bench.tables = names.map(TableName::new).to_vec();
        let scale = setting("BENCH_SCALE", 20).to_string();
        for cluster in [&bench.pair.source, &bench.peer] {
            let args = if cluster.name == "peer" { "dtp" } else { "dtgvp" };
            let made = cluster
                .command("pgbench")
                .args(["-i", "-q", "-I", args, "-s", &scale, "postgres"])
                .output()?;
            ensure!(made.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&made.stderr));
        }
        bench.pair.sql(TABLES)?;
        bench.peer_sql(
            "CREATE TABLE spread(id bigint PRIMARY KEY, at timestamptz, note text, n bigint);
             CREATE TABLE probe(id int PRIMARY KEY);
             ALTER TABLE pgbench_history REPLICA IDENTITY FULL",
        )?;
        Ok(bench)
    }

    /// With tables of twenty rows, each with a key and another index.
    fn of_small_tables(lab: &Lab, count: u64) -> Result<Bench> {
        let mut bench = Bench::empty(lab)?;
        bench.tables = (1..=count).map(|n| TableName::new(&format!("small_{n}"))).collect();
        let make = |fill: &str| {
            format!(
                "DO $$ BEGIN FOR n IN 1..{count} LOOP
                     EXECUTE format('CREATE TABLE small_%s(id int PRIMARY KEY, at timestamptz, v text)', n);
                     EXECUTE format('CREATE INDEX ON small_%s(at)', n);
                     {fill}
                 END LOOP; END $$"
            )
        };
        let rows = "EXECUTE format('INSERT INTO small_%s SELECT i, now(), md5(i::text) FROM generate_series(1, 20) i', n);";
        bench.pair.sql(&make(rows))?;
        bench.peer_sql(&make(""))?;
        bench.pair.sql("CREATE PUBLICATION peer FOR TABLES IN SCHEMA public")?;
        Ok(bench)
    }

    fn peer_sql(&self, sql: &str) -> Result<String> {
        self.peer.psql("postgres", sql)
    }

    fn subscribe(&self) -> Result<()> {
        let (host, port) = (self.pair.source.socket_dir.display(), self.pair.source.port());
        self.peer_sql(&format!(
            "CREATE SUBSCRIPTION peer CONNECTION 'host={host} port={port} user=postgres dbname=postgres' \
             PUBLICATION peer WITH (binary = true)"
        ))?;
        wait::until_true("the subscription's first copy", PATIENCE, || {
            let sql = "SELECT count(*) > 0 AND bool_and(srsubstate = 'r') FROM pg_subscription_rel";
            Ok(self.peer_sql(sql)? == "t")
        })
    }

    /// Both follow.
    pub fn begin(&self) -> Result<()> {
        self.pair.start_job("*")?;
        self.subscribe()?;
        self.pair.wait_for_shadow(PATIENCE)
    }

    fn neither(&self) -> Result<()> {
        self.pair.sql("SELECT scry_backfill.pause('default')")?;
        self.peer_sql("ALTER SUBSCRIPTION peer DISABLE")?;
        Ok(())
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

    fn measure(&self, platform: &Platform, work: impl FnOnce() -> Result<()>) -> Result<Figures> {
        for cluster in [&self.pair.source, &self.peer] {
            cluster.psql("postgres", "CHECKPOINT")?;
        }
        let source = self.pair.source.postmaster.pid().context("the source does not run")?;
        let peer = self.peer.postmaster.pid().context("the peer does not run")?;
        let program = platform.program.pid().context("the platform does not run")?;
        let shadow = platform.shadow_postmaster()?;
        let read = || -> Result<[Duration; 4]> {
            Ok([cpu::of_tree(source)?, cpu::of_tree(peer)?, cpu::of_tree(program)?, cpu::of_tree(shadow)?])
        };
        let before = read()?;
        let start = Instant::now();
        work()?;
        let wall = start.elapsed();
        let after = read()?;
        let used =
            |i: usize| after.get(i).zip(before.get(i)).map_or(Duration::ZERO, |(a, b)| a.saturating_sub(*b));
        // The sender is a child of the source's launcher, the shadow may be one of the platform's.
        Ok(Figures {
            wall,
            source_cpu: used(0),
            shadow_cpu: used(1) + used(3),
            programs_cpu: used(2).saturating_sub(used(3)),
        })
    }

    /// Transactions of a backlog that nobody has read.
    fn write_backlog(&self, spread: bool) -> Result<u64> {
        let changes = setting("BENCH_CHANGES", 800_000);
        // pgbench's transactions change four rows, ours at most one.
        let each = if spread { changes / 4 } else { changes / 16 };
        let mut command = self.pair.source.command("pgbench");
        command.args(["-n", "-c", "4", "-j", "2", "-t", &each.to_string()]);
        let mut script = None;
        if spread {
            let path = self.pair.socket_dir.join("spread.sql");
            std::fs::write(&path, SPREAD).context("write pgbench's script")?;
            command.arg("-f").arg(&path);
            script = Some(path);
        }
        let done = command.arg("postgres").output()?;
        ensure!(done.status.success(), "pgbench: {}", String::from_utf8_lossy(&done.stderr));
        drop(script);
        Ok(4 * each)
    }

    fn follow_ours(&self) -> Result<Figures> {
        self.measure(&self.pair.platform, || {
            self.pair.sql("SELECT scry_backfill.resume('default')")?;
            self.pair.wait_for_shadow(PATIENCE)
        })
    }

    fn follow_peer(&self) -> Result<Figures> {
        self.measure(&self.pair.platform, || {
            self.peer_sql("ALTER SUBSCRIPTION peer ENABLE")?;
            self.wait_for_peer()
        })
    }

    fn copy_ours(&self, lab: &Lab, round: u64) -> Result<Figures> {
        let mut platform = Platform::create(lab, &format!("platform{round}"), &PlatformOptions::default())?;
        platform.start()?;
        self.pair.source.add_conf(&[format!("scry_backfill.endpoint = '{}'", platform.url)])?;
        self.pair.sql("SELECT pg_reload_conf()")?;
        std::thread::sleep(Duration::from_secs(2));
        let figures = self.measure(&platform, || {
            self.pair.start_job("*")?;
            self.pair.wait_for_shadow(PATIENCE)
        })?;
        self.require_equal(&mut platform.shadow_client(None)?)?;
        self.pair.sql("SELECT scry_backfill.stop('default')")?;
        Ok(figures)
    }

    fn copy_peer(&self) -> Result<Figures> {
        let names: Vec<String> = self.tables.iter().map(TableName::quoted).collect();
        self.peer_sql(&format!("TRUNCATE {}", names.join(", ")))?;
        let figures = self.measure(&self.pair.platform, || self.subscribe())?;
        self.require_equal(&mut self.peer.client("postgres")?)?;
        self.peer_sql("DROP SUBSCRIPTION peer")?;
        Ok(figures)
    }

    /// `pgcopydb clone` into a database of the peer's cluster, with the job count that takes it
    /// the least time. It copies the schema too, and runs VACUUM ANALYZE.
    fn copy_pgcopydb(&self, lab: &Lab) -> Result<Figures> {
        let mut best: Option<Figures> = None;
        for jobs in ["2", "4"] {
            self.peer_sql("DROP DATABASE IF EXISTS pgcopydb")?;
            self.peer_sql("CREATE DATABASE pgcopydb")?;
            let uri = |cluster: &Cluster, database: &str| {
                let socket = cluster.socket_dir.display().to_string().replace('/', "%2F");
                format!("postgres://postgres@{socket}:{}/{database}", cluster.port())
            };
            let dir = lab.path(&format!("pgcopydb{jobs}"));
            let _ = std::fs::remove_dir_all(&dir);
            let figures = self.measure(&self.pair.platform, || {
                let mut command = lab.user.command("pgcopydb");
                // It calls pg_dump and pg_restore.
                let pg_dump = self.pair.source.command("pg_dump");
                let programs =
                    Path::new(pg_dump.get_program()).parent().context("pg_dump has no directory")?;
                let path = std::env::var("PATH").unwrap_or_default();
                command.env("PATH", format!("{}:{path}", programs.display()));
                command.env("XDG_DATA_HOME", lab.path("xdg")).arg("clone").arg("--dir").arg(&dir);
                command.args(["--source", &uri(&self.pair.source, "postgres")]);
                command.args(["--target", &uri(&self.peer, "pgcopydb")]);
                command.args(["--table-jobs", jobs, "--no-owner", "--no-acl", "--skip-extensions"]);
                let done = command.output().context("start pgcopydb")?;
                ensure!(done.status.success(), "pgcopydb: {}", String::from_utf8_lossy(&done.stderr));
                Ok(())
            })?;
            self.require_equal(&mut self.peer.client("pgcopydb")?)?;
            if best.is_none_or(|best| figures.wall < best.wall) {
                best = Some(figures);
            }
        }
        self.peer_sql("DROP DATABASE pgcopydb")?;
        best.context("pgcopydb was not run")
    }

    pub fn compare(&self) -> Result<()> {
        self.require_equal(&mut self.pair.shadow_client()?)?;
        self.require_equal(&mut self.peer.client("postgres")?)
    }

    fn require_equal(&self, other: &mut scry_testkit::Client) -> Result<()> {
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

/// The smallest, the median and the largest.
pub fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} / {:.2} / {:.2}", at(&values, 0.0), at(&values, 0.5), at(&values, 1.0))
}

/// What so large a share of sorted values does not exceed.
pub fn at(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn print(what: &str, peer: &str, rounds: &[(Figures, Figures)]) {
    println!("\n{what}; {} rounds, medians\n", rounds.len());
    println!(
        "{:30}  {:>8}  {:>10}  {:>10}  {:>12}",
        "", "wall s", "source cpu", "shadow cpu", "programs cpu"
    );
    let column = |name: &str, figures: Vec<Figures>| {
        let median = |pick: fn(&Figures) -> Duration| {
            let mut all: Vec<f64> = figures.iter().map(|f| pick(f).as_secs_f64()).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        println!(
            "{name:30}  {:>8.2}  {:>10.2}  {:>10.2}  {:>12.2}",
            median(|f| f.wall),
            median(|f| f.source_cpu),
            median(|f| f.shadow_cpu),
            median(|f| f.programs_cpu)
        );
    };
    column("scry-backfill", rounds.iter().map(|(ours, _)| *ours).collect());
    column(peer, rounds.iter().map(|(_, peer)| *peer).collect());
    let ratios = |pick: fn(&Figures) -> Duration| {
        let ratio =
            |(ours, peer): &(Figures, Figures)| pick(peer).as_secs_f64() / pick(ours).as_secs_f64().max(0.01);
        spread(rounds.iter().map(ratio).collect())
    };
    println!("\nthe peer's time over ours, min / median / max: {}", ratios(|f| f.wall));
    println!("the same of the source's CPU: {}", ratios(|f| f.source_cpu));
}
