//! Frames in and out of one request.
//!
//! Reading asks the body for more only when its caller asks for a frame: what
//! is not read stays in the peer's HTTP/2 window, and that is how back-pressure
//! reaches the source. Where a sender packs its frames ([`Packs`]), they are
//! unpacked one pack at a time, when a frame is asked for. Writing goes through
//! a short queue.

use super::packs::{Packs, Step};
use crate::{Error, Result, metrics};
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame as BodyFrame};
use http_body_util::BodyExt;
use scry_wire::frame::{Frame, Tag};
use scry_wire::message::{Level, Message, Notice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The frames that a worker sends.
pub struct FrameReader {
    body: axum::body::Body,
    /// Bytes of frames; the first begins one.
    buf: BytesMut,
    packs: Packs,
    /// How long the open frame's rest has been waited for.
    waited: Duration,
}

impl FrameReader {
    /// Reads frames out of a request's body.
    #[must_use]
    pub fn new(body: axum::body::Body) -> Self {
        FrameReader { body, buf: BytesMut::new(), packs: Packs::default(), waited: Duration::ZERO }
    }

    /// The next frame; `None` when the peer has ended the request in order.
    ///
    /// # Errors
    /// A bad frame, a request that ends inside one or stands still there, or a broken connection.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            self.packs.begin(&mut self.buf);
            if let Some(frame) = Frame::take(&mut self.buf)? {
                self.waited = Duration::ZERO;
                return Ok(Some(frame));
            }
            if self.packs.unpack(&mut self.buf)? == Step::Went {
                continue;
            }
            match self.more().await? {
                Some(Ok(part)) => {
                    if let Ok(data) = part.into_data() {
                        ::metrics::counter!(metrics::BYTES_RECEIVED).increment(data.len() as u64);
                        self.packs.waiting(&mut self.buf).extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return Err(Error::Gone),
                None if self.at_border() => return Ok(None),
                None => return Err(Error::protocol("the request ends inside a frame")),
            }
        }
    }

    /// More bytes. Only a damaged length lets the rest of a frame be waited for so long.
    async fn more(&mut self) -> Result<Option<Received>> {
        if self.at_border() {
            return Ok(self.body.frame().await);
        }
        let (begun, rest) = (Instant::now(), FRAME_TIMEOUT.saturating_sub(self.waited));
        let part = tokio::time::timeout(rest, self.body.frame()).await.map_err(|_| {
            let seconds = FRAME_TIMEOUT.as_secs();
            Error::protocol(format!("a frame has not ended for {seconds} s: its length may be damaged"))
        })?;
        self.waited += begun.elapsed();
        Ok(part)
    }

    /// The next frame, which must be there.
    pub async fn expect(&mut self) -> Result<Frame> {
        self.next().await?.ok_or(Error::Gone)
    }

    /// Whether the peer ended the request; does not wait.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.at_border() && self.body.is_end_stream()
    }

    /// Whether all that came has been given on.
    fn at_border(&self) -> bool {
        self.buf.is_empty() && self.packs.is_empty()
    }
}

/// What a body gives.
type Received = std::result::Result<BodyFrame<Bytes>, axum::Error>;

/// The frames that go to a worker.
#[derive(Debug, Clone)]
pub struct FrameSender {
    queue: mpsc::Sender<Bytes>,
}

impl FrameSender {
    /// A sender and the body that carries what is sent.
    #[must_use]
    pub fn new() -> (Self, AnswerBody) {
        let (queue, rest) = mpsc::channel(ANSWER_QUEUE);
        (FrameSender { queue }, AnswerBody { queue: rest })
    }

    /// Sends a message; waits while the peer does not read.
    pub async fn send(&self, message: &impl Message) -> Result<()> {
        self.queue.send(message.to_frame().into()).await.map_err(|_| Error::Gone)
    }

    /// Sends a notice.
    pub async fn notice(&self, level: Level, message: impl Into<String>) -> Result<()> {
        self.send(&Notice { level, message: message.into(), hint: String::new() }).await
    }

    /// Ends when the peer is gone.
    pub async fn gone(&self) -> Error {
        self.queue.closed().await;
        Error::Gone
    }
}

/// The body of the answer: one data frame for each frame.
pub struct AnswerBody {
    queue: mpsc::Receiver<Bytes>,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<BodyFrame<Bytes>, Self::Error>>> {
        self.queue.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(BodyFrame::data(bytes))))
    }
}

/// An error for a frame that does not belong here.
#[must_use]
pub fn unexpected(frame: &Frame, expected: &'static str) -> Error {
    let tag: Tag = frame.tag();
    scry_wire::Error::Unexpected { tag: tag.as_char(), expected }.into()
}

/// Frames that wait for a peer that does not read: small ones, all of them.
const ANSWER_QUEUE: usize = 16;
/// For the rest of a frame, of a megabyte at most, while it is asked for.
const FRAME_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    fn notice() -> Vec<u8> {
        Notice { level: Level::Info, message: "said".to_owned(), hint: String::new() }.to_frame()
    }

    /// A body of these parts, with as many seconds before each; then it stands still.
    fn body(parts: Vec<Vec<u8>>, seconds: u64) -> axum::body::Body {
        let parts = stream::unfold(parts.into_iter(), move |mut parts| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let Some(part) = parts.next() else { return std::future::pending().await };
            Some((Ok::<_, std::convert::Infallible>(part), parts))
        });
        axum::body::Body::from_stream(parts)
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_does_not_end_is_an_error() {
        let mut damaged = notice();
        damaged[1] ^= 1;
        // What is said later goes into it.
        let mut reader = FrameReader::new(body([vec![damaged], vec![notice(); 100]].concat(), 7));
        let begun = Instant::now();
        let error = reader.next().await.unwrap_err();
        assert!(error.to_string().contains("has not ended"), "{error}");
        assert_eq!(begun.elapsed(), Duration::from_secs(7) + FRAME_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_between_frames_and_slow_frames_are_none() {
        let (a, b) = (notice()[..9].to_vec(), notice()[9..].to_vec());
        let mut reader = FrameReader::new(body(vec![a.clone(), b.clone(), a, b], 50));
        for _ in 0..2 {
            assert_eq!(reader.next().await.unwrap().unwrap().tag(), Tag::Notice);
        }
        let mut reader = FrameReader::new(body(vec![notice()], 500));
        assert_eq!(reader.next().await.unwrap().unwrap().tag(), Tag::Notice);
    }
}
