//! Changes, as they stand one after another in `Batch` frames.
//!
//! ```text
//! u8 tag, u32 length of the body, body
//!
//! R relation   relation::Relation
//! B begin      u64 xid, lsn commit_lsn, i64 commit_time
//! I insert     u32 relid, tuple
//! U update     u32 relid, u8 'n' | 'k' | 'o', [old tuple], new tuple
//! D delete     u32 relid, u8 'k' | 'o', old tuple
//! T truncate   u8 1 cascade | 2 restart identity, u32 count, u32 relid…
//! S sequence   u32 relid, i64 last_value, bool is_called, name schema, name
//! X schema     u32 count, u32 relid…, catalog document to the end
//! C commit     lsn commit_lsn, lsn end_lsn
//! K keepalive  lsn end_lsn
//! ```
//!
//! An old tuple is the replica identity's columns and NULL for the others
//! (`k`) or the whole old row (`o`). A message that is larger than a frame
//! goes on in the next `Batch` frame; [`Assembler`] puts it together again.
//!
//! Invariants: a transaction's changes stand between its begin and its commit,
//! transactions in commit order and never interleaved; a relation's
//! description stands before its first change on this connection. Sequence
//! and keepalive messages stand between transactions or inside one. The reader
//! here checks the form only; the order is the platform's to check.

use bytes::{Bytes, BytesMut};

use super::Relation;
use crate::codec::{Reader, Writer};
use crate::frame::Frame;
use crate::{Error, Lsn, limits, tuple};

/// Truncation reaches tables that refer to the named ones.
pub const TRUNCATE_CASCADE: u8 = 1;
/// Truncation restarts owned sequences.
pub const TRUNCATE_RESTART: u8 = 2;

/// Tags of changes.
mod tag {
    pub const RELATION: u8 = b'R';
    pub const BEGIN: u8 = b'B';
    pub const INSERT: u8 = b'I';
    pub const UPDATE: u8 = b'U';
    pub const DELETE: u8 = b'D';
    pub const TRUNCATE: u8 = b'T';
    pub const SEQUENCE: u8 = b'S';
    pub const SCHEMA: u8 = b'X';
    pub const COMMIT: u8 = b'C';
    pub const KEEPALIVE: u8 = b'K';
}

/// What an update or delete tells of the old row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OldTuple<'a> {
    /// Nothing: the replica identity did not change.
    None,
    /// The replica identity's columns; the others are NULL.
    Key(&'a [u8]),
    /// The whole old row.
    Full(&'a [u8]),
}

/// A transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin {
    /// The transaction's id, with its epoch.
    pub xid: u64,
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// When it was committed: microseconds since 2000-01-01 UTC.
    pub commit_time: i64,
}

/// A transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// Where its commit record ends: the position the shadow keeps.
    pub end_lsn: Lsn,
}

/// A sequence's new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// The sequence's oid on the source.
    pub relid: u32,
    /// `last_value` as the WAL has it: up to 32 values ahead of the last one used.
    pub last_value: i64,
    /// Whether `last_value` itself has been used.
    pub is_called: bool,
    /// The sequence's schema.
    pub schema: String,
    /// The sequence's name.
    pub name: String,
}

/// One change, read from a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<'a> {
    /// What a relation's rows look like from here on.
    Relation(Relation),
    /// A transaction begins.
    Begin(Begin),
    /// A row is new.
    Insert {
        /// The relation.
        relid: u32,
        /// The row.
        new: &'a [u8],
    },
    /// A row has changed.
    Update {
        /// The relation.
        relid: u32,
        /// The old row, as far as it is known.
        old: OldTuple<'a>,
        /// The new row.
        new: &'a [u8],
    },
    /// A row is gone.
    Delete {
        /// The relation.
        relid: u32,
        /// The old row: never [`OldTuple::None`].
        old: OldTuple<'a>,
    },
    /// Relations have been emptied.
    Truncate {
        /// [`TRUNCATE_CASCADE`] and [`TRUNCATE_RESTART`].
        flags: u8,
        /// The relations.
        relids: Vec<u32>,
    },
    /// A sequence has moved.
    Sequence(Sequence),
    /// The schema has changed: what follows belongs to this document. Stands
    /// inside a transaction, before the first row of the new schema.
    Schema {
        /// Tables whose rows on the shadow can't be had from the old ones or
        /// from the stream: their changes wait until they are copied (again).
        hold: Vec<u32>,
        /// The whole catalog document of the job, as in `Catalog` frames.
        document: &'a [u8],
    },
    /// A transaction ends.
    Commit(Commit),
    /// Everything before this position has been sent.
    Keepalive(Lsn),
}

impl<'a> Change<'a> {
    /// Reads the change at the front of `reader`.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, Error> {
        let tag = reader.u8("change tag")?;
        let len = reader.count(limits::MESSAGE_BYTES_MAX, "change length")?;
        let mut body = Reader::new(reader.bytes(len, "change")?);
        let change = read_body(tag, &mut body)?;
        body.finish("change")?;
        Ok(change)
    }
}

fn read_body<'a>(tag: u8, r: &mut Reader<'a>) -> Result<Change<'a>, Error> {
    Ok(match tag {
        tag::RELATION => Change::Relation(Relation::read(r)?),
        tag::BEGIN => Change::Begin(Begin {
            xid: r.u64("xid")?,
            commit_lsn: r.lsn("commit_lsn")?,
            commit_time: r.i64("commit_time")?,
        }),
        tag::INSERT => Change::Insert { relid: r.u32("relid")?, new: tuple::take(r)? },
        tag::UPDATE => {
            Change::Update { relid: r.u32("relid")?, old: read_old(r, true)?, new: tuple::take(r)? }
        }
        tag::DELETE => Change::Delete { relid: r.u32("relid")?, old: read_old(r, false)? },
        tag::TRUNCATE => {
            let flags = r.u8("truncate flags")?;
            if flags & !(TRUNCATE_CASCADE | TRUNCATE_RESTART) != 0 {
                return Err(Error::Undefined { what: "truncate flags", got: flags.into() });
            }
            let count = r.count(limits::RELATIONS_MAX.min(r.remaining() / 4), "truncated relations")?;
            let relids = (0..count).map(|_| r.u32("relid")).collect::<Result<_, _>>()?;
            Change::Truncate { flags, relids }
        }
        tag::SEQUENCE => Change::Sequence(Sequence {
            relid: r.u32("relid")?,
            last_value: r.i64("last_value")?,
            is_called: r.bool("is_called")?,
            schema: r.name("schema")?,
            name: r.name("sequence name")?,
        }),
        tag::SCHEMA => {
            let count = r.count(limits::JOB_TABLES_MAX.min(r.remaining() / 4), "tables on hold")?;
            let hold = (0..count).map(|_| r.u32("relid")).collect::<Result<_, _>>()?;
            let len = r.remaining();
            if len > limits::CATALOG_BYTES_MAX {
                let (got, max) = (len as u64, limits::CATALOG_BYTES_MAX as u64);
                return Err(Error::TooLarge { what: "catalog document", got, max });
            }
            Change::Schema { hold, document: r.bytes(len, "catalog document")? }
        }
        tag::COMMIT => {
            Change::Commit(Commit { commit_lsn: r.lsn("commit_lsn")?, end_lsn: r.lsn("end_lsn")? })
        }
        tag::KEEPALIVE => Change::Keepalive(r.lsn("end_lsn")?),
        got => return Err(Error::Undefined { what: "change tag", got: got.into() }),
    })
}

fn read_old<'a>(r: &mut Reader<'a>, none_allowed: bool) -> Result<OldTuple<'a>, Error> {
    match r.u8("old tuple kind")? {
        b'n' if none_allowed => Ok(OldTuple::None),
        b'k' => Ok(OldTuple::Key(tuple::take(r)?)),
        b'o' => Ok(OldTuple::Full(tuple::take(r)?)),
        got => Err(Error::Undefined { what: "old tuple kind", got: got.into() }),
    }
}

/// Appends changes to a buffer: the writer beside [`Change::read`].
///
/// Row changes are opened with their head, get their tuples appended by the
/// caller, and are closed by [`close`](Self::close), so that nothing is copied
/// on the way.
pub struct ChangeWriter<'a> {
    buf: &'a mut Vec<u8>,
}

/// A change whose body is being written.
#[must_use = "an open change has no length yet"]
pub struct Open(usize);

impl<'a> ChangeWriter<'a> {
    /// A writer that appends to `buf`.
    pub fn new(buf: &'a mut Vec<u8>) -> Self {
        ChangeWriter { buf }
    }

    /// The buffer, for the tuples of an open change.
    pub fn tuple(&mut self) -> &mut Vec<u8> {
        self.buf
    }

    fn open(&mut self, tag: u8) -> Open {
        self.buf.extend_from_slice(&[tag, 0, 0, 0, 0]);
        Open(self.buf.len())
    }

    /// Closes a change: writes its length.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the body is above [`limits::MESSAGE_BYTES_MAX`].
    pub fn close(&mut self, open: Open) -> Result<(), Error> {
        self.close_with(open, 0)
    }

    /// Closes a change of whose body `elsewhere` bytes do not stand in the
    /// buffer: the caller puts them in when it cuts the frames.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub fn close_with(&mut self, open: Open, elsewhere: usize) -> Result<(), Error> {
        let len = self.buf.len() - open.0 + elsewhere;
        if len > limits::MESSAGE_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "change",
                got: len as u64,
                max: limits::MESSAGE_BYTES_MAX as u64,
            });
        }
        let bytes = u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(place) = self.buf.get_mut(open.0 - 4..open.0) {
            place.copy_from_slice(&bytes);
        }
        Ok(())
    }

    pub(super) fn small(&mut self, tag: u8, write: impl FnOnce(&mut Writer<'_>)) {
        let open = self.open(tag);
        write(&mut Writer::new(self.buf));
        // Bounded by its fields, far below the limit.
        let _ = self.close(open);
    }

    /// A relation's description.
    pub fn relation(&mut self, relation: &Relation) {
        self.small(tag::RELATION, |w| relation.write(w));
    }

    /// A transaction begins.
    pub fn begin(&mut self, begin: Begin) {
        self.small(tag::BEGIN, |w| {
            w.u64(begin.xid);
            w.lsn(begin.commit_lsn);
            w.i64(begin.commit_time);
        });
    }

    /// An insert: the caller appends the new tuple and closes it.
    pub fn insert(&mut self, relid: u32) -> Open {
        let open = self.open(tag::INSERT);
        self.buf.extend_from_slice(&relid.to_be_bytes());
        open
    }

    /// An update: the caller appends the old tuple that `old` announces, then
    /// the new one, and closes it.
    pub fn update(&mut self, relid: u32, old: OldKind) -> Open {
        let open = self.open(tag::UPDATE);
        self.buf.extend_from_slice(&relid.to_be_bytes());
        self.buf.push(old as u8);
        open
    }

    /// A delete: the caller appends the old tuple and closes it.
    pub fn delete(&mut self, relid: u32, old: OldKind) -> Open {
        let open = self.open(tag::DELETE);
        self.buf.extend_from_slice(&relid.to_be_bytes());
        self.buf.push(old as u8);
        open
    }

    /// Relations have been emptied.
    pub fn truncate(&mut self, flags: u8, relids: &[u32]) {
        let listed = relids.get(..limits::RELATIONS_MAX).unwrap_or(relids);
        self.small(tag::TRUNCATE, |w| {
            w.u8(flags);
            w.u32(u32::try_from(listed.len()).unwrap_or(0));
            listed.iter().for_each(|relid| w.u32(*relid));
        });
    }

    /// A sequence has moved.
    pub fn sequence(&mut self, sequence: &Sequence) {
        self.small(tag::SEQUENCE, |w| {
            w.u32(sequence.relid);
            w.i64(sequence.last_value);
            w.bool(sequence.is_called);
            w.name(&sequence.schema);
            w.name(&sequence.name);
        });
    }

    /// The schema has changed.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the message is above [`limits::MESSAGE_BYTES_MAX`].
    pub fn schema(&mut self, hold: &[u32], document: &[u8]) -> Result<(), Error> {
        let listed = hold.get(..limits::JOB_TABLES_MAX).unwrap_or(hold);
        let open = self.open(tag::SCHEMA);
        let mut w = Writer::new(self.buf);
        w.u32(u32::try_from(listed.len()).unwrap_or(0));
        listed.iter().for_each(|relid| w.u32(*relid));
        self.buf.extend_from_slice(document);
        self.close(open)
    }

    /// A transaction ends.
    pub fn commit(&mut self, commit: Commit) {
        self.small(tag::COMMIT, |w| {
            w.lsn(commit.commit_lsn);
            w.lsn(commit.end_lsn);
        });
    }

    /// Everything before `end_lsn` has been sent.
    pub fn keepalive(&mut self, end_lsn: Lsn) {
        self.small(tag::KEEPALIVE, |w| w.lsn(end_lsn));
    }
}

/// Which old tuple an update or delete brings; the byte on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum OldKind {
    /// None (updates only).
    None = b'n',
    /// The replica identity's columns.
    Key = b'k',
    /// The whole old row.
    Full = b'o',
}

/// Puts changes together that were cut by frame borders.
///
/// Memory: one frame, or one change that is larger than a frame. The buffer
/// grows with the bytes that arrive, never with a length that was claimed.
#[derive(Debug, Default)]
pub struct Assembler {
    pending: BytesMut,
}

impl Assembler {
    /// An assembler with nothing pending.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next `Batch` frame; returns bytes that hold whole changes
    /// only, or `None` while the first one is incomplete. A frame that stands
    /// alone is returned as it is: [`Change::read`] finds what it lacks.
    ///
    /// # Errors
    /// [`Error::TooLarge`] for a change above its bound; [`Error::Truncated`]
    /// when the last frame of several ends inside a change.
    pub fn push(&mut self, frame: &Frame) -> Result<Option<Bytes>, Error> {
        self.push_part(frame.payload(), frame.continued())
    }

    /// As [`push`](Self::push), for a payload that has left its frame.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_part(&mut self, payload: Bytes, continued: bool) -> Result<Option<Bytes>, Error> {
        if !continued && self.pending.is_empty() {
            return Ok(Some(payload));
        }
        self.pending.extend_from_slice(&payload);
        let (whole, lacking) = whole_changes(&self.pending)?;
        match lacking {
            Some(error) if !continued => return Err(error),
            _ if whole == 0 => return Ok(None),
            _ => {}
        }
        let bytes = self.pending.split_to(whole).freeze();
        if self.pending.is_empty() {
            // Give a large change's memory back.
            self.pending = BytesMut::new();
        }
        Ok(Some(bytes))
    }
}

/// Bytes of the whole changes at the front of `bytes`, and what the bytes
/// behind them lack.
fn whole_changes(bytes: &[u8]) -> Result<(usize, Option<Error>), Error> {
    let mut reader = Reader::new(bytes);
    while reader.remaining() > 0 {
        let whole = bytes.len() - reader.remaining();
        match skip(&mut reader) {
            Ok(()) => {}
            Err(lacking @ Error::Truncated { .. }) => return Ok((whole, Some(lacking))),
            Err(other) => return Err(other),
        }
    }
    Ok((bytes.len(), None))
}

/// Passes over one change by its length.
fn skip(reader: &mut Reader<'_>) -> Result<(), Error> {
    reader.u8("change tag")?;
    let len = reader.count(limits::MESSAGE_BYTES_MAX, "change length")?;
    reader.bytes(len, "change").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Tag, seal};
    use crate::limits::FRAME_HEADER_LEN;

    fn sample() -> Vec<u8> {
        let mut buf = Vec::new();
        let mut w = ChangeWriter::new(&mut buf);
        w.begin(Begin { xid: 7, commit_lsn: Lsn(8), commit_time: 9 });
        let open = w.update(5, OldKind::Key);
        w.tuple().extend_from_slice(b"\0\x01\0\0\0\x01k\0\x01\0\0\0\x01v");
        w.close(open).unwrap();
        w.commit(Commit { commit_lsn: Lsn(8), end_lsn: Lsn(10) });
        buf
    }

    fn frame_of(payload: &[u8], continued: bool) -> Frame {
        let mut buf = vec![0; FRAME_HEADER_LEN];
        buf.extend_from_slice(payload);
        seal(&mut buf, Tag::Batch, continued, 0);
        Frame::take(&mut BytesMut::from(&buf[..])).unwrap().unwrap()
    }

    #[test]
    fn reads_what_it_writes() {
        let buf = sample();
        let mut r = Reader::new(&buf);
        assert!(matches!(Change::read(&mut r).unwrap(), Change::Begin(Begin { xid: 7, .. })));
        let Change::Update { relid: 5, old: OldTuple::Key(key), new } = Change::read(&mut r).unwrap() else {
            panic!("not the update")
        };
        assert_eq!((key, new), (&b"\0\x01\0\0\0\x01k"[..], &b"\0\x01\0\0\0\x01v"[..]));
        assert!(matches!(Change::read(&mut r).unwrap(), Change::Commit(_)));
        r.finish("batch").unwrap();
    }

    #[test]
    fn assembles_at_every_cut() {
        let whole = sample();
        for cut in 1..whole.len() {
            let mut assembler = Assembler::new();
            let mut got = Vec::new();
            for frame in [frame_of(&whole[..cut], true), frame_of(&whole[cut..], false)] {
                got.extend_from_slice(&assembler.push(&frame).unwrap().unwrap_or_default());
            }
            assert_eq!(got, whole, "cut at {cut}");
        }
    }

    #[test]
    fn rejects_every_truncation() {
        let whole = sample();
        for cut in 1..whole.len() {
            let mut r = Reader::new(&whole[..cut]);
            let mut result = Ok(());
            while result.is_ok() && r.remaining() > 0 {
                result = Change::read(&mut r).map(drop);
            }
            // A cut between two changes is a whole batch; the platform sees the open transaction.
            assert!(result.is_err() || r.remaining() == 0);
        }
    }

    #[test]
    fn rejects_a_truncate_count_above_its_bytes() {
        let mut buf = vec![b'T', 0, 0, 0, 5, 0];
        buf.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(Change::read(&mut Reader::new(&buf)), Err(Error::TooLarge { .. })));
    }
}
