//! Back-pressure: with the platform standing still, the source goes on as if
//! nothing were, and our worker neither grows nor holds anything up.

use super::{PATIENT, SOON, mixed_load, mixed_pair, worker_pid};
use anyhow::ensure;
use scry_testkit::memory::PeakWatch;
use scry_testkit::{PairOptions, Shutdown, scenario};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// What "at once" means for commands that a stuck worker would hold up.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn a_frozen_platform_holds_nothing_up() {
    scenario("frozen_platform", |lab| {
        let mut pair = mixed_pair(lab, &PairOptions::default())?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let load = mixed_load(lab, &pair, true)?;
        let worker = worker_pid(&pair, "stream")?;
        let memory = PeakWatch::start("stream worker", move || Some(worker));
        pair.platform.program.freeze()?;

        // More than all queues on the way hold.
        for _ in 0..4 {
            pair.sql("INSERT INTO document(title, body) SELECT 'full', repeat(md5(i::text), 20) FROM generate_series(1, 60000) i")?;
        }
        load.wait_commits(300, SOON)?;
        ensure!(worker_pid(&pair, "stream")? == worker, "the worker was restarted");
        eprintln!("stream worker: at most {} MiB private", memory.peak_bytes() / MIB);
        // logical_decoding_work_mem has its default of 64 MB.
        ensure!(memory.peak_bytes() < (64 + 64) * MIB, "{} bytes", memory.peak_bytes());
        drop(memory);

        // DROP DATABASE waits for every process to take notice.
        pair.sql("CREATE DATABASE passing")?;
        let start = Instant::now();
        pair.sql("DROP DATABASE passing")?;
        ensure!(start.elapsed() < AT_ONCE, "DROP DATABASE took {:?}", start.elapsed());
        let start = Instant::now();
        pair.source.stop(Shutdown::Fast)?;
        ensure!(start.elapsed() < AT_ONCE * 2, "the shutdown took {:?}", start.elapsed());
        pair.source.start()?;

        pair.platform.program.thaw()?;
        load.wait_commits(50, SOON)?;
        eprintln!("{}", load.stop()?);
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn nothing_is_confirmed_that_the_shadow_does_not_have() {
    scenario("confirm_last", |lab| {
        let mut pair = mixed_pair(lab, &PairOptions::default())?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.platform.program.kill()?;
        let before = pair.sql("SELECT pg_current_wal_lsn()")?;
        pair.sql("UPDATE account SET balance = balance + 1")?;
        let after = pair.sql("SELECT pg_current_wal_lsn()")?;
        std::thread::sleep(Duration::from_secs(3));
        let sql = format!("SELECT confirmed_flush_lsn < '{after}' FROM pg_replication_slots");
        ensure!(
            pair.sql(&sql)? == "t",
            "confirmed past {after} (the change began at {before}) without a platform"
        );
        pair.platform.start()?;
        pair.assert_equal()
    });
}
