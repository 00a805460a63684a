//! Decoding in the server beside `pg_recvlogical` with pgoutput, on the same
//! WAL: pgbench's transactions, written while both slots stand still.
//!
//! ```text
//!   ours    stream worker ─► scry_sender ─► a platform that counts bytes (once the
//!           real one has copied the tables)
//!   peer    walsender (pgoutput, binary) ─► pg_recvlogical -f /dev/null
//! ```
//!
//! Wall time is from the first byte to the end of the WAL; CPU time is the
//! server process's own (decoding and encoding, without the other end).
//! `BENCH_CHANGES` (1,400,000) says how many row changes the WAL holds.

use crate::setting;
use anyhow::{Context, Result, bail, ensure};
use scry_testkit::scripted::{CONTENT_TYPE, Script, ScriptedPlatform};
use scry_testkit::wire::message::{CopyState, Hello, Message, Welcome};
use scry_testkit::wire::{Lsn, version};
use scry_testkit::{Lab, Pair, PairOptions, Shutdown};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many times faster than the peer is promised.
const PROMISED: f64 = 4.0;

/// Row changes of one of pgbench's transactions.
const CHANGES_EACH: u64 = 4;

/// What one way of decoding took.
struct Figures {
    wall: Duration,
    cpu: Duration,
}

pub fn run(lab: &Lab) -> Result<()> {
    let changes = setting("BENCH_CHANGES", 1_400_000);
    // The platform says that the shadow stands where the slot does.
    let position = Arc::new(AtomicU64::new(0));
    let known = Arc::clone(&position);
    let complete = Arc::new(move |hello: &Hello| {
        let welcome = Welcome {
            version: version::VERSION_1,
            applied_lsn: Lsn(known.load(Ordering::Relaxed)),
            flushed_lsn: Lsn(known.load(Ordering::Relaxed)),
            copy_state: CopyState::Copied,
            generation: hello.generation,
            timeline: hello.timeline,
            copy_id: 0,
            shadow: "none".to_owned(),
            software: "scry_bench".to_owned(),
        };
        vec![welcome.to_frame()]
    });
    let platform = ScriptedPlatform::start(Script::Frames(complete), CONTENT_TYPE)?;
    let options = PairOptions {
        source_conf: vec!["synchronous_commit = off".to_owned(), "max_wal_size = '16GB'".to_owned()],
        ..PairOptions::default()
    };
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
    // Both read from the disk cache, not from what one of them just read.
    pair.source.restart(Shutdown::Fast)?;

    let peer = peer(&pair)?;
    let ours = ours(&pair, &platform)?;
    println!("{changes} row changes of pgbench\n");
    println!("{:34}  {:>8}  {:>8}  {:>14}", "", "wall s", "cpu s", "changes/cpu s");
    for (name, figures) in [("pg_recvlogical, pgoutput", &peer), ("scry_backfill stream worker", &ours)] {
        println!(
            "{name:34}  {:>8.2}  {:>8.2}  {:>14.0}",
            figures.wall.as_secs_f64(),
            figures.cpu.as_secs_f64(),
            changes as f64 / figures.cpu.as_secs_f64()
        );
    }
    let times = peer.wall.as_secs_f64() / ours.wall.as_secs_f64();
    println!("\n{times:.1} times as fast; at least {PROMISED:.0} is promised");
    ensure!(times >= PROMISED, "slower than promised");
    Ok(())
}

/// pgbench's tables, and the peer's publication and slot.
fn prepare(pair: &Pair) -> Result<()> {
    let made = pair.source.command("pgbench").args(["-i", "-q", "-s", "10", "postgres"]).output()?;
    ensure!(made.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&made.stderr));
    pair.sql(
        "CREATE PUBLICATION peer FOR TABLE pgbench_accounts, pgbench_branches, pgbench_tellers, pgbench_history;
         SELECT pg_create_logical_replication_slot('peer', 'pgoutput')",
    )?;
    Ok(())
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

fn peer(pair: &Pair) -> Result<Figures> {
    let end = pair.sql("SELECT pg_current_wal_lsn()")?;
    let start = Instant::now();
    let mut child = pair
        .source
        .command("pg_recvlogical")
        .args(["-d", "postgres", "--slot=peer", "--start", "--no-loop", "-f", "/dev/null", "--endpos", &end])
        .args(["-o", "proto_version=3", "-o", "publication_names=peer", "-o", "binary=true"])
        .stderr(Stdio::inherit())
        .spawn()
        .context("start pg_recvlogical")?;
    let mut cpu = Duration::ZERO;
    let status = loop {
        if let Some(status) = child.try_wait().context("wait for pg_recvlogical")? {
            break status;
        }
        let pid = pair.sql("SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'peer'")?;
        if let Ok(used) = cpu_of(&pid) {
            cpu = cpu.max(used);
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    ensure!(status.success(), "pg_recvlogical failed: {status}");
    Ok(Figures { wall: start.elapsed(), cpu })
}

fn ours(pair: &Pair, platform: &ScriptedPlatform) -> Result<Figures> {
    let before = platform.received_bytes();
    pair.sql("SELECT scry_backfill.resume('default')")?;
    let deadline = Instant::now() + Duration::from_secs(120);
    while platform.received_bytes() == before {
        ensure!(Instant::now() < deadline, "the worker sent nothing; {}", pair.describe_status());
        std::thread::sleep(Duration::from_millis(1));
    }
    let start = Instant::now();
    let pid =
        pair.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'scry_backfill stream' LIMIT 1")?;
    let (mut last, mut last_change) = (before, start);
    // The end is when nothing came for a second; that second does not count.
    while last_change.elapsed() < Duration::from_secs(1) {
        let now = platform.received_bytes();
        if now != last {
            (last, last_change) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("{} MiB of frames", (last - before) >> 20);
    Ok(Figures { wall: last_change - start, cpu: cpu_of(&pid)? })
}

/// CPU time that a process has used.
fn cpu_of(pid: &str) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // After the name in parentheses: state is the first field, utime the 12th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) else { bail!("{path} is too short") };
    let ticks: u64 = user.parse::<u64>()? + system.parse::<u64>()?;
    // Linux counts in hundredths of a second on every architecture it reports to users.
    Ok(Duration::from_millis(ticks * 10))
}
