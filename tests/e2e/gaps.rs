//! Never a silent gap: slots that are dropped or made again by hand are seen and told, and end in a new
//! start and the same content; prepared transactions and the wraparound of xids cost nothing.

use super::{PATIENT, SOON, mixed_pair, require_words, says};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Pair, PairOptions, Shutdown, scenario, wait};

const SLOT: &str = "SELECT slot_name FROM pg_replication_slots";

/// The newest event with these words.
fn event(pair: &Pair, words: &str) -> Result<String> {
    let sql = format!("SELECT message FROM scry_backfill.events WHERE message LIKE '%{words}%' LIMIT 1");
    pair.sql(&sql)
}

fn pause(pair: &Pair) -> Result<()> {
    pair.sql("SELECT scry_backfill.pause('default')")?;
    pair.wait_status("the pause", SOON, |row| says(row, "paused"))?;
    wait::until_true("the slot to be let go", SOON, || {
        Ok(pair.sql("SELECT count(*) FROM pg_replication_slots WHERE active")? == "0")
    })
}

#[test]
fn a_slot_that_is_dropped_or_made_again_by_hand_is_no_gap() {
    scenario("slot_by_hand", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;

        pause(&pair)?;
        pair.sql(&format!("SELECT pg_drop_replication_slot(slot_name) FROM ({SLOT}) s"))?;
        pair.sql(
            "UPDATE account SET owner = 'unheard' WHERE id % 7 = 0; DELETE FROM document WHERE id % 5 = 0",
        )?;
        pair.sql("SELECT scry_backfill.resume('default')")?;
        pair.assert_equal()?;
        require_words(&event(&pair, "slot is gone")?, &["changes since then are unknown"])?;

        pause(&pair)?;
        let name = pair.sql(SLOT)?;
        pair.sql(&format!("SELECT pg_drop_replication_slot('{name}')"))?;
        pair.sql("UPDATE account SET owner = 'unheard again' WHERE id % 11 = 0")?;
        // Its decoder would begin here, and nobody would miss what lies between.
        pair.sql(&format!(
            "DO $$ BEGIN IF current_setting('output_plugin_libraries', true) IS NOT NULL THEN
                 PERFORM set_config('output_plugin_libraries', 'scry_backfill', false); END IF; END $$;
             SELECT pg_create_logical_replication_slot('{name}', 'scry_backfill')"
        ))?;
        pair.sql("SELECT scry_backfill.resume('default')")?;
        pair.assert_equal()?;
        require_words(&event(&pair, "before the position")?, &["confirmed"])?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_prepared_transaction_that_holds_the_slot_up_is_named() {
    scenario("prepared_before_start", |lab| {
        let source_conf = vec!["max_prepared_transactions = 2".to_owned()];
        let pair = mixed_pair(lab, &PairOptions { source_conf, ..PairOptions::default() })?;
        pair.sql("BEGIN; INSERT INTO staging(v) VALUES (1); PREPARE TRANSACTION 'left behind'")?;
        pair.start_job("*")?;
        pair.wait_status("the gid in the status", SOON, |row| says(row, "left behind"))?;
        // It can be called off meanwhile, and leaves nothing.
        pair.sql("SELECT scry_backfill.stop('default')")?;
        ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0", "a slot was left behind");
        pair.start_job("*")?;
        pair.sql("COMMIT PREPARED 'left behind'")?;
        pair.assert_equal()
    });
}

#[test]
fn xids_beyond_the_wraparound_arrive() {
    scenario("xid_wraparound", |lab| {
        let mut pair = mixed_pair(lab, &PairOptions::default())?;
        // It ages with the others, and is left out of a vacuum of all.
        pair.source
            .psql("postgres", "UPDATE pg_database SET datallowconn = true WHERE datname = 'template0'")?;
        // In three jumps with a freeze between, as nobody could write that many transactions.
        for next in ["1500000000", "3000000000", "4294960000"] {
            pair.source.stop(Shutdown::Fast)?;
            let moved = pair
                .source
                .command("pg_resetwal")
                .args(["-x", next, "-D"])
                .arg(&pair.source.data_dir)
                .status()
                .context("run pg_resetwal")?;
            ensure!(moved.success(), "pg_resetwal failed");
            fill_commit_log(lab, &pair, next)?;
            pair.source.start()?;
            let frozen =
                pair.source.command("vacuumdb").args(["-a", "-F", "-q"]).status().context("run vacuumdb")?;
            ensure!(frozen.success(), "vacuumdb failed");
        }
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql(
            "CREATE PROCEDURE many() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..10000 LOOP
                 UPDATE account SET balance = balance + 1 WHERE id = 1 + i % 2000; COMMIT; END LOOP; END $$;
             CALL many()",
        )?;
        let epoch = pair.sql("SELECT pg_current_xact_id()::text::numeric > 4294967296")?;
        ensure!(epoch == "t", "the transactions did not reach the wraparound");
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

/// The page of pg_xact that the next xid stands in must be there: a server makes it only when it comes to
/// the page's first xid.
fn fill_commit_log(lab: &scry_testkit::Lab, pair: &Pair, next: &str) -> Result<()> {
    let xid: u64 = next.parse().context("read the xid")?;
    let segment = xid / (32 * 8192 * 4);
    let file = pair.source.data_dir.join("pg_xact").join(format!("{segment:04X}"));
    if !file.exists() {
        lab.user.write_file(&file, &vec![0; 256 << 10], 0o600)?;
    }
    Ok(())
}
