//! Where transactions end in the frames of one connection: pure.
//!
//! ```text
//! payload ─► changes, by their lengths ─┬─ order kept? no: the whole payload is refused
//!                                       ├─ descriptions of relations: remembered
//!                                       └─ last place between two transactions ─► cut
//! ```
//!
//! Invariants: what is handed to the journal is in order; a change that does
//! not read is refused before it stands there, but for one that is larger than
//! a frame, of which only the ends are looked at. Memory: the descriptions of
//! the relations, and a single one that is cut by frames.

use crate::apply::order::Order;
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::Lsn;
use scry_wire::codec::Reader;
use scry_wire::limits;
use scry_wire::message::change::Change;
use std::collections::HashMap;
use std::sync::Arc;

/// A payload, looked through.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// The payload.
    pub payload: Bytes,
    /// Its last change goes on in the next one.
    pub continued: bool,
    /// Bytes of it up to the last place between two transactions, and the
    /// position there.
    pub mark: Option<(usize, Lsn)>,
}

/// Looks through the payloads of one connection.
#[derive(Debug)]
pub struct Borders {
    order: Order,
    cut: Cut,
    /// Descriptions of relations, head and all, by oid.
    relations: Arc<HashMap<u32, Bytes>>,
    /// The position at the last border.
    reached: Lsn,
}

/// A change of which the next payload brings the rest.
#[derive(Debug)]
enum Cut {
    /// There is none.
    None,
    /// Kept until it is whole: its head, or a change that must be read.
    Kept(Vec<u8>),
    /// Of a row change so many bytes are still to come.
    Row(usize),
}

impl Borders {
    /// A connection that goes on from `position`.
    #[must_use]
    pub fn new(position: Lsn) -> Self {
        Borders { order: Order::new(position), cut: Cut::None, relations: Arc::default(), reached: position }
    }

    /// The descriptions of relations so far: each a change, by oid.
    #[must_use]
    pub fn relations(&self) -> Arc<HashMap<u32, Bytes>> {
        self.relations.clone()
    }

    /// Everything up to here has been sent whole.
    #[must_use]
    pub fn reached(&self) -> Lsn {
        self.reached
    }

    /// Looks through the next payload.
    ///
    /// # Errors
    /// It does not read, or breaks the order: nothing of it may be kept.
    pub fn scan(&mut self, payload: Bytes, continued: bool) -> Result<Scanned> {
        let mut mark = None;
        let mut at = self.rest(&payload, &mut mark)?;
        while let Some(bytes) = payload.get(at..).filter(|bytes| !bytes.is_empty()) {
            let Some(len) = length(bytes)?.filter(|len| *len <= bytes.len()) else {
                self.begin_cut(bytes)?;
                break;
            };
            at += len;
            if let Some(lsn) = self.whole(bytes.get(..len).unwrap_or_default())? {
                mark = Some((at, lsn));
            }
        }
        if !continued && !matches!(self.cut, Cut::None) {
            return Err(Error::protocol("a batch ends inside a change"));
        }
        Ok(Scanned { payload, continued, mark })
    }

    /// Takes the rest of a change that an earlier payload began; returns where
    /// the next one stands.
    fn rest(&mut self, payload: &[u8], mark: &mut Option<(usize, Lsn)>) -> Result<usize> {
        match std::mem::replace(&mut self.cut, Cut::None) {
            Cut::None => Ok(0),
            Cut::Row(lacking) if lacking > payload.len() => {
                self.cut = Cut::Row(lacking - payload.len());
                Ok(payload.len())
            }
            Cut::Row(lacking) => Ok(lacking),
            Cut::Kept(mut kept) => {
                let mut taken = fill(&mut kept, payload, HEAD_LEN);
                let Some(len) = length(&kept)? else {
                    self.cut = Cut::Kept(kept);
                    return Ok(taken);
                };
                let behind = payload.len() - taken;
                if !is_read(&kept) {
                    self.row()?;
                    let lacking = len - kept.len();
                    if lacking > behind {
                        self.cut = Cut::Row(lacking - behind);
                    }
                    return Ok(taken + lacking.min(behind));
                }
                check_length(len)?;
                taken += fill(&mut kept, payload.get(taken..).unwrap_or_default(), len);
                if kept.len() < len {
                    self.cut = Cut::Kept(kept);
                } else if let Some(lsn) = self.whole(&kept)? {
                    *mark = Some((taken, lsn));
                }
                Ok(taken)
            }
        }
    }

    /// A change begins that this payload does not end.
    fn begin_cut(&mut self, bytes: &[u8]) -> Result<()> {
        self.cut = match length(bytes)? {
            Some(len) if !is_read(bytes) => {
                self.row()?;
                Cut::Row(len - bytes.len())
            }
            len => {
                check_length(len.unwrap_or_default())?;
                Cut::Kept(bytes.to_vec())
            }
        };
        Ok(())
    }

    fn row(&self) -> Result<()> {
        self.order.change().map(drop)
    }

    /// A whole change; returns the position when it stands between two
    /// transactions and everything up to there is complete.
    fn whole(&mut self, bytes: &[u8]) -> Result<Option<Lsn>> {
        let mut reader = Reader::new(bytes);
        match Change::read(&mut reader)? {
            Change::Relation(relation) => {
                Arc::make_mut(&mut self.relations).insert(relation.relid, Bytes::copy_from_slice(bytes));
            }
            Change::Begin(begin) => drop(self.order.begin(begin)?),
            Change::Commit(commit) => {
                self.order.commit(commit)?;
                self.reached.advance(commit.end_lsn);
                return Ok(Some(self.reached));
            }
            Change::Keepalive(lsn) => {
                if let Some(lsn) = self.order.keepalive(lsn) {
                    self.reached.advance(lsn);
                    return Ok(Some(self.reached));
                }
            }
            Change::Sequence(_) => {}
            _ => self.row()?,
        }
        Ok(None)
    }
}

/// Lets `kept` grow to `wanted` bytes; returns how many it took.
fn fill(kept: &mut Vec<u8>, from: &[u8], wanted: usize) -> usize {
    let more = wanted.saturating_sub(kept.len()).min(from.len());
    kept.extend_from_slice(from.get(..more).unwrap_or_default());
    more
}

fn check_length(len: usize) -> Result<()> {
    if len <= READ_MAX {
        return Ok(());
    }
    let (got, max) = (len as u64, READ_MAX as u64);
    Err(scry_wire::Error::TooLarge { what: "change", got, max }.into())
}

/// Bytes of the change at the front, if its head is there.
fn length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = bytes.first_chunk::<HEAD_LEN>() else { return Ok(None) };
    let mut reader = Reader::new(head);
    reader.u8("change tag")?;
    Ok(Some(HEAD_LEN + reader.count(limits::MESSAGE_BYTES_MAX, "change length")?))
}

/// Whether the change is read whole wherever frames cut it: all but those of
/// rows and catalogs, which can be large.
fn is_read(bytes: &[u8]) -> bool {
    !matches!(bytes.first(), Some(b'I' | b'U' | b'D' | b'T' | b'X'))
}

/// Tag and length.
const HEAD_LEN: usize = 5;
/// A description of the largest relation: name, type and flags a column.
const READ_MAX: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::message::change::{Begin, ChangeWriter, Commit};
    use scry_wire::message::{Format, Relation, ReplicaIdentity};

    fn history() -> Vec<u8> {
        let mut buf = Vec::new();
        let mut w = ChangeWriter::new(&mut buf);
        w.relation(&Relation {
            relid: 9,
            format: Format::Text,
            replica_identity: ReplicaIdentity::Default,
            schema: "s".into(),
            name: "t".into(),
            columns: Vec::new(),
        });
        for at in [10, 20] {
            w.begin(Begin { xid: at, commit_lsn: Lsn(at), commit_time: 0 });
            let open = w.insert(9);
            w.tuple().extend_from_slice(b"\0\x01\0\0\0\x03abc");
            w.close(open).unwrap();
            w.keepalive(Lsn(at + 3));
            w.commit(Commit { commit_lsn: Lsn(at), end_lsn: Lsn(at + 5) });
        }
        w.keepalive(Lsn(40));
        w.begin(Begin { xid: 50, commit_lsn: Lsn(50), commit_time: 0 });
        buf
    }

    /// Positions at the borders of the history, by offset.
    fn borders() -> Vec<(usize, Lsn)> {
        let bytes = history();
        let mut found = Vec::new();
        for end in 0..=bytes.len() {
            let mut borders = Borders::new(Lsn(0));
            let scanned = borders.scan(Bytes::copy_from_slice(&bytes[..end]), true).unwrap();
            found.extend(scanned.mark.filter(|(at, _)| *at == end));
        }
        found
    }

    #[test]
    fn finds_the_ends_of_transactions() {
        let lsns: Vec<u64> = borders().iter().map(|(_, lsn)| lsn.0).collect();
        assert_eq!(lsns, [15, 25, 40]);
    }

    #[test]
    fn finds_them_wherever_frames_cut() {
        let (bytes, wanted) = (history(), borders());
        for first in 1..bytes.len() {
            for second in [first + 1, first + 2, first + 7, bytes.len()] {
                let second = second.min(bytes.len());
                let mut borders = Borders::new(Lsn(0));
                let mut found = Vec::new();
                let (mut at, pieces) = (0, [&bytes[..first], &bytes[first..second], &bytes[second..]]);
                for (n, piece) in pieces.iter().enumerate() {
                    let scanned = borders.scan(Bytes::copy_from_slice(piece), n < 2).unwrap();
                    found.extend(scanned.mark.map(|(offset, lsn)| (at + offset, lsn)));
                    at += piece.len();
                }
                assert!(found.iter().all(|mark| wanted.contains(mark)), "{first} {second}: {found:?}");
                assert_eq!(found.last(), wanted.last(), "{first} {second}");
                assert_eq!(borders.relations().len(), 1);
            }
        }
    }

    #[test]
    fn rejects_what_is_out_of_order_and_what_does_not_end() {
        let scan = |write: &dyn Fn(&mut ChangeWriter<'_>)| {
            let mut buf = Vec::new();
            write(&mut ChangeWriter::new(&mut buf));
            Borders::new(Lsn(0)).scan(buf.into(), false)
        };
        assert!(scan(&|w| w.commit(Commit { commit_lsn: Lsn(1), end_lsn: Lsn(2) })).is_err());
        assert!(scan(&|w| w.truncate(0, &[1])).is_err());
        assert!(scan(&|w| w.keepalive(Lsn(9))).is_ok());
        let bytes = history();
        assert!(Borders::new(Lsn(0)).scan(Bytes::copy_from_slice(&bytes[..bytes.len() - 1]), false).is_err());
        assert!(Borders::new(Lsn(0)).scan(Bytes::from_static(b"?\0\0\0\0"), false).is_err());
    }
}
