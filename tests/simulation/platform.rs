//! The platform's half of the world: connections by role, around the program's
//! own `course`, `order` and `chunk`.
//!
//! What a transaction does to the shadow happens in two events, its COMMIT and
//! the answer to it, and anything may come between: then the commit is there,
//! or is not, and nobody has been told.

use crate::shadow::{Row, Work};
use crate::world::{Event, PipeId, Rule, World};
use bytes::{Bytes, BytesMut};
use scry_platform::apply::chunk::{Chunk, Rows};
use scry_platform::apply::course::{Course, Step};
use scry_platform::apply::order::Turn;
use scry_wire::Lsn;
use scry_wire::codec::Reader;
use scry_wire::frame::{Frame, Tag};
use scry_wire::message::change::{Assembler, Begin, Change, Commit};
use scry_wire::message::{
    CatalogApplied, ChunkEnd, ChunkStart, Confirm, CopyFinish, CopyFinished, CopyState, Hello, Message,
    Refuse, RefuseKind, Role, Welcome,
};
use std::collections::{BTreeMap, VecDeque};

/// The program.
#[derive(Debug, Default)]
pub struct Platform {
    /// Whether it runs.
    pub up: bool,
    /// Its connections.
    pub conns: BTreeMap<PipeId, Conn>,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Conn {
    hello: Option<Hello>,
    bytes: BytesMut,
    frames: VecDeque<Frame>,
    damaged: Option<String>,
    stepping: bool,
    /// The COMMIT under way, and whether the shadow has done it.
    pending: Option<(Work, bool)>,
    stream: Option<Stream>,
    chunk: Option<(Chunk, ChunkStart, Rows, Vec<Row>)>,
}

/// A stream that is read.
#[derive(Debug)]
struct Stream {
    course: Course,
    assembler: Assembler,
    changes: VecDeque<Own>,
    rows: Vec<Row>,
    step: Option<Step>,
}

/// A change that owns what it holds.
#[derive(Debug)]
enum Own {
    Begin(Begin),
    Insert(Row),
    Commit(Commit),
    Keepalive(Lsn),
}

/// How a step went.
enum Went {
    /// There may be more to do at once.
    On,
    /// Something must happen first.
    Waits,
    /// The connection is over.
    Over(Refuse),
}

fn refuse(kind: RefuseKind, message: impl Into<String>) -> Went {
    let (detail, hint) = (String::new(), String::new());
    Went::Over(Refuse { kind, retry: true, message: message.into(), detail, hint })
}

impl World {
    /// A stream has been opened.
    pub fn platform_accepts(&mut self, pipe: PipeId) {
        self.platform.conns.insert(pipe, Conn::default());
    }

    /// Bytes of the sender have come in.
    pub fn platform_reads(&mut self, pipe: PipeId, bytes: &Bytes) {
        let Some(conn) = self.platform.conns.get_mut(&pipe) else { return };
        if conn.damaged.is_some() {
            return;
        }
        conn.bytes.extend_from_slice(bytes);
        loop {
            match Frame::take(&mut conn.bytes) {
                Ok(Some(frame)) => conn.frames.push_back(frame),
                Ok(None) => break,
                Err(error) => {
                    // What came before it whole is good.
                    conn.damaged = Some(error.to_string());
                    break;
                }
            }
        }
        self.platform_wakes(pipe);
    }

    fn platform_wakes(&mut self, pipe: PipeId) {
        let after = self.rng.below(800);
        let Some(conn) = self.platform.conns.get_mut(&pipe) else { return };
        if !std::mem::replace(&mut conn.stepping, true) {
            self.after(after, Event::Step(pipe));
        }
    }

    /// The connection does its next step.
    pub fn platform_step(&mut self, pipe: PipeId) {
        if self.platform_dies() {
            return;
        }
        let Some(mut conn) = self.platform.conns.remove(&pipe) else { return };
        conn.stepping = false;
        let went = if conn.pending.is_some() { Went::Waits } else { self.conn_step(pipe, &mut conn) };
        self.platform.conns.insert(pipe, conn);
        match went {
            Went::On => self.platform_wakes(pipe),
            Went::Waits => {}
            Went::Over(refuse) => self.conn_ends(pipe, Some(&refuse)),
        }
    }

    fn conn_step(&mut self, pipe: PipeId, conn: &mut Conn) -> Went {
        if !self.shadow.up {
            return refuse(RefuseKind::Unreachable, "the shadow cannot be reached");
        }
        let Some(role) = conn.hello.as_ref().map(|hello| hello.role) else {
            return self.greet(pipe, conn);
        };
        match role {
            Role::Stream => self.stream_step(pipe, conn),
            Role::Lead => self.lead_step(pipe, conn),
            Role::Copy => self.copy_step(pipe, conn),
            Role::Verify => Went::Waits,
        }
    }

    fn greet(&mut self, pipe: PipeId, conn: &mut Conn) -> Went {
        let Some(frame) = conn.frames.pop_front() else { return idle(conn) };
        let Ok(hello) = Hello::from_frame(&frame) else {
            return refuse(RefuseKind::Protocol, "that is no hello");
        };
        // The newest of a role that has one seat takes it; the old one's transaction ends first.
        let others: Vec<PipeId> = self.platform.conns.keys().copied().collect();
        for other in others {
            let role = self.platform.conns.get(&other).and_then(|c| c.hello.as_ref()).map(|h| h.role);
            if role == Some(hello.role) && hello.role != Role::Copy {
                let busy = match refuse(RefuseKind::Busy, "another connection has taken over") {
                    Went::Over(refuse) => Some(refuse),
                    _ => None,
                };
                self.conn_ends(other, busy.as_ref());
            }
        }
        let origin = &self.shadow.content.origin;
        let welcome = Welcome {
            version: hello.version_max,
            applied_lsn: origin.applied_lsn_of(hello.generation),
            flushed_lsn: origin.applied_lsn_of(hello.generation),
            copy_state: origin.copy_state_of(hello.generation),
            generation: origin.generation,
            timeline: origin.timeline,
            copy_id: origin.copy_id,
            takes_stored: false,
            shadow: String::new(),
            software: String::new(),
        };
        if hello.role == Role::Copy && welcome.copy_state == CopyState::None {
            return refuse(RefuseKind::Busy, "no copy of this generation is under way");
        }
        conn.hello = Some(hello);
        self.send_down(pipe, welcome.to_frame().into());
        Went::On
    }

    fn stream_step(&mut self, pipe: PipeId, conn: &mut Conn) -> Went {
        let Some(generation) = conn.hello.as_ref().map(|hello| hello.generation) else { return Went::Waits };
        let origin = &self.shadow.content.origin;
        let copied = origin.copy_state_of(generation) == CopyState::Copied;
        let Some(stream) = &mut conn.stream else {
            if copied {
                conn.stream = Some(Stream {
                    course: Course::new(origin.applied_lsn),
                    assembler: Assembler::new(),
                    changes: VecDeque::new(),
                    rows: Vec::new(),
                    step: None,
                });
                return Went::On;
            }
            // Until the copy is complete: its end wakes this.
            return if conn.damaged.is_some() { idle(conn) } else { Went::Waits };
        };
        if !copied {
            return refuse(RefuseKind::Busy, "the shadow has been given to another history");
        }
        if let Some(change) = stream.changes.pop_front() {
            let is_commit = matches!(change, Own::Commit(_));
            if let Err(error) = self.change(stream, change) {
                self.found(format!("the platform refused the order of the changes: {error}"));
                return refuse(RefuseKind::Protocol, error);
            }
            let early = self.rule == Rule::HalfTransactions && stream.course.in_transaction();
            if early && !stream.rows.is_empty() && self.rng.chance(20) {
                let at = stream.course.applied();
                let step = Step { from: at, to: at };
                return self.commits(pipe, conn, step, generation);
            }
            if is_commit && self.rng.chance(15) {
                return self.settle(pipe, conn, generation);
            }
            return Went::On;
        }
        if let Some(frame) = conn.frames.pop_front() {
            let read = match stream.assembler.push(&frame) {
                Ok(Some(bytes)) => read_changes(&bytes, &mut stream.changes),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            return match read {
                Ok(()) => Went::On,
                Err(error) => refuse(RefuseKind::Protocol, error.to_string()),
            };
        }
        match self.settle(pipe, conn, generation) {
            Went::On => idle(conn),
            other => other,
        }
    }

    fn change(&mut self, stream: &mut Stream, change: Own) -> Result<(), String> {
        let nothing_skipped = self.rule == Rule::NothingSkipped;
        let course = &mut stream.course;
        match change {
            Own::Begin(begin) => {
                if course.begin(begin).map_err(|e| e.to_string())? == Turn::Skip {
                    self.figures.skipped += 1;
                }
            }
            Own::Insert(row) => {
                if course.change().map_err(|e| e.to_string())? == Turn::Apply || nothing_skipped {
                    stream.rows.push(row);
                }
            }
            Own::Commit(commit) => {
                course.commit(commit).map_err(|e| e.to_string())?;
            }
            Own::Keepalive(lsn) => course.keepalive(lsn),
        }
        Ok(())
    }

    /// Commits what is whole, if there is anything.
    fn settle(&mut self, pipe: PipeId, conn: &mut Conn, generation: u64) -> Went {
        let Some(stream) = &mut conn.stream else { return Went::Waits };
        match stream.course.step() {
            Some(step) if step.to > step.from || !stream.rows.is_empty() => {
                self.commits(pipe, conn, step, generation)
            }
            _ => Went::On,
        }
    }

    fn commits(&mut self, pipe: PipeId, conn: &mut Conn, step: Step, generation: u64) -> Went {
        let Some(stream) = &mut conn.stream else { return Went::Waits };
        let rows = std::mem::take(&mut stream.rows);
        stream.step = Some(step);
        if self.rule == Rule::ConfirmBeforeCommit {
            let confirm = Confirm { applied_lsn: step.to, flushed_lsn: step.to };
            self.send_down(pipe, confirm.to_frame().into());
        }
        let rows = if self.rule == Rule::PositionApart {
            self.shadow.content.insert(&rows);
            self.shadow.flush();
            Vec::new()
        } else {
            rows
        };
        self.begins_commit(pipe, conn, Work::Advance { generation, from: step.from, to: step.to, rows })
    }

    fn begins_commit(&mut self, pipe: PipeId, conn: &mut Conn, work: Work) -> Went {
        conn.pending = Some((work, false));
        let after = 100 + self.rng.below(4_000);
        self.after(after, Event::Commit(pipe));
        Went::Waits
    }

    fn lead_step(&mut self, pipe: PipeId, conn: &mut Conn) -> Went {
        let Some(frame) = conn.frames.pop_front() else { return idle(conn) };
        let Some(generation) = conn.hello.as_ref().map(|hello| hello.generation) else { return Went::Waits };
        match frame.tag() {
            Tag::Catalog => {
                let payload = frame.payload();
                let Some(number) = payload.first_chunk::<8>() else {
                    return refuse(RefuseKind::Protocol, "that is no catalog");
                };
                let copy_id = u64::from_be_bytes(*number);
                let origin = &self.shadow.content.origin;
                let state = origin.copy_state_of(generation);
                let is_same = origin.generation == generation && origin.copy_id == copy_id;
                if state == CopyState::Copied || (is_same && state == CopyState::Copying) {
                    let tables = self.shadow.whole_tables();
                    let receipt = CatalogApplied { tables, ..CatalogApplied::default() };
                    self.send_down(pipe, receipt.to_frame().into());
                    return Went::On;
                }
                // `copies.clear()`: while tables come and go nobody else writes.
                let others: Vec<PipeId> = self.platform.conns.keys().copied().collect();
                for other in others {
                    let role = self.platform.conns.get(&other).and_then(|c| c.hello.as_ref()).map(|h| h.role);
                    if role == Some(Role::Copy) {
                        self.conn_ends(other, None);
                    }
                }
                self.begins_commit(pipe, conn, Work::BeginCopy { generation, copy_id })
            }
            Tag::CopyFinish => {
                let Ok(finish) = CopyFinish::from_frame(&frame) else {
                    return refuse(RefuseKind::Protocol, "that is no copy finish");
                };
                let whole = self.shadow.whole_tables();
                if finish.tables.iter().any(|table| !whole.contains(table)) {
                    return refuse(RefuseKind::Busy, "the ledger does not hold what was copied");
                }
                self.begins_commit(pipe, conn, Work::FinishCopy { generation })
            }
            _ => refuse(RefuseKind::Protocol, "that is nothing a leader says"),
        }
    }

    fn copy_step(&mut self, pipe: PipeId, conn: &mut Conn) -> Went {
        let Some(frame) = conn.frames.pop_front() else { return idle(conn) };
        let Some(generation) = conn.hello.as_ref().map(|hello| hello.generation) else { return Went::Waits };
        match (frame.tag(), &mut conn.chunk) {
            (Tag::ChunkStart, None) => {
                let Ok(start) = ChunkStart::from_frame(&frame) else {
                    return refuse(RefuseKind::Protocol, "that is no chunk start");
                };
                let origin = &self.shadow.content.origin;
                let under_way = origin.copy_state_of(generation) == CopyState::Copying;
                if !under_way || origin.copy_id != start.copy_id {
                    return refuse(RefuseKind::Busy, "the copy is not the one under way");
                }
                let line = (start.relation.relid, start.chunk);
                if self.is_claimed(line) {
                    // An INSERT that waits for another's.
                    conn.frames.push_front(frame);
                    return Went::On;
                }
                let mut chunk = Chunk::new(&start);
                let rows = chunk.claimed(!self.shadow.content.ledger.contains_key(&line));
                conn.chunk = Some((chunk, start, rows, Vec::new()));
                Went::On
            }
            (Tag::Rows, Some((_, start, _, rows))) => {
                for number in frame.payload().chunks_exact(4).filter_map(|bytes| bytes.first_chunk::<4>()) {
                    rows.push((start.relation.relid, u32::from_be_bytes(*number)));
                }
                Went::On
            }
            (Tag::ChunkEnd, _) => self.chunk_ends(pipe, conn, &frame, generation),
            _ => refuse(RefuseKind::Protocol, "that does not belong here"),
        }
    }

    fn is_claimed(&self, line: (u32, u32)) -> bool {
        self.platform
            .conns
            .values()
            .filter_map(|conn| conn.chunk.as_ref())
            .any(|(_, start, rows, _)| *rows == Rows::Load && (start.relation.relid, start.chunk) == line)
    }

    fn chunk_ends(&mut self, pipe: PipeId, conn: &mut Conn, frame: &Frame, generation: u64) -> Went {
        let Some((mut chunk, start, what, mut rows)) = conn.chunk.take() else {
            return refuse(RefuseKind::Protocol, "no chunk is open");
        };
        let Ok(end) = ChunkEnd::from_frame(frame) else {
            return refuse(RefuseKind::Protocol, "that is no chunk end");
        };
        let (relid, number) = (start.relation.relid, start.chunk);
        if what == Rows::PassOver {
            let rows = self.shadow.content.ledger.get(&(relid, number)).map_or(0, |(_, rows)| *rows);
            self.figures.repeated += 1;
            return match chunk.repeated(rows) {
                Ok(done) => {
                    self.send_down(pipe, done.to_frame().into());
                    Went::On
                }
                Err(error) => refuse(RefuseKind::Protocol, error.to_string()),
            };
        }
        if let Err(error) = chunk.loaded(rows.len() as u64, end.rows) {
            return refuse(RefuseKind::Protocol, error.to_string());
        }
        let count = rows.len() as u64;
        if self.rule == Rule::LedgerApart {
            self.shadow.content.insert(&rows);
            self.shadow.flush();
            rows.clear();
        }
        let (copy_id, chunks) = (start.copy_id, start.chunks);
        conn.chunk = Some((chunk, start, what, Vec::new()));
        let work = Work::Chunk { generation, copy_id, relid, chunk: number, chunks, rows, count };
        self.begins_commit(pipe, conn, work)
    }

    /// The shadow's COMMIT, if its session still lives.
    pub fn commit(&mut self, pipe: PipeId) {
        let Some(conn) = self.platform.conns.get_mut(&pipe) else { return };
        let Some((work, done)) = &mut conn.pending else { return };
        if *done {
            return;
        }
        *done = true;
        let work = work.clone();
        if let Err(error) = self.commit_now(&work) {
            let busy = Refuse {
                kind: RefuseKind::Busy,
                retry: true,
                message: error,
                detail: String::new(),
                hint: String::new(),
            };
            return self.conn_ends(pipe, Some(&busy));
        }
        let after = 100 + self.rng.below(3_000);
        self.after(after, Event::Answer(pipe));
    }

    fn commit_now(&mut self, work: &Work) -> Result<(), String> {
        if !self.shadow.up {
            return Err("the shadow has gone away".to_owned());
        }
        self.shadow.commit(work, self.rule)?;
        self.say(|| format!("shadow commits {}", describe(work)));
        self.figures.commits += 1;
        self.look_at_the_shadow();
        if matches!(work, Work::FinishCopy { .. } | Work::BeginCopy { .. }) {
            let pipes: Vec<PipeId> = self.platform.conns.keys().copied().collect();
            for pipe in pipes {
                self.platform_wakes(pipe);
            }
        }
        Ok(())
    }

    /// The platform hears that the shadow has committed.
    pub fn answer(&mut self, pipe: PipeId) {
        if self.platform_dies() {
            return;
        }
        let Some(conn) = self.platform.conns.get_mut(&pipe) else { return };
        let Some((work, true)) = conn.pending.take() else { return };
        match work {
            Work::Advance { .. } => {
                let Some(stream) = &mut conn.stream else { return };
                let Some(step) = stream.step.take() else { return };
                match stream.course.durable(step) {
                    Ok(Some(confirm)) if self.rule != Rule::ConfirmBeforeCommit => {
                        self.send_down(pipe, confirm.to_frame().into());
                    }
                    Ok(_) => {}
                    Err(error) => self.found(format!("the course does not know its step: {error}")),
                }
            }
            Work::Chunk { .. } => {
                let Some((chunk, ..)) = conn.chunk.take() else { return };
                match chunk.committed() {
                    Ok(done) => self.send_down(pipe, done.to_frame().into()),
                    Err(error) => self.found(format!("a receipt without a commit: {error}")),
                }
            }
            Work::BeginCopy { .. } => {
                let tables = self.shadow.whole_tables();
                let receipt = CatalogApplied { tables, ..CatalogApplied::default() };
                self.send_down(pipe, receipt.to_frame().into());
            }
            Work::FinishCopy { .. } => {
                self.send_down(pipe, CopyFinished::default().to_frame().into());
            }
        }
        self.platform_wakes(pipe);
    }

    /// A connection is over: a COMMIT on its way arrives, or does not.
    pub fn conn_ends(&mut self, pipe: PipeId, last_word: Option<&Refuse>) {
        let Some(conn) = self.platform.conns.remove(&pipe) else { return };
        if let Some((work, false)) = conn.pending
            && self.rng.chance(50)
        {
            // Refused or done, nobody is left to be told.
            let _ = self.commit_now(&work);
        }
        if let Some(refuse) = last_word {
            self.send_down(pipe, refuse.to_frame().into());
        }
        self.platform_closed(pipe);
    }

    /// The program is killed, or stops cleanly.
    pub fn platform_ends(&mut self, cleanly: bool) {
        self.say(|| format!("platform {}", if cleanly { "stops" } else { "is killed" }));
        let pipes: Vec<PipeId> = self.platform.conns.keys().copied().collect();
        for pipe in pipes {
            let word = Refuse {
                kind: RefuseKind::Stopping,
                retry: true,
                message: "scry_platform is stopping".to_owned(),
                detail: String::new(),
                hint: String::new(),
            };
            self.conn_ends(pipe, cleanly.then_some(&word));
        }
        self.platform.up = false;
        let after = 50_000 + self.rng.below(900_000);
        self.after(after, Event::PlatformStarts);
    }

    /// The shadow's server dies: what was not committed is gone.
    pub fn shadow_ends(&mut self) {
        self.say(|| "shadow crashes".to_owned());
        let pipes: Vec<PipeId> = self.platform.conns.keys().copied().collect();
        for pipe in pipes {
            let word = Refuse {
                kind: RefuseKind::Unreachable,
                retry: true,
                message: "the shadow cannot be reached".to_owned(),
                detail: String::new(),
                hint: String::new(),
            };
            self.conn_ends(pipe, Some(&word));
        }
        self.shadow.crash();
        let after = 30_000 + self.rng.below(600_000);
        self.after(after, Event::ShadowStarts);
    }
}

/// Nothing to read: bad news, if there are any.
fn idle(conn: &Conn) -> Went {
    match &conn.damaged {
        Some(error) => refuse(RefuseKind::Protocol, error.clone()),
        None => Went::Waits,
    }
}

fn read_changes(bytes: &Bytes, changes: &mut VecDeque<Own>) -> Result<(), scry_wire::Error> {
    let mut reader = Reader::new(bytes);
    while reader.remaining() > 0 {
        match Change::read(&mut reader)? {
            Change::Begin(begin) => changes.push_back(Own::Begin(begin)),
            // A tuple of one field of four bytes.
            Change::Insert { relid, new } => {
                let number = new.last_chunk::<4>().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                changes.push_back(Own::Insert((relid, number)));
            }
            Change::Commit(commit) => changes.push_back(Own::Commit(commit)),
            Change::Keepalive(lsn) => changes.push_back(Own::Keepalive(lsn)),
            _ => {}
        }
    }
    Ok(())
}

fn describe(work: &Work) -> String {
    match work {
        Work::Advance { from, to, rows, .. } => format!("{} rows, {from} to {to}", rows.len()),
        Work::Chunk { relid, chunk, rows, .. } => format!("chunk {chunk} of {relid}, {} rows", rows.len()),
        Work::BeginCopy { generation, copy_id } => format!("the beginning of copy {copy_id} of {generation}"),
        Work::FinishCopy { generation } => format!("the end of the copy of {generation}"),
    }
}
