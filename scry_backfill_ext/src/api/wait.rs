//! `wait_for_shadow()`: until the shadow holds all that was committed before.

use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::{Duration, Instant};

use pgrx::datum::Interval;
use pgrx::pg_extern;

use super::control::{is_stopped, needs_resync};
use super::job::{self, Job};
use super::preflight;
use super::refusal::{Refusal, or_raise};
use crate::pg::privileged::as_superuser;
use crate::pg::{latch, peer, wal};
use crate::worker::shmem::{Desired, JobRef, State};

/// First and longest time between two looks.
const LOOK_MS: (u64, u64) = (1, 20);

/// Whether the shadow held everything committed before the call within `timeout`.
#[pg_extern(sql = false)]
fn wait_for_shadow(job: &str, timeout: Interval) -> bool {
    or_raise(try_wait(job, timeout))
}

fn try_wait(name: &str, timeout: Interval) -> Result<bool, Refusal> {
    preflight::preloaded()?;
    preflight::not_standby("the shadow cannot be waited for")?;
    let micros = u64::try_from(timeout.as_micros()).unwrap_or(0);
    // A year is for ever, and does not overflow.
    let timeout = Duration::from_micros(micros).min(Duration::from_secs(365 * 24 * 3600));
    let job = as_superuser(|| Job::get(name))?;
    if is_finished(&job)? {
        return Ok(true);
    }
    // What is not on disk is not decoded.
    let target = wal::insert_position();
    wal::flush(target);
    let deadline = Instant::now() + timeout;
    let mut look_ms = LOOK_MS.0;
    loop {
        match look(&job, target.0)? {
            Look::There => return Ok(true),
            Look::NotYet if Instant::now() >= deadline => return Ok(false),
            Look::NotYet => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        peer::nap(left.min(Duration::from_millis(look_ms)));
        look_ms = (look_ms * 2).min(LOOK_MS.1);
    }
}

enum Look {
    There,
    NotYet,
}

fn look(job: &Job, target: u64) -> Result<Look, Refusal> {
    let place = job.place();
    if let Some(place) = place.filter(|place| place.desired() == Desired::Run) {
        let there = place.state() == State::Finished || holds(place, target);
        return Ok(if there { Look::There } else { Look::NotYet });
    }
    // The launcher has not found it yet, or it was stopped or paused while we
    // waited: the table knows.
    let now = as_superuser(|| Job::get(&job.name))?;
    Ok(if is_finished(&now)? { Look::There } else { Look::NotYet })
}

/// Whether a job's copy is all it had to do; an error if it does not run.
fn is_finished(job: &Job) -> Result<bool, Refusal> {
    match job.desired.as_str() {
        _ if job.state == "needs_resync" => Err(needs_resync(&job.name)),
        "stop" => Err(is_stopped(&job.name)),
        "pause" => Err(is_paused(&job.name)),
        _ => Ok(job.state == "finished"),
    }
}

/// Whether the shadow holds everything up to `target`; asks the worker to get there.
fn holds(place: JobRef, target: u64) -> bool {
    let live = place.live();
    if place.state() == State::Streaming && live.applied_lsn.load(Acquire) >= target {
        // Tables on hold are waited for too.
        return live.late_done.load(Acquire) >= live.late_wanted.load(Acquire);
    }
    if live.wanted_lsn.fetch_max(target, AcqRel) < target {
        latch::wake(&live.stream);
    }
    false
}

fn is_paused(name: &str) -> Refusal {
    Refusal::not_ready(format!("job \"{name}\" is paused"))
        .hint(format!("Go on with {}.", job::call("resume", name)))
}
