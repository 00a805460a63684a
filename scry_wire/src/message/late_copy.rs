//! A copy of single tables while the stream goes on, between the snapshot
//! leader and the platform.
//!
//! The tables are on hold: the stream said so ([`super::change::Change::Schema`]),
//! and since then the platform keeps their changes. The leader names the
//! snapshot that its workers read under; the platform empties the tables and
//! answers with [`super::CatalogApplied`]. Chunks and
//! [`super::CopyFinish`] follow as in the first copy, for these tables only.
//!
//! Invariant (the writer's to keep): everything that was committed in the WAL
//! before `from_lsn` had ended before the snapshot was taken, and `until_lsn`
//! was read after it. So the snapshot saw all of the table that came before
//! the hold, and a stream that has reached `until_lsn` has brought all that
//! the snapshot saw.

use super::Message;
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::{Error, Lsn, limits};

/// A round of a late copy begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateCopy {
    /// The round: its chunks carry the same number.
    pub copy_id: u64,
    /// Every transaction whose commit stands in the WAL before this is seen by
    /// the snapshot.
    pub from_lsn: Lsn,
    /// Every transaction that the snapshot saw is in the WAL before this.
    pub until_lsn: Lsn,
    /// The snapshot, as `pg_current_snapshot()` writes it.
    pub snapshot: String,
    /// The tables.
    pub relids: Vec<u32>,
}

impl Message for LateCopy {
    const TAG: Tag = Tag::LateCopy;
    const NAME: &'static str = "late copy";

    fn write(&self, w: &mut Writer<'_>) {
        w.u64(self.copy_id);
        w.lsn(self.from_lsn);
        w.lsn(self.until_lsn);
        w.text(&self.snapshot, limits::TEXT_BYTES_MAX);
        let relids = self.relids.get(..limits::JOB_TABLES_MAX).unwrap_or(&self.relids);
        w.u32(u32::try_from(relids.len()).unwrap_or(0));
        relids.iter().for_each(|relid| w.u32(*relid));
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(LateCopy {
            copy_id: r.u64("copy_id")?,
            from_lsn: r.lsn("from_lsn")?,
            until_lsn: r.lsn("until_lsn")?,
            snapshot: r.text(limits::TEXT_BYTES_MAX, "snapshot")?,
            relids: (0..r.count(limits::JOB_TABLES_MAX, "late tables")?)
                .map(|_| r.u32("relid"))
                .collect::<Result<_, _>>()?,
        })
    }
}

const _: () = assert!(
    8 * 3 + 4 + limits::TEXT_BYTES_MAX + 4 + 4 * limits::JOB_TABLES_MAX <= limits::FRAME_PAYLOAD_MAX,
    "the largest late copy fits a frame"
);
