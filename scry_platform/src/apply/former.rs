//! Rows of a former history: what is still the source's is not copied again.
//!
//! ```text
//! another history ─► the last copy was complete, and the schema is the source's?
//!                     └─ yes ─► every table is noted in scry_shadow.former
//! noted ─┬─ compared under the copy's snapshot, equal or mended (crate::verify) ─► settled: a line in the ledger
//!        └─ else its first chunk empties it (apply::copy) ─► copied as any other
//! end of the copy ─► materialized views filled anew
//! ```
//!
//! Invariants: the former history is forgotten in the transaction that begins
//! the new one; a noted table has no line in the ledger, so that it is neither
//! taken for whole nor for empty; nothing but comparing and chunks changes rows
//! between the beginning of the copy and its end.
//!
//! What it does not do: compare. The snapshot worker and `crate::verify` do.

use super::relation_map;
use super::schema::quote;
use crate::origin::{self, rounds::Round};
use crate::shadow::{Session, Shadow};
use crate::{Error, Result, verify};
use scry_wire::catalog::{Catalog, Entry};
use scry_wire::message::{Hello, LeftOutText, Relation};
use tokio_postgres::GenericClient;

/// Begins the copy of `round` with the tables as they are, if they may be compared. Returns what
/// the shadow does not have of the schema; `None` if all is to be made anew.
///
/// # Errors
/// The shadow cannot be spoken to.
pub async fn begin(
    shadow: &Shadow,
    hello: &Hello,
    session: &Session,
    round: &Round,
    catalog: &Catalog,
    document: &[u8],
) -> Result<Option<Vec<LeftOutText>>> {
    session.batch_execute("BEGIN").await.map_err(Error::sql("begin"))?;
    let begun = async {
        // A stream of the former history waits here, and then finds another one.
        let usable = session.query_opt(LOCK_USABLE, &[&hello.generation.cast_signed()]).await;
        if usable.map_err(Error::sql("read scry_shadow.origin"))?.is_none() {
            return Ok(None);
        }
        if !verify::is_same_schema(shadow, session, catalog).await? {
            return Ok(None);
        }
        let left_out = origin::left_out(&**session).await?;
        origin::forget_history(&**session).await?;
        origin::begin_copy(&**session, hello, round).await?;
        origin::store_catalog(&**session, Some(document)).await?;
        origin::store_left_out(&**session, &left_out).await?;
        let tables: Vec<u32> = super::lead::table_names(catalog).into_keys().collect();
        let noted =
            session.execute(NOTE, &[&tables]).await.map_err(Error::sql("write scry_shadow.former"))?;
        let kept = session.batch_execute("UPDATE scry_shadow.origin SET schema_kept = true").await;
        kept.map_err(Error::sql("update scry_shadow.origin"))?;
        set_sequences(session, catalog).await?;
        tracing::info!(
            shadow = %shadow.database, generation = hello.generation, copy_id = round.copy_id, tables = noted,
            "the schema is the source's still; tables are compared before they are copied"
        );
        Ok(Some(left_out))
    }
    .await;
    if let Ok(Some(_)) = begun {
        session.batch_execute("COMMIT").await.map_err(Error::sql("commit the beginning of a copy"))?;
        return begun;
    }
    session.batch_execute("ROLLBACK").await.map_err(Error::sql("leave the former history"))?;
    match begun {
        // What stands in the way does so no longer when all of it is dropped.
        Err(error @ Error::Sql { .. }) => {
            tracing::warn!(shadow = %shadow.database, %error, "could not look at the former rows; the copy begins anew");
            Ok(None)
        }
        begun => begun,
    }
}

/// Sequences stand where the source's do; the stream brings what comes later.
async fn set_sequences(session: &Session, catalog: &Catalog) -> Result<()> {
    for object in &catalog.objects {
        if let Entry::Sequence(sequence) = &object.entry
            && let Some(last_value) = sequence.last_value
        {
            let (schema, name) = (&sequence.schema, &sequence.name);
            let set = session
                .execute(super::writer::SETVAL, &[schema, name, &last_value, &sequence.is_called])
                .await;
            set.map_err(Error::sql(format!("set sequence {schema}.{name}")))?;
        }
    }
    Ok(())
}

/// Whether the copy that is under way, or was the last, has kept the schema.
///
/// # Errors
/// The shadow cannot be read.
pub async fn is_schema_kept(client: &impl GenericClient) -> Result<bool> {
    let row = client.query_opt("SELECT schema_kept FROM scry_shadow.origin", &[]).await;
    Ok(row.map_err(Error::sql("read scry_shadow.origin"))?.is_some_and(|row| row.get(0)))
}

/// Tables that are neither settled nor copied yet.
///
/// # Errors
/// The shadow cannot be read.
pub async fn relids(client: &impl GenericClient) -> Result<Vec<u32>> {
    let rows = client.query("SELECT relid FROM scry_shadow.former ORDER BY relid", &[]).await;
    Ok(rows.map_err(Error::sql("read scry_shadow.former"))?.iter().map(|row| row.get(0)).collect())
}

/// A chunk of the table is about to be loaded, in the open transaction: the first one of a table
/// with former rows takes them away.
///
/// # Errors
/// The shadow refuses it.
pub async fn make_room(session: &Session, relation: &Relation) -> Result<()> {
    // A second chunk waits here for the first one's end.
    let noted =
        session.execute(FORGET, &[&relation.relid]).await.map_err(Error::sql("write scry_shadow.former"))?;
    if noted == 0 {
        return Ok(());
    }
    super::lead::empty_tables(session, &[&relation_map::qualified(relation)]).await
}

/// The table's rows are those of the snapshot: it counts as one chunk of this round.
///
/// # Errors
/// Another round is under way, or the table was not noted.
pub async fn settle(session: &Session, generation: u64, copy_id: u64, relid: u32, rows: u64) -> Result<()> {
    let cannot = || Error::sql("write the ledger line of a table that was compared");
    session.batch_execute("BEGIN").await.map_err(cannot())?;
    lock_round(session, generation, copy_id).await?;
    let noted = session.execute(FORGET, &[&relid]).await.map_err(cannot())?;
    // One that was settled before, by a worker that did not hear of it, is settled again.
    let line = if noted == 1 { SETTLE } else { SETTLED };
    let ids: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
        [&relid, &copy_id.cast_signed(), &rows.cast_signed()];
    if session.execute(line, &ids).await.map_err(cannot())? != 1 {
        return Err(Error::protocol(format!("relation {relid} has no rows of a former history")));
    }
    session.batch_execute("COMMIT").await.map_err(cannot())
}

/// Requires that this round is under way, and keeps others from beginning until the open
/// transaction ends.
///
/// # Errors
/// It is not.
pub async fn lock_round(session: &Session, generation: u64, copy_id: u64) -> Result<()> {
    let row = session.query_opt(LOCK_ROUND, &[&generation.cast_signed(), &copy_id.cast_signed()]).await;
    match row.map_err(Error::sql("read scry_shadow.origin"))? {
        Some(_) => Ok(()),
        None => {
            Err(Error::Busy(format!("the copy with id {copy_id} is not the one under way on the shadow")))
        }
    }
}

/// Completes a copy that kept the schema: materialized views are filled anew, from the bottom.
/// Returns those that could not be.
///
/// # Errors
/// The shadow cannot be spoken to.
pub async fn complete(session: &Session, catalog: &Catalog) -> Result<Vec<LeftOutText>> {
    let mut refused = Vec::new();
    for view in super::refill::filled_on_source(catalog) {
        let name = quote::qualified(&view.schema, &view.name);
        let filled = session.batch_execute(&format!("REFRESH MATERIALIZED VIEW {name}")).await;
        match filled {
            Err(error) if error.code().is_some() => refused.push(LeftOutText {
                object: format!("materialized view {}.{}", view.schema, view.name),
                reason: crate::error_text(&error),
            }),
            filled => filled.map_err(Error::sql(format!("fill {name}")))?,
        }
    }
    // Of tables that the source has dropped meanwhile; the stream drops them here.
    session
        .batch_execute("DELETE FROM scry_shadow.former")
        .await
        .map_err(Error::sql("write scry_shadow.former"))?;
    Ok(refused)
}

/// `$1` the new generation. A table on hold or missing is no place to go on from.
const LOCK_USABLE: &str = "SELECT FROM scry_shadow.origin WHERE copy_state = 'copied' AND generation NOT IN (0, $1) \
    AND NOT EXISTS (SELECT FROM scry_shadow.hold) \
    AND NOT EXISTS (SELECT FROM scry_shadow.quarantined WHERE absent) FOR UPDATE";
const LOCK_ROUND: &str = "SELECT FROM scry_shadow.origin \
    WHERE generation = $1 AND copy_id = $2 AND copy_state = 'copying' FOR SHARE";
const NOTE: &str = "INSERT INTO scry_shadow.former SELECT pg_catalog.unnest($1::oid[])";
const SETTLE: &str =
    "INSERT INTO scry_shadow.chunk (relid, chunk, chunks, copy_id, rows) VALUES ($1, 0, 1, $2, $3)";
const SETTLED: &str = "SELECT FROM scry_shadow.chunk \
    WHERE relid = $1 AND chunk = 0 AND chunks = 1 AND copy_id = $2 AND rows = $3";
const FORGET: &str = "DELETE FROM scry_shadow.former WHERE relid = $1";
