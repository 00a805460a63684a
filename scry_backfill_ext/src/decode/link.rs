//! The stream's connection: frames go out, confirmations come back and move
//! the slot.
//!
//! ```text
//! output ──frame──► handoff          slot ◄── confirmed, at most up to what is noted
//!                      │               ▲
//!                      └──► answers ───┘
//! ```
//!
//! Invariants: the slot moves only to what has been sent and confirmed as
//! flushed (delivery contract, rule 2), and not past a transaction that has
//! changed the job's tables before that change is noted in the job's row. A
//! lost connection ends the process.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::Duration;

use scry_wire::Lsn;
use scry_wire::frame::{Frame, Tag};
use scry_wire::message::{Confirm, Message, TableMark, TableMarks};

use crate::confirm::Progress;
use crate::failpoint::{self, step};
use crate::handoff::{Handoff, Lost, bad_frame};
use crate::pg::decoding::Decoder;
use crate::pg::shared::JobLive;
use crate::pg::worker;
use crate::worker::session;
use crate::worker::shmem::{JobRef, Level, State};

/// The connection and what is known of the other side.
pub struct Link {
    handoff: Handoff,
    answers: Answers,
    watch: Box<dyn FnMut(JobRef)>,
}

/// What the platform has said, and what still waits for its word.
struct Answers {
    job: JobRef,
    live: &'static JobLive,
    progress: Progress,
    /// End and commit time of transactions that the shadow does not show yet.
    pending: VecDeque<(Lsn, i64)>,
    /// The first transaction that changed the job's tables, until that is noted.
    unnoted: Option<Lsn>,
    /// Tables with refused changes, as told last, until that is noted.
    marks: Option<Vec<TableMark>>,
}

impl Link {
    /// A welcomed connection to a platform that is as far as `progress` says.
    /// `watch` is called whenever the worker waits, and may end the process.
    pub fn new(job: JobRef, handoff: Handoff, progress: Progress, watch: Box<dyn FnMut(JobRef)>) -> Link {
        let answers =
            Answers { job, live: job.live(), progress, pending: VecDeque::new(), unnoted: None, marks: None };
        Link { handoff, answers, watch }
    }

    pub fn job(&self) -> JobRef {
        self.answers.job
    }

    pub fn live(&self) -> &'static JobLive {
        self.answers.live
    }

    /// Up to here everything has left.
    pub fn sent_lsn(&self) -> Lsn {
        self.answers.progress.sent_lsn()
    }

    /// What follows in the next frames ends up to here.
    pub fn sent(&mut self, lsn: Lsn) {
        self.answers.progress.sent(lsn);
    }

    /// A transaction has been written whose visibility on the shadow counts for the lag.
    pub fn await_answer(&mut self, end: Lsn, commit_time: i64) {
        if self.answers.pending.len() < PENDING_MAX {
            self.answers.pending.push_back((end, commit_time));
        }
    }

    /// From now on nothing behind `lsn` is confirmed to the slot, unless an
    /// earlier limit holds already.
    pub fn confirm_up_to(&mut self, lsn: Lsn) {
        self.answers.unnoted.get_or_insert(lsn);
    }

    /// A limit is set.
    pub fn waits_for_notes(&self) -> bool {
        self.answers.unnoted.is_some()
    }

    /// What the limit stood for has been noted.
    pub fn confirm_all(&mut self) {
        self.answers.unnoted = None;
    }

    /// Tables with refused changes, if the platform has told of them since.
    pub fn take_marks(&mut self) -> Option<Vec<TableMark>> {
        self.answers.marks.take()
    }

    /// Time spent waiting for the other side to read, in microseconds, since the last call.
    pub fn take_blocked_us(&mut self) -> u64 {
        self.handoff.take_blocked().as_micros() as u64
    }

    /// Looks after what else the process is there for.
    pub fn watch(&mut self) {
        (self.watch)(self.answers.job);
    }

    /// Hands a frame on, and takes answers while it waits.
    pub fn send(&mut self, frame: &[u8]) {
        let (answers, watch) = (&mut self.answers, &mut self.watch);
        let sent = self.handoff.send(frame, |frames| {
            watch(answers.job);
            answers.take(frames)
        });
        if let Err(lost) = sent {
            self.end(&lost);
        }
    }

    /// Reads what has come in, without waiting.
    pub fn receive(&mut self) {
        if let Err(lost) = self.handoff.read() {
            self.end(&lost);
        }
        self.take();
    }

    /// Waits for the latch, for answers, or for `timeout`; true if it was the latch.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        match self.handoff.wait(timeout) {
            Ok(woken) => {
                self.take();
                self.watch();
                woken.latch
            }
            Err(lost) => self.end(&lost),
        }
    }

    fn take(&mut self) {
        if let Err(lost) = self.answers.take(self.handoff.frames()) {
            self.end(&lost);
        }
    }

    /// The connection is gone: so is this process, to be started again.
    fn end(&self, lost: &Lost) -> ! {
        let job = self.answers.job;
        job.say(&lost.message, "", &lost.hint);
        job.event(Level::Warning, &lost.message, &lost.hint);
        job.set_state(State::Connecting);
        pgrx::log!("scry_backfill: job \"{}\": {}", job.name(), lost.message);
        worker::exit(1)
    }
}

impl Answers {
    /// Takes the answers that have come in.
    fn take(&mut self, frames: &mut VecDeque<Frame>) -> Result<(), Lost> {
        while let Some(frame) = frames.pop_front() {
            if frame.tag() == Tag::TableMarks {
                self.marks = Some(TableMarks::from_frame(&frame).map_err(|e| bad_frame(&e))?.tables);
                continue;
            }
            if frame.tag() != Tag::Confirm {
                session::other_frame(self.job, &frame)?;
                continue;
            }
            let confirm = Confirm::from_frame(&frame).map_err(|e| bad_frame(&e))?;
            if self.unnoted.is_some_and(|lsn| confirm.flushed_lsn > lsn) {
                // The slot must not move past what is not noted yet.
                frames.push_front(frame);
                return Ok(());
            }
            self.confirm(confirm)?;
        }
        Ok(())
    }

    fn confirm(&mut self, confirm: Confirm) -> Result<(), Lost> {
        let (live, progress) = (self.live, &mut self.progress);
        let moved = progress.confirm(confirm).map_err(|lie| Lost {
            message: format!("the platform confirmed {}, but only {} had been sent", lie.confirmed, lie.sent),
            hint: "The confirmation was not believed. Check what scry_backfill.endpoint leads to.".to_owned(),
        })?;
        if let Some(flushed) = moved {
            failpoint::hit(step::CONFIRM_RECEIVED);
            Decoder::confirm(flushed);
            failpoint::hit(step::SLOT_CONFIRMED);
            live.flushed_lsn.store(flushed.0, Relaxed);
            live.failures.store(0, Relaxed);
        }
        while self.pending.front().is_some_and(|(end, _)| *end <= progress.applied_lsn()) {
            if let Some((_, time)) = self.pending.pop_front() {
                live.applied_commit_time.store(time, Relaxed);
            }
        }
        if self.pending.is_empty() {
            // The shadow shows all that was sent: there is no lag to count.
            live.applied_commit_time.store(0, Relaxed);
        }
        live.applied_lsn.store(progress.applied_lsn().0, Release);
        Ok(())
    }
}

/// Transactions whose times are kept for the lag; older ones stand for younger ones beyond it.
const PENDING_MAX: usize = 4096;
