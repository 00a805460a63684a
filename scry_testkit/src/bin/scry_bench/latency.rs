//! pgbench at a third of what the machine can do: without a job, then through a
//! job's copy and stream. The rate must be held, the latencies are shown side
//! by side.
//!
//! `BENCH_SCALE` (20) and `BENCH_SECONDS` (60) make it smaller for a trial.

use crate::setting;
use anyhow::{Context, Result, ensure};
use scry_testkit::content::TableName;
use scry_testkit::{Lab, Pair, PairOptions};
use std::process::Child;
use std::time::Duration;

/// pgbench's clients.
const CLIENTS: &str = "4";

/// Share of the wanted rate that counts as held.
const HELD: f64 = 0.98;

pub fn run(lab: &Lab) -> Result<()> {
    let seconds = setting("BENCH_SECONDS", 60);
    let scale = setting("BENCH_SCALE", 20).to_string();
    let pair = Pair::start(lab, &PairOptions::default())?;
    let made = pair.source.command("pgbench").args(["-i", "-q", "-s", &scale, "postgres"]).output()?;
    ensure!(made.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&made.stderr));

    let most = Run::start(lab, &pair, "most", 15.min(seconds), None)?.finish()?;
    let rate = most.per_second / 3.0;
    println!(
        "pgbench, scale {scale}, {CLIENTS} clients: at most {:.0} transactions/s; fixed at {rate:.0}/s",
        most.per_second
    );
    let without = Run::start(lab, &pair, "without", seconds, Some(rate))?.finish()?;

    let with = Run::start(lab, &pair, "with", seconds, Some(rate))?;
    std::thread::sleep(Duration::from_secs(2));
    pair.start_job_with("pgbench_*", "options => '{\"keyless\": \"inserts_only\"}'")?;
    let start = std::time::Instant::now();
    pair.wait_for_shadow(Duration::from_secs(600))?;
    let copied = start.elapsed();
    let with = with.finish()?;

    println!("copied and caught up after {:.1} s of the {seconds} s\n", copied.as_secs_f64());
    println!(
        "{:26}  {:>8}  {:>8}  {:>8}  {:>8}  {:>9}  {:>8}",
        "", "tx/s", "avg ms", "p50 ms", "p95 ms", "p99 ms", "max ms"
    );
    without.print("without a job");
    with.print("through copy and stream");
    pair.wait_for_shadow(Duration::from_secs(120))?;
    let tables = ["accounts", "branches", "history", "tellers"];
    let tables: Vec<TableName> =
        tables.iter().map(|name| TableName::new(&format!("pgbench_{name}"))).collect();
    let report = pair.compare(&tables)?;
    println!("\n{report}");
    report.require_equal()?;
    ensure!(with.per_second >= rate * HELD, "the rate was not held: {:.0}/s of {rate:.0}/s", with.per_second);
    Ok(())
}

/// A pgbench on its way.
pub struct Run {
    child: Child,
    prefix: std::path::PathBuf,
    seconds: u64,
}

/// What pgbench measured.
pub struct Figures {
    pub per_second: f64,
    /// Durations from the scheduled start on, in milliseconds, sorted.
    sorted_ms: Vec<f64>,
}

impl Run {
    /// Starts it: at full speed, or at a rate of transactions a second.
    pub fn start(lab: &Lab, pair: &Pair, name: &str, seconds: u64, rate: Option<f64>) -> Result<Run> {
        let dir = lab.path(name);
        lab.user.make_dir(&dir)?;
        let prefix = dir.join("log");
        let mut command = pair.source.command("pgbench");
        command
            .args(["-n", "-c", CLIENTS, "-j", "2", "-T", &seconds.to_string(), "-l", "--log-prefix"])
            .arg(&prefix);
        if let Some(rate) = rate {
            command.args(["-R", &format!("{rate:.1}")]);
        }
        let child =
            command.arg("postgres").stdout(std::process::Stdio::null()).spawn().context("start pgbench")?;
        Ok(Run { child, prefix, seconds })
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Figures> {
        let status = self.child.wait().context("wait for pgbench")?;
        ensure!(status.success(), "pgbench failed: {status}");
        let dir = self.prefix.parent().context("no directory")?;
        let mut sorted_ms = Vec::new();
        for file in std::fs::read_dir(dir).context("list pgbench's logs")?.flatten() {
            let text = std::fs::read_to_string(file.path()).context("read pgbench's log")?;
            // client, number, microseconds, script, second, microsecond[, lag]
            let times = text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<f64>().ok());
            sorted_ms.extend(times.map(|us| us / 1000.0));
        }
        sorted_ms.sort_by(f64::total_cmp);
        ensure!(!sorted_ms.is_empty(), "pgbench logged no transaction");
        Ok(Figures { per_second: sorted_ms.len() as f64 / self.seconds as f64, sorted_ms })
    }
}

impl Figures {
    fn at(&self, share: f64) -> f64 {
        crate::race::at(&self.sorted_ms, share)
    }

    /// A line of the table.
    pub fn print(&self, name: &str) {
        let average = self.sorted_ms.iter().sum::<f64>() / self.sorted_ms.len() as f64;
        println!(
            "{name:26}  {:>8.0}  {average:>8.2}  {:>8.2}  {:>8.2}  {:>9.2}  {:>8.1}",
            self.per_second,
            self.at(0.5),
            self.at(0.95),
            self.at(0.99),
            self.at(1.0)
        );
    }
}
