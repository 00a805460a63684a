//! The way up of a stream: a worker's pieces into the peer's window.
//!
//! ```text
//! queue ─► throttle ─┬─► window ─► DATA
//!                    └─► pack ──┘
//! ```
//!
//! Flow: a piece passes the throttle, goes up as it is or, where packing pays
//! ([`Packing`]), in a pack with those that wait behind it. Invariants: DATA is
//! sent only into the peer's window; packs begin and end where a frame does;
//! nothing waits for a pack to become full; without packing a piece costs one
//! look at an option more than before there were packs.
//! What it does not do: it knows no frames; `scan` has said where they begin.

use std::future::poll_fn;
use std::time::Instant;

use bytes::Bytes;
use h2::SendStream;
use scry_wire::limits::PACK_BYTES_MAX;
use tokio::sync::mpsc;

use super::exchange::Ends;
use crate::error::{Failure, FailureKind};
use crate::metrics;
use crate::pack::{self, Packing};
use crate::queue::{PIECE_BYTES, Piece};
use crate::scan::Scanned;
use crate::throttle::Gate;

/// The way up of a stream.
#[derive(Debug)]
pub struct Up {
    send: SendStream<Bytes>,
    ends: Ends,
    packing: Option<Packing>,
}

impl Up {
    /// The body of a request; nothing is packed.
    pub fn new(send: SendStream<Bytes>, ends: Ends) -> Self {
        Up { send, ends, packing: None }
    }

    /// With packs, from here on, if any are to be made.
    #[must_use]
    pub fn packing(self, packing: Option<Packing>) -> Self {
        Up { packing, ..self }
    }

    /// Sends pieces until the queue ends; then ends the request. Without an
    /// error of its own the way down says how the stream ended.
    pub async fn run(mut self, mut queue: mpsc::Receiver<Piece>, mut gate: Gate) -> Result<(), Failure> {
        while let Some(piece) = queue.recv().await {
            gate.pass(piece.scanned, piece.bytes.len()).await;
            let (scanned, len) = match self.packing {
                None => self.pass(piece).await?,
                Some(_) => self.pass_or_pack(piece, &mut queue, &mut gate).await?,
            };
            if let Err(failed) = scry_failpoint::hit(scry_failpoint::step::SENT).await {
                return Err(Failure::new(FailureKind::Lost, failed.to_string()));
            }
            metrics::passed_up(scanned.frames, scanned.rows, len);
        }
        self.send.send_data(Bytes::new(), true).map_err(|e| self.ends.explain(&e))
    }

    async fn pass(&mut self, piece: Piece) -> Result<(Scanned, usize), Failure> {
        let Piece { bytes, scanned } = piece;
        let len = bytes.len();
        self.send(bytes).await?;
        Ok((scanned, len))
    }

    /// Sends a piece, and those behind it that fit its pack; what was sent.
    async fn pass_or_pack(
        &mut self,
        piece: Piece,
        queue: &mut mpsc::Receiver<Piece>,
        gate: &mut Gate,
    ) -> Result<(Scanned, usize), Failure> {
        let Piece { mut bytes, mut scanned } = piece;
        let mut len = bytes.len();
        if let Some(border) = self.turn(scanned.begins) {
            let before = bytes.split_to(border.min(bytes.len()));
            self.turn_at(before).await?;
        }
        if !self.is_open() {
            self.send_plain(bytes).await?;
            return Ok((scanned, len));
        }
        let mut held = bytes.len();
        let mut pieces = vec![bytes];
        while held + PIECE_BYTES <= PACK_BYTES_MAX && !gate.is_limited() {
            let Ok(next) = queue.try_recv() else { break };
            held += next.bytes.len();
            len += next.bytes.len();
            scanned += next.scanned;
            pieces.push(next.bytes);
        }
        self.send_pack(pieces).await?;
        Ok((scanned, len))
    }

    fn is_open(&self) -> bool {
        self.packing.as_ref().is_some_and(|packing| packing.open)
    }

    /// Where to change between packs and plain bytes, if that is wanted and a
    /// frame begins in the piece.
    fn turn(&self, begins: Option<usize>) -> Option<usize> {
        let packing = self.packing.as_ref()?;
        begins.filter(|_| packing.wants() != packing.open)
    }

    /// Sends what stands before the change, and changes.
    async fn turn_at(&mut self, before: Bytes) -> Result<(), Failure> {
        if !self.is_open() {
            self.send_plain(before).await?;
        } else {
            if !before.is_empty() {
                self.send_pack(vec![before]).await?;
            }
            self.send(pack::end()).await?;
        }
        if let Some(packing) = &mut self.packing {
            packing.open = !packing.open;
            tracing::debug!(packs = packing.open, "way up changed between frames and packs");
        }
        Ok(())
    }

    async fn send_plain(&mut self, bytes: Bytes) -> Result<(), Failure> {
        let len = bytes.len();
        self.send(bytes).await?;
        if let Some(packing) = &mut self.packing {
            packing.passed(len);
        }
        Ok(())
    }

    async fn send_pack(&mut self, pieces: Vec<Bytes>) -> Result<(), Failure> {
        if let Some(packing) = &mut self.packing {
            let packed = packing.pack(pieces);
            for part in packed.parts {
                self.send(part).await?;
            }
        }
        Ok(())
    }

    /// Sends all of `bytes`, as the peer's window allows.
    pub async fn send(&mut self, mut bytes: Bytes) -> Result<(), Failure> {
        while !bytes.is_empty() {
            self.send.reserve_capacity(bytes.len());
            let mut room = self.send.capacity();
            if room == 0 {
                room = self.wait_for_room().await?;
            }
            let part = bytes.split_to(room.min(bytes.len()));
            if !part.is_empty() {
                self.send.send_data(part, false).map_err(|e| self.ends.explain(&e))?;
            }
        }
        Ok(())
    }

    async fn wait_for_room(&mut self) -> Result<usize, Failure> {
        let begun = self.packing.as_ref().filter(|packing| packing.measures()).map(|_| {
            self.ends.line().ask();
            Instant::now()
        });
        let room = match poll_fn(|cx| self.send.poll_capacity(cx)).await {
            Some(Ok(room)) => room,
            Some(Err(error)) => return Err(self.ends.explain(&error)),
            None => return Err(self.ends.closed()),
        };
        if let (Some(begun), Some(packing)) = (begun, &mut self.packing) {
            let now = Instant::now();
            packing.waited(now, now - begun, self.ends.line().is_queued(now));
        }
        Ok(room)
    }
}
