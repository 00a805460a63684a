//! With a journal neither a shadow that is away nor a long copy keeps WAL on
//! the source.

use super::{PATIENT, SOON, mixed_load, mixed_pair, says};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Lab, Pair, PairOptions, ShadowKind, Shutdown, scenario, wait};
use std::time::Duration;

const MIB: u64 = 1 << 20;
/// WAL that is written while the shadow does not take it.
const WRITTEN: u64 = 100 * MIB;
/// What of it may be kept once it is in the journal: a few segments.
const KEPT: u64 = 48 * MIB;

fn number(pair: &Pair, sql: &str) -> Result<u64> {
    pair.sql(sql)?.trim().parse().with_context(|| sql.to_owned())
}

/// WAL that the source cannot remove for the slot. Decoding begins anew only
/// where the server has noted what was running, as it does at a checkpoint.
fn kept(pair: &Pair) -> Result<u64> {
    pair.sql("CHECKPOINT")?;
    number(pair, "SELECT (pg_current_wal_lsn() - restart_lsn)::int8 FROM pg_replication_slots")
}

/// Writes [`WRITTEN`] bytes of WAL to a table of the job.
fn write(pair: &Pair) -> Result<()> {
    let position = || number(pair, "SELECT (pg_current_wal_lsn() - '0/0')::int8");
    let start = position()?;
    while position()? < start + WRITTEN {
        pair.sql("INSERT INTO document(title, body) SELECT 'away', repeat(md5(i::text), 20) FROM generate_series(1, 10000) i")?;
    }
    Ok(())
}

/// What has been written is no longer kept, within moments.
fn is_let_go(pair: &Pair) -> Result<()> {
    wait::until_true("the source to let its WAL go", SOON, || Ok(kept(pair)? < KEPT))
}

fn pair(lab: &Lab, shadow: ShadowKind) -> Result<Pair> {
    let platform_args = vec!["--journal".to_owned(), "file".to_owned()];
    mixed_pair(lab, &PairOptions { shadow, platform_args, ..PairOptions::default() })
}

#[test]
fn a_stopped_shadow_keeps_no_wal_on_the_source() {
    scenario("journal", |lab| {
        let mut pair = pair(lab, ShadowKind::External)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let load = mixed_load(lab, &pair, false)?;
        pair.shadow.as_mut().context("an external shadow")?.stop(Shutdown::Immediate)?;
        write(&pair)?;
        is_let_go(&pair)?;
        pair.wait_status("the cause in the status", SOON, |row| says(row, "journal"))?;
        // Neither a restart of the platform nor of the source's worker loses it.
        pair.sql("SELECT scry_backfill.pause(); SELECT pg_sleep(1); SELECT scry_backfill.resume()")?;
        load.wait_commits(50, SOON)?;
        pair.shadow.as_mut().context("an external shadow")?.start()?;
        eprintln!("{}", load.stop()?);
        pair.wait_for_shadow(PATIENT)?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_long_copy_keeps_no_wal_on_the_source() {
    scenario("journal_copy", |lab| {
        let mut pair = pair(lab, ShadowKind::Embedded)?;
        pair.sql(
            "CREATE TABLE bulk(id int PRIMARY KEY, t text);
             INSERT INTO bulk SELECT i, md5(i::text) FROM generate_series(1, 60000) i",
        )?;
        let throttle = |pair: &mut Pair, rows: u32| -> Result<()> {
            pair.source.add_conf(&[format!("scry_backfill.max_rows_per_second = {rows}")])?;
            pair.source.reload()
        };
        throttle(&mut pair, 200)?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job("*")?;
        pair.wait_status("the copy to begin", SOON, |row| {
            row["state"] == "copying" && row["bytes_copied"] != "0"
        })?;
        write(&pair)?;
        is_let_go(&pair)?;
        let generation = "SELECT generation FROM scry_backfill.job";
        let begun = pair.sql(generation)?;
        // The copy is interrupted: what is whole stays, and nothing comes twice.
        pair.platform.program.kill()?;
        std::thread::sleep(Duration::from_millis(500));
        pair.platform.start()?;
        load.wait_commits(50, SOON)?;
        pair.wait_status("the copy to go on", SOON, |row| row["state"] == "copying")?;
        write(&pair)?;
        is_let_go(&pair)?;
        throttle(&mut pair, 0)?;
        eprintln!("{}", load.stop()?);
        pair.wait_for_shadow(PATIENT)?;
        ensure!(pair.sql(generation)? == begun, "the job has started over");
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}
