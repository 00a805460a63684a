//! The way back: the platform's frames, checked, for one worker.
//!
//! ```text
//! worker ◄── writer ◄── relay ◄── Down ◄── DATA of the answer's body
//! ```
//!
//! Invariants: a small frame is passed on whole or not at all, so that a
//! refusal of our own can follow it; a large one (the ledger of a big copy)
//! passes in pieces, so that neither a platform nor a worker that does not read
//! can make us hold it, and its last piece only if its checksum is right; the
//! way back waits for nothing of the way up.
//! What it does not do: it does not judge positions. The worker refuses a
//! confirmation beyond what it sent.

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use scry_wire::frame::{Frame, Header, Tag};
use scry_wire::limits::FRAME_HEADER_LEN;

use crate::error::{Failure, FailureKind};
use crate::scan::{Scanner, require_from_platform};
use crate::stream::Ends;

/// Frames up to this are passed on whole.
const SMALL_BYTES: usize = 16 << 10;

/// What came down: a frame, or a piece of a large one.
#[derive(Debug)]
pub struct Came {
    /// The tag of the frame that begins with it, if one does.
    pub begins: Option<Tag>,
    /// The bytes, checked.
    pub bytes: Bytes,
    /// The frame goes on in the next piece.
    pub inside: bool,
}

/// The way down of a stream.
#[derive(Debug)]
pub struct Down {
    recv: RecvStream,
    buf: BytesMut,
    scanner: Scanner,
    ends: Ends,
}

impl Down {
    /// The frames of an answer's body.
    #[must_use]
    pub fn new(recv: RecvStream, ends: Ends) -> Self {
        Down { recv, buf: BytesMut::new(), scanner: Scanner::new(require_from_platform), ends }
    }

    /// What comes next. Call it when the last has been written. Safe to drop
    /// at any point.
    pub async fn next(&mut self) -> Result<Came, Failure> {
        loop {
            if let Some(came) = self.take().map_err(|e| self.bad(&e))? {
                return Ok(came);
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

    fn take(&mut self) -> Result<Option<Came>, scry_wire::Error> {
        if !self.scanner.at_border() {
            return self.take_piece(None, self.scanner.left());
        }
        let Some(head) = self.buf.first_chunk::<FRAME_HEADER_LEN>() else { return Ok(None) };
        let header = Header::decode(head)?;
        if header.frame_len() > SMALL_BYTES {
            return self.take_piece(Some(header.tag), header.frame_len());
        }
        require_from_platform(header.tag)?;
        let Some(frame) = Frame::take(&mut self.buf)? else { return Ok(None) };
        Ok(Some(Came { begins: Some(frame.tag()), bytes: frame.into_bytes(), inside: false }))
    }

    /// Takes what is there of a large frame that has `left` bytes to come.
    fn take_piece(&mut self, begins: Option<Tag>, left: usize) -> Result<Option<Came>, scry_wire::Error> {
        if self.buf.is_empty() {
            return Ok(None);
        }
        let bytes = self.buf.split_to(left.min(self.buf.len())).freeze();
        self.scanner.feed(&bytes)?;
        Ok(Some(Came { begins, bytes, inside: !self.scanner.at_border() }))
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
