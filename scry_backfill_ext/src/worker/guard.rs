//! The guard of the WAL: looks at what the slots of all jobs keep, says it, and
//! gives a slot up before it harms production (delivery contract, rule 12).
//!
//! ```text
//! slots, disk ─► wal_level (pure) ─┬─ warning:  log, event, status with the time left
//!                                  ├─ critical: other copies hold, the stream has no limits
//!                                  └─ hard:     workers end ─► slot dropped ─► needs_resync
//! ```
//!
//! Run by the launcher, at least every `wal_check_interval`, and sooner when a
//! bound is near at the rate of growth. It looks at slots, not at jobs: the
//! slot that `stop(drop_slot => false)` left behind keeps WAL too.
//!
//! What it does not do: it never ends a backend, and never touches a slot that
//! is not of this extension.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use pgrx::{log, warning};

use super::pace;
use super::shmem::{Desired, JobRef, Level as Grave, State, add_event};
use super::wal_level::{self, Bounds, Disk, Level, Reason, Watch};
use crate::pg::slot_drop::{self, OwnSlot};
use crate::pg::{disk, latch, peer, shared, wal};
use crate::{api::job::call, guc};

/// Shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(250);

/// The guard's memory: lost with the launcher, found again at the next looks.
pub struct Guard {
    begun: Instant,
    next_look: Instant,
    watches: HashMap<String, Watch>,
}

impl Guard {
    /// Looks at once.
    pub fn new() -> Guard {
        Guard { begun: Instant::now(), next_look: Instant::now(), watches: HashMap::new() }
    }

    /// Looks if it is time to; returns how long until the next look, and
    /// whether the limits on the stream have to be set or lifted.
    pub fn tend(&mut self) -> (Duration, bool) {
        let wait = self.next_look.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            return (wait, false);
        }
        let slots = slot_drop::all_own();
        let changed = self.look(&slots);
        let interval = guc::wal_check_interval();
        let wait = if slots.is_empty() { interval } else { self.soon().unwrap_or(interval).min(interval) };
        self.next_look = Instant::now() + wait;
        (wait, changed)
    }

    /// A look is due at once: the settings are other ones.
    pub fn reload(&mut self) {
        self.next_look = Instant::now();
    }

    /// Half of the time until the next bound, at the rates of growth.
    fn soon(&self) -> Option<Duration> {
        let (disk, bounds) = (wal_disk(), bounds());
        let next = self.watches.values().filter_map(|watch| watch.seconds_to_next(disk, &bounds)).min()?;
        Some((Duration::from_secs(next) / 2).max(LOOK_MIN))
    }

    fn look(&mut self, slots: &[OwnSlot]) -> bool {
        let (bounds, disk, end) = (bounds(), wal_disk(), wal::insert_position());
        let place = &shared::live().pace;
        place.wal_disk_free.store(disk.map_or(0, |disk| disk.free), Relaxed);
        place.wal_disk_size.store(disk.map_or(0, |disk| disk.size), Relaxed);
        let now = self.begun.elapsed().as_secs_f64();
        self.watches.retain(|name, _| slots.iter().any(|slot| slot.name == *name));
        for slot in slots {
            // No position: not yet, or no longer; then it keeps nothing.
            let kept = if slot.restart_lsn.0 == 0 { 0 } else { end.0.saturating_sub(slot.restart_lsn.0) };
            let watch = self.watches.entry(slot.name.clone()).or_default();
            // A slot that is given up keeps ever more: one that keeps less is another of the same name.
            if watch.level() == Level::Hard && kept < watch.kept() {
                *watch = Watch::default();
            }
            let before = watch.look(now, kept, disk, &bounds);
            let job = job_of(slot);
            if let Some(job) = job {
                show(job, watch, disk, &bounds);
            }
            if watch.level() == Level::Hard {
                let why = wal_level::why_hard(kept, disk, &bounds);
                give_up(slot, job, watch, why, disk, before != Level::Hard);
            } else if watch.level() != before {
                tell(slot, job, before, watch, disk, &bounds);
            }
        }
        for job in JobRef::in_use().filter(|job| !slots.iter().any(|slot| job_of(slot) == Some(*job))) {
            show(job, &Watch::default(), disk, &bounds);
        }
        hold_copies()
    }
}

fn bounds() -> Bounds {
    Bounds { warning: guc::max_wal_warning(), critical: guc::max_wal_critical(), hard: guc::max_wal_hard() }
}

fn wal_disk() -> Option<Disk> {
    disk::wal_space().map(|space| Disk { free: space.free, size: space.size })
}

fn job_of(slot: &OwnSlot) -> Option<JobRef> {
    JobRef::in_use().find(|job| {
        job.live().database.load(Relaxed) == slot.database && job.texts().slot.as_str() == slot.name
    })
}

/// Puts what was seen where `status` reads it.
fn show(job: JobRef, watch: &Watch, disk: Option<Disk>, bounds: &Bounds) {
    let pace = &job.live().pace;
    let seconds = |left: Option<u64>| left.map_or(-1, |left| i64::try_from(left).unwrap_or(i64::MAX));
    pace.wal_level.store(watch.level() as u32, Release);
    pace.wal_kept.store(watch.kept(), Relaxed);
    pace.wal_growth.store(watch.growth(), Relaxed);
    pace.to_critical_s.store(seconds(watch.seconds_to_critical(bounds)), Relaxed);
    pace.to_hard_s.store(seconds(watch.seconds_to_hard(disk, bounds)), Relaxed);
}

/// A job that begins while another's WAL is critical holds its copy from the
/// start; the next look may be a while away.
pub fn hold_if_critical(job: JobRef) {
    let own = Level::from_u32(job.live().pace.wal_level.load(Acquire));
    if shared::live().pace.wal_critical.load(Relaxed) && own < Level::Critical {
        job.live().pace.copy_held.store(true, Release);
    }
}

/// While a slot is critical, copies hold: all but the first copy of a job that
/// is itself critical, whose end alone lets its WAL go. Returns whether the
/// limits on streams change by that.
fn hold_copies() -> bool {
    let level = |job: JobRef| Level::from_u32(job.live().pace.wal_level.load(Acquire));
    let critical = JobRef::in_use().any(|job| level(job) == Level::Critical);
    for job in JobRef::in_use() {
        let is_cause = level(job) >= Level::Critical && pace::is_first_copy(job);
        job.live().pace.copy_held.store(critical && !is_cause, Release);
    }
    shared::live().pace.wal_critical.swap(critical, Relaxed) != critical
}

/// Says that a level was reached or left.
fn tell(
    slot: &OwnSlot,
    job: Option<JobRef>,
    before: Level,
    watch: &Watch,
    disk: Option<Disk>,
    bounds: &Bounds,
) {
    let (kept, whose) = (size(watch.kept()), whose(slot, job));
    let left = match watch.seconds_to_hard(disk, bounds) {
        Some(seconds) => {
            format!(", which grows by {} a second: {} are left", size(watch.growth()), time(seconds))
        }
        None => String::new(),
    };
    let (message, hint) = match watch.level() {
        Level::Critical if watch.level() > before => (
            format!("{whose} keeps {kept} of WAL, more than max_wal_critical{left}"),
            "The stream gets everything: other copies hold and limits on the stream are lifted. See why the \
             shadow does not keep up in status.why; at max_wal_hard the slot is given up.",
        ),
        Level::Warning if watch.level() > before => (
            format!("{whose} keeps {kept} of WAL, more than max_wal_warning{left}"),
            "See why the shadow does not keep up in status.why. Production is not affected yet.",
        ),
        level => (format!("{whose} keeps {kept} of WAL again: {}", level.as_str()), ""),
    };
    let risen = watch.level() > before;
    if risen {
        warning!("scry_backfill: {message}");
    } else {
        log!("scry_backfill: {message}");
    }
    event(slot, job, if risen { Grave::Warning } else { Grave::Info }, &message, hint);
}

/// Gives a slot up: its workers end, then it is dropped.
fn give_up(
    slot: &OwnSlot,
    job: Option<JobRef>,
    watch: &Watch,
    why: Option<Reason>,
    disk: Option<Disk>,
    first: bool,
) {
    let whose = whose(slot, job);
    if first {
        let cause = match (why, disk) {
            (Some(Reason::Disk), Some(disk)) => {
                format!("of the WAL's disk only {} of {} are free", size(disk.free), size(disk.size))
            }
            _ => "that is more than max_wal_hard".to_owned(),
        };
        let message =
            format!("the slot of {whose} is given up: it keeps {} of WAL, and {cause}", size(watch.kept()));
        let hint = match job {
            Some(job) => format!("The shadow stands still. Start over with {}.", call("resume", &job.name())),
            None => "A job started again with these tables copies them anew.".to_owned(),
        };
        warning!("scry_backfill: {message}");
        event(slot, job, Grave::Error, &message, &hint);
        if let Some(job) = job {
            job.say(&message, "", &hint);
        }
    }
    if let Some(job) = job.filter(|job| job.desired() != Desired::Stop) {
        job.set_desired(Desired::GiveUp);
        let live = job.live();
        for process in [&live.stream, &live.leader].into_iter().chain(&live.snapshot_workers) {
            peer::terminate(process.pid.load(Acquire));
        }
    }
    drop_if_free(slot);
}

/// Drops a slot that is to be given up, once nobody holds it. Returns whether it is gone.
pub fn drop_if_free(slot: &OwnSlot) -> bool {
    if peer::is_running(slot.active_pid) {
        return false;
    }
    slot_drop::drop_slot(&slot.name);
    // Only a checkpoint removes what nobody keeps any more.
    wal::request_checkpoint();
    true
}

/// Ends the job of a slot that is given up, step by step: its workers, its
/// slot, its row in the job's table. Returns when to go on, and whether a scout
/// has to write that row.
pub fn end_given_up(job: JobRef, has_workers: bool) -> (Duration, bool) {
    if has_workers {
        return (LOOK_MIN, false);
    }
    let name = job.texts().slot;
    if let Some(slot) = slot_drop::all_own().iter().find(|slot| slot.name == name.as_str())
        && !drop_if_free(slot)
    {
        return (LOOK_MIN, false);
    }
    if job.state() != State::NeedsResync {
        job.set_state(State::NeedsResync);
        job.live().pace.copy_held.store(false, Release);
        latch::wake(&shared::live().launcher);
    }
    if job.live().pace.end_stored.load(Acquire) {
        job.release();
        return (LOOK_MIN, false);
    }
    (Duration::from_secs(1), true)
}

fn event(slot: &OwnSlot, job: Option<JobRef>, grave: Grave, message: &str, hint: &str) {
    match job {
        Some(job) => job.event(grave, message, hint),
        None => add_event(slot.database, "", grave, message, hint),
    }
}

fn whose(slot: &OwnSlot, job: Option<JobRef>) -> String {
    match job {
        Some(job) => format!("job \"{}\"", job.name()),
        None => format!("slot \"{}\" of a stopped job", slot.name),
    }
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{} kB", bytes >> 10),
        megabytes @ 1..10240 => format!("{megabytes} MB"),
        megabytes => format!("{} GB", megabytes >> 10),
    }
}

/// Seconds as people read them.
fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::{size, time};

    #[test]
    fn shows_sizes_and_times() {
        assert_eq!(
            (size(2048), size(30 << 20), size(20 << 30)),
            ("2 kB".into(), "30 MB".into(), "20 GB".into())
        );
        assert_eq!((time(119), time(600), time(7200)), ("119 s".into(), "10 min".into(), "2 h".into()));
    }
}
