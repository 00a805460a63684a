//! Where the stream stands still for a moment, so that the shadow can be
//! compared with a snapshot of the source.
//!
//! ```text
//! verifying session                    stream worker
//! Halts::ask ───────── halt ─────────► between two transactions: stops
//!   ◄───────────────── ready ────────
//!   (the source takes its snapshot)
//!   ────────────────── wanted ───────► goes on to the first transaction that
//!                                      the snapshot did not see; looks ahead
//!   ◄───────────────── reached ──────  stands there
//!   (opens its transaction)
//!   ────────────────── go on ────────► goes on
//! ```
//!
//! A snapshot shows transactions in the order in which they became visible,
//! the stream brings them in the order of their commit records. The two can
//! differ for a moment; so the worker looks ahead to the end of what the
//! snapshot can have seen, and says whether what it stands at is exactly what
//! the snapshot saw.
//!
//! Invariants: no halt lasts longer than the session that asked for it; a
//! session that does not answer in time is forgotten. What is here is pure but
//! for the channels.

use bytes::Bytes;
use scry_wire::message::change::{Assembler, Begin, Change, Commit};
use scry_wire::{Lsn, SeenBy};
use std::collections::VecDeque;
use tokio::sync::{Mutex, mpsc, oneshot};

/// The way from verifying sessions to the stream worker.
pub struct Halts {
    queue: mpsc::Sender<Halt>,
    worker: Mutex<mpsc::Receiver<Halt>>,
}

impl Default for Halts {
    fn default() -> Self {
        let (queue, worker) = mpsc::channel(HALTS_MAX);
        Halts { queue, worker: Mutex::new(worker) }
    }
}

impl Halts {
    /// Asks the stream to stop between two transactions; it does when it runs.
    pub async fn ask(&self) -> Asked {
        let (ready, is_ready) = oneshot::channel();
        let (want, wanted) = oneshot::channel();
        let (reach, reached) = oneshot::channel();
        // The queue is never closed: its other end stands beside it.
        let _ = self.queue.send(Halt { ready, wanted, reach }).await;
        Asked { is_ready, want, reached }
    }

    /// The worker's end; one worker has it at a time.
    pub async fn listen(&self) -> tokio::sync::MutexGuard<'_, mpsc::Receiver<Halt>> {
        self.worker.lock().await
    }
}

/// A session's end of a halt.
pub struct Asked {
    /// The stream stands still.
    pub is_ready: oneshot::Receiver<()>,
    /// Where the session wants it.
    pub want: oneshot::Sender<Wanted>,
    /// It is there.
    pub reached: oneshot::Receiver<Reached>,
}

/// A worker's end of a halt.
pub struct Halt {
    /// Told when the stream stands still.
    pub ready: oneshot::Sender<()>,
    /// Where the session wants it.
    pub wanted: oneshot::Receiver<Wanted>,
    /// Told when it is there.
    pub reach: oneshot::Sender<Reached>,
}

/// A place in the stream, by the source's snapshot.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What the snapshot saw.
    pub seen: SeenBy,
    /// All that it saw was committed before.
    pub lsn: Lsn,
}

/// The stream stands at the place, until `go_on` is used or dropped.
pub struct Reached {
    /// The shadow is exactly what the snapshot saw.
    pub exact: bool,
    /// The shadow's position.
    pub applied: Lsn,
    /// Lets the stream go on.
    pub go_on: oneshot::Sender<()>,
}

/// Whether the place stands before this transaction.
#[must_use]
pub fn is_before(wanted: &Wanted, begin: Begin) -> bool {
    begin.commit_lsn >= wanted.lsn || !wanted.seen.saw(begin.xid)
}

/// What the changes behind the place say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ahead {
    /// Nothing that the snapshot saw can come any more.
    Exact,
    /// Something that the snapshot saw comes behind the place.
    Inexact,
    /// More must be read to tell.
    Unknown,
}

/// Looks at a change behind the place.
#[must_use]
pub fn look(wanted: &Wanted, change: &Change<'_>) -> Ahead {
    let reaches = |lsn: Lsn| if lsn >= wanted.lsn { Ahead::Exact } else { Ahead::Unknown };
    match change {
        Change::Begin(begin) if begin.commit_lsn >= wanted.lsn => Ahead::Exact,
        Change::Begin(begin) if wanted.seen.saw(begin.xid) => Ahead::Inexact,
        Change::Commit(Commit { end_lsn, .. }) => reaches(*end_lsn),
        Change::Keepalive(lsn) => reaches(*lsn),
        _ => Ahead::Unknown,
    }
}

/// Looks at the changes in `bytes`, all of them whole.
#[must_use]
pub fn look_through(wanted: &Wanted, bytes: &[u8]) -> Ahead {
    let mut reader = scry_wire::codec::Reader::new(bytes);
    while reader.remaining() > 0 {
        match Change::read(&mut reader) {
            Ok(change) => match look(wanted, &change) {
                Ahead::Unknown => {}
                told => return told,
            },
            // Who applies it will say what is wrong.
            Err(_) => return Ahead::Inexact,
        }
    }
    Ahead::Unknown
}

/// Frames that were read to look ahead and are still to be applied.
#[derive(Default)]
pub struct ReadAhead {
    assembler: Assembler,
    bytes: usize,
}

impl ReadAhead {
    /// Looks at the next payload.
    #[must_use]
    pub fn part(&mut self, wanted: &Wanted, payload: &Bytes, continued: bool) -> Ahead {
        self.bytes += payload.len();
        if self.bytes > AHEAD_BYTES_MAX {
            return Ahead::Inexact;
        }
        match self.assembler.push_part(payload.clone(), continued) {
            Ok(Some(bytes)) => look_through(wanted, &bytes),
            Ok(None) => Ahead::Unknown,
            Err(_) => Ahead::Inexact,
        }
    }
}

/// The transactions that came last: a snapshot that still takes one of them
/// for running does not fit any place from here on.
#[derive(Debug, Default)]
pub struct Recent {
    xids: VecDeque<u64>,
}

impl Recent {
    /// A transaction was applied.
    pub fn push(&mut self, xid: u64) {
        if self.xids.len() >= RECENT_MAX {
            self.xids.pop_front();
        }
        self.xids.push_back(xid);
    }

    /// Whether the snapshot saw all of them.
    #[must_use]
    pub fn all_seen(&self, seen: &SeenBy) -> bool {
        self.xids.iter().all(|xid| seen.saw(*xid))
    }
}

/// Halts that wait for the worker.
const HALTS_MAX: usize = 16;
/// Bytes that may be read ahead: beyond that, another snapshot is cheaper.
const AHEAD_BYTES_MAX: usize = 32 << 20;
/// Transactions that are remembered: those of the time between a commit record
/// and its visibility, which is short but for synchronous standbys.
const RECENT_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::message::change::ChangeWriter;

    fn wanted() -> Wanted {
        // 10 and 12 were running; 11 and all below 10 were seen.
        Wanted { seen: "10:13:10,12".parse().unwrap(), lsn: Lsn(100) }
    }

    fn begin(xid: u64, at: u64) -> Begin {
        Begin { xid, commit_lsn: Lsn(at), commit_time: 0 }
    }

    fn stream(transactions: &[(u64, u64)], keepalive: u64) -> Vec<u8> {
        let mut buf = Vec::new();
        let mut w = ChangeWriter::new(&mut buf);
        for (xid, at) in transactions {
            w.begin(begin(*xid, *at));
            w.commit(Commit { commit_lsn: Lsn(*at), end_lsn: Lsn(*at + 5) });
        }
        w.keepalive(Lsn(keepalive));
        buf
    }

    #[test]
    fn stands_before_what_the_snapshot_did_not_see() {
        assert!(!is_before(&wanted(), begin(9, 50)));
        assert!(!is_before(&wanted(), begin(11, 50)));
        assert!(is_before(&wanted(), begin(12, 50)));
        assert!(is_before(&wanted(), begin(40, 50)));
        assert!(is_before(&wanted(), begin(9, 100)), "it was committed after the snapshot");
    }

    #[test]
    fn knows_whether_anything_seen_comes_behind() {
        assert_eq!(look_through(&wanted(), &stream(&[(12, 50), (20, 60)], 100)), Ahead::Exact);
        assert_eq!(look_through(&wanted(), &stream(&[(12, 50), (11, 60)], 100)), Ahead::Inexact);
        assert_eq!(look_through(&wanted(), &stream(&[(12, 50)], 99)), Ahead::Unknown);
        assert_eq!(look_through(&wanted(), &stream(&[(20, 96)], 0)), Ahead::Exact);
        assert_eq!(look_through(&wanted(), &stream(&[(20, 100)], 0)), Ahead::Exact);
        assert_eq!(look_through(&wanted(), b"?"), Ahead::Inexact);
    }

    #[test]
    fn remembers_the_last_transactions() {
        let mut recent = Recent::default();
        for xid in 0..10 {
            recent.push(xid);
        }
        assert!(recent.all_seen(&wanted().seen));
        recent.push(12);
        assert!(!recent.all_seen(&wanted().seen));
        for _ in 0..RECENT_MAX {
            recent.push(11);
        }
        assert!(recent.all_seen(&wanted().seen));
    }

    #[tokio::test]
    async fn a_session_that_goes_lets_the_stream_go_on() {
        let halts = Halts::default();
        let asked = halts.ask().await;
        let halt = halts.listen().await.recv().await.unwrap();
        halt.ready.send(()).unwrap();
        asked.is_ready.await.unwrap();
        drop(asked.want);
        assert!(halt.wanted.await.is_err());
    }
}
