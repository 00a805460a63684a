//! `wait_for_shadow()`: until the shadow holds all that was committed before.

use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::{Duration, Instant};

use pgrx::datum::Interval;
use pgrx::pg_extern;

use super::control::is_stopped;
use super::job::{self, Job};
use super::preflight;
use super::refusal::{Refusal, or_raise};
use crate::pg::privileged::as_superuser;
use crate::pg::{latch, peer, server};
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
    preflight::not_standby()?;
    let micros = u64::try_from(timeout.as_micros()).unwrap_or(0);
    // A year is for ever, and does not overflow.
    let timeout = Duration::from_micros(micros).min(Duration::from_secs(365 * 24 * 3600));
    let job = as_superuser(|| Job::get(name))?;
    match job.desired.as_str() {
        "stop" => return Err(is_stopped(name)),
        "pause" => return Err(is_paused(name)),
        _ if job.state == "finished" => return Ok(true),
        _ => {}
    }
    let target = server::flushed_insert_lsn();
    let deadline = Instant::now() + timeout;
    let mut look_ms = LOOK_MS.0;
    let mut seen = false;
    loop {
        match look(&job, target, &mut seen)? {
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

fn look(job: &Job, target: u64, seen: &mut bool) -> Result<Look, Refusal> {
    let Some(place) = job.place() else {
        // The launcher has not found it yet; or it was stopped while we waited.
        return if *seen { Err(is_stopped(&job.name)) } else { Ok(Look::NotYet) };
    };
    *seen = true;
    match place.desired() {
        Desired::Stop => return Err(is_stopped(&job.name)),
        Desired::Pause => return Err(is_paused(&job.name)),
        Desired::Run => {}
    }
    if place.state() == State::Finished {
        return Ok(Look::There);
    }
    Ok(if holds(place, target) { Look::There } else { Look::NotYet })
}

/// Whether the shadow holds everything up to `target`; asks the worker to get there.
fn holds(place: JobRef, target: u64) -> bool {
    let live = place.live();
    if place.state() == State::Streaming && live.applied_lsn.load(Acquire) >= target {
        return true;
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
