//! Tables whose rows on the shadow are not the source's, because changes of
//! them were refused there and kept aside (quarantine): from the platform to
//! the stream worker.
//!
//! Sent behind the welcome and after each change. The list is whole: a table
//! that does not stand in it is as it should be.

use super::Message;
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::{Error, limits};

/// A table with changes in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMark {
    /// The table.
    pub relid: u32,
    /// Changes that the shadow did not take.
    pub changes: u64,
    /// Later changes are not tried any more: only a copy mends the table.
    pub diverged: bool,
    /// Operation and cause of the last one, without a value.
    pub cause: String,
}

/// The tables with changes in quarantine: all of them, up to
/// [`limits::MARKS_MAX`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableMarks {
    /// By oid.
    pub tables: Vec<TableMark>,
}

impl Message for TableMarks {
    const TAG: Tag = Tag::TableMarks;
    const NAME: &'static str = "table marks";

    fn write(&self, w: &mut Writer<'_>) {
        let tables = self.tables.get(..limits::MARKS_MAX).unwrap_or(&self.tables);
        w.u32(u32::try_from(tables.len()).unwrap_or(0));
        for table in tables {
            w.u32(table.relid);
            w.u64(table.changes);
            w.bool(table.diverged);
            w.text(&table.cause, limits::CAUSE_BYTES_MAX);
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        let mark = |r: &mut Reader<'_>| {
            Ok(TableMark {
                relid: r.u32("relid")?,
                changes: r.u64("changes")?,
                diverged: r.bool("diverged")?,
                cause: r.text(limits::CAUSE_BYTES_MAX, "cause")?,
            })
        };
        let count = r.count(limits::MARKS_MAX, "marked tables")?;
        Ok(TableMarks { tables: (0..count).map(|_| mark(r)).collect::<Result<_, _>>()? })
    }
}

const _: () = assert!(
    4 + limits::MARKS_MAX * (4 + 8 + 1 + 4 + limits::CAUSE_BYTES_MAX) <= limits::FRAME_PAYLOAD_MAX,
    "the largest list of marks fits a frame"
);
