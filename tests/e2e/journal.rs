//! With a journal, a shadow that is away keeps no WAL on the source.

use super::{PATIENT, SOON, mixed_load, mixed_pair, says};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Pair, PairOptions, ShadowKind, Shutdown, scenario};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn number(pair: &Pair, sql: &str) -> Result<u64> {
    pair.sql(sql)?.trim().parse().with_context(|| sql.to_owned())
}

/// WAL that the slot keeps back from being removed, of what is confirmed at all.
fn unconfirmed(pair: &Pair) -> Result<u64> {
    number(pair, "SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::int8 FROM pg_replication_slots")
}

#[test]
fn a_stopped_shadow_keeps_no_wal_on_the_source() {
    scenario("journal", |lab| {
        let options = PairOptions {
            shadow: ShadowKind::External,
            platform_args: vec!["--journal".to_owned(), "file".to_owned()],
            ..PairOptions::default()
        };
        let mut pair = mixed_pair(lab, &options)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let load = mixed_load(lab, &pair, false)?;
        pair.shadow.as_mut().context("an external shadow")?.stop(Shutdown::Immediate)?;
        let start = number(&pair, "SELECT (pg_current_wal_lsn() - '0/0')::int8")?;
        let (begun, mut most) = (Instant::now(), 0);
        let mut written = 0;
        while begun.elapsed() < SOON && written < 100 * MIB {
            pair.sql("INSERT INTO document(title, body) SELECT 'away', repeat(md5(i::text), 20) FROM generate_series(1, 10000) i")?;
            std::thread::sleep(Duration::from_millis(200));
            written = number(&pair, "SELECT (pg_current_wal_lsn() - '0/0')::int8")? - start;
        }
        // What was written while it is away is confirmed within seconds.
        let begun = Instant::now();
        loop {
            let kept = unconfirmed(&pair)?;
            most = most.max(kept);
            if kept < 16 * MIB {
                break;
            }
            ensure!(begun.elapsed() < SOON, "{kept} of {written} bytes are not confirmed");
            std::thread::sleep(Duration::from_millis(200));
        }
        eprintln!("{} MiB of WAL, of which at most {} MiB were kept", written / MIB, most / MIB);
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
