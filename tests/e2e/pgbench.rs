//! pgbench, through copy and stream: no error of its own, equal at the end.

use super::PATIENT;
use anyhow::{Context, ensure};
use scry_testkit::content::TableName;
use scry_testkit::{Pair, PairOptions, scenario};
use std::process::Stdio;
use std::time::Duration;

/// As the issue has it: `pgbench -i -s 20`, then 60 seconds with four clients.
const SCALE: &str = "20";
const SECONDS: &str = "60";

#[test]
fn pgbench_runs_through_copy_and_stream() {
    scenario("pgbench", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        let made = pair.source.command("pgbench").args(["-i", "-q", "-s", SCALE, "postgres"]).output()?;
        ensure!(made.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&made.stderr));
        // pgbench_history has no key; its rows are only inserted.
        let bench = pair
            .source
            .command("pgbench")
            .args(["-c", "4", "-T", SECONDS, "postgres"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start pgbench")?;
        std::thread::sleep(Duration::from_secs(5));
        pair.start_job_with("pgbench_*", "options => '{\"keyless\": \"inserts_only\"}'")?;
        let output = bench.wait_with_output()?;
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        eprintln!("{text}");
        ensure!(output.status.success() && !text.contains("error"), "pgbench failed");
        pair.wait_for_shadow(PATIENT * 2)?;
        let tables = ["accounts", "branches", "history", "tellers"];
        let tables: Vec<TableName> =
            tables.iter().map(|name| TableName::new(&format!("pgbench_{name}"))).collect();
        let report = pair.compare(&tables)?;
        eprintln!("{report}");
        report.require_equal()?;
        pair.assert_source_unharmed()
    });
}
