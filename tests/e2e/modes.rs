//! The mode that `start()` chooses from what there is, and that it says why: to
//! its caller, in `status` and in `events` (DESIGN.md, 7).

use super::{PATIENT, SOON, error_of, require_words};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Pair, PairOptions, Shutdown, scenario, wait};

/// Starts the job and requires the mode and the reason, at all three places.
fn starts_as(pair: &Pair, arguments: &str, mode: &str, reason: &str) -> Result<()> {
    let row = pair.sql(&format!("SELECT mode || ': ' || reason FROM scry_backfill.start({arguments})"))?;
    let told = format!("start({arguments}) said: {row}");
    ensure!(row.starts_with(&format!("{mode}: ")) && row.contains(reason), "{told}, not {mode}: {reason}");
    let status = pair.sql("SELECT mode || ': ' || mode_reason FROM scry_backfill.status")?;
    ensure!(status == row, "{told}; the status: {status}");
    let event = pair.sql(
        "SELECT message FROM scry_backfill.events WHERE message LIKE 'the job was started%' ORDER BY at DESC LIMIT 1",
    )?;
    ensure!(event == format!("the job was started: mode {row}"), "{told}; the event: {event}");
    Ok(())
}

fn keep_slot(pair: &Pair) -> Result<()> {
    pair.sql("SELECT scry_backfill.stop(drop_slot => false)").map(drop)
}

/// Stops the platform, removes all it has, and starts it anew.
fn lose_shadow(pair: &mut Pair) -> Result<()> {
    pair.platform.program.stop()?;
    for entry in std::fs::read_dir(&pair.platform.data_dir)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    pair.platform.start()
}

#[test]
fn auto_chooses_from_slot_tables_and_shadow() {
    scenario("modes", |lab| {
        let mut pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE EXTENSION scry_backfill; CREATE TABLE a(id int PRIMARY KEY); CREATE TABLE b(id int PRIMARY KEY);
             INSERT INTO a SELECT generate_series(1, 100); INSERT INTO b SELECT generate_series(1, 100)",
        )?;
        // Nothing there: copy, then follow. What is asked for is not argued with.
        let error = error_of(&pair, "SELECT scry_backfill.start('*', mode => 'cdc')")?;
        require_words(&error, &["cannot go on without a copy", "no such job", "hybrid"])?;
        starts_as(&pair, "'a,b'", "hybrid", "there is no slot yet")?;
        pair.wait_for_shadow(PATIENT)?;
        // The slot is kept: no copy, and nothing is lost.
        keep_slot(&pair)?;
        pair.sql("INSERT INTO a VALUES (101)")?;
        starts_as(&pair, "'a,b'", "cdc", "the slot was kept")?;
        pair.assert_equal()?;
        // Other tables; a slot that is gone.
        keep_slot(&pair)?;
        pair.sql("CREATE TABLE c(id int PRIMARY KEY); INSERT INTO c VALUES (1)")?;
        starts_as(&pair, "'*'", "hybrid", "other tables")?;
        pair.assert_equal()?;
        pair.sql("SELECT scry_backfill.stop()")?;
        let error = error_of(&pair, "SELECT scry_backfill.start('*', mode => 'cdc')")?;
        require_words(&error, &["slot is gone"])?;
        starts_as(&pair, "'*'", "hybrid", "slot is gone")?;
        pair.assert_equal()?;

        // The shadow is another one: seen when it answers, and copied again.
        keep_slot(&pair)?;
        lose_shadow(&mut pair)?;
        pair.sql("INSERT INTO a VALUES (102)")?;
        starts_as(&pair, "'*'", "cdc", "the slot was kept")?;
        let row = pair.wait_status("the change of mode", SOON, |row| {
            row.get("mode").is_some_and(|mode| mode == "hybrid")
        })?;
        require_words(row.get("mode_reason").context("a reason")?, &["copied again", "history is another"])?;
        let told = "SELECT count(*) > 0 FROM scry_backfill.events WHERE level = 'warning' AND message LIKE '%history%'";
        wait::until_true("the event", SOON, || Ok(pair.sql(told)? == "t"))?;
        pair.assert_equal()?;

        // Named, a copy is all that is made.
        pair.sql("SELECT scry_backfill.stop()")?;
        starts_as(&pair, "'*', mode => 'snapshot'", "snapshot", "asked for")?;
        pair.wait_status("the end of the copy", PATIENT, |row| {
            row.get("state").is_some_and(|s| s == "finished")
        })?;

        // Where changes cannot be followed, auto says so and copies.
        pair.source.add_conf(&["wal_level = replica"])?;
        pair.source.restart(Shutdown::Fast)?;
        starts_as(&pair, "'*'", "snapshot", "wal_level is not \"logical\"")?;
        let finding =
            pair.sql("SELECT remedy FROM scry_backfill.check() WHERE finding LIKE '%wal_level%'")?;
        require_words(&finding, &["wal_level = logical"])?;
        pair.wait_status("the end of the copy", PATIENT, |row| {
            row.get("state").is_some_and(|s| s == "finished")
        })?;
        ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0");
        pair.assert_source_unharmed()
    });
}

/// A second copy would need what has been taken away since the first, and would show in the server's counters.
#[test]
fn a_restart_reads_no_row_again() {
    scenario("no_second_copy", |lab| {
        let mut pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE EXTENSION scry_backfill; SELECT scry_backfill.create_roles(); CREATE ROLE reader;
             GRANT scry_backfill_operator TO reader; CREATE TABLE t(id int PRIMARY KEY, v text); GRANT SELECT ON t TO reader;
             INSERT INTO t SELECT g, md5(g::text) FROM generate_series(1, 5000) AS g;
             SET ROLE reader; SELECT scry_backfill.start('t')",
        )?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("REVOKE SELECT ON t FROM reader")?;
        let read = |pair: &Pair| {
            let sql = "SELECT pg_stat_force_next_flush();
                SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relname = 't'";
            let text = pair.sql(sql)?;
            text.trim().parse::<u64>().with_context(|| text.clone())
        };
        let copied = read(&pair)?;
        ensure!(copied >= 5000, "the copy does not show in the counters: {copied}");
        // A crash clears the counters.
        for (id, kind, before) in [(5001, Shutdown::Fast, copied), (5002, Shutdown::Immediate, 0)] {
            pair.source.restart(kind)?;
            pair.sql(&format!("INSERT INTO t VALUES ({id}, 'new')"))?;
            pair.wait_for_shadow(PATIENT)?;
            ensure!(read(&pair)? == before, "rows of t were read again: {before}, then {}", read(&pair)?);
        }
        ensure!(
            pair.sql("SELECT count(*) FROM scry_backfill.events WHERE message LIKE '%copied again%'")? == "0"
        );
        pair.assert_equal()
    });
}
