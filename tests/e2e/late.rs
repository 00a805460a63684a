//! Tables that join a running job, leave it, or are copied again: while the
//! stream goes on, with writers and long transactions across the moment
//! (delivery contract, rule 6).

use super::{PATIENT, SOON, error_of, mixed_load, mixed_pair, require_words, says, worker_pid};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use scry_testkit::content::TableName;
use scry_testkit::load::{Load, LoadOptions, Outcome, Workload};
use scry_testkit::program::signal_pid;
use scry_testkit::rng::Rng;
use scry_testkit::{Lab, Pair, PairOptions, Shutdown, scenario, wait};
use std::time::Duration;

/// Rows of the table that is copied late.
const BULK_ROWS: i32 = 60_000;

/// The mixed workload's tables and a larger one, `bulk`, which is written to as well.
fn pair_with_bulk(lab: &Lab) -> Result<Pair> {
    let pair = mixed_pair(lab, &PairOptions::default())?;
    pair.sql(&format!(
        "CREATE TABLE bulk(id int PRIMARY KEY, t text, n int NOT NULL DEFAULT 0);
         INSERT INTO bulk SELECT i, md5(i::text) FROM generate_series(1, {BULK_ROWS}) i"
    ))?;
    Ok(pair)
}

/// Every kind of change to `bulk`, several in a transaction.
#[derive(Debug, Clone)]
struct Bulk {
    next: i32,
}

impl Workload for Bulk {
    fn transaction(
        &mut self,
        client: &mut postgres::Client,
        rng: &mut Rng,
    ) -> Result<Outcome, postgres::Error> {
        let mut tx = client.transaction()?;
        for _ in 0..=rng.below(4) {
            let id = i32::try_from(rng.between(1, i64::from(BULK_ROWS) + 500)).unwrap_or(1);
            match rng.below(5) {
                0 => {
                    self.next += 10;
                    tx.execute("INSERT INTO bulk VALUES ($1, 'new')", &[&self.next])?;
                }
                1 => drop(tx.execute("DELETE FROM bulk WHERE id = $1", &[&id])?),
                2 => {
                    // A key that moves, to where there is none.
                    self.next += 10;
                    tx.execute("UPDATE bulk SET id = $2 WHERE id = $1", &[&id, &self.next])?;
                }
                _ => drop(tx.execute("UPDATE bulk SET n = n + 1 WHERE id BETWEEN $1 AND $1 + 3", &[&id])?),
            }
        }
        match rng.chance(15) {
            true => tx.rollback().map(|()| Outcome::RolledBack),
            false => tx.commit().map(|()| Outcome::Committed),
        }
    }
}

fn bulk_load(lab: &Lab, pair: &Pair) -> Result<Load> {
    let options = LoadOptions { seed: lab.seed, server_may_restart: true, ..LoadOptions::default() };
    let start = |number: u64| Bulk { next: 1_000_000 + i32::try_from(number).unwrap_or(0) };
    let load = Load::start(&pair.source.config(&pair.database), &options, start)?;
    load.wait_commits(20, SOON)?;
    Ok(load)
}

fn throttle(pair: &mut Pair, rows_per_second: i32) -> Result<()> {
    pair.source.add_conf(&[format!("scry_backfill.max_rows_per_second = {rows_per_second}")])?;
    pair.source.reload()
}

/// Writes over a column of a table on the shadow, beside the stream.
fn damage(pair: &Pair, table: &str, column: &str) -> Result<()> {
    let sql = format!(
        "BEGIN; LOCK TABLE public.{table} IN SHARE ROW EXCLUSIVE MODE;
         UPDATE public.{table} SET {column} = 'damaged'; COMMIT"
    );
    pair.shadow_client()?.batch_execute(&sql).with_context(|| format!("damage {table}"))
}

/// The table's line in `scry_backfill.tables` and `progress`.
fn state_of(pair: &Pair, table: &str) -> Result<(String, String)> {
    let of = |view: &str| {
        pair.sql(&format!("SELECT state FROM scry_backfill.{view} WHERE table_name = '{table}'"))
    };
    Ok((of("tables")?, of("progress")?))
}

/// Waits until some, but not all, of the table's late copy is done.
fn wait_until_copying(pair: &Pair, table: &str) -> Result<()> {
    wait::until_true(&format!("a late copy of {table}"), SOON, || {
        Ok(state_of(pair, table)? == ("copying".to_owned(), "copying".to_owned()))
    })
    .with_context(|| pair.describe_status())
}

#[test]
fn resync_mends_a_damaged_table_under_load() {
    scenario("resync", |lab| {
        let pair = pair_with_bulk(lab)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let mixed = mixed_load(lab, &pair, false)?;
        let bulk = bulk_load(lab, &pair)?;
        // A transaction that writes before the moment and ends behind it.
        let mut long = pair.source_client()?;
        long.batch_execute("BEGIN; UPDATE bulk SET t = 'long' WHERE id % 1000 = 7; INSERT INTO account VALUES (-1, 'long', 0)")?;
        damage(&pair, "account", "owner")?;
        damage(&pair, "bulk", "t")?;
        for table in ["bulk", "public.account"] {
            pair.sql(&format!("SELECT scry_backfill.resync('{table}')"))?;
        }
        std::thread::sleep(Duration::from_secs(1));
        long.batch_execute("DELETE FROM bulk WHERE id % 1000 = 8; COMMIT")?;
        mixed.wait_commits(100, SOON)?;
        pair.wait_for_shadow(PATIENT)?;
        let status = pair.wait_status("a stream that went on", SOON, |row| row["state"] == "streaming")?;
        ensure!(status["failures"] == "0", "the stream was interrupted: {status:?}");
        mixed.stop()?;
        bulk.stop()?;
        pair.assert_equal()?;
        ensure!(state_of(&pair, "bulk")? == ("following".to_owned(), "copied".to_owned()));
        let events = pair.sql("SELECT string_agg(message, '; ') FROM scry_backfill.events")?;
        require_words(&events, &["to be copied again: public.bulk", "they follow again"])?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_late_copy_survives_restarts_of_every_part() {
    scenario("late_restarts", |lab| {
        let mut pair = pair_with_bulk(lab)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let load = bulk_load(lab, &pair)?;
        for fault in 0..4 {
            damage(&pair, "bulk", "t")?;
            throttle(&mut pair, BULK_ROWS / 4)?;
            pair.sql("SELECT scry_backfill.resync('bulk')")?;
            wait_until_copying(&pair, "bulk")?;
            match fault {
                0 => {
                    pair.platform.program.kill()?;
                    pair.platform.start()?;
                }
                1 => pair.source.restart(Shutdown::Fast)?,
                2 => signal_pid(worker_pid(&pair, "stream")?, Signal::SIGTERM)?,
                _ => signal_pid(worker_pid(&pair, "leader")?, Signal::SIGTERM)?,
            }
            throttle(&mut pair, 0)?;
            load.wait_commits(30, SOON)?;
            pair.wait_for_shadow(PATIENT).with_context(|| format!("fault {fault}"))?;
            let damaged = "SELECT count(*) FROM public.bulk WHERE t = 'damaged'";
            let left: i64 = pair.shadow_client()?.query_one(damaged, &[])?.get(0);
            ensure!(left == 0, "fault {fault}: {left} damaged rows");
        }
        load.stop()?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_pause_and_a_stop_end_a_late_copy_in_order() {
    scenario("late_pause", |lab| {
        let mut pair = pair_with_bulk(lab)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        throttle(&mut pair, BULK_ROWS / 6)?;
        pair.sql("SELECT scry_backfill.resync('bulk')")?;
        wait_until_copying(&pair, "bulk")?;
        pair.sql("SELECT scry_backfill.pause()")?;
        let left = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE '%snapshot%'";
        ensure!(pair.sql(left)? == "0", "workers were left behind by pause()");
        pair.sql("SELECT scry_backfill.resume()")?;
        wait_until_copying(&pair, "bulk")?;
        throttle(&mut pair, 0)?;
        pair.assert_equal()?;
        throttle(&mut pair, BULK_ROWS / 6)?;
        pair.sql("SELECT scry_backfill.resync('bulk')")?;
        wait_until_copying(&pair, "bulk")?;
        pair.sql("SELECT scry_backfill.stop()")?;
        ensure!(pair.sql(left)? == "0", "workers were left behind by stop()");
        pair.assert_source_unharmed()
    });
}

#[test]
fn refuses_what_it_cannot_do() {
    scenario("late_refusals", |lab| {
        let pair = pair_with_bulk(lab)?;
        pair.sql(
            "CREATE TABLE keyless(a int); CREATE ROLE guest; GRANT USAGE ON SCHEMA scry_backfill TO guest",
        )
        .ok();
        pair.sql("CREATE EXTENSION scry_backfill")?;
        require_words(
            &error_of(&pair, "SELECT scry_backfill.resync('bulk')")?,
            &["job \"default\" does not exist"],
        )?;
        pair.start_job("bulk,account")?;
        pair.wait_for_shadow(PATIENT)?;
        for (call, words) in [
            (
                "add_table('bulk')",
                &["bulk is part of job \"default\" already", "scry_backfill.resync('bulk', 'default')"][..],
            ),
            ("add_table('blk')", &["blk", "bulk"]),
            ("add_table('keyless')", &["keyless", "no key that identifies a row"]),
            ("resync('document')", &["document is not part of job \"default\"", "scry_backfill.tables"]),
            ("drop_table('document')", &["document is not part of job \"default\""]),
            (
                "drop_table('bulk,account')",
                &["would be left without tables", "scry_backfill.stop('default')"],
            ),
            ("resync('bulk', 'other')", &["job \"other\" does not exist"]),
        ] {
            require_words(&error_of(&pair, &format!("SELECT scry_backfill.{call}"))?, words)?;
        }
        // An order that is rolled back was never given.
        pair.sql("BEGIN; SELECT scry_backfill.resync('bulk'); ROLLBACK")?;
        pair.assert_equal_tables(&[TableName::new("bulk"), TableName::new("account")])?;
        ensure!(pair.sql("SELECT count(*) FROM scry_backfill.job_table WHERE holds > 0")? == "0");
        // Anybody may write messages into the WAL: without the generation they are nothing.
        pair.sql("SELECT pg_logical_emit_message(true, 'scry_backfill', '{\"job\": \"default\", \"generation\": 1, \"hold\": [1]}')")?;
        pair.assert_equal_tables(&[TableName::new("bulk")])?;
        pair.sql("SELECT scry_backfill.stop()")?;
        require_words(&error_of(&pair, "SELECT scry_backfill.resync('bulk')")?, &["is stopped"])?;
        ensure!(!says(&pair.status()?[0], "late"));
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_table_joins_under_load_and_leaves_again() {
    scenario("late_add_drop", |lab| {
        let pair = pair_with_bulk(lab)?;
        pair.start_job("account,entry,document")?;
        pair.wait_for_shadow(PATIENT)?;
        let mixed = mixed_load(lab, &pair, false)?;
        let bulk = bulk_load(lab, &pair)?;
        // A transaction that writes before the moment and ends behind it.
        let mut long = pair.source_client()?;
        long.batch_execute("BEGIN; UPDATE bulk SET t = 'long' WHERE id % 1000 = 7")?;
        pair.sql("SELECT scry_backfill.add_table('bulk'); SELECT scry_backfill.add_table('measure')")?;
        std::thread::sleep(Duration::from_secs(1));
        long.batch_execute("DELETE FROM bulk WHERE id % 1000 = 8; COMMIT")?;
        mixed.wait_commits(100, SOON)?;
        pair.wait_for_shadow(PATIENT)?;
        let followed =
            ["account", "entry", "document", "bulk", "measure_old", "measure_new"].map(TableName::new);
        ensure!(state_of(&pair, "bulk")? == ("following".to_owned(), "copied".to_owned()));
        mixed.stop()?;
        bulk.stop()?;
        pair.assert_equal_tables(&followed)?;

        pair.sql("SELECT scry_backfill.drop_table('bulk'); INSERT INTO bulk VALUES (-5, 'not followed')")?;
        pair.wait_for_shadow(PATIENT)?;
        let there = "SELECT to_regclass('public.bulk') IS NOT NULL";
        let there: bool = pair.shadow_client()?.query_one(there, &[])?.get(0);
        ensure!(!there, "a table that left the job is still on the shadow");
        ensure!(state_of(&pair, "bulk")?.0 == "excluded");
        // It comes back, with what it has become.
        pair.sql("ALTER TABLE bulk ADD more text DEFAULT 'more'; SELECT scry_backfill.add_table('bulk')")?;
        pair.assert_equal_tables(&followed)?;
        pair.assert_source_unharmed()
    });
}

/// A job's globs mean the table; what was taken out stays out over a restart.
#[test]
fn a_table_taken_out_of_a_glob_stays_out() {
    scenario("late_excluded", |lab| {
        let mut pair = pair_with_bulk(lab)?;
        pair.start_job("public.*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("SELECT scry_backfill.drop_table('bulk'); UPDATE bulk SET n = 1")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.source.restart(Shutdown::Fast)?;
        pair.sql(
            "UPDATE bulk SET n = 2; CREATE TABLE later(id int PRIMARY KEY); INSERT INTO later VALUES (1)",
        )?;
        pair.wait_for_shadow(PATIENT)?;
        let compared = pair.compare(&[TableName::new("bulk")])?;
        ensure!(compared.0[0].shadow.is_none(), "a table that was taken out has come back");
        pair.assert_equal_tables(&["account", "later", "whole_row"].map(TableName::new))
    });
}
