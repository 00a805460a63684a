//! Runs: inserts into one table that are written together.
//!
//! ```text
//! insert ─► run of rows of one table ─┬─ long or large ─► COPY
//!                                     ├─ some ─► a statement over arrays
//!                                     └─ few ─► statements
//! ```
//!
//! Invariants: a run is written before anything else of the writer is sent; its rows are
//! counted. Memory: one run, bounded in rows and bytes.

use super::copy::Sink;
use super::pipeline::Note;
use super::relation_map::Kind;
use super::tuple_values::cut;
use super::writer::{COPY_BYTES_MIN, Writer};
use crate::{Error, Result};
use bytes::Bytes;

/// Inserts into one table that wait to be written together.
#[derive(Default)]
pub(super) struct Run {
    relid: u32,
    rows: Vec<Bytes>,
    bytes: usize,
}

impl Writer {
    pub(super) async fn write_insert(&mut self, relid: u32, new: &Bytes) -> Result<()> {
        if self.run.relid != relid {
            self.write_run().await?;
            self.look_up(relid).await?;
            self.run.relid = relid;
        }
        self.run.bytes += new.len();
        self.run.rows.push(new.clone());
        if self.run.rows.len() >= RUN_ROWS_MAX || self.run.bytes >= RUN_BYTES_MAX {
            self.write_run().await?;
        }
        Ok(())
    }

    /// Writes the waiting inserts.
    pub(super) async fn write_run(&mut self) -> Result<()> {
        if self.run.rows.is_empty() {
            return Ok(());
        }
        let Run { relid, rows, bytes } = std::mem::take(&mut self.run);
        self.run.relid = relid;
        if is_for_copy(rows.len(), bytes) {
            return self.copy(relid, rows).await;
        }
        let Some(rows) = self.send_set(relid, "INSERT", Kind::InsertSet, rows).await? else { return Ok(()) };
        for row in rows {
            let columns = self.relations.target(relid)?.relation.columns.len();
            let values = cut(&row, &row, columns)?;
            let Some(prepared) = self.prepare(relid, &Kind::Insert).await? else { continue };
            let note = Note::one_row(relid, "INSERT", None);
            self.execute(relid, prepared, &values, &[], note).await?;
        }
        Ok(())
    }

    /// Writes rows by COPY. The session carries nothing else meanwhile.
    pub(super) async fn copy(&mut self, relid: u32, rows: Vec<Bytes>) -> Result<()> {
        self.drain().await?;
        let target = self.relations.target(relid)?;
        let format = target.relation.format;
        let statement = target.copy(&self.session).await?;
        let name = self.relations.name(relid);
        let cannot = || Error::sql(format!("INSERT into {name}"));
        let mut sink = Sink::new(self.session.copy_in(&statement).await.map_err(cannot())?, format);
        let wanted = rows.len() as u64;
        for row in rows {
            if sink.send(row).await?.is_err() {
                break;
            }
        }
        self.folding.blame(relid);
        let written = sink.finish().await?.map_err(cannot())?;
        if written == wanted {
            return Ok(());
        }
        let relation = self.relations.target(relid)?.relation.clone();
        Err(Error::Conflict {
            operation: "INSERT",
            schema: relation.schema,
            relation: relation.name,
            wanted,
            found: written,
        })
    }
}

/// Whether so many rows of so many bytes go by COPY.
pub(super) fn is_for_copy(rows: usize, bytes: usize) -> bool {
    rows >= COPY_ROWS_MIN || bytes >= COPY_BYTES_MIN
}

/// A COPY costs three round trips: below this many rows statements are quicker.
const COPY_ROWS_MIN: usize = 64;
const RUN_ROWS_MAX: usize = 16_384;
const RUN_BYTES_MAX: usize = 4 << 20;
