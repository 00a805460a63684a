//! What the decoder gives, written into batches and handed on; what comes
//! back, taken as confirmation.
//!
//! ```text
//! begin ─ change… ─ commit ──► batch ──full, or nothing more to read──► handoff
//! slot ◄── confirm ◄── frames that come back, read whenever the worker waits
//! ```
//!
//! What comes of a transaction before it ends goes by [`pieces`].
//!
//! Invariants: a transaction of which nothing is followed leaves no trace but
//! the position; a begin is written with the first change that is. A lost
//! connection ends the process: the launcher starts it again and the stream
//! goes on from the shadow's position (delivery contract, rule 3).

mod pieces;
mod schemas;

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::time::{Duration, Instant};

use scry_wire::Lsn;
use scry_wire::frame::Tag;
use scry_wire::message::change::{
    Begin, ChangeWriter, Commit, OldKind, Sequence, TRUNCATE_CASCADE, TRUNCATE_RESTART,
};

use self::pieces::Pieces;
pub use self::schemas::Schemas;
use super::linger::Linger;
use super::link::Link;
use super::relation_cache::{Entry, Lookup, RelationCache};
use super::schema::{Notes, Order};
use super::sequence::{HeldRecords, SequenceNames};
use crate::api::ddl::Note;
use crate::batch::{Batch, LargeValue};
use crate::confirm::Progress;
use crate::failpoint::{self, step};
use crate::guc;
use crate::handoff::Handoff;
use crate::pg::callbacks::{RowChange, Sink, StreamEvent, Transaction};
use crate::pg::relation::RelationRef;
use crate::pg::sequence::{NamedSequence, SequenceRecord};
use crate::pg::snapshot::transaction;
use crate::pg::{historic, latch, message, wal, worker};
use crate::worker::job;
use crate::worker::pace::{Limits, Pace};
use crate::worker::shmem::{JobRef, Level};

/// The stream's way out and back.
pub struct Output {
    link: Link,
    batch: Batch,
    cache: RelationCache,
    /// The user wants only the inserts of tables without a replica identity.
    inserts_only: bool,
    /// The open transaction's begin stands in the stream.
    begun: bool,
    schemas: Schemas,
    pieces: Pieces,
    sequences: SequenceNames,
    held_sequences: HeldRecords,
    /// What ends up to here was safe on the platform when this connection began.
    start: Lsn,
    /// All transactions that end up to here have been written.
    written: Lsn,
    keepalive_at: Instant,
    /// End of the flushed WAL when it had all been read.
    flushed_wal: Lsn,
    /// Wakes in a row that brought no WAL: commits that are not flushed yet.
    empty_wakes: u32,
    linger: Linger,
    /// Transactions written since a batch was handed on because there was no more to read.
    lately: u32,
    pace: Pace,
}

impl Output {
    /// An output for a welcomed connection to a platform that is as far as
    /// `progress` says: the stream goes on from what is safe there. `watch` is called
    /// whenever the worker waits: it looks after the copy and may end the process.
    pub fn new(
        job: JobRef,
        handoff: Handoff,
        progress: Progress,
        cache: RelationCache,
        inserts_only: bool,
        mut schemas: Schemas,
        watch: Box<dyn FnMut(JobRef)>,
    ) -> Output {
        let live = job.live();
        let start = progress.sent_lsn();
        live.applied_lsn.store(progress.applied_lsn().0, Relaxed);
        live.flushed_lsn.store(start.0, Relaxed);
        live.sent_lsn.store(start.0, Relaxed);
        schemas.newest = start;
        Output {
            link: Link::new(job, handoff, progress, watch),
            batch: Batch::new(Tag::Batch),
            cache,
            inserts_only,
            begun: false,
            schemas,
            pieces: Pieces::default(),
            sequences: SequenceNames::default(),
            held_sequences: HeldRecords::default(),
            start,
            written: start,
            keepalive_at: Instant::now(),
            flushed_wal: Lsn::INVALID,
            empty_wakes: 0,
            linger: Linger::new(Instant::now()),
            lately: 0,
            pace: Pace::new(job, Limits::default()),
        }
    }

    /// Called between records, now and then: in a server that is never idle
    /// the position moves and answers are read all the same.
    pub fn between_records(&mut self, end: Lsn) {
        self.link.live().decoded_lsn.store(end.0, Relaxed);
        self.drop_orphans(end);
        self.link.receive();
        self.link.watch();
        if self.schemas.lull.is_overdue() {
            self.end_lull();
        }
        if self.wants_keepalive(end) {
            self.keepalive(end);
        }
    }

    fn wants_keepalive(&self, end: Lsn) -> bool {
        if self.schemas.lull.waits() {
            // The position must not pass what is not in the stream yet.
            return false;
        }
        let wanted = Lsn(self.link.live().wanted_lsn.load(Acquire));
        end > self.link.sent_lsn()
            && (wanted > self.link.sent_lsn() || self.keepalive_at.elapsed() > KEEPALIVE_EVERY)
    }

    /// Everything that ends up to `end` has been decoded: say so, and send all.
    fn keepalive(&mut self, end: Lsn) {
        ChangeWriter::new(self.batch.buf()).keepalive(end);
        self.written.advance(end);
        self.keepalive_at = Instant::now();
        self.flush();
    }

    /// Has what waits be read with the commit of a transaction of our own: only there do the
    /// catalogs show what they were at a place in the WAL. Outside of a transaction.
    fn end_lull(&mut self) {
        transaction(|| message::emit(&Note::Changed.write()));
        self.schemas.lull.ask();
    }

    /// Not while schema changes wait: a name may come with them.
    fn drop_orphans(&mut self, end: Lsn) {
        if !self.schemas.lull.waits() {
            self.held_sequences.drop_orphans(end);
        }
    }

    /// Hands the batch on.
    fn flush(&mut self) {
        self.flush_with(&[]);
    }

    /// Hands the batch on, with values of its last change that stand elsewhere.
    fn flush_with(&mut self, large: &[LargeValue<'_>]) {
        latch::serve_interrupts();
        let rows = u64::from(self.batch.rows());
        let bytes = (self.batch.len() + large.iter().map(|value| value.bytes.len()).sum::<usize>()) as u64;
        self.batch.limit_rows(guc::batch_size());
        let link = &mut self.link;
        // Before the bytes leave: an answer may come back while they do.
        link.sent(self.written);
        if large.is_empty() {
            self.batch.drain(false, |frame| link.send(frame));
        } else {
            self.batch.drain_with(large, |frame| link.send(frame));
        }
        failpoint::hit(step::HANDED_OVER);
        let live = link.live();
        live.sent_lsn.store(self.written.0, Relaxed);
        live.stream_rows.fetch_add(rows, Relaxed);
        live.stream_bytes.fetch_add(bytes, Relaxed);
        live.blocked_us.fetch_add(link.take_blocked_us(), Relaxed);
        self.pace.after_stream();
    }

    /// What the job's tables have become, to be noted before the slot moves past it.
    pub fn notes(&self) -> Option<&Notes> {
        (self.link.waits_for_notes() && !self.begun).then_some(&self.schemas.notes)
    }

    /// It has been noted.
    pub fn noted(&mut self) {
        self.schemas.notes = Notes::default();
        self.link.confirm_all();
    }

    /// Notes which tables have refused changes, if that is new. Outside of a
    /// transaction, and of the reorder buffer.
    pub fn note_marks(&mut self) {
        if let Some(marks) = self.link.take_marks() {
            let name = self.link.job().name();
            transaction(|| job::note_marks(&name, &marks));
        }
    }

    /// Brings the schema as it is at this place of the stream, if it is news.
    fn bring_schema(&mut self, transaction: &Transaction) {
        self.schemas.dirty = true;
        if self.schemas.seen_by.as_ref().is_some_and(|seen_by| seen_by.saw(transaction.xid)) {
            // The shadow was made from a later catalog than this one.
            return;
        }
        let followed = self.cache.followed().relids();
        let excluded = self.cache.followed().excluded().clone();
        self.schemas.asked.earlier = self.schemas.lull.xids_before(transaction.at);
        let started = Instant::now();
        let reading = loop {
            match self.schemas.reader.read(&followed, &excluded, &self.schemas.asked) {
                Some(reading) => break reading,
                None => self.wait_for_lock(),
            }
        };
        self.schemas.read(started.elapsed(), transaction);
        if !self.schemas.unidentified.is_empty() {
            // One of them may have an identity now: whoever copies looks at that.
            self.link.live().late_wanted.fetch_add(1, AcqRel);
        }
        for text in &reading.left_out {
            if self.schemas.told.insert(text.clone()) {
                self.link.job().event(Level::Warning, text, "");
            }
        }
        if !self.schemas.reader.is_news(&reading) && reading.notes.is_empty() {
            return;
        }
        begin_if_new(&mut self.begun, &mut self.batch, transaction);
        let hold: Vec<u32> =
            reading.notes.held.keys().chain(reading.notes.unidentified.keys()).copied().collect();
        if let Err(err) = ChangeWriter::new(self.batch.buf()).schema(&hold, &reading.document) {
            pgrx::error!("the catalog document is too large to be sent: {err}");
        }
        self.cache.followed().become_these(reading.tables.keys().copied());
        self.cache.followed().set_parents(reading.parents);
        self.cache.forget_all();
        if !reading.notes.is_empty() {
            self.link.confirm_up_to(transaction.commit_lsn);
            self.schemas.notes.extend(reading.notes);
        }
        self.flush();
    }

    /// Whether the schema changes of this transaction can be read with later ones: nothing of it
    /// is in the stream.
    fn may_wait(&self, transaction: &Transaction) -> bool {
        let saw = self.schemas.seen_by.as_ref().is_some_and(|seen_by| seen_by.saw(transaction.xid));
        let more = wal::flush_position() > transaction.end_lsn;
        !self.begun && !saw && !self.pieces.any() && self.schemas.lull.may_wait(more)
    }

    /// An order to this job: anything else is nothing.
    fn order(&self, content: &[u8]) -> Option<Order> {
        let generation = self.link.live().generation.load(Relaxed);
        let order = serde_json::from_slice::<Order>(content).ok()?;
        (order.job == self.link.job().name() && order.generation == generation).then_some(order)
    }

    /// Which row has changed is not known: the table goes on hold until it has a
    /// replica identity again, and is copied then. What changes in it before
    /// that is in the copy, because giving it one waits for all who write to it.
    fn lose_identity(&mut self, transaction: &Transaction, relid: u32, name: &str) {
        if !self.schemas.unidentified.insert(relid) {
            return;
        }
        let message =
            format!("table \"{name}\" has no replica identity, and a row of it has changed: it is on hold");
        let hint = format!(
            "Give it a primary key, or ALTER TABLE {name} REPLICA IDENTITY USING INDEX ...: then it is copied and \
             follows again; the other tables follow meanwhile."
        );
        self.link.job().event(Level::Warning, &message, &hint);
        self.schemas.asked.unidentified.insert(relid);
        self.bring_schema(transaction);
    }

    /// Somebody's migration holds a table that a view reads: its end is waited
    /// for, as its changes would be.
    fn wait_for_lock(&mut self) {
        let job = self.link.job();
        let hint = "The stream goes on when that transaction ends; pg_locks shows who holds an ACCESS EXCLUSIVE lock.";
        job.say("waiting for a lock, to read a changed schema", "", hint);
        self.link.wait(LOCK_TICK);
        latch::serve_interrupts();
        job.say("", "", "");
    }

    /// The end of a transaction has been written.
    fn note_end(&mut self, transaction: &Transaction) {
        self.written.advance(transaction.end_lsn);
        let live = self.link.live();
        live.stream_transactions.fetch_add(1, Relaxed);
        live.sent_commit_time.store(transaction.commit_time, Relaxed);
        self.link.await_answer(transaction.end_lsn, transaction.commit_time);
    }

    fn flush_if_full(&mut self) {
        if self.batch.is_full() {
            self.flush();
        }
    }
}

/// Writes the begin of a transaction with its first followed change.
#[inline]
fn begin_if_new(begun: &mut bool, batch: &mut Batch, transaction: &Transaction) {
    if !std::mem::replace(begun, true) {
        ChangeWriter::new(batch.buf()).begin(Begin {
            xid: transaction.xid,
            commit_lsn: transaction.commit_lsn,
            commit_time: transaction.commit_time,
        });
    }
}

/// Writes a row's change; `false` if nothing can be said of it.
#[inline]
fn write_row<'t>(
    buf: &mut Vec<u8>,
    relation: &RelationRef<'_>,
    entry: &mut Entry,
    change: RowChange<'t>,
    large: &mut Vec<LargeValue<'t>>,
) -> bool {
    let relid = entry.description.relid;
    let old_kind = if entry.is_full { OldKind::Full } else { OldKind::Key };
    let mut writer = ChangeWriter::new(buf);
    let open = match change {
        RowChange::Insert(new) => {
            let open = writer.insert(relid);
            relation.encode(&mut entry.encoder, new, writer.tuple(), large);
            open
        }
        RowChange::Update { old: None, new } => {
            let open = writer.update(relid, OldKind::None);
            relation.encode(&mut entry.encoder, new, writer.tuple(), large);
            open
        }
        RowChange::Update { old: Some(old), new } => {
            let open = writer.update(relid, old_kind);
            relation.encode(&mut entry.encoder, old, writer.tuple(), large);
            relation.encode(&mut entry.encoder, new, writer.tuple(), large);
            open
        }
        RowChange::Delete(Some(old)) => {
            let open = writer.delete(relid, old_kind);
            relation.encode(&mut entry.encoder, old, writer.tuple(), large);
            open
        }
        RowChange::Delete(None) => return false,
    };
    if let Err(err) = writer.close_with(open, large.iter().map(|value| value.bytes.len()).sum()) {
        pgrx::error!("row of table \"{}\" is too large to be sent: {err}", entry.description.name);
    }
    true
}

fn write_sequence(batch: &mut Batch, record: &SequenceRecord, named: &NamedSequence) {
    ChangeWriter::new(batch.buf()).sequence(&Sequence {
        relid: named.relid,
        last_value: record.last_value,
        is_called: record.is_called,
        schema: named.schema.clone(),
        name: named.name.clone(),
    });
}

impl Sink for Output {
    fn begin(&mut self, _transaction: &Transaction) {
        failpoint::hit(step::BEGUN);
        self.begun = false;
    }

    fn change(&mut self, transaction: &Transaction, relation: &RelationRef<'_>, change: RowChange<'_>) {
        failpoint::hit(step::CHANGED);
        if self.schemas.is_stale(transaction.at) {
            self.bring_schema(transaction);
        }
        let entry = loop {
            match self.cache.get(relation) {
                Lookup::Followed(entry) => break entry,
                Lookup::Ignored => return,
                Lookup::Unexpected => self.bring_schema(transaction),
            }
        };
        if entry.seen_by.as_ref().is_some_and(|seen_by| seen_by.saw(transaction.xid)) {
            return;
        }
        if !entry.has_identity && !matches!(change, RowChange::Insert(_)) {
            if !self.inserts_only {
                let relid = entry.description.relid;
                let name = format!("{}.{}", entry.description.schema, entry.description.name);
                self.lose_identity(transaction, relid, &name);
            }
            return;
        }
        if !entry.announced {
            if entry.has_identity {
                self.schemas.unidentified.remove(&entry.description.relid);
            }
            ChangeWriter::new(self.batch.buf()).relation(&entry.description);
            entry.announced = true;
        }
        begin_if_new(&mut self.begun, &mut self.batch, transaction);
        // Empty, and not allocated, but for rows with large values.
        let mut large = Vec::new();
        if !write_row(self.batch.buf(), relation, entry, change, &mut large) {
            return;
        }
        self.batch.count_row();
        if large.is_empty() {
            self.flush_if_full();
        } else {
            self.flush_with(&large);
        }
    }

    fn truncate(
        &mut self,
        transaction: &Transaction,
        relations: &[RelationRef<'_>],
        cascade: bool,
        restart: bool,
    ) {
        failpoint::hit(step::TRUNCATED);
        if self.schemas.is_stale(transaction.at) {
            self.bring_schema(transaction);
        }
        let mut followed = Vec::with_capacity(relations.len());
        for relation in relations {
            if matches!(self.cache.get(relation), Lookup::Unexpected) {
                self.bring_schema(transaction);
            }
            let Lookup::Followed(entry) = self.cache.get(relation) else { continue };
            if entry.seen_by.as_ref().is_some_and(|seen_by| seen_by.saw(transaction.xid)) {
                continue;
            }
            followed.push(entry.description.relid);
            // It may be the first that the stream says of the relation.
            if !entry.announced {
                ChangeWriter::new(self.batch.buf()).relation(&entry.description);
                entry.announced = true;
            }
        }
        if followed.is_empty() {
            return;
        }
        begin_if_new(&mut self.begun, &mut self.batch, transaction);
        let flags = if cascade { TRUNCATE_CASCADE } else { 0 } | if restart { TRUNCATE_RESTART } else { 0 };
        ChangeWriter::new(self.batch.buf()).truncate(flags, &followed);
        self.batch.count_row();
        self.flush_if_full();
    }

    fn message(&mut self, _transaction: &Transaction, content: &[u8]) {
        failpoint::hit(step::TOLD);
        if let Some(note) = Note::read(content) {
            self.schemas.dirty = true;
            match note {
                Note::Rewrite(relid) => {
                    self.schemas.asked.rewritten.insert(relid);
                }
                Note::Refreshed(relid) => self.schemas.asked.refreshed.push(relid),
                Note::TypeChanged => self.schemas.lull.forbid(),
                Note::Changed => {}
            }
            return;
        }
        let Some(order) = self.order(content) else { return };
        self.schemas.dirty = true;
        for relid in order.drop {
            self.schemas.asked.wanted.remove(&relid);
            self.cache.followed().exclude(relid);
        }
        for relid in order.take_back {
            self.cache.followed().include(relid);
        }
        if let Some(patterns) = order.left_alone {
            self.schemas.reader.leave_alone(&patterns);
        }
        for relid in order.hold {
            self.cache.followed().include(relid);
            self.schemas.asked.wanted.insert(relid);
        }
    }

    fn commit(&mut self, transaction: &Transaction) {
        failpoint::hit(step::DECODED);
        if self.schemas.waits() {
            if self.may_wait(transaction) {
                (self.schemas.dirty, self.schemas.behind) = (false, false);
                self.schemas.lull.wait(historic::current_transaction(), transaction.commit_lsn);
                return;
            }
            self.bring_schema(transaction);
        }
        for (record, named) in self.held_sequences.take_visible() {
            write_sequence(&mut self.batch, &record, &named);
        }
        if !std::mem::take(&mut self.begun) {
            return;
        }
        ChangeWriter::new(self.batch.buf())
            .commit(Commit { commit_lsn: transaction.commit_lsn, end_lsn: transaction.end_lsn });
        self.lately = self.lately.saturating_add(1);
        self.note_end(transaction);
        self.flush_if_full();
    }

    fn stream(&mut self, event: StreamEvent<'_>) {
        failpoint::hit(step::PIECE);
        self.take_piece(event);
    }

    fn sequence(&mut self, record: &SequenceRecord) {
        // What was safe when the connection began must not come again by
        // itself: it may be older than what stands there.
        // One whose name may be news to the shadow waits for that.
        let is_plain = record.end > self.start && !self.schemas.lull.waits();
        let named = is_plain.then(|| self.sequences.name_of(record.storage)).flatten();
        let Some(named) = named else {
            self.held_sequences.hold(*record);
            return;
        };
        write_sequence(&mut self.batch, record, named);
        self.held_sequences.forget(record.storage);
        self.flush_if_full();
    }

    fn wait_for_wal(&mut self, end: Lsn) -> bool {
        failpoint::hit(step::WAL_AWAITED);
        self.link.live().decoded_lsn.store(end.0, Relaxed);
        self.drop_orphans(end);
        if !self.batch.is_empty() {
            self.flush();
            if let Some(pause) = self.linger.after(Instant::now(), std::mem::take(&mut self.lately)) {
                // Shorter than anybody waits for a shutdown; who commits meanwhile need not wake us.
                std::thread::sleep(pause);
            }
        }
        if self.wants_keepalive(end) {
            self.keepalive(end);
        }
        self.link.watch();
        self.note_marks();
        if self.may_begin_pieces() {
            return false;
        }
        let flushed = wal::flush_position();
        let moved = std::mem::replace(&mut self.flushed_wal, flushed) != flushed;
        worker::fall_asleep(self.link.live());
        // A commit may have gone by before the flag was up.
        if moved || wal::flush_position() != flushed {
            worker::wake_up(self.link.live());
            latch::serve_interrupts();
            self.empty_wakes = 0;
            return true;
        }
        let soon = self.empty_wakes > 0 && self.empty_wakes < EMPTY_WAKES_MAX;
        let mut tick = if soon { UNFLUSHED_TICK } else { IDLE_TICK };
        match self.schemas.lull.due() {
            Some(Duration::ZERO) => {
                worker::wake_up(self.link.live());
                self.end_lull();
                return true;
            }
            Some(due) => tick = tick.min(due),
            None => {}
        }
        let latched = self.link.wait(tick);
        worker::wake_up(self.link.live());
        self.empty_wakes = match (latched, soon) {
            (true, _) => 1,
            (false, true) => self.empty_wakes + 1,
            (false, false) => 0,
        };
        true
    }
}

/// A lock that is in the way of reading a schema is tried again after this.
const LOCK_TICK: Duration = Duration::from_millis(200);
/// A sleeping worker looks around this often: what is not a commit wakes nobody.
const IDLE_TICK: Duration = Duration::from_millis(500);
/// After a commit whose WAL is not flushed (`synchronous_commit = off`) it looks this often …
const UNFLUSHED_TICK: Duration = Duration::from_millis(2);
/// … and this many times: longer than the WAL writer's delay, three times 200 ms.
const EMPTY_WAKES_MAX: u32 = 350;
/// An idle stream moves its position this often, so that no WAL is kept.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
