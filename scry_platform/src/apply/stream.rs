//! The stream's connection: from frames to confirmations.
//!
//! ```text
//! seat ─► shadow's position ─► Welcome
//!   without a journal: wait until the copy is complete ─► intake ─► worker ─► commit ─► Confirm
//!   with one: wait until the copy has begun ─► intake ─► border ─► journal ─► Confirm (durable, applied)
//!                                      the copy is complete: applier, a task of its own ◄─┘
//! ```
//!
//! Invariants: nothing is applied before the copy is complete; without a
//! journal nothing is read before that, nor while it has no room: the peer's
//! window holds the rest. Confirmed is what is durable, in the journal or on
//! the shadow, and was sent on this connection or stood in its welcome.

use super::applier::{self, Attached, Journaling, Outlet, State};
use super::keep;
use super::worker::{Input, Link, Next, Worker, open_locked};
use crate::accept::link::FrameSender;
use crate::journal::border::{Borders, Scanned};
use crate::journal::{Appended, Journal, blocking};
use crate::origin::{self, Origin};
use crate::shadow::{Purpose, Shadow};
use crate::spool::Intake;
use crate::{Error, Result, metrics};
use scry_wire::message::{Confirm, CopyState, Hello, Level, Notice};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A stream worker's connection.
pub async fn serve(shadow: &Arc<Shadow>, hello: &Hello, intake: Intake, sender: &FrameSender) -> Result<()> {
    let journaling = shadow.journaling.clone();
    let mut watch = shadow.watch();
    let work = async {
        match &journaling {
            Some(journaling) => journaled(shadow, journaling, hello, intake, sender).await,
            None => direct(shadow, hello, intake, sender).await,
        }
    };
    tokio::select! {
        result = work => result,
        // Once copied, always copied: what is not is another history.
        () = async {
            let _ = watch.wait_for(|origin| is_copied(origin.as_ref(), hello)).await;
            let _ = watch.wait_for(|origin| !is_copied(origin.as_ref(), hello)).await;
        } => Err(another_history()),
    }
}

/// Without a journal: the worker lives with the connection.
async fn direct(shadow: &Shadow, hello: &Hello, intake: Intake, sender: &FrameSender) -> Result<()> {
    let mut session = open_locked(shadow).await?;
    origin::touch(&*session, hello).await?;
    let mut origin = shadow.refresh(&session).await?;
    sender.send(&super::welcome(shadow, hello, origin.as_ref())).await?;
    if !is_copied(origin.as_ref(), hello) {
        session.close().await;
        wait_until_copied(shadow, hello).await?;
        session = open_locked(shadow).await?;
        origin = shadow.refresh(&session).await?;
    }
    let Some(origin) = origin.filter(|o| is_copied(Some(o), hello)) else {
        return Err(another_history());
    };
    let mut worker = Worker::new(shadow, &origin, session, Outlet::Link(sender), hello.timeline).await?;
    let mut watch = shadow.watch();
    let result = tokio::select! {
        result = worker.run(Input::link(intake)) => result.map(drop),
        _ = watch.wait_for(|origin| !is_copied(origin.as_ref(), hello)) => Err(another_history()),
    };
    if let Err(error) = &result {
        worker.give_up(error).await;
    }
    result
}

/// With a journal: the connection feeds it.
async fn journaled(
    shadow: &Arc<Shadow>,
    journaling: &Arc<Journaling>,
    hello: &Hello,
    intake: Intake,
    sender: &FrameSender,
) -> Result<()> {
    let known = tokio::time::timeout(ASK_TIMEOUT, ask(shadow, hello)).await;
    // A shadow that does not answer is taken for what it was.
    let (mut is_kept, origin) = match known {
        Ok(Ok(origin)) => (true, origin),
        Ok(Err(error)) => (false, remembered(shadow, error)?),
        Err(_) => (false, shadow.origin()),
    };
    let was_begun = is_begun(origin.as_ref(), hello);
    if !was_begun {
        sender.send(&super::welcome(shadow, hello, origin.as_ref())).await?;
        wait_until_begun(shadow, hello).await?;
        // Its position was written when the copy began, by a commit that was waited for.
        is_kept = true;
    }
    let begun = |o: &Origin| is_begun(Some(o), hello);
    let origin = if is_kept && was_begun { origin } else { shadow.origin() };
    let origin = origin.filter(begun).ok_or_else(another_history)?;
    let (attached, opened) = applier::attach(shadow, journaling, &origin, is_kept, hello.timeline).await?;
    let is_copied = is_copied(Some(&origin), hello);
    if is_copied {
        attached.start();
        attached.settled().await;
    }
    let journal = attached.journal.clone();
    if was_begun {
        // The applier may have read it again.
        let origin = shadow.origin().filter(begun).ok_or_else(another_history)?;
        let mut welcome = super::welcome(shadow, hello, Some(&origin));
        // The shadow may show more of an earlier connection by now.
        welcome.applied_lsn = journal.applied().min(opened.position);
        welcome.flushed_lsn = opened.position;
        welcome.timeline = welcome.timeline.max(opened.timeline);
        sender.send(&welcome).await?;
    }
    attached.listen(sender);
    let mut pump = Pump {
        attached,
        is_copied,
        session: opened.session,
        sender,
        borders: Borders::new(opened.position),
        pending: None,
        confirmed: Confirm { applied_lsn: journal.applied(), flushed_lsn: opened.position },
        lags_since: None,
        moved_at: Instant::now(),
        syncing: None,
        told: Notice { level: Level::Info, message: String::new(), hint: String::new() },
    };
    let mut origins = shadow.watch();
    let copied = async move {
        let copied = origins.wait_for(|origin| self::is_copied(origin.as_ref(), hello)).await;
        copied.map(drop).map_err(|_| Error::Stopping)
    };
    pump.run(Link::start(intake), copied).await
}

/// What the shadow says of itself, and keeps.
async fn ask(shadow: &Shadow, hello: &Hello) -> Result<Option<Origin>> {
    let session = shadow.owner.open(Purpose::Own).await?.cancelled_on_drop();
    origin::touch(&*session, hello).await?;
    let origin = shadow.refresh(&session).await?;
    keep::flush(&session).await?;
    session.close().await;
    Ok(origin)
}

fn remembered(shadow: &Shadow, error: Error) -> Result<Option<Origin>> {
    tracing::info!(shadow = %shadow.database, %error, "the shadow does not answer");
    shadow.origin().map_or(Err(error), |origin| Ok(Some(origin)))
}

pub(super) fn another_history() -> Error {
    Error::Busy("the shadow has been given to another history".to_owned())
}

fn is_copied(origin: Option<&Origin>, hello: &Hello) -> bool {
    origin.is_some_and(|o| o.copy_state_of(hello.generation) == CopyState::Copied)
}

fn is_begun(origin: Option<&Origin>, hello: &Hello) -> bool {
    origin.is_some_and(|o| o.copy_state_of(hello.generation) != CopyState::None)
}

/// Nothing of an earlier history is left by then.
async fn wait_until_begun(shadow: &Shadow, hello: &Hello) -> Result<()> {
    let mut watch = shadow.watch();
    let begun = watch.wait_for(|origin| is_begun(origin.as_ref(), hello)).await;
    begun.map(drop).map_err(|_| Error::Stopping)
}

async fn wait_until_copied(shadow: &Shadow, hello: &Hello) -> Result<()> {
    let mut watch = shadow.watch();
    let copied = watch.wait_for(|origin| is_copied(origin.as_ref(), hello)).await;
    copied.map(drop).map_err(|_| Error::Stopping)
}

/// A connection that feeds the journal.
struct Pump<'a> {
    attached: Attached,
    /// The copy is complete: changes are applied.
    is_copied: bool,
    /// The journal's number of this connection.
    session: u64,
    sender: &'a FrameSender,
    borders: Borders,
    /// What there was no room for.
    pending: Option<Scanned>,
    /// What was confirmed last.
    confirmed: Confirm,
    /// Since when the journal has what is neither durable nor applied.
    lags_since: Option<Instant>,
    /// When the shadow moved last, or had all.
    moved_at: Instant,
    syncing: Option<JoinHandle<Result<()>>>,
    told: Notice,
}

impl Pump<'_> {
    async fn run(&mut self, mut link: Link, copied: impl Future<Output = Result<()>>) -> Result<()> {
        tokio::pin!(copied);
        let journal = self.attached.journal.clone();
        let (mut status, mut applied) = (journal.watch(), journal.watch_applied());
        let mut state = self.attached.watch();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.append(&journal).await?;
            self.confirm(&journal).await?;
            let syncing = async {
                match &mut self.syncing {
                    Some(task) => task.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                next = link.recv(), if self.pending.is_none() => match next {
                    Next::Part(payload, continued) => {
                        self.pending = Some(self.borders.scan(payload, continued)?);
                    }
                    Next::Failed(error) => return Err(error),
                    Next::End | Next::Connection { .. } => return self.finish(&journal).await,
                },
                synced = syncing => {
                    self.syncing = None;
                    synced.map_err(|_| Error::Stopping)??;
                }
                done = &mut copied, if !self.is_copied => {
                    done?;
                    self.is_copied = true;
                    self.moved_at = Instant::now();
                    self.attached.start();
                }
                _ = status.changed() => {}
                changed = applied.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    self.moved_at = Instant::now();
                }
                changed = state.changed() => {
                    changed.map_err(|_| Error::Stopping)?;
                    self.tell(&journal).await?;
                }
                _ = tick.tick() => {
                    self.look(&journal);
                    self.tell(&journal).await?;
                }
            }
        }
    }

    /// Appends what is pending, as far as there is room.
    async fn append(&mut self, journal: &Arc<Journal>) -> Result<()> {
        while let Some(scanned) = self.pending.take() {
            let (of, session, relations) = (journal.clone(), self.session, self.borders.relations());
            let (scanned, done) = match journal.append_at_once(session, &scanned, &relations) {
                Some(done) => (scanned, done),
                None => {
                    let work = move || {
                        let done = of.append(session, &scanned, &relations);
                        (scanned, done)
                    };
                    blocking(work).await?
                }
            };
            match done? {
                Appended::Done => {}
                Appended::Full => {
                    self.pending = Some(scanned);
                    return Ok(());
                }
                Appended::Pass(parts, rest) => {
                    self.pending = rest;
                    let of = journal.clone();
                    let feed = blocking(move || of.feed()).await?;
                    for part in parts {
                        let passed = match &feed {
                            Some(feed) => feed.send(part).await.is_ok(),
                            None => false,
                        };
                        if !passed {
                            return Err(self.attached.failure().unwrap_or_else(must_be_sent_again));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Confirms what is durable and what is applied, if it is more than before.
    async fn confirm(&mut self, journal: &Journal) -> Result<()> {
        let applied_lsn = journal.applied();
        let flushed_lsn = journal.status().durable.max(applied_lsn);
        let mut now = self.confirmed;
        // What the shadow had by an earlier connection may be ahead of this one.
        now.applied_lsn.advance(applied_lsn.min(self.borders.reached()));
        now.flushed_lsn.advance(flushed_lsn.min(self.borders.reached()));
        if now == self.confirmed {
            return Ok(());
        }
        self.confirmed = now;
        self.sender.send(&now).await
    }

    /// Has the journal brought to disk where the shadow does not keep up, and
    /// counts.
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn look(&mut self, journal: &Arc<Journal>) {
        let status = journal.status();
        let lags = status.mark > journal.safe();
        let since = self.lags_since.filter(|_| lags);
        self.lags_since = lags.then(|| since.unwrap_or_else(Instant::now));
        if status.mark <= journal.applied() {
            self.moved_at = Instant::now();
        }
        if since.is_some_and(|since| since.elapsed() >= SYNC_AFTER) && self.syncing.is_none() {
            let (of, session) = (journal.clone(), self.session);
            self.syncing = Some(tokio::task::spawn_blocking(move || of.sync(session)));
        }
        if status.bytes >= TIDY_BYTES {
            let of = journal.clone();
            drop(tokio::task::spawn_blocking(move || of.tidy()));
        }
        let label = || self.attached.database().to_owned();
        ::metrics::gauge!(metrics::JOURNAL_BYTES, "shadow" => label()).set(status.bytes as f64);
        ::metrics::gauge!(metrics::SAFE_LSN, "shadow" => label()).set(journal.safe().0 as f64);
        ::metrics::gauge!(metrics::JOURNAL_FULL, "shadow" => label()).set(f64::from(self.pending.is_some()));
    }

    /// Tells the source how the applier is, when that is news; ends the
    /// connection with what the shadow has refused.
    async fn tell(&mut self, journal: &Journal) -> Result<()> {
        if let Some(error) = self.attached.failure() {
            return Err(error);
        }
        let notice = self.condition(journal);
        if notice != self.told {
            self.told = notice;
            self.sender.send(&self.told).await?;
        }
        Ok(())
    }

    fn condition(&self, journal: &Journal) -> Notice {
        let warning =
            |message: String, hint: &str| Notice { level: Level::Warning, message, hint: hint.to_owned() };
        let is_behind = journal.status().mark > journal.applied();
        let cause = match self.attached.state() {
            _ if !self.is_copied && self.pending.is_none() => None,
            _ if !self.is_copied => Some(("tables are still being copied".to_owned(), String::new())),
            State::Trouble(why) => Some((why.message, why.hint)),
            _ if is_behind && self.moved_at.elapsed() >= STALLED_AFTER => {
                let seconds = STALLED_AFTER.as_secs();
                Some((format!("the shadow has not moved for {seconds} s and more"), String::new()))
            }
            _ => None,
        };
        match (cause, self.pending.is_some()) {
            (Some((cause, hint)), false) => {
                warning(format!("{cause}; the platform keeps the changes in its journal meanwhile"), &hint)
            }
            (Some((cause, hint)), true) => warning(
                format!("{cause}; the platform's journal has no room left: the source keeps its WAL"),
                &hint,
            ),
            (None, _) => Notice { level: Level::Info, message: String::new(), hint: String::new() },
        }
    }

    /// The peer has ended the request in order: what is whole is brought to disk.
    async fn finish(&mut self, journal: &Arc<Journal>) -> Result<()> {
        if journal.status().mark > journal.safe() {
            let (of, session) = (journal.clone(), self.session);
            blocking(move || of.sync(session)).await??;
        }
        self.confirm(journal).await
    }
}

fn must_be_sent_again() -> Error {
    Error::Busy("a transaction larger than the journal must be sent again".to_owned())
}

/// A shadow that does not answer a connection's questions is taken for what it
/// was when it last did.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// The journal is brought to disk when it has been ahead of the shadow for so
/// long: a shadow that keeps up needs no help.
const SYNC_AFTER: Duration = Duration::from_secs(1);
/// A journal of more is looked through for what the shadow has.
const TIDY_BYTES: u64 = 32 << 20;
const TICK: Duration = Duration::from_millis(250);
/// From then on the source is told.
const STALLED_AFTER: Duration = Duration::from_secs(5);
