//! The shadow's schema against the source's, by the same queries on both sides.
//!
//! The source sends its document; the queries of `sql/catalog` make the
//! shadow's, inside the transaction at the position. What the shadow was known
//! to lack (`scry_shadow.left_out`) is no difference, nor is what says the same
//! in other words (see `canonical`).

use super::canonical;
use crate::apply::absent;
use crate::origin;
use crate::shadow::{Session, Shadow};
use crate::{Error, Result};
use scry_wire::catalog::{
    Catalog, ClosureRow, DependsRow, Difference, Entry, Object, SETTINGS, closure_objects, closure_query,
    depends_query, queries,
};
use scry_wire::limits;
use scry_wire::message::Tell;
use std::collections::HashSet;
use tokio_postgres::Client;

/// Puts the pieces of the source's document together; `Some` with the last.
pub fn append(document: &mut Vec<u8>, frame: &scry_wire::frame::Frame) -> Result<Option<Catalog>> {
    let payload = frame.payload();
    if document.len() + payload.len() > limits::CATALOG_BYTES_MAX {
        return Err(Error::protocol("the catalog document is too large"));
    }
    document.extend_from_slice(&payload);
    if frame.continued() {
        return Ok(None);
    }
    let bytes = std::mem::take(document);
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::protocol(format!("the catalog document cannot be read: {error}")))
}

/// Compares; inside the open transaction, of which nothing stays.
pub async fn compare(place: &Shadow, session: &Session, source: &Catalog) -> Result<Tell> {
    let shadow = read(session, source).await?;
    let absent = absent::relids(&**session).await?;
    let left_out: HashSet<String> =
        origin::left_out(&**session).await?.into_iter().map(|item| item.object).collect();
    let here = source.without(&absent);
    let is_absent = |object: &&Object| {
        let table = object.entry.table_oid().unwrap_or(object.oid);
        absent.contains(&table)
    };
    let parts: HashSet<String> = source.objects.iter().filter(is_absent).map(Object::describe).collect();
    let found = here.differences(&shadow);
    let is_other = |found: &&Difference| !matches!(found.what.as_str(), "missing" | "extra");
    let suspects: HashSet<String> = found.iter().filter(is_other).map(|found| found.object.clone()).collect();
    let same = match suspects.is_empty() {
        true => HashSet::new(),
        false => canonical::same(place, &here, &shadow, &suspects).await,
    };
    let mut lines: Vec<String> = found
        .into_iter()
        .filter(|found| !same.contains(&found.object))
        .filter(|found| !(found.what == "missing" && left_out.contains(&found.object)))
        // A type whose functions cannot be made stays a shell.
        .filter(|found| !(found.what.contains("shell") && left_out.contains(&found.object)))
        // What was made of an absent table before.
        .filter(|found| !(found.what == "extra" && parts.contains(&found.object)))
        .map(|found| format!("{}: {}", found.object, found.what))
        .collect();
    lines.sort();
    let differences = lines.len() as u64;
    lines.truncate(LINES_MAX);
    Ok(Tell::Schema { objects: source.objects.len() as u64, differences, lines })
}

/// Reads the shadow's catalog as the source's was read (`scry_backfill_ext/src/catalog`).
async fn read(session: &Session, source: &Catalog) -> Result<Catalog> {
    let (mut schemas, mut names) = (Vec::new(), Vec::new());
    for object in source.objects.iter().filter(|object| object.selected) {
        if let Entry::Table(table) = &object.entry {
            schemas.push(table.schema.as_str());
            names.push(table.name.as_str());
        }
    }
    let whole = source.whole_database;
    // Of a whole database all that is there is looked at.
    let (schemas, names) = if whole { (Vec::new(), Vec::new()) } else { (schemas, names) };
    let cannot = Error::sql("read the shadow's catalog");
    let tables: Vec<u32> = session.query_one(OIDS, &[&schemas, &names]).await.map_err(cannot)?.get(0);
    read_catalog(session, &tables, whole).await
}

/// Reads a database's catalog, in the open transaction: these tables and what they need, or all.
pub(super) async fn read_catalog(session: &Client, tables: &[u32], whole: bool) -> Result<Catalog> {
    let cannot = || Error::sql("read the shadow's catalog");
    for (name, value) in SETTINGS {
        let sql = "SELECT pg_catalog.set_config($1, $2, true)";
        session.execute(sql, &[name, value]).await.map_err(cannot())?;
    }
    let rows = session.query(closure_query(), &[&tables, &whole]).await.map_err(cannot())?;
    let closure: Vec<ClosureRow> = rows
        .iter()
        .map(|row| ClosureRow {
            classid: row.get(0),
            objid: row.get(1),
            standing: row.get(2),
            object: row.get(3),
            reason: row.get(4),
        })
        .collect();
    let mut entries = Vec::new();
    for query in queries() {
        let sql = format!("SELECT q.entry::text FROM ({}) AS q (entry)", query.sql.trim_end());
        for row in session.query(&sql, &[&query.ids(&closure)]).await.map_err(cannot())? {
            entries.push((query.kind, row.get::<_, String>(0)));
        }
    }
    let (classes, oids) = closure_objects(&closure);
    let rows = session.query(depends_query(), &[&classes, &oids]).await.map_err(cannot())?;
    let depends = rows.iter().map(|row| DependsRow {
        classid: row.get(0),
        objid: row.get(1),
        refclassid: row.get(2),
        refobjid: row.get(3),
    });
    Catalog::assemble(whole, &closure, entries, depends)
        .map_err(|error| Error::protocol(format!("the shadow's catalog cannot be put together: {error}")))
}

const OIDS: &str = "SELECT coalesce(pg_catalog.array_agg(c.oid), '{}') \
    FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[])) AS t (schema, name) \
    JOIN pg_catalog.pg_namespace AS n ON n.nspname = t.schema \
    JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = t.name";
/// Differences that are told one by one.
const LINES_MAX: usize = scry_wire::message::SCHEMA_LINES_MAX;
