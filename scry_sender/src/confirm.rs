//! The way back: the platform's frames, whole and checked, for one worker.
//!
//! ```text
//! worker ◄── writer ◄── relay ◄── Down ◄── DATA of the answer's body
//! ```
//!
//! Invariants: a frame is passed on whole or not at all, so that a refusal of
//! our own can follow any of them; a frame that is larger than a window waits
//! for room in a small shared budget, so that no platform can fill our memory;
//! the way back waits for nothing of the way up.
//! What it does not do: it does not judge positions. The worker refuses a
//! confirmation beyond what it sent.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use scry_wire::frame::{Frame, Header};
use scry_wire::limits::FRAME_HEADER_LEN;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Failure, FailureKind};
use crate::scan::require_from_platform;
use crate::stream::Ends;

/// Frames up to this are held without asking: a stream's window.
const SMALL_BYTES: usize = 32 << 10;
/// Bytes of larger frames, of all connections together. Only the ledger of a
/// large copy makes such frames.
const LARGE_BYTES_MAX: usize = 4 << 20;

/// The room that large frames share.
#[derive(Debug, Clone)]
pub struct LargeFrames(Arc<Semaphore>);

impl Default for LargeFrames {
    fn default() -> Self {
        LargeFrames(Arc::new(Semaphore::new(LARGE_BYTES_MAX)))
    }
}

/// The way down of a stream.
#[derive(Debug)]
pub struct Down {
    recv: RecvStream,
    buf: BytesMut,
    room: Option<OwnedSemaphorePermit>,
    passed_on: bool,
    ends: Ends,
}

impl Down {
    /// The frames of an answer's body.
    #[must_use]
    pub fn new(recv: RecvStream, ends: Ends) -> Self {
        Down { recv, buf: BytesMut::new(), room: None, passed_on: false, ends }
    }

    /// The next whole frame, checked. Call it when the last one has been
    /// written. Safe to drop at any point.
    pub async fn next(&mut self, large: &LargeFrames) -> Result<Frame, Failure> {
        if std::mem::take(&mut self.passed_on) {
            self.room = None;
        }
        loop {
            self.wait_for_room(large).await;
            if let Some(frame) = Frame::take(&mut self.buf).map_err(|e| self.bad(&e))? {
                require_from_platform(frame.tag()).map_err(|e| self.bad(&e))?;
                self.passed_on = true;
                return Ok(frame);
            }
            match self.recv.data().await {
                Some(Ok(piece)) => {
                    // The window's error can only be one of counting; the next
                    // read tells of a stream that ended.
                    let _ = self.recv.flow_control().release_capacity(piece.len());
                    self.keep(piece);
                }
                Some(Err(error)) => return Err(self.ends.explain(&error)),
                None => return Err(self.ended()),
            }
        }
    }

    async fn wait_for_room(&mut self, large: &LargeFrames) {
        let Some(head) = self.buf.first_chunk::<FRAME_HEADER_LEN>() else { return };
        // A bad header is told by whoever takes the frame.
        let Ok(header) = Header::decode(head) else { return };
        if header.frame_len() > SMALL_BYTES && self.room.is_none() {
            let bytes = u32::try_from(header.frame_len()).unwrap_or(u32::MAX);
            self.room = Arc::clone(&large.0).acquire_many_owned(bytes).await.ok();
        }
    }

    fn keep(&mut self, piece: Bytes) {
        if self.buf.is_empty() {
            self.buf = piece.try_into_mut().unwrap_or_else(|piece| BytesMut::from(&piece[..]));
        } else {
            self.buf.extend_from_slice(&piece);
        }
    }

    fn ended(&self) -> Failure {
        let message =
            if self.buf.is_empty() { "ended the stream" } else { "ended the stream inside a frame" };
        Failure::new(FailureKind::Lost, format!("{} {message}", self.ends.endpoint))
    }

    fn bad(&self, error: &scry_wire::Error) -> Failure {
        let message = format!("{} sent bytes that are not a valid frame", self.ends.endpoint);
        Failure::new(FailureKind::Protocol, message).detail(&error.to_string())
    }
}

const _: () = assert!(
    scry_wire::limits::FRAME_PAYLOAD_MAX + FRAME_HEADER_LEN <= LARGE_BYTES_MAX,
    "the largest frame fits the room for large frames"
);
