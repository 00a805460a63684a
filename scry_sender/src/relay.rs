//! One worker's connection, from its hello to its end.
//!
//! ```text
//! socket ─► reader ─► queue ─► throttle ─► up ───► platform
//!    ▲                                              │
//!    └── writer ◄──────────── session ◄── down ◄────┘
//! ```
//!
//! Role: runs the I/O that `session` asks for and reports what happens to it.
//! All of a connection's work is one task: up, down, attempts and timers are
//! polled side by side, so that none waits for another, and dropping the task
//! ends all of it.
//! Invariants: the worker's frames go up only after the welcome; a refusal is
//! the last thing the worker gets; when the worker is gone, so is its stream,
//! at the latest after [`DRAIN_MAX`].

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use scry_wire::frame::Tag;
use scry_wire::message::{Message, Notice, Refuse, RefuseKind};
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};

use crate::confirm::{Came, Down};
use crate::error::Failure;
use crate::intake::{End, Greeted, HelloError, Writer, hang_up, read_hello, read_pieces};
use crate::metrics;
use crate::queue::{self, Budget, Piece};
use crate::session::{Action, Event, Session, protocol_refusal, stopping};
use crate::stream::{Backoff, Class, Exchange, Pool, Up};
use crate::throttle::Throttle;

/// For what a worker left behind to go up, and for its stream to end.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// For a worker to take its refusal.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// What all connections share.
#[derive(Debug)]
pub struct Shared {
    /// The way to the platform.
    pub pool: Pool,
    /// The rates.
    pub throttle: Throttle,
    /// Memory for frames on their way up.
    pub budget: Budget,
    /// Becomes true when the program stops.
    pub stop: watch::Receiver<bool>,
    /// Where copies run, apart from the streams.
    pub copies: Handle,
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Serves one connection until it ends.
pub async fn serve(socket: UnixStream, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut stop = shared.stop.clone();
    let greeted = tokio::select! {
        greeted = read_hello(&socket) => greeted,
        () = stopped(&mut stop) => return farewell(socket, &stopping()).await,
    };
    match greeted {
        Ok(greeted) => run(socket, shared, greeted).await,
        Err(HelloError::Bad(error)) => {
            tracing::warn!(%error, "connection refused: no valid hello");
            // A peer that is no worker at all won't become one by trying again.
            let refuse = Refuse { retry: false, ..protocol_refusal(&error) };
            farewell(socket, &refuse).await;
        }
        Err(error @ HelloError::Timeout) => {
            tracing::warn!(%error, "connection refused");
            let message = error.to_string();
            let (detail, hint) = (String::new(), String::new());
            farewell(socket, &Refuse { kind: RefuseKind::Protocol, retry: true, message, detail, hint })
                .await;
        }
        Err(HelloError::Io(error)) => tracing::debug!(%error, "connection ended before its hello"),
    }
}

/// A stream runs here, on the thread that has accepted it: none of its steps has to wake another
/// thread. A copy runs where others do not wait for it.
async fn run(socket: Arc<UnixStream>, shared: Arc<Shared>, greeted: Greeted) {
    if Class::from(greeted.hello.role) == Class::Stream {
        return Relay::new(socket, shared, greeted).run().await;
    }
    // Nobody else holds it once the hello is read.
    let Some(socket) = Arc::into_inner(socket) else { return };
    let copies = shared.copies.clone();
    let moved = socket.into_std().map(|socket| {
        copies.spawn(async move {
            match UnixStream::from_std(socket) {
                Ok(socket) => Relay::new(Arc::new(socket), shared, greeted).run().await,
                Err(error) => cannot_hand_over(&error),
            }
        })
    });
    match moved {
        Err(error) => cannot_hand_over(&error),
        Ok(running) => {
            if let Err(error) = running.await {
                tracing::error!(%error, "connection ended by an error of the program");
            }
        }
    }
}

/// The worker sees its connection end, and connects again.
fn cannot_hand_over(error: &std::io::Error) {
    tracing::warn!(%error, "could not hand a worker's connection to the thread of copies");
}

async fn farewell(socket: Arc<UnixStream>, refuse: &Refuse) {
    metrics::refused(refuse.kind);
    let mut writer = Writer::new(socket);
    writer.push(refuse.to_frame().into());
    // A peer that does not take it goes without.
    let _ = timeout(FAREWELL_MAX, writer.flush()).await;
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        tracing::debug!("the program has ended before its connections");
    }
}

/// The I/O of one connection.
struct Relay {
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
    socket: Arc<UnixStream>,
    writer: Writer,
    session: Session,
    class: Class,
    hello: Bytes,
    name: String,
    backoff: Backoff,
    retry_at: Option<Instant>,
    gone_by: Option<Instant>,
    intake: Option<Boxed<End>>,
    queue: Option<mpsc::Receiver<Piece>>,
    attempt: Option<Boxed<Result<Exchange, Failure>>>,
    up_ready: Option<Up>,
    up: Option<Boxed<Result<(), Failure>>>,
    up_failed: Option<(Failure, Instant)>,
    down: Option<Down>,
    came: Option<Came>,
    refusing: bool,
    _counted: metrics::Connected,
}

impl Relay {
    fn new(socket: Arc<UnixStream>, shared: Arc<Shared>, greeted: Greeted) -> Self {
        let Greeted { hello, frame, rest } = greeted;
        let (sender, queue) = queue::channel();
        let (lane, source) = (shared.budget.lane(), Arc::clone(&socket));
        let intake = async move { read_pieces(&source, rest, &lane, &sender).await };
        Relay {
            stop: shared.stop.clone(),
            writer: Writer::new(Arc::clone(&socket)),
            session: Session::new(),
            class: hello.role.into(),
            hello: frame,
            name: format!("{} {}/{}", metrics::role_label(hello.role), hello.database, hello.job),
            backoff: Backoff::default(),
            retry_at: None,
            gone_by: None,
            intake: Some(Box::pin(intake)),
            queue: Some(queue),
            attempt: None,
            up_ready: None,
            up: None,
            up_failed: None,
            down: None,
            came: None,
            refusing: false,
            _counted: metrics::Connected::new(hello.role),
            shared,
            socket,
        }
    }

    async fn run(mut self) {
        tracing::info!(worker = self.name, "worker connected");
        self.connect();
        while !self.session.ended() {
            let event = self.next_event().await;
            for action in self.session.on(event, Instant::now()) {
                self.act(action);
            }
        }
        // The platform learns first, so that the worker's next connection is welcome.
        self.drop_upstream();
        let _ = timeout(FAREWELL_MAX, self.writer.flush()).await;
        tracing::info!(worker = self.name, "connection ended");
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => self.connect(),
            Action::Retry { slowly, at_least } => {
                self.drop_upstream();
                self.retry_at = Some(Instant::now() + self.backoff.next(slowly, at_least));
            }
            Action::Notice(notice) => self.notice(&notice),
            Action::Forward => self.forward(),
            Action::StartUp => self.start_up(),
            Action::Refuse(refuse) => self.refuse(&refuse),
            Action::Close => self.drop_upstream(),
        }
    }

    fn connect(&mut self) {
        self.retry_at = None;
        let (shared, class, hello) = (Arc::clone(&self.shared), self.class, self.hello.clone());
        self.attempt = Some(Box::pin(async move { Exchange::open(&shared.pool, class, hello).await }));
    }

    fn notice(&mut self, notice: &Notice) {
        if notice.message.is_empty() {
            tracing::info!(worker = self.name, "platform reached");
        } else {
            tracing::warn!(worker = self.name, cause = notice.message, "no stream to the platform");
        }
        self.writer.push(notice.to_frame().into());
    }

    fn forward(&mut self) {
        if let Some(came) = self.came.take() {
            metrics::passed_down(came.begins.is_some(), came.bytes.len());
            self.writer.pass_on(came.bytes, came.inside);
        }
    }

    fn start_up(&mut self) {
        let gate = match self.class {
            Class::Stream => self.shared.throttle.stream(),
            Class::Copy => self.shared.throttle.copy(),
        };
        if let (Some(up), Some(queue)) = (self.up_ready.take(), self.queue.take()) {
            self.up = Some(Box::pin(up.run(queue, gate)));
        }
        tracing::info!(worker = self.name, "streaming");
    }

    fn refuse(&mut self, refuse: &Refuse) {
        self.drop_upstream();
        metrics::refused(refuse.kind);
        let (message, detail) = (&refuse.message, &refuse.detail);
        tracing::warn!(worker = self.name, message, detail, "worker refused");
        self.writer.push(refuse.to_frame().into());
    }

    /// Resets the stream if it is still open.
    fn drop_upstream(&mut self) {
        (self.attempt, self.up_ready, self.up, self.down, self.came) = (None, None, None, None, None);
        self.up_failed = None;
    }

    /// Waits for the next thing that the session has to know.
    async fn next_event(&mut self) -> Event {
        loop {
            let idle = self.writer.is_empty();
            let seen = tokio::select! {
                () = stopped(&mut self.stop) => Some(Event::Stop),
                end = optional(&mut self.intake) => {
                    self.intake = None;
                    self.intake_ended(end)
                }
                () = hang_up(&self.socket), if self.gone_by.is_none() => self.worker_closed(),
                () = at(self.gone_by) => Some(Event::WorkerGone),
                opened = optional(&mut self.attempt) => {
                    self.attempt = None;
                    Some(self.attempt_ended(opened))
                }
                () = at(self.retry_at) => {
                    self.retry_at = None;
                    Some(Event::RetryDue)
                }
                () = at(self.session.notice_at()) => Some(Event::NoticeDue),
                end = optional(&mut self.up) => {
                    self.up = None;
                    self.up_ended(end)
                }
                () = at(self.up_failed.as_ref().map(|(_, at)| *at)) => {
                    self.up_failed.take().map(|(failure, _)| Event::Failed(failure))
                }
                written = self.writer.flush(), if !idle => match written {
                    Ok(()) => None,
                    Err(_) => Some(Event::WorkerGone),
                },
                frame = next_frame(&mut self.down), if idle => self.came_down(frame),
            };
            if let Some(event) = seen {
                return event;
            }
        }
    }

    fn intake_ended(&mut self, end: End) -> Option<Event> {
        match end {
            End::Closed => self.worker_closed(),
            End::Truncated => {
                tracing::warn!(worker = self.name, "worker closed its connection inside a frame");
                Some(Event::WorkerGone)
            }
            End::Bad(error) => Some(Event::BadFrame(error)),
            End::Io(error) => {
                tracing::warn!(worker = self.name, %error, "could not read from worker");
                Some(Event::WorkerGone)
            }
        }
    }

    /// The worker closed its end: what it left behind gets a moment to go up.
    fn worker_closed(&mut self) -> Option<Event> {
        if self.down.is_none() || self.up_ready.is_some() {
            return Some(Event::WorkerGone);
        }
        self.gone_by.get_or_insert_with(|| Instant::now() + DRAIN_MAX);
        None
    }

    fn attempt_ended(&mut self, opened: Result<Exchange, Failure>) -> Event {
        match opened {
            Ok(Exchange { up, down }) => {
                (self.up_ready, self.down) = (Some(up), Some(down));
                Event::Opened
            }
            Err(failure) => {
                metrics::reconnect(failure.kind.label());
                tracing::debug!(worker = self.name, cause = failure.line(), "attempt failed");
                Event::Failed(failure)
            }
        }
    }

    /// The way up is over. When it failed, the platform may have said why on
    /// the way down, which is read first.
    fn up_ended(&mut self, end: Result<(), Failure>) -> Option<Event> {
        if let Err(failure) = end {
            self.up_failed = Some((failure, Instant::now() + DRAIN_MAX));
        }
        None
    }

    fn came_down(&mut self, came: Result<Came, Failure>) -> Option<Event> {
        match came {
            Ok(came) => {
                // The session judges a frame by its first piece; a refusal, which
                // it always allows and which ends it, by its last.
                self.refusing = came.begins == Some(Tag::Refuse) || (self.refusing && came.begins.is_none());
                let tag = if self.refusing { (!came.inside).then_some(Tag::Refuse) } else { came.begins };
                self.came = Some(came);
                if tag == Some(Tag::Refuse) {
                    tracing::warn!(worker = self.name, "platform refused the worker, which is told why");
                }
                if tag.is_none() {
                    self.forward();
                }
                tag.map(Event::Frame)
            }
            Err(_) if self.gone_by.is_some() => Some(Event::WorkerGone),
            Err(failure) => Some(Event::Failed(failure)),
        }
    }
}

/// The outcome of a future, if there is one.
async fn optional<T>(future: &mut Option<Boxed<T>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

async fn next_frame(down: &mut Option<Down>) -> Result<Came, Failure> {
    match down {
        Some(down) => down.next().await,
        None => pending().await,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment.into()).await,
        None => pending().await,
    }
}
