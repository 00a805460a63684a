//! Whether two databases have the same schema, by what `pg_dump` says of them.
//!
//! Compared statement by statement, as sets: `pg_dump` orders objects of one
//! kind by name, but what depends on what may put them elsewhere. Left out is
//! what a shadow does not bring: owners and grants, the extension and its
//! triggers, the platform's own schema.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;

use crate::cluster::Cluster;
use crate::pair::Pair;

/// The statements that make the schema of `database`, without what a shadow
/// does not bring.
pub fn of_source(cluster: &Cluster, database: &str) -> Result<BTreeSet<String>> {
    let mut command = cluster.command("pg_dump");
    command.args(ARGS).args(["-d", database]);
    statements(&mut command)
}

fn of_url(pair: &Pair, url: &str) -> Result<BTreeSet<String>> {
    let mut command = pair.source.command("pg_dump");
    command.args(ARGS).args(["-d", url]);
    statements(&mut command)
}

const ARGS: &[&str] = &[
    "--schema-only",
    "--no-owner",
    "--no-privileges",
    "--no-publications",
    "--no-subscriptions",
    "--no-security-labels",
    "--no-tablespaces",
    "--exclude-schema=scry_backfill",
    "--exclude-schema=scry_shadow",
];

fn statements(command: &mut std::process::Command) -> Result<BTreeSet<String>> {
    let output = command.output().context("run pg_dump")?;
    ensure!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .split("\n--\n-- Name: ")
        .skip(1)
        // The first line names the object, and its owner.
        .filter_map(|part| part.split_once("\n--\n\n").map(|(_, statement)| statement))
        // The last one is followed by the end of the dump.
        .map(|statement| without_settings(statement.split("\n--\n").next().unwrap_or_default()))
        .filter(|statement| !statement.contains("scry_backfill") && !statement.is_empty())
        .collect())
}

/// pg_dump sets these before the first table, behind whatever object that comes after.
fn without_settings(statement: &str) -> String {
    let is_setting = |line: &&str| line.starts_with("SET default_");
    let lines: Vec<String> =
        statement.lines().filter(|line| !is_setting(line)).map(without_null_default).collect();
    lines.join("\n").trim().to_owned()
}

/// A default that is a bare NULL is none, and no statement makes one; a column whose type has
/// changed may have kept one all the same.
fn without_null_default(line: &str) -> String {
    let Some((before, default)) = line.split_once(" DEFAULT NULL::") else { return line.to_owned() };
    if default.contains('(') {
        return line.to_owned();
    }
    let not_null = if default.contains(" NOT NULL") { " NOT NULL" } else { "" };
    let comma = if default.ends_with(',') { "," } else { "" };
    format!("{before}{not_null}{comma}")
}

/// Requires source and shadow of a pair to have the same schema.
pub fn require_equal(pair: &Pair) -> Result<()> {
    let source = of_source(&pair.source, &pair.database)?;
    let shadow = of_url(pair, &pair.platform.shadow_url()?)?;
    let missing: Vec<&String> = source.difference(&shadow).collect();
    let extra: Vec<&String> = shadow.difference(&source).collect();
    ensure!(
        missing.is_empty() && extra.is_empty(),
        "the schemas differ.\nOnly on the source:\n{}\nOnly on the shadow:\n{}",
        join(&missing),
        join(&extra)
    );
    Ok(())
}

fn join(statements: &[&String]) -> String {
    statements.iter().map(|text| format!("{text}\n")).collect()
}
