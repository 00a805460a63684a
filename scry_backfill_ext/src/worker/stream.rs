//! The stream worker: one a job. It owns the slot, decodes, hands on, confirms.
//!
//! ```text
//! load job ─► connect ─► decide ─┬─► follow ───────────────────────────► decode
//!                                ├─► create slot, leader copies ──► decode
//!                                ├─► leader copies the rest ──────► decode
//!                                └─► start over: new generation, then as above
//! ```
//!
//! Decoding begins as soon as the leader's plan stands; the platform takes the
//! changes once the copy is complete. Every failure ends the process; the
//! launcher starts it again and it finds its way by the tables, the slot and
//! the shadow's answer (delivery contract, rules 1 to 5).

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use scry_wire::Lsn;
use scry_wire::message::Role;

use super::job::{self, Job};
use super::late::Tender;
use super::registration::{self, Started};
use super::session::{self, Identity, Session};
use super::shmem::{CopyPhase, Desired, JobRef, Level, State};
use super::state::{self, History, Next};
use crate::api::refusal::{Refusal, or_raise};
use crate::api::version;
use crate::confirm::Progress;
use crate::decode::output::{Output, Schemas};
use crate::decode::relation_cache::{Followed, RelationCache};
use crate::decode::schema;
use crate::failpoint::{self, step};
use crate::pg::callbacks::{RowChange, Sink, StreamEvent, Transaction};
use crate::pg::decoding::{self, Decoder, Step};
use crate::pg::dsm::Plan;
use crate::pg::relation::RelationRef;
use crate::pg::sequence::SequenceRecord;
use crate::pg::snapshot::transaction;
use crate::pg::{latch, server, wal, worker};

/// The process's main function.
pub fn main(argument: usize) {
    worker::begin_signals();
    let Some(job) = JobRef::from_index(argument) else { return };
    let live = job.live();
    worker::announce_until_exit(&live.stream, Some(live));
    live.started_at.store(latch::now(), Relaxed);
    for counter in [&live.stream_rows, &live.stream_bytes, &live.stream_transactions, &live.blocked_us] {
        counter.store(0, Relaxed);
    }
    job.set_state(State::Starting);
    worker::connect(live.database.load(Relaxed));
    worker::run(
        || run(job),
        |failure| {
            job.set_state(State::Retrying);
            job.say(&failure.message, &failure.detail, &failure.hint);
            job.event(Level::Error, &failure.message, &failure.hint);
        },
    );
}

fn run(job: JobRef) {
    let name = job.name();
    let database = server::database_name();
    loop {
        let row = transaction(|| {
            or_raise(version::same());
            job::load(&name)
        });
        job.live().generation.store(row.generation, Relaxed);
        job.set_state(State::Connecting);
        let session = session::open(job, &Identity::new(&row, Role::Stream, &database), true);
        let slot = decoding::slot_info(&row.slot_name);
        let shadows = session.welcome.timeline;
        let history = transaction(|| History {
            timeline: wal::timeline(),
            end: wal::end(),
            left: wal::left_timeline(shadows),
        });
        match state::next(&row.facts(), slot, &session.welcome, history) {
            Next::Finished => {
                job.set_state(State::Finished);
                worker::exit(0);
            }
            Next::Follow => follow(job, &row, session),
            Next::Copy { slot_exists } => copy(job, &row, session, slot_exists),
            Next::StartOver(why) => start_over(job, &row, slot.is_some(), &why),
            Next::Refuse(why) => refuse(&why),
        }
    }
}

/// An old primary beside the new one: the shadow is not taken from that.
fn refuse(why: &str) -> ! {
    Refusal::not_ready(why)
        .detail("Another server, which was promoted after this one, feeds the shadow.")
        .hint("Stop the job here. To shadow this server too, start a job under another name.")
        .raise()
}

/// The history is lost, on one side or the other: another generation begins.
fn start_over(job: JobRef, row: &Job, slot_exists: bool, why: &str) {
    job.event(Level::Warning, why, "The tables are compared, and copied again where they differ.");
    pgrx::log!("scry_backfill: job \"{}\" starts over: {why}", row.name);
    if slot_exists {
        decoding::drop_slot(&row.slot_name);
    }
    transaction(|| job::start_over(&row.name, server::random_positive() as u64, why));
}

/// The shadow has all tables: go on from its position.
fn follow(job: JobRef, row: &Job, session: Session) {
    if row.state != "streaming" {
        // The leader ended between the shadow's completion and its own note of it.
        transaction(|| job::set_state(&row.name, "streaming"));
    }
    let followed = followed(job, &row.name);
    job.set_copy_phase(CopyPhase::Finished);
    job.set_state(State::Streaming);
    job.event(
        Level::Info,
        &format!("following {} tables from {}", followed.len(), session.welcome.flushed_lsn),
        "",
    );
    decode(job, row, session, followed, Box::new(|job| session::leave_if_unwanted(job, true)));
}

/// The shadow lacks tables: have them copied, and decode meanwhile.
fn copy(job: JobRef, row: &Job, session: Session, slot_exists: bool) {
    let snapshot_only = row.mode == "snapshot";
    let copy_id = row.copy_id + 1;
    transaction(|| job::begin_round(&row.name, copy_id));
    job.live().copy_id.store(copy_id, Release);
    wait_for_last_round(job);
    let exported = (!slot_exists && !snapshot_only).then(|| {
        job.set_state(State::CreatingSlot);
        job.say("waiting for running transactions to end, to create the replication slot", "", "");
        let exported = decoding::create_slot(&row.slot_name, &mut Patience { job });
        failpoint::hit(step::SLOT_CREATED);
        exported
    });
    job.say("", "", "");
    job.set_state(State::Copying);
    job.write_texts(|texts| {
        texts.snapshot.set(exported.as_ref().map_or("", |e| e.name()));
        texts.snapshot_seen.set("");
    });
    job.set_copy_phase(CopyPhase::Requested);
    let Some(leader) = registration::start_leader(job) else {
        pgrx::error!(
            "could not start the snapshot leader: no background worker slot is free; raise max_worker_processes"
        )
    };
    while job.copy_phase() < CopyPhase::Planned {
        latch::wait(PLAN_TICK);
        session::leave_if_unwanted(job, false);
        fail_without_leader(job, &leader);
    }
    if let Some(exported) = exported {
        exported.clear();
    }
    // A worker that ended before it could note this has left it to the next one: nothing has been
    // confirmed to the slot since.
    if !snapshot_only && (!slot_exists || !row.start_lsn.is_valid()) {
        let start = decoding::slot_info(&row.slot_name).map_or(Lsn::INVALID, |slot| slot.confirmed_flush_lsn);
        transaction(|| job::set_start_lsn(&row.name, start));
    }
    note_snapshots(job, &row.name);
    job.set_copy_phase(CopyPhase::Noted);
    latch::wake(&job.live().leader);
    let mut watch = CopyWatch { leader, finished: false };
    if snapshot_only {
        drop(session);
        while job.copy_phase() != CopyPhase::Finished {
            latch::wait(PLAN_TICK);
            session::leave_if_unwanted(job, false);
            fail_without_leader(job, &watch.leader);
        }
        job.set_state(State::Finished);
        worker::exit(0);
    }
    let followed = followed(job, &row.name);
    decode(job, row, session, followed, Box::new(move |job| watch.look(job)));
}

/// Leader and workers of an earlier round see that another one has begun, and
/// end; only then may the next leader take their places.
fn wait_for_last_round(job: JobRef) {
    let live = job.live();
    let places = || std::iter::once(&live.leader).chain(&live.snapshot_workers);
    while places().any(|place| place.pid.load(Acquire) != 0) {
        places().for_each(latch::wake);
        latch::wait(LAST_ROUND_TICK);
        session::leave_if_unwanted(job, false);
    }
}

/// Writes down which snapshot the tables of this round are copied under, before
/// the first change of them is decoded.
fn note_snapshots(job: JobRef, name: &str) {
    let seen = job.texts().snapshot_seen;
    let Some(plan) = Plan::attach(job.live().plan_handle.load(Acquire)) else {
        pgrx::error!("the snapshot leader ended before its plan could be read")
    };
    let relids: Vec<u32> = plan.tables().iter().filter(|t| t.chunks > 0).map(|t| t.relid).collect();
    let seen_by = Some(seen.as_str()).filter(|text| !text.is_empty());
    transaction(|| {
        job::set_seen_by(name, &relids, seen_by);
        job::set_catalog_seen_by(name, seen_by);
    });
}

/// What the job follows. Tables on hold wait for a late copy: that is said too.
fn followed(job: JobRef, name: &str) -> Followed {
    let mut followed = Followed::default();
    let mut any_held = false;
    for table in transaction(|| job::tables(name)) {
        if table.state == "excluded" {
            followed.exclude(table.relid);
            continue;
        }
        any_held |= table.state == "held";
        let seen_by = match table.seen_by.as_deref().map(str::parse).transpose() {
            Ok(seen_by) => seen_by,
            Err(err) => pgrx::error!("could not read the snapshot of table {}: {err}", table.relid),
        };
        followed.add(table.relid, seen_by);
    }
    if any_held {
        job.live().late_wanted.fetch_add(1, AcqRel);
    }
    followed.set_parents(transaction(|| schema::parents(followed.relids().into_iter())));
    followed
}

/// Decodes until the user wants something else or the connection is lost;
/// both end the process.
fn decode(
    job: JobRef,
    row: &Job,
    session: Session,
    followed: Followed,
    mut watch: Box<dyn FnMut(JobRef)>,
) -> ! {
    let mut tender = Tender::new();
    let watch = Box::new(move |job: JobRef| {
        watch(job);
        tender.tend(job);
    });
    let (applied, safe) = (session.welcome.applied_lsn, session.welcome.flushed_lsn);
    let slot = decoding::slot_info(&row.slot_name).map_or(Lsn::INVALID, |slot| slot.confirmed_flush_lsn);
    let start = safe.max(slot);
    // A shadow that has just been copied stands where the slot began.
    let applied = if safe > applied { applied.max(row.start_lsn) } else { start };
    let mut output = Output::new(
        job,
        session.handoff,
        Progress::new(applied, start),
        RelationCache::new(followed),
        row.inserts_only,
        Schemas::new(row),
        watch,
    );
    output.begin_first();
    let mut start = safe;
    loop {
        let mut decoder = Decoder::open(&row.slot_name, start, output.takes_pieces());
        decode_with(&mut decoder, job, row, &mut output);
        drop(decoder);
        start = output.begin_with_pieces();
    }
}

/// Decodes until the output wants another decoder.
fn decode_with(decoder: &mut Decoder, job: JobRef, row: &Job, output: &mut Output) {
    let (mut records, mut looked) = (0u32, Instant::now());
    while let Step::Record(end) = decoder.step(output) {
        latch::serve_interrupts();
        if let Some(notes) = output.notes() {
            transaction(|| job::note_tables(&row.name, notes));
            if !notes.held.is_empty() {
                job.live().late_wanted.fetch_add(1, AcqRel);
            }
            output.noted();
        }
        output.note_marks();
        records = records.wrapping_add(1);
        if records.is_multiple_of(LOOK_RECORDS) && looked.elapsed() > LOOK_EVERY {
            looked = Instant::now();
            output.between_records(end);
        }
    }
}

/// Looks after the leader while the worker decodes.
struct CopyWatch {
    leader: Started,
    finished: bool,
}

impl CopyWatch {
    fn look(&mut self, job: JobRef) {
        session::leave_if_unwanted(job, self.finished);
        if self.finished {
            return;
        }
        // A pause holds the copy where it is, with its snapshot.
        match (job.desired(), job.state()) {
            (Desired::Pause, State::Copying) => job.set_state(State::Paused),
            (Desired::Run, State::Paused) => job.set_state(State::Copying),
            _ => {}
        }
        if job.copy_phase() == CopyPhase::Finished {
            self.finished = true;
            job.set_state(State::Streaming);
            job.event(Level::Info, "the copy is complete; the shadow follows", "");
            return;
        }
        fail_without_leader(job, &self.leader);
    }
}

/// Ends this process with the leader's error when the leader is gone: the next
/// round takes a new snapshot, and what was decoded so far is decoded again.
fn fail_without_leader(job: JobRef, leader: &Started) {
    let phase = job.copy_phase();
    if phase == CopyPhase::Finished || !(phase == CopyPhase::Failed || leader.is_gone()) {
        return;
    }
    if job.copy_phase() == CopyPhase::Finished {
        return;
    }
    pgrx::log!(
        "scry_backfill: job \"{}\": the copy is interrupted and will go on under a new snapshot",
        job.name()
    );
    job.set_state(State::Retrying);
    worker::exit(1);
}

/// Waits for WAL while a slot is being created.
struct Patience {
    job: JobRef,
}

impl Sink for Patience {
    fn begin(&mut self, _transaction: &Transaction) {}
    fn change(&mut self, _transaction: &Transaction, _relation: &RelationRef<'_>, _change: RowChange<'_>) {}
    fn truncate(
        &mut self,
        _transaction: &Transaction,
        _relations: &[RelationRef<'_>],
        _cascade: bool,
        _restart: bool,
    ) {
    }
    fn message(&mut self, _transaction: &Transaction, _content: &[u8]) {}
    fn commit(&mut self, _transaction: &Transaction) {}
    fn stream(&mut self, _event: StreamEvent<'_>) {}
    fn sequence(&mut self, _record: &SequenceRecord) {}

    fn wait_for_wal(&mut self, _end: Lsn) -> bool {
        session::leave_if_unwanted(self.job, true);
        latch::wait(SLOT_TICK);
        true
    }
}

/// While the slot is being created the WAL is looked at this often.
const SLOT_TICK: Duration = Duration::from_millis(10);
/// Workers of an earlier round are waited for in steps of this.
const LAST_ROUND_TICK: Duration = Duration::from_millis(100);
/// While the leader plans, its phase is looked at this often (it also wakes).
const PLAN_TICK: Duration = Duration::from_millis(500);
/// The clock is read once in so many records …
const LOOK_RECORDS: u32 = 256;
/// … and answers, position and wishes are looked at this often.
const LOOK_EVERY: Duration = Duration::from_millis(200);
