//! Copies give way to production: within a second, said in `status`, and back
//! at full speed afterwards.

use super::{PATIENT, SOON};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Pair, PairOptions, scenario, wait};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// pgbench with more clients than processors, computing only.
fn busy(pair: &Pair, seconds: u32) -> Result<Child> {
    let script = pair.socket_dir.with_file_name("busy.sql");
    std::fs::write(&script, "SELECT count(*) FROM generate_series(1, 20000);\n")?;
    let clients = (2 * std::thread::available_parallelism().map_or(1, usize::from)).to_string();
    pair.source
        .command("pgbench")
        .args(["-n", "-c", &clients, "-T", &seconds.to_string(), "-f"])
        .arg(&script)
        .arg("postgres")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start pgbench")
}

/// A pair with a table whose copy takes some seconds.
fn large_pair(lab: &scry_testkit::Lab, adaptive: bool) -> Result<Pair> {
    let conf = vec![format!("scry_backfill.adaptive = {adaptive}")];
    let pair = Pair::start(lab, &PairOptions { source_conf: conf, ..PairOptions::default() })?;
    pair.sql(
        "CREATE TABLE large(id int PRIMARY KEY, t text);
         INSERT INTO large SELECT i, repeat(md5(i::text), 4) FROM generate_series(1, 400000) i",
    )?;
    Ok(pair)
}

/// Rows copied in `seconds`, read from the copy's progress in bytes.
fn bytes_copied(pair: &Pair) -> Result<u64> {
    pair.sql("SELECT bytes_copied FROM scry_backfill.status")?.parse().context("read bytes_copied")
}

#[test]
fn a_copy_gives_way_and_says_so() {
    scenario("adaptive", |lab| {
        let pair = large_pair(lab, true)?;
        let mut load = busy(&pair, 60)?;
        std::thread::sleep(Duration::from_secs(1));
        pair.start_job("large")?;
        let row = pair.wait_status("the copy to give way", SOON, |row| row["limiter"] == "adaptive")?;
        eprintln!("{}", row["limiter_detail"]);
        ensure!(row["limiter_detail"].contains("production"), "{row:?}");
        std::thread::sleep(Duration::from_secs(2));
        let before = bytes_copied(&pair)?;
        std::thread::sleep(Duration::from_secs(2));
        let braked = bytes_copied(&pair)? - before;
        load.kill()?;
        load.wait()?;
        // Freed: the rest comes at full speed, and the brake is gone.
        let begun = Instant::now();
        pair.wait_for_shadow(PATIENT)?;
        eprintln!("{braked} bytes in 2 s under load; the rest in {:?}", begun.elapsed());
        ensure!(braked < 40_000_000, "{braked} bytes in 2 s are no giving way");
        wait::until_true("the brake to be released", SOON, || {
            Ok(pair.sql("SELECT limiter IS NULL FROM scry_backfill.status")? == "t")
        })?;
        pair.assert_equal()
    });
}

#[test]
fn sessions_that_have_ended_are_no_pressure() {
    scenario("adaptive_ended", |lab| {
        let pair = large_pair(lab, true)?;
        let sessions = |many: usize| -> Result<()> {
            let clients = (0..many).map(|_| pair.source_client()).collect::<Result<Vec<_>>>()?;
            for mut client in clients {
                client.batch_execute("SELECT 1")?;
            }
            Ok(())
        };
        sessions(8 * std::thread::available_parallelism().map_or(1, usize::from))?;
        pair.start_job_with("large", "options => '{\"max_rows_per_second\": 100000}'")?;
        let mut limiters = Vec::new();
        while pair.sql("SELECT state FROM scry_backfill.status")? != "streaming" {
            limiters.push(pair.sql("SELECT limiter FROM scry_backfill.status")?);
            std::thread::sleep(Duration::from_millis(200));
            ensure!(limiters.len() < 500, "the copy does not end; {}", pair.describe_status());
        }
        ensure!(limiters.len() > 4, "the copy was over too soon");
        ensure!(limiters.iter().all(|limiter| limiter != "adaptive"), "{limiters:?}");
        pair.assert_equal()
    });
}

#[test]
fn without_adaptive_nothing_gives_way() {
    scenario("not_adaptive", |lab| {
        let pair = large_pair(lab, false)?;
        let mut load = busy(&pair, 60)?;
        std::thread::sleep(Duration::from_secs(1));
        pair.start_job("large")?;
        let mut limiters = Vec::new();
        while pair.sql("SELECT state FROM scry_backfill.status")? != "streaming" {
            limiters.push(pair.sql("SELECT limiter FROM scry_backfill.status")?);
            std::thread::sleep(Duration::from_millis(200));
            ensure!(limiters.len() < 500, "the copy does not end; {}", pair.describe_status());
        }
        load.kill()?;
        load.wait()?;
        ensure!(limiters.iter().all(|limiter| limiter != "adaptive"), "{limiters:?}");
        pair.assert_equal()
    });
}
