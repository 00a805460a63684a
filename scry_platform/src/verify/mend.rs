//! The source's rows in place of the shadow's that differ, while the stream
//! stands still.
//!
//! ```text
//! BEGIN ─► the position is still ours (row lock) ─► find rows of these keys
//!       ─► DELETE by ctid ─► COPY the source's rows ─► COMMIT
//! ```
//!
//! Invariant: nobody else writes meanwhile. The stream stands still, or has not begun; should its
//! connection be replaced, the new one's first commit waits for the lock on the
//! position here. What it does not do: look into values.

use super::diff::Differing;
use super::rows::TableRows;
use crate::accept::link::{FrameReader, unexpected};
use crate::apply::copy::{Sink, copy_statement};
use crate::apply::former;
use crate::apply::relation_map::{full_name, qualified};
use crate::shadow::{Purpose, Session, Shadow};
use crate::{Error, Result};
use scry_wire::Lsn;
use scry_wire::frame::{Frame, Tag};
use scry_wire::message::{Ask, Message, Relation, Tell};
use tokio_postgres::types::PgLsn;

/// A table to mend.
pub struct Table<'a> {
    /// As its rows are hashed.
    pub hashed: &'a Relation,
    /// As its rows are written.
    pub relation: &'a Relation,
    /// The keys that differ.
    pub keys: &'a Differing,
}

/// Why nobody else writes meanwhile.
#[derive(Debug, Clone, Copy)]
pub enum Still {
    /// The stream is held at this position.
    Stream {
        /// The position.
        applied: Lsn,
    },
    /// This round of a copy is under way.
    Copy {
        /// Which full start of the job.
        generation: u64,
        /// The round.
        copy_id: u64,
    },
}

/// Mends a table; reads the source's rows until [`Ask::End`] whatever happens.
/// An inner error is the table's own; an outer one ends the session.
pub async fn mend(
    shadow: &Shadow,
    still: Still,
    table: &Table<'_>,
    reader: &mut FrameReader,
) -> Result<Result<Tell>> {
    let session = shadow.owner.open(Purpose::Apply).await?.cancelled_on_drop();
    let mut rows = SentRows { reader, ended: false };
    let mended = within(&session, still, table, &mut rows).await;
    while rows.next().await?.is_some() {}
    let mended = match mended {
        Ok(mended) => mended,
        Err(error @ Error::Sql { .. }) => {
            session.close().await;
            return Ok(Err(error));
        }
        Err(error) => return Err(error),
    };
    session.close().await;
    Ok(Ok(mended))
}

async fn within(session: &Session, still: Still, table: &Table<'_>, rows: &mut SentRows<'_>) -> Result<Tell> {
    let name = full_name(table.relation);
    let cannot = |what: &str| Error::sql(format!("{what} {name}"));
    session.batch_execute(BEGIN).await.map_err(cannot("begin to mend"))?;
    match still {
        Still::Stream { applied } => {
            let row =
                session.query_opt(LOCK_POSITION, &[]).await.map_err(cannot("lock the position to mend"))?;
            if row.map(|row| row.get(0)) != Some(PgLsn::from(applied.0)) {
                return Err(Error::Busy("the shadow's position was moved by another connection".to_owned()));
            }
        }
        Still::Copy { generation, copy_id } => former::lock_round(session, generation, copy_id).await?,
    }
    let mut found: Vec<String> = Vec::new();
    let each = |row: super::rows::Row| {
        if table.keys.contains(row.hash) {
            found.push(format!("({},{})", row.ctid.0, row.ctid.1));
        }
        Ok(())
    };
    TableRows::new(table.hashed, true).read(session, each).await?;
    let delete =
        format!("DELETE FROM ONLY {} WHERE ctid = ANY ($1::text[]::tid[])", qualified(table.relation));
    let mut deleted = 0;
    for part in found.chunks(DELETE_ROWS) {
        deleted += session.execute(&delete, &[&part]).await.map_err(cannot("delete rows of"))?;
    }
    if deleted != found.len() as u64 {
        return Err(Error::protocol(format!("{} rows of {name} were {deleted} on the shadow", found.len())));
    }
    let inserted = copy(session, table.relation, rows).await?;
    session.batch_execute("COMMIT").await.map_err(cannot("commit what was mended of"))?;
    Ok(Tell::Mended { relid: table.relation.relid, deleted, inserted })
}

/// Writes the source's rows.
async fn copy(session: &Session, relation: &Relation, rows: &mut SentRows<'_>) -> Result<u64> {
    let cannot = || Error::sql(format!("copy rows into {}", full_name(relation)));
    let copy = session.copy_in(&copy_statement(relation, false)).await.map_err(cannot())?;
    let mut sink = Sink::new(copy, relation.format);
    while let Some(frame) = rows.next().await? {
        if sink.send(frame.payload()).await?.is_err() {
            break;
        }
    }
    sink.finish().await?.map_err(cannot())
}

/// The rows that the source sends.
struct SentRows<'a> {
    reader: &'a mut FrameReader,
    ended: bool,
}

impl SentRows<'_> {
    async fn next(&mut self) -> Result<Option<Frame>> {
        if self.ended {
            return Ok(None);
        }
        let frame = self.reader.expect().await?;
        match frame.tag() {
            Tag::Rows => Ok(Some(frame)),
            Tag::Ask if Ask::from_frame(&frame)? == Ask::End => {
                self.ended = true;
                Ok(None)
            }
            _ => Err(unexpected(&frame, "rows or their end")),
        }
    }
}

/// All rows are looked at once: an index would be the long way round.
const BEGIN: &str = "BEGIN; SET LOCAL enable_seqscan = on; SET LOCAL bytea_output = 'hex'";
const LOCK_POSITION: &str = "SELECT applied_lsn FROM scry_shadow.origin FOR UPDATE";
const DELETE_ROWS: usize = 5_000;
