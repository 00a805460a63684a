//! What the frames carry: a file each, the writer beside the reader.
//!
//! ```text
//! worker → platform                     platform → worker
//! Hello ─────────────────────────────►  Welcome | Refuse | Notice
//!
//! lead:    Catalog… ─────────────────►  CatalogApplied
//!          CopyFinish ───────────────►  CopyProgress… CopyFinished
//!          LateCopy ─────────────────►  CatalogApplied
//! copy:    ChunkStart Rows… ChunkEnd ►  ChunkDone
//! stream:  Batch… Piece… ────────────►  TableMarks… Confirm…
//! verify:  Ask [Rows…] … ────────────►  Tell…
//! ```

pub mod change;
mod chunk;
mod confirm;
mod copy;
mod hello;
mod late_copy;
mod notice;
pub mod piece;
mod refuse;
mod relation;
mod table_marks;
mod verify;
mod welcome;

pub use chunk::{ChunkDone, ChunkEnd, ChunkStart};
pub use confirm::Confirm;
pub use copy::{CatalogApplied, CopiedTable, CopyFinish, CopyFinished, CopyProgress, DoneChunk, LeftOutText};
pub use hello::{Hello, Role};
pub use late_copy::LateCopy;
pub use notice::{Level, Notice};
pub use refuse::{Refuse, RefuseKind};
pub use relation::{Column, Format, Relation, ReplicaIdentity, STORED_JSONB};
pub use table_marks::{TableMark, TableMarks};
pub use verify::{Ask, DiffCounts, KEYS_MAX, SCHEMA_LINES_MAX, Tell};
pub use welcome::{CopyState, Welcome};

use crate::Error;
use crate::codec::{Reader, Writer};
use crate::frame::{self, Frame, Tag};

/// A message that fills one frame.
pub trait Message: Sized {
    /// The frame's tag.
    const TAG: Tag;
    /// Its name, for errors.
    const NAME: &'static str;

    /// Appends the payload.
    fn write(&self, w: &mut Writer<'_>);
    /// Reads the payload.
    fn read(r: &mut Reader<'_>) -> Result<Self, Error>;

    /// The whole frame.
    fn to_frame(&self) -> Vec<u8> {
        frame::frame(Self::TAG, |buf| self.write(&mut Writer::new(buf)))
    }

    /// Reads the message out of `frame`; any other frame is an error.
    fn from_frame(frame: &Frame) -> Result<Self, Error> {
        if frame.tag() != Self::TAG {
            return Err(Error::Unexpected { tag: frame.tag().as_char(), expected: Self::NAME });
        }
        Self::from_payload(&frame.payload())
    }

    /// Reads the message out of a payload.
    fn from_payload(payload: &[u8]) -> Result<Self, Error> {
        let mut r = Reader::new(payload);
        let message = Self::read(&mut r)?;
        r.finish(Self::NAME)?;
        Ok(message)
    }
}
