//! The piece of shared memory that all processes of the extension see.
//!
//! Data only; what it means is said in [`crate::worker`]. Numbers that change
//! often are atomics and need no lock; texts stand behind one lightweight
//! lock. The sizes are fixed at server start.
//!
//! Lost when the server restarts: everything here is found again in the
//! extension's tables and the replication slots.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64};

use super::pace_memory::{JobPace, ServerPace};
use pgrx::{AssertPGRXSharedMemory, PgAtomic, PgLwLock, pg_guard, pg_shmem_init, pg_sys};

/// Jobs that one server can run at a time.
pub const JOBS_MAX: usize = 32;
/// Snapshot workers that one job can have at a time.
pub const SNAPSHOT_WORKERS_MAX: usize = 16;
/// Events kept in shared memory until a stream worker has stored them.
pub const EVENTS_MAX: usize = 256;
/// Databases that can wait for a scan at a time; more mean "scan all".
pub const SCANS_MAX: usize = 64;

/// Text of at most `N` bytes.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    len: u16,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// No text.
    pub const EMPTY: Self = Text { len: 0, bytes: [0; N] };

    /// Takes `text`, cut at a character border when it is too long.
    pub fn set(&mut self, text: &str) {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        self.len = end as u16;
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

/// A process that can be woken: its pid and its place in `ProcGlobal->allProcs`.
#[derive(Default)]
pub struct Process {
    /// 0 when there is none.
    pub pid: AtomicI32,
    /// Index into `allProcs`; valid while `pid` is not 0.
    pub procno: AtomicU32,
}

/// A job's numbers. See [`crate::worker::shmem`] for who writes what.
#[derive(Default)]
pub struct JobLive {
    /// The place is taken.
    pub in_use: AtomicBool,
    /// The job's database.
    pub database: AtomicU32,
    /// `worker::shmem::Desired`.
    pub desired: AtomicU32,
    /// `worker::shmem::State`.
    pub state: AtomicU32,
    /// The job's stream worker.
    pub stream: Process,
    /// The job's snapshot leader.
    pub leader: Process,
    /// The job's snapshot workers.
    pub snapshot_workers: [Process; SNAPSHOT_WORKERS_MAX],
    /// `worker::shmem::CopyPhase`.
    pub copy_phase: AtomicU32,
    /// The round of the copy; a new one for each snapshot.
    pub copy_id: AtomicU64,
    /// Moves when a table is put on hold: a late copy is due.
    pub late_wanted: AtomicU64,
    /// What `late_wanted` was when the last complete late copy began.
    pub late_done: AtomicU64,
    /// Handle of the copy plan's dynamic shared memory; 0 for none.
    pub plan_handle: AtomicU32,
    /// Steps after the data, done and in all.
    pub finish_done: AtomicU32,
    /// Steps after the data, in all.
    pub finish_total: AtomicU32,
    /// Full start of the job.
    pub generation: AtomicU64,
    /// When the worker last started, microseconds since 2000 (`TimestampTz`).
    pub started_at: AtomicI64,
    /// Failures since the last progress; decides the back-off.
    pub failures: AtomicU32,
    /// The launcher starts no worker before this time (`TimestampTz`).
    pub retry_at: AtomicI64,
    /// The stream worker sleeps: the next commit in its database wakes it.
    pub sleeping: AtomicBool,
    /// Until then no transaction is decoded before it ends, because one that was has changed the
    /// schema (`TimestampTz`).
    pub whole_until: AtomicI64,
    /// A backend waits for the shadow to hold everything before this position.
    pub wanted_lsn: AtomicU64,
    /// End of the last record decoded.
    pub decoded_lsn: AtomicU64,
    /// End of the last transaction or keepalive handed to the sender.
    pub sent_lsn: AtomicU64,
    /// What the shadow shows.
    pub applied_lsn: AtomicU64,
    /// What the shadow has made durable; where the slot is.
    pub flushed_lsn: AtomicU64,
    /// Commit time of the last transaction sent (`TimestampTz`).
    pub sent_commit_time: AtomicI64,
    /// Commit time of the last transaction the shadow shows, 0 when it shows all (`TimestampTz`).
    pub applied_commit_time: AtomicI64,
    /// Row changes sent since the worker started.
    pub stream_rows: AtomicU64,
    /// Bytes sent by the stream worker.
    pub stream_bytes: AtomicU64,
    /// Transactions sent.
    pub stream_transactions: AtomicU64,
    /// Rows copied in this round.
    pub copy_rows: AtomicU64,
    /// Bytes copied in this round.
    pub copy_bytes: AtomicU64,
    /// Microseconds spent waiting for the sender's socket.
    pub blocked_us: AtomicU64,
    /// Its rates, and the WAL it keeps.
    pub pace: JobPace,
}

/// What all processes see without a lock.
#[derive(Default)]
pub struct Live {
    /// The launcher.
    pub launcher: Process,
    /// The sender's pid when the launcher runs it.
    pub sender_pid: AtomicI32,
    /// How many stream workers sleep: one load on the commit path.
    pub sleepers: AtomicU32,
    /// Scan every database for jobs.
    pub scan_all: AtomicBool,
    /// Databases to scan for jobs; 0 for a free place.
    pub scans: [AtomicU32Array; 1],
    /// The jobs.
    pub jobs: [JobLive; JOBS_MAX],
    /// Why copies go slower, and the WAL's disk.
    pub pace: ServerPace,
}

/// An array of atomics with a default (arrays above 32 have none).
pub struct AtomicU32Array(pub [AtomicU32; SCANS_MAX]);

impl Default for AtomicU32Array {
    fn default() -> Self {
        AtomicU32Array([const { AtomicU32::new(0) }; SCANS_MAX])
    }
}

/// A job's texts.
#[derive(Clone, Copy)]
pub struct JobText {
    /// The job's name.
    pub name: Text<64>,
    /// The slot's name.
    pub slot: Text<64>,
    /// Name of the exported snapshot that the next one of the copy imports.
    pub snapshot: Text<64>,
    /// What the snapshot saw (`pg_snapshot` text), when the copy has its own.
    pub snapshot_seen: Text<2048>,
    /// What is going on or wrong.
    pub message: Text<512>,
    /// More about it.
    pub detail: Text<256>,
    /// What to do.
    pub hint: Text<256>,
    /// What the shadow is making after the data.
    pub finish_step: Text<128>,
    /// The shadow's database.
    pub shadow: Text<64>,
}

impl JobText {
    /// All empty.
    pub const EMPTY: Self = JobText {
        name: Text::EMPTY,
        slot: Text::EMPTY,
        snapshot: Text::EMPTY,
        snapshot_seen: Text::EMPTY,
        message: Text::EMPTY,
        detail: Text::EMPTY,
        hint: Text::EMPTY,
        finish_step: Text::EMPTY,
        shadow: Text::EMPTY,
    };
}

/// Something that happened.
#[derive(Clone, Copy)]
pub struct Event {
    /// Number, from 1 and without gaps; 0 for a free place.
    pub id: u64,
    /// When (`TimestampTz`).
    pub at: i64,
    /// Where.
    pub database: u32,
    /// `i`nfo, `w`arning or `e`rror.
    pub level: u8,
    /// The job's name.
    pub job: Text<64>,
    /// What happened.
    pub message: Text<512>,
    /// What to do.
    pub hint: Text<256>,
}

impl Event {
    /// As the view shows its level.
    pub fn level_name(&self) -> &'static str {
        match self.level {
            b'e' => "error",
            b'w' => "warning",
            _ => "info",
        }
    }
}

/// The texts, behind one lock.
pub struct Texts {
    /// One a job.
    pub jobs: [JobText; JOBS_MAX],
    /// What the launcher has to say (its own trouble, the sender's).
    pub launcher_message: Text<512>,
    /// Remedy of `launcher_message`.
    pub launcher_hint: Text<256>,
    /// The events, a ring: event n stands at n modulo the size.
    pub events: [Event; EVENTS_MAX],
    /// Number of the last event.
    pub last_event: u64,
}

impl Default for Texts {
    fn default() -> Self {
        let event = Event {
            id: 0,
            at: 0,
            database: 0,
            level: b'i',
            job: Text::EMPTY,
            message: Text::EMPTY,
            hint: Text::EMPTY,
        };
        Texts {
            jobs: [JobText::EMPTY; JOBS_MAX],
            launcher_message: Text::EMPTY,
            launcher_hint: Text::EMPTY,
            events: [event; EVENTS_MAX],
            last_event: 0,
        }
    }
}

// SAFETY: the names are this extension's own.
static LIVE: PgAtomic<AssertPGRXSharedMemory<Live>> = unsafe { PgAtomic::new(c"scry_backfill live") };
// SAFETY: as above.
static TEXTS: PgLwLock<AssertPGRXSharedMemory<Texts>> = unsafe { PgLwLock::new(c"scry_backfill texts") };
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Reserves the memory; only while `shared_preload_libraries` are loaded.
#[allow(unexpected_cfgs, reason = "pgrx's macro names all versions that pgrx knows")]
pub fn request() {
    REQUESTED.store(true, std::sync::atomic::Ordering::Relaxed);
    // SAFETY: the structs hold no pointers: atomics, integers and bytes, which mean the same in every process.
    pg_shmem_init!(LIVE = unsafe { AssertPGRXSharedMemory::new(Live::default()) });
    // SAFETY: as above.
    pg_shmem_init!(TEXTS = unsafe { AssertPGRXSharedMemory::new(Texts::default()) });
}

/// Whether the library was preloaded, so that there is shared memory at all.
pub fn available() -> bool {
    REQUESTED.load(std::sync::atomic::Ordering::Relaxed)
}

/// The numbers.
///
/// # Panics
/// Without [`available`].
pub fn live() -> &'static Live {
    LIVE.get()
}

/// Runs `read` under the shared lock. It must not call into PostgreSQL.
pub fn read_texts<R>(read: impl FnOnce(&Texts) -> R) -> R {
    read(&TEXTS.share())
}

/// Runs `write` under the exclusive lock. It must not call into PostgreSQL.
pub fn write_texts<R>(write: impl FnOnce(&mut Texts) -> R) -> R {
    write(&mut TEXTS.exclusive())
}
