//! The themes, and what they have in common.

mod adaptive;
mod applier;
mod compression;
mod copy;
mod failpoints;
mod faults;
mod follow;
mod former;
mod gaps;
mod history;
mod hostile;
mod in_progress;
mod in_server;
mod jobs;
mod journal;
mod late;
mod left_alone;
mod lifecycle;
mod limits;
mod loader;
mod matviews;
mod memory;
mod modes;
mod odd_tables;
mod pgbench;
mod pressure;
mod programs;
mod quarantine;
mod rates;
mod refusals;
mod schema_changes;
mod security;
mod storm;
mod values;
mod verify;
mod wal_guard;

use anyhow::{Context, Result};
use scry_testkit::load::{Load, LoadOptions, MIXED_SCHEMA, Mixed};
use scry_testkit::{Lab, Pair, PairOptions};
use std::collections::BTreeMap;
use std::time::Duration;

/// For what should take a moment.
const SOON: Duration = Duration::from_secs(30);
/// For copies and catching up on a busy machine.
const PATIENT: Duration = Duration::from_secs(120);

/// A pair whose source holds the mixed workload's tables.
fn mixed_pair(lab: &Lab, options: &PairOptions) -> Result<Pair> {
    let pair = Pair::start(lab, options)?;
    pair.sql(MIXED_SCHEMA)?;
    Ok(pair)
}

/// Writers on a pair's source; their seed is the lab's.
fn mixed_load(lab: &Lab, pair: &Pair, server_may_restart: bool) -> Result<Load> {
    let options = LoadOptions { seed: lab.seed, server_may_restart, ..LoadOptions::default() };
    let load = Load::start(&pair.source.config(&pair.database), &options, Mixed::new)?;
    load.wait_commits(20, SOON)?;
    Ok(load)
}

/// Whether a value of a row, in any column, contains `text` (any case).
fn says(row: &BTreeMap<String, String>, text: &str) -> bool {
    row.values().any(|value| value.to_lowercase().contains(&text.to_lowercase()))
}

/// The message, detail and hint of the error that `script` must end with.
fn error_of(pair: &Pair, script: &str) -> Result<String> {
    match pair.sql(script) {
        Ok(output) => anyhow::bail!("should have failed: {script}\n{output}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// Requires each of `words` to stand in `text`.
fn require_words(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        anyhow::ensure!(text.contains(word), "\"{word}\" does not stand in: {text}");
    }
    Ok(())
}

/// The pid of the server process of ours whose `backend_type` contains `kind`.
fn worker_pid(pair: &Pair, kind: &str) -> Result<u32> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE '%scry%' AND backend_type LIKE '%{kind}%' LIMIT 1"
    );
    let pid = pair.source.psql("postgres", &sql)?;
    pid.parse().with_context(|| format!("no {kind} worker runs; {}", pair.describe_status()))
}
