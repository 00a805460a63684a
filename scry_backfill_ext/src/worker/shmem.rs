//! What the workers, the launcher and the SQL functions tell each other.
//!
//! ```text
//! start()/stop()/… ──desired──► launcher ──starts──► stream worker ──starts──► snapshot leader ──► snapshot workers
//!        ▲                          ▲                    │ state, positions        │ copy_phase, plan
//!        └──────── status views ────┴────────────────────┴─────────────────────────┘
//! ```
//!
//! One place a job, found by database and name. The launcher (or a scout it
//! sends into a database) gives the place out and takes it back; the SQL
//! functions set `desired`; the stream worker sets `state`; the leader sets
//! `copy_phase`. Nothing here survives a restart of the server: the tables of
//! the extension do.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::pg::server;
use crate::pg::shared::{self, Event, JOBS_MAX, JobLive, JobText, SCANS_MAX};

/// What the user wants of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Desired {
    /// Copy and stream.
    Run = 0,
    /// Keep the slot, send nothing.
    Pause = 1,
    /// End.
    Stop = 2,
    /// End, and give the slot up: it keeps too much WAL. The guard's wish, not the user's.
    GiveUp = 3,
}

impl Desired {
    /// As stored in the table `job`.
    pub fn as_str(self) -> &'static str {
        match self {
            Desired::Run => "run",
            Desired::Pause => "pause",
            Desired::Stop => "stop",
            Desired::GiveUp => "give_up",
        }
    }

    /// From the table `job`.
    pub fn from_text(text: &str) -> Desired {
        match text {
            "run" => Desired::Run,
            "pause" => Desired::Pause,
            _ => Desired::Stop,
        }
    }

    fn from_u32(value: u32) -> Desired {
        match value {
            0 => Desired::Run,
            1 => Desired::Pause,
            3 => Desired::GiveUp,
            _ => Desired::Stop,
        }
    }
}

/// What a job is doing. Set by its stream worker, shown by `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// The worker has not started yet.
    Starting = 0,
    /// Waits for the sender or the platform.
    Connecting = 1,
    /// The slot waits for running transactions to end.
    CreatingSlot = 2,
    /// Tables are being copied.
    Copying = 3,
    /// Indexes and constraints are being built on the shadow.
    Finishing = 4,
    /// The shadow follows.
    Streaming = 5,
    /// The user wants a pause.
    Paused = 6,
    /// Something failed; it is tried again.
    Retrying = 7,
    /// A snapshot job is done.
    Finished = 8,
    /// The job is ending or has ended.
    Stopped = 9,
    /// The slot was given up: the shadow stands still until `resume()`.
    NeedsResync = 10,
}

impl State {
    const ALL: [State; 11] = [
        State::Starting,
        State::Connecting,
        State::CreatingSlot,
        State::Copying,
        State::Finishing,
        State::Streaming,
        State::Paused,
        State::Retrying,
        State::Finished,
        State::Stopped,
        State::NeedsResync,
    ];

    /// As `status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Connecting => "connecting",
            State::CreatingSlot => "creating_slot",
            State::Copying => "copying",
            State::Finishing => "finishing",
            State::Streaming => "streaming",
            State::Paused => "paused",
            State::Retrying => "retrying",
            State::Finished => "finished",
            State::Stopped => "stopped",
            State::NeedsResync => "needs_resync",
        }
    }
}

/// How far a copy is. Set by the leader (`Requested` and `Noted` by the stream
/// worker), read by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum CopyPhase {
    /// No leader.
    None = 0,
    /// The leader has been asked for.
    Requested = 1,
    /// The leader has its snapshot, the shadow its tables, and the plan stands:
    /// the exported snapshot of the slot is no longer needed.
    Planned = 2,
    /// The stream worker has noted which snapshot saw what: chunks may be sent.
    Noted = 3,
    /// All chunks have their receipt.
    Copied = 4,
    /// The shadow is complete.
    Finished = 5,
    /// The leader has ended with an error.
    Failed = 6,
}

impl CopyPhase {
    const ALL: [CopyPhase; 7] = [
        CopyPhase::None,
        CopyPhase::Requested,
        CopyPhase::Planned,
        CopyPhase::Noted,
        CopyPhase::Copied,
        CopyPhase::Finished,
        CopyPhase::Failed,
    ];
}

/// How grave an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// For the record.
    Info,
    /// Something waits or is left out.
    Warning,
    /// Something is wrong.
    Error,
}

/// A job's place in shared memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobRef(usize);

impl JobRef {
    /// The place's number, as a worker's argument.
    pub fn index(self) -> usize {
        self.0
    }

    /// The place of a worker's argument.
    pub fn from_index(index: usize) -> Option<JobRef> {
        (index < JOBS_MAX).then_some(JobRef(index))
    }

    /// The job of this name in this database.
    pub fn find(database: u32, name: &str) -> Option<JobRef> {
        shared::read_texts(|texts| {
            JobRef::all().find(|job| {
                let live = job.live();
                live.in_use.load(Acquire)
                    && live.database.load(Relaxed) == database
                    && texts.jobs.get(job.0).is_some_and(|t| t.name.as_str() == name)
            })
        })
    }

    /// Takes a free place for a job, or finds the one it has. `None`: all are taken.
    pub fn take(database: u32, name: &str, slot: &str) -> Option<JobRef> {
        shared::write_texts(|texts| {
            let same = |job: &JobRef| {
                job.live().in_use.load(Acquire)
                    && job.live().database.load(Relaxed) == database
                    && texts.jobs.get(job.0).is_some_and(|t| t.name.as_str() == name)
            };
            if let Some(job) = JobRef::all().find(same) {
                return Some(job);
            }
            let job = JobRef::all().find(|job| !job.live().in_use.load(Acquire))?;
            let text = texts.jobs.get_mut(job.0)?;
            *text = JobText::EMPTY;
            text.name.set(name);
            text.slot.set(slot);
            job.reset(database);
            Some(job)
        })
    }

    fn reset(self, database: u32) {
        let live = self.live();
        for counter in [
            &live.copy_id,
            &live.generation,
            &live.late_wanted,
            &live.late_done,
            &live.wanted_lsn,
            &live.decoded_lsn,
            &live.sent_lsn,
            &live.applied_lsn,
            &live.flushed_lsn,
            &live.stream_rows,
            &live.stream_bytes,
            &live.stream_transactions,
            &live.copy_rows,
            &live.copy_bytes,
            &live.blocked_us,
        ] {
            counter.store(0, Relaxed);
        }
        for number in [&live.desired, &live.state, &live.copy_phase, &live.plan_handle, &live.failures] {
            number.store(0, Relaxed);
        }
        for time in [
            &live.started_at,
            &live.retry_at,
            &live.whole_until,
            &live.sent_commit_time,
            &live.applied_commit_time,
        ] {
            time.store(0, Relaxed);
        }
        live.pace.reset();
        live.database.store(database, Relaxed);
        live.in_use.store(true, Release);
    }

    /// Gives the place back. Only when no worker of the job runs.
    pub fn release(self) {
        self.live().in_use.store(false, Release);
    }

    /// All places, taken or not.
    pub fn all() -> impl Iterator<Item = JobRef> {
        (0..JOBS_MAX).map(JobRef)
    }

    /// All places that are taken.
    pub fn in_use() -> impl Iterator<Item = JobRef> {
        JobRef::all().filter(|job| job.live().in_use.load(Acquire))
    }

    /// The places of the jobs of this process's database; none when the library is not preloaded.
    pub fn of_this_database() -> Vec<JobRef> {
        if !shared::available() {
            return Vec::new();
        }
        let database = server::database();
        JobRef::in_use().filter(|job| job.live().database.load(Relaxed) == database).collect()
    }

    /// The numbers.
    pub fn live(self) -> &'static JobLive {
        &shared::live().jobs[self.0]
    }

    /// The job's texts, copied.
    pub fn texts(self) -> JobText {
        shared::read_texts(|texts| texts.jobs[self.0])
    }

    /// Changes the job's texts. `write` must not call into PostgreSQL.
    pub fn write_texts(self, write: impl FnOnce(&mut JobText)) {
        shared::write_texts(|texts| write(&mut texts.jobs[self.0]));
    }

    /// The job's name.
    pub fn name(self) -> String {
        shared::read_texts(|texts| texts.jobs[self.0].name.as_str().to_owned())
    }

    /// What the user wants.
    pub fn desired(self) -> Desired {
        Desired::from_u32(self.live().desired.load(Acquire))
    }

    /// Says what the user wants.
    pub fn set_desired(self, desired: Desired) {
        self.live().desired.store(desired as u32, Release);
    }

    /// What the job is doing.
    pub fn state(self) -> State {
        let state = self.live().state.load(Acquire) as usize;
        State::ALL.get(state).copied().unwrap_or(State::Starting)
    }

    /// Says what the job is doing.
    pub fn set_state(self, state: State) {
        self.live().state.store(state as u32, Release);
    }

    /// How far the copy is.
    pub fn copy_phase(self) -> CopyPhase {
        let phase = self.live().copy_phase.load(Acquire) as usize;
        CopyPhase::ALL.get(phase).copied().unwrap_or(CopyPhase::None)
    }

    /// Says how far the copy is.
    pub fn set_copy_phase(self, phase: CopyPhase) {
        self.live().copy_phase.store(phase as u32, Release);
    }

    /// Shows what is going on or wrong, with more about it and the remedy;
    /// three empty texts clear it.
    pub fn say(self, message: &str, detail: &str, hint: &str) {
        self.write_texts(|texts| {
            texts.message.set(message);
            texts.detail.set(detail);
            texts.hint.set(hint);
        });
    }

    /// Adds an event of this job.
    pub fn event(self, level: Level, message: &str, hint: &str) {
        let job = self.name();
        add_event(self.live().database.load(Relaxed), &job, level, message, hint);
    }
}

/// Adds an event to the ring, newest last.
pub fn add_event(database: u32, job: &str, level: Level, message: &str, hint: &str) {
    let at = crate::pg::latch::now();
    shared::write_texts(|texts| {
        let id = texts.last_event + 1;
        let place = (id as usize) % texts.events.len();
        if let Some(event) = texts.events.get_mut(place) {
            event.id = id;
            event.at = at;
            event.database = database;
            event.level = match level {
                Level::Info => b'i',
                Level::Warning => b'w',
                Level::Error => b'e',
            };
            event.job.set(job);
            event.message.set(message);
            event.hint.set(hint);
            texts.last_event = id;
        }
    });
}

/// The events after number `after`, oldest first.
pub fn events_after(after: u64) -> Vec<Event> {
    let mut events: Vec<Event> =
        shared::read_texts(|texts| texts.events.iter().filter(|e| e.id > after).copied().collect());
    events.sort_by_key(|event| event.id);
    events
}

/// Asks the launcher to look for jobs in `database`; 0 for all databases.
pub fn request_scan(database: u32) {
    let live = shared::live();
    let places = &live.scans[0].0;
    let asked = database != 0
        && places.iter().take(SCANS_MAX).any(|place| {
            place.load(Acquire) == database || place.compare_exchange(0, database, Release, Relaxed).is_ok()
        });
    if !asked {
        live.scan_all.store(true, Release);
    }
    crate::pg::latch::wake(&live.launcher);
}
