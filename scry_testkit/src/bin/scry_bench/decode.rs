//! Decoding in the server beside `pg_recvlogical` with pgoutput and Debezium,
//! on the same WAL: pgbench's transactions, written while all slots stand still.
//!
//! ```text
//!   ours    stream worker ─► scry_sender ─► a platform that counts bytes (once the
//!           real one has copied the tables)
//!   peer    walsender (pgoutput, binary) ─► pg_recvlogical -f /dev/null
//!   peer    walsender (pgoutput) ─► Debezium's embedded engine, JSON, counted
//! ```
//!
//! Ours is from the first byte to the last one. Nothing is confirmed, so that
//! every round has the same WAL. `BENCH_CHANGES` (1,400,000) says how many row changes it holds.

use crate::debezium::{Debezium, Task, drop_slot};
use crate::measure::{Figures, Meter, Part};
use crate::race::{Contender, Work, median, race};
use crate::setting;
use anyhow::{Context, Result, ensure};
use scry_testkit::scripted::{CONTENT_TYPE, Script, ScriptedPlatform};
use scry_testkit::wire::message::{CopyState, Hello, Message, Welcome};
use scry_testkit::wire::{Lsn, version};
use scry_testkit::{Lab, Pair, PairOptions, Shutdown, wait};
use std::cell::Cell;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many times faster than `pg_recvlogical` is promised.
const PROMISED: f64 = 5.0;
/// Row changes of one of pgbench's transactions.
const CHANGES_EACH: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(120);

pub fn run(lab: &Lab) -> Result<()> {
    let changes = setting("BENCH_CHANGES", 1_400_000) / CHANGES_EACH / 4 * CHANGES_EACH * 4;
    // The platform says that the shadow stands where the slot does.
    let position = Arc::new(AtomicU64::new(0));
    let platform = counting_platform(&position)?;
    let conf = ["synchronous_commit = off", "max_wal_size = '16GB'", "shared_buffers = '1GB'", "fsync = on"];
    let options = PairOptions { source_conf: conf.map(str::to_owned).to_vec(), ..PairOptions::default() };
    let mut pair = Pair::start(lab, &options)?;
    prepare(&pair)?;
    pair.start_job_with("pgbench_*", "options => '{\"keyless\": \"inserts_only\"}'")?;
    pair.wait_for_shadow(Duration::from_secs(300))?;
    pair.sql("SELECT scry_backfill.pause('default')")?;
    write_wal(&pair, changes)?;
    let stands = pair.sql(
        "SELECT pg_wal_lsn_diff(confirmed_flush_lsn, '0/0')::bigint FROM pg_replication_slots \
         WHERE plugin = 'scry_backfill'",
    )?;
    position.store(stands.parse().context("read the slot's position")?, Ordering::Relaxed);
    pair.source.add_conf(&[format!("scry_backfill.endpoint = '{}'", platform.url())])?;
    // All read from the disk cache, not from what one of them just read.
    pair.source.restart(Shutdown::Fast)?;
    let source = pair.source.postmaster.pid().context("the source does not run")?;
    let meter = Meter::new().with(source, Part::Source);

    let debezium = Debezium::find();
    let bytes = Cell::new(0);
    let mut contenders = vec![
        Contender::new("scry-backfill, to the socket", || ours(&pair, &platform, &meter, &bytes)),
        Contender::new("pg_recvlogical, pgoutput", || pg_recvlogical(&pair, &meter)),
    ];
    if let Some(debezium) = &debezium {
        contenders.push(Contender::new("Debezium, counting", || {
            copy_slot(&pair, "debezium")?;
            let task =
                Task { source: &pair.source, slot: "debezium", snapshot_mode: "no_data", records: changes };
            let figures = meter.measure(|| debezium.run(lab, &task))?;
            drop_slot(&pair.source, "debezium")?;
            Ok(figures)
        }));
    }
    let work = Work { name: "decode", unit: "row changes", amount: changes };
    let figures = race(&work, &contenders, || Ok(()))?;
    println!("\n{} MiB of frames", bytes.get() >> 20);
    if let [ours, peer, ..] = figures.as_slice() {
        let ratio = |(ours, peer): (&Figures, &Figures)| peer.wall.as_secs_f64() / ours.wall.as_secs_f64();
        let times = median(&ours.iter().zip(peer).map(ratio).collect::<Vec<_>>());
        ensure!(times >= PROMISED, "{times:.1} times as fast as pg_recvlogical; {PROMISED:.0} is promised");
    }
    Ok(())
}

/// A platform that welcomes and counts.
fn counting_platform(position: &Arc<AtomicU64>) -> Result<ScriptedPlatform> {
    let known = Arc::clone(position);
    let complete = Arc::new(move |hello: &Hello| {
        let welcome = Welcome {
            version: version::VERSION_1,
            applied_lsn: Lsn(known.load(Ordering::Relaxed)),
            flushed_lsn: Lsn(known.load(Ordering::Relaxed)),
            copy_state: CopyState::Copied,
            generation: hello.generation,
            timeline: hello.timeline,
            copy_id: 0,
            takes_stored: false,
            shadow: "none".to_owned(),
            software: "scry_bench".to_owned(),
        };
        vec![welcome.to_frame()]
    });
    ScriptedPlatform::start(Script::Frames(complete), CONTENT_TYPE)
}

/// pgbench's tables, and the peers' publication and slot.
fn prepare(pair: &Pair) -> Result<()> {
    let made = pair.source.command("pgbench").args(["-i", "-q", "-s", "10", "postgres"]).output()?;
    ensure!(made.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&made.stderr));
    pair.sql(
        "CREATE PUBLICATION peer FOR TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history;
         SELECT pg_create_logical_replication_slot('peer', 'pgoutput')",
    )
    .map(drop)
}

/// A slot that stands where the peers' does.
fn copy_slot(pair: &Pair, name: &str) -> Result<()> {
    pair.sql(&format!("SELECT pg_copy_logical_replication_slot('peer', '{name}')")).map(drop)
}

fn write_wal(pair: &Pair, changes: u64) -> Result<()> {
    let each = (changes / CHANGES_EACH / 4).to_string();
    let bench = pair
        .source
        .command("pgbench")
        .args(["-n", "-c", "4", "-j", "2", "-t", &each, "postgres"])
        .output()?;
    ensure!(bench.status.success(), "pgbench: {}", String::from_utf8_lossy(&bench.stderr));
    Ok(())
}

fn pg_recvlogical(pair: &Pair, meter: &Meter) -> Result<Figures> {
    copy_slot(pair, "run")?;
    let end = pair.sql("SELECT pg_current_wal_lsn()")?;
    let figures = meter.measure(|| {
        let status = pair
            .source
            .command("pg_recvlogical")
            .args(["-d", "postgres", "--slot=run", "--start", "--no-loop", "-f", "/dev/null"])
            .args(["--endpos", &end])
            .args(["-o", "proto_version=3", "-o", "publication_names=peer", "-o", "binary=true"])
            .stderr(Stdio::inherit())
            .status()
            .context("start pg_recvlogical")?;
        ensure!(status.success(), "pg_recvlogical failed: {status}");
        Ok(())
    })?;
    drop_slot(&pair.source, "run")?;
    Ok(figures)
}

fn ours(pair: &Pair, platform: &ScriptedPlatform, meter: &Meter, bytes: &Cell<u64>) -> Result<Figures> {
    let before = platform.received_bytes();
    let wall = Cell::new(Duration::ZERO);
    let mut figures = meter.measure(|| {
        pair.sql("SELECT scry_backfill.resume('default')")?;
        let deadline = Instant::now() + PATIENCE;
        while platform.received_bytes() == before {
            ensure!(Instant::now() < deadline, "the worker sent nothing; {}", pair.describe_status());
            std::thread::sleep(Duration::from_millis(1));
        }
        let start = Instant::now();
        let (mut last, mut last_change) = (before, start);
        // The end is when nothing came for a second; that second does not count.
        while last_change.elapsed() < Duration::from_secs(1) {
            let now = platform.received_bytes();
            if now != last {
                (last, last_change) = (now, Instant::now());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        wall.set(last_change - start);
        bytes.set(last - before);
        Ok(())
    })?;
    figures.wall = wall.get();
    pair.sql("SELECT scry_backfill.pause('default')")?;
    let sql = "SELECT count(*) = 0 FROM pg_replication_slots WHERE plugin = 'scry_backfill' AND active";
    wait::until_true("the stream worker to stand still", PATIENCE, || Ok(pair.sql(sql)? == "t"))?;
    Ok(figures)
}
