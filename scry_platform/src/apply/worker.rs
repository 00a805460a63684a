//! The stream's connection: from frames to committed positions.
//!
//! ```text
//! seat ─► lock ─► Welcome ─► wait until the copy is complete ─► read frames
//!   reader task ──(bounded queue)──► apply ─► commit when idle, full or late ─► Confirm
//! ```
//!
//! Invariants: whole source transactions, in commit order, with the position
//! in the same shadow transaction; Confirm only after that commit is flushed;
//! one writer a shadow (the seat here, an advisory lock against other
//! platforms, and the position's own compare-and-set). Nothing is read before
//! the copy is complete: the peer's window holds the rest.
//!
//! The queue between reader and apply is where a journal fits.

use super::bounds;
use super::course::{Course, Step};
use super::follow::Start;
use super::halt::{self, Ahead, Halt, Reached, ReadAhead, Recent, Wanted};
use super::hold::{HeldTable, Hold, Holds, drain};
use super::order::Turn;
use super::quarantine::Policy;
use super::quarantine::tell::Teller;
use super::relation_map::RelationMap;
use super::writer::Writer;
use crate::accept::link::{FrameReader, FrameSender, unexpected};
use crate::origin::Origin;
use crate::shadow::{Purpose, Session, Shadow};
use crate::{Error, Result, metrics};
use bytes::Bytes;
use scry_failpoint::{hit, step};
use scry_wire::Lsn;
use scry_wire::catalog::{Catalog, Class};
use scry_wire::codec::Reader;
use scry_wire::frame::{Frame, Tag};
use scry_wire::message::change::{Assembler, Begin, Change, ChangeWriter};
use scry_wire::message::{CopyState, Hello};
use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{MutexGuard, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// A stream worker's connection.
pub async fn serve(shadow: &Shadow, hello: &Hello, reader: FrameReader, sender: &FrameSender) -> Result<()> {
    let mut session = open_locked(shadow).await?;
    crate::origin::touch(&*session, hello).await?;
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
    let hold_news = shadow.watch_holds();
    let marks_news = shadow.watch_marks();
    let holds = Holds::load(&session).await?;
    let document = crate::origin::catalog(&*session).await?.unwrap_or_default();
    let mut worker = Worker {
        shadow,
        hello,
        sender,
        writer: Writer::new(session, RelationMap::default()).await?.on_timeline(hello.timeline),
        policy: Policy::of_document(&document),
        teller: Teller::default(),
        marks_news,
        course: Course::new(origin.applied_lsn),
        assembler: Assembler::new(),
        batch: Batch::default(),
        position_written: Instant::now(),
        holds,
        hold_news,
        xid: 0,
        commit_lsn: Lsn::INVALID,
        commit_time: 0,
        halts: shadow.halts.listen().await,
        halt: None,
        recent: Recent::default(),
    };
    drop(document);
    worker.obey().await?;
    let mut watch = shadow.watch();
    let result = tokio::select! {
        result = worker.run(reader) => result,
        _ = watch.wait_for(|origin| !is_copied(origin.as_ref(), hello)) => Err(another_history()),
    };
    if let Err(error) = &result {
        worker.give_up(error).await;
    }
    result
}

async fn open_locked(shadow: &Shadow) -> Result<Session> {
    let session = shadow.owner.open(Purpose::Apply).await?.cancelled_on_drop();
    // An old writer's backend may need a moment to see that its client is gone.
    let lock = format!("SELECT pg_catalog.pg_advisory_lock({WRITER_LOCK})");
    session.batch_execute(&lock).await.map_err(Error::sql("wait for the shadow's earlier writer"))?;
    Ok(session)
}

fn another_history() -> Error {
    Error::Busy("the shadow has been given to another history".to_owned())
}

fn is_copied(origin: Option<&Origin>, hello: &Hello) -> bool {
    origin.is_some_and(|o| o.copy_state_of(hello.generation) == CopyState::Copied)
}

async fn wait_until_copied(shadow: &Shadow, hello: &Hello) -> Result<()> {
    let mut watch = shadow.watch();
    let copied = watch.wait_for(|origin| is_copied(origin.as_ref(), hello)).await;
    copied.map(drop).map_err(|_| Error::Stopping)
}

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
}

struct Worker<'a> {
    shadow: &'a Shadow,
    hello: &'a Hello,
    sender: &'a FrameSender,
    writer: Writer,
    course: Course,
    assembler: Assembler,
    batch: Batch,
    position_written: Instant,
    holds: Holds,
    /// Moves when a late copy has come further.
    hold_news: watch::Receiver<u64>,
    /// What is done with refused changes, as the job's document says.
    policy: Policy,
    teller: Teller,
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

impl Worker<'_> {
    async fn run(&mut self, reader: FrameReader) -> Result<()> {
        let mut input = Input::start(reader);
        loop {
            self.halt_here(&mut input, &[], None).await?;
            let frame = match input.try_next() {
                Ok(frame) => frame,
                Err(TryRecvError::Disconnected) => return self.settle().await,
                Err(TryRecvError::Empty) => {
                    self.settle_if_due().await?;
                    match self.wait(&mut input).await? {
                        Some(frame) => frame,
                        None => continue,
                    }
                }
            };
            match frame {
                Ok(frame) => self.frame(frame, &mut input).await?,
                Err(error) => {
                    // What came before it whole is good.
                    self.settle().await?;
                    return Err(error);
                }
            }
        }
    }

    /// The next frame, or `None` when it is time to write the position, or at
    /// the end of the input.
    async fn wait(&mut self, input: &mut Input) -> Result<Option<Result<Frame>>> {
        self.tend_holds().await?;
        let between = !self.course.in_transaction();
        let due = (self.course.reached() > self.course.applied() && between)
            .then(|| tokio::time::Instant::from(self.position_written + POSITION_PAUSE));
        let telling = self.teller.due(self.writer.marks()).filter(|_| self.batch.since.is_none());
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
            frame = input.queue.recv() => Ok(frame),
            () = paused => self.settle().await.map(|()| None),
            halt = self.halts.recv(), if may_halt => {
                if let Some(halt) = halt {
                    self.take_halt(halt).await?;
                }
                Ok(None)
            }
            () = told => self.tell().await.map(|()| None),
            changed = self.marks_news.changed() => {
                changed.map_err(|_| Error::Stopping)?;
                self.marks_news.mark_changed();
                match self.course.in_transaction() {
                    true => Ok(input.queue.recv().await),
                    false => Ok(None),
                }
            }
            changed = self.hold_news.changed() => {
                changed.map_err(|_| Error::Stopping)?;
                self.hold_news.mark_changed();
                match self.course.in_transaction() {
                    // Looked at when it ends.
                    true => Ok(input.queue.recv().await),
                    false => Ok(None),
                }
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

    async fn frame(&mut self, frame: Frame, input: &mut Input) -> Result<()> {
        if frame.tag() != Tag::Batch {
            return Err(unexpected(&frame, "batch"));
        }
        hit(step::RECEIVED).await?;
        let whole = self.assembler.push(&frame)?;
        drop(frame);
        let Some(bytes) = whole else { return Ok(()) };
        self.batch.bytes += bytes.len();
        let mut reader = Reader::new(&bytes);
        while reader.remaining() > 0 {
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
            Change::Truncate { flags, relids } => {
                if self.row()? == Turn::Skip {
                    return Ok(());
                }
                self.truncate(flags, relids).await
            }
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

    /// Keeps a change of a table on hold.
    async fn keep(&mut self, relid: u32, whole: &[u8]) -> Result<()> {
        let mut parts = whole.chunks(KEPT_PART).peekable();
        while let Some(part) = parts.next() {
            let relation = self.writer.relation(relid).ok_or_else(|| {
                Error::protocol(format!("relation {relid} is changed before it is described"))
            })?;
            if self.holds.kept.keep(self.xid, relation, part, parts.peek().is_none()) {
                self.write_kept().await?;
            }
        }
        Ok(())
    }

    async fn write_kept(&mut self) -> Result<()> {
        let Some(columns) = self.holds.kept.take() else { return Ok(()) };
        let label = self.shadow.database.clone();
        ::metrics::counter!(metrics::CHANGES_KEPT, "shadow" => label).increment(columns.bytes as u64);
        self.writer.keep(columns).await
    }

    /// Empties tables; for those on hold this is a change like any other.
    async fn truncate(&mut self, flags: u8, mut relids: Vec<u32>) -> Result<()> {
        let held: Vec<u32> = relids.extract_if(.., |relid| self.holds.contains(*relid)).collect();
        for relid in held {
            let mut whole = Vec::new();
            ChangeWriter::new(&mut whole).truncate(flags, &[relid]);
            self.keep(relid, &whole).await?;
        }
        self.writer.truncate(&relids).await
    }

    /// Another catalog document is in force, and tables go on hold with it.
    async fn schema(&mut self, hold: &[u32], document: &[u8]) -> Result<()> {
        let bad = |e| Error::protocol(format!("the catalog document in the stream cannot be read: {e}"));
        let catalog: Catalog = serde_json::from_slice(document).map_err(bad)?;
        self.write_kept().await?;
        self.writer.flush().await?;
        self.policy = Policy::of_document(document);
        self.writer.set_policy(self.policy).await?;
        self.writer.transaction(self.xid, self.commit_lsn);
        let before = super::lead::stored_catalog(self.writer.session())
            .await?
            .ok_or_else(|| Error::protocol("the schema changes, but there is no catalog"))?;
        let (wanted, mut gone) = self.holds_of(hold, &before, &catalog);
        if self.holds.is_copying(&wanted) || self.holds.is_copying(&gone) {
            // Their transactions hold locks on the tables.
            drop(self.shadow.copies.clear().await?);
        }
        let was_absent = self.writer.marks().absent();
        let start = Start { before: &before, emptied: &wanted, absent: &was_absent, policy: self.policy };
        let absent = super::follow::follow(self.shadow, self.writer.session(), &start, &catalog).await?;
        self.writer.forget_targets();
        gone.extend(absent.iter().map(|table| table.relid));
        self.holds.forget(self.writer.session(), &gone).await?;
        let wanted: Vec<u32> = wanted.into_iter().filter(|relid| !gone.contains(relid)).collect();
        for relid in wanted.iter().filter(|relid| was_absent.contains(relid)) {
            self.writer.marks().found(*relid);
        }
        for table in &absent {
            self.writer.marks().miss(table, self.commit_lsn);
        }
        let tables = HeldTable::find(&catalog, &wanted);
        self.holds.begin(self.writer.session(), &tables, self.commit_lsn).await?;
        self.batch.moves_holds |= !tables.is_empty() || !gone.is_empty();
        if !tables.is_empty() {
            tracing::info!(shadow = %self.shadow.database, tables = tables.len(), "tables put on hold");
        }
        self.forget_marks(&catalog).await?;
        crate::origin::store_catalog(&**self.writer.session(), Some(document)).await?;
        // New labels of an enum can be used only after that.
        self.batch.is_urgent = true;
        Ok(())
    }

    /// What was refused of tables that are no longer there is of no use.
    async fn forget_marks(&mut self, after: &Catalog) -> Result<()> {
        let is_there =
            |relid: u32| after.objects.iter().any(|o| o.class == Class::Relation && o.oid == relid);
        let gone: Vec<u32> = self.writer.marks().relids().filter(|relid| !is_there(*relid)).collect();
        for relid in gone {
            self.writer.clear_marks(relid).await?;
        }
        Ok(())
    }

    /// Tables that go on hold by the document that is in force from here on, and those whose hold
    /// ends because they are gone. One that is on hold already and has another shape now begins
    /// anew.
    fn holds_of(&self, wanted: &[u32], before: &Catalog, after: &Catalog) -> (Vec<u32>, Vec<u32>) {
        let entry = |catalog: &Catalog, relid: u32| {
            let found = catalog.objects.iter().find(|o| o.class == Class::Relation && o.oid == relid);
            found.map(|object| object.entry.clone())
        };
        let mut wanted = wanted.to_vec();
        let mut gone = Vec::new();
        for relid in self.holds.relids() {
            match (entry(before, relid), entry(after, relid)) {
                (_, None) => gone.push(relid),
                (Some(old), Some(new)) if super::lead::is_same_table(&old, &new) => {}
                _ => wanted.push(relid),
            }
        }
        (wanted, gone)
    }

    /// Looks how far late copies are, and ends the holds that can end.
    async fn tend_holds(&mut self) -> Result<()> {
        if self.course.in_transaction() || self.batch.since.is_some() {
            return Ok(());
        }
        if self.marks_news.has_changed().unwrap_or(false) {
            self.marks_news.mark_unchanged();
            self.writer.reload_marks().await?;
            self.tell().await?;
        }
        if self.hold_news.has_changed().unwrap_or(false) {
            self.hold_news.mark_unchanged();
            self.holds.reload(self.writer.session()).await?;
        }
        while let Some(hold) = self.holds.due(self.course.applied()) {
            let (generation, position) = (self.hello.generation, self.course.applied());
            match drain::drain(&mut self.writer, &mut self.holds, &hold, generation, position).await {
                Ok(rows) => {
                    tracing::info!(shadow = %self.shadow.database, relid = hold.relid, rows, "late copy complete");
                    super::follow::after_hold(self.writer.session(), hold.relid).await?;
                }
                Err(error) => self.give_back(&hold, error).await?,
            }
            self.shadow.holds_changed();
            self.count_holds();
        }
        Ok(())
    }

    /// What was kept cannot be applied: the table is copied again. An error of
    /// the shadow itself, which another copy would not mend, is the stream's.
    async fn give_back(&mut self, hold: &Hold, error: Error) -> Result<()> {
        if self.writer.session().is_closed() {
            return Err(error);
        }
        self.writer.roll_back().await;
        self.writer.take_conflict();
        self.writer.reload_marks().await?;
        tracing::warn!(shadow = %self.shadow.database, relid = hold.relid, %error, "kept changes cannot be applied");
        drain::give_back(self.writer.session(), hold, &error.to_string()).await?;
        self.holds.reload(self.writer.session()).await
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn count_holds(&self) {
        let label = self.shadow.database.clone();
        ::metrics::gauge!(metrics::TABLES_HELD, "shadow" => label).set(self.holds.len() as f64);
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
        self.writer.commit(self.hello.generation, moved.from, moved.to, rows).await?;
        hit(step::COMMITTED).await?;
        self.batch = Batch::default();
        if moves_holds {
            self.shadow.holds_changed();
        }
        let confirm = self.course.durable(moved)?;
        self.position_written = Instant::now();
        self.shadow.advanced(self.course.applied(), self.hello.timeline, rows);
        let label = || self.shadow.database.clone();
        ::metrics::counter!(metrics::ROWS_APPLIED, "shadow" => label()).increment(rows);
        ::metrics::counter!(metrics::TRANSACTIONS_APPLIED, "shadow" => label()).increment(transactions);
        ::metrics::counter!(metrics::SHADOW_COMMITS, "shadow" => label()).increment(1);
        let fallbacks = self.writer.take_fallbacks();
        ::metrics::counter!(metrics::SET_FALLBACKS, "shadow" => label()).increment(fallbacks);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        ::metrics::gauge!(metrics::APPLIED_LSN, "shadow" => label()).set(self.course.applied().0 as f64);
        if let Some(confirm) = confirm {
            self.sender.send(&confirm).await?;
        }
        self.tell().await?;
        if self.writer.is_heavy() {
            self.renew_session().await?;
        }
        if self.holds.is_empty() { Ok(()) } else { self.tend_holds().await }
    }

    /// Gives back what a large value took: the driver keeps its buffers as
    /// long as the session lives.
    async fn renew_session(&mut self) -> Result<()> {
        let fresh = self.shadow.owner.open(Purpose::Apply).await?.cancelled_on_drop();
        let guard = std::mem::take(&mut self.writer.guard);
        let writer = Writer::new(fresh, RelationMap::default()).await?.on_timeline(self.hello.timeline);
        let relations = std::mem::replace(&mut self.writer, writer).into_relations();
        self.writer.adopt(relations);
        self.writer.guard = guard;
        let lock = format!("SELECT pg_catalog.pg_advisory_lock({WRITER_LOCK})");
        self.writer.lock(&lock).await
    }

    /// Between two transactions: takes a new halt, and stands still if this is
    /// where one wants it. `rest` is what the batch still holds, `next` the
    /// transaction at its front.
    async fn halt_here(&mut self, input: &mut Input, rest: &[u8], next: Option<Begin>) -> Result<()> {
        if self.course.in_transaction() {
            return Ok(());
        }
        if self.halt.is_none() {
            let Ok(halt) = self.halts.try_recv() else { return Ok(()) };
            self.take_halt(halt).await?;
        }
        let Some((wanted, _)) = &self.halt else { return Ok(()) };
        let is_here = match next {
            Some(begin) => halt::is_before(wanted, begin),
            None => self.course.reached() >= wanted.lsn,
        };
        if is_here { self.stand(input, rest, next).await } else { Ok(()) }
    }

    /// Stands still until the session has its snapshot of the source.
    async fn take_halt(&mut self, halt: Halt) -> Result<()> {
        self.settle().await?;
        let Halt { ready, wanted, reach } = halt;
        if ready.send(()).is_err() {
            return Ok(());
        }
        let Ok(Ok(wanted)) = tokio::time::timeout(HALT_TIMEOUT, wanted).await else { return Ok(()) };
        if self.recent.all_seen(&wanted.seen) {
            self.halt = Some((wanted, reach));
        } else {
            answer_halt(reach, self.course.applied(), false).await;
        }
        Ok(())
    }

    /// Stands still where the session wants it, if that is exact.
    async fn stand(&mut self, input: &mut Input, rest: &[u8], next: Option<Begin>) -> Result<()> {
        let Some((wanted, reach)) = self.halt.take() else { return Ok(()) };
        self.settle().await?;
        let exact = match next {
            // What ends before the floor is on the shadow: too far.
            Some(begin) if begin.commit_lsn < self.course.applied() => false,
            Some(_) => input.is_exact(&wanted, rest).await,
            None => true,
        };
        answer_halt(reach, self.course.applied(), exact).await;
        Ok(())
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
        self.teller.tell(marks, &self.hello.job, self.sender).await
    }

    /// After an error: the open transaction ends at once, and a conflict is
    /// written down where the shadow's owner finds it.
    async fn give_up(&mut self, error: &Error) {
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

/// Tells the session; where it is exact, stands still until the session lets go.
async fn answer_halt(reach: oneshot::Sender<Reached>, applied: Lsn, exact: bool) {
    let (go_on, gone_on) = oneshot::channel();
    if reach.send(Reached { exact, applied, go_on }).is_ok() && exact {
        // However it ends, the session no longer needs the place.
        let _ = gone_on.await;
    }
}

/// The reader's end of the queue; the reader stops with it.
struct Input {
    /// Frames that were read to look ahead: before those of the queue.
    ahead: VecDeque<Result<Frame>>,
    queue: mpsc::Receiver<Result<Frame>>,
    task: JoinHandle<()>,
}

impl Input {
    fn start(mut reader: FrameReader) -> Self {
        let (sender, queue) = mpsc::channel(QUEUE_FRAMES);
        let task = tokio::spawn(async move {
            loop {
                let next = match reader.next().await {
                    Ok(Some(frame)) => Ok(frame),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let last = next.is_err();
                if sender.send(next).await.is_err() || last {
                    return;
                }
            }
        });
        Input { ahead: VecDeque::new(), queue, task }
    }
}

impl Input {
    fn try_next(&mut self) -> std::result::Result<Result<Frame>, TryRecvError> {
        match self.ahead.pop_front() {
            Some(frame) => Ok(frame),
            None => self.queue.try_recv(),
        }
    }

    /// Whether nothing that the snapshot saw comes any more; reads ahead.
    async fn is_exact(&mut self, wanted: &Wanted, rest: &[u8]) -> bool {
        let mut told = halt::look_through(wanted, rest);
        let mut ahead = ReadAhead::default();
        for frame in self.ahead.iter().flatten() {
            if told == Ahead::Unknown {
                told = ahead.frame(wanted, frame);
            }
        }
        let until = tokio::time::Instant::now() + HALT_TIMEOUT;
        while told == Ahead::Unknown {
            let Ok(Some(next)) = tokio::time::timeout_at(until, self.queue.recv()).await else {
                return false;
            };
            told = match &next {
                Ok(frame) => ahead.frame(wanted, frame),
                Err(_) => Ahead::Inexact,
            };
            self.ahead.push_back(next);
        }
        told == Ahead::Exact
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Advisory lock of the one writer of a shadow.
const WRITER_LOCK: i64 = 7_239_850_000_000_000_002;
/// Frames between reader and apply: at most as many megabytes.
const QUEUE_FRAMES: usize = 8;
/// How long the stream waits for a verifying session to say where it wants it,
/// and reads ahead.
const HALT_TIMEOUT: Duration = Duration::from_secs(10);
/// A change is kept in parts of this, so that a large one is not held twice.
const KEPT_PART: usize = 1 << 20;
/// A position without changes is written at most this often.
const POSITION_PAUSE: Duration = Duration::from_millis(200);
