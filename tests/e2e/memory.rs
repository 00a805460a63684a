//! Bounded memory: the figures that the README states.

use super::{PATIENT, SOON, mixed_pair, worker_pid};
use anyhow::{Context, Result, ensure};
use scry_testkit::memory::PeakWatch;
use scry_testkit::program::descendants_named;
use scry_testkit::{Pair, PairOptions, scenario, wait};
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// Rows of the large transaction.
const ROWS: u64 = 10_000_000;

/// Watches worker, sender and platform.
struct Watches {
    worker: PeakWatch,
    sender: PeakWatch,
    platform: PeakWatch,
}

impl Watches {
    fn start(pair: &Pair) -> Result<Watches> {
        let worker = worker_pid(pair, "stream")?;
        let postmaster = pair.source.postmaster.pid().context("the source does not run")?;
        let sender = wait::until("the sender", SOON, || {
            Ok(descendants_named(postmaster, "scry_sender").first().copied())
        })?;
        let platform = pair.platform.program.pid();
        Ok(Watches {
            worker: PeakWatch::start("stream worker", move || Some(worker)),
            sender: PeakWatch::start("scry_sender", move || Some(sender)),
            platform: PeakWatch::start("scry_platform", move || platform),
        })
    }

    /// Prints the peaks and checks them; `extra` is allowed above each cap.
    fn check(&self, decoding_work_mem: u64, extra: u64) -> Result<()> {
        let caps = [
            (&self.worker, 64 * MIB + decoding_work_mem),
            (&self.sender, 64 * MIB),
            (&self.platform, 256 * MIB),
        ];
        for (watch, cap) in caps {
            eprintln!(
                "{}: {} MiB private at most, cap {} MiB",
                watch.name,
                watch.peak_bytes() / MIB,
                (cap + extra) / MIB
            );
        }
        for (watch, cap) in caps {
            let peak = watch.peak_bytes();
            ensure!(peak > 0, "{} was not seen", watch.name);
            ensure!(peak < cap + extra, "{} used {} MiB", watch.name, peak / MIB);
        }
        Ok(())
    }
}

#[test]
fn ten_million_rows_in_one_transaction() {
    scenario("ten_million_rows", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql("CREATE TABLE big(id int PRIMARY KEY, v int)")?;
        pair.start_job("big")?;
        pair.wait_for_shadow(PATIENT)?;
        let watches = Watches::start(&pair)?;
        pair.sql(&format!("INSERT INTO big SELECT i, -i FROM generate_series(1, {ROWS}) i"))?;
        pair.wait_for_shadow(Duration::from_secs(600))?;
        watches.check(64 * MIB, 0)?;
        pair.assert_equal()
    });
}

#[test]
fn a_value_of_200_megabytes_passes() {
    scenario("large_value", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE heavy(id int PRIMARY KEY, t text); ALTER TABLE heavy ALTER t SET STORAGE EXTERNAL",
        )?;
        let size = 200 * MIB;
        let insert =
            |id: u32| format!("INSERT INTO heavy VALUES ({id}, repeat('0123456789abcdef', {}))", size / 16);
        pair.sql(&insert(1))?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let watches = Watches::start(&pair)?;
        pair.sql(&insert(2))?;
        pair.sql("UPDATE heavy SET id = id + 10")?;
        pair.wait_for_shadow(PATIENT)?;
        watches.check(64 * MIB, 2 * size)?;
        let sql =
            "SELECT string_agg(id || ' ' || length(t) || ' ' || md5(t), ', ' ORDER BY id) FROM public.heavy";
        let shadow: String = pair.shadow_client()?.query_one(sql, &[])?.get(0);
        ensure!(shadow == pair.sql(sql)?, "the shadow has {shadow}");
        Ok(())
    });
}
