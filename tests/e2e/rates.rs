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

#[test]
fn a_job_has_limits_of_its_own_by_either_name() {
    scenario("rate_of_job", |lab| {
        let pair = bulk_pair(lab, &["scry_backfill.adaptive = off"])?;
        let wrong = "CREATE EXTENSION IF NOT EXISTS scry_backfill;
                     SELECT scry_backfill.start('bulk', options => '{\"rows_per_second\": \"fast\"}')";
        let refused = super::error_of(&pair, wrong)?;
        super::require_words(&refused, &["rows_per_second", "20MB"])?;
        let begun = Instant::now();
        pair.start_job_with("bulk", "options => '{\"rows_per_second\": 10000, \"burst_multiplier\": 0.5}'")?;
        pair.wait_status("the limiter to be named", SOON, |row| {
            row["limiter"] == "the job''s max_rows_per_second".replace("''", "'")
        })?;
        pair.wait_for_shadow(PATIENT)?;
        let took = begun.elapsed();
        eprintln!("copied {ROWS} rows at 10000 a second in {took:?}");
        ensure!(took > Duration::from_millis(2400), "{ROWS} rows in {took:?}");

        // Bytes: the rows have about 45 each.
        pair.sql("SELECT scry_backfill.stop()")?;
        let begun = Instant::now();
        pair.start_job_with(
            "bulk",
            "options => '{\"max_bytes_per_second\": \"400kB\", \"burst_multiplier\": 0.5}'",
        )?;
        pair.wait_for_shadow(PATIENT)?;
        let took = begun.elapsed();
        eprintln!("copied them at 400 kB a second in {took:?}");
        ensure!(took > Duration::from_millis(2000), "{ROWS} rows in {took:?}");
        pair.assert_equal()
    });
}

#[test]
fn a_reload_changes_what_runs_and_the_status_names_the_limiter() {
    scenario("rate_live", |lab| {
        let mut pair = bulk_pair(lab, &["scry_backfill.max_rows_per_second = 1000"])?;
        pair.start_job("bulk")?;
        pair.wait_status("the rate to be shown", SOON, |row| row["max_rows_per_second"] == "1000")?;
        std::thread::sleep(Duration::from_secs(2));
        ensure!(pair.status()?.iter().all(|row| row["state"] == "copying"), "{}", pair.describe_status());
        // At 1,000 a second half a minute is left.
        let begun = Instant::now();
        reload(&mut pair, "scry_backfill.max_rows_per_second = 0")?;
        pair.wait_for_shadow(PATIENT)?;
        eprintln!("free after {:?}", begun.elapsed());
        ensure!(begun.elapsed() < Duration::from_secs(15), "the reload did not reach the copy");
        pair.assert_equal()
    });
}
