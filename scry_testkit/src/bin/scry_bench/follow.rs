//! A backlog until its last row is on the shadow, beside PostgreSQL's own
//! subscription: pgbench's transactions, and wide rows with keys far apart.
//!
//! Both stand still while the backlog is written; each then follows alone.
//! `BENCH_CHANGES` (800,000) are the row changes of pgbench's backlog; the other
//! has a quarter as many transactions of one row. The content of all tables is
//! compared at the end.

use crate::clusters::{Bench, PATIENCE, Tables};
use crate::measure::Figures;
use crate::race::{Contender, Work, print_growth, race};
use crate::{setting, workload};
use anyhow::{Context, Result, ensure};
use scry_testkit::Lab;

pub fn run(lab: &Lab) -> Result<()> {
    let bench = Bench::new(lab, Tables::Spread)?;
    bench.begin()?;
    let changes = setting("BENCH_CHANGES", 800_000);
    follow(&bench, "follow, pgbench", changes, false)?;
    // Inserts of keys that are there and updates of some that are not are no changes.
    follow(&bench, "follow, wide rows, keys far apart", changes, true)?;
    Ok(())
}

/// Ten times the backlog: a change must not cost more than it does among fewer.
pub fn grow(lab: &Lab) -> Result<()> {
    let bench = Bench::new(lab, Tables::Spread)?;
    bench.begin()?;
    let changes = setting("BENCH_CHANGES", 800_000);
    let mut races = Vec::new();
    for changes in [changes / 4, changes / 4 * 10] {
        races.push((follow(&bench, "follow, pgbench", changes, false)?, changes));
    }
    print_growth(&races)
}

fn follow(bench: &Bench, name: &str, changes: u64, spread: bool) -> Result<Vec<Vec<Figures>>> {
    let platform = &bench.pair.platform;
    let contenders = [
        Contender::new("scry-backfill", || {
            bench.measure(platform, None, || {
                bench.pair.sql("SELECT scry_backfill.resume('default')")?;
                bench.pair.wait_for_shadow(PATIENCE)
            })
        }),
        Contender::new("subscription, binary", || {
            bench.measure(platform, None, || {
                bench.peer_sql("ALTER SUBSCRIPTION peer ENABLE")?;
                bench.wait_for_peer()
            })
        }),
    ];
    let unit = if spread { "transactions" } else { "row changes" };
    let amount = if spread { changes / 4 } else { changes };
    let figures = race(&Work { name, unit, amount }, &contenders, || {
        bench.neither()?;
        write_backlog(bench, changes, spread)
    })?;
    bench.compare()?;
    Ok(figures)
}

/// Transactions of a backlog that nobody has read.
fn write_backlog(bench: &Bench, changes: u64, spread: bool) -> Result<()> {
    // Four clients; pgbench's transactions change four rows, ours at most one.
    let each = changes / 16;
    let mut command = bench.pair.source.command("pgbench");
    command.env("PGOPTIONS", "-c synchronous_commit=off");
    command.args(["-n", "-c", "4", "-j", "2", "-t", &each.to_string()]);
    if spread {
        let path = bench.pair.socket_dir.join("spread.sql");
        std::fs::write(&path, workload::SPREAD_WORK).context("write pgbench's script")?;
        command.arg("-f").arg(&path);
    }
    let done = command.arg("postgres").output()?;
    ensure!(done.status.success(), "pgbench: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
