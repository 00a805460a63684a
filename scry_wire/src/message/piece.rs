//! Changes of transactions in progress, as they stand in `Piece` frames.
//!
//! ```text
//! u8 tag, u32 length of the body, body: as in batches
//!
//! P transaction     u64 xid                 what follows belongs to it
//! p subtransaction  u64 xid                 what follows belongs to this one of it
//! a abort           u64 xid, u64 subxid     what belongs to this one, or to those in it, is void
//! c end             u64 xid, lsn commit_lsn, i64 commit_time, lsn end_lsn
//! R I U D T         as in batches
//! ```
//!
//! A transaction that is larger than the source likes to keep is sent before
//! its end is known, in pieces. Whoever takes them puts them aside; at the end
//! they stand in the stream as if they had come in a batch, at the place of the
//! end. Between a piece and the end other transactions come and go.
//!
//! Invariants: the mark of a transaction stands before its changes, and again
//! after those of others; a description stands before the first change of
//! its relation in each transaction, and again after an abort in it. Nothing of
//! the schema stands in a piece. All of it is void when the connection ends.

use super::change::{Begin, ChangeWriter, Commit};
use crate::codec::Reader;
use crate::{Error, Lsn};

mod tag {
    pub const TRANSACTION: u8 = b'P';
    pub const SUBTRANSACTION: u8 = b'p';
    pub const ABORT: u8 = b'a';
    pub const END: u8 = b'c';
}

/// Bytes of the largest mark's body.
pub const MARK_BYTES_MAX: usize = 32;

/// What stands between the changes of pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// What follows belongs to this transaction, outside of its subtransactions.
    Transaction(u64),
    /// What follows belongs to this subtransaction; to none, if it is the transaction's own id.
    Subtransaction(u64),
    /// What belongs to a subtransaction, and to those within it, is void; all
    /// of the transaction, if that is what is named.
    Abort {
        /// The transaction.
        xid: u64,
        /// What of it is void.
        subxid: u64,
    },
    /// The transaction has been committed, and all of it has been sent.
    End(End),
}

/// A transaction that came in pieces has been committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The transaction's id, with its epoch.
    pub xid: u64,
    /// Where its commit record begins.
    pub commit_lsn: Lsn,
    /// When it was committed: microseconds since 2000-01-01 UTC.
    pub commit_time: i64,
    /// Where its commit record ends.
    pub end_lsn: Lsn,
}

impl End {
    /// What a batch has before the transaction's changes.
    #[must_use]
    pub fn begin(&self) -> Begin {
        Begin { xid: self.xid, commit_lsn: self.commit_lsn, commit_time: self.commit_time }
    }

    /// What a batch has behind them.
    #[must_use]
    pub fn commit(&self) -> Commit {
        Commit { commit_lsn: self.commit_lsn, end_lsn: self.end_lsn }
    }
}

impl Mark {
    /// Whether `tag` is that of a mark, and not of a change.
    #[must_use]
    pub fn is_tag(tag: u8) -> bool {
        matches!(tag, tag::TRANSACTION | tag::SUBTRANSACTION | tag::ABORT | tag::END)
    }

    /// Reads the mark at the front of `reader`.
    ///
    /// # Errors
    /// It is none, or not whole.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let tag = reader.u8("mark tag")?;
        let len = reader.count(MARK_BYTES_MAX, "mark length")?;
        let mut r = Reader::new(reader.bytes(len, "mark")?);
        let mark = match tag {
            tag::TRANSACTION => Mark::Transaction(r.u64("xid")?),
            tag::SUBTRANSACTION => Mark::Subtransaction(r.u64("xid")?),
            tag::ABORT => Mark::Abort { xid: r.u64("xid")?, subxid: r.u64("subxid")? },
            tag::END => Mark::End(End {
                xid: r.u64("xid")?,
                commit_lsn: r.lsn("commit_lsn")?,
                commit_time: r.i64("commit_time")?,
                end_lsn: r.lsn("end_lsn")?,
            }),
            got => return Err(Error::Undefined { what: "mark tag", got: got.into() }),
        };
        r.finish("mark")?;
        Ok(mark)
    }

    /// Appends the mark to `buf`.
    pub fn write(&self, buf: &mut Vec<u8>) {
        let mut writer = ChangeWriter::new(buf);
        match *self {
            Mark::Transaction(xid) => writer.small(tag::TRANSACTION, |w| w.u64(xid)),
            Mark::Subtransaction(xid) => writer.small(tag::SUBTRANSACTION, |w| w.u64(xid)),
            Mark::Abort { xid, subxid } => writer.small(tag::ABORT, |w| {
                w.u64(xid);
                w.u64(subxid);
            }),
            Mark::End(end) => writer.small(tag::END, |w| {
                w.u64(end.xid);
                w.lsn(end.commit_lsn);
                w.i64(end.commit_time);
                w.lsn(end.end_lsn);
            }),
        }
    }
}
