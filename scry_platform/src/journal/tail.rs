//! Reading what was appended, in order: from memory while the reader keeps up,
//! from the files where it does not.
//!
//! ```text
//! next place ─┬─ the part at the feed's front stands there ─► taken
//!             └─ it does not, but more is written ─► read the file
//! the segment ends ─► the next one; a connection begins there? the reader is told
//! ```
//!
//! Invariants: every record is given once, in the order of places; what was
//! dropped when a connection began may have been given before, then the reader
//! is told of the connection right after it.

use super::segment::{Front, HEADER_LEN, Header, RECORD_MAX, front};
use super::store::{Journal, Look, Start, Status};
use super::{Part, Place};
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::Lsn;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};

/// What comes next.
#[derive(Debug)]
pub enum Event {
    /// Changes.
    Part(Part),
    /// Another connection of the source begins; what is open is void.
    Connection {
        /// Its timeline.
        timeline: u32,
        /// The position that it goes on from.
        base: Lsn,
    },
}

/// A reader of the journal; there is one at a time.
#[derive(Debug)]
pub struct Tail {
    journal: Arc<Journal>,
    feed: mpsc::Receiver<Part>,
    /// The feed's front.
    front: Option<Part>,
    /// Read from a file.
    read: VecDeque<Part>,
    place: Place,
    chain: u32,
    timeline: u32,
    base: Lsn,
    status: watch::Receiver<Status>,
}

/// What a look at the files has brought.
enum Found {
    Parts(VecDeque<Part>),
    Segment(Header),
    Nothing,
}

impl Tail {
    /// A reader for a shadow at `applied`.
    ///
    /// # Errors
    /// The journal lacks what comes next for it; it is discarded then.
    pub async fn new(journal: Arc<Journal>, applied: Lsn) -> Result<Self> {
        let (sender, feed) = mpsc::channel(FEED_PARTS);
        let status = journal.watch();
        let of = journal.clone();
        let start = blocking(move || of.subscribe(applied, sender)).await?;
        let Some(Start { place, chain, timeline, base }) = start else {
            return Err(discard(&journal, "it begins behind the shadow's position").await);
        };
        Ok(Tail { journal, feed, front: None, read: VecDeque::new(), place, chain, timeline, base, status })
    }

    /// The source's timeline where reading begins; 0 if nothing stands there.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.timeline
    }

    /// The position where reading begins: the shadow's, or before it.
    #[must_use]
    pub fn base(&self) -> Lsn {
        self.base
    }

    /// What comes next, if it is there. `reached` is the position that the
    /// reader has come to.
    ///
    /// # Errors
    /// The journal cannot be read; it is discarded then.
    pub async fn try_next(&mut self, reached: Lsn) -> Result<Option<Event>> {
        loop {
            if let Some(part) = self.read.pop_front() {
                return Ok(Some(self.take(part)));
            }
            if let Some(part) = self.take_front() {
                return Ok(Some(self.take(part)));
            }
            if self.place >= self.status.borrow().written {
                return Ok(None);
            }
            let (journal, place, chain) = (self.journal.clone(), self.place, self.chain);
            let found = blocking(move || find(&journal, place, chain)).await?;
            match found {
                Ok(Found::Nothing) => return Ok(None),
                Ok(Found::Parts(parts)) => self.read = parts,
                Ok(Found::Segment(header)) => {
                    if header.base > reached {
                        let lacks = format!("it lacks what is between {reached} and {}", header.base);
                        return Err(discard(&self.journal, &lacks).await);
                    }
                    self.place = Place { segment: header.number, offset: HEADER_LEN as u64 };
                    self.chain = header.chain();
                    self.journal.consumed(self.place);
                    if header.begins_connection {
                        let Header { timeline, base, .. } = header;
                        return Ok(Some(Event::Connection { timeline, base }));
                    }
                }
                Err(what) => return Err(discard(&self.journal, &what).await),
            }
        }
    }

    /// Waits until there may be more. May be dropped.
    pub async fn ready(&mut self) {
        let open = self.front.is_none() && !self.feed.is_closed();
        tokio::select! {
            part = self.feed.recv(), if open => self.front = part,
            changed = self.status.changed() => if changed.is_err() {
                // The journal is kept by whoever waits here.
                std::future::pending::<()>().await;
            },
        }
    }

    fn take(&mut self, part: Part) -> Event {
        (self.place, self.chain) = (part.next, part.chain);
        self.journal.consumed(self.place);
        Event::Part(part)
    }

    /// The part at the feed's front, if it is the next one.
    fn take_front(&mut self) -> Option<Part> {
        loop {
            if self.front.is_none() {
                self.front = self.feed.try_recv().ok();
            }
            match &self.front {
                // It was read from the file, or dropped.
                Some(part) if part.at < self.place => self.front = None,
                Some(part) if part.at == self.place => return self.front.take(),
                _ => return None,
            }
        }
    }
}

/// Reads on from `place`.
fn find(journal: &Journal, place: Place, chain: u32) -> std::result::Result<Found, String> {
    loop {
        let (file, upto) = match journal.look(place) {
            Look::Nothing => return Ok(Found::Nothing),
            Look::Next(header) => return Ok(Found::Segment(header)),
            Look::Read(file, upto) => (file, upto),
        };
        let parts = read(&file, upto, place, chain).map_err(|error| error.to_string())?;
        if !parts.is_empty() {
            return Ok(Found::Parts(parts));
        }
        // It may have been cut while it was read.
        if matches!(journal.look(place), Look::Read(_, still) if still >= upto) {
            return Err(format!("segment {:016x} is damaged at byte {}", place.segment, place.offset));
        }
    }
}

fn read(file: &File, upto: u64, place: Place, mut chain: u32) -> std::io::Result<VecDeque<Part>> {
    let wanted = usize::try_from(upto - place.offset).unwrap_or(usize::MAX).min(RECORD_MAX);
    let mut bytes = vec![0; wanted];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, place.offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    let mut rest = Bytes::from(bytes);
    let (mut parts, mut at) = (VecDeque::new(), place);
    while let Front::Record(record) = front(&rest, chain) {
        rest = rest.slice(record.len()..);
        let next = Place { offset: at.offset + record.len() as u64, ..at };
        chain = record.chain;
        parts.push_back(Part { at, next, chain, payload: record.payload, continued: record.continued });
        at = next;
    }
    Ok(parts)
}

/// What is lost is the source's to find out: it sees a position before its slot's.
async fn discard(journal: &Arc<Journal>, what: &str) -> Error {
    let error = journal.damaged(what);
    tracing::error!(%error, "the journal is discarded");
    let journal = journal.clone();
    match blocking(move || journal.discard()).await {
        Ok(()) => error,
        Err(stopping) => stopping,
    }
}

/// Runs what blocks where it hurts nobody.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopping)
}

/// Parts that wait in memory: at most as many megabytes.
const FEED_PARTS: usize = 8;
