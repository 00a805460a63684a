//! `scry_shadow.schema_step`: which steps are done, and what undoes them.
//!
//! A row is written in the transaction of its step. The key holds a hash of the step's
//! statements: an object that has changed since is another step. Relations are remembered by
//! OID, because people and the stream rename them.

use super::plan::Step;
use super::quote::qualified;
use super::session::{Mark, Session};
use std::collections::HashSet;

const CREATE: &[&str] = &[
    "CREATE SCHEMA IF NOT EXISTS scry_shadow",
    "CREATE TABLE IF NOT EXISTS scry_shadow.schema_step (\
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
        step text NOT NULL, \
        undo text, \
        relation oid)",
];

const MARK: &str = "INSERT INTO scry_shadow.schema_step (step, undo, relation) \
     VALUES ($1, $2, pg_catalog.to_regclass($3)::oid)";

const UNDO: &str = "SELECT s.seq, s.undo, s.relation IS NOT NULL, \
            c.relkind::text, n.nspname::text, c.relname::text \
     FROM scry_shadow.schema_step AS s \
     LEFT JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) s.relation \
     LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
     WHERE s.undo IS NOT NULL \
     ORDER BY s.seq DESC";

/// Makes the ledger if need be, and says what is done.
pub(super) async fn open(session: &Session<'_>) -> Result<HashSet<String>, tokio_postgres::Error> {
    session.transaction(CREATE.iter().copied(), None).await?;
    let rows = session.client().query("SELECT step FROM scry_shadow.schema_step", &[]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What undoes the steps done, the last first, with their numbers.
pub(super) async fn undo_list(session: &Session<'_>) -> Result<Vec<(i64, String)>, tokio_postgres::Error> {
    session.transaction(CREATE.iter().copied(), None).await?;
    let rows = session.client().query(UNDO, &[]).await?;
    let undo = |row: &tokio_postgres::Row| {
        let (kind, schema, name): (Option<String>, Option<String>, Option<String>) =
            (row.get(3), row.get(4), row.get(5));
        match (row.get(2), kind, schema, name) {
            (true, Some(kind), Some(schema), Some(name)) => drop_relation(&kind, &schema, &name),
            // It is gone already, and its name may be another's.
            (true, ..) => None,
            (false, ..) => row.get(1),
        }
    };
    Ok(rows.iter().filter_map(|row| Some((row.get(0), undo(row)?))).collect())
}

fn drop_relation(kind: &str, schema: &str, name: &str) -> Option<String> {
    let word = match kind {
        "r" | "p" => "TABLE",
        "v" => "VIEW",
        "m" => "MATERIALIZED VIEW",
        "S" => "SEQUENCE",
        _ => return None,
    };
    Some(format!("DROP {word} IF EXISTS {} CASCADE", qualified(schema, name)))
}

/// Runs a step and writes it down, in one transaction.
pub(super) async fn run(session: &Session<'_>, step: &Step) -> Result<(), tokio_postgres::Error> {
    mark(session, step, step.sql.iter().chain(&step.values).map(String::as_str)).await
}

/// Runs these statements and writes the step down, in one transaction.
pub(super) async fn mark<'m>(
    session: &Session<'_>,
    step: &Step,
    statements: impl IntoIterator<Item = &'m str>,
) -> Result<(), tokio_postgres::Error> {
    let relation = step.makes.as_ref().map(|name| qualified(&name.schema, &name.name));
    let mark = Mark { sql: MARK, values: &[&step.key(), &step.undo, &relation] };
    session.transaction(statements, Some(mark)).await
}
