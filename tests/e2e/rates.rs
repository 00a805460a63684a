//! Rates: what is set holds, from a job's first row on, and a change of it
//! reaches what runs.

use super::{PATIENT, SOON};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Lab, Pair, PairOptions, scenario, wait};
use std::time::{Duration, Instant};

/// Rows of the table that is copied.
const ROWS: u64 = 30_000;

/// A pair with one table of `ROWS` rows.
fn bulk_pair(lab: &Lab, conf: &[&str]) -> Result<Pair> {
    let source_conf = conf.iter().map(|line| (*line).to_owned()).collect();
    let pair = Pair::start(lab, &PairOptions { source_conf, ..PairOptions::default() })?;
    pair.sql(&format!(
        "CREATE TABLE bulk(id int PRIMARY KEY, t text);
         INSERT INTO bulk SELECT i, md5(i::text) FROM generate_series(1, {ROWS}) i"
    ))?;
    Ok(pair)
}

/// Sets a line of the configuration and reloads.
fn reload(pair: &mut Pair, line: &str) -> Result<()> {
    pair.source.add_conf(&[line])?;
    pair.source.reload()
}

/// How long a copy of `bulk` takes.
fn time_of_copy(pair: &Pair) -> Result<Duration> {
    let begun = Instant::now();
    pair.start_job("bulk")?;
    pair.wait_for_shadow(PATIENT)?;
    Ok(begun.elapsed())
}

#[test]
fn a_limit_set_by_reload_holds_for_the_job_started_next() {
    scenario("rate_by_reload", |lab| {
        let mut pair = bulk_pair(lab, &["scry_backfill.burst_multiplier = 1"])?;
        reload(&mut pair, "scry_backfill.max_rows_per_second = 10000")?;
        // The launcher hears of it as any session does.
        wait::until_true("the reload", SOON, || {
            Ok(pair.sql("SHOW scry_backfill.max_rows_per_second")? == "10000")
        })?;
        let took = time_of_copy(&pair)?;
        eprintln!("copied {ROWS} rows at 10000 a second in {took:?}");
        ensure!(took > Duration::from_millis(1900), "{ROWS} rows in {took:?}: the limit did not hold");
        pair.assert_equal()
    });
}

#[test]
fn reloads_while_the_sender_starts_do_not_end_it() {
    scenario("reload_storm", |lab| {
        let mut pair = bulk_pair(lab, &[])?;
        pair.start_job("bulk")?;
        for turn in 1..=80 {
            // Each differs, so that the launcher tells the sender of each.
            reload(&mut pair, &format!("scry_backfill.max_rows_per_second = {}", 1_000_000 + turn))?;
            std::thread::sleep(Duration::from_millis(5));
        }
        pair.wait_for_shadow(PATIENT)?;
        let log = std::fs::read_to_string(pair.socket_dir.join("scry_sender.log")).context("read the log")?;
        ensure!(log.matches("scry_sender is ready").count() == 1, "the sender was started again:\n{log}");
        ensure!(log.contains("configuration reread"), "no reload arrived:\n{log}");
        pair.assert_equal()
    });
}
