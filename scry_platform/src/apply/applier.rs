//! Who applies a shadow's journal, and what becomes of it.
//!
//! ```text
//!            attach                 session, lock, position        error, not the shadow's refusal
//!   Off ───────────────► Starting ───────────────────► Running ─────────────────► Trouble
//!    ▲                      ▲ attach                    │   │ ▲                       │ tried again, by
//!    └─── nothing left, and │          the shadow       │   └─┼─── cut transaction    │ itself
//!         nobody attached ──┼── Failed ◄── refuses ─────┘     └───────────────────────┘
//! ```
//!
//! With a journal the applier is a task of its own: it begins when the copy is
//! complete (until then the journal only grows), goes on when the
//! connection ends, and ends when all is applied and nobody is connected. What
//! the shadow refuses ends it, and the connection with it, so that the source
//! says so; the next connection has it try again. Anything else (a server that
//! is down, a full disk, a lock) it tries again by itself while the journal
//! grows. Nothing of this survives a restart: the journal and the shadow's
//! position do.

use super::keep::{self, Keeper};
use super::worker::{Ended, Input, Worker, open_locked};
use crate::accept::link::FrameSender;
use crate::journal::{Identity, Journal, Journals, Opened, Tail, blocking};
use crate::origin::Origin;
use crate::shadow::{Session, Shadow};
use crate::{Error, Result, metrics};
use scry_wire::Lsn;
use scry_wire::message::{Confirm, CopyState, Refuse};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What appliers share: the journals' place, and the platform's life.
#[derive(Debug)]
pub struct Journaling {
    /// Where journals are kept.
    pub journals: Journals,
    /// Told when the platform stops.
    pub stopping: CancellationToken,
    /// The platform's tasks.
    pub tasks: TaskTracker,
}

/// How the applier of a shadow is.
#[derive(Debug, Clone)]
pub enum State {
    /// There is none.
    Off,
    /// It opens its session.
    Starting,
    /// It applies.
    Running,
    /// It could not go on, and tries again by itself.
    Trouble(Box<Refuse>),
    /// The shadow has refused a change: the next connection has it try again.
    Failed(Box<Refuse>),
}

impl State {
    /// In a word, and why.
    #[must_use]
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            State::Off => ("off", ""),
            State::Starting => ("starting", ""),
            State::Running => ("running", ""),
            State::Trouble(why) => ("waiting", &why.message),
            State::Failed(why) => ("failed", &why.message),
        }
    }
}

/// The place of a shadow's applier.
pub struct Seat {
    held: Mutex<Held>,
    state: watch::Sender<State>,
    wanted: watch::Sender<bool>,
    kick: Notify,
}

#[derive(Default)]
struct Held {
    journal: Option<Arc<Journal>>,
    /// Somebody feeds the journal.
    attached: bool,
    /// Who is connected and welcome, by number.
    connection: Option<(u64, FrameSender)>,
    number: u64,
    running: bool,
}

impl Default for Seat {
    fn default() -> Self {
        Seat {
            held: Mutex::default(),
            state: watch::Sender::new(State::Off),
            wanted: watch::Sender::new(false),
            kick: Notify::new(),
        }
    }
}

impl Seat {
    /// Follows the applier.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// The journal, if one is open.
    pub fn journal(&self) -> Option<Arc<Journal>> {
        self.lock().journal.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The applier has nothing more to do. False when somebody has come meanwhile.
    fn leave(&self) -> bool {
        let mut held = self.lock();
        if held.attached {
            return false;
        }
        held.running = false;
        self.state.send_replace(State::Off);
        true
    }

    fn fail(&self, why: Refuse) {
        self.lock().running = false;
        self.state.send_replace(State::Failed(Box::new(why)));
    }
}

/// A connection that feeds the journal; it no longer does when this is dropped.
pub struct Attached {
    shadow: Arc<Shadow>,
    journaling: Arc<Journaling>,
    /// The journal.
    pub journal: Arc<Journal>,
}

impl Attached {
    /// The connection has its welcome: from here on it hears of tables in
    /// quarantine.
    pub fn listen(&self, sender: &FrameSender) {
        let mut held = self.shadow.seat.lock();
        held.number += 1;
        held.connection = Some((held.number, sender.clone()));
        drop(held);
        self.shadow.marks_changed();
    }

    /// The copy is complete: what the journal holds can be applied.
    pub fn start(&self) {
        start(&self.shadow, &self.journaling, &mut self.shadow.seat.lock(), &self.journal);
    }

    /// Waits for the applier to run, or to say what keeps it from that. A
    /// shadow that does not answer is not waited for.
    pub async fn settled(&self) {
        let mut state = self.watch();
        let settled = state.wait_for(|state| !matches!(state, State::Starting));
        let _ = tokio::time::timeout(START_TIMEOUT, settled).await;
    }

    /// Follows the applier.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.shadow.seat.watch()
    }

    /// How the applier is.
    #[must_use]
    pub fn state(&self) -> State {
        self.shadow.seat.state.borrow().clone()
    }

    /// What the shadow has refused, if that has ended the applier.
    #[must_use]
    pub fn failure(&self) -> Option<Error> {
        match self.state() {
            State::Failed(why) => Some(Error::Applier(why)),
            _ => None,
        }
    }

    /// The shadow's database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.shadow.database
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut held = self.shadow.seat.lock();
        (held.attached, held.connection) = (false, None);
        drop(held);
        self.shadow.seat.wanted.send_replace(false);
    }
}

/// Where the worker's progress goes.
pub enum Outlet<'a> {
    /// To the connection that it lives with: what is applied is confirmed.
    Link(&'a FrameSender),
    /// To the keeper, who tells the journal, and to whoever is connected.
    Journal(&'a Seat, watch::Sender<Lsn>),
}

impl Outlet<'_> {
    /// Sets a session up for the worker: what stands in a journal need not wait for the disk.
    pub async fn set_up(&self, session: &Session) -> Result<()> {
        match self {
            Outlet::Link(_) => Ok(()),
            Outlet::Journal(..) => {
                let sql = "SET synchronous_commit = off";
                session.batch_execute(sql).await.map_err(Error::sql("prepare a session on the shadow"))
            }
        }
    }

    /// The shadow has committed this: to a connection it is confirmed at once; before the journal
    /// hears of it, it is kept.
    pub async fn confirm(&self, confirm: Confirm) -> Result<()> {
        match self {
            Outlet::Link(sender) => sender.send(&confirm).await,
            Outlet::Journal(_, shown) => {
                shown.send_replace(confirm.applied_lsn);
                Ok(())
            }
        }
    }

    /// Who listens now, and a number that tells it from earlier ones.
    #[must_use]
    pub fn connection(&self) -> Option<(u64, FrameSender)> {
        match self {
            Outlet::Link(sender) => Some((0, (*sender).clone())),
            Outlet::Journal(seat, ..) => seat.lock().connection.clone(),
        }
    }

    /// Whether a connection that ends does not end the worker.
    #[must_use]
    pub fn outlives_connections(&self) -> bool {
        matches!(self, Outlet::Journal(..))
    }
}

/// Attaches a connection: it has begun in the journal. The applier is to be
/// started after that: it must not meet what is dropped. `is_kept`: the shadow
/// has said its position just now, and that it keeps it.
pub async fn attach(
    shadow: &Arc<Shadow>,
    journaling: &Arc<Journaling>,
    origin: &Origin,
    is_kept: bool,
    timeline: u32,
) -> Result<(Attached, Opened)> {
    let journal = open(shadow, journaling, origin).await?;
    // What was applied here since the platform began has gone through this journal.
    let known = journal.applied();
    let kept = if is_kept || known == Lsn::INVALID { origin.applied_lsn } else { known };
    let of = journal.clone();
    let opened = blocking(move || of.begin(kept, timeline)).await??;
    {
        let mut held = shadow.seat.lock();
        held.attached = true;
        if !held.running {
            // What an applier of another time failed with is not this connection's.
            shadow.seat.state.send_replace(State::Off);
        }
        shadow.seat.wanted.send_replace(true);
    }
    let attached = Attached { shadow: shadow.clone(), journaling: journaling.clone(), journal };
    Ok((attached, opened))
}

/// Goes on with a journal that an earlier run of the platform has left.
pub async fn resume(shadow: &Arc<Shadow>, journaling: &Arc<Journaling>) -> Result<()> {
    let Some(origin) = shadow.origin().filter(|o| o.copy_state == CopyState::Copied) else { return Ok(()) };
    if !journaling.journals.has(&identity(&origin), &origin.job) {
        return Ok(());
    }
    let journal = open(shadow, journaling, &origin).await?;
    if journal.status().mark > origin.applied_lsn {
        tracing::info!(shadow = %shadow.database, upto = %journal.status().mark, "applying what the journal holds");
        start(shadow, journaling, &mut shadow.seat.lock(), &journal);
    }
    Ok(())
}

fn start(shadow: &Arc<Shadow>, journaling: &Arc<Journaling>, held: &mut Held, journal: &Arc<Journal>) {
    if held.running {
        shadow.seat.kick.notify_one();
        return;
    }
    held.running = true;
    shadow.seat.state.send_replace(State::Starting);
    let (shadow, journal, stopping) = (shadow.clone(), journal.clone(), journaling.stopping.clone());
    journaling.tasks.spawn(async move {
        let _panic = Panic(&shadow.seat);
        tokio::select! {
            () = run(&shadow, &journal) => {}
            () = stopping.cancelled() => {}
        }
    });
}

/// Where it panics the applier has ended like any other that fails: the
/// connection ends too, and the next one has it try again.
struct Panic<'a>(&'a Seat);

impl Drop for Panic<'_> {
    fn drop(&mut self) {
        let error = Error::Busy("applying has ended by a panic; the platform's log has it".to_owned());
        if let Some(why) = error.refuse().filter(|_| std::thread::panicking()) {
            self.0.fail(why);
        }
    }
}

/// The journal of this history; one of another history is given up first.
async fn open(shadow: &Arc<Shadow>, journaling: &Arc<Journaling>, origin: &Origin) -> Result<Arc<Journal>> {
    let identity = identity(origin);
    if let Some(journal) = shadow.seat.journal().filter(|journal| journal.identity() == identity) {
        return Ok(journal);
    }
    let mut state = shadow.seat.watch();
    let gone = state.wait_for(|state| matches!(state, State::Off | State::Failed(_)));
    // The origin tells its applier that the history is another one.
    if tokio::time::timeout(START_TIMEOUT, gone).await.is_err() {
        return Err(Error::Busy("the shadow's earlier history is still being applied".to_owned()));
    }
    shadow.seat.lock().journal = None;
    let (journaling, job) = (journaling.clone(), origin.job.clone());
    let journal = blocking(move || journaling.journals.open(identity, &job)).await??;
    shadow.seat.lock().journal = Some(journal.clone());
    Ok(journal)
}

fn identity(origin: &Origin) -> Identity {
    Identity {
        system_identifier: origin.system_identifier,
        database_oid: origin.database_oid,
        generation: origin.generation,
    }
}

/// Applies until nothing is left and nobody is connected, or the shadow refuses.
async fn run(shadow: &Arc<Shadow>, journal: &Arc<Journal>) {
    let mut pause = RETRY_FIRST;
    let mut said = String::new();
    loop {
        let (is_refusal, error) = match attempt(shadow, journal, &mut pause).await {
            Ok(Ended::Again) => continue,
            Ok(Ended::Done) if shadow.seat.leave() => {
                let of = journal.clone();
                let _ = blocking(move || of.tidy()).await;
                return;
            }
            Ok(Ended::Done) => continue,
            Err(failure) => failure,
        };
        ::metrics::counter!(metrics::APPLIER_FAILURES, "shadow" => shadow.database.clone()).increment(1);
        if matches!(error, Error::Conflict { .. }) {
            ::metrics::counter!(metrics::CONFLICTS).increment(1);
        }
        let Some(why) = error.refuse() else { continue };
        if said != why.message {
            said.clone_from(&why.message);
            tracing::warn!(shadow = %shadow.database, %error, "changes cannot be applied");
        }
        if !matches!(error, Error::Busy(_)) {
            shadow.news.failed(why.message.clone());
        }
        if is_refusal {
            shadow.seat.fail(why);
            return;
        }
        shadow.seat.state.send_replace(State::Trouble(Box::new(why)));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shadow.seat.kick.notified() => {}
        }
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// One session's work. An error comes with whether another attempt by itself
/// is of no use.
async fn attempt(
    shadow: &Arc<Shadow>,
    journal: &Arc<Journal>,
    pause: &mut Duration,
) -> std::result::Result<Ended, (bool, Error)> {
    let begun = async {
        let session = open_locked(shadow).await?;
        let origin = shadow.refresh(&session).await?;
        let ours = |o: &Origin| o.copy_state == CopyState::Copied && identity(o) == journal.identity();
        let origin = origin.filter(ours).ok_or_else(super::stream::another_history)?;
        // What an earlier applier has left, which may have been killed.
        keep::flush(&session).await?;
        let tail = Tail::new(journal.clone(), origin.applied_lsn).await?;
        let (shown, shows) = watch::channel(origin.applied_lsn);
        let keeper = Keeper::open(shadow, shows, journal.clone()).await?;
        let outlet = Outlet::Journal(&shadow.seat, shown);
        let worker = Worker::new(shadow, &origin, session, outlet, tail.timeline()).await?;
        let worker = worker.beginning_at(tail.base());
        Ok::<_, Error>((worker, keeper, Input::journal(tail, shadow.seat.wanted.subscribe())))
    };
    let lasts = |error: Error| (matches!(error, Error::Busy(_) | Error::Journal { .. }), error);
    let (mut worker, mut keeper, input) = begun.await.map_err(lasts)?;
    shadow.seat.state.send_replace(State::Running);
    *pause = RETRY_FIRST;
    let mut origins = shadow.watch();
    let is_other = |o: &Option<Origin>| {
        o.as_ref().is_none_or(|o| o.copy_state != CopyState::Copied || identity(o) != journal.identity())
    };
    let result = tokio::select! {
        result = worker.run(input) => result,
        error = keeper.run() => Err(error),
        _ = origins.wait_for(is_other) => Err(super::stream::another_history()),
    };
    match result {
        Ok(Ended::Again) => {
            worker.abandon().await;
            Ok(Ended::Again)
        }
        Ok(Ended::Done) => keeper.keep().await.map(|()| Ended::Done).map_err(|error| (false, error)),
        Err(error) => {
            worker.give_up(&error).await;
            // A statement that another attempt can do: the session or its server, not the change.
            let is_trouble = matches!(error, Error::Sql { .. }) && !error.is_refusal();
            Err((!is_trouble, error))
        }
    }
}

/// A connection's welcome waits this long for the shadow.
const START_TIMEOUT: Duration = Duration::from_secs(4);
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
