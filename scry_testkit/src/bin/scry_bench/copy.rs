//! The first copy, keys and indexes in place at the end, beside whatever else
//! can make one.
//!
//! ```text
//!   ours            start() ─► wait_for_shadow()
//!   subscription    CREATE SUBSCRIPTION ─► all tables copied; keys are there before
//!   pgcopydb        clone, with the better of two and four jobs; it copies the schema and vacuums
//!   COPY | COPY     two tables at a time, into bare tables of a server that writes no WAL for
//!                   them, keys after the rows: what the machine allows
//!   Debezium        its initial snapshot, records made into JSON and counted; nothing is written
//! ```
//!
//! `BENCH_SCALE` (20) is pgbench's, `BENCH_DOCS` (300,000) the rows of `docs`, `BENCH_TABLES`
//! (2,000) how many small ones, `BENCH_ROUNDS` (3).

use crate::clusters::{Bench, PATIENCE, Tables};
use crate::debezium::Debezium;
use crate::measure::Figures;
use crate::race::{Contender, Work, print_growth, race};
use crate::setting;
use anyhow::{Context, Result, ensure};
use scry_testkit::content::TableName;
use scry_testkit::{Cluster, ClusterOptions, Lab, Platform, PlatformOptions};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// pgbench's tables and documents.
pub fn run(lab: &Lab) -> Result<()> {
    let bench = Bench::new(lab, Tables::Docs)?;
    let bare = bare_cluster(lab)?;
    let number = Cell::new(0);
    let debezium = Debezium::find();
    let mut contenders = vec![
        Contender::new("scry-backfill", || ours(lab, &bench, &number)),
        Contender::new("subscription", || subscription(&bench)),
        Contender::new("COPY to COPY, bare", || pipe(&bench, &bare)),
    ];
    match has_pgcopydb() {
        true => contenders.push(Contender::new("pgcopydb clone", || pgcopydb(lab, &bench))),
        false => println!("pgcopydb is not installed (bench/peers): not measured"),
    }
    if let Some(debezium) = &debezium {
        let run = || debezium.snapshot(lab, &bench);
        contenders.push(Contender::new("Debezium, reading only", run));
    }
    let rows = bench.rows()?;
    race(&Work { name: "copy", unit: "rows", amount: rows }, &contenders, || Ok(())).map(drop)
}

/// Many small tables.
pub fn small(lab: &Lab) -> Result<()> {
    let bench = Bench::new(lab, Tables::Small(setting("BENCH_TABLES", 2_000)))?;
    let number = Cell::new(0);
    let contenders = [
        // Their files stay: for minutes a file system is slow to give numbers of deleted files out again
        // (ext4, recently_deleted), and the peer deletes none.
        Contender::new("scry-backfill", || Ok(into_new_platform(lab, &bench, &number)?.0)),
        Contender::new("subscription", || subscription(&bench)),
    ];
    let tables = bench.tables.len() as u64;
    race(&Work { name: "small tables", unit: "tables", amount: tables }, &contenders, || Ok(())).map(drop)
}

/// Ten times the rows: a row must not cost more than it does among fewer.
pub fn grow(lab: &Lab) -> Result<()> {
    let mut races = Vec::new();
    let larger = Lab::new("grow_copy")?;
    for (lab, times) in [(lab, 1), (&larger, 10)] {
        let bench = Bench::scaled(lab, Tables::Docs, times)?;
        let number = Cell::new(0);
        let contenders = [Contender::new("scry-backfill", || ours(lab, &bench, &number))];
        let rows = bench.rows()?;
        let name = format!("copy of {times} times the data");
        races.push((race(&Work { name: &name, unit: "rows", amount: rows }, &contenders, || Ok(()))?, rows));
    }
    print_growth(&races)
}

/// A job into a new platform, whose files go.
fn ours(lab: &Lab, bench: &Bench, number: &Cell<u64>) -> Result<Figures> {
    let (figures, data_dir) = into_new_platform(lab, bench, number)?;
    // The next round finds the memory of this one's files, as the peers find their cluster's.
    std::fs::remove_dir_all(data_dir).context("remove a platform's data")?;
    Ok(figures)
}

/// A job into a new platform, and where its files are.
fn into_new_platform(lab: &Lab, bench: &Bench, number: &Cell<u64>) -> Result<(Figures, PathBuf)> {
    number.set(number.get() + 1);
    let mut platform =
        Platform::create(lab, &format!("platform{}", number.get()), &PlatformOptions::default())?;
    platform.start()?;
    bench.pair.source.add_conf(&[format!("scry_backfill.endpoint = '{}'", platform.url)])?;
    bench.pair.sql("SELECT pg_reload_conf()")?;
    std::thread::sleep(Duration::from_secs(2));
    let figures = bench.measure(&platform, None, || {
        bench.pair.start_job("*")?;
        bench.pair.wait_for_shadow(PATIENCE)
    })?;
    bench.require_equal(&mut platform.shadow_client(None)?)?;
    bench.pair.sql("SELECT scry_backfill.stop('default')")?;
    platform.program.stop()?;
    Ok((figures, platform.data_dir.clone()))
}

fn subscription(bench: &Bench) -> Result<Figures> {
    let names: Vec<String> = bench.tables.iter().map(TableName::quoted).collect();
    bench.peer_sql(&format!("TRUNCATE {}", names.join(", ")))?;
    let figures = bench.measure(&bench.pair.platform, None, || bench.subscribe())?;
    bench.require_equal(&mut bench.peer.client("postgres")?)?;
    bench.peer_sql("DROP SUBSCRIPTION peer")?;
    Ok(figures)
}

fn bare_cluster(lab: &Lab) -> Result<Cluster> {
    let conf = [
        "fsync = on",
        "shared_buffers = '1GB'",
        "max_wal_size = '8GB'",
        "autovacuum = off",
        "synchronous_commit = off",
        "wal_level = minimal",
        "max_wal_senders = 0",
        "maintenance_work_mem = '256MB'",
    ];
    let options = ClusterOptions { conf: conf.map(str::to_owned).to_vec(), own_identity: false };
    Cluster::start_new(lab, "bare", &options)
}

/// What the machine allows: psql into psql, two tables at a time.
fn pipe(bench: &Bench, bare: &Cluster) -> Result<Figures> {
    bare.psql("postgres", "DROP DATABASE IF EXISTS pipe")?;
    bare.psql("postgres", "CREATE DATABASE pipe")?;
    let figures = bench.measure(&bench.pair.platform, Some(bare), || {
        bench.copy_schema(bare, "pipe", &["--section=pre-data"])?;
        // Smallest last, as for everybody else.
        let sql =
            "SELECT oid::regclass FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                   ORDER BY relpages DESC";
        let tables = bench.pair.sql(sql)?;
        let next = std::sync::Mutex::new(tables.lines());
        let work = || -> Result<()> {
            loop {
                let table = next.lock().ok().and_then(|mut next| next.next());
                match table {
                    Some(table) => pipe_table(bench, bare, table)?,
                    None => return Ok(()),
                }
            }
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(work);
            work()?;
            other.join().map_err(|_| anyhow::anyhow!("a copy failed"))?
        })?;
        bench.copy_schema(bare, "pipe", &["--section=post-data"])
    })?;
    bench.require_equal(&mut bare.client("pipe")?)?;
    Ok(figures)
}

fn pipe_table(bench: &Bench, bare: &Cluster, table: &str) -> Result<()> {
    let mut from = bench
        .pair
        .source
        .command("psql")
        .args(["-Xq", "-d", "postgres", "-c", &format!("COPY {table} TO STDOUT (FORMAT binary)")])
        .stdout(Stdio::piped())
        .spawn()
        .context("start psql")?;
    let rows = from.stdout.take().context("psql has no output")?;
    let status = bare
        .command("psql")
        .args(["-Xq1", "-d", "pipe", "-v", "ON_ERROR_STOP=1", "-c", &format!("TRUNCATE {table}")])
        .args(["-c", &format!("COPY {table} FROM STDIN (FORMAT binary, FREEZE)")])
        .stdin(rows)
        .status()
        .context("start psql")?;
    ensure!(status.success() && from.wait()?.success(), "COPY of {table} failed");
    Ok(())
}

fn has_pgcopydb() -> bool {
    std::process::Command::new("pgcopydb").arg("version").output().is_ok()
}

/// `pgcopydb clone` into a database of the peers' cluster, with the job count that takes it
/// the least time. It copies the schema too, and runs VACUUM ANALYZE.
fn pgcopydb(lab: &Lab, bench: &Bench) -> Result<Figures> {
    let mut best: Option<Figures> = None;
    for jobs in ["2", "4"] {
        bench.peer_sql("DROP DATABASE IF EXISTS pgcopydb")?;
        bench.peer_sql("CREATE DATABASE pgcopydb")?;
        let uri = |cluster: &Cluster, database: &str| {
            let socket = cluster.socket_dir.display().to_string().replace('/', "%2F");
            format!("postgres://postgres@{socket}:{}/{database}", cluster.port())
        };
        let dir = lab.path(&format!("pgcopydb{jobs}"));
        let _ = std::fs::remove_dir_all(&dir);
        let figures = bench.measure(&bench.pair.platform, None, || {
            let mut command = lab.user.command("pgcopydb");
            // It calls pg_dump and pg_restore.
            let pg_dump = bench.pair.source.command("pg_dump");
            let programs = Path::new(pg_dump.get_program()).parent().context("pg_dump has no directory")?;
            let path = std::env::var("PATH").unwrap_or_default();
            command.env("PATH", format!("{}:{path}", programs.display()));
            command.env("XDG_DATA_HOME", lab.path("xdg")).arg("clone").arg("--dir").arg(&dir);
            command.args(["--source", &uri(&bench.pair.source, "postgres")]);
            command.args(["--target", &uri(&bench.peer, "pgcopydb")]);
            command.args(["--table-jobs", jobs, "--no-owner", "--no-acl", "--skip-extensions"]);
            let done = command.output().context("start pgcopydb")?;
            ensure!(done.status.success(), "pgcopydb: {}", String::from_utf8_lossy(&done.stderr));
            Ok(())
        })?;
        bench.require_equal(&mut bench.peer.client("pgcopydb")?)?;
        if best.is_none_or(|best| figures.wall < best.wall) {
            best = Some(figures);
        }
    }
    bench.peer_sql("DROP DATABASE pgcopydb")?;
    best.context("pgcopydb was not run")
}
