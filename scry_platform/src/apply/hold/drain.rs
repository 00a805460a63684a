//! The end of a hold: the copy and the changes kept meanwhile become one.
//!
//! ```text
//! kept, in order ─► seen by the copy's snapshot? ─┬─ yes ─► dropped
//!                                                 └─ no ──► writer ─┐
//! kept, hold deleted ────────────────────────────────────────────────┴─► COMMIT: the table is live
//! ```
//!
//! One shadow transaction a table, between two source transactions: whoever
//! looks at the shadow sees the table empty or half copied and then, at once,
//! as the source had it at the stream's position. Memory: a window of the kept
//! changes, and a single large one whole.
//!
//! What cannot be applied does not stop the stream: the table goes back to
//! waiting, with the reason, and is copied again.

use super::{Hold, Holds};
use crate::apply::writer::Writer;
use crate::shadow::Session;
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::codec::Reader;
use scry_wire::message::Relation;
use scry_wire::message::change::Change;
use scry_wire::{Lsn, SeenBy};

/// Applies what was kept of `hold`'s table and ends the hold. No transaction
/// may be open. Returns how many changes were applied.
///
/// # Errors
/// The writer's transaction may be open still; its owner rolls it back.
pub async fn drain(
    writer: &mut Writer,
    holds: &mut Holds,
    hold: &Hold,
    generation: u64,
    position: Lsn,
) -> Result<u64> {
    let current = writer.relation(hold.relid).cloned();
    writer.begin().await?;
    // What was refused before the copy is in it.
    writer.drain().await?;
    writer.clear_marks(hold.relid).await?;
    let applied = apply(writer, hold).await;
    // Also after an error: the stream goes on with its own description.
    if let Some(current) = current {
        let described = writer.describe(current).await;
        if applied.is_ok() {
            described?;
        }
    }
    let rows = applied?;
    writer.flush().await?;
    end(writer.session(), hold, holds.len() == 1).await?;
    writer.commit(generation, position, position, rows).await?;
    holds.remove(hold.relid);
    Ok(rows)
}

/// Puts the table back to waiting: another round copies it anew.
pub async fn give_back(session: &Session, hold: &Hold, why: &str) -> Result<()> {
    let sql = "UPDATE scry_shadow.hold SET state = 'waiting', copy_id = 0, snapshot = '', until_lsn = '0/0', \
               why = $3 WHERE relid = $1 AND copy_id = $2";
    session
        .execute(sql, &[&hold.relid, &hold.copy_id.cast_signed(), &why])
        .await
        .map_err(Error::sql("write scry_shadow.hold"))?;
    Ok(())
}

async fn apply(writer: &mut Writer, hold: &Hold) -> Result<u64> {
    let bad = |text: String| Error::protocol(format!("scry_shadow.hold: {text}"));
    let seen: SeenBy = hold.snapshot.parse().map_err(bad)?;
    let mut window = Window { relid: hold.relid, after: -1 };
    let (mut rows, mut half) = (0, Vec::new());
    loop {
        let pieces = window.next(writer).await?;
        if pieces.is_empty() {
            break;
        }
        for piece in pieces {
            if let Some(relation) = piece.relation {
                writer.describe(read_relation(&relation)?).await?;
            }
            if seen.saw(piece.xid) {
                continue;
            }
            writer.transaction(piece.xid, hold.until);
            half.extend_from_slice(&piece.changes);
            if !piece.more {
                rows += replay(writer, &Bytes::from(std::mem::take(&mut half))).await?;
            }
        }
    }
    if half.is_empty() { Ok(rows) } else { Err(Error::protocol("a kept change has no end")) }
}

/// Kept changes of one table, a window at a time.
struct Window {
    relid: u32,
    after: i64,
}

/// A row of `scry_shadow.kept`.
struct Piece {
    xid: u64,
    relation: Option<Vec<u8>>,
    changes: Vec<u8>,
    more: bool,
}

impl Window {
    async fn next(&mut self, writer: &mut Writer) -> Result<Vec<Piece>> {
        // The log and its answers go first: nothing else may be under way.
        writer.drain().await?;
        let cannot = Error::sql("read scry_shadow.kept");
        let rows =
            writer.session().query(SELECT_WINDOW, &[&self.relid, &self.after]).await.map_err(cannot)?;
        if let Some(last) = rows.last() {
            self.after = last.get("seq");
        }
        let piece = |row: &tokio_postgres::Row| Piece {
            xid: row.get::<_, i64>("xid").cast_unsigned(),
            relation: row.get("relation"),
            changes: row.get("changes"),
            more: row.get("more"),
        };
        Ok(rows.iter().map(piece).collect())
    }
}

fn read_relation(bytes: &[u8]) -> Result<Relation> {
    let mut reader = Reader::new(bytes);
    let relation = Relation::read(&mut reader)?;
    reader.finish("relation")?;
    Ok(relation)
}

async fn replay(writer: &mut Writer, bytes: &Bytes) -> Result<u64> {
    let mut reader = Reader::new(bytes);
    let mut rows = 0;
    while reader.remaining() > 0 {
        rows += 1;
        match Change::read(&mut reader)? {
            Change::Insert { relid, new } => writer.insert(bytes, relid, new).await?,
            Change::Update { relid, old, new } => writer.update(bytes, relid, old, new).await?,
            Change::Delete { relid, old } => writer.delete(bytes, relid, old).await?,
            Change::Truncate { relids, .. } => writer.truncate(&relids).await?,
            _ => return Err(Error::protocol("a change of another kind was kept")),
        }
    }
    Ok(rows)
}

async fn end(session: &Session, hold: &Hold, is_last: bool) -> Result<()> {
    let cannot = || Error::sql("end a hold in scry_shadow");
    let sql = "DELETE FROM scry_shadow.hold WHERE relid = $1 AND copy_id = $2 AND state = 'copied'";
    let gone = session.execute(sql, &[&hold.relid, &hold.copy_id.cast_signed()]).await.map_err(cannot())?;
    if gone != 1 {
        return Err(Error::Busy("the hold of a table was begun anew meanwhile".to_owned()));
    }
    let cleared = match is_last {
        // Gives the space back.
        true => session.batch_execute("TRUNCATE scry_shadow.kept").await,
        false => {
            let sql = "DELETE FROM scry_shadow.kept WHERE relid = $1";
            session.execute(sql, &[&hold.relid]).await.map(drop)
        }
    };
    cleared.map_err(cannot())
}

/// `$1` relid, `$2` the last `seq` seen: at most 2,000 rows, and no more of
/// them than 4 MB (but one).
const SELECT_WINDOW: &str = "SELECT seq, xid, relation, changes, more FROM (\
        SELECT *, pg_catalog.sum(pg_catalog.octet_length(changes)) OVER (ORDER BY seq) \
            - pg_catalog.octet_length(changes) AS before \
        FROM (SELECT * FROM scry_shadow.kept WHERE relid = $1 AND seq > $2 ORDER BY seq LIMIT 2000) AS k\
    ) AS w WHERE before < 4194304 ORDER BY seq";
