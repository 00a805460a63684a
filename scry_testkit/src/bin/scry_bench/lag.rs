//! How long after its commit a transaction can be read on the shadow, and what the source still
//! does at full speed meanwhile; beside PostgreSQL's own subscription.
//!
//! ```text
//!   pgbench, 400 transactions/s ─┐
//!   a probe, 100 inserts/s      ─┴► source ─► shadow ◄─ a reader: the newest probe
//!          └─ commit returns: t0                         └─ it is there: t1
//! ```
//!
//! The third line is the subscription again, with two processes on its way that only pass bytes on: what
//! a way of four processes takes at least.
//!
//! The reader looks every fifth of a millisecond, on both sides of the comparison. Here the source
//! commits with `synchronous_commit = on`: WAL that is not flushed nobody may decode. `BENCH_SECONDS`
//! (20) is the time of a run, `BENCH_ROUNDS` (3) how many there are.

use crate::clusters::{Bench, PATIENCE, pgbench};
use crate::race::{at, spread};
use crate::setting;
use anyhow::{Context, Result, anyhow, ensure};
use scry_testkit::{Client, Lab};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Transactions a second beside the probe.
const BACKGROUND: &str = "400";
/// From one probe to the next.
const PROBE: Duration = Duration::from_millis(10);
/// Backend, worker, sender, platform, shadow.
const OUR_WAKEUPS: u32 = 4;
/// Backend, walsender, apply worker.
const PEERS_WAKEUPS: u32 = 2;
/// How many are measured.
const WAKEUPS: u32 = 300;
/// From one look to the next.
const LOOK: Duration = Duration::from_micros(200);

/// Commit on the source to visible on the shadow, at 500 transactions a second.
pub fn run(lab: &Lab, bench: &Bench) -> Result<()> {
    let seconds = setting("BENCH_SECONDS", 20);
    bench.begin()?;
    println!(
        "{:30}  {:>8}  {:>8}  {:>8}  {:>8}  {:>8}",
        "commit to visible, ms", "min", "median", "p95", "p99", "max"
    );
    let mut ratios = Vec::new();
    for round in 0..setting("BENCH_ROUNDS", 3) {
        let ours = || -> Result<Vec<f64>> {
            bench.only_ours()?;
            let lags = measure(bench, &mut bench.pair.shadow_client()?, seconds)?;
            print("scry-backfill", &lags);
            Ok(lags)
        };
        let peer = || -> Result<Vec<f64>> {
            bench.only_peer()?;
            let lags = measure(bench, &mut bench.peer.client("postgres")?, seconds)?;
            print("PostgreSQL's own subscription", &lags);
            Ok(lags)
        };
        let (ours, peer) = if round % 2 == 0 {
            (ours()?, peer()?)
        } else {
            let peer = peer()?;
            (ours()?, peer)
        };
        let relayed = bench.peer_through_relays(lab, || {
            let lags = measure(bench, &mut bench.peer.client("postgres")?, seconds)?;
            print("the same through two relays", &lags);
            Ok(lags)
        })?;
        let ratio = |of: &[f64], place| at(of, place) / at(&ours, place);
        ratios.push([ratio(&peer, 0.5), ratio(&peer, 0.99), ratio(&relayed, 0.5), ratio(&relayed, 0.99)]);
    }
    bench.both()?;
    bench.compare()?;
    println!("\nover ours, min / median / max:");
    let names =
        ["the peer's median", "its 99th percentile", "its median through relays", "its 99th percentile so"];
    for (place, name) in names.into_iter().enumerate() {
        let of = ratios.iter().filter_map(|round| round.get(place).copied());
        println!("{name:30}  {}", spread(of.collect()));
    }
    println!(
        "\none of this machine's wake-ups, from a write to whoever waits for it, median: {:.3} ms; on our way \
         there are {OUR_WAKEUPS} of them, on a subscription's {PEERS_WAKEUPS}",
        wakeup()?
    );
    Ok(())
}

/// What it takes from a write into a socket until somebody who waits there runs, in milliseconds.
fn wakeup() -> Result<f64> {
    let (mut here, mut there) = UnixStream::pair()?;
    let waiter = std::thread::spawn(move || -> std::io::Result<Vec<Instant>> {
        let mut seen = Vec::new();
        let mut byte = [0];
        while there.read(&mut byte)? > 0 {
            seen.push(Instant::now());
        }
        Ok(seen)
    });
    let mut sent = Vec::new();
    for _ in 0..WAKEUPS {
        std::thread::sleep(PROBE);
        sent.push(Instant::now());
        here.write_all(&[0])?;
    }
    drop(here);
    let seen = waiter.join().map_err(|_| anyhow!("the waiter failed"))??;
    let mut took: Vec<f64> =
        sent.iter().zip(&seen).map(|(sent, seen)| (*seen - *sent).as_secs_f64() * 1000.0).collect();
    took.sort_by(f64::total_cmp);
    Ok(at(&took, 0.5))
}

/// What pgbench reaches at full speed while each of them follows, and how long that takes then to end.
pub fn throughput(bench: &Bench) -> Result<()> {
    let seconds = setting("BENCH_SECONDS", 20);
    bench.begin()?;
    println!("{:30}  {:>8}  {:>14}", "pgbench at full speed", "tx/s", "behind after, s");
    let mut ratios = Vec::new();
    for round in 0..setting("BENCH_ROUNDS", 3) {
        let run = |name: &str, caught_up: &dyn Fn() -> Result<()>| -> Result<f64> {
            let done = pgbench(&bench.pair, &["-c", "4", "-j", "2", "-T", &seconds.to_string()])?;
            let start = Instant::now();
            caught_up()?;
            println!("{name:30}  {done:>8.0}  {:>14.2}", start.elapsed().as_secs_f64());
            Ok(done)
        };
        let ours = || {
            bench.only_ours()?;
            run("scry-backfill", &|| bench.pair.wait_for_shadow(PATIENCE))
        };
        let peer = || {
            bench.only_peer()?;
            run("PostgreSQL's own subscription", &|| bench.wait_for_peer())
        };
        let (ours, peer) = if round % 2 == 0 {
            (ours()?, peer()?)
        } else {
            let peer = peer()?;
            (ours()?, peer)
        };
        ratios.push(ours / peer);
    }
    bench.both()?;
    bench.compare()?;
    println!("\nour transactions a second over the peer's, min / median / max: {}", spread(ratios));
    Ok(())
}

/// Milliseconds of each probe, sorted.
fn measure(bench: &Bench, shadow: &mut Client, seconds: u64) -> Result<Vec<f64>> {
    let mut source = bench.pair.source_client()?;
    let first = 1 + newest(&mut source)?;
    let count = seconds * 1000 / PROBE.as_millis() as u64;
    let over = AtomicBool::new(false);
    let (sent, seen) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let time = (seconds + 2).to_string();
            pgbench(&bench.pair, &["-c", "4", "-j", "2", "-R", BACKGROUND, "-T", &time])
        });
        let reader = scope.spawn(|| look(shadow, first, count as usize, &over));
        std::thread::sleep(Duration::from_secs(1));
        let sent = probe(&mut source, first, count);
        if sent.is_err() {
            over.store(true, Ordering::Relaxed);
        }
        let seen = reader.join().map_err(|_| anyhow!("the reader failed"))?;
        load.join().map_err(|_| anyhow!("pgbench failed"))??;
        Ok::<_, anyhow::Error>((sent?, seen?))
    })?;
    ensure!(sent.len() == seen.len(), "{} probes were sent, {} seen", sent.len(), seen.len());
    let mut lags: Vec<f64> = sent
        .iter()
        .zip(&seen)
        .map(|(sent, seen)| seen.saturating_duration_since(*sent).as_secs_f64() * 1000.0)
        .collect();
    lags.sort_by(f64::total_cmp);
    Ok(lags)
}

/// Inserts probes at their rate. When each had been committed.
fn probe(source: &mut Client, first: i32, count: u64) -> Result<Vec<Instant>> {
    let insert = source.prepare("INSERT INTO probe VALUES ($1)")?;
    let begin = Instant::now();
    let mut sent = Vec::new();
    for (i, id) in (0..count).zip(first..) {
        let due = begin + PROBE * u32::try_from(i)?;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        source.execute(&insert, &[&id])?;
        sent.push(Instant::now());
    }
    Ok(sent)
}

/// When each probe could be read.
fn look(shadow: &mut Client, first: i32, count: usize, over: &AtomicBool) -> Result<Vec<Instant>> {
    // From the end of its index on both sides, whatever each knew of the table when it planned this.
    shadow.batch_execute("SET enable_seqscan = off; SET enable_sort = off; SET enable_bitmapscan = off")?;
    let query = shadow.prepare("SELECT id FROM public.probe ORDER BY id DESC LIMIT 1")?;
    let mut seen = Vec::new();
    let end = Instant::now() + PATIENCE;
    while seen.len() < count && !over.load(Ordering::Relaxed) {
        ensure!(Instant::now() < end, "{} of {count} probes were seen", seen.len());
        let newest: i32 = shadow.query_opt(&query, &[])?.map_or(0, |row| row.get(0));
        let there = usize::try_from(newest - first + 1).unwrap_or(0);
        seen.resize(there.max(seen.len()), Instant::now());
        std::thread::sleep(LOOK);
    }
    Ok(seen)
}

fn newest(source: &mut Client) -> Result<i32> {
    let row = source.query_one("SELECT coalesce(max(id), 0) FROM probe", &[]).context("read the probes")?;
    Ok(row.get(0))
}

fn print(name: &str, lags: &[f64]) {
    println!(
        "{name:30}  {:>8.2}  {:>8.2}  {:>8.2}  {:>8.2}  {:>8.2}",
        at(lags, 0.0),
        at(lags, 0.5),
        at(lags, 0.95),
        at(lags, 0.99),
        at(lags, 1.0)
    );
}
