//! The applier of a shadow: from changes to committed positions.
//!
//! ```text
//! input: a link, or the journal's tail ─► worker ─► commit when idle, full or late ─► outlet
//! ```
//!
//! Invariants: whole source transactions, in commit order, with the position
//! in the same shadow transaction; the outlet is told only after that commit, and
//! without a journal after its flush; one writer a shadow (its owner's seat, an
//! advisory lock against other platforms, and the position's own compare-and-set).
//!
//! [`input`] is where changes come from, [`halts`] where the stream stands
//! still, [`holds`] and [`schema`] what they say in their names.

mod halts;
mod holds;
mod input;
mod schema;

pub(super) use input::{Input, Link, Next};

use super::applier::Outlet;
use super::bounds;
use super::course::{Course, Step};
use super::follow;
use super::halt::{Halt, Reached, Recent, Wanted};
use super::hold::Holds;
use super::order::Turn;
use super::quarantine::Policy;
use super::quarantine::tell::Teller;
use super::relation_map::RelationMap;
use super::schema::Step as SchemaStep;
use super::sets::CHANGES_AT_ONCE;
use super::writer::Writer;
use crate::origin::Origin;
use crate::origin::rounds::Rounds;
use crate::shadow::{Purpose, Session, Shadow};
use crate::{Error, Result, metrics};
use bytes::Bytes;
use scry_failpoint::{hit, step};
use scry_wire::Lsn;
use scry_wire::codec::Reader;
use scry_wire::message::LeftOutText;
use scry_wire::message::change::{Assembler, Change};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{MutexGuard, mpsc, oneshot, watch};

/// What the open shadow transaction holds.
#[derive(Debug, Default)]
struct Batch {
    since: Option<Instant>,
    rows: u64,
    bytes: usize,
    transactions: u64,
    /// To be committed at the end of this source transaction.
    is_urgent: bool,
    /// Holds have begun or ended in it: whoever copies such a table must know.
    moves_holds: bool,
    /// What the shadow lacks since then.
    left_out: Vec<LeftOutText>,
    /// What goes once it is committed.
    later: Vec<SchemaStep>,
}

/// Applies changes to one shadow.
pub(super) struct Worker<'a> {
    shadow: &'a Shadow,
    generation: u64,
    job: String,
    outlet: Outlet<'a>,
    /// The source's, of what is applied; 0 where it is not known.
    timeline: u32,
    writer: Writer,
    course: Course,
    assembler: Assembler,
    batch: Batch,
    position_written: Instant,
    holds: Holds,
    /// What the snapshots of the copy saw.
    rounds: Rounds,
    /// Moves when a late copy has come further.
    hold_news: watch::Receiver<u64>,
    /// What is done with refused changes, as the job's document says.
    policy: Policy,
    teller: Teller,
    /// The connection that was told last.
    told: u64,
    /// Moves when others have cleared marks of tables.
    marks_news: watch::Receiver<u64>,
    /// The open source transaction.
    xid: u64,
    commit_lsn: Lsn,
    /// Microseconds since 2000-01-01 UTC.
    commit_time: i64,
    /// Sessions that want the stream to stand still.
    halts: MutexGuard<'a, mpsc::Receiver<Halt>>,
    /// The one that is served, and where it wants the stream.
    halt: Option<(Wanted, oneshot::Sender<Reached>)>,
    recent: Recent,
}

/// How a worker's run ended, all being well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing comes any more.
    Done,
    /// The open transaction is void: it is to be run again, from the shadow's
    /// position.
    Again,
}

impl<'a> Worker<'a> {
    /// A worker on a session that holds the writer's lock, for the job of `origin`; changes come
    /// from this timeline of the source, from the shadow's position on.
    pub(super) async fn new(
        shadow: &'a Shadow,
        origin: &Origin,
        session: Session,
        outlet: Outlet<'a>,
        timeline: u32,
    ) -> Result<Self> {
        outlet.set_up(&session).await?;
        let rounds = Rounds::load(&*session, origin.copy_id).await?;
        let (hold_news, marks_news) = (shadow.watch_holds(), shadow.watch_marks());
        follow::catch_up(&session).await?;
        let holds = Holds::load(&session).await?;
        let document = crate::origin::catalog(&*session).await?.unwrap_or_default();
        let mut worker = Worker {
            shadow,
            generation: origin.generation,
            job: origin.job.clone(),
            outlet,
            timeline,
            writer: Writer::new(session, RelationMap::default()).await?.on_timeline(timeline),
            policy: Policy::of_document(&document),
            teller: Teller::default(),
            told: 0,
            marks_news,
            course: Course::new(origin.applied_lsn),
            assembler: Assembler::new(),
            batch: Batch::default(),
            // The first one is written at once: somebody may wait for it.
            position_written: Instant::now().checked_sub(POSITION_PAUSE).unwrap_or_else(Instant::now),
            holds,
            rounds,
            hold_news,
            xid: 0,
            commit_lsn: Lsn::INVALID,
            commit_time: 0,
            halts: shadow.halts.listen().await,
            halt: None,
            recent: Recent::default(),
        };
        worker.obey().await?;
        Ok(worker)
    }

    /// Changes come from `base` on, which may be before the shadow's position.
    pub(super) fn beginning_at(mut self, base: Lsn) -> Self {
        self.course = self.course.from(base);
        self
    }

    /// Applies what comes, until nothing does.
    pub(super) async fn run(&mut self, mut input: Input) -> Result<Ended> {
        loop {
            self.halt_here(&mut input, &[], None).await?;
            let next = match input.try_next(self.course.reached()).await? {
                Some(next) => next,
                None => {
                    self.settle_if_due().await?;
                    self.wait(&mut input).await?;
                    continue;
                }
            };
            match next {
                Next::Part(payload, continued) => self.part(payload, continued, &mut input).await?,
                Next::Connection { .. } if self.course.in_transaction() => return Ok(Ended::Again),
                Next::Connection { timeline, base } => {
                    self.timeline = self.timeline.max(timeline);
                    self.writer.set_timeline(self.timeline);
                    self.course.reconnected(base);
                    self.assembler = Assembler::new();
                }
                Next::End => return self.settle().await.map(|()| Ended::Done),
                Next::Failed(error) => {
                    // What came before it whole is good.
                    self.settle().await?;
                    return Err(error);
                }
            }
        }
    }

    /// Waits for more, or until something else is to be done.
    async fn wait(&mut self, input: &mut Input) -> Result<()> {
        self.tend_holds().await?;
        let between = !self.course.in_transaction();
        let due = (self.course.reached() > self.course.applied() && between)
            .then(|| tokio::time::Instant::from(self.position_written + POSITION_PAUSE));
        let can_tell = self.batch.since.is_none() && self.outlet.connection().is_some();
        let telling = self.teller.due(self.writer.marks()).filter(|_| can_tell);
        let told = async {
            match telling {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        let paused = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let may_halt = between && self.halt.is_none();
        tokio::select! {
            biased;
            () = input.ready() => Ok(()),
            () = paused => self.settle().await,
            halt = self.halts.recv(), if may_halt => match halt {
                Some(halt) => self.take_halt(halt).await,
                None => Ok(()),
            },
            () = told => self.tell().await,
            changed = self.marks_news.changed() => {
                changed.map_err(|_| Error::Stopping)?;
                self.marks_news.mark_changed();
                look_later(!between, input).await
            }
            changed = self.hold_news.changed() => {
                changed.map_err(|_| Error::Stopping)?;
                self.hold_news.mark_changed();
                look_later(!between, input).await
            }
        }
    }

    /// The input is idle: what is whole becomes durable. A position alone not
    /// more often than the pause.
    async fn settle_if_due(&mut self) -> Result<()> {
        let waits = self.batch.since.is_none() && self.position_written.elapsed() < POSITION_PAUSE;
        if waits { Ok(()) } else { self.settle().await }
    }

    /// Commits what is whole, if no source transaction is open.
    async fn settle(&mut self) -> Result<()> {
        match self.course.step() {
            Some(step) if self.batch.since.is_some() || step.to > step.from => self.commit(step).await,
            _ => Ok(()),
        }
    }

    async fn part(&mut self, payload: Bytes, continued: bool, input: &mut Input) -> Result<()> {
        hit(step::RECEIVED).await?;
        let Some(bytes) = self.assembler.push_part(payload, continued)? else { return Ok(()) };
        self.batch.bytes += bytes.len();
        let mut reader = Reader::new(&bytes);
        let mut changes = 0usize;
        while reader.remaining() > 0 {
            changes = changes.wrapping_add(1);
            if changes.is_multiple_of(CHANGES_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            let rest = reader.rest();
            let change = Change::read(&mut reader)?;
            let whole = rest.get(..rest.len() - reader.remaining()).unwrap_or_default();
            if let Change::Begin(begin) = &change {
                self.halt_here(input, rest, Some(*begin)).await?;
            }
            let ends = matches!(change, Change::Commit(_) | Change::Keepalive(_));
            self.change(&bytes, whole, change).await?;
            if ends {
                self.halt_here(input, reader.rest(), None).await?;
            }
        }
        Ok(())
    }

    /// Applies a change; `whole` are its bytes, head and all.
    async fn change(&mut self, bytes: &Bytes, whole: &[u8], change: Change<'_>) -> Result<()> {
        match change {
            Change::Insert { relid, .. } | Change::Update { relid, .. } | Change::Delete { relid, .. }
                if self.rounds.saw(relid, self.xid) =>
            {
                self.course.change().map(drop)
            }
            Change::Insert { relid, .. } | Change::Update { relid, .. } | Change::Delete { relid, .. }
                if self.holds.contains(relid) =>
            {
                if self.row()? == Turn::Skip {
                    return Ok(());
                }
                self.keep(relid, whole).await
            }
            Change::Relation(relation) => self.writer.describe(relation).await,
            Change::Begin(begin) => {
                (self.xid, self.commit_lsn) = (begin.xid, begin.commit_lsn);
                self.commit_time = begin.commit_time;
                self.recent.push(begin.xid);
                if self.course.begin(begin)? == Turn::Apply {
                    self.writer.transaction(self.xid, self.commit_lsn);
                    self.batch.is_urgent |= self.commit_lsn <= self.shadow.commits_singly_to();
                    self.open_batch().await?;
                }
                Ok(())
            }
            Change::Insert { relid, new } => {
                if self.row()? == Turn::Skip {
                    return Ok(());
                }
                self.writer.insert(bytes, relid, new).await
            }
            Change::Update { relid, old, new } => {
                if self.row()? == Turn::Skip {
                    return Ok(());
                }
                self.writer.update(bytes, relid, old, new).await
            }
            Change::Delete { relid, old } => {
                if self.row()? == Turn::Skip {
                    return Ok(());
                }
                self.writer.delete(bytes, relid, old).await
            }
            Change::Truncate { flags, mut relids } => {
                relids.retain(|relid| !self.rounds.saw(*relid, self.xid));
                if self.row()? == Turn::Skip || relids.is_empty() {
                    return Ok(());
                }
                self.truncate(flags, relids).await
            }
            // An older value than the shadow's would be given out twice.
            Change::Sequence(_) if self.course.is_repeated() => Ok(()),
            Change::Sequence(sequence) => {
                self.open_batch().await?;
                self.writer.sequence(sequence).await
            }
            Change::Schema { hold, document } => {
                if self.row()? == Turn::Skip {
                    return Ok(());
                }
                self.schema(&hold, document).await
            }
            Change::Commit(commit) => {
                if self.course.commit(commit)? == Turn::Apply {
                    self.batch.transactions += 1;
                }
                self.commit_if_full().await
            }
            Change::Keepalive(lsn) => {
                self.course.keepalive(lsn);
                Ok(())
            }
        }
    }

    /// Counts a row change and says what to do with it.
    fn row(&mut self) -> Result<Turn> {
        let turn = self.course.change()?;
        if turn == Turn::Apply {
            self.batch.rows += 1;
        }
        Ok(turn)
    }

    async fn open_batch(&mut self) -> Result<()> {
        if self.batch.since.is_none() {
            self.batch.since = Some(Instant::now());
        }
        self.writer.begin().await
    }

    async fn commit_if_full(&mut self) -> Result<()> {
        let Batch { since: Some(since), rows, bytes, is_urgent, .. } = self.batch else { return Ok(()) };
        let held = bounds::Held { rows, bytes, age: since.elapsed() };
        let lag = bounds::lag(self.commit_time, SystemTime::now());
        match self.course.step() {
            Some(step) if is_urgent || bounds::is_full(held, lag) => self.commit(step).await,
            _ => Ok(()),
        }
    }

    async fn commit(&mut self, moved: Step) -> Result<()> {
        let Batch { rows, transactions, moves_holds, .. } = self.batch;
        self.write_kept().await?;
        hit(step::APPLIED).await?;
        self.writer.commit(self.generation, moved.from, moved.to, rows).await?;
        hit(step::COMMITTED).await?;
        let Batch { left_out, later, .. } = std::mem::take(&mut self.batch);
        self.drop_later(later, left_out).await;
        if moves_holds {
            self.shadow.holds_changed();
        }
        let confirm = self.course.durable(moved)?;
        if rows == 0 {
            self.position_written = Instant::now();
        }
        self.shadow.advanced(self.course.applied(), self.timeline, rows);
        let label = || self.shadow.database.clone();
        ::metrics::counter!(metrics::ROWS_APPLIED, "shadow" => label()).increment(rows);
        ::metrics::counter!(metrics::TRANSACTIONS_APPLIED, "shadow" => label()).increment(transactions);
        ::metrics::counter!(metrics::SHADOW_COMMITS, "shadow" => label()).increment(1);
        let fallbacks = self.writer.take_fallbacks();
        ::metrics::counter!(metrics::SET_FALLBACKS, "shadow" => label()).increment(fallbacks);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        ::metrics::gauge!(metrics::APPLIED_LSN, "shadow" => label()).set(self.course.applied().0 as f64);
        if let Some(confirm) = confirm {
            self.outlet.confirm(confirm).await?;
        }
        self.tell().await?;
        if self.writer.is_heavy() {
            self.renew_session().await?;
        }
        if self.holds.is_empty() { Ok(()) } else { self.tend_holds().await }
    }

    /// What waited for the commit goes; what the shadow lacks after that is told.
    async fn drop_later(&mut self, later: Vec<SchemaStep>, mut left_out: Vec<LeftOutText>) {
        if !later.is_empty() {
            match follow::after_commit(self.shadow, self.writer.session(), later).await {
                Ok(gone) => left_out.retain(|item| !gone.contains(&item.object)),
                Err(error) => {
                    tracing::warn!(%error, shadow = %self.shadow.database, "could not drop what the source has dropped");
                }
            }
        }
        self.teller.left_out(left_out);
    }

    /// Gives back what a large value took: the driver keeps its buffers as
    /// long as the session lives.
    async fn renew_session(&mut self) -> Result<()> {
        let fresh = self.shadow.owner.open(Purpose::Apply).await?.cancelled_on_drop();
        self.outlet.set_up(&fresh).await?;
        let guard = std::mem::take(&mut self.writer.guard);
        let writer = Writer::new(fresh, RelationMap::default()).await?.on_timeline(self.timeline);
        let relations = std::mem::replace(&mut self.writer, writer).into_relations();
        self.writer.adopt(relations);
        self.writer.guard = guard;
        let lock = format!("SELECT pg_catalog.pg_advisory_lock({WRITER_LOCK})");
        self.writer.lock(&lock).await
    }

    /// Sets the writer up for the job's policy.
    async fn obey(&mut self) -> Result<()> {
        self.writer.set_policy(self.policy).await?;
        self.writer.reload_marks().await?;
        self.tell().await
    }

    /// Tells the worker of quarantined tables. Between shadow transactions.
    async fn tell(&mut self) -> Result<()> {
        let marks = self.writer.marks();
        let (added, tables) = (marks.take_added(), marks.len());
        let label = || self.shadow.database.clone();
        ::metrics::counter!(metrics::CHANGES_QUARANTINED, "shadow" => label()).increment(added);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        ::metrics::gauge!(metrics::TABLES_QUARANTINED, "shadow" => label()).set(tables as f64);
        let Some((number, sender)) = self.outlet.connection() else { return Ok(()) };
        if std::mem::replace(&mut self.told, number) != number {
            self.teller.begin_anew();
        }
        let told = self.teller.tell(self.writer.marks(), &self.job, &sender).await;
        // The journal's changes are applied whoever listens.
        if self.outlet.outlives_connections() { Ok(()) } else { told }
    }

    /// The open transaction is void.
    pub(super) async fn abandon(&mut self) {
        self.writer.roll_back().await;
    }

    /// After an error: the open transaction ends at once, and a conflict is
    /// written down where the shadow's owner finds it.
    pub(super) async fn give_up(&mut self, error: &Error) {
        if error.is_refusal() {
            self.shadow.stopped_at(self.commit_lsn);
        }
        self.writer.roll_back().await;
        let Some(conflict) = self.writer.take_conflict() else { return };
        let recorded = async {
            let session = self.shadow.owner.open(Purpose::Own).await?;
            conflict.record(&session, self.course.applied()).await
        };
        if let Err(error) = recorded.await {
            tracing::warn!(%error, "could not record a conflict");
        }
    }
}

/// Inside a transaction, news are looked at when it ends.
async fn look_later(in_transaction: bool, input: &mut Input) -> Result<()> {
    if in_transaction {
        input.ready().await;
    }
    Ok(())
}

/// Opens a session that holds the writer's lock.
pub(super) async fn open_locked(shadow: &Shadow) -> Result<Session> {
    let opened = tokio::time::timeout(OPEN_TIMEOUT, shadow.owner.open(Purpose::Apply)).await;
    let session = opened.map_err(|_| no_answer(shadow))??.cancelled_on_drop();
    // An old writer's backend may need a moment to see that its client is gone.
    let lock = format!("SELECT pg_catalog.pg_advisory_lock({WRITER_LOCK})");
    session.batch_execute(&lock).await.map_err(Error::sql("wait for the shadow's earlier writer"))?;
    Ok(session)
}

fn no_answer(shadow: &Shadow) -> Error {
    Error::Shadow {
        message: format!("the shadow's database \"{}\" does not answer", shadow.database),
        hint: String::new(),
        retry: true,
    }
}

/// Advisory lock of the one writer of a shadow.
const WRITER_LOCK: i64 = 7_239_850_000_000_000_002;
/// A server that takes connections and says nothing is as good as none.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// A position without changes is written at most this often; the first one after changes at once.
const POSITION_PAUSE: Duration = Duration::from_millis(200);
