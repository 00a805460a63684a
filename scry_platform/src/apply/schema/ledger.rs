//! `scry_shadow.schema_step`: which steps are done, and what undoes them.
//!
//! A row is written in the transaction of its step. The key holds a hash of the step's
//! statements: an object that has changed since is another step.

use super::plan::Step;
use super::session::Session;
use std::collections::HashSet;

const CREATE: &[&str] = &[
    "CREATE SCHEMA IF NOT EXISTS scry_shadow",
    "CREATE TABLE IF NOT EXISTS scry_shadow.schema_step (\
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
        step text NOT NULL, \
        undo text)",
];

/// Writes one step.
pub(super) const MARK: &str = "INSERT INTO scry_shadow.schema_step (step, undo) VALUES ($1, $2)";

/// Makes the ledger if need be, and says what is done.
pub(super) async fn open(session: &Session<'_>) -> Result<HashSet<String>, tokio_postgres::Error> {
    session.transaction(CREATE.iter().copied(), None).await?;
    let rows = session.client().query("SELECT step FROM scry_shadow.schema_step", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What undoes the steps done, the last first, with their numbers.
pub(super) async fn undo_list(session: &Session<'_>) -> Result<Vec<(i64, String)>, tokio_postgres::Error> {
    session.transaction(CREATE.iter().copied(), None).await?;
    let sql = "SELECT seq, undo FROM scry_shadow.schema_step WHERE undo IS NOT NULL ORDER BY seq DESC";
    let rows = session.client().query(sql, &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Runs a step and writes it down, in one transaction.
pub(super) async fn run(session: &Session<'_>, step: &Step) -> Result<(), tokio_postgres::Error> {
    let sql = step.sql.iter().map(String::as_str);
    session.transaction(sql, Some((MARK, &[&step.key(), &step.undo]))).await
}
