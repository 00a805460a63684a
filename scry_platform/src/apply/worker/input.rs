//! Where the worker's changes come from: the connection itself, or the journal.
//!
//! ```text
//! Link:    intake task ──(bounded queue)──► worker
//! Journal: tail (memory, files) ──────────► worker
//! ```
//!
//! Both give the same: payloads of batches, in order. Only the journal tells of
//! another connection of the source; a link ends with its own.

use super::halts::HALT_TIMEOUT;
use crate::apply::halt::{self, Ahead, ReadAhead, Wanted};
use crate::journal::{Event, Tail};
use crate::spool::{Intake, Part};
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::Lsn;
use std::collections::VecDeque;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// What comes next.
pub enum Next {
    /// A batch's payload, and whether its last change goes on in the next one.
    Part(Bytes, bool),
    /// Another connection of the source begins: what is open is void.
    Connection {
        /// Its timeline.
        timeline: u32,
        /// The position that it goes on from.
        base: Lsn,
    },
    /// Nothing comes any more.
    End,
    /// Nothing comes any more, and why.
    Failed(Error),
}

/// Where changes come from.
pub struct Input {
    /// What was read to look ahead: before all else.
    ahead: VecDeque<Next>,
    source: Source,
}

enum Source {
    Link(Link),
    Journal { tail: Tail, wanted: watch::Receiver<bool> },
}

/// The reader's end of the queue; the reader stops with it.
pub struct Link {
    queue: mpsc::Receiver<Result<Part>>,
    task: JoinHandle<()>,
}

impl Link {
    /// Begins to read.
    pub fn start(mut intake: Intake) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE_FRAMES);
        let task = tokio::spawn(async move {
            loop {
                let next = match intake.next().await {
                    Ok(Some(part)) => Ok(part),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let last = next.is_err();
                if sender.send(next).await.is_err() || last {
                    return;
                }
            }
        });
        Link { queue, task }
    }

    /// The next one, waited for. May be dropped.
    pub async fn recv(&mut self) -> Next {
        match self.queue.recv().await {
            Some(part) => to_next(part),
            None => Next::End,
        }
    }

    fn try_recv(&mut self) -> Option<Next> {
        match self.queue.try_recv() {
            Ok(part) => Some(to_next(part)),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => Some(Next::End),
        }
    }
}

fn to_next(part: Result<Part>) -> Next {
    match part {
        Ok((payload, continued)) => Next::Part(payload, continued),
        Err(error) => Next::Failed(error),
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Input {
    /// Changes of one connection.
    pub fn link(intake: Intake) -> Self {
        Input { ahead: VecDeque::new(), source: Source::Link(Link::start(intake)) }
    }

    /// Changes of the journal, until nobody wants more than stands there.
    pub fn journal(tail: Tail, wanted: watch::Receiver<bool>) -> Self {
        Input { ahead: VecDeque::new(), source: Source::Journal { tail, wanted } }
    }

    /// What comes next, if it is there; `reached` is the position so far.
    pub async fn try_next(&mut self, reached: Lsn) -> Result<Option<Next>> {
        match self.ahead.pop_front() {
            Some(next) => Ok(Some(next)),
            None => self.source.try_next(reached).await,
        }
    }

    /// Waits until there may be more. May be dropped.
    pub async fn ready(&mut self) {
        if !self.ahead.is_empty() {
            return;
        }
        match &mut self.source {
            Source::Link(link) => {
                let next = link.recv().await;
                self.ahead.push_back(next);
            }
            Source::Journal { tail, wanted } => tokio::select! {
                () = tail.ready() => {}
                changed = wanted.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
            },
        }
    }

    /// Whether nothing that the snapshot saw comes any more; reads ahead.
    pub async fn is_exact(&mut self, wanted: &Wanted, rest: &[u8], reached: Lsn) -> bool {
        let mut told = halt::look_through(wanted, rest);
        let mut ahead = ReadAhead::default();
        let mut look = |next: &Next| match next {
            Next::Part(payload, continued) => ahead.part(wanted, payload, *continued),
            _ => Ahead::Inexact,
        };
        for next in &self.ahead {
            if told == Ahead::Unknown {
                told = look(next);
            }
        }
        let until = tokio::time::Instant::now() + HALT_TIMEOUT;
        let mut held = std::mem::take(&mut self.ahead);
        while told == Ahead::Unknown {
            match self.source.try_next(reached).await {
                Ok(Some(next)) => {
                    told = look(&next);
                    held.push_back(next);
                }
                Ok(None) => {
                    if tokio::time::timeout_at(until, self.ready()).await.is_err() {
                        break;
                    }
                    if let Some(next) = self.ahead.pop_front() {
                        told = look(&next);
                        held.push_back(next);
                    }
                }
                Err(error) => {
                    held.push_back(Next::Failed(error));
                    break;
                }
            }
        }
        self.ahead = held;
        told == Ahead::Exact
    }
}

impl Source {
    async fn try_next(&mut self, reached: Lsn) -> Result<Option<Next>> {
        match self {
            Source::Link(link) => Ok(link.try_recv()),
            Source::Journal { tail, wanted } => Ok(match tail.try_next(reached).await? {
                Some(Event::Part(part)) => Some(Next::Part(part.payload, part.continued)),
                Some(Event::Connection { timeline, base }) => Some(Next::Connection { timeline, base }),
                None => (!*wanted.borrow_and_update()).then_some(Next::End),
            }),
        }
    }
}

/// Frames between reader and apply: at most as many megabytes.
const QUEUE_FRAMES: usize = 8;
