//! The files of one shadow's journal, and what is known of them.
//!
//! ```text
//!            append, at a border past 64 MB: the next segment
//! segments  [ applied: removed ][ … ][ last: written ─── mark ─── rest of an open transaction ]
//!                                        durable ──┘ sync
//! passing:  an open transaction that is larger than the journal goes to the
//!           applier by memory alone, until the shadow has committed it
//! ```
//!
//! Everything here blocks: it is called on threads where that hurts nobody.
//! Invariants: when a segment follows another, the other ends between two
//! transactions and is on disk, or the shadow has all of it; a number is never
//! used twice; only the connection that began last appends.

use super::border::Scanned;
use super::files::{EXTENSION, PIECE, Segment, cut_torn, make_dir, read_segments, remove, write_all};
use super::segment::{HEADER_LEN, Header, RECORD_HEAD_LEN, record_head};
use super::settings::{failed, is_disk_short};
use super::{Part, Place};
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::Lsn;
use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};

/// Whose changes a journal holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The source's cluster.
    pub system_identifier: u64,
    /// The database on it.
    pub database_oid: u32,
    /// The job's full start.
    pub generation: u64,
}

/// What a journal tells whoever waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Where the next record will stand.
    pub written: Place,
    /// Everything up to here stands in the journal, or on the shadow.
    pub mark: Lsn,
    /// Everything up to here survives a crash.
    pub durable: Lsn,
    /// Bytes of its files.
    pub bytes: u64,
    /// There is no room, or too little on the disk.
    pub is_full: bool,
}

/// A connection that appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Tells it from earlier ones.
    pub session: u64,
    /// The source goes on from here.
    pub position: Lsn,
    /// The source's timeline that the position belongs to; 0 if it is the shadow's.
    pub timeline: u32,
}

/// What became of a payload.
#[derive(Debug)]
pub enum Appended {
    /// It stands in the journal.
    Done,
    /// There is no room yet.
    Full,
    /// The journal is too small for the open transaction: these parts go to the
    /// applier as they are, and the rest is to be appended after that.
    Pass(Vec<Part>, Option<Scanned>),
}

/// Where reading begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) place: Place,
    pub(super) chain: u32,
    pub(super) timeline: u32,
    /// The position there.
    pub(super) base: Lsn,
}

/// What is to be done to read on from a place.
#[derive(Debug)]
pub(super) enum Look {
    /// The file has bytes up to there.
    Read(Arc<File>, u64),
    /// Another segment follows.
    Next(Header),
    /// Nothing has been written yet.
    Nothing,
}

/// A shadow's journal.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    identity: Identity,
    bytes_max: u64,
    inner: Mutex<Inner>,
    status: watch::Sender<Status>,
    applied: watch::Sender<Lsn>,
    consumed: Mutex<Place>,
}

/// A place between two transactions.
#[derive(Debug, Clone, Copy)]
struct Border {
    at: Place,
    lsn: Lsn,
}

#[derive(Debug)]
struct Inner {
    segments: VecDeque<Segment>,
    next_number: u64,
    /// Of the source that appends.
    timeline: u32,
    session: u64,
    /// Where the next record will stand; while passing, the next part.
    written: Place,
    chain: u32,
    mark: Border,
    durable: Border,
    /// A segment was made, and the directory not brought to disk since.
    new_entry: bool,
    feed: Option<mpsc::Sender<Part>>,
    passing: Option<Passing>,
    /// What went wrong: nothing is appended until another connection begins.
    broken: Option<String>,
    /// Bytes appended since the disk's room was looked at.
    unlooked: u64,
    disk_is_short: bool,
}

/// A transaction goes by without the files.
#[derive(Debug, Clone, Copy)]
struct Passing {
    /// Its end, once that has gone by.
    until: Option<Lsn>,
    /// The applier has begun anew and lacks its beginning.
    is_lost: bool,
}

impl Journal {
    /// Opens the files in `dir`; makes it where it is missing.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(dir: &Path, identity: Identity, bytes_max: u64) -> io::Result<Self> {
        make_dir(dir)?;
        let mut segments = read_segments(dir, &identity)?;
        // What is called durable below must be found again.
        File::open(dir)?.sync_all()?;
        let mut border = Border { at: Place { segment: 0, offset: 0 }, lsn: Lsn::INVALID };
        if let Some(last) = segments.back_mut() {
            let lsn = cut_torn(last)?;
            border = Border { at: Place { segment: last.header.number, offset: last.len }, lsn };
        }
        let next_number = border.at.segment + 1;
        let bytes = segments.iter().map(|segment| segment.len).sum();
        let (mark, durable) = (border.lsn, border.lsn);
        let status = Status { written: border.at, mark, durable, bytes, is_full: false };
        let inner = Inner {
            segments,
            next_number,
            timeline: 0,
            session: 0,
            written: border.at,
            chain: 0,
            mark: border,
            durable: border,
            new_entry: false,
            feed: None,
            passing: None,
            broken: None,
            unlooked: u64::MAX,
            disk_is_short: false,
        };
        Ok(Journal {
            dir: dir.to_owned(),
            identity,
            bytes_max,
            inner: Mutex::new(inner),
            status: watch::Sender::new(status),
            applied: watch::Sender::new(Lsn::INVALID),
            consumed: Mutex::new(border.at),
        })
    }

    /// Whose changes these are.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Bytes that the files may take.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Follows the journal.
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Follows what the shadow shows, as far as the journal was told.
    pub fn watch_applied(&self) -> watch::Receiver<Lsn> {
        self.applied.subscribe()
    }

    /// What the shadow shows.
    pub fn applied(&self) -> Lsn {
        *self.applied.borrow()
    }

    /// The shadow shows everything up to `lsn`, and keeps it.
    pub fn set_applied(&self, lsn: Lsn) {
        self.applied.send_if_modified(|applied| applied.advance(lsn));
    }

    /// What may be confirmed: durable here, or on the shadow.
    pub fn safe(&self) -> Lsn {
        self.status.borrow().durable.max(self.applied())
    }

    /// A connection begins, of a source on `timeline` whose shadow shows everything up to
    /// `applied`: what was not confirmed is dropped, the source sends it again.
    ///
    /// # Errors
    /// The files cannot be cut or made.
    pub fn begin(&self, applied: Lsn, timeline: u32) -> Result<Opened> {
        self.set_applied(applied);
        let applied = self.applied();
        let mut inner = self.lock();
        inner.session += 1;
        (inner.passing, inner.broken, inner.unlooked) = (None, None, u64::MAX);
        let known = inner.segments.back().map_or(0, |segment| segment.header.timeline);
        inner.timeline = timeline.max(known);
        let begun = self.begin_files(&mut inner, applied);
        let position = inner.mark.lsn;
        self.tell(&inner);
        begun.map_err(|error| self.break_off(&mut inner, "begin", &error))?;
        // At the shadow's position it is the shadow that knows.
        let timeline = if position > applied { known } else { 0 };
        Ok(Opened { session: inner.session, position, timeline })
    }

    fn begin_files(&self, inner: &mut Inner, applied: Lsn) -> io::Result<()> {
        self.reap(inner, applied);
        let first = inner.segments.front().map(|segment| segment.header.base);
        if first.is_some_and(|base| base > applied) {
            tracing::warn!(journal = %self.dir.display(), %applied, "the shadow is older than the journal");
        }
        if first.is_none_or(|base| base > applied) || applied >= inner.durable.lsn {
            return self.restart(inner, applied, true);
        }
        let durable = inner.durable;
        if durable.at == inner.written && is_fresh(inner) {
            return Ok(());
        }
        let is_behind = |segment: &Segment| segment.header.number > durable.at.segment;
        if inner.segments.back().is_some_and(is_behind) {
            while inner.segments.back().is_some_and(is_behind) {
                remove(inner.segments.pop_back());
            }
            // None of them may come back between the last and the next.
            File::open(&self.dir)?.sync_all()?;
        }
        if let Some(last) = inner.segments.back_mut() {
            (last.closed, last.len) = (true, durable.at.offset);
            last.file.set_len(durable.at.offset)?;
            last.file.sync_data()?;
        }
        self.add_segment(inner, durable.lsn, true)
    }

    /// Everything before `base` is elsewhere: an empty segment stands alone.
    fn restart(&self, inner: &mut Inner, base: Lsn, begins_connection: bool) -> io::Result<()> {
        if begins_connection && inner.mark.lsn == base && is_fresh(inner) {
            let older = inner.segments.len() - 1;
            inner.segments.drain(..older).for_each(|segment| remove(Some(segment)));
            inner.durable = inner.mark;
            return Ok(());
        }
        inner.segments.drain(..).for_each(|segment| remove(Some(segment)));
        self.add_segment(inner, base, begins_connection)?;
        // All before it is on the shadow.
        inner.durable = inner.mark;
        Ok(())
    }

    /// Makes the next segment; the last one must be closed.
    fn add_segment(&self, inner: &mut Inner, base: Lsn, begins_connection: bool) -> io::Result<()> {
        let Identity { system_identifier, database_oid, generation } = self.identity;
        let number = inner.next_number;
        inner.next_number += 1;
        let timeline = inner.timeline;
        let header =
            Header { number, timeline, system_identifier, database_oid, generation, base, begins_connection };
        let path = self.dir.join(format!("{number:016x}.{EXTENSION}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let (len, file) = (HEADER_LEN as u64, Arc::new(file));
        file.write_all_at(&header.encode(), 0)?;
        inner.segments.push_back(Segment { header, path, file, len, closed: false });
        inner.new_entry = true;
        inner.chain = header.chain();
        inner.written = Place { segment: number, offset: len };
        inner.mark = Border { at: inner.written, lsn: base };
        Ok(())
    }

    /// Appends a payload of the connection `session`. `relations` are the
    /// descriptions that a new segment begins with.
    ///
    /// # Errors
    /// The files cannot be written, or another connection has begun.
    pub fn append(
        &self,
        session: u64,
        scanned: &Scanned,
        relations: &HashMap<u32, Bytes>,
    ) -> Result<Appended> {
        let mut inner = self.lock();
        self.check(&inner, session)?;
        let done = self.append_files(&mut inner, scanned, relations);
        self.tell(&inner);
        done.map_err(|error| self.break_off(&mut inner, "write", &error))
    }

    /// As [`append`](Self::append), if that is no more than a short write to the end of a file:
    /// then it need not go to a thread where it may block. `None` if there is more to it.
    pub fn append_at_once(
        &self,
        session: u64,
        scanned: &Scanned,
        relations: &HashMap<u32, Bytes>,
    ) -> Option<Result<Appended>> {
        if scanned.payload.len() > AT_ONCE_MAX {
            return None;
        }
        let mut inner = self.inner.try_lock().ok()?;
        let is_plain = inner.passing.is_none()
            && inner.written.offset < self.segment_bytes()
            && inner.unlooked < LOOK_BYTES
            && !inner.disk_is_short
            && bytes_of(&inner) + LARGEST < self.bytes_max;
        if !is_plain {
            return None;
        }
        if let Err(error) = self.check(&inner, session) {
            return Some(Err(error));
        }
        let done = self.append_files(&mut inner, scanned, relations);
        self.tell(&inner);
        Some(done.map_err(|error| self.break_off(&mut inner, "write", &error)))
    }

    fn append_files(
        &self,
        inner: &mut Inner,
        scanned: &Scanned,
        relations: &HashMap<u32, Bytes>,
    ) -> io::Result<Appended> {
        let applied = self.applied();
        match inner.passing {
            Some(Passing { until: None, .. }) => return Ok(Self::pass(inner, scanned)),
            Some(Passing { until: Some(until), .. }) if applied < until => return Ok(Appended::Full),
            Some(Passing { until: Some(until), .. }) => {
                inner.passing = None;
                self.restart(inner, until, false)?;
                self.describe(inner, relations)?;
            }
            None => {}
        }
        let at_border = |inner: &Inner| inner.written == inner.mark.at;
        let is_used = |inner: &Inner| inner.written.offset > HEADER_LEN as u64;
        if at_border(inner) && inner.written.offset >= self.segment_bytes() {
            self.rotate(inner, applied, relations)?;
        }
        if self.lacks_room(inner, scanned.payload.len()) {
            if at_border(inner) && is_used(inner) && applied >= inner.mark.lsn {
                self.rotate(inner, applied, relations)?;
            }
            self.reap(inner, applied);
            if self.lacks_room(inner, scanned.payload.len()) {
                let open = !at_border(inner);
                let waits = *self.consumed.lock().unwrap_or_else(PoisonError::into_inner) == inner.written;
                if !(open && waits && inner.feed.is_some()) {
                    return Ok(Appended::Full);
                }
                self.begin_passing(inner)?;
                return Ok(Self::pass(inner, scanned));
            }
        }
        let Scanned { payload, continued, mark } = scanned;
        let whole = mark.map_or(0, |(at, _)| at);
        if let Some((_, lsn)) = mark {
            self.write(inner, payload.slice(..whole), false, Some(*lsn))?;
        }
        if whole < payload.len() {
            self.write(inner, payload.slice(whole..), *continued, None)?;
        }
        Ok(Appended::Done)
    }

    /// The applier waits for more of a transaction for which there is no room:
    /// what stands here of it is dropped, it is not confirmed.
    fn begin_passing(&self, inner: &mut Inner) -> io::Result<()> {
        tracing::info!(journal = %self.dir.display(), "a transaction is larger than the journal's room: it passes");
        let offset = inner.mark.at.offset;
        if let Some(last) = inner.segments.back_mut() {
            last.len = offset;
            last.file.set_len(offset)?;
        }
        inner.passing = Some(Passing { until: None, is_lost: false });
        Ok(())
    }

    fn pass(inner: &mut Inner, scanned: &Scanned) -> Appended {
        let Scanned { payload, continued, mark } = scanned;
        let whole = mark.map_or(payload.len(), |(at, _)| at);
        let at = inner.written;
        inner.written.offset += whole as u64;
        let continued = *continued && mark.is_none();
        let part = Part { at, next: inner.written, chain: 0, payload: payload.slice(..whole), continued };
        if let (Some((_, lsn)), Some(passing)) = (mark, &mut inner.passing) {
            passing.until = Some(*lsn);
        }
        let rest = (whole < payload.len()).then(|| Scanned {
            payload: payload.slice(whole..),
            continued: scanned.continued,
            mark: None,
        });
        Appended::Pass(vec![part], rest)
    }

    /// Writes one record, and gives it to the applier if that keeps up.
    fn write(&self, inner: &mut Inner, payload: Bytes, continued: bool, mark: Option<Lsn>) -> io::Result<()> {
        let (head, chain) = record_head(inner.chain, &payload, continued, mark);
        let at = inner.written;
        let len = (RECORD_HEAD_LEN + payload.len()) as u64;
        let next = Place { offset: at.offset + len, ..at };
        if let Some(feed) = &inner.feed {
            // One that is behind reads the file.
            let _ = feed.try_send(Part { at, next, chain, payload: payload.clone(), continued });
        }
        let Some(last) = inner.segments.back_mut() else {
            return Err(io::Error::other("no segment is open"));
        };
        write_all(&last.file, at.offset, &head, &payload)?;
        last.len = next.offset;
        (inner.written, inner.chain) = (next, chain);
        inner.unlooked = inner.unlooked.saturating_add(len);
        if let Some(lsn) = mark {
            inner.mark = Border { at: next, lsn };
        }
        Ok(())
    }

    /// Descriptions of relations, at the beginning of a segment.
    fn describe(&self, inner: &mut Inner, relations: &HashMap<u32, Bytes>) -> io::Result<()> {
        let mut joined = Vec::new();
        let mut relations = relations.values().peekable();
        while let Some(relation) = relations.next() {
            joined.extend_from_slice(relation);
            let is_last = relations.peek().is_none();
            while joined.len() >= PIECE || (is_last && !joined.is_empty()) {
                let rest = joined.split_off(joined.len().min(PIECE));
                let piece = std::mem::replace(&mut joined, rest);
                let continued = !(is_last && joined.is_empty());
                self.write(inner, piece.into(), continued, None)?;
            }
        }
        // Nothing of a transaction yet.
        inner.mark.at = inner.written;
        Ok(())
    }

    /// Closes the last segment, between two transactions, and begins another.
    fn rotate(&self, inner: &mut Inner, applied: Lsn, relations: &HashMap<u32, Bytes>) -> io::Result<()> {
        let base = inner.mark.lsn;
        if let Some(last) = inner.segments.back_mut() {
            last.closed = true;
            if applied < base {
                last.file.sync_data()?;
            }
        }
        self.add_segment(inner, base, false)?;
        self.describe(inner, relations)?;
        self.reap(inner, applied);
        Ok(())
    }

    /// Removes segments that the shadow has all of.
    fn reap(&self, inner: &mut Inner, applied: Lsn) {
        while inner.segments.get(1).is_some_and(|second| second.header.base <= applied) {
            remove(inner.segments.pop_front());
        }
    }

    fn lacks_room(&self, inner: &mut Inner, more: usize) -> bool {
        if inner.unlooked >= LOOK_BYTES || inner.disk_is_short {
            inner.disk_is_short = is_disk_short(&self.dir);
            inner.unlooked = 0;
        }
        let needs = (more + 2 * RECORD_HEAD_LEN) as u64;
        inner.disk_is_short || bytes_of(inner) + needs > self.bytes_max
    }

    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES.min(self.bytes_max / 4)
    }

    /// Brings what is whole to disk.
    ///
    /// # Errors
    /// The disk fails: nothing more is appended on this connection, and what
    /// was not durable is dropped.
    pub fn sync(&self, session: u64) -> Result<()> {
        let (files, mark, new_entry) = {
            let inner = self.lock();
            self.check(&inner, session)?;
            let from = inner.durable.at.segment;
            let unsynced = inner.segments.iter().filter(|segment| segment.header.number >= from);
            (unsynced.map(|s| s.file.clone()).collect::<Vec<_>>(), inner.mark, inner.new_entry)
        };
        let synced = files.iter().try_for_each(|file| file.sync_data()).and_then(|()| match new_entry {
            true => File::open(&self.dir)?.sync_all(),
            false => Ok(()),
        });
        let mut inner = self.lock();
        self.check(&inner, session)?;
        if let Err(error) = synced {
            return Err(self.break_off(&mut inner, "bring to disk", &error));
        }
        // A segment made meanwhile is not covered.
        inner.new_entry &= inner.segments.back().is_some_and(|last| last.header.number != mark.at.segment);
        if mark.lsn > inner.durable.lsn {
            inner.durable = mark;
        }
        self.tell(&inner);
        Ok(())
    }

    /// Removes segments that the shadow has all of.
    pub fn tidy(&self) {
        let applied = self.applied();
        let mut inner = self.lock();
        self.reap(&mut inner, applied);
        self.tell(&inner);
    }

    /// Forgets everything: it cannot be applied. The position is the shadow's
    /// from here on, and the source finds out what that means.
    pub fn discard(&self) {
        let mut inner = self.lock();
        inner.segments.drain(..).for_each(|segment| remove(Some(segment)));
        inner.durable.lsn = Lsn::INVALID;
        inner.mark.lsn = Lsn::INVALID;
        inner.broken = Some("it was discarded".to_owned());
        self.tell(&inner);
    }

    /// Where reading begins for a shadow at `applied`; `None` when what it
    /// needs first is not here. Records go to `feed` as they are written.
    pub(super) fn subscribe(&self, applied: Lsn, feed: mpsc::Sender<Part>) -> Option<Start> {
        // The only writer says so: a shadow that was restored stands before what was known.
        self.applied.send_if_modified(|known| std::mem::replace(known, applied) != applied);
        let mut inner = self.lock();
        self.reap(&mut inner, applied);
        inner.feed = Some(feed);
        if let Some(passing) = &mut inner.passing {
            passing.is_lost = true;
        }
        let segments = &inner.segments;
        if segments.is_empty() {
            let segment = inner.next_number - 1;
            let place = Place { segment, offset: HEADER_LEN as u64 };
            self.consumed(place);
            return Some(Start { place, chain: 0, timeline: 0, base: applied });
        }
        let header = segments.iter().map(|segment| segment.header).rfind(|header| header.base <= applied)?;
        let place = Place { segment: header.number, offset: HEADER_LEN as u64 };
        // What an earlier reader had is nothing to this one.
        self.consumed(place);
        Some(Start { place, chain: header.chain(), timeline: header.timeline, base: header.base })
    }

    /// The applier has come so far.
    pub(super) fn consumed(&self, place: Place) {
        *self.consumed.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// What stands at `place`.
    pub(super) fn look(&self, place: Place) -> Look {
        let inner = self.lock();
        match inner.segments.iter().find(|segment| segment.header.number == place.segment) {
            Some(here) if place.offset < here.len => return Look::Read(here.file.clone(), here.len),
            Some(here) if !here.closed => return Look::Nothing,
            _ => {}
        }
        let next = inner.segments.iter().find(|segment| segment.header.number > place.segment);
        next.map_or(Look::Nothing, |segment| Look::Next(segment.header))
    }

    /// The applier's feed, for parts that pass.
    pub fn feed(&self) -> Option<mpsc::Sender<Part>> {
        self.lock().feed.clone()
    }

    /// The error of a journal that cannot be read.
    pub(super) fn damaged(&self, what: &str) -> Error {
        failed("read", &self.dir, &io::Error::other(what.to_owned()))
    }

    fn check(&self, inner: &Inner, session: u64) -> Result<()> {
        if inner.session != session {
            return Err(Error::Busy("another connection of this job has taken over".to_owned()));
        }
        if inner.passing.is_some_and(|passing| passing.is_lost) {
            return Err(Error::Busy("a transaction larger than the journal must be sent again".to_owned()));
        }
        match &inner.broken {
            Some(text) => Err(failed("use", &self.dir, &io::Error::other(text.clone()))),
            None => Ok(()),
        }
    }

    fn break_off(&self, inner: &mut Inner, what: &str, error: &io::Error) -> Error {
        inner.broken = Some(error.to_string());
        failed(what, &self.dir, error)
    }

    fn tell(&self, inner: &Inner) {
        let bytes = bytes_of(inner);
        let is_full = inner.disk_is_short || bytes + LARGEST > self.bytes_max;
        let (written, mark, durable) = (inner.written, inner.mark.lsn, inner.durable.lsn);
        let status = Status { written, mark, durable, bytes, is_full };
        self.status.send_if_modified(|held| std::mem::replace(held, status) != status);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a connection has begun with a segment in which nothing was ever
/// written: the next one may have it.
fn is_fresh(inner: &Inner) -> bool {
    let at_start = |s: &Segment| Place { segment: s.header.number, offset: HEADER_LEN as u64 };
    let is_fresh = |s: &Segment| {
        let is_ours = s.header.begins_connection && s.header.timeline == inner.timeline;
        is_ours && !s.closed && inner.written == at_start(s)
    };
    inner.segments.back().is_some_and(is_fresh)
}

fn bytes_of(inner: &Inner) -> u64 {
    inner.segments.iter().map(|segment| segment.len).sum()
}

/// A segment ends at the first border past this: what is applied is removed by
/// segments, and reading begins at one.
const SEGMENT_BYTES: u64 = 64 << 20;
/// The disk's room is looked at once in so many bytes.
const LOOK_BYTES: u64 = 32 << 20;
/// A payload of more is written where it may block: the system copies so much in some microseconds.
const AT_ONCE_MAX: usize = 64 << 10;
/// What the largest payload takes.
const LARGEST: u64 = (PIECE + 2 * RECORD_HEAD_LEN) as u64;
