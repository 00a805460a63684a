//! A slot was lost, and the shadow has what it had: tables are compared, few
//! rows are mended, and only what differs in many is copied again.

use super::{PATIENT, SOON, mixed_load, mixed_pair, require_words, says};
use anyhow::{Result, ensure};
use scry_testkit::{Lab, Pair, PairOptions, Shutdown, scenario, wait};
use std::time::Duration;

/// A shadow that was complete, on which many things differ by now: rows that came, went and changed,
/// all rows of one table, rows of its own, sequences, a materialized view. Its slot is gone.
fn lost(lab: &Lab, options: &str) -> Result<Pair> {
    let pair = mixed_pair(lab, &PairOptions::default())?;
    mixed_load(lab, &pair, false)?.stop()?;
    pair.sql(
        "CREATE TABLE few(id int PRIMARY KEY, v text, n serial);
         INSERT INTO few(id, v) SELECT i, md5(i::text) FROM generate_series(1, 150000) i;
         CREATE TABLE many(id int PRIMARY KEY, v text);
         INSERT INTO many SELECT i, md5(i::text) FROM generate_series(1, 120000) i;
         CREATE TABLE refers(id int PRIMARY KEY REFERENCES many);
         INSERT INTO refers SELECT i * 7 FROM generate_series(1, 1000) i;
         CREATE TABLE same AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i;
         ALTER TABLE same REPLICA IDENTITY FULL;
         CREATE MATERIALIZED VIEW total AS SELECT count(*), max(v) FROM few",
    )?;
    pair.start_job_with("*", options)?;
    pair.wait_for_shadow(PATIENT)?;
    pair.sql("SELECT scry_backfill.pause('default')")?;
    pair.wait_status("the pause", SOON, |row| says(row, "paused"))?;
    pair.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")?;
    pair.sql(
        "UPDATE few SET v = 'other' WHERE id % 1000 = 0; DELETE FROM few WHERE id % 1000 = 1;
         INSERT INTO few(id, v) SELECT i, 'new' FROM generate_series(200001, 200100) i;
         UPDATE many SET v = 'other ' || id; UPDATE account SET balance = balance + 1;
         REFRESH MATERIALIZED VIEW total",
    )?;
    let mut shadow = pair.shadow_client()?;
    shadow.batch_execute("INSERT INTO few(id, v) VALUES (-1, 'by hand'); DELETE FROM few WHERE id = 77")?;
    Ok(pair)
}

/// The shadow is the source's twin, and follows.
fn is_twin(pair: &Pair) -> Result<()> {
    pair.wait_for_shadow(PATIENT)?;
    pair.sql("INSERT INTO few(id, v) VALUES (300000, 'after'); DELETE FROM same WHERE i = 5")?;
    pair.assert_equal()?;
    let differs = "SELECT string_agg(concat_ws(' ', table_name, verdict, remark), '; ') \
                   FROM scry_backfill.verify() WHERE verdict <> 'equal'";
    let differs = pair.sql(differs)?;
    ensure!(differs.is_empty(), "{differs}");
    let view = "SELECT * FROM total";
    let there: (i64, String) = {
        let row = pair.shadow_client()?.query_one(view, &[])?;
        (row.get(0), row.get(1))
    };
    ensure!(pair.sql(view)? == format!("{}|{}", there.0, there.1), "the materialized view has {there:?}");
    let next: i64 = pair.shadow_client()?.query_one("SELECT nextval('few_n_seq')", &[])?.get(0);
    let used: i64 = pair.sql("SELECT max(n) FROM few")?.parse()?;
    ensure!(next > used, "the sequence is at {next}, {used} is used");
    Ok(())
}

const FOUND: &str =
    "SELECT message FROM scry_backfill.events WHERE message LIKE 'copied % tables%' ORDER BY at DESC LIMIT 1";

#[test]
fn what_a_lost_slot_left_is_compared_and_mended() {
    scenario("former", |lab| {
        let pair = lost(lab, "")?;
        pair.sql("SELECT scry_backfill.resume()")?;
        is_twin(&pair)?;
        // All of them but the one in which every row differs.
        let tables: u32 = pair.sql("SELECT count(*) FROM scry_backfill.tables")?.parse()?;
        let found = format!("copied 1 tables; {} were on the shadow already", tables - 1);
        require_words(&pair.sql(FOUND)?, &[found.as_str(), "2 of them mended"])?;
        pair.assert_source_unharmed()
    });
}

/// Limits hold while tables are compared; a kill in the middle costs what was not settled.
#[test]
fn kills_while_tables_are_compared_end_equal() {
    scenario("former_killed", |lab| {
        let mut pair = lost(lab, "options => '{\"max_rows_per_second\": 60000}'")?;
        pair.sql("SELECT scry_backfill.resume()")?;
        let settled = "SELECT count(*) FROM scry_shadow.chunk";
        let at_work = |pair: &Pair| -> Result<bool> {
            let Ok(mut shadow) = pair.shadow_client() else { return Ok(false) };
            let former: i64 = shadow.query_one("SELECT count(*) FROM scry_shadow.former", &[])?.get(0);
            Ok(former > 0 && shadow.query_one(settled, &[])?.get::<_, i64>(0) > 0)
        };
        wait::until_true("a table to be settled", PATIENT, || at_work(&pair))?;
        pair.platform.program.kill()?;
        std::thread::sleep(Duration::from_millis(300));
        pair.platform.start()?;
        wait::until_true("the comparing to go on", PATIENT, || at_work(&pair))?;
        pair.source.stop(Shutdown::Immediate)?;
        pair.source.start()?;
        is_twin(&pair)?;
        require_words(&pair.sql(FOUND)?, &["were on the shadow already"])
    });
}

#[test]
fn another_schema_is_copied_anew() {
    scenario("former_schema", |lab| {
        let pair = lost(lab, "")?;
        pair.sql("ALTER TABLE few ADD COLUMN more int DEFAULT 7; SELECT scry_backfill.resume()")?;
        is_twin(&pair)?;
        ensure!(!pair.sql(FOUND)?.contains("already"), "{}", pair.sql(FOUND)?);
        pair.assert_source_unharmed()
    });
}
