//! What `verify()` costs the source, beside `SELECT count(*)` with every
//! column touched, on pgbench's accounts.
//!
//! `source_seconds` is the time in which the source's rows were hashed; the
//! shadow hashes at the same time, on a machine of its own when it matters. The
//! peer is made to run in one process, as the hash does.
//! `BENCH_SCALE` (20) is pgbench's: 100,000 rows each.

use crate::setting;
use anyhow::{Context, Result, ensure};
use scry_testkit::{Lab, Pair, PairOptions};
use std::time::{Duration, Instant};

/// How many times the peer's time is promised at most.
const PROMISED: f64 = 1.5;
const ROUNDS: usize = 5;

pub fn run(lab: &Lab) -> Result<()> {
    let scale = setting("BENCH_SCALE", 20).to_string();
    let conf = vec!["shared_buffers = '1GB'".to_owned(), "autovacuum = off".to_owned()];
    let pair = Pair::start(lab, &PairOptions { source_conf: conf, ..PairOptions::default() })?;
    let made = pair.source.command("pgbench").args(["-i", "-q", "-s", &scale, "postgres"]).output()?;
    ensure!(made.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&made.stderr));
    pair.start_job("pgbench_accounts")?;
    pair.wait_for_shadow(Duration::from_secs(600))?;
    let mut client = pair.source_client()?;
    client.batch_execute("SET max_parallel_workers_per_gather = 0; SET jit = off")?;
    let (mut count, mut hash, mut whole) = (f64::MAX, f64::MAX, f64::MAX);
    // The best of some: others use the machine as well.
    for _ in 0..ROUNDS {
        let start = Instant::now();
        client.query_one(
            "SELECT count(*) FROM pgbench_accounts WHERE aid IS NOT NULL AND bid IS NOT NULL \
             AND abalance IS NOT NULL AND filler IS NOT NULL",
            &[],
        )?;
        count = count.min(start.elapsed().as_secs_f64());
        let row = client
            .query_one(
                "SELECT verdict, source_seconds, seconds FROM scry_backfill.verify('pgbench_accounts')",
                &[],
            )
            .context("verify")?;
        let verdict: &str = row.get(0);
        ensure!(verdict == "equal", "the verdict is {verdict}");
        hash = hash.min(row.get(1));
        whole = whole.min(row.get(2));
    }
    println!("pgbench_accounts at scale {scale}, one process, best of {ROUNDS}\n");
    println!("{:44}  {:>8.3} s", "SELECT count(*), all columns touched", count);
    println!("{:44}  {:>8.3} s", "hash on the source", hash);
    println!("{:44}  {:>8.3} s", "both sides, on this machine", whole);
    let ratio = hash / count;
    println!("\n{ratio:.2} times the count; at most {PROMISED} is promised");
    ensure!(ratio <= PROMISED, "slower than promised");
    Ok(())
}
