//! Reads a worker's frames into the queue, piece by piece.
//!
//! Flow: wait for bytes → room → read → scan → queue. Invariants: nothing is
//! read before there is room for it, so a full queue stops the worker; what is
//! read goes on at once. What it does not do: it waits for nothing to fill up.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::queue::{Lane, PIECE_BYTES, Piece, Room};
use crate::scan::{Scanner, require_from_worker};

/// Reads of at most this are copied out, so that the read buffer serves again;
/// larger ones take their buffer along.
const SMALL_BYTES: usize = PIECE_BYTES / 4;
/// What a piece costs besides its bytes.
const PIECE_OVERHEAD: usize = 256;

/// Why reading ended.
#[derive(Debug)]
pub enum End {
    /// The worker closed its connection between two frames.
    Closed,
    /// The worker closed its connection inside a frame.
    Truncated,
    /// The bytes are not frames.
    Bad(scry_wire::Error),
    /// The socket failed.
    Io(io::Error),
}

/// Reads until the connection ends. `rest` was read behind the hello.
pub async fn read_pieces(
    socket: &UnixStream,
    rest: BytesMut,
    lane: &Lane,
    queue: &mpsc::Sender<Piece>,
) -> End {
    let mut scanner = Scanner::new(require_from_worker);
    if !rest.is_empty() {
        let room = lane.room().await;
        if let Err(end) = pass_on(&mut scanner, rest.freeze(), room, queue).await {
            return end;
        }
    }
    let mut spare = None;
    loop {
        if let Err(error) = socket.readable().await {
            return End::Io(error);
        }
        let room = lane.room().await;
        let mut buf: BytesMut = spare.take().unwrap_or_else(|| BytesMut::with_capacity(PIECE_BYTES));
        match socket.try_read_buf(&mut buf) {
            Ok(0) => return if scanner.at_border() { End::Closed } else { End::Truncated },
            Ok(len) if len <= SMALL_BYTES => {
                let bytes = Bytes::copy_from_slice(&buf);
                buf.clear();
                spare = Some(buf);
                if let Err(end) = pass_on(&mut scanner, bytes, room, queue).await {
                    return end;
                }
            }
            Ok(_) => {
                if let Err(end) = pass_on(&mut scanner, buf.freeze(), room, queue).await {
                    return end;
                }
            }
            // Nothing there after all: hold no buffer while waiting.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return End::Io(error),
        }
    }
}

async fn pass_on(
    scanner: &mut Scanner,
    bytes: Bytes,
    room: Room,
    queue: &mpsc::Sender<Piece>,
) -> Result<(), End> {
    let scanned = scanner.feed(&bytes).map_err(End::Bad)?;
    let room = if bytes.len() <= SMALL_BYTES { room.shrink(bytes.len() + PIECE_OVERHEAD) } else { room };
    // The receiver is only gone when the connection ends.
    queue.send(Piece::new(bytes, room, scanned)).await.map_err(|_| End::Closed)
}

/// Waits until the worker has closed its end, also while nothing is read
/// because the queue is full.
pub async fn hang_up(socket: &UnixStream) {
    loop {
        // PRIORITY alone also reports a closed end, and not plain bytes.
        match socket.ready(Interest::PRIORITY).await {
            // Urgent bytes, which no worker sends: look again later.
            Ok(ready) if !ready.is_read_closed() => sleep(Duration::from_millis(100)).await,
            Ok(_) | Err(_) => return,
        }
    }
}
