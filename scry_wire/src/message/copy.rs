//! Beginning and end of a copy, between the snapshot leader and the platform.
//!
//! The leader sends the catalog document in `Catalog` frames (all but the last
//! with the continued flag). The platform makes the schema and answers with
//! the ledger: what it holds already. When every chunk has its receipt the
//! leader sends the count of chunks of every table; the platform checks them
//! against the ledger, builds indexes and constraints, and says when the
//! shadow is complete.

use super::Message;
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::{Error, limits};

/// A chunk that the shadow holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoneChunk {
    /// The table.
    pub relid: u32,
    /// The chunk's number.
    pub chunk: u32,
    /// Rows in it.
    pub rows: u64,
}

/// An object that the shadow does not have, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOutText {
    /// Kind and name of the object.
    pub object: String,
    /// Why it is not there.
    pub reason: String,
}

/// The shadow has the tables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CatalogApplied {
    /// Tables that are complete, by an earlier snapshot or this one.
    pub tables: Vec<CopiedTable>,
    /// Chunks of this snapshot that are there already.
    pub chunks: Vec<DoneChunk>,
    /// Tables that hold rows of a former history of this shadow: to be compared before they are
    /// copied. One that is copied loses them with its first chunk.
    pub former: Vec<u32>,
    /// What could not be made.
    pub left_out: Vec<LeftOutText>,
}

impl CatalogApplied {
    /// How many tables a receipt names at most; of more it names the first.
    pub const TABLES_MAX: usize = RECEIPT_MAX;
    /// How many tables with former rows it names at most.
    pub const FORMER_MAX: usize = 8 << 10;
}

impl Message for CatalogApplied {
    const TAG: Tag = Tag::CatalogApplied;
    const NAME: &'static str = "catalog receipt";

    fn write(&self, w: &mut Writer<'_>) {
        write_tables(w, &self.tables, RECEIPT_MAX);
        let chunks = self.chunks.get(..RECEIPT_MAX).unwrap_or(&self.chunks);
        w.u32(u32::try_from(chunks.len()).unwrap_or(0));
        for chunk in chunks {
            w.u32(chunk.relid);
            w.u32(chunk.chunk);
            w.u64(chunk.rows);
        }
        let former = self.former.get(..Self::FORMER_MAX).unwrap_or(&self.former);
        w.u32(u32::try_from(former.len()).unwrap_or(0));
        former.iter().for_each(|relid| w.u32(*relid));
        write_left_out(w, &self.left_out);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        let tables = read_tables(r, RECEIPT_MAX)?;
        let chunks = (0..r.count(RECEIPT_MAX, "chunks")?)
            .map(|_| Ok(DoneChunk { relid: r.u32("relid")?, chunk: r.u32("chunk")?, rows: r.u64("rows")? }))
            .collect::<Result<_, Error>>()?;
        let former = (0..r.count(Self::FORMER_MAX, "tables with former rows")?)
            .map(|_| r.u32("relid"))
            .collect::<Result<_, Error>>()?;
        Ok(CatalogApplied { tables, chunks, former, left_out: read_left_out(r)? })
    }
}

/// A table's copy, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedTable {
    /// The table.
    pub relid: u32,
    /// How many chunks it has.
    pub chunks: u32,
    /// How many rows they hold.
    pub rows: u64,
}

/// Everything has been sent and received: complete the shadow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyFinish {
    /// Every table of the job.
    pub tables: Vec<CopiedTable>,
}

impl Message for CopyFinish {
    const TAG: Tag = Tag::CopyFinish;
    const NAME: &'static str = "copy finish";

    fn write(&self, w: &mut Writer<'_>) {
        write_tables(w, &self.tables, limits::JOB_TABLES_MAX);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(CopyFinish { tables: read_tables(r, limits::JOB_TABLES_MAX)? })
    }
}

/// How far the work after the data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyProgress {
    /// Steps done.
    pub done: u32,
    /// Steps in all.
    pub total: u32,
    /// What is being made now.
    pub current: String,
}

impl Message for CopyProgress {
    const TAG: Tag = Tag::CopyProgress;
    const NAME: &'static str = "copy progress";

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.done);
        w.u32(self.total);
        w.text(&self.current, limits::TEXT_BYTES_MAX);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(CopyProgress {
            done: r.u32("done")?,
            total: r.u32("total")?,
            current: r.text(limits::TEXT_BYTES_MAX, "current step")?,
        })
    }
}

/// The shadow is complete; changes are applied from here on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyFinished {
    /// What could not be made.
    pub left_out: Vec<LeftOutText>,
}

impl Message for CopyFinished {
    const TAG: Tag = Tag::CopyFinished;
    const NAME: &'static str = "copy receipt";

    fn write(&self, w: &mut Writer<'_>) {
        write_left_out(w, &self.left_out);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(CopyFinished { left_out: read_left_out(r)? })
    }
}

fn write_tables(w: &mut Writer<'_>, tables: &[CopiedTable], max: usize) {
    let tables = tables.get(..max).unwrap_or(tables);
    w.u32(u32::try_from(tables.len()).unwrap_or(0));
    for table in tables {
        w.u32(table.relid);
        w.u32(table.chunks);
        w.u64(table.rows);
    }
}

fn read_tables(r: &mut Reader<'_>, max: usize) -> Result<Vec<CopiedTable>, Error> {
    (0..r.count(max, "tables")?)
        .map(|_| Ok(CopiedTable { relid: r.u32("relid")?, chunks: r.u32("chunks")?, rows: r.u64("rows")? }))
        .collect()
}

/// Objects that can be named in one receipt.
const LEFT_OUT_MAX: usize = 256;
const LEFT_OUT_TEXT_MAX: usize = 900;
/// Tables and chunks that one receipt can name. What is not named is sent
/// again, recognised, and dropped.
const RECEIPT_MAX: usize = 16 << 10;

const _: () = assert!(
    2 * (4 + 16 * RECEIPT_MAX)
        + 4
        + 4 * CatalogApplied::FORMER_MAX
        + 4
        + LEFT_OUT_MAX * 2 * (4 + LEFT_OUT_TEXT_MAX)
        <= limits::FRAME_PAYLOAD_MAX,
    "the largest receipt fits a frame"
);
const _: () =
    assert!(4 + 16 * limits::JOB_TABLES_MAX <= limits::FRAME_PAYLOAD_MAX, "so does the largest job");

fn write_left_out(w: &mut Writer<'_>, left_out: &[LeftOutText]) {
    let listed = left_out.get(..LEFT_OUT_MAX).unwrap_or(left_out);
    w.u32(u32::try_from(listed.len()).unwrap_or(0));
    for item in listed {
        w.text(&item.object, LEFT_OUT_TEXT_MAX);
        w.text(&item.reason, LEFT_OUT_TEXT_MAX);
    }
}

fn read_left_out(r: &mut Reader<'_>) -> Result<Vec<LeftOutText>, Error> {
    (0..r.count(LEFT_OUT_MAX, "objects left out")?)
        .map(|_| {
            Ok(LeftOutText {
                object: r.text(LEFT_OUT_TEXT_MAX, "object")?,
                reason: r.text(LEFT_OUT_TEXT_MAX, "reason")?,
            })
        })
        .collect()
}
