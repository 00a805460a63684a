//! Histories that do not fit: a slot gone, a slot invalidated, a shadow lost, a
//! source restored from an older state or promoted from a standby.
//! Whatever happened, the job copies again by itself and says why; a gap in
//! silence would be the worst of all ends.

use super::{PATIENT, SOON, mixed_load, mixed_pair, says};
use anyhow::{Result, ensure};
use scry_testkit::{Lab, Pair, PairOptions, Shutdown, scenario, wait};
use std::path::{Path, PathBuf};
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

/// Requires a value in a line of the status, and in any case by an event.
fn told(pair: &Pair, why: &str) -> Result<()> {
    let sql = format!(
        "SELECT count(*) > 0 FROM scry_backfill.events WHERE level = 'warning' AND message LIKE '%{why}%'"
    );
    wait::until_true(&format!("an event that says {why:?}"), PATIENT, || Ok(pair.sql(&sql)? == "t"))
}

/// The source's data directory as it is now, slots and all; the server is stopped for it.
fn image(lab: &Lab, pair: &mut Pair, name: &str) -> Result<PathBuf> {
    let copy = lab.path(name);
    pair.source.stop(Shutdown::Fast)?;
    run(lab.user.command("cp").arg("-a").arg(&pair.source.data_dir).arg(&copy))?;
    pair.source.start()?;
    Ok(copy)
}

fn run(command: &mut std::process::Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Stops the source, puts another data directory in the place of its own, which is
/// kept aside, and starts that: as a standby, if so wanted.
fn put_in_place(pair: &mut Pair, image: &Path, standby: bool) -> Result<PathBuf> {
    pair.source.stop(Shutdown::Fast)?;
    let aside = pair.source.data_dir.with_file_name(format!("{}-before", name_of(image)));
    std::fs::rename(&pair.source.data_dir, &aside)?;
    std::fs::rename(image, &pair.source.data_dir)?;
    if standby {
        std::fs::write(pair.source.data_dir.join("standby.signal"), b"")?;
    }
    pair.source.start()?;
    Ok(aside)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn promote(pair: &Pair) -> Result<()> {
    pair.source.psql("postgres", "SELECT pg_promote()")?;
    wait::until_true("the end of recovery", SOON, || Ok(pair.sql("SELECT pg_is_in_recovery()")? == "f"))
}

#[test]
fn a_source_restored_from_an_older_state_is_a_new_copy() {
    scenario("restored", |lab| {
        let mut pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE t(id int PRIMARY KEY, v text); INSERT INTO t SELECT generate_series(1, 100), 'old'",
        )?;
        pair.start_job("t")?;
        pair.wait_for_shadow(PATIENT)?;
        // An image of the disk; what comes after it is on the shadow and will never have happened.
        let older = image(lab, &mut pair, "older")?;
        pair.sql("INSERT INTO t SELECT generate_series(1001, 3000), 'lost'; DELETE FROM t WHERE id <= 50")?;
        pair.wait_for_shadow(PATIENT)?;
        put_in_place(&mut pair, &older, false)?;
        pair.sql("INSERT INTO t SELECT generate_series(101, 110), 'new'")?;
        told(&pair, "restored from an older state")?;
        pair.assert_equal()?;

        // The same, but this time the server has a timeline of its own, and has written
        // more than was lost before the platform hears of it: positions alone would fit.
        let older = image(lab, &mut pair, "older-still")?;
        pair.sql("INSERT INTO t SELECT generate_series(1001, 1100), 'lost'")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.platform.program.stop()?;
        let newer = put_in_place(&mut pair, &older, true)?;
        promote(&pair)?;
        pair.sql("INSERT INTO t SELECT generate_series(1101, 5000), 'new'; UPDATE t SET v = v || '!'")?;
        pair.platform.start()?;
        told(&pair, "this server left timeline 1 at")?;
        pair.assert_equal()?;
        let mode = pair.sql("SELECT mode || mode_reason FROM scry_backfill.status")?;
        ensure!(mode.contains("hybrid") && mode.contains("timeline"), "{mode}");

        // The server that was left behind comes back: it must not take the shadow.
        put_in_place(&mut pair, &newer, false)?;
        pair.wait_status("the refusal", SOON, |row| says(row, "timeline 1") && says(row, "timeline 2"))?;
        let mut shadow = pair.shadow_client()?;
        let count: i64 = shadow.query_one("SELECT count(*) FROM t WHERE v LIKE 'new!'", &[])?.get(0);
        ensure!(count == 3910, "the shadow is still the promoted server's: {count}");
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_promoted_standby_is_a_new_copy() {
    scenario("promoted", |lab| {
        let mut pair = mixed_pair(lab, &PairOptions::default())?;
        mixed_load(lab, &pair, false)?.stop()?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        // pg_basebackup leaves slots out.
        let standby = lab.path("standby");
        run(pair
            .source
            .command("pg_basebackup")
            .args(["--wal-method=stream", "--checkpoint=fast", "-D"])
            .arg(&standby))?;
        pair.sql("UPDATE account SET balance = balance + 1")?;
        pair.wait_for_shadow(PATIENT)?;
        put_in_place(&mut pair, &standby, true)?;
        // Not before the promotion.
        let error = super::error_of(&pair, "SELECT scry_backfill.stop()")?;
        super::require_words(&error, &["during recovery", "standby"])?;
        ensure!(pair.status()?.len() == 1, "the views can be read on a standby");
        promote(&pair)?;
        starts_over(&pair, "was restored from an older state")?;
        pair.assert_source_unharmed()
    });
}
