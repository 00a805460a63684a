//! The launcher: finds the jobs of all databases, keeps a stream worker alive
//! for each, and runs the sender.
//!
//! ```text
//!   start(), stop(), …  ── request_scan(database) ──►  launcher ── scout ──► reads scry_backfill.job
//!                                                         │                  takes a place for each job
//!                                                         ├── stream worker a job (back-off 1 s … 60 s)
//!                                                         └── scry_sender
//! ```
//!
//! It is connected to no database, so a scout (a short worker connected to
//! one) reads the jobs. One scout runs at a time: a scan of many databases
//! takes one background worker slot. At server start every database is
//! scanned, later only those that ask.
//!
//! Between all that it guards the WAL that the jobs' slots keep ([`super::guard`])
//! and watches the server's load, which copies give way to ([`super::adaptive`]).
//!
//! What it keeps in memory is lost when it fails; it then finds its workers
//! again by what they announced in shared memory.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::log;

use super::adaptive::{Controller, SAMPLES_PER_SECOND};
use super::guard::{self, Guard};
use super::meter::Meter;
use super::registration::{self, Started};
use super::sender_child::SenderChild;
use super::shmem::{Desired, JobRef, Level, State, add_event};
use crate::guc;
use crate::pg::shared::{self, JOBS_MAX, Process};
use crate::pg::{databases, latch, load, peer};

/// Longest sleep: what nobody announces is noticed after this.
const SLEEP_MAX: Duration = Duration::from_secs(10);
/// Delay before the second try of a failed worker.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
/// Longest delay.
const BACKOFF_LAST: Duration = Duration::from_secs(15);
/// Delay before the next try when no background worker slot was free.
const NO_SLOT_RETRY: Duration = Duration::from_secs(5);
/// Rates are measured, and the load of a server that nobody copies from, this often.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Events are stored this often.
const STORE_EVENTS_AFTER: Duration = Duration::from_secs(10);
/// Microseconds in a second.
const SECOND_US: i64 = 1_000_000;

/// Entry point of the launcher.
pub fn main(_argument: usize) {
    BackgroundWorker::attach_signal_handlers(
        SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM | SignalWakeFlags::SIGCHLD,
    );
    BackgroundWorker::connect_worker_to_spi(None, None);
    let place = &shared::live().launcher;
    latch::announce(place);
    log!("scry_backfill launcher started");

    let mut launcher = Launcher::new();
    shared::live().scan_all.store(true, Release);
    while !BackgroundWorker::sigterm_received() {
        if BackgroundWorker::sighup_received() {
            latch::serve_interrupts();
            launcher.sender.reload();
            launcher.guard.reload();
        }
        let sleep = launcher.step();
        latch::wait(sleep);
    }
    launcher.sender.shut_down();
    latch::retire(place);
    // Not 0: the postmaster would forget the launcher.
    peer::exit_for_restart();
}

struct Launcher {
    /// Databases to send a scout into.
    scans: VecDeque<u32>,
    /// The scout on its way, and where.
    scout: Option<(u32, Started)>,
    /// Stream workers started by this launcher.
    streams: [Option<Started>; JOBS_MAX],
    /// Stream workers that a launcher before this one had started.
    adopted: [bool; JOBS_MAX],
    sender: SenderChild,
    guard: Guard,
    controller: Controller,
    /// The last look at the load.
    sampled: Instant,
    meters: [Meter; JOBS_MAX],
    /// No worker is started before (`TimestampTz`).
    no_slot_until: i64,
    /// Number of the last event that scouts were sent for, and when.
    stored_events: u64,
    last_storing: Instant,
}

impl Launcher {
    fn new() -> Launcher {
        let mut adopted = [false; JOBS_MAX];
        for job in JobRef::in_use() {
            if let Some(adopted) = adopted.get_mut(job.index()) {
                *adopted = peer::is_running(job.live().stream.pid.load(Acquire));
            }
        }
        Launcher {
            scans: VecDeque::new(),
            scout: None,
            streams: [const { None }; JOBS_MAX],
            adopted,
            sender: SenderChild::new(),
            guard: Guard::new(),
            controller: Controller::new(std::thread::available_parallelism().map_or(1, usize::from)),
            sampled: Instant::now(),
            meters: [Meter::new(); JOBS_MAX],
            no_slot_until: 0,
            stored_events: 0,
            last_storing: Instant::now(),
        }
    }

    /// Does what is to be done now; returns how long to sleep.
    fn step(&mut self) -> Duration {
        self.collect_scans();
        self.have_events_stored();
        let mut sleep = self.send_scout();
        let (next_look, stream_limits_changed) = self.guard.tend();
        if stream_limits_changed {
            self.sender.reload();
        }
        sleep = sleep.min(next_look).min(self.watch_load());
        for job in JobRef::in_use() {
            sleep = sleep.min(self.tend(job));
        }
        let wanted =
            JobRef::in_use().any(|job| job.desired() == Desired::Run && job.state() != State::Finished);
        sleep.min(self.sender.tend(wanted))
    }

    /// Measures rates, and sets the brake that copies go by. Returns when to look again.
    fn watch_load(&mut self) -> Duration {
        let mut ours = Vec::new();
        let mut copying = false;
        for job in JobRef::in_use() {
            if let Some(meter) = self.meters.get_mut(job.index()) {
                meter.measure(job);
            }
            let live = job.live();
            let pid = |process: &Process| process.pid.load(Acquire);
            ours.extend([&live.stream, &live.leader].map(pid));
            ours.extend(live.snapshot_workers.iter().map(pid));
            copying |= live.snapshot_workers.iter().any(|process| pid(process) != 0);
        }
        let place = &shared::live().pace;
        if !guc::adaptive() || ours.iter().all(|pid| *pid == 0) {
            self.controller.release();
            place.brake_permille.store(0, Release);
            return if ours.is_empty() { SLEEP_MAX } else { MEASURE_EVERY };
        }
        let every = Duration::from_secs(1) / SAMPLES_PER_SECOND;
        if self.sampled.elapsed() >= every {
            self.sampled = Instant::now();
            self.controller.observe(&load::sample(&ours));
            let (cause, amount) = self.controller.cause();
            place.cause.store(cause as u32, Relaxed);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            // `as` saturates; never negative.
            place.amount_milli.store((amount * 1000.0) as u64, Relaxed);
            place.brake_permille.store(self.controller.brake(), Release);
        }
        if copying || self.controller.brake() > 0 { every } else { MEASURE_EVERY }
    }

    /// Takes the requests for scans out of shared memory.
    fn collect_scans(&mut self) {
        let live = shared::live();
        if live.scan_all.swap(false, AcqRel) {
            self.scans = databases::list().into_iter().map(|database| database.oid).collect();
        }
        for place in live.scans.iter().flat_map(|scans| &scans.0) {
            let database = place.swap(0, AcqRel);
            if database != 0 {
                self.scan_soon(database);
            }
        }
    }

    /// Somebody waits for this database: it goes before those of a scan of all.
    fn scan_soon(&mut self, database: u32) {
        if !self.scans.contains(&database) {
            self.scans.push_front(database);
        }
    }

    /// Sends scouts to where events have happened; not for each, there may be many.
    fn have_events_stored(&mut self) {
        if self.last_storing.elapsed() < STORE_EVENTS_AFTER {
            return;
        }
        self.last_storing = Instant::now();
        forget_dropped();
        let last_event = shared::read_texts(|texts| texts.last_event);
        if last_event == self.stored_events {
            return;
        }
        self.stored_events = last_event;
        for job in JobRef::in_use() {
            let database = job.live().database.load(Relaxed);
            if !self.scans.contains(&database) {
                self.scans.push_back(database);
            }
        }
    }

    fn send_scout(&mut self) -> Duration {
        if let Some((_, started)) = &self.scout {
            if !started.is_gone() {
                return SLEEP_MAX;
            }
            self.scout = None;
        }
        if self.scans.is_empty() {
            return SLEEP_MAX;
        }
        if let Some(wait) = self.no_slot_wait() {
            return wait;
        }
        let Some(database) = self.scans.pop_front() else { return SLEEP_MAX };
        if !databases::list().iter().any(|known| known.oid == database) {
            forget_database(database);
            return Duration::ZERO;
        }
        match registration::start_scout(database) {
            Some(started) => {
                self.scout = Some((database, started));
                SLEEP_MAX
            }
            None => {
                self.scans.push_back(database);
                self.tell_no_slot(None)
            }
        }
    }

    /// Looks after one job: notices the end of its worker, starts it, gives
    /// its place back.
    fn tend(&mut self, job: JobRef) -> Duration {
        let index = job.index();
        let running = match (self.streams.get(index), self.adopted.get(index)) {
            (Some(Some(started)), _) => !started.is_gone(),
            (_, Some(true)) => peer::is_running(job.live().stream.pid.load(Acquire)),
            _ => false,
        };
        if running {
            return SLEEP_MAX;
        }
        let was_started = self.streams.get_mut(index).and_then(Option::take).is_some();
        let was_adopted = self.adopted.get_mut(index).is_some_and(std::mem::take);
        if was_started || was_adopted {
            clear_after(job);
            self.ended(job);
        }
        match job.desired() {
            Desired::Run if job.state() == State::Finished => SLEEP_MAX,
            Desired::Run => self.start_when_due(job),
            Desired::Pause => {
                job.set_state(State::Paused);
                SLEEP_MAX
            }
            Desired::GiveUp => {
                let (wait, to_be_stored) = guard::end_given_up(job, has_workers(job));
                if to_be_stored {
                    self.scan_soon(job.live().database.load(Relaxed));
                }
                wait
            }
            Desired::Stop => {
                if has_workers(job) {
                    // Snapshot workers end by themselves; look again soon.
                    return Duration::from_millis(100);
                }
                let database = job.live().database.load(Relaxed);
                job.set_state(State::Stopped);
                job.release();
                // It may have been started again while its last life ended.
                self.scan_soon(database);
                Duration::ZERO
            }
        }
    }

    /// Decides when a worker that ended is tried again.
    fn ended(&mut self, job: JobRef) {
        if job.desired() != Desired::Run || job.state() == State::Finished {
            return;
        }
        let live = job.live();
        let database = live.database.load(Relaxed);
        if !databases::list().iter().any(|known| known.oid == database) {
            forget_database(database);
            return;
        }
        let failures = live.failures.fetch_add(1, AcqRel).saturating_add(1);
        let delay = i64::try_from(backoff(failures).as_micros()).unwrap_or(SECOND_US);
        live.retry_at.store(latch::now() + delay, Release);
        job.set_state(State::Retrying);
    }

    fn start_when_due(&mut self, job: JobRef) -> Duration {
        let live = job.live();
        let database = live.database.load(Relaxed);
        if self.scout.as_ref().is_some_and(|(scouted, _)| *scouted == database) {
            // The scout is about to say what is wanted of it.
            return SLEEP_MAX;
        }
        let wait = live.retry_at.load(Acquire) - latch::now();
        if wait > 0 {
            return Duration::from_micros(wait.unsigned_abs());
        }
        if let Some(wait) = self.no_slot_wait() {
            say_no_slot(job);
            return wait;
        }
        guard::hold_if_critical(job);
        match registration::start_stream(job) {
            Some(started) => {
                live.started_at.store(latch::now(), Release);
                if let Some(place) = self.streams.get_mut(job.index()) {
                    *place = Some(started);
                }
                SLEEP_MAX
            }
            None => self.tell_no_slot(Some(job)),
        }
    }

    fn no_slot_wait(&self) -> Option<Duration> {
        let wait = self.no_slot_until - latch::now();
        (wait > 0).then(|| Duration::from_micros(wait.unsigned_abs()))
    }

    fn tell_no_slot(&mut self, job: Option<JobRef>) -> Duration {
        match job {
            Some(job) => say_no_slot(job),
            None if self.no_slot_until == 0 => {
                add_event(0, "", Level::Warning, NO_SLOT_MESSAGE, NO_SLOT_HINT);
            }
            None => {}
        }
        self.no_slot_until = latch::now() + i64::try_from(NO_SLOT_RETRY.as_micros()).unwrap_or(5 * SECOND_US);
        NO_SLOT_RETRY
    }
}

const NO_SLOT_MESSAGE: &str = "no background worker slot is free";
const NO_SLOT_HINT: &str = "Increase \"max_worker_processes\" and restart the server.";

/// Shows that a job has to wait for a background worker slot; an event once.
fn say_no_slot(job: JobRef) {
    if job.texts().message.as_str() != NO_SLOT_MESSAGE {
        job.event(Level::Warning, NO_SLOT_MESSAGE, NO_SLOT_HINT);
        job.say(NO_SLOT_MESSAGE, "", NO_SLOT_HINT);
        job.set_state(State::Retrying);
    }
}

/// Ends the paused jobs of databases that are gone: no worker would notice.
fn forget_dropped() {
    let paused = |job: &JobRef| job.desired() == Desired::Pause && !has_workers(*job);
    if !JobRef::in_use().any(|job| paused(&job)) {
        return;
    }
    let known = databases::list();
    for job in JobRef::in_use().filter(paused) {
        let database = job.live().database.load(Relaxed);
        if !known.iter().any(|known| known.oid == database) {
            forget_database(database);
        }
    }
}

/// Ends the jobs of a database that was dropped.
fn forget_database(database: u32) {
    for job in JobRef::in_use().filter(|job| job.live().database.load(Relaxed) == database) {
        log!(
            "scry_backfill: job \"{}\" has ended: its database is gone or allows no connections",
            job.name()
        );
        job.set_desired(Desired::Stop);
    }
}

/// A quarter of a second after the first failure, doubled with each further one, at most 15 s: a
/// platform that is back is found soon, and a try costs little.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_LAST)
}

/// Takes back what a worker that failed could not.
fn clear_after(job: JobRef) {
    let live = job.live();
    if live.sleeping.swap(false, AcqRel) {
        let _ = shared::live().sleepers.fetch_update(AcqRel, Acquire, |count| count.checked_sub(1));
    }
    let others = std::iter::once(&live.leader).chain(&live.snapshot_workers);
    for place in std::iter::once(&live.stream).chain(others) {
        clear_if_dead(place);
    }
}

fn clear_if_dead(place: &Process) {
    let pid = place.pid.load(Acquire);
    if pid != 0 && !peer::is_running(pid) {
        let _ = place.pid.compare_exchange(pid, 0, Release, Relaxed);
    }
}

/// Whether any process of the job lives.
pub fn has_workers(job: JobRef) -> bool {
    let live = job.live();
    let others = std::iter::once(&live.leader).chain(&live.snapshot_workers);
    std::iter::once(&live.stream).chain(others).any(|place| {
        clear_if_dead(place);
        place.pid.load(Acquire) != 0
    })
}
