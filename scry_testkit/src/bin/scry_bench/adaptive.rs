//! pgbench beside a copy: alone, with `scry_backfill.adaptive` on, and off.
//! What a copy that gives way costs in time, and saves production in latency.
//!
//! Platform and shadow run on the same machine here and take their share of it
//! in both cases. `BENCH_SECONDS` (30), `BENCH_SCALE` (20) and `BENCH_ROWS`
//! (4,000,000, the table that is copied) make it smaller for a trial.

use crate::latency::Run;
use crate::setting;
use anyhow::{Context, Result, ensure};
use scry_testkit::{Lab, Pair, PairOptions};
use std::time::Duration;

/// Share of what the machine can do that production takes.
const SHARE: f64 = 0.6;

pub fn run(lab: &Lab) -> Result<()> {
    let seconds = setting("BENCH_SECONDS", 30);
    let scale = setting("BENCH_SCALE", 20).to_string();
    let rows = setting("BENCH_ROWS", 4_000_000);
    let mut pair = Pair::start(lab, &PairOptions::default())?;
    let made = pair.source.command("pgbench").args(["-i", "-q", "-s", &scale, "postgres"]).output()?;
    ensure!(made.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&made.stderr));
    pair.sql(&format!(
        "CREATE TABLE large(id int PRIMARY KEY, t text);
         INSERT INTO large SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, {rows}) i; CHECKPOINT"
    ))?;

    let most = Run::start(lab, &pair, "most", 10.min(seconds), None)?.finish()?;
    let rate = most.per_second * SHARE;
    println!("at most {:.0} transactions/s; fixed at {rate:.0}/s\n", most.per_second);
    println!(
        "{:26}  {:>8}  {:>8}  {:>8}  {:>8}  {:>9}  {:>8}",
        "", "tx/s", "avg ms", "p50 ms", "p95 ms", "p99 ms", "max ms"
    );
    Run::start(lab, &pair, "alone", seconds, Some(rate))?.finish()?.print("without a copy");
    let mut copied = Vec::new();
    for adaptive in ["on", "off"] {
        pair.source.add_conf(&[format!("scry_backfill.adaptive = {adaptive}")])?;
        pair.source.reload()?;
        let pgbench = Run::start(lab, &pair, adaptive, seconds, Some(rate))?;
        std::thread::sleep(Duration::from_secs(1));
        pair.start_job_with("large", &format!("job => '{adaptive}'"))?;
        let figures = pgbench.finish()?;
        let sql = format!("SELECT bytes_copied FROM scry_backfill.status WHERE job = '{adaptive}'");
        let bytes: u64 = pair.sql(&sql)?.parse().context("read bytes_copied")?;
        figures.print(&format!("copying, adaptive = {adaptive}"));
        copied.push(format!("adaptive = {adaptive}: {} MB", bytes / 1_000_000));
        pair.sql(&format!("SELECT scry_backfill.stop('{adaptive}')"))?;
    }
    println!("\ncopied in that time: {}", copied.join(", "));
    Ok(())
}
