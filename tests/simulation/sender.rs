//! The sender's half of the world: its sessions (the program's own), and the
//! pieces that pass through it.

use crate::world::{Event, LinkId, PipeId, World};
use bytes::{Bytes, BytesMut};
use scry_sender::error::{Failure, FailureKind};
use scry_sender::scan::{Scanner, require_from_platform, require_from_worker};
use scry_sender::session::{Action, Event as Seen, Session};
use scry_wire::frame::Frame;
use scry_wire::message::{Hello, Message};
use std::collections::VecDeque;

/// A worker's connection, as the sender has it.
#[derive(Debug)]
pub struct Link {
    /// Its first frame.
    pub hello: Hello,
    session: Session,
    scanner: Scanner,
    /// The worker's frames, until they may go up.
    queue: VecDeque<Bytes>,
    is_up: bool,
    attempt: u64,
    /// The way to the platform.
    pub pipe: Option<PipeId>,
    /// The end of the last bytes on their way, for their order.
    pub to_worker_at: u64,
    /// As `to_worker_at`.
    pub to_sender_at: u64,
}

/// A stream to the platform.
#[derive(Debug)]
pub struct Pipe {
    /// Whose it is.
    pub link: LinkId,
    /// Nothing passes any more.
    pub is_cut: bool,
    /// The next piece up loses its innocence.
    pub flip: bool,
    /// As in `Link`.
    pub up_at: u64,
    /// As in `Link`.
    pub down_at: u64,
    down: BytesMut,
}

impl Link {
    /// A connection whose hello has been read.
    pub fn new(hello: Hello) -> Self {
        Link {
            hello,
            session: Session::new(),
            scanner: Scanner::new(require_from_worker),
            queue: VecDeque::new(),
            is_up: false,
            attempt: 0,
            pipe: None,
            to_worker_at: 0,
            to_sender_at: 0,
        }
    }
}

impl World {
    /// The session's first attempt.
    pub fn link_connect(&mut self, id: LinkId) {
        self.act(id, vec![Action::Connect], None);
    }

    /// Something has happened to a connection.
    pub fn session(&mut self, id: LinkId, seen: Seen, came: Option<Bytes>) {
        let instant = self.instant();
        let Some(link) = self.links.get_mut(&id) else { return };
        let actions = link.session.on(seen, instant);
        self.act(id, actions, came);
    }

    fn act(&mut self, id: LinkId, actions: Vec<Action>, mut came: Option<Bytes>) {
        for action in actions {
            match action {
                Action::Connect => {
                    let after = self.rng.below(3_000);
                    let Some(link) = self.links.get_mut(&id) else { return };
                    link.attempt += 1;
                    let event = Event::Attempt(id, link.attempt);
                    self.after(after, event);
                }
                Action::Retry { .. } => {
                    self.drop_pipe(id);
                    let after = 20_000 + self.rng.below(300_000);
                    let Some(link) = self.links.get(&id) else { return };
                    let event = Event::Retry(id, link.attempt);
                    self.after(after, event);
                }
                Action::Notice(notice) => self.send_to_worker(id, notice.to_frame().into()),
                Action::Forward => {
                    if let Some(frame) = came.take() {
                        self.send_to_worker(id, frame);
                    }
                }
                Action::StartUp => {
                    if let Some(link) = self.links.get_mut(&id) {
                        link.is_up = true;
                    }
                    self.pump(id);
                }
                Action::Refuse(refuse) => {
                    self.drop_pipe(id);
                    self.send_to_worker(id, refuse.to_frame().into());
                }
                Action::Close => {
                    self.drop_pipe(id);
                    self.sender_closed(id);
                    self.links.remove(&id);
                }
            }
            if self.sender_dies() {
                return;
            }
        }
    }

    /// The attempt's outcome.
    pub fn attempt(&mut self, id: LinkId, number: u64) {
        if self.links.get(&id).is_none_or(|link| link.attempt != number || link.pipe.is_some()) {
            return;
        }
        if !self.platform.up || self.rng.chance(self.trouble(5)) {
            let failure = Failure::new(FailureKind::Connect, "could not connect");
            self.session(id, Seen::Failed(failure), None);
            return;
        }
        let pipe = self.new_id();
        let now = self.now;
        let Some(link) = self.links.get_mut(&id) else { return };
        link.pipe = Some(pipe);
        let hello = link.hello.to_frame();
        let ends =
            Pipe { link: id, is_cut: false, flip: false, up_at: now, down_at: now, down: BytesMut::new() };
        self.pipes.insert(pipe, ends);
        self.platform_accepts(pipe);
        self.send_up(pipe, hello.into());
        self.session(id, Seen::Opened, None);
    }

    /// The back-off is over.
    pub fn retry(&mut self, id: LinkId, number: u64) {
        if self.links.get(&id).is_some_and(|link| link.attempt == number) {
            self.session(id, Seen::RetryDue, None);
        }
    }

    /// Bytes of the worker have come in.
    pub fn takes_from_worker(&mut self, id: LinkId, bytes: Bytes) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match link.scanner.feed(&bytes) {
            Ok(_) => {
                link.queue.push_back(bytes);
                self.pump(id);
            }
            Err(error) => self.session(id, Seen::BadFrame(error), None),
        }
    }

    fn pump(&mut self, id: LinkId) {
        while let Some(link) = self.links.get_mut(&id).filter(|link| link.is_up) {
            let (Some(pipe), Some(bytes)) = (link.pipe, link.queue.pop_front()) else { return };
            self.send_up(pipe, bytes);
        }
    }

    /// Bytes of the platform have come in.
    pub fn takes_from_platform(&mut self, pipe: PipeId, bytes: &Bytes) {
        let Some(ends) = self.pipes.get_mut(&pipe).filter(|ends| !ends.is_cut) else { return };
        let link = ends.link;
        ends.down.extend_from_slice(bytes);
        loop {
            // Taken anew each time: an action may have ended it.
            let Some(ends) = self.pipes.get_mut(&pipe) else { return };
            match Frame::take(&mut ends.down) {
                Ok(None) => return,
                Ok(Some(frame)) => {
                    let tag = frame.tag();
                    match require_from_platform(tag) {
                        Ok(()) => self.session(link, Seen::Frame(tag), Some(frame.into_bytes())),
                        Err(error) => return self.upstream_failed(link, pipe, &error.to_string()),
                    }
                }
                Err(error) => return self.upstream_failed(link, pipe, &error.to_string()),
            }
        }
    }

    fn upstream_failed(&mut self, link: LinkId, pipe: PipeId, why: &str) {
        if self.links.get(&link).is_some_and(|link| link.pipe == Some(pipe)) {
            let failure = Failure::new(FailureKind::Lost, why);
            self.session(link, Seen::Failed(failure), None);
        }
    }

    /// The sender has found out that a stream is broken.
    pub fn pipe_lost(&mut self, pipe: PipeId) {
        let Some(ends) = self.pipes.get(&pipe) else { return };
        let link = ends.link;
        self.upstream_failed(link, pipe, "the connection was lost");
    }

    /// The stream is reset from the sender's side; the platform hears of it.
    pub fn drop_pipe(&mut self, id: LinkId) {
        let Some(pipe) = self.links.get_mut(&id).and_then(|link| link.pipe.take()) else { return };
        self.close_pipe(pipe);
    }

    /// The program is killed, or stops cleanly.
    pub fn sender_ends(&mut self, cleanly: bool) {
        self.say(|| format!("sender {}", if cleanly { "stops" } else { "is killed" }));
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            if cleanly {
                self.session(id, Seen::Stop, None);
            }
            self.drop_pipe(id);
            self.sender_closed(id);
            self.links.remove(&id);
        }
        self.sender_up = false;
        let after = 50_000 + self.rng.below(800_000);
        self.after(after, Event::SenderStarts);
    }
}
