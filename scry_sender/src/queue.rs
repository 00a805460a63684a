//! Bounded memory between a worker's socket and its HTTP/2 stream.
//!
//! ```text
//! intake ── room ──► piece ──► queue ──► throttle ──► stream
//!    ▲                                                  │
//!    └───────── room comes back with the last byte ─────┘
//! ```
//!
//! Role: a [`Lane`] gives out [`Room`] before anything is read; the room
//! travels with the bytes ([`Piece`]) and comes back only when the last
//! reference to them is dropped, also when HTTP/2 still holds them.
//! Invariants: all rooms together never exceed the [`Budget`]; each lane has
//! one piece of its own, so that a stalled connection (a stream whose copy is
//! not finished) can never take the way from another.
//! What it does not do: it orders nothing between connections.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::metrics;
use crate::scan::Scanned;

/// Bytes of one read, and of one piece at most.
pub const PIECE_BYTES: usize = 32 << 10;
/// Pieces in a queue at most; small pieces are bounded by number, not bytes.
const PIECES_MAX: usize = 256;

const _: () = assert!(PIECE_BYTES <= u32::MAX as usize, "a piece's length fits a semaphore's count");

/// What all connections share.
#[derive(Debug, Clone)]
pub struct Budget {
    ahead: Arc<Semaphore>,
    lane_bytes: usize,
}

impl Budget {
    /// `total` bytes in all for at most `lanes` connections, each of which
    /// reads at most `lane_bytes` ahead.
    #[must_use]
    pub fn new(total: usize, lanes: usize, lane_bytes: usize) -> Self {
        let own = lanes.saturating_mul(PIECE_BYTES);
        let ahead = total.saturating_sub(own).min(Semaphore::MAX_PERMITS);
        Budget { ahead: Arc::new(Semaphore::new(ahead)), lane_bytes: lane_bytes.min(Semaphore::MAX_PERMITS) }
    }

    /// One connection's share.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane {
            own: Arc::new(Semaphore::new(PIECE_BYTES)),
            limit: Arc::new(Semaphore::new(self.lane_bytes)),
            ahead: Arc::clone(&self.ahead),
        }
    }
}

/// One connection's share of the budget.
#[derive(Debug, Clone)]
pub struct Lane {
    own: Arc<Semaphore>,
    limit: Arc<Semaphore>,
    ahead: Arc<Semaphore>,
}

impl Lane {
    /// Waits for room for one piece. Safe to drop at any point.
    pub async fn room(&self) -> Room {
        let permits = tokio::select! {
            biased;
            own = acquire(&self.own) => (own, None),
            (limit, ahead) = async {
                let limit = acquire(&self.limit).await;
                (limit, acquire(&self.ahead).await)
            } => (limit, ahead),
        };
        Room::new(permits)
    }
}

fn acquire(from: &Arc<Semaphore>) -> impl Future<Output = Option<OwnedSemaphorePermit>> + use<> {
    let from = Arc::clone(from);
    // The semaphores are never closed; without a permit the room is only uncounted.
    async move { from.acquire_many_owned(permits(PIECE_BYTES)).await.ok() }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The right to hold some bytes.
#[derive(Debug)]
pub struct Room {
    bytes: usize,
    permits: (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>),
}

impl Room {
    fn new(permits: (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>)) -> Self {
        metrics::queue_bytes_changed(PIECE_BYTES, true);
        Room { bytes: PIECE_BYTES, permits }
    }

    /// Gives back what is above `bytes`.
    #[must_use]
    pub fn shrink(mut self, bytes: usize) -> Self {
        let surplus = self.bytes.saturating_sub(bytes);
        for permit in [&mut self.permits.0, &mut self.permits.1].into_iter().flatten() {
            drop(permit.split(surplus));
        }
        self.bytes -= surplus;
        metrics::queue_bytes_changed(surplus, false);
        self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        metrics::queue_bytes_changed(self.bytes, false);
    }
}

/// Checked bytes of a worker, on their way up.
#[derive(Debug)]
pub struct Piece {
    /// The bytes; they hold their room.
    pub bytes: Bytes,
    /// What they hold.
    pub scanned: Scanned,
}

impl Piece {
    /// Ties bytes to their room.
    #[must_use]
    pub fn new(bytes: Bytes, room: Room, scanned: Scanned) -> Self {
        Piece { bytes: Bytes::from_owner(Held { bytes, _room: room }), scanned }
    }
}

struct Held {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A queue of pieces, bounded by rooms and by number.
#[must_use]
pub fn channel() -> (mpsc::Sender<Piece>, mpsc::Receiver<Piece>) {
    mpsc::channel(PIECES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn has_room(lane: &Lane) -> Option<Room> {
        tokio::time::timeout(std::time::Duration::from_millis(20), lane.room()).await.ok()
    }

    #[tokio::test]
    async fn a_lane_reads_ahead_up_to_its_limit() {
        let lane = Budget::new(100 * PIECE_BYTES, 1, 3 * PIECE_BYTES).lane();
        let mut rooms = Vec::new();
        while let Some(room) = has_room(&lane).await {
            rooms.push(room);
        }
        assert_eq!(rooms.len(), 4, "its own piece and three ahead");
        rooms.pop();
        assert!(has_room(&lane).await.is_some());
    }

    #[tokio::test]
    async fn a_stalled_lane_leaves_every_other_its_own_piece() {
        let budget = Budget::new(4 * PIECE_BYTES, 2, 100 * PIECE_BYTES);
        let (stalled, other) = (budget.lane(), budget.lane());
        let mut rooms = Vec::new();
        while let Some(room) = has_room(&stalled).await {
            rooms.push(room);
        }
        assert_eq!(rooms.len(), 3);
        for _ in 0..3 {
            assert!(has_room(&other).await.is_some());
        }
    }

    #[tokio::test]
    async fn room_comes_back_with_the_last_byte() {
        let lane = Budget::new(PIECE_BYTES, 1, 0).lane();
        let room = has_room(&lane).await.unwrap().shrink(10);
        let mut piece = Piece::new(Bytes::from_static(b"0123456789"), room, Scanned::default());
        let tail = piece.bytes.split_off(9);
        drop(piece);
        assert!(has_room(&lane).await.is_none(), "the tail still holds the room");
        drop(tail);
        assert!(has_room(&lane).await.is_some());
    }
}
