//! Time, the network, the faults, and what must hold.
//!
//! One queue of events, ordered by time; every choice is drawn from one seeded
//! sequence, and nothing else decides: a seed has one story.

use crate::platform::Platform;
use crate::sender::{Link, Pipe};
use crate::shadow::{Content, Shadow};
use crate::source::{Source, TABLES};
use bytes::{Bytes, BytesMut};
use scry_sender::session::Event as Seen;
use scry_testkit::Rng;
use scry_wire::Lsn;
use scry_wire::message::CopyState;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// The field in front of a frame.
const LENGTH_BYTES: usize = 4;

/// A worker's connection to the sender.
pub type LinkId = u64;
/// A stream from the sender to the platform.
pub type PipeId = u64;

/// The rule that is broken on purpose, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// None is.
    Kept,
    /// The platform confirms what it has not committed.
    ConfirmBeforeCommit,
    /// The shadow commits without a flush.
    CommitNotFlushed,
    /// Rows and position are two transactions of the shadow.
    PositionApart,
    /// The platform applies what it has.
    NothingSkipped,
    /// Rows of a chunk and its line are two transactions.
    LedgerApart,
    /// The worker confirms to the slot what it has sent.
    ConfirmSent,
    /// The worker makes a new slot and goes on.
    SilentGap,
    /// The decoder forgets what a later snapshot saw.
    SnapshotForgotten,
    /// The shadow commits inside of a transaction of the source.
    HalfTransactions,
}

/// What happens at its time.
#[derive(Debug)]
pub enum Event {
    /// The source commits a transaction.
    Write,
    /// A fault strikes.
    Fault,
    /// No more faults.
    Calm,
    /// An attempt of the sender ends.
    Attempt(LinkId, u64),
    /// A back-off of the sender ends.
    Retry(LinkId, u64),
    /// Bytes reach the sender from a worker.
    ToSender(LinkId, Bytes),
    /// Bytes reach a worker from the sender.
    ToWorker(LinkId, Bytes),
    /// The sender sees that a worker has closed.
    WorkerClosed(LinkId),
    /// A worker sees that the sender has closed.
    SenderClosed(LinkId),
    /// Bytes reach the platform.
    Up(PipeId, Bytes),
    /// Bytes reach the sender from the platform.
    Down(PipeId, Bytes),
    /// The sender finds a stream broken.
    LostDown(PipeId),
    /// The platform finds a stream broken.
    LostUp(PipeId),
    /// A connection of the platform takes a step.
    Step(PipeId),
    /// The shadow commits.
    Commit(PipeId),
    /// The platform hears of it.
    Answer(PipeId),
    /// The stream worker begins.
    WorkerStarts(u64),
    /// The stream worker hands on.
    WorkerSends(u64),
    /// A leader (or a snapshot worker) connects again.
    Reopen(u64, bool),
    /// A program is started again.
    SenderStarts,
    /// As above.
    PlatformStarts,
    /// As above.
    ShadowStarts,
    /// As above.
    SourceStarts,
}

/// What was reached, in numbers.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    /// Transactions of the source.
    pub transactions: u64,
    /// Commits of the shadow.
    pub commits: u64,
    /// Moves of the slot.
    pub confirms: u64,
    /// Transactions that came again and were skipped.
    pub skipped: u64,
    /// Chunks that came again and were passed over.
    pub repeated: u64,
    /// Copies that were completed.
    pub copies: u64,
    /// Full starts after the first.
    pub starts_over: u64,
    /// Faults.
    pub faults: u64,
}

impl Figures {
    /// Adds another schedule's.
    pub fn add(&mut self, other: &Figures) {
        self.transactions += other.transactions;
        self.commits += other.commits;
        self.confirms += other.confirms;
        self.skipped += other.skipped;
        self.repeated += other.repeated;
        self.copies += other.copies;
        self.starts_over += other.starts_over;
        self.faults += other.faults;
    }

    /// Whether nothing is left out.
    pub fn saw_everything(&self) -> bool {
        let Figures { transactions, commits, confirms, skipped, repeated, copies, starts_over, faults } =
            self;
        [transactions, commits, confirms, skipped, repeated, copies, starts_over, faults]
            .iter()
            .all(|n| **n > 0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} transactions, {} faults, {} commits of the shadow, {} moves of the slot, {} transactions and {} \
             chunks that came again, {} copies, {} starts over",
            self.transactions,
            self.faults,
            self.commits,
            self.confirms,
            self.skipped,
            self.repeated,
            self.copies,
            self.starts_over
        )
    }
}

/// All of it.
pub struct World {
    /// The rule that is broken.
    pub rule: Rule,
    /// Where every choice comes from.
    pub rng: Rng,
    /// Microseconds since the beginning.
    pub now: u64,
    /// The source.
    pub source: Source,
    /// Whether the sender runs.
    pub sender_up: bool,
    /// The sender's connections from workers.
    pub links: BTreeMap<LinkId, Link>,
    /// Its streams to the platform.
    pub pipes: BTreeMap<PipeId, Pipe>,
    /// The platform.
    pub platform: Platform,
    /// The shadow.
    pub shadow: Shadow,
    /// What was reached.
    pub figures: Figures,
    queue: BTreeMap<(u64, u64), Event>,
    ids: u64,
    calm: bool,
    began: Instant,
    /// The highest position that was durable, by generation.
    durable: BTreeMap<u64, Lsn>,
    /// The position seen last: generation and LSN.
    position: (u64, Lsn),
    finding: Option<String>,
    story: Option<Vec<String>>,
}

impl World {
    /// The world of a seed. `tells`: it keeps its story.
    pub fn new(seed: u64, rule: Rule, tells: bool) -> World {
        World {
            rule,
            rng: Rng::new(seed),
            now: 0,
            source: Source::new(),
            sender_up: true,
            links: BTreeMap::new(),
            pipes: BTreeMap::new(),
            platform: Platform { up: true, ..Platform::default() },
            shadow: Shadow::new(),
            figures: Figures::default(),
            queue: BTreeMap::new(),
            ids: 0,
            calm: false,
            began: Instant::now(),
            durable: BTreeMap::new(),
            position: (0, Lsn::INVALID),
            finding: None,
            story: tells.then(Vec::new),
        }
    }

    /// Runs until all has arrived, or a rule is found broken.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..self.rng.below(12) {
            self.source_writes();
        }
        self.after(0, Event::WorkerStarts(0));
        let first = self.rng.below(50_000);
        self.after(first, Event::Write);
        self.after(1_000, Event::Fault);
        let calm_at = 1_000_000 + self.rng.below(5_000_000);
        self.after(calm_at, Event::Calm);
        while let Some(((at, _), event)) = self.queue.pop_first() {
            self.now = at;
            self.happen(event);
            if let Some(finding) = self.finding.take() {
                return Err(finding);
            }
            if self.calm && self.has_arrived() {
                self.figures.transactions = self.source.wal.len() as u64;
                return Ok(());
            }
            if self.now > calm_at + 120_000_000 {
                let (origin, job) = (&self.shadow.content.origin, &self.source.job);
                let Source { slot, up, .. } = &self.source;
                let stands = (origin.generation, origin.copy_id, origin.copy_state, origin.applied_lsn);
                return Err(format!(
                    "stuck: shadow {stands:?}, slot {slot:?}, source up {up}, {} links, {} streams, job {job:?}",
                    self.links.len(),
                    self.pipes.len()
                ));
            }
        }
        Err("nothing happens any more".to_owned())
    }

    /// The end of the story.
    pub fn story(&self) -> String {
        let story = self.story.as_deref().unwrap_or_default();
        story[story.len().saturating_sub(60)..].join("\n")
    }

    /// All of it.
    pub fn story_whole(&self) -> String {
        self.story.as_deref().unwrap_or_default().join("\n")
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Write => {
                self.source_writes();
                if !self.calm {
                    let after = 1_000 + self.rng.below(120_000);
                    self.after(after, Event::Write);
                }
            }
            Event::Fault => {
                if !self.calm {
                    self.fault();
                    let after = 5_000 + self.rng.below(500_000);
                    self.after(after, Event::Fault);
                }
            }
            Event::Calm => {
                self.say(|| "no more faults".to_owned());
                self.calm = true;
            }
            Event::Attempt(link, number) => self.attempt(link, number),
            Event::Retry(link, number) => self.retry(link, number),
            Event::ToSender(link, bytes) => self.takes_from_worker(link, bytes),
            Event::ToWorker(link, bytes) => self.worker_reads(link, &bytes),
            Event::WorkerClosed(link) => self.session(link, Seen::WorkerGone, None),
            Event::SenderClosed(link) => self.worker_closed(link),
            Event::Up(pipe, bytes) => {
                if self.pipes.get(&pipe).is_some_and(|ends| !ends.is_cut) {
                    self.platform_reads(pipe, &bytes);
                }
            }
            Event::Down(pipe, bytes) => self.takes_from_platform(pipe, &bytes),
            Event::LostDown(pipe) => self.pipe_lost(pipe),
            Event::LostUp(pipe) => {
                self.conn_ends(pipe, None);
                // The sender may have to find out by itself yet.
                let link = self.pipes.get(&pipe).and_then(|ends| self.links.get(&ends.link));
                if link.is_none_or(|link| link.pipe != Some(pipe)) {
                    self.pipes.remove(&pipe);
                }
            }
            Event::Step(pipe) => self.platform_step(pipe),
            Event::Commit(pipe) => self.commit(pipe),
            Event::Answer(pipe) => self.answer(pipe),
            Event::WorkerStarts(incarnation) => self.worker_starts(incarnation),
            Event::WorkerSends(incarnation) => self.worker_sends(incarnation),
            Event::Reopen(incarnation, is_lead) => self.reopen(incarnation, is_lead),
            Event::SenderStarts => self.sender_up = true,
            Event::PlatformStarts => self.platform.up = true,
            Event::ShadowStarts => self.shadow.up = true,
            Event::SourceStarts => {
                self.source.up = true;
                // Its end of recovery is a record, too.
                self.source.end.0 += 50;
                let incarnation = self.source.incarnation;
                self.after(10_000, Event::WorkerStarts(incarnation));
            }
        }
    }

    fn fault(&mut self) {
        self.figures.faults += 1;
        let pipes: Vec<PipeId> = self.pipes.keys().copied().collect();
        let pipe = self.rng.pick(&pipes).copied();
        match (self.rng.below(100), pipe) {
            (0..=19, Some(pipe)) => self.cut(pipe, 30_000),
            // Both ends stay connected to silence, one of them for long.
            (20..=29, Some(pipe)) => self.cut(pipe, 3_000_000),
            (30..=41, Some(pipe)) => {
                if let Some(ends) = self.pipes.get_mut(&pipe) {
                    ends.flip = true;
                }
            }
            (42..=50, _) if self.sender_up => self.sender_ends(false),
            (51..=55, _) if self.sender_up => self.sender_ends(true),
            (56..=64, _) if self.platform.up => self.platform_ends(false),
            (65..=69, _) if self.platform.up => self.platform_ends(true),
            (70..=77, _) if self.shadow.up => self.shadow_ends(),
            (78..=85, _) => self.worker_ends("it is terminated"),
            (86..=89, _) if self.source.up => self.source_ends(),
            (90..=93, _) => self.lose_the_slot(),
            (94..=95, _) => self.shadow_of_yesterday(),
            _ => {
                // A checkpoint saves the slot.
                if let Some(slot) = &mut self.source.slot {
                    slot.saved = slot.confirmed;
                }
            }
        }
    }

    /// Somebody drops the slot, makes another one of its name, or the server invalidates it.
    fn lose_the_slot(&mut self) {
        let how = self.rng.below(3);
        let end = self.source.end;
        let Some(slot) = &mut self.source.slot else { return };
        match how {
            0 => self.source.slot = None,
            // One that begins here is behind nothing: with a shadow that has all of it there is no gap.
            1 => (slot.confirmed, slot.saved) = (end, end),
            _ => slot.invalidated = true,
        }
        self.source.may_start_over = true;
        self.say(|| format!("the slot is lost in way {how}"));
        // Whoever holds a slot is ended before it goes.
        self.worker_ends("its slot is gone");
    }

    /// The shadow is restored to an older state, or an old state is kept for that.
    fn shadow_of_yesterday(&mut self) {
        match self.shadow.backup.take() {
            Some(old) if self.shadow.content.origin.copy_state == CopyState::Copied => {
                self.say(|| "the shadow is restored to an older state".to_owned());
                self.shadow_ends();
                (self.shadow.content, self.shadow.durable) = (old.clone(), old);
                self.source.may_start_over = true;
                // It is another history as far as the checks below go.
                self.position = (0, Lsn::INVALID);
            }
            _ => self.shadow.backup = Some(self.shadow.content.clone()),
        }
    }

    fn cut(&mut self, pipe: PipeId, silence: u64) {
        let Some(ends) = self.pipes.get_mut(&pipe).filter(|ends| !ends.is_cut) else { return };
        ends.is_cut = true;
        self.say(|| format!("stream {pipe} is cut, for as long as {silence}"));
        let (down, up) = (self.rng.below(silence), self.rng.below(silence));
        self.after(down, Event::LostDown(pipe));
        self.after(up, Event::LostUp(pipe));
    }

    /// A chance in percent that is none when there are no more faults.
    pub fn trouble(&self, percent: u64) -> u64 {
        if self.calm { 0 } else { percent }
    }

    /// Whether the platform dies at this very step; if so it has.
    pub fn platform_dies(&mut self) -> bool {
        let dies = self.strikes() && self.platform.up;
        if dies {
            self.platform_ends(false);
        }
        dies
    }

    /// As `platform_dies`.
    pub fn sender_dies(&mut self) -> bool {
        let dies = self.strikes() && self.sender_up;
        if dies {
            self.sender_ends(false);
        }
        dies
    }

    /// As `platform_dies`.
    pub fn worker_dies(&mut self) -> bool {
        let dies = self.strikes();
        if dies {
            self.worker_ends("it fails");
        }
        dies
    }

    fn strikes(&mut self) -> bool {
        !self.calm && self.rng.below(400) == 0
    }

    /// An event in so many microseconds.
    pub fn after(&mut self, micros: u64, event: Event) {
        self.at(self.now + micros, event);
    }

    fn at(&mut self, at: u64, event: Event) {
        self.ids += 1;
        self.queue.insert((at, self.ids), event);
    }

    /// A number that nothing else has.
    pub fn new_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// The simulated moment, for who wants an `Instant`.
    pub fn instant(&self) -> Instant {
        self.began + Duration::from_micros(self.now)
    }

    /// A frame on its way to the platform, in pieces, in order.
    pub fn send_up(&mut self, pipe: PipeId, mut bytes: Bytes) {
        let flip = self.pipes.get_mut(&pipe).is_some_and(|ends| std::mem::take(&mut ends.flip));
        if flip {
            bytes = self.flipped(&bytes);
        }
        while !bytes.is_empty() {
            let part = bytes.split_to((1 + self.rng.below(200) as usize).min(bytes.len()));
            let delay = self.rng.below(2_000);
            let now = self.now;
            let Some(ends) = self.pipes.get_mut(&pipe) else { return };
            ends.up_at = ends.up_at.max(now + delay);
            let at = ends.up_at;
            self.at(at, Event::Up(pipe, part));
        }
    }

    /// Not in the length: one that has grown makes the platform wait for bytes that do not come, which
    /// ends when the connection does.
    fn flipped(&mut self, frame: &Bytes) -> Bytes {
        let mut frame = BytesMut::from(&frame[..]);
        let at = LENGTH_BYTES + self.rng.below((frame.len() - LENGTH_BYTES) as u64) as usize;
        frame[at] ^= 1 << self.rng.below(8);
        self.say(|| "a bit is flipped".to_owned());
        frame.freeze()
    }

    /// Bytes on their way to the sender.
    pub fn send_down(&mut self, pipe: PipeId, bytes: Bytes) {
        let delay = self.rng.below(2_000);
        let now = self.now;
        let Some(ends) = self.pipes.get_mut(&pipe) else { return };
        ends.down_at = ends.down_at.max(now + delay);
        let at = ends.down_at;
        self.at(at, Event::Down(pipe, bytes));
    }

    /// The platform has closed its end, after what it sent.
    pub fn platform_closed(&mut self, pipe: PipeId) {
        let now = self.now;
        let Some(ends) = self.pipes.get_mut(&pipe).filter(|ends| !ends.is_cut) else { return };
        ends.down_at = ends.down_at.max(now + 100);
        let at = ends.down_at;
        self.at(at, Event::LostDown(pipe));
    }

    /// The sender has closed its end.
    pub fn close_pipe(&mut self, pipe: PipeId) {
        let delay = self.rng.below(3_000);
        let now = self.now;
        let Some(ends) = self.pipes.get_mut(&pipe) else { return };
        let at = if ends.is_cut { now + 1_000 * delay } else { ends.up_at.max(now + delay) };
        self.at(at, Event::LostUp(pipe));
    }

    /// Bytes on their way from a worker to the sender.
    pub fn send_to_sender(&mut self, link: LinkId, bytes: Bytes) {
        let delay = self.rng.below(200);
        let now = self.now;
        let Some(ends) = self.links.get_mut(&link) else { return };
        ends.to_sender_at = ends.to_sender_at.max(now + delay);
        let at = ends.to_sender_at;
        self.at(at, Event::ToSender(link, bytes));
    }

    /// Bytes on their way from the sender to a worker.
    pub fn send_to_worker(&mut self, link: LinkId, bytes: Bytes) {
        let delay = self.rng.below(200);
        let now = self.now;
        let Some(ends) = self.links.get_mut(&link) else { return };
        ends.to_worker_at = ends.to_worker_at.max(now + delay);
        let at = ends.to_worker_at;
        self.at(at, Event::ToWorker(link, bytes));
    }

    /// The sender has closed its end towards a worker.
    pub fn sender_closed(&mut self, link: LinkId) {
        let now = self.now;
        let Some(ends) = self.links.get_mut(&link) else { return };
        let at = ends.to_worker_at.max(now + 100);
        self.at(at, Event::SenderClosed(link));
    }

    /// A line of the story.
    pub fn say(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9.3} ms  {}", now as f64 / 1000.0, line()));
        }
    }

    /// A rule is broken.
    pub fn found(&mut self, what: String) {
        self.say(|| format!("FOUND: {what}"));
        self.finding.get_or_insert(what);
    }

    /// The highest position of a generation that was ever durable.
    pub fn durable_lsn(&self, generation: u64) -> Lsn {
        self.durable.get(&generation).copied().unwrap_or_default()
    }

    /// After each commit of the shadow.
    pub fn look_at_the_shadow(&mut self) {
        let origin = &self.shadow.durable.origin;
        let (generation, applied) = (origin.generation, origin.applied_lsn);
        self.durable.entry(generation).or_default().advance(applied);
        if self.position.0 == generation && applied < self.position.1 {
            let before = self.position.1;
            self.found(format!("the position went back from {before} to {applied}"));
        }
        self.position = (generation, applied);
        let Some(line) = self.difference() else { return };
        self.found(line);
    }

    /// The first row that is not there as often as it must be, when the shadow is complete.
    fn difference(&self) -> Option<String> {
        let Content { rows, origin, .. } = &self.shadow.content;
        let job = &self.source.job;
        if origin.generation != job.generation || origin.copy_state != CopyState::Copied {
            return None;
        }
        let position = origin.applied_lsn.max(job.began);
        let mut wanted = 0;
        for transaction in &self.source.wal {
            for row in &transaction.rows {
                let seen = job.seen.get(&row.0).is_some_and(|seen| seen.saw(transaction.xid));
                let must = u32::from(transaction.end <= position || seen);
                let is = rows.get(row).copied().unwrap_or_default();
                wanted += u64::from(must);
                if is != must {
                    let xid = transaction.xid;
                    return Some(format!(
                        "row {row:?} of transaction {xid} is there {is} times, not {must}, at {position}"
                    ));
                }
            }
        }
        let total: u64 = rows.values().map(|count| u64::from(*count)).sum();
        (total != wanted || rows.keys().any(|row| row.0 >= TABLES))
            .then(|| format!("rows are there {total} times, not {wanted}"))
    }

    /// Whether the shadow and the slot have all that the source has.
    fn has_arrived(&self) -> bool {
        let Content { origin, .. } = &self.shadow.content;
        let last = self.source.wal.last().map_or(Lsn::INVALID, |transaction| transaction.end);
        self.source.slot.is_some_and(|slot| slot.confirmed >= last)
            && origin.copy_state_of(self.source.job.generation) == CopyState::Copied
            // A shadow that has just been copied stands where the slot began.
            && origin.applied_lsn.max(self.source.job.began) >= last
    }
}
