//! Comparing both sides, between a session on the source and the platform.
//!
//! ```text
//! Stop ─► Ready                    the stream stands still between two transactions
//! Position ─► At                   it goes on to the place that the source's snapshot means
//! Standing ─► At                   in a copy: the shadow stands still by itself
//! Table ─► Sums | Failed           the shadow's buckets of a table
//! Rows, D…, End ─► Keys… Diff      which rows are not the same
//! Mend, D…, End ─► Mended          the source's rows in place of the shadow's
//! Ranges ─► Ranges                 between which keys the rows lie that only the shadow has
//! Settled                          the table was found equal: its quarantine ends, or, in a copy, it is whole
//! C… ─► Schema                     the shadow's schema against the source's document
//! Release                          the shadow's transaction ends; a held stream goes on
//! ```
//!
//! Everything after [`Tell::At`] belongs to that one position: the shadow is
//! read in one transaction, opened while the stream stood there.

use super::{Message, Relation};
use crate::codec::{Reader, Writer};
use crate::frame::Tag;
use crate::hash::{BUCKETS, Bucket, Sums};
use crate::limits::TEXT_BYTES_MAX;
use crate::{Error, Lsn};

/// What the source's session wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The stream shall stop between two transactions, so that nothing passes
    /// that a snapshot taken after [`Tell::Ready`] does not see.
    Stop,
    /// The source's snapshot.
    Position {
        /// As `pg_current_snapshot()` writes it.
        seen: String,
        /// Every transaction that the snapshot saw ends before it.
        lsn: Lsn,
        /// The stream shall wait at the position until [`Ask::Release`].
        hold: bool,
    },
    /// In a copy: the shadow stands still until that is complete, so that any place is that of the
    /// copy's snapshot. As a position that is held.
    Standing {
        /// The round of the copy.
        copy_id: u64,
    },
    /// Hash this table: the columns as they stand in the hashed rows.
    Table(Relation),
    /// The source's rows in these buckets of a table follow: 32 bytes each in
    /// `Rows` frames, hash of the key and of the row; then [`Ask::End`].
    Rows {
        /// The table, as in [`Ask::Table`].
        relation: Relation,
        /// The buckets.
        buckets: Vec<u16>,
    },
    /// Mend the rows that [`Ask::Rows`] found to differ: the source's rows of
    /// these keys follow in `Rows` frames, as in a chunk; then [`Ask::End`].
    Mend {
        /// The table, as in [`Ask::Table`].
        hashed: Relation,
        /// The table, as its rows are written.
        relation: Relation,
    },
    /// Between which keys the rows lie that [`Ask::Rows`] found only on the shadow?
    Ranges(Relation),
    /// A table was found equal at this place, and its mark of refused changes
    /// ([`super::TableMarks`]) is to go: those up to here are no difference. In a copy: its rows
    /// of a former history are those of the snapshot, and count as one chunk.
    Settled {
        /// The table.
        relid: u32,
    },
    /// All rows have been sent.
    End,
    /// The position is no longer needed.
    Release,
}

/// How many rows of a table are not the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiffCounts {
    /// The shadow lacks them.
    pub missing: u64,
    /// The source does not have them.
    pub extra: u64,
    /// They have the same key and other values.
    pub changed: u64,
}

impl DiffCounts {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.missing + self.extra + self.changed
    }
}

/// What the platform answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// The stream stands still: take the snapshot now.
    Ready,
    /// The shadow's transaction is open at the position.
    At {
        /// The shadow is exactly what the snapshot saw. If not, a transaction
        /// became visible on the source in another order than it was committed
        /// in: take another snapshot.
        exact: bool,
    },
    /// A table's buckets.
    Sums {
        /// The table.
        relid: u32,
        /// Its rows.
        sums: Sums,
    },
    /// The shadow could not do what was asked of it for a table.
    Failed {
        /// The table.
        relid: u32,
        /// Why, in words.
        reason: String,
    },
    /// Keys that differ: their hashes.
    Keys(Vec<u128>),
    /// How many rows differ; after the last [`Tell::Keys`].
    Diff {
        /// The table.
        relid: u32,
        /// The rows.
        counts: DiffCounts,
        /// All differing keys have been told.
        listed: bool,
    },
    /// The shadow's schema was compared with the source's document.
    Schema {
        /// Objects of the source.
        objects: u64,
        /// Objects that differ.
        differences: u64,
        /// The first of them, in words.
        lines: Vec<String>,
    },
    /// Ranges of keys, in words ([`crate::ranges`]).
    Ranges {
        /// The table.
        relid: u32,
        /// The ranges, in the order of the keys.
        lines: Vec<String>,
    },
    /// The rows are mended on the shadow, durably.
    Mended {
        /// The table.
        relid: u32,
        /// Rows that were removed.
        deleted: u64,
        /// Rows that were written.
        inserted: u64,
    },
}

/// Lines in one [`Tell::Schema`].
pub const SCHEMA_LINES_MAX: usize = 64;
/// Keys in one [`Tell::Keys`].
pub const KEYS_MAX: usize = 32_768;
const LINE_BYTES_MAX: usize = 4096;
/// Bytes of a snapshot's text: as many running transactions as a server has connections.
const SNAPSHOT_BYTES_MAX: usize = 512 << 10;

impl Message for Ask {
    const TAG: Tag = Tag::Ask;
    const NAME: &'static str = "question of a verifying session";

    fn write(&self, w: &mut Writer<'_>) {
        match self {
            Ask::Stop => w.u8(b's'),
            Ask::Position { seen, lsn, hold } => {
                w.u8(b'p');
                w.text(seen, SNAPSHOT_BYTES_MAX);
                w.lsn(*lsn);
                w.bool(*hold);
            }
            Ask::Standing { copy_id } => {
                w.u8(b'h');
                w.u64(*copy_id);
            }
            Ask::Table(relation) => {
                w.u8(b't');
                relation.write(w);
            }
            Ask::Rows { relation, buckets } => {
                w.u8(b'r');
                relation.write(w);
                let buckets = buckets.get(..BUCKETS).unwrap_or(buckets);
                w.u32(u32::try_from(buckets.len()).unwrap_or(0));
                buckets.iter().for_each(|bucket| w.u16(*bucket));
            }
            Ask::Mend { hashed, relation } => {
                w.u8(b'm');
                hashed.write(w);
                relation.write(w);
            }
            Ask::Ranges(relation) => {
                w.u8(b'g');
                relation.write(w);
            }
            Ask::Settled { relid } => {
                w.u8(b'q');
                w.u32(*relid);
            }
            Ask::End => w.u8(b'e'),
            Ask::Release => w.u8(b'x'),
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match r.u8("question kind")? {
            b's' => Ask::Stop,
            b'p' => Ask::Position {
                seen: r.text(SNAPSHOT_BYTES_MAX, "snapshot")?,
                lsn: r.lsn("position")?,
                hold: r.bool("hold")?,
            },
            b'h' => Ask::Standing { copy_id: r.u64("copy id")? },
            b't' => Ask::Table(Relation::read(r)?),
            b'r' => {
                let relation = Relation::read(r)?;
                let count = r.count(BUCKETS, "buckets")?;
                let buckets = (0..count).map(|_| bucket_number(r)).collect::<Result<_, _>>()?;
                Ask::Rows { relation, buckets }
            }
            b'm' => Ask::Mend { hashed: Relation::read(r)?, relation: Relation::read(r)? },
            b'g' => Ask::Ranges(Relation::read(r)?),
            b'q' => Ask::Settled { relid: r.u32("relid")? },
            b'e' => Ask::End,
            b'x' => Ask::Release,
            got => return Err(Error::Undefined { what: "question kind", got: got.into() }),
        })
    }
}

fn bucket_number(r: &mut Reader<'_>) -> Result<u16, Error> {
    let number = r.u16("bucket")?;
    if usize::from(number) < BUCKETS {
        return Ok(number);
    }
    Err(Error::Undefined { what: "bucket", got: number.into() })
}

impl Message for Tell {
    const TAG: Tag = Tag::Tell;
    const NAME: &'static str = "answer to a verifying session";

    fn write(&self, w: &mut Writer<'_>) {
        match self {
            Tell::Ready => w.u8(b'r'),
            Tell::At { exact } => {
                w.u8(b'a');
                w.bool(*exact);
            }
            Tell::Sums { relid, sums } => {
                w.u8(b's');
                w.u32(*relid);
                for bucket in sums.buckets() {
                    w.u64(bucket.rows);
                    w.u128(bucket.sum);
                }
            }
            Tell::Failed { relid, reason } => {
                w.u8(b'f');
                w.u32(*relid);
                w.text(reason, TEXT_BYTES_MAX);
            }
            Tell::Keys(keys) => {
                w.u8(b'k');
                let keys = keys.get(..KEYS_MAX).unwrap_or(keys);
                w.u32(u32::try_from(keys.len()).unwrap_or(0));
                keys.iter().for_each(|key| w.u128(*key));
            }
            Tell::Diff { relid, counts, listed } => {
                w.u8(b'd');
                w.u32(*relid);
                w.u64(counts.missing);
                w.u64(counts.extra);
                w.u64(counts.changed);
                w.bool(*listed);
            }
            Tell::Schema { objects, differences, lines } => {
                w.u8(b'c');
                w.u64(*objects);
                w.u64(*differences);
                let lines = lines.get(..SCHEMA_LINES_MAX).unwrap_or(lines);
                w.u32(u32::try_from(lines.len()).unwrap_or(0));
                lines.iter().for_each(|line| w.text(line, LINE_BYTES_MAX));
            }
            Tell::Ranges { relid, lines } => {
                w.u8(b'g');
                w.u32(*relid);
                let lines = lines.get(..SCHEMA_LINES_MAX).unwrap_or(lines);
                w.u32(u32::try_from(lines.len()).unwrap_or(0));
                lines.iter().for_each(|line| w.text(line, LINE_BYTES_MAX));
            }
            Tell::Mended { relid, deleted, inserted } => {
                w.u8(b'm');
                w.u32(*relid);
                w.u64(*deleted);
                w.u64(*inserted);
            }
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match r.u8("answer kind")? {
            b'r' => Tell::Ready,
            b'a' => Tell::At { exact: r.bool("exact")? },
            b's' => {
                let relid = r.u32("relid")?;
                let buckets = (0..BUCKETS)
                    .map(|_| Ok(Bucket { rows: r.u64("bucket's rows")?, sum: r.u128("bucket's sum")? }))
                    .collect::<Result<_, Error>>()?;
                Tell::Sums { relid, sums: Sums::from_buckets(buckets) }
            }
            b'f' => Tell::Failed { relid: r.u32("relid")?, reason: r.text(TEXT_BYTES_MAX, "reason")? },
            b'k' => {
                let count = r.count(KEYS_MAX, "keys")?;
                Tell::Keys((0..count).map(|_| r.u128("key")).collect::<Result<_, _>>()?)
            }
            b'd' => Tell::Diff {
                relid: r.u32("relid")?,
                counts: DiffCounts {
                    missing: r.u64("missing rows")?,
                    extra: r.u64("extra rows")?,
                    changed: r.u64("changed rows")?,
                },
                listed: r.bool("listed")?,
            },
            b'c' => {
                let (objects, differences) = (r.u64("objects")?, r.u64("differences")?);
                let count = r.count(SCHEMA_LINES_MAX, "lines")?;
                let lines = (0..count).map(|_| r.text(LINE_BYTES_MAX, "line")).collect::<Result<_, _>>()?;
                Tell::Schema { objects, differences, lines }
            }
            b'g' => {
                let relid = r.u32("relid")?;
                let count = r.count(SCHEMA_LINES_MAX, "lines")?;
                let lines = (0..count).map(|_| r.text(LINE_BYTES_MAX, "line")).collect::<Result<_, _>>()?;
                Tell::Ranges { relid, lines }
            }
            b'm' => Tell::Mended {
                relid: r.u32("relid")?,
                deleted: r.u64("deleted rows")?,
                inserted: r.u64("inserted rows")?,
            },
            got => return Err(Error::Undefined { what: "answer kind", got: got.into() }),
        })
    }
}

const _: () = assert!(crate::ranges::RANGES_MAX < SCHEMA_LINES_MAX, "ranges fit one answer");
const _: () = assert!(KEYS_MAX * 16 < crate::limits::FRAME_PAYLOAD_MAX, "keys fit one frame");
const _: () = assert!(BUCKETS * 24 < crate::limits::FRAME_PAYLOAD_MAX, "buckets fit one frame");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::RowHash;
    use crate::message::{Column, Format, ReplicaIdentity};

    fn relation() -> Relation {
        Relation {
            relid: 7,
            format: Format::Binary,
            replica_identity: ReplicaIdentity::Default,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            columns: vec![Column {
                attnum: 1,
                key: true,
                identity_always: false,
                type_oid: 23,
                type_mod: -1,
                name: "id".to_owned(),
            }],
        }
    }

    fn payload(message: &impl Message) -> Vec<u8> {
        let mut buf = Vec::new();
        message.write(&mut Writer::new(&mut buf));
        buf
    }

    #[test]
    fn reads_what_it_writes() {
        let asks = [
            Ask::Stop,
            Ask::Position { seen: "10:12:10".to_owned(), lsn: Lsn(9), hold: true },
            Ask::Standing { copy_id: 3 },
            Ask::Table(relation()),
            Ask::Rows { relation: relation(), buckets: vec![0, 1023] },
            Ask::Mend { hashed: relation(), relation: relation() },
            Ask::Ranges(relation()),
            Ask::Settled { relid: 7 },
            Ask::End,
            Ask::Release,
        ];
        for ask in asks {
            let bytes = payload(&ask);
            assert_eq!(Ask::from_payload(&bytes).unwrap(), ask);
            for cut in 0..bytes.len() {
                assert!(Ask::from_payload(&bytes[..cut]).is_err());
            }
        }
        let mut sums = Sums::default();
        sums.add(RowHash { key: 5, row: u128::MAX });
        let tells = [
            Tell::Ready,
            Tell::At { exact: false },
            Tell::Sums { relid: 7, sums },
            Tell::Failed { relid: 7, reason: "gone".to_owned() },
            Tell::Keys(vec![1, u128::MAX]),
            Tell::Diff { relid: 7, counts: DiffCounts { missing: 1, extra: 2, changed: 3 }, listed: true },
            Tell::Schema { objects: 9, differences: 1, lines: vec!["table public.t: columns".to_owned()] },
            Tell::Ranges { relid: 7, lines: vec!["(1)..(5)".to_owned()] },
            Tell::Mended { relid: 7, deleted: 1, inserted: 2 },
        ];
        for tell in tells {
            let bytes = payload(&tell);
            assert_eq!(Tell::from_payload(&bytes).unwrap(), tell);
            assert!(Tell::from_payload(&bytes[..bytes.len() - 1]).is_err());
        }
    }

    #[test]
    fn rejects_buckets_and_kinds_that_are_none() {
        let mut bytes = payload(&Ask::Rows { relation: relation(), buckets: vec![1023] });
        let last = bytes.len() - 1;
        bytes[last - 1..].copy_from_slice(&1024u16.to_be_bytes());
        assert!(matches!(Ask::from_payload(&bytes), Err(Error::Undefined { what: "bucket", .. })));
        assert!(Ask::from_payload(b"?").is_err());
        assert!(Tell::from_payload(b"?").is_err());
    }
}
