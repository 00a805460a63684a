//! Histories that do not fit: a slot gone, a slot invalidated, a shadow lost.
//! Whatever happened, the job copies again by itself and says why; a gap in
//! silence would be the worst of all ends.

use super::{PATIENT, SOON, mixed_load, mixed_pair, says};
use anyhow::{Result, ensure};
use scry_testkit::{Pair, PairOptions, scenario, wait};
use std::time::Duration;

/// Pauses a job that streams, so that nobody holds its slot.
fn pause(pair: &Pair) -> Result<()> {
    pair.start_job("*")?;
    pair.wait_for_shadow(PATIENT)?;
    pair.sql("SELECT scry_backfill.pause('default')")?;
    pair.wait_status("the pause", SOON, |row| says(row, "paused"))?;
    Ok(())
}

/// Requires that the job starts over by itself, ends equal, and says why in an event.
fn starts_over(pair: &Pair, why: &str) -> Result<()> {
    let sql = format!(
        "SELECT count(*) > 0 FROM scry_backfill.events WHERE level = 'warning' AND message LIKE '%{why}%'"
    );
    wait::until("the event", PATIENT, || Ok((pair.sql(&sql)? == "t").then_some(())))?;
    pair.wait_for_shadow(PATIENT)?;
    pair.assert_equal()
}

#[test]
fn a_slot_dropped_by_hand_is_a_new_copy() {
    scenario("slot_dropped", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        mixed_load(lab, &pair, false)?.stop()?;
        pause(&pair)?;
        pair.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")?;
        // These would be missing.
        pair.sql("UPDATE account SET balance = balance + 1")?;
        pair.sql("SELECT scry_backfill.resume('default')")?;
        starts_over(&pair, "the replication slot is gone")
    });
}

#[test]
fn a_slot_that_the_server_invalidated_is_a_new_copy() {
    scenario("slot_invalidated", |lab| {
        let options = PairOptions {
            source_conf: vec!["max_slot_wal_keep_size = '1MB'".into(), "min_wal_size = '32MB'".into()],
            ..PairOptions::default()
        };
        let pair = mixed_pair(lab, &options)?;
        mixed_load(lab, &pair, false)?.stop()?;
        pause(&pair)?;
        let invalid = "SELECT count(*) FROM pg_replication_slots WHERE wal_status = 'lost'";
        wait::until("the slot to be invalidated", PATIENT, || {
            pair.sql("UPDATE account SET balance = balance + 1")?;
            pair.source.psql("postgres", "SELECT pg_switch_wal()")?;
            pair.source.psql("postgres", "CHECKPOINT")?;
            Ok((pair.sql(invalid)? == "1").then_some(()))
        })?;
        pair.sql("SELECT scry_backfill.resume('default')")?;
        starts_over(&pair, "the replication slot was invalidated")
    });
}

#[test]
fn a_shadow_that_was_lost_is_a_new_copy() {
    scenario("shadow_lost", |lab| {
        let mut pair = mixed_pair(lab, &PairOptions::default())?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.platform.program.stop()?;
        for entry in std::fs::read_dir(&pair.platform.data_dir)? {
            let path = entry?.path();
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        pair.platform.start()?;
        std::thread::sleep(Duration::from_secs(1));
        load.stop()?;
        starts_over(&pair, "its history is another one")?;
        ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "1", "one slot is left");
        pair.assert_source_unharmed()
    });
}
