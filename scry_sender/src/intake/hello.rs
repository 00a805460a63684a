//! The first frame of a worker: who it is, in bounded time and space.
//!
//! Invariant: a peer that sends no valid hello holds a connection for
//! [`HELLO_TIMEOUT`] and [`HELLO_BYTES_MAX`] bytes, no more.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use scry_wire::frame::Frame;
use scry_wire::limits::FRAME_HEADER_LEN;
use scry_wire::message::{Hello, Message};
use tokio::net::UnixStream;

/// Time for a worker to say who it is; it does so at once when it is sound.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a hello: five names of at most 256 bytes and its numbers.
pub const HELLO_BYTES_MAX: usize = 4096;

/// A worker's hello.
#[derive(Debug)]
pub struct Greeted {
    /// What it says.
    pub hello: Hello,
    /// Its frame, to pass on as it is.
    pub frame: Bytes,
    /// Bytes that were read behind it.
    pub rest: BytesMut,
}

/// Why there is no hello.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The bytes are not a hello.
    #[error(transparent)]
    Bad(#[from] scry_wire::Error),
    /// The socket failed or was closed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nothing complete came in time.
    #[error("no hello within {} s", HELLO_TIMEOUT.as_secs())]
    Timeout,
}

/// Reads the hello.
pub async fn read_hello(socket: &UnixStream) -> Result<Greeted, HelloError> {
    tokio::time::timeout(HELLO_TIMEOUT, read(socket)).await.unwrap_or(Err(HelloError::Timeout))
}

async fn read(socket: &UnixStream) -> Result<Greeted, HelloError> {
    let mut buf = BytesMut::with_capacity(HELLO_BYTES_MAX);
    loop {
        if let Some(frame) = take(&mut buf)? {
            let hello = Hello::from_frame(&frame)?;
            return Ok(Greeted { hello, frame: frame.into_bytes(), rest: buf });
        }
        socket.readable().await?;
        match socket.try_read_buf(&mut buf) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes the hello's frame; a frame that is too long for one is refused by its
/// header, before anything waits for the rest.
fn take(buf: &mut BytesMut) -> Result<Option<Frame>, scry_wire::Error> {
    if let Some(head) = buf.first_chunk::<FRAME_HEADER_LEN>() {
        let header = scry_wire::frame::Header::decode(head)?;
        if header.tag != Hello::TAG {
            return Err(scry_wire::Error::Unexpected { tag: header.tag.as_char(), expected: Hello::NAME });
        }
        if header.frame_len() > HELLO_BYTES_MAX {
            return Err(scry_wire::Error::TooLarge {
                what: "hello",
                got: header.frame_len() as u64,
                max: HELLO_BYTES_MAX as u64,
            });
        }
    }
    Frame::take(buf)
}
