//! Jobs: several at once, in several databases; paused, resumed, stopped; what
//! the views say.

use super::{PATIENT, SOON, error_of, mixed_load, mixed_pair, require_words, says};
use anyhow::{Context, ensure};
use scry_testkit::content::{self, TableName};
use scry_testkit::{Pair, PairOptions, SenderMode, scenario, wait};
use std::time::Duration;

#[test]
fn several_jobs_in_several_databases() {
    scenario("several_jobs", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE a(id int PRIMARY KEY); CREATE TABLE b(id int PRIMARY KEY); CREATE DATABASE other",
        )?;
        pair.start_job("a")?;
        pair.start_job_with("b", "job => 'second'")?;
        pair.source.psql(
            "other",
            "CREATE TABLE c(id int PRIMARY KEY); INSERT INTO c SELECT generate_series(1, 1000);
             CREATE EXTENSION scry_backfill; SELECT scry_backfill.start('c')",
        )?;
        pair.sql(
            "INSERT INTO a SELECT generate_series(1, 1000); INSERT INTO b SELECT generate_series(1, 2000)",
        )?;
        pair.wait_for_shadow(PATIENT)?;
        pair.wait_for_shadow_of("second", PATIENT)?;
        ensure!(pair.source.psql("other", "SELECT scry_backfill.wait_for_shadow('default', '60s')")? == "t");
        pair.compare(&[TableName::new("a")])?.require_equal()?;
        let mut shadow = pair.platform.shadow_client(Some("shadow_postgres_second"))?;
        content::compare(&mut pair.source_client()?, &mut shadow, &[TableName::new("b")])?.require_equal()?;
        let mut shadow = pair.platform.shadow_client(Some("shadow_other_default"))?;
        content::compare(&mut pair.source.client("other")?, &mut shadow, &[TableName::new("c")])?
            .require_equal()?;
        ensure!(pair.status()?.len() >= 2, "status shows {:?}", pair.status()?);
        Ok(())
    });
}

#[test]
fn paused_jobs_keep_their_place() {
    scenario("pause", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("SELECT scry_backfill.pause('default')")?;
        pair.wait_status("the pause", SOON, |row| says(row, "paused"))?;
        pair.sql("UPDATE account SET balance = balance + 1")?;
        // Waiting for a paused job would be for ever: it is an error with the way out.
        let waited = error_of(&pair, "SELECT scry_backfill.wait_for_shadow('default', '2s')")?;
        require_words(&waited, &["paused", "scry_backfill.resume"])?;
        pair.sql("SELECT scry_backfill.resume('default')")?;
        pair.assert_equal()
    });
}

#[test]
fn stop_drops_the_slot_and_a_new_start_copies_again() {
    scenario("stop", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("SELECT scry_backfill.stop('default')")?;
        wait::until_true("the slot to be dropped", SOON, || {
            Ok(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0")
        })?;
        pair.sql("DELETE FROM document WHERE id % 2 = 0; UPDATE account SET owner = 'x' WHERE id < 5")?;
        pair.start_job("*")?;
        pair.assert_equal()
    });
}

#[test]
fn the_view_names_the_transaction_that_the_slot_waits_for() {
    scenario("slot_waits", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        let mut open = pair.source_client()?;
        let mut transaction = open.transaction()?;
        transaction.batch_execute("INSERT INTO staging(v) VALUES (1)")?;
        let pid: i32 = transaction.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        pair.start_job("*")?;
        pair.wait_status("the blocker's pid in the status", SOON, |row| says(row, &pid.to_string()))?;
        transaction.commit()?;
        pair.assert_equal()
    });
}

#[test]
fn drop_database_is_possible_after_stop() {
    scenario("drop_database", |lab| {
        let mut pair = Pair::start(lab, &PairOptions::default())?;
        pair.source.psql("postgres", "CREATE DATABASE gone")?;
        pair.database = "gone".to_owned();
        pair.sql("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t VALUES (1)")?;
        pair.start_job("t")?;
        pair.assert_equal_tables(&[TableName::new("t")])?;
        pair.sql("SELECT scry_backfill.stop('default')")?;
        wait::until_true("DROP DATABASE to succeed", Duration::from_secs(20), || {
            pair.source.psql("postgres", "DROP DATABASE gone").map(|_| true)
        })
    });
}

#[test]
fn views_tell_tables_progress_and_events() {
    scenario("views", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let mut source = pair.source_client()?;
        for view in ["status", "progress", "tables", "events"] {
            let rows = scry_testkit::pair::rows(&mut source, &format!("SELECT * FROM scry_backfill.{view}"))?;
            eprintln!("{view}: {} rows, the first: {:?}", rows.len(), rows.first());
            ensure!(!rows.is_empty(), "{view} is empty");
        }
        let tables = scry_testkit::pair::rows(&mut source, "SELECT * FROM scry_backfill.tables")?;
        for table in ["account", "document", "entry", "staging", "whole_row"] {
            ensure!(tables.iter().any(|row| says(row, table)), "{table} is not in the view: {tables:?}");
        }
        load.stop()?;
        Ok(())
    });
}

#[test]
fn an_external_sender_does_as_well() {
    scenario("external_sender", |lab| {
        let options = PairOptions { sender: SenderMode::External, ..PairOptions::default() };
        let mut pair = mixed_pair(lab, &options)?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let sender = &mut pair.sender.as_mut().context("no external sender")?.program;
        // A clean stop has status 0, and the workers wait for the next one.
        ensure!(sender.stop()?.success(), "the sender did not stop cleanly");
        load.wait_commits(50, SOON)?;
        let sender = &mut pair.sender.as_mut().context("no external sender")?.program;
        sender.start()?;
        load.stop()?;
        pair.assert_equal()
    });
}
