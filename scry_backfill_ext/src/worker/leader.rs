//! The snapshot leader: one a round of a job's copy.
//!
//! ```text
//! import or take the snapshot ─► catalog ─► shadow's tables ─► plan ─► workers copy ─► finish
//!                                                              │ the stream worker may go on from here
//! ```
//!
//! It holds the snapshot while chunks are read, and not a moment longer: the
//! transaction ends before indexes are built on the shadow. A worker that ends
//! is replaced and takes over the chunk that was in its hands.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use pgrx::datum::{FromDatum, IntoDatum};
use pgrx::spi::{Spi, SpiError};
use scry_wire::frame::Tag;
use scry_wire::message::{
    CatalogApplied, CopiedTable, CopyFinish, CopyFinished, CopyProgress, LateCopy, LeftOutText, Message, Role,
};

use super::job::{self, Job};
use super::late;
use super::registration::{self, Started};
use super::session::{self, Identity, Round, Session};
use super::shmem::{CopyPhase, Desired, JobRef, Level, State};
use crate::api::options::OnError;
use crate::api::refusal::or_raise;
use crate::batch::Batch;
use crate::catalog::{self, Extent};
use crate::failpoint::{self, step};
use crate::handoff::{Handoff, Lost, bad_frame};
use crate::pg::dsm::{Plan, TablePlan};
use crate::pg::snapshot::{ReadTransaction, transaction};
use crate::pg::{latch, server, worker};
use crate::snapshot::plan;
use crate::{guc, pg::shared::SNAPSHOT_WORKERS_MAX};

/// The process's main function.
pub fn main(argument: usize) {
    worker::begin_signals();
    let is_late = argument & LATE != 0;
    let Some(job) = JobRef::from_index(argument & !LATE) else { return };
    let live = job.live();
    worker::announce_until_exit(&live.leader, None);
    worker::connect(live.database.load(Relaxed));
    worker::run(
        || if is_late { late::run(job) } else { run(job) },
        |failure| {
            if !is_late {
                job.set_copy_phase(CopyPhase::Failed);
            }
            job.say(&failure.message, &failure.detail, &failure.hint);
            job.event(Level::Error, &failure.message, &failure.hint);
            latch::wake(&live.stream);
        },
    );
}

/// The argument of the leader of a late copy.
pub fn late_argument(job: JobRef) -> usize {
    job.index() | LATE
}

fn run(job: JobRef) {
    let name = job.name();
    let row = transaction(|| job::load(&name));
    let round = Round { job, copy_id: row.copy_id, late: false };
    let identity = Identity::new(&row, Role::Lead, &server::database_name());
    let sequences = transaction(catalog::sequence_values);
    let snapshot = take_snapshot(round);
    failpoint::hit(step::SNAPSHOT_EXPORTED);
    let tables: Vec<u32> =
        job::tables(&name).iter().filter(|t| t.state != "excluded").map(|t| t.relid).collect();
    let alone = or_raise(row.scope.alone(&tables));
    let extent = Extent::of_job(row.scope.whole_database, &tables, &alone);
    let document = Document {
        copy_id: row.copy_id,
        snapshot: &snapshot.seen,
        on_error: row.scope.options.on_error,
        catalog: catalog::document(extent, &sequences),
    };
    report_not_sent(job, &document.catalog);
    let document = serde_json::to_vec(&document)
        .unwrap_or_else(|err| pgrx::error!("could not write the catalog document: {err}"));
    let mut lead = Lead::new(round, identity, Opening::Catalog(document));
    let applied = lead.begin();
    report_left_out(job, &applied.left_out);

    let (chunk_blocks, planned) =
        plan::make(&catalog::with_storage(&tables), &applied, guc::snapshot_workers());
    let Some(plan) = Plan::create(row.copy_id, chunk_blocks, &planned) else {
        pgrx::error!("could not allocate dynamic shared memory for the copy's plan")
    };
    publish(job, &plan, &snapshot.name, &snapshot.seen);
    job.set_copy_phase(CopyPhase::Planned);
    latch::wake(&job.live().stream);
    wait_until_noted(round);
    copy_all(round, &plan, &mut lead);
    failpoint::hit(step::COPY_DONE);
    snapshot.transaction.end();
    job.set_copy_phase(CopyPhase::Copied);

    job.set_state(State::Finishing);
    let copied = copied(&plan, &planned, &applied);
    let finished = lead.finish(&copied);
    report_left_out(job, &finished.left_out);
    note_finished(job, &row, &copied, plan::found(&plan));
}

/// What has been copied, as the plan counted it.
pub fn copied(plan: &Plan, planned: &[TablePlan], applied: &CatalogApplied) -> Vec<CopiedTable> {
    let tables = plan.tables().iter().zip(planned);
    tables
        .map(|(table, planned)| CopiedTable {
            relid: table.relid,
            chunks: if table.chunks == 0 { plan::kept_chunks(applied, planned.relid) } else { table.chunks },
            rows: table.rows.load(Relaxed),
        })
        .collect()
}

/// What the leader sends: the catalog, under which snapshot it was read, and
/// what the job wants done with refused changes.
#[derive(serde::Serialize)]
struct Document<'a> {
    copy_id: u64,
    /// What the snapshot saw; empty if it is the slot's own.
    snapshot: &'a str,
    on_error: OnError,
    #[serde(flatten)]
    catalog: scry_wire::catalog::Catalog,
}

/// A transaction that holds the copy's snapshot, and its exported name.
struct Snapshot {
    transaction: ReadTransaction,
    name: String,
    /// What it saw, when it is not the slot's own.
    seen: String,
}

fn take_snapshot(round: Round) -> Snapshot {
    let import = round.job.texts().snapshot;
    let (transaction, seen) = if import.as_str().is_empty() {
        wait_for_running(round);
        let transaction = ReadTransaction::begin();
        let seen = current_snapshot();
        (transaction, seen)
    } else {
        (ReadTransaction::import(import.as_str()), String::new())
    };
    let name = transaction.export();
    Snapshot { transaction, name, seen }
}

/// A snapshot of the copy's own must see every transaction whose commit the
/// slot has left behind. One that is in the WAL already can still be running
/// in the eyes of a snapshot; so all that run now must have ended before
/// (delivery contract, rule 6).
pub fn wait_for_running(round: Round) {
    let job = round.job;
    let bound = transaction(|| snapshot_part("pg_catalog.pg_snapshot_xmax"));
    let mut said = false;
    while transaction(|| snapshot_part("pg_catalog.pg_snapshot_xmin")) < bound {
        if !said {
            said = true;
            job.say("waiting for running transactions to end, to take the copy's snapshot", "", "");
        }
        latch::wait(RUNNING_TICK);
        round.leave_if_over();
    }
    if said {
        job.say("", "", "");
    }
}

/// As `Spi::get_one`, which would assign a transaction ID: the creation of any
/// other slot would wait for this transaction's end.
fn read_one<T: FromDatum + IntoDatum>(sql: &str) -> Result<Option<T>, SpiError> {
    Spi::connect(|client| client.select(sql, Some(1), &[])?.first().get_one())
}

/// As the server names it; its number where it is gone.
fn table_name(relid: u32) -> String {
    let sql = format!("SELECT {relid}::pg_catalog.oid::pg_catalog.regclass::pg_catalog.text");
    read_one::<String>(&sql).ok().flatten().unwrap_or_else(|| relid.to_string())
}

fn snapshot_part(function: &str) -> i64 {
    let sql =
        format!("SELECT {function}(pg_catalog.pg_current_snapshot())::pg_catalog.text::pg_catalog.int8");
    match read_one::<i64>(&sql) {
        Ok(part) => part.unwrap_or_default(),
        Err(err) => pgrx::error!("could not read the current snapshot: {err}"),
    }
}

/// What the current transaction's snapshot sees.
pub fn current_snapshot() -> String {
    match read_one::<String>("SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text") {
        Ok(text) => text.unwrap_or_default(),
        Err(err) => pgrx::error!("could not read the current snapshot: {err}"),
    }
}

/// From here on the slot's exported snapshot is no longer needed.
pub fn publish(job: JobRef, plan: &Plan, snapshot: &str, saw: &str) {
    job.write_texts(|texts| {
        texts.snapshot.set(snapshot);
        texts.snapshot_seen.set(saw);
    });
    let seen = job.texts().snapshot_seen;
    if seen.as_str() != saw {
        pgrx::error!("too many transactions run at this moment to note them all; the copy is tried again");
    }
    let live = job.live();
    live.copy_rows.store(0, Relaxed);
    live.copy_bytes.store(0, Relaxed);
    live.plan_handle.store(plan.handle(), Release);
}

/// A table that is whole stays whole in the next round: by then the job must
/// know which snapshot saw its changes, or they would come again.
fn wait_until_noted(round: Round) {
    while round.job.copy_phase() < CopyPhase::Noted {
        latch::wait(NOTED_TICK);
        round.leave_if_over();
    }
}

/// Starts the snapshot workers and waits until every chunk has its receipt.
pub fn copy_all(round: Round, plan: &Plan, lead: &mut Lead) {
    let job = round.job;
    let mut workers: [Option<Started>; SNAPSHOT_WORKERS_MAX] = Default::default();
    let mut retry_at = Instant::now();
    while !plan::is_complete(plan) {
        let rewritten = plan.head().rewritten.load(Acquire);
        if rewritten != 0 {
            // No reason to wait longer each time: the next round has less to do.
            job.live().failures.store(0, Relaxed);
            pgrx::error!(
                "table {} was changed while it was being copied; the copy goes on under a new snapshot",
                table_name(rewritten)
            );
        }
        let wanted = guc::snapshot_workers().clamp(1, SNAPSHOT_WORKERS_MAX);
        if Instant::now() >= retry_at && start_workers(job, plan, &mut workers, wanted) {
            retry_at = Instant::now() + WORKER_RESTART;
        }
        lead.wait(WORKERS_TICK);
        round.leave_if_over();
    }
}

/// Fills the places of workers that are missing. Says whether any was started
/// or could not be: then a moment passes before the next look.
fn start_workers(job: JobRef, plan: &Plan, workers: &mut [Option<Started>], wanted: usize) -> bool {
    let mut tried = false;
    for (number, place) in workers.iter_mut().enumerate() {
        if place.as_ref().is_some_and(Started::is_gone) {
            *place = None;
        }
        let left_behind = plan.head().claims.get(number).is_some_and(|claim| claim.load(Acquire) != 0);
        let needed = left_behind || (number < wanted && plan::has_unclaimed(plan));
        if place.is_none() && needed && job.desired() == Desired::Run {
            *place = registration::start_copier(job, number);
            tried = true;
            if place.is_none() && number == 0 {
                let hint = "Raise max_worker_processes, or lower scry_backfill.snapshot_workers.";
                job.say("could not start a snapshot worker: no background worker slot is free", "", hint);
            }
        }
    }
    tried
}

fn note_finished(job: JobRef, row: &Job, copied: &[CopiedTable], (found, mended): (usize, usize)) {
    let state = if row.mode == "snapshot" { "finished" } else { "streaming" };
    transaction(|| job::finish_copy(&row.name, state, copied));
    let rows: u64 = copied.iter().map(|t| t.rows).sum();
    let message = match found {
        0 => format!("copied {} tables, {rows} rows", copied.len()),
        found => format!(
            "copied {} tables; {found} were on the shadow already, compared row by row and {mended} of them mended",
            copied.len().saturating_sub(found)
        ),
    };
    job.event(Level::Info, &message, "");
    job.say("", "", "");
    job.live().failures.store(0, Relaxed);
    job.set_copy_phase(CopyPhase::Finished);
    latch::wake(&job.live().stream);
}

/// Says what the catalog does not bring, once a job.
fn report_not_sent(job: JobRef, catalog: &scry_wire::catalog::Catalog) {
    if job.live().copy_id.load(Relaxed) > 1 {
        return;
    }
    for item in &catalog.left_out {
        job.event(Level::Warning, &format!("{} is left out: {}", item.object, item.reason), "");
    }
}

fn report_left_out(job: JobRef, left_out: &[LeftOutText]) {
    for item in left_out {
        job.event(Level::Warning, &format!("{} is left out on the shadow: {}", item.object, item.reason), "");
    }
}

/// How the leader's conversation begins.
pub enum Opening {
    /// The catalog document of a whole copy.
    Catalog(Vec<u8>),
    /// Single tables, while the stream goes on.
    Late(LateCopy),
}

/// The leader's conversation with the platform, which may have to be begun
/// anew at any time: saying the same again does no harm.
pub struct Lead {
    round: Round,
    identity: Identity,
    opening: Opening,
    session: Option<Session>,
    /// Ends of the connection in short order.
    losses: u32,
    last_loss: Instant,
}

impl Lead {
    /// A conversation that has not begun.
    pub fn new(round: Round, identity: Identity, opening: Opening) -> Lead {
        Lead { round, identity, opening, session: None, losses: 0, last_loss: Instant::now() }
    }

    /// Begins until the shadow is ready for chunks.
    pub fn begin(&mut self) -> CatalogApplied {
        loop {
            match self.try_begin() {
                Ok(applied) => return applied,
                Err(lost) => self.lost(&lost),
            }
        }
    }

    fn try_begin(&mut self) -> Result<CatalogApplied, Lost> {
        let round = self.round;
        let mut batch = Batch::new(Tag::Catalog);
        match &self.opening {
            Opening::Catalog(document) => batch.buf().extend_from_slice(document),
            Opening::Late(late) => {
                let frame = late.to_frame();
                self.connect().send(&frame, |_| Ok(()))?;
                return self.answer::<CatalogApplied>();
            }
        }
        let handoff = self.connect();
        let mut sent = Ok(());
        batch.drain(false, |frame| {
            if sent.is_ok() {
                sent = handoff.send(frame, |_| {
                    round.leave_if_over();
                    Ok(())
                });
            }
        });
        sent?;
        self.answer::<CatalogApplied>()
    }

    /// Has the shadow completed. When the connection has to be begun anew the
    /// opening goes first: the platform recognises it, and its receipt tells
    /// whether the shadow has lost what it had.
    pub fn finish(&mut self, tables: &[CopiedTable]) -> CopyFinished {
        loop {
            match self.try_finish(tables) {
                Ok(finished) => return finished,
                Err(lost) => self.lost(&lost),
            }
        }
    }

    fn try_finish(&mut self, tables: &[CopiedTable]) -> Result<CopyFinished, Lost> {
        if self.session.is_none() {
            let applied = self.try_begin()?;
            self.require_kept(tables, &applied);
        }
        let frame = CopyFinish { tables: tables.to_vec() }.to_frame();
        self.connect().send(&frame, |_| Ok(()))?;
        self.answer::<CopyFinished>()
    }

    /// Receipts of a first copy do not wait for the shadow's disk: a crash there takes chunks back.
    /// Their snapshot is gone, so that the tables are copied under the next.
    fn require_kept(&self, tables: &[CopiedTable], applied: &CatalogApplied) {
        let lost = plan::lost(tables, applied);
        let Some(first) = lost.first() else { return };
        let name = transaction(|| table_name(first.relid));
        // No reason to wait longer each time: the next round has less to do.
        self.round.job.live().failures.store(0, Relaxed);
        pgrx::error!(
            "the shadow has lost rows of {} tables, of {name} among them; the copy goes on under a new snapshot",
            lost.len()
        );
    }

    /// Waits for the answer that is due.
    fn answer<M: Message>(&mut self) -> Result<M, Lost> {
        let (round, job) = (self.round, self.round.job);
        let handoff = self.connect();
        loop {
            while let Some(frame) = handoff.next_frame() {
                if frame.tag() == M::TAG {
                    return M::from_frame(&frame).map_err(|e| bad_frame(&e));
                }
                if frame.tag() == Tag::CopyProgress {
                    let progress = CopyProgress::from_frame(&frame).map_err(|e| bad_frame(&e))?;
                    job.live().finish_done.store(progress.done, Relaxed);
                    job.live().finish_total.store(progress.total, Relaxed);
                    job.write_texts(|texts| texts.finish_step.set(&progress.current));
                    continue;
                }
                session::other_frame(job, &frame)?;
            }
            handoff.wait(ANSWER_TICK)?;
            round.leave_if_over();
        }
    }

    /// Waits while others work; a lost connection is begun anew when it is needed.
    fn wait(&mut self, timeout: Duration) {
        let Some(session) = &mut self.session else {
            latch::wait(timeout);
            return;
        };
        let result = session.handoff.wait(timeout).and_then(|_| match session.handoff.next_frame() {
            Some(frame) => session::other_frame(self.round.job, &frame),
            None => Ok(()),
        });
        let Err(lost) = result else { return };
        self.session = None;
        if self.round.late {
            // The platform may have told that the tables must be copied anew.
            self.lost(&lost);
            self.begin();
        }
    }

    fn connect(&mut self) -> &mut Handoff {
        let (round, job, identity) = (self.round, self.round.job, &self.identity);
        &mut self.session.get_or_insert_with(|| session::open(job, identity, round.late)).handoff
    }

    fn lost(&mut self, lost: &Lost) {
        self.session = None;
        self.round.job.say(&lost.message, "", &lost.hint);
        self.losses = if self.last_loss.elapsed() > LOSSES_APART { 1 } else { self.losses + 1 };
        self.last_loss = Instant::now();
        if self.round.late && self.losses > LOSSES_MAX {
            // A connection is rarely lost so often: the platform refuses this round.
            pgrx::error!("the late copy is begun anew: {}", lost.message);
        }
        latch::wait(LOST_PAUSE);
        self.round.leave_if_over();
    }
}

/// Marks the leader of a late copy in its argument.
const LATE: usize = 1 << 16;
const LOSSES_MAX: u32 = 3;
const LOSSES_APART: Duration = Duration::from_secs(30);
const NOTED_TICK: Duration = Duration::from_millis(500);
const RUNNING_TICK: Duration = Duration::from_millis(50);
const WORKERS_TICK: Duration = Duration::from_millis(500);
const WORKER_RESTART: Duration = Duration::from_secs(1);
const ANSWER_TICK: Duration = Duration::from_secs(1);
const LOST_PAUSE: Duration = Duration::from_millis(200);
