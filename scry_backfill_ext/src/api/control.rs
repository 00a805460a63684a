//! `stop()`, `pause()`, `resume()`: say what is wanted, wait until it is so.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::spi::Spi;
use pgrx::{PgSqlErrorCode, pg_extern};

use super::job::{self, Job};
use super::preflight;
use super::refusal::{Refusal, or_raise};
use crate::pg::privileged::as_superuser;
use crate::pg::shared::JobLive;
use crate::pg::{latch, peer, shared, slot_drop, xact};
use crate::worker::launcher::has_workers;
use crate::worker::shmem::{Desired, JobRef, State};

/// How long the workers may take to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// After this they are asked again, by a signal.
const SIGNAL_AFTER: Duration = Duration::from_secs(5);

/// Ends a job; drops its slot unless told otherwise.
#[pg_extern(sql = false)]
fn stop(job: &str, drop_slot: bool) {
    or_raise(as_superuser(|| try_stop(job, drop_slot)));
}

/// Keeps a job's slot and its place, and sends nothing.
#[pg_extern(sql = false)]
fn pause(job: &str) {
    or_raise(as_superuser(|| try_pause(job)));
}

/// Goes on with a paused job; starts one over whose slot was given up.
#[pg_extern(sql = false)]
fn resume(job: &str) {
    or_raise(as_superuser(|| try_resume(job)));
}

fn try_stop(name: &str, drop_slot: bool) -> Result<(), Refusal> {
    preflight::not_standby("a job cannot be stopped")?;
    let job = lock_and_get(name)?;
    end_workers(&job, Desired::Stop)?;
    job.set_desired(Desired::Stop)?;
    job.set_state("stopped")?;
    if drop_slot && !job.slot_name.is_empty() {
        slot_drop::drop_slot(&job.slot_name);
    }
    note(&job.name, "the job was stopped")
}

fn try_pause(name: &str) -> Result<(), Refusal> {
    preflight::preloaded()?;
    preflight::not_standby("a job cannot be paused")?;
    let job = lock_and_get(name)?;
    match job.desired.as_str() {
        _ if job.state == "needs_resync" => return Err(needs_resync(name)),
        "pause" => return Ok(()),
        "stop" => return Err(is_stopped(name)),
        _ if job.state == "finished" => return Err(is_finished(name)),
        _ => {}
    }
    end_workers(&job, Desired::Pause)?;
    job.set_desired(Desired::Pause)?;
    note(&job.name, "the job was paused; its slot keeps WAL until it goes on")
}

fn try_resume(name: &str) -> Result<(), Refusal> {
    preflight::preloaded()?;
    preflight::not_standby("a job cannot be resumed")?;
    let job = lock_and_get(name)?;
    if job.state == "needs_resync" {
        // The worker sees that the slot is gone, and starts over.
        job.set_state("copying")?;
        job.set_desired(Desired::Run)?;
        return note(
            &job.name,
            "the job starts over: its tables are compared, and copied again where they differ",
        );
    }
    match job.desired.as_str() {
        "stop" => return Err(is_stopped(name)),
        "run" => {}
        _ => {
            job.set_desired(Desired::Run)?;
            note(&job.name, "the job goes on")?;
        }
    }
    try_at_once(&job);
    Ok(())
}

/// What failed is tried again now, and not when its pause is over.
fn try_at_once(job: &Job) {
    let Some(place) = job.place() else { return };
    place.live().failures.store(0, Release);
    place.live().retry_at.store(0, Release);
    latch::wake(&shared::live().launcher);
}

fn lock_and_get(name: &str) -> Result<Job, Refusal> {
    job::lock(name)?;
    let job = Job::get(name)?;
    xact::jobs_changed();
    Ok(job)
}

/// An error: the job is stopped.
pub fn is_stopped(name: &str) -> Refusal {
    Refusal::not_ready(format!("job \"{name}\" is stopped")).hint("Start it with scry_backfill.start().")
}

/// An error: the job's slot was given up.
pub fn needs_resync(name: &str) -> Refusal {
    Refusal::not_ready(format!("job \"{name}\" needs a new copy: its slot was given up"))
        .hint(format!("Start over with {}.", job::call("resume", name)))
}

/// An error: the job copied its tables once.
pub fn is_finished(name: &str) -> Refusal {
    Refusal::not_ready(format!("job \"{name}\" is finished"))
        .detail("It copied its tables once and does not follow them.")
}

/// Stores an event; not in the ring, so that a rollback takes it back too.
pub fn note(job: &str, message: &str) -> Result<(), Refusal> {
    Spi::run_with_args(
        "INSERT INTO scry_backfill.event_log (at, job, level, message) VALUES (clock_timestamp(), $1, 'info', $2)",
        &[DatumWithOid::from(job), DatumWithOid::from(message)],
    )?;
    Ok(())
}

/// Makes the job's workers end, and waits until they have.
///
/// The launcher says when: it alone knows of a worker that is starting and has
/// not announced itself yet. A stopped job's place is given back then, a
/// paused one's state is set.
fn end_workers(job: &Job, desired: Desired) -> Result<(), Refusal> {
    let Some(place) = job.place() else { return Ok(()) };
    place.set_desired(desired);
    wake_all(place.live());
    let start = Instant::now();
    let mut signalled = false;
    while !has_ended(job, place, desired) {
        let waited = start.elapsed();
        if waited > PATIENCE {
            return Err(still_there(job));
        }
        // A worker that creates its slot may be waiting for this very transaction.
        if !signalled && (waited > SIGNAL_AFTER || place.state() == State::CreatingSlot) {
            signal_all(place.live());
            signalled = true;
        }
        latch::wake(&shared::live().launcher);
        peer::nap(Duration::from_millis(20));
    }
    Ok(())
}

fn has_ended(job: &Job, place: JobRef, desired: Desired) -> bool {
    // Not this job's place any more: it was given back, and perhaps taken again.
    job.place() != Some(place)
        || (desired == Desired::Pause && place.state() == State::Paused && !has_workers(place))
}

fn wake_all(live: &JobLive) {
    latch::wake(&live.stream);
    latch::wake(&live.leader);
    live.snapshot_workers.iter().for_each(latch::wake);
}

fn signal_all(live: &JobLive) {
    for process in [&live.stream, &live.leader].into_iter().chain(&live.snapshot_workers) {
        peer::terminate(process.pid.load(Acquire));
    }
}

fn still_there(job: &Job) -> Refusal {
    Refusal::new(
        PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
        format!("the workers of job \"{}\" have not ended within {} s", job.name, PATIENCE.as_secs()),
    )
    .hint("The job goes on as before. Look at scry_backfill.status and the server's log, and try again.")
}
