//! A worker's connection: hello, and what comes back until welcome.
//!
//! While the sender or the platform cannot be reached the worker waits on its
//! latch and `status` shows why. Nothing here gives up by itself but a refusal
//! that a new attempt cannot change: that is an error, and the launcher tries
//! the worker again with its back-off.

use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};
use scry_wire::frame::{Frame, Tag};
use scry_wire::message::{Hello, Level as NoticeLevel, Message, Notice, Refuse, Role, Welcome};

use super::job::Job;
use super::shmem::{Desired, JobRef, Level, State};
use crate::guc;
use crate::handoff::{Handoff, Lost, bad_frame};
use crate::pg::{latch, server, wal, worker};

/// Who connects: the same for all connections of a worker.
#[derive(Debug, Clone)]
pub struct Identity {
    hello: Hello,
}

impl Identity {
    /// The identity of this worker's job. `database_name` is this database's.
    pub fn new(job: &Job, role: Role, database_name: &str) -> Identity {
        Identity { hello: hello(&job.name, job.generation, role, database_name) }
    }
}

/// The hello of a connection of this database's job.
pub fn hello(job: &str, generation: u64, role: Role, database_name: &str) -> Hello {
    let (version_min, version_max) = Hello::versions();
    Hello {
        version_min,
        version_max,
        role,
        system_identifier: wal::system_identifier(),
        timeline: wal::timeline(),
        database_oid: server::database(),
        server_version_num: server::version_num(),
        generation,
        database: database_name.to_owned(),
        job: job.to_owned(),
        shadow_id: guc::shadow_id(),
        encoding: server::encoding(),
        software: concat!("scry_backfill ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// A connection that the platform has welcomed.
pub struct Session {
    /// The connection.
    pub handoff: Handoff,
    /// What the platform said.
    pub welcome: Welcome,
}

/// Connects until the platform says welcome; ends the process when the user
/// wants the job to stop or pause meanwhile (a pause only if `may_pause`).
pub fn open(job: JobRef, identity: &Identity, may_pause: bool) -> Session {
    let mut wait = RETRY_FIRST;
    loop {
        leave_if_unwanted(job, may_pause);
        match attempt(job, identity, may_pause) {
            Ok(session) => {
                job.say("", "", "");
                return session;
            }
            Err(lost) => {
                job.say(&lost.message, "", &lost.hint);
                latch::wait(wait);
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

/// Ends the process, all being well, when the user does not want the job to run.
pub fn leave_if_unwanted(job: JobRef, may_pause: bool) {
    match job.desired() {
        Desired::Run => {}
        Desired::Pause if !may_pause => {}
        Desired::Pause => {
            job.set_state(State::Paused);
            worker::exit(0);
        }
        Desired::GiveUp => worker::exit(0),
        Desired::Stop => {
            job.set_state(State::Stopped);
            worker::exit(0);
        }
    }
}

/// A round of a copy, as its leader and its workers see it.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// The job.
    pub job: JobRef,
    /// The round's number.
    pub copy_id: u64,
    /// Single tables are copied while the stream goes on.
    pub late: bool,
}

impl Round {
    /// Ends the process when the user does not want the job to run, or when
    /// the stream worker has begun another round. A pause does not end a copy:
    /// its snapshot would be lost. A late copy ends with the stream.
    pub fn leave_if_over(self) {
        if self.late && self.job.desired() != Desired::Run {
            worker::exit(0);
        }
        leave_if_unwanted(self.job, false);
        if self.job.live().copy_id.load(Acquire) != self.copy_id {
            worker::exit(0);
        }
    }

    /// Waits as long as the user wants the job to pause.
    pub fn wait_while_paused(self) {
        while self.job.desired() == Desired::Pause {
            latch::wait(PAUSE_TICK);
            self.leave_if_over();
        }
        self.leave_if_over();
    }
}

fn attempt(job: JobRef, identity: &Identity, may_pause: bool) -> Result<Session, Lost> {
    let mut handoff = Handoff::connect()?;
    handoff.send(&identity.hello.to_frame(), |_| Ok(()))?;
    loop {
        while let Some(frame) = handoff.next_frame() {
            match frame.tag() {
                Tag::Welcome => {
                    let welcome = Welcome::from_frame(&frame).map_err(|e| bad_frame(&e))?;
                    job.write_texts(|texts| texts.shadow.set(&welcome.shadow));
                    return Ok(Session { handoff, welcome });
                }
                _ => other_frame(job, &frame)?,
            }
        }
        handoff.wait(WAIT_TICK)?;
        leave_if_unwanted(job, may_pause);
    }
}

/// Deals with the frames that may come at any time: notices are shown, a
/// refusal ends the connection, anything else is an error.
pub fn other_frame(job: JobRef, frame: &Frame) -> Result<(), Lost> {
    match frame.tag() {
        Tag::Notice => {
            let notice = Notice::from_frame(frame).map_err(|e| bad_frame(&e))?;
            show_notice(job, &notice);
            Ok(())
        }
        Tag::Refuse => {
            let refuse = Refuse::from_frame(frame).map_err(|e| bad_frame(&e))?;
            if refuse.retry {
                return Err(Lost { message: refuse.message, hint: refuse.hint });
            }
            refused(&refuse)
        }
        tag => Err(Lost {
            message: format!("the sender sent an unexpected frame {:?}", tag.as_char()),
            hint: "Use a sender and a platform of the same release as the extension.".to_owned(),
        }),
    }
}

fn show_notice(job: JobRef, notice: &Notice) {
    // For the record: what stands in the status stays there.
    if notice.level == NoticeLevel::Info && !notice.message.is_empty() {
        job.event(Level::Warning, &notice.message, &notice.hint);
        return;
    }
    let changed = job.texts().message.as_str() != notice.message;
    job.say(&notice.message, "", &notice.hint);
    if changed && !notice.message.is_empty() {
        let level = match notice.level {
            NoticeLevel::Info => Level::Info,
            NoticeLevel::Warning => Level::Warning,
            NoticeLevel::Error => Level::Error,
        };
        job.event(level, &notice.message, &notice.hint);
    }
}

/// Raises what the platform refused as an error of this worker.
fn refused(refuse: &Refuse) -> ! {
    let mut report = ErrorReport::new(
        PgSqlErrorCode::ERRCODE_CONNECTION_EXCEPTION,
        refuse.message.clone(),
        "scry_backfill",
    );
    if !refuse.detail.is_empty() {
        report = report.set_detail(refuse.detail.clone());
    }
    if !refuse.hint.is_empty() {
        report = report.set_hint(refuse.hint.clone());
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("an error has been raised")
}

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
const WAIT_TICK: Duration = Duration::from_secs(1);
const PAUSE_TICK: Duration = Duration::from_millis(500);
