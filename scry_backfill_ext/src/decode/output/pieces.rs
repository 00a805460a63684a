//! Transactions that are larger than the server's memory for them: sent in
//! pieces before they end, so that none of them is spilled to production's disk.
//!
//! ```text
//! start ─ change… ─ stop ──► Piece frames ──► put aside by the platform
//! abort of a part, or of all ──► that is void        end ──► it counts, at this place of the stream
//! ```
//!
//! Invariants: a piece says nothing of the schema, and is encoded with the
//! schema that the stream has. A transaction that changes it, or meets a change
//! that the stream does not have yet, cannot be read here: within a piece the
//! server allows no query of its catalogs. Then this process ends, and the next
//! one has every transaction decoded when it ends, for some time. So does a
//! process that begins with a copy: pieces begin once all has been sent and
//! little is open.
//! Locks see to it that a table's form is the same from a transaction's first
//! change of it to its end.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use scry_wire::Lsn;
use scry_wire::frame::Tag;
use scry_wire::message::change::{ChangeWriter, TRUNCATE_CASCADE, TRUNCATE_RESTART};
use scry_wire::message::piece::{End, Mark};

use super::{Output, write_row};
use crate::api::ddl::Note;
use crate::decode::relation_cache::{Entry, Lookup};
use crate::guc;
use crate::pg::callbacks::{RowChange, StreamEvent, Transaction};
use crate::pg::relation::RelationRef;
use crate::pg::{decoding, latch, worker};
use crate::worker::shmem::{Level, State};

/// The transactions that have been sent in part.
#[derive(Default)]
pub struct Pieces {
    /// The decoder gives pieces.
    pub(super) enabled: bool,
    /// By id.
    open: HashMap<u64, Open>,
    /// The transaction of this piece.
    xid: u64,
    /// Whose change was written last in this piece; 0 for none.
    subxid: u64,
    /// Bytes of the batch that hold whole changes.
    whole: usize,
}

/// A transaction in progress.
#[derive(Default)]
struct Open {
    /// Relations that have been described in it.
    described: HashSet<u32>,
    /// A change of it stands in the stream.
    is_sent: bool,
}

impl Pieces {
    /// Whether a transaction has been sent in part.
    pub fn any(&self) -> bool {
        !self.open.is_empty()
    }
}

impl Output {
    pub(super) fn take_piece(&mut self, event: StreamEvent<'_>) {
        match event {
            StreamEvent::Start(xid) => {
                self.begin_pieces();
                (self.pieces.xid, self.pieces.subxid) = (xid, 0);
            }
            StreamEvent::Stop => {
                self.cut_broken();
                self.end_pieces();
            }
            StreamEvent::Change { subxid, relation, change } => self.piece_change(subxid, &relation, change),
            StreamEvent::Truncate { subxid, relations, cascade, restart } => {
                self.piece_truncate(subxid, &relations, cascade, restart);
            }
            StreamEvent::Message(content) => {
                if Note::read(content).is_some() || self.order(content).is_some() {
                    self.send_whole("it changes the schema");
                }
            }
            StreamEvent::Abort { xid, subxid } => self.piece_abort(xid, subxid),
            StreamEvent::Commit(transaction) => self.piece_end(&transaction),
        }
    }

    fn begin_pieces(&mut self) {
        self.flush();
        self.batch.set_tag(Tag::Piece);
        self.pieces.whole = 0;
    }

    /// A change that was broken off is not sent, nor is what stands before it for its sake.
    fn cut_broken(&mut self) {
        let Pieces { open, xid, whole, .. } = &mut self.pieces;
        if self.batch.len() > *whole {
            self.batch.cut_to(*whole);
            if let Some(open) = open.get_mut(xid) {
                open.described.clear();
            }
        }
    }

    fn end_pieces(&mut self) {
        self.flush();
        self.batch.set_tag(Tag::Batch);
    }

    /// What follows belongs to this subtransaction.
    fn enter(&mut self, subxid: u64) {
        let Pieces { open, xid, subxid: last, .. } = &mut self.pieces;
        if *last == 0 {
            open.entry(*xid).or_default();
            Mark::Transaction(*xid).write(self.batch.buf());
            *last = *xid;
        }
        if *last != subxid {
            Mark::Subtransaction(subxid).write(self.batch.buf());
            *last = subxid;
        }
    }

    fn piece_change(&mut self, subxid: u64, relation: &RelationRef<'_>, change: RowChange<'_>) {
        if self.schemas.waits() {
            self.send_whole("the schema has changed before it");
        }
        let xid = self.pieces.xid;
        let (relid, has_identity) = match self.cache.get(relation) {
            Lookup::Followed(entry) if entry.seen_by.as_ref().is_some_and(|seen_by| seen_by.saw(xid)) => {
                return;
            }
            Lookup::Followed(entry) => (entry.description.relid, entry.has_identity),
            Lookup::Ignored => return,
            Lookup::Unexpected => self.send_whole("it finds a table changed"),
        };
        if !has_identity && !matches!(change, RowChange::Insert(_)) {
            if self.inserts_only {
                return;
            }
            self.send_whole("it changes rows of a table without a replica identity");
        }
        self.enter(subxid);
        let Lookup::Followed(entry) = self.cache.get(relation) else { return };
        let buf = self.batch.buf();
        describe(&mut self.pieces.open, xid, entry, buf);
        let mut large = Vec::new();
        debug_assert_eq!(entry.description.relid, relid);
        if !write_row(buf, relation, entry, change, &mut large) {
            return;
        }
        self.row_is_whole();
        if !large.is_empty() {
            self.flush_with(&large);
            self.pieces.whole = 0;
        } else if self.batch.is_full() {
            self.flush();
            self.pieces.whole = 0;
        }
    }

    fn piece_truncate(&mut self, subxid: u64, relations: &[RelationRef<'_>], cascade: bool, restart: bool) {
        if self.schemas.waits() {
            self.send_whole("the schema has changed before it");
        }
        let xid = self.pieces.xid;
        let mut relids = Vec::with_capacity(relations.len());
        for relation in relations {
            match self.cache.get(relation) {
                Lookup::Followed(entry) if entry.seen_by.as_ref().is_none_or(|seen_by| !seen_by.saw(xid)) => {
                    relids.push(entry.description.relid);
                }
                Lookup::Followed(_) | Lookup::Ignored => continue,
                Lookup::Unexpected => self.send_whole("it finds a table changed"),
            }
            self.enter(subxid);
            let Lookup::Followed(entry) = self.cache.get(relation) else { continue };
            describe(&mut self.pieces.open, xid, entry, self.batch.buf());
        }
        if relids.is_empty() {
            return;
        }
        let flags = if cascade { TRUNCATE_CASCADE } else { 0 } | if restart { TRUNCATE_RESTART } else { 0 };
        ChangeWriter::new(self.batch.buf()).truncate(flags, &relids);
        self.row_is_whole();
    }

    fn row_is_whole(&mut self) {
        self.batch.count_row();
        let pieces = &mut self.pieces;
        pieces.whole = self.batch.len();
        if let Some(open) = pieces.open.get_mut(&pieces.xid) {
            open.is_sent = true;
        }
    }

    fn piece_abort(&mut self, xid: u64, subxid: u64) {
        let Some(open) = self.pieces.open.get_mut(&xid) else { return };
        // A description may have stood in what is void.
        open.described.clear();
        let is_sent = open.is_sent;
        if xid == subxid {
            self.pieces.open.remove(&xid);
        }
        if !is_sent {
            return;
        }
        self.begin_pieces();
        Mark::Abort { xid, subxid }.write(self.batch.buf());
        self.end_pieces();
    }

    fn piece_end(&mut self, transaction: &Transaction) {
        let Transaction { xid, commit_lsn, commit_time, end_lsn, .. } = *transaction;
        if !self.pieces.open.remove(&xid).is_some_and(|open| open.is_sent) {
            return;
        }
        if self.schemas.waits() {
            self.send_whole("the schema has changed before its end");
        }
        self.begin_pieces();
        Mark::End(End { xid, commit_lsn, commit_time, end_lsn }).write(self.batch.buf());
        self.note_end(transaction);
        self.end_pieces();
    }

    /// Ends this process: the next one has the transaction when it ends.
    fn send_whole(&self, why: &str) -> ! {
        let job = self.link.job();
        self.send_whole_for(WHOLE_FOR);
        let message = format!("a transaction in progress is decoded again when it ends: {why}");
        job.event(Level::Info, &message, "");
        job.set_state(State::Connecting);
        worker::exit(1)
    }

    fn send_whole_for(&self, time: Duration) {
        let until = latch::now() + i64::try_from(time.as_micros()).unwrap_or(0);
        self.link.live().whole_until.store(until, Relaxed);
    }

    /// Whether the decoder gives pieces.
    pub fn takes_pieces(&self) -> bool {
        self.pieces.enabled
    }

    /// The first decoder of this process gives pieces if nothing stands in the way: the shadow has
    /// its tables, and what the stream says of the schema is true where it begins.
    pub fn begin_first(&mut self) {
        self.pieces.enabled = self.pieces_are_wanted() && !self.schemas.waits();
    }

    /// Whether there is no reason to have every transaction decoded when it ends.
    fn pieces_are_wanted(&self) -> bool {
        guc::stream_in_progress()
            && self.link.job().state() == State::Streaming
            && self.link.live().whole_until.load(Relaxed) <= latch::now()
    }

    /// Whether the decoder is to be opened anew, so that it gives pieces: the copy, or what stood
    /// in the way, is over, all that was sent is durable, and there is little to decode again.
    pub(super) fn may_begin_pieces(&self) -> bool {
        !self.pieces.enabled
            && self.pieces_are_wanted()
            && Lsn(self.link.live().flushed_lsn.load(Relaxed)) >= self.written
            && self.decoded_again() <= AGAIN_MAX
    }

    /// Bytes of WAL that another decoder reads again.
    fn decoded_again(&self) -> u64 {
        let slot = decoding::slot_info(self.link.job().texts().slot.as_str());
        slot.map_or(u64::MAX, |slot| self.written.0.saturating_sub(slot.restart_lsn.0))
    }

    /// A decoder begins that gives pieces; returns where.
    pub fn begin_with_pieces(&mut self) -> Lsn {
        self.pieces = Pieces { enabled: true, ..Pieces::default() };
        self.start = self.written;
        self.written
    }
}

fn describe(open: &mut HashMap<u64, Open>, xid: u64, entry: &Entry, buf: &mut Vec<u8>) {
    if open.get_mut(&xid).is_some_and(|open| open.described.insert(entry.description.relid)) {
        ChangeWriter::new(buf).relation(&entry.description);
    }
}

/// After a transaction in progress that changed the schema no other is decoded
/// before its end for so long: it costs a new process to find out.
const WHOLE_FOR: Duration = Duration::from_secs(600);
/// Pieces begin when no more than this is to be decoded again.
const AGAIN_MAX: u64 = 64 << 20;
