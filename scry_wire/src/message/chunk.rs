//! A piece of a table's copy: start, end, and the shadow's receipt.
//!
//! Between start and end stand `Rows` frames: tuples in the relation's format,
//! one after another; a tuple may cross frames. Rows and the chunk's ledger
//! entry become visible on the shadow together; a chunk that is there already
//! is answered at once and its rows are dropped.

use super::{Message, Relation};
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::{Error, limits};

/// A chunk begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkStart {
    /// The snapshot under which the chunk is read.
    pub copy_id: u64,
    /// The chunk's number in its table, from 0.
    pub chunk: u32,
    /// How many chunks the table has under this snapshot.
    pub chunks: u32,
    /// The table, and what its rows look like.
    pub relation: Relation,
}

impl Message for ChunkStart {
    const TAG: Tag = Tag::ChunkStart;
    const NAME: &'static str = "chunk start";

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.copy_id);
        w.u32(self.chunk);
        w.u32(self.chunks);
        self.relation.write(w);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        let (copy_id, chunk, chunks) = (r.u64("copy_id")?, r.u32("chunk")?, r.u32("chunks")?);
        if chunks > limits::CHUNKS_MAX {
            return Err(Error::TooLarge {
                what: "chunks",
                got: chunks.into(),
                max: limits::CHUNKS_MAX.into(),
            });
        }
        if chunk >= chunks {
            return Err(Error::Undefined { what: "chunk", got: chunk.into() });
        }
        Ok(ChunkStart { copy_id, chunk, chunks, relation: Relation::read_of_chunk(r)? })
    }
}

/// All rows of the open chunk have been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEnd {
    /// Rows in the chunk; the platform refuses a chunk that has others.
    pub rows: u64,
}

impl Message for ChunkEnd {
    const TAG: Tag = Tag::ChunkEnd;
    const NAME: &'static str = "chunk end";

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.rows);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(ChunkEnd { rows: r.u64("rows")? })
    }
}

/// The chunk is durable on the shadow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkDone {
    /// The table.
    pub relid: u32,
    /// The chunk's number.
    pub chunk: u32,
    /// Rows in it.
    pub rows: u64,
    /// It was there before: the rows just sent were dropped.
    pub repeated: bool,
}

impl Message for ChunkDone {
    const TAG: Tag = Tag::ChunkDone;
    const NAME: &'static str = "chunk receipt";

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.relid);
        w.u32(self.chunk);
        w.u64(self.rows);
        w.bool(self.repeated);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(ChunkDone {
            relid: r.u32("relid")?,
            chunk: r.u32("chunk")?,
            rows: r.u64("rows")?,
            repeated: r.bool("repeated")?,
        })
    }
}
