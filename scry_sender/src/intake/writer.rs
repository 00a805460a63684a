//! Writes frames to a worker, whole frames only.
//!
//! Invariants: bytes wait here until the worker takes them; a frame that was
//! begun is ended before the next; at most one frame of the platform and a few
//! of our own wait. Safe to drop at any point.

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
}

impl Writer {
    /// A writer to this socket.
    #[must_use]
    pub fn new(socket: Arc<UnixStream>) -> Self {
        Writer { socket, waiting: VecDeque::new() }
    }

    /// Lets a frame wait for [`Writer::flush`]. Without room the frame is
    /// dropped and `false` returned: a worker that reads nothing needs no notices.
    pub fn push(&mut self, frame: Bytes) -> bool {
        let room = self.waiting.len() < WAITING_MAX;
        if room {
            self.waiting.push_back(frame);
        }
        room
    }

    /// Lets a last frame wait, room or not: nothing follows it.
    pub fn push_last(&mut self, frame: Bytes) {
        self.waiting.push_back(frame);
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
