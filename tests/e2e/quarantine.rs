//! Changes that the shadow refuses, with both policies, under load: told within
//! seconds, and over when the cause is (delivery contract, rule 23).

use super::{PATIENT, SOON, mixed_load, mixed_pair, worker_pid};
use anyhow::{Result, ensure};
use scry_testkit::pair::rows;
use scry_testkit::{Lab, Pair, PairOptions, scenario, wait};
use std::time::{Duration, Instant};

/// What must stand in a view stands there within this.
const TOLD: Duration = Duration::from_secs(5);

/// A pair with the mixed tables and one more, whose shadow refuses a row.
fn fussy_pair(lab: &Lab, options: &str) -> Result<Pair> {
    let pair = mixed_pair(lab, &PairOptions::default())?;
    pair.sql("CREATE TABLE fussy (id int PRIMARY KEY, v text)")?;
    pair.start_job_with("*", options)?;
    pair.wait_for_shadow(PATIENT)?;
    on_shadow(&pair, "ALTER TABLE public.fussy ADD CONSTRAINT no_13 CHECK (id <> 13)")?;
    Ok(pair)
}

fn on_shadow(pair: &Pair, sql: &str) -> Result<()> {
    Ok(pair.shadow_client()?.batch_execute(sql)?)
}

/// Identifiers of `fussy` on the shadow.
fn fussy(pair: &Pair) -> Result<String> {
    let sql = "SELECT coalesce(string_agg(id::text, ' ' ORDER BY id), '') FROM public.fussy";
    Ok(pair.shadow_client()?.query_one(sql, &[])?.get(0))
}

/// Waits until the table is in this state and returns its line of the view.
fn wait_table(pair: &Pair, state: &str) -> Result<std::collections::BTreeMap<String, String>> {
    let sql = "SELECT * FROM scry_backfill.tables WHERE table_name = 'fussy'";
    wait::until(&format!("state {state}"), TOLD, || {
        let lines = rows(&mut pair.source_client()?, sql)?;
        Ok(lines.into_iter().find(|line| line["state"] == state))
    })
}

#[test]
fn a_quarantined_table_holds_nobody_up() {
    scenario("quarantine", |lab| {
        let pair = fussy_pair(lab, "options => '{\"on_error\": \"quarantine\"}'")?;
        let load = mixed_load(lab, &pair, false)?;
        pair.sql("INSERT INTO fussy SELECT n, 'x' FROM generate_series(12, 14) AS n")?;
        let line = wait_table(&pair, "quarantined")?;
        ensure!(line["quarantined"] == "1" && line["cause"].contains("no_13"), "{line:?}");
        let status = pair.wait_status("status to name it", TOLD, |row| row["why"].contains("fussy"))?;
        ensure!(status["tables_quarantined"] == "1" && status["state"] == "streaming", "{status:?}");
        ensure!(status["why"].contains("no_13") && status["hint"].contains("resync"), "{status:?}");
        let events = "SELECT count(*) FROM scry_backfill.events WHERE level = 'warning' AND message LIKE '%fussy%no_13%'";
        ensure!(pair.sql(events)? == "1", "an event names it once");
        pair.wait_for_shadow(PATIENT)?;
        ensure!(fussy(&pair)? == "12 14", "all else is applied: {}", fussy(&pair)?);

        // It is not forgotten with the process that was told.
        pair.sql(&format!("SELECT pg_terminate_backend({})", worker_pid(&pair, "stream")?))?;
        pair.sql("UPDATE fussy SET v = 'y'")?;
        pair.wait_for_shadow(PATIENT)?;
        wait::until("the second change to be counted", TOLD, || {
            Ok((wait_table(&pair, "quarantined")?["quarantined"] == "2").then_some(()))
        })?;
        pair.wait_status("status to name it still", TOLD, |row| row["why"].contains("fussy"))?;

        on_shadow(&pair, "ALTER TABLE public.fussy DROP CONSTRAINT no_13")?;
        let verdict = "SELECT verdict FROM scry_backfill.verify('fussy', repair => true)";
        ensure!(pair.sql(verdict)? == "repaired", "one row is mended");
        wait_table(&pair, "following")?;
        pair.wait_status("status to be clean", TOLD, |row| {
            row["why"].is_empty() && row["tables_quarantined"] == "0"
        })?;
        load.stop()?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_stopped_stream_says_why_and_goes_on_when_told() {
    scenario("refused_stop", |lab| {
        let pair = fussy_pair(lab, "")?;
        let load = mixed_load(lab, &pair, false)?;
        pair.sql("INSERT INTO fussy SELECT n, 'x' FROM generate_series(12, 14) AS n")?;
        let named = |row: &std::collections::BTreeMap<String, String>| {
            row["why"].contains("\"fussy\"") && row["why"].contains("no_13")
        };
        let status = pair.wait_status("status to name table and cause", TOLD, named)?;
        ensure!(status["why"].contains("INSERT") && status["hint"].contains("resume"), "{status:?}");
        pair.sql("INSERT INTO fussy VALUES (20, 'later')")?;
        // Tried again with growing pauses, and nothing later is applied.
        let often = |row: &std::collections::BTreeMap<String, String>| {
            row["failures"].parse::<u32>().is_ok_and(|n| n >= 6)
        };
        let since = Instant::now();
        pair.wait_status("the sixth failure", PATIENT, often)?;
        ensure!(since.elapsed() > Duration::from_secs(4), "it hammers: {:?}", since.elapsed());
        ensure!(fussy(&pair)?.is_empty(), "nothing of that transaction or after it: {}", fussy(&pair)?);
        on_shadow(&pair, "ALTER TABLE public.fussy DROP CONSTRAINT no_13")?;
        pair.sql("SELECT scry_backfill.resume()")?;
        pair.wait_status("the stream", Duration::from_secs(6), |row| row["state"] == "streaming")?;
        load.stop()?;
        pair.assert_equal()?;
        ensure!(fussy(&pair)? == "12 13 14 20");
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_stopped_job_goes_on_with_another_policy() {
    scenario("refused_policy", |lab| {
        let pair = fussy_pair(lab, "")?;
        pair.sql("INSERT INTO fussy SELECT n, 'x' FROM generate_series(12, 14) AS n")?;
        pair.wait_status("the stop", TOLD, |row| row["why"].contains("no_13"))?;
        pair.sql("SELECT scry_backfill.stop('default', drop_slot => false)")?;
        let mode = "SELECT mode FROM scry_backfill.start('*', options => '{\"on_error\": \"quarantine\"}')";
        ensure!(pair.sql(mode)? == "cdc", "it goes on without a copy");
        pair.wait_for_shadow(PATIENT)?;
        ensure!(fussy(&pair)? == "12 14");
        wait_table(&pair, "quarantined")?;
        on_shadow(&pair, "ALTER TABLE public.fussy DROP CONSTRAINT no_13")?;
        pair.sql("SELECT scry_backfill.resync('fussy')")?;
        pair.wait_for_shadow(PATIENT)?;
        wait_table(&pair, "following")?;
        pair.assert_equal()
    });
}

/// A pair whose first copy does not end before the server's limit is lifted.
fn copying_pair(lab: &Lab) -> Result<Pair> {
    let pair = Pair::start(
        lab,
        &PairOptions {
            source_conf: vec!["scry_backfill.max_rows_per_second = 100".to_owned()],
            ..PairOptions::default()
        },
    )?;
    pair.sql(
        "CREATE TABLE fussy (id int PRIMARY KEY, v text); INSERT INTO fussy VALUES (1, 'old');
         CREATE TABLE first (id int PRIMARY KEY, v text); INSERT INTO first VALUES (1, 'a');
         CREATE TABLE second (id int PRIMARY KEY, v text NOT NULL); INSERT INTO second VALUES (1, 'a');
         CREATE TABLE third (id int PRIMARY KEY, v text); INSERT INTO third VALUES (1, 'a');
         CREATE TABLE bulk (id int PRIMARY KEY, v text);
         INSERT INTO bulk SELECT n, repeat('b', 200) FROM generate_series(1, 60000) AS n",
    )?;
    pair.start_job_with("*", "options => '{\"on_error\": \"quarantine\"}'")?;
    pair.wait_status("the copy", PATIENT, |row| row["state"] == "copying")?;
    Ok(pair)
}

/// What is refused of the changes that the first copy has let wait is kept like any other.
#[test]
fn changes_made_during_the_first_copy_are_kept_aside_too() {
    scenario("refused_in_copy", |lab| {
        let pair = copying_pair(lab)?;
        wait::until("the table on the shadow", PATIENT, || {
            let sql = "SELECT to_regclass('public.fussy') IS NOT NULL";
            Ok(pair.shadow_client()?.query_one(sql, &[])?.get::<_, bool>(0).then_some(()))
        })?;
        on_shadow(&pair, "ALTER TABLE public.fussy ADD CONSTRAINT no_13 CHECK (id <> 13)")?;
        pair.sql(
            "INSERT INTO fussy SELECT n, 'x' FROM generate_series(12, 14) AS n; UPDATE fussy SET v = 'y' WHERE id <> 13;
             UPDATE bulk SET v = 'changed' WHERE id % 100 = 0",
        )?;
        let status = pair.status()?;
        ensure!(status.iter().any(|row| row["state"] == "copying"), "the copy is over too soon: {status:?}");
        pair.sql("ALTER SYSTEM SET scry_backfill.max_rows_per_second = 0; SELECT pg_reload_conf()")?;
        pair.wait_for_shadow(PATIENT)?;
        let line = wait_table(&pair, "quarantined")?;
        ensure!(line["cause"].contains("no_13"), "{line:?}");
        ensure!(fussy(&pair)? == "1 12 14", "all else is applied: {}", fussy(&pair)?);
        on_shadow(&pair, "ALTER TABLE public.fussy DROP CONSTRAINT no_13")?;
        pair.sql("SELECT scry_backfill.resync('fussy')")?;
        pair.wait_for_shadow(PATIENT)?;
        wait_table(&pair, "following")?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

/// Tables that are altered before their turn in the first copy: their rows are of another shape than
/// the shadow was made with.
#[test]
fn tables_altered_during_the_first_copy_are_copied_all_the_same() {
    scenario("altered_in_copy", |lab| {
        let pair = copying_pair(lab)?;
        pair.sql(
            "ALTER TABLE fussy ADD more int DEFAULT 7; UPDATE fussy SET v = 'y';
             ALTER TABLE first RENAME v TO w; ALTER TABLE second DROP v; ALTER TABLE third RENAME TO fourth;
             INSERT INTO first VALUES (2, 'b'); INSERT INTO second VALUES (2); INSERT INTO fourth VALUES (2, 'b')",
        )?;
        pair.sql("ALTER SYSTEM SET scry_backfill.max_rows_per_second = 0; SELECT pg_reload_conf()")?;
        pair.assert_equal()?;
        scry_testkit::schema_text::require_equal(&pair)?;
        pair.assert_source_unharmed()
    });
}

/// A table that could not follow a change gives its name back when the source drops it.
#[test]
fn a_table_that_was_left_behind_goes_with_the_sources() {
    scenario("left_behind", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql("CREATE TABLE odd(a int); INSERT INTO odd VALUES (NULL), (1); CREATE TABLE other(id int PRIMARY KEY)")?;
        pair.start_job_with(
            "*",
            "options => '{\"on_error\": \"quarantine\", \"keyless\": \"inserts_only\"}'",
        )?;
        pair.wait_for_shadow(PATIENT)?;
        // Its deletes do not travel, so that the shadow has a row that the constraint forbids.
        pair.sql("DELETE FROM odd WHERE a IS NULL; ALTER TABLE odd ALTER a SET NOT NULL")?;
        wait::until_true("the table to be left out", SOON, || {
            let mut shadow = pair.shadow_client()?;
            let absent = "SELECT count(*) FROM scry_shadow.quarantined WHERE absent AND relation = 'odd'";
            Ok(shadow.query_one(absent, &[])?.get::<_, i64>(0) == 1)
        })?;
        pair.sql(
            "INSERT INTO odd VALUES (3); DROP TABLE odd; INSERT INTO other VALUES (1);
             CREATE TABLE odd(a int PRIMARY KEY, b text); INSERT INTO odd VALUES (7, 'new')",
        )?;
        pair.assert_equal()?;
        let columns: i64 = pair
            .shadow_client()?
            .query_one(
                "SELECT count(*) FROM pg_attribute WHERE attrelid = 'odd'::regclass AND attnum > 0",
                &[],
            )?
            .get(0);
        ensure!(columns == 2, "the shadow has the old table still");
        pair.assert_source_unharmed()
    });
}
