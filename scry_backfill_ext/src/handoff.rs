//! The worker's end of the Unix socket to the sender.
//!
//! Invariants: no call blocks but on the process latch, so that shutdown,
//! termination, reload and barriers work while the sender is slow or gone;
//! memory is one batch out and one frame in. While frames cannot be written
//! the ones that come back are still read, so that neither side can wait for
//! the other.
//! What it does not do: it knows nothing of slots or transactions.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use scry_wire::Error;
use scry_wire::frame::Frame;

use crate::pg::latch::{self, Waiter, Woken};
use crate::worker::socket;

/// Why the connection is no more. Never an error of the worker's own.
#[derive(Debug, Clone)]
pub struct Lost {
    /// What happened.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Lost {
    fn new(message: impl Into<String>) -> Self {
        Lost { message: message.into(), hint: String::new() }
    }
}

/// A connection to the sender.
pub struct Handoff {
    // Before the stream, so that it is dropped before it.
    waiter: Waiter,
    stream: UnixStream,
    incoming: BytesMut,
    frames: VecDeque<Frame>,
    blocked: Duration,
}

impl Handoff {
    /// Connects to the sender's socket. Does not wait: a Unix socket accepts
    /// at once or refuses.
    pub fn connect() -> Result<Handoff, Lost> {
        let path = socket::path().map_err(Lost::new)?;
        let refused = |err: std::io::Error| Lost {
            message: format!("could not connect to scry_sender at \"{}\": {err}", path.display()),
            hint:
                "The sender is being started, or is run by somebody else (scry_backfill.sender = external): \
                   see its log."
                    .to_owned(),
        };
        let stream = UnixStream::connect(&path).map_err(refused)?;
        stream.set_nonblocking(true).map_err(refused)?;
        Ok(Handoff {
            waiter: Waiter::on(stream.as_raw_fd()),
            stream,
            incoming: BytesMut::with_capacity(4096),
            frames: VecDeque::new(),
            blocked: Duration::ZERO,
        })
    }

    /// Time spent waiting until the sender would take more, since the last call.
    pub fn take_blocked(&mut self) -> Duration {
        std::mem::take(&mut self.blocked)
    }

    /// Sends one frame. While the sender does not take it, waits on the latch
    /// and calls `idle`, which may look at what came back and end the wait.
    pub fn send(
        &mut self,
        frame: &[u8],
        mut idle: impl FnMut(&mut VecDeque<Frame>) -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        let mut rest = frame;
        while !rest.is_empty() {
            match self.stream.write(rest) {
                Ok(0) => return Err(Lost::new("the sender closed the connection")),
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(err) if err.kind() == ErrorKind::WouldBlock => {
                    let since = Instant::now();
                    let woken = latch::wait_to_write(self.stream.as_raw_fd(), BLOCKED_TICK);
                    self.blocked += since.elapsed();
                    if woken.readable {
                        self.read()?;
                    }
                    idle(&mut self.frames)?;
                }
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => {
                    // What the sender said before it closed is the better reason.
                    let _ = self.read();
                    idle(&mut self.frames)?;
                    return Err(Lost::new(format!("the sender closed the connection: {err}")));
                }
            }
        }
        Ok(())
    }

    /// Waits until something comes in, the latch is set or the time is over.
    pub fn wait(&mut self, timeout: Duration) -> Result<Woken, Lost> {
        let woken = self.waiter.wait(timeout);
        if woken.readable {
            self.read()?;
        }
        Ok(woken)
    }

    /// Reads what has come in, without waiting.
    pub fn read(&mut self) -> Result<(), Lost> {
        let mut chunk = [0u8; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) if self.frames.is_empty() => {
                    return Err(Lost::new("the sender closed the connection"));
                }
                Ok(0) => return Ok(()),
                Ok(n) => self.take(chunk.get(..n).unwrap_or_default())?,
                Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(Lost::new(format!("could not read from the sender: {err}"))),
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.incoming.extend_from_slice(bytes);
        while let Some(frame) = Frame::take(&mut self.incoming).map_err(|e| bad_frame(&e))? {
            if self.frames.len() >= FRAMES_MAX {
                return Err(Lost::new("the sender sends answers faster than they can be read"));
            }
            self.frames.push_back(frame);
        }
        Ok(())
    }

    /// The next frame that has come in.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// The frames that have come in.
    pub fn frames(&mut self) -> &mut VecDeque<Frame> {
        &mut self.frames
    }
}

/// A frame that is not what the format says: the connection is of no use.
pub fn bad_frame(err: &Error) -> Lost {
    Lost {
        message: format!("the sender sent a bad frame: {err}"),
        hint: "Use a sender and a platform of the same release as the extension.".to_owned(),
    }
}

/// Answers that may wait to be looked at: a confirmation a batch, far fewer in practice.
const FRAMES_MAX: usize = 4096;

/// A blocked writer looks around this often.
const BLOCKED_TICK: Duration = Duration::from_millis(500);
