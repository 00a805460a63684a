//! Writes frames to a worker.
//!
//! Invariants: bytes wait here until the worker takes them; a frame of our own
//! never stands inside one of the platform's; at most one piece of the platform
//! and a few frames of our own wait. Safe to drop at any point.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use tokio::net::UnixStream;

/// Frames that may wait. Our own (notices, a refusal) are small and rare.
const WAITING_MAX: usize = 8;

/// The way to one worker.
#[derive(Debug)]
pub struct Writer {
    socket: Arc<UnixStream>,
    waiting: VecDeque<Bytes>,
    inside: bool,
}

impl Writer {
    /// A writer to this socket.
    #[must_use]
    pub fn new(socket: Arc<UnixStream>) -> Self {
        Writer { socket, waiting: VecDeque::new(), inside: false }
    }

    /// Lets a frame of our own wait for [`Writer::flush`]. Without room it is
    /// dropped: a worker that reads nothing needs no notices. Inside a frame of
    /// the platform it is dropped too; the worker sees that frame cut off.
    pub fn push(&mut self, frame: Bytes) {
        if !self.inside && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(frame);
        }
    }

    /// Lets a piece of the platform wait; `inside` tells that its last frame
    /// goes on in the next piece. Call it when nothing waits.
    pub fn pass_on(&mut self, piece: Bytes, inside: bool) {
        self.inside = inside;
        self.waiting.push_back(piece);
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes all that waits.
    pub async fn flush(&mut self) -> io::Result<()> {
        while let Some(front) = self.waiting.front_mut() {
            if front.is_empty() {
                self.waiting.pop_front();
                continue;
            }
            self.socket.writable().await?;
            match self.socket.try_write(front) {
                Ok(written) => front.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
