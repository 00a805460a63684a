//! The way up is compressed where the link is slow, and only there; what the shadow holds is the source's.

use super::PATIENT;
use super::faults::proxied_with;
use anyhow::{Context, Result, ensure};
use scry_testkit::proxy::Behaviour;
use scry_testkit::{Lab, Pair, PairOptions, scenario};

/// Rows of a table that shrink well, as rows do: about 60 MB.
const ROWS: u32 = 300_000;

/// Starts a job on a filled table and follows some changes; the rows' bytes, and those that came.
fn carried(lab: &Lab, link: Behaviour) -> Result<(u64, u64)> {
    let (pair, proxy) = proxied_with(lab, &PairOptions::default())?;
    pair.sql(&format!(
        "CREATE TABLE line (id bigint PRIMARY KEY, note text);
         INSERT INTO line SELECT i, repeat('a note as there are many ', 7) || i FROM generate_series(1, {ROWS}) i"
    ))?;
    proxy.behave(link);
    pair.start_job("*")?;
    pair.wait_for_shadow(PATIENT)?;
    pair.sql("UPDATE line SET note = note || '!' WHERE id % 5 = 0; DELETE FROM line WHERE id % 7 = 0")?;
    pair.wait_for_shadow(PATIENT)?;
    pair.assert_equal()?;
    Ok((u64::from(ROWS) * 180, received(&pair)?))
}

/// Bytes that the platform has received, as they came.
fn received(pair: &Pair) -> Result<u64> {
    let (_, page) = pair.platform.get("/metrics")?;
    let line = page.lines().find_map(|line| line.strip_prefix("scry_platform_bytes_received_total "));
    line.and_then(|number| number.trim().parse().ok()).context("no bytes on the platform's page")
}

#[test]
fn a_slow_link_carries_less_than_the_rows() {
    scenario("slow_link", |lab| {
        let (rows, came) = carried(lab, Behaviour::Throttle(2 << 20))?;
        eprintln!("{came} bytes for rows of {rows}");
        ensure!(came < rows * 3 / 4, "{came} bytes for rows of {rows}");
        Ok(())
    });
}

#[test]
fn a_fast_link_carries_the_rows_as_they_are() {
    scenario("fast_link", |lab| {
        let (rows, came) = carried(lab, Behaviour::Pass)?;
        eprintln!("{came} bytes for rows of {rows}");
        ensure!(came >= rows, "{came} bytes for rows of {rows}");
        Ok(())
    });
}
