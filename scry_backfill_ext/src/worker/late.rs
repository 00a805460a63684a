//! Late copies: tables on hold are copied while the stream goes on
//! (delivery contract, rule 6).
//!
//! ```text
//! decoder sends Schema with holds ─► noted in job_table ─► late_wanted + 1
//! stream worker: late_done < late_wanted? ─► late leader ─┐   (its failure never ends the stream)
//!   held tables ─► from_lsn ─► the shadow has confirmed it ─► transactions running now have ended
//!   ─► snapshot ─► until_lsn ─► LateCopy ─► plan, copiers ─► CopyFinish ─► 'copied', late_done
//! ```
//!
//! Invariants: the order above. The hold stands in the WAL before `from_lsn`,
//! and the shadow has it before the leader speaks of its tables, so that a
//! table which the platform does not know as held is whole. Everything that
//! was running at `from_lsn` has ended before the snapshot, so that what was
//! committed before the hold is in the copy. A table put on hold once more
//! while it is copied stays held.
//!
//! The leader holds its snapshot while chunks are read; the stream worker does
//! nothing but start it again, with back-off.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::time::{Duration, Instant};

use scry_wire::message::{CopiedTable, LateCopy, Role};
use scry_wire::{Lsn, limits};

use super::job::{self, Held};
use super::leader::{self, Lead, Opening};
use super::registration::{self, Started};
use super::session::{Identity, Round};
use super::shmem::{Desired, JobRef, Level, State};
use crate::pg::dsm::Plan;
use crate::pg::snapshot::{ReadTransaction, transaction};
use crate::pg::{latch, server, wal};
use crate::snapshot::plan;
use crate::{catalog, guc};

/// Looks after late copies from within the stream worker.
pub struct Tender {
    leader: Option<Started>,
    failures: u32,
    retry_at: Instant,
}

impl Tender {
    /// Nothing is under way.
    pub fn new() -> Tender {
        Tender { leader: None, failures: 0, retry_at: Instant::now() }
    }

    /// Starts a late copy when one is due. Reads and writes shared memory only.
    pub fn tend(&mut self, job: JobRef) {
        let live = job.live();
        let gone = self.leader.as_ref().is_some_and(Started::is_gone);
        if live.late_done.load(Acquire) >= live.late_wanted.load(Acquire) {
            if gone {
                *self = Tender::new();
            }
            return;
        }
        if job.state() != State::Streaming || job.desired() != Desired::Run {
            return;
        }
        if gone {
            self.leader = None;
            self.wait_longer();
        }
        // A leader of this stream's former life may still be at work.
        let is_led = self.leader.is_some() || live.leader.pid.load(Acquire) != 0;
        if is_led || Instant::now() < self.retry_at {
            return;
        }
        self.leader = registration::start_late_leader(job);
        if self.leader.is_none() {
            let hint = "Increase \"max_worker_processes\" and restart the server.";
            job.say("a table waits to be copied: no background worker slot is free", "", hint);
            self.wait_longer();
        }
    }

    fn wait_longer(&mut self) {
        let pause = RETRY_FIRST.saturating_mul(1 << self.failures.min(16)).min(RETRY_MAX);
        self.failures += 1;
        self.retry_at = Instant::now() + pause;
    }
}

/// The leader's round: copies the tables that are on hold now.
pub fn run(job: JobRef) {
    let (name, live) = (job.name(), job.live());
    // Before the tables are read: what is held later moves it again.
    let wanted = live.late_wanted.load(Acquire);
    let (row, held) = transaction(|| (job::load(&name), job::held(&name)));
    if held.is_empty() {
        live.late_done.fetch_max(wanted, AcqRel);
        return;
    }
    let identity = Identity::new(&row, Role::Lead, &server::database_name());
    let copy_id = transaction(|| job::begin_late_round(&name));
    live.copy_id.store(copy_id, Release);
    let round = Round { job, copy_id, late: true };
    wait_for_last_workers(round);
    let from_lsn = wait_for_shadow(round);
    leader::wait_for_running(round);
    let snapshot = ReadTransaction::begin();
    let late = LateCopy {
        copy_id,
        from_lsn,
        snapshot: leader::current_snapshot(),
        until_lsn: flushed_end(),
        relids: held.iter().map(|hold| hold.relid).collect(),
    };
    if late.snapshot.len() > limits::TEXT_BYTES_MAX {
        pgrx::error!("too many transactions run at this moment to note them all; the copy is tried again");
    }
    let copied = copy(round, identity, late, snapshot);
    transaction(|| job::end_hold(&name, &held, &copied));
    live.late_done.fetch_max(wanted, AcqRel);
    tell(job, &held, &copied);
    latch::wake(&live.stream);
}

fn copy(round: Round, identity: Identity, late: LateCopy, snapshot: ReadTransaction) -> Vec<CopiedTable> {
    let job = round.job;
    let relids = late.relids.clone();
    let exported = snapshot.export();
    let mut lead = Lead::new(round, identity, Opening::Late(late));
    let applied = lead.begin();
    let (chunk_blocks, planned) =
        plan::make(&catalog::with_storage(&relids), &applied, guc::snapshot_workers());
    let Some(plan) = Plan::create(round.copy_id, chunk_blocks, &planned) else {
        pgrx::error!("could not allocate dynamic shared memory for the copy's plan")
    };
    leader::publish(job, &plan, &exported, "");
    job.event(Level::Info, &format!("copying {} tables while the stream goes on", planned.len()), "");
    leader::copy_all(round, &plan, &mut lead);
    snapshot.end();
    let copied = leader::copied(&plan, &planned, &applied);
    lead.finish(&copied);
    copied
}

fn tell(job: JobRef, held: &[Held], copied: &[CopiedTable]) {
    let rows: u64 = copied.iter().map(|table| table.rows).sum();
    job.event(Level::Info, &format!("copied {} tables, {rows} rows; they follow again", copied.len()), "");
    if copied.len() < held.len() {
        let text = format!("{} tables were dropped before they were copied", held.len() - copied.len());
        job.event(Level::Info, &text, "");
    }
    job.say("", "", "");
}

/// Workers of an earlier round see that another one has begun, and end; only
/// then are their places free.
fn wait_for_last_workers(round: Round) {
    let workers = &round.job.live().snapshot_workers;
    while workers.iter().any(|place| place.pid.load(Acquire) != 0) {
        workers.iter().for_each(latch::wake);
        latch::wait(WORKERS_TICK);
        round.leave_if_over();
    }
}

/// Waits until the shadow shows all that is in the WAL now: in a journal it
/// would not be enough, the hold must be in force.
fn wait_for_shadow(round: Round) -> Lsn {
    let live = round.job.live();
    let target = flushed_end();
    while live.applied_lsn.load(Acquire) < target.0 {
        if live.wanted_lsn.fetch_max(target.0, AcqRel) < target.0 {
            latch::wake(&live.stream);
        }
        latch::wait(SHADOW_TICK);
        round.leave_if_over();
    }
    target
}

/// The end of the WAL, which is on disk: what is not is not decoded.
fn flushed_end() -> Lsn {
    let end = wal::insert_position();
    wal::flush(end);
    end
}

const RETRY_FIRST: Duration = Duration::from_secs(1);
/// A round fails when its table is altered meanwhile: soon enough for whoever waits after a migration.
const RETRY_MAX: Duration = Duration::from_secs(10);
const WORKERS_TICK: Duration = Duration::from_millis(100);
const SHADOW_TICK: Duration = Duration::from_millis(50);
