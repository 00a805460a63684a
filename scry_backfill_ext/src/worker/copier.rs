//! A snapshot worker: reads chunks of tables and sends them.
//!
//! It imports the leader's snapshot once and keeps it; a lost connection is
//! begun anew and the chunk in hand is sent again, which does no harm
//! (delivery contract, rule 5).
//!
//! A table of which the shadow has rows of a former history is compared first, and mended if
//! few rows differ; only if that does not make it the source's is it copied.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use scry_wire::frame::{Frame, Tag};
use scry_wire::message::{ChunkDone, ChunkEnd, ChunkStart, Hello, Message, Relation, Role};

use super::job;
use super::pace::{Limits, Pace};
use super::session::{self, Identity, Round, Session};
use super::shmem::{CopyPhase, JobRef, Level};
use crate::batch::Batch;
use crate::catalog;
use crate::failpoint::{self, step};
use crate::guc;
use crate::handoff::{Handoff, Lost, bad_frame};
use crate::pg::dsm::{Plan, PlanTable};
use crate::pg::scan::TableScan;
use crate::pg::snapshot::{ReadTransaction, transaction};
use crate::pg::{latch, server, worker};
use crate::snapshot::plan::{self, Claim};
use crate::verify::link::Link;
use crate::verify::run;

/// The argument of the worker with this number.
pub fn argument(job: JobRef, number: usize) -> usize {
    job.index() << 8 | number
}

/// The process's main function.
pub fn main(argument: usize) {
    worker::begin_signals();
    let (index, number) = (argument >> 8, argument & 0xFF);
    let Some(job) = JobRef::from_index(index) else { return };
    let live = job.live();
    let Some(place) = live.snapshot_workers.get(number) else { return };
    worker::announce_until_exit(place, None);
    worker::connect(live.database.load(Relaxed));
    worker::run(
        || run(job, number),
        |failure| {
            job.say(&failure.message, &failure.detail, &failure.hint);
            job.event(Level::Error, &failure.message, &failure.hint);
        },
    );
    latch::wake(&live.leader);
}

fn run(job: JobRef, number: usize) {
    let row = transaction(|| job::load(&job.name()));
    let limits = transaction(|| job::limits(&job.name()));
    let database = server::database_name();
    let identity = Identity::new(&row, Role::Copy, &database);
    let verifier = session::hello(&row.name, row.generation, Role::Verify, &database);
    let Some(plan) = Plan::attach(job.live().plan_handle.load(Acquire)) else { return };
    let snapshot = ReadTransaction::import(job.texts().snapshot.as_str());
    let late = job.copy_phase() == CopyPhase::Finished;
    let round = Round { job, copy_id: plan.head().copy_id, late };
    let pace = Pace::new(job, limits);
    let mut copier =
        Copier { round, identity, verifier, plan, session: None, batch: Batch::new(Tag::Rows), limits, pace };
    while let Some(claim) = plan::claim(&copier.plan, number) {
        copier.round.wait_while_paused();
        let rows = copier.copy(claim);
        plan::done(&copier.plan, number, claim, rows);
        job.live().copy_rows.fetch_add(rows, Relaxed);
        job.live().failures.store(0, Relaxed);
    }
    snapshot.end();
}

struct Copier {
    round: Round,
    identity: Identity,
    /// Of a connection that compares.
    verifier: Hello,
    plan: Plan,
    session: Option<Session>,
    batch: Batch,
    limits: Limits,
    pace: Pace,
}

impl Copier {
    /// Sends a chunk until it has its receipt. Returns its rows.
    fn copy(&mut self, claim: Claim) -> u64 {
        loop {
            let brought_up = self.try_bring_up(claim);
            match brought_up.and_then(|rows| rows.map_or_else(|| self.try_copy(claim), Ok)) {
                Ok(rows) => return rows,
                Err(lost) => {
                    self.session = None;
                    self.batch = Batch::new(Tag::Rows);
                    self.round.job.say(&lost.message, "", &lost.hint);
                    latch::wait(LOST_PAUSE);
                    self.round.leave_if_over();
                }
            }
        }
    }

    /// Compares a table of which the shadow has rows of a former history, and mends them. Returns
    /// its rows; `None` if the table is to be copied.
    fn try_bring_up(&mut self, claim: Claim) -> Result<Option<u64>, Lost> {
        let (round, plan) = (self.round, &self.plan);
        let Some(table) = plan.tables().get(claim.table) else { return Ok(None) };
        if !plan::is_to_be_compared(table) {
            return Ok(None);
        }
        let shape = open_table(plan, table, false).description().clone();
        let mut pace = Pace::new(round.job, self.limits);
        pace.begin();
        let watch = Box::new(move |rows, bytes| match rows {
            0 => round.leave_if_over(),
            _ => pace.after_batch(rows, bytes, Duration::ZERO, || round.leave_if_over()),
        });
        let copy_id = plan.head().copy_id;
        let found = Link::watched(&self.verifier, watch)
            .and_then(|mut link| run::bring_up(&mut link, copy_id, table.relid, table.filenode))
            .map_err(|refusal| Lost {
                message: format!(
                    "could not compare table {}.{}: {}",
                    shape.schema,
                    shape.name,
                    refusal.finding()
                ),
                hint: refusal.remedy().to_owned(),
            })?;
        drop(open_table(plan, table, false));
        plan::compared(table, found.map(|found| found.mended));
        Ok(found.map(|found| found.rows))
    }

    fn try_copy(&mut self, claim: Claim) -> Result<u64, Lost> {
        let (round, plan) = (self.round, &self.plan);
        let Some(table) = plan.tables().get(claim.table) else { return Ok(0) };
        let session =
            self.session.get_or_insert_with(|| session::open(round.job, &self.identity, round.late));
        let stored = session.welcome.takes_stored;
        let handoff = &mut session.handoff;
        let mut scan = open_table(plan, table, stored);
        let start = ChunkStart {
            copy_id: plan.head().copy_id,
            chunk: claim.chunk,
            chunks: table.chunks,
            relation: scan.description().clone(),
        };
        send(round, handoff, &start.to_frame())?;
        self.pace.begin();
        let (from, to) = plan::blocks(plan, table, claim.chunk);
        let (mut at, mut rows) = (from, 0);
        while at < to {
            if at > from {
                // The lock is given back now and then: DDL of the source waits for that at most.
                drop(scan);
                round.wait_while_paused();
                scan = open_table(plan, table, stored);
            }
            let upto = to.min(at.saturating_add(plan::CHUNK_BLOCKS_MAX));
            let mut way = Way { round, handoff: &mut *handoff, pace: &mut self.pace, table };
            rows += send_rows(&mut way, &mut self.batch, &mut scan, at, upto)?;
            at = upto;
        }
        drop(scan);
        failpoint::hit(step::CHUNK_READ);
        send(round, handoff, &ChunkEnd { rows }.to_frame())?;
        failpoint::hit(step::CHUNK_SENT);
        let done = receipt(round, handoff)?;
        if done.relid != table.relid || done.chunk != claim.chunk {
            return Err(Lost {
                message: "the platform sent the receipt of another chunk".to_owned(),
                hint: String::new(),
            });
        }
        Ok(done.rows)
    }
}

/// Opens a table for a chunk. A table that is another than the plan's cannot
/// be copied under this snapshot: its old rows are gone, or its columns are
/// others than those that the shadow was made with.
fn open_table(plan: &Plan, table: &PlanTable, stored: bool) -> TableScan {
    match TableScan::open(table.relid, stored) {
        Some(scan) if scan.filenode() == table.filenode && shape(scan.description()) == table.shape => scan,
        _ => {
            plan.head().rewritten.store(table.relid, Release);
            pgrx::error!("table with oid {} was changed or dropped while it was being copied", table.relid);
        }
    }
}

fn shape(relation: &Relation) -> u64 {
    let columns = relation.columns.iter().map(|column| (column.attnum, column.name.as_str()));
    catalog::shape(&relation.schema, &relation.name, columns)
}

/// What a batch goes through.
struct Way<'a> {
    round: Round,
    handoff: &'a mut Handoff,
    pace: &'a mut Pace,
    table: &'a PlanTable,
}

/// Reads the blocks and sends their rows.
fn send_rows(
    way: &mut Way<'_>,
    batch: &mut Batch,
    scan: &mut TableScan,
    from: u32,
    to: u32,
) -> Result<u64, Lost> {
    let mut result = Ok(());
    let rows = scan.read(from, to, batch, |batch| {
        batch.count_row();
        if batch.is_full() {
            result = std::mem::replace(&mut result, Ok(())).and_then(|()| flush(way, batch));
            if result.is_err() {
                return false;
            }
        }
        true
    });
    result?;
    flush(way, batch)?;
    Ok(rows)
}

fn flush(way: &mut Way<'_>, batch: &mut Batch) -> Result<(), Lost> {
    latch::serve_interrupts();
    batch.limit_rows(guc::batch_size());
    let round = way.round;
    let (rows, bytes) = (u64::from(batch.rows()), batch.len() as u64);
    let mut result = Ok(());
    batch.drain(false, |frame| {
        if result.is_ok() {
            result = send(round, way.handoff, frame);
        }
    });
    way.table.bytes.fetch_add(bytes, Relaxed);
    round.job.live().copy_bytes.fetch_add(bytes, Relaxed);
    if result.is_ok() {
        let blocked = way.handoff.take_blocked();
        way.pace.after_batch(rows, bytes, blocked, || round.leave_if_over());
    }
    result
}

fn send(round: Round, handoff: &mut Handoff, frame: &[u8]) -> Result<(), Lost> {
    handoff.send(frame, |frames| {
        round.leave_if_over();
        // A receipt cannot come before the chunk's end; what comes is bad news.
        match frames.iter().position(|f| f.tag() != Tag::ChunkDone).and_then(|i| frames.remove(i)) {
            Some(frame) => session::other_frame(round.job, &frame),
            None => Ok(()),
        }
    })
}

fn receipt(round: Round, handoff: &mut Handoff) -> Result<ChunkDone, Lost> {
    loop {
        while let Some(frame) = handoff.next_frame() {
            if let Some(done) = as_receipt(round.job, &frame)? {
                return Ok(done);
            }
        }
        handoff.wait(RECEIPT_TICK)?;
        round.leave_if_over();
    }
}

fn as_receipt(job: JobRef, frame: &Frame) -> Result<Option<ChunkDone>, Lost> {
    if frame.tag() == Tag::ChunkDone {
        return ChunkDone::from_frame(frame).map(Some).map_err(|e| bad_frame(&e));
    }
    session::other_frame(job, frame).map(|()| None)
}

const LOST_PAUSE: Duration = Duration::from_millis(200);
const RECEIPT_TICK: Duration = Duration::from_secs(1);
