//! A platform that is stopped while the source works at full speed: what pgbench still reaches, how
//! much WAL is kept, and how soon `status` names it; then the way back.
//!
//! ```text
//!   pgbench without a job ─► with a job whose platform is stopped ─► without a job
//! ```
//!
//! `BENCH_STALL` (600) seconds without a platform, half of it before and after without a job, so that
//! checkpoints weigh the same in both; `BENCH_SCALE` (20). Fails where more WAL is kept than the hard
//! bound and what one look of the guard lets through.

use crate::{clusters, setting};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Lab, Pair, PairOptions, pair};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Bounds of the WAL that a slot may keep, in megabytes.
const BOUNDS: [(&str, u64); 3] =
    [("max_wal_warning", 256), ("max_wal_critical", 1024), ("max_wal_hard", HARD_MB)];
const HARD_MB: u64 = 2048;
/// What is written from one look of the guard to the next, and a segment.
const SLACK_MB: u64 = 128;

pub fn run(lab: &Lab) -> Result<()> {
    let seconds = setting("BENCH_STALL", 600);
    let aside = (seconds / 2).max(1);
    let mut source_conf: Vec<String> =
        BOUNDS.iter().map(|(name, mb)| format!("scry_backfill.{name} = '{mb}MB'")).collect();
    source_conf
        .extend(["max_wal_size = '2GB'", "scry_backfill.wal_check_interval = '1s'"].map(str::to_owned));
    let mut pair = Pair::start(lab, &PairOptions { source_conf, ..PairOptions::default() })?;
    let scale = setting("BENCH_SCALE", 20).to_string();
    let made = pair.source.command("pgbench").args(["-i", "-q", "-s", &scale, "postgres"]).output()?;
    ensure!(made.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&made.stderr));
    pgbench(&pair, aside / 10)?;

    let before = pgbench(&pair, aside)?;
    pair.start_job_with("pgbench_*", "options => '{\"keyless\": \"inserts_only\"}'")?;
    pair.wait_for_shadow(Duration::from_secs(600))?;
    pair.platform.program.stop()?;
    let (with, seen) = std::thread::scope(|scope| {
        let load = scope.spawn(|| pgbench(&pair, seconds));
        let seen = watch(&pair, Duration::from_secs(seconds));
        Ok::<_, anyhow::Error>((load.join().map_err(|_| anyhow::anyhow!("pgbench failed"))??, seen?))
    })?;
    pair.sql("SELECT scry_backfill.stop('default')")?;
    let after = pgbench(&pair, aside)?;

    println!("pgbench, scale {scale}: {before:.0} transactions/s without a job, {after:.0} after it");
    println!("{with:.0} transactions/s while the platform was stopped for {seconds} s");
    println!("of those without a job: {:.3}", with / ((before + after) / 2.0));
    println!("WAL kept: at most {} MB of {HARD_MB} MB", seen.wal_mb);
    for (state, (after, row)) in &seen.states {
        println!(
            "{state}, first seen after {after:.1} s: {}; {}; {}",
            row["why"], row["detail"], row["hint"]
        );
    }
    ensure!(seen.wal_mb < HARD_MB + SLACK_MB, "more WAL was kept than the bound allows");

    pair.platform.start()?;
    pair.start_job_with("pgbench_*", "options => '{\"keyless\": \"inserts_only\"}'")?;
    pair.wait_for_shadow(Duration::from_secs(600))?;
    pair.assert_equal()?;
    println!("and back: source and shadow are equal");
    pair.assert_source_unharmed()
}

/// What `status` said, and the WAL that was kept.
struct Seen {
    wal_mb: u64,
    /// By state of the job and of its WAL: when it was first said, in seconds, and the row.
    states: BTreeMap<String, (f64, BTreeMap<String, String>)>,
}

fn watch(pair: &Pair, time: Duration) -> Result<Seen> {
    let mut seen = Seen { wal_mb: 0, states: BTreeMap::new() };
    let mut client = pair.source_client()?;
    let start = Instant::now();
    while start.elapsed() < time {
        let kept =
            "SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::int8 / 1048576
                    FROM pg_replication_slots";
        let kept: i64 = client.query_one(kept, &[])?.get(0);
        seen.wal_mb = seen.wal_mb.max(u64::try_from(kept).unwrap_or_default());
        let status = pair::rows(&mut client, "SELECT * FROM scry_backfill.status")?;
        let row = status.into_iter().next().context("there is no job")?;
        if !row["why"].is_empty() {
            let state = format!("state {}, WAL {}", row["state"], row["wal_state"]);
            seen.states.entry(state).or_insert_with(|| (start.elapsed().as_secs_f64(), row));
        }
        // One connection, one look a second: the load has both processors.
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(seen)
}

/// At full speed.
fn pgbench(pair: &Pair, seconds: u64) -> Result<f64> {
    clusters::pgbench(pair, &["-c", "4", "-j", "2", "-T", &seconds.to_string()])
}
