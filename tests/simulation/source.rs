//! The source's half of the world: WAL, a slot, the job's row, and the workers
//! around the extension's own `state` and `confirm`.

use crate::confirm::Progress;
use crate::sender::Link;
use crate::shadow::Row;
use crate::slot_info::SlotInfo;
use crate::state::{self, Facts, History, Next};
use crate::world::{Event, LinkId, Rule, World};
use bytes::{Bytes, BytesMut};
use scry_wire::frame::{Frame, Tag, frame, seal};
use scry_wire::limits::FRAME_HEADER_LEN;
use scry_wire::message::change::{Begin, ChangeWriter, Commit};
use scry_wire::message::{
    CatalogApplied, ChunkDone, ChunkEnd, ChunkStart, Confirm, CopiedTable, CopyFinish, CopyState, Format,
    Hello, Message, Relation, ReplicaIdentity, Role, Welcome,
};
use scry_wire::{Lsn, SeenBy};
use std::collections::BTreeMap;

/// Tables of the source, and into how many chunks each is cut.
pub const TABLES: u32 = 3;
const CHUNKS: u32 = 2;

/// A committed transaction.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// Its number.
    pub xid: u64,
    /// Where its commit record begins.
    pub commit: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// The rows it inserted.
    pub rows: Vec<Row>,
}

/// The replication slot.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// What is confirmed.
    pub confirmed: Lsn,
    /// What of it a crash leaves.
    pub saved: Lsn,
    /// The server has removed what it needs.
    pub invalidated: bool,
}

/// The job's row, and its tables'.
#[derive(Debug, Clone)]
pub struct Job {
    state: &'static str,
    /// Which full start this is.
    pub generation: u64,
    copy_id: u64,
    start_lsn: Lsn,
    /// What the snapshot of each table saw; none: the slot's own.
    pub seen: BTreeMap<u32, SeenBy>,
    /// Where the slot of this generation began.
    pub began: Lsn,
}

/// The server.
#[derive(Debug)]
pub struct Source {
    /// Whether it runs.
    pub up: bool,
    /// Its history.
    pub wal: Vec<Transaction>,
    /// Its end.
    pub end: Lsn,
    /// The job's slot.
    pub slot: Option<Slot>,
    /// The job.
    pub job: Job,
    worker: Option<Worker>,
    /// Counts the workers, so that an earlier one's events are nobody's.
    pub incarnation: u64,
    /// Something has happened that a new start is the right answer to.
    pub may_start_over: bool,
}

/// The stream worker, and the leader and snapshot worker of its copy.
#[derive(Debug)]
struct Worker {
    stream: LinkId,
    progress: Option<Progress>,
    /// Commits that begin before this are not decoded.
    start: Lsn,
    /// The next transaction of the WAL.
    next: usize,
    copy: Option<Copy>,
    inboxes: BTreeMap<LinkId, BytesMut>,
}

/// A round of the copy.
#[derive(Debug)]
struct Copy {
    copy_id: u64,
    /// How much of the history its snapshot sees.
    sees: usize,
    own_snapshot: bool,
    lead: Option<LinkId>,
    /// The leader's opening has been answered on this connection.
    is_open: bool,
    copier: Option<LinkId>,
    /// Chunks to be copied, and those with a receipt. None before the plan.
    plan: Option<Vec<(u32, u32)>>,
    done: BTreeMap<(u32, u32), u64>,
    kept: Vec<CopiedTable>,
}

impl Source {
    /// An empty source, with a job that is new.
    pub fn new() -> Self {
        let job = Job {
            state: "new",
            generation: 1,
            copy_id: 0,
            start_lsn: Lsn::INVALID,
            seen: BTreeMap::new(),
            began: Lsn::INVALID,
        };
        Source {
            up: true,
            wal: Vec::new(),
            end: Lsn(100),
            slot: None,
            job,
            worker: None,
            incarnation: 0,
            may_start_over: false,
        }
    }
}

impl World {
    /// A transaction commits on the source.
    pub fn source_writes(&mut self) {
        if !self.source.up {
            return;
        }
        let source = &mut self.source;
        let xid = source.wal.len() as u64 + 1;
        let commit = Lsn(source.end.0 + 1 + self.rng.below(40));
        let end = Lsn(commit.0 + 1 + self.rng.below(30));
        let rows = (0..=self.rng.below(4))
            .map(|number| (self.rng.below(u64::from(TABLES)) as u32, (xid * 8 + number) as u32))
            .collect();
        source.end = Lsn(end.0 + self.rng.below(3) * self.rng.below(20));
        source.wal.push(Transaction { xid, commit, end, rows });
    }

    /// The launcher starts the stream worker.
    pub fn worker_starts(&mut self, incarnation: u64) {
        let source = &mut self.source;
        if !source.up || source.worker.is_some() || source.incarnation != incarnation {
            return;
        }
        if !self.sender_up {
            let after = 20_000 + self.rng.below(200_000);
            return self.after(after, Event::WorkerStarts(incarnation));
        }
        let stream = self.open(Role::Stream);
        let inboxes = BTreeMap::from([(stream, BytesMut::new())]);
        let (start, next) = (Lsn::INVALID, 0);
        self.source.worker = Some(Worker { stream, progress: None, start, next, copy: None, inboxes });
    }

    fn open(&mut self, role: Role) -> LinkId {
        let (version_min, version_max) = Hello::versions();
        let hello = Hello {
            version_min,
            version_max,
            role,
            system_identifier: 1,
            timeline: 1,
            database_oid: 1,
            server_version_num: 150_000,
            generation: self.source.job.generation,
            database: String::new(),
            job: String::new(),
            shadow_id: String::new(),
            encoding: String::new(),
            software: String::new(),
        };
        let id = self.new_id();
        self.links.insert(id, Link::new(hello));
        self.link_connect(id);
        id
    }

    /// Bytes of the sender have come in at the worker.
    pub fn worker_reads(&mut self, link: LinkId, bytes: &Bytes) {
        let Some(worker) = &mut self.source.worker else { return };
        let Some(inbox) = worker.inboxes.get_mut(&link) else { return };
        inbox.extend_from_slice(bytes);
        loop {
            let Some(worker) = &mut self.source.worker else { return };
            let Some(inbox) = worker.inboxes.get_mut(&link) else { return };
            match Frame::take(inbox) {
                Ok(Some(frame)) => self.worker_frame(link, &frame),
                Ok(None) => return,
                Err(error) => return self.found(format!("the sender passed on a bad frame: {error}")),
            }
            if self.worker_dies() {
                return;
            }
        }
    }

    fn worker_frame(&mut self, link: LinkId, frame: &Frame) {
        let Some(worker) = &self.source.worker else { return };
        if frame.tag() == Tag::Refuse {
            return self.worker_closed(link);
        }
        if frame.tag() == Tag::Notice {
            return;
        }
        let (is_stream, is_lead) =
            (link == worker.stream, worker.copy.as_ref().is_some_and(|copy| copy.lead == Some(link)));
        match (frame.tag(), is_stream, is_lead) {
            (Tag::Welcome, true, _) => {
                if let Ok(welcome) = Welcome::from_frame(frame) {
                    self.decide(&welcome);
                }
            }
            (Tag::Confirm, true, _) => {
                if let Ok(confirm) = Confirm::from_frame(frame) {
                    self.confirmed(confirm);
                }
            }
            (Tag::Welcome, _, true) => self.send_catalog(link),
            (Tag::CatalogApplied, _, true) => {
                if let Ok(receipt) = CatalogApplied::from_frame(frame) {
                    self.plan(link, &receipt);
                }
            }
            (Tag::CopyFinished, _, true) => self.copy_finished(),
            (Tag::Welcome, false, false) => self.send_chunk(),
            (Tag::ChunkDone, false, false) => {
                if let Ok(done) = ChunkDone::from_frame(frame) {
                    self.chunk_done(&done);
                }
            }
            (tag, ..) => self.found(format!("the worker was sent {:?}", tag.as_char())),
        }
    }

    fn decide(&mut self, welcome: &Welcome) {
        let source = &self.source;
        let Job { state, generation, start_lsn, copy_id, .. } = source.job;
        let history = History { timeline: 1, end: source.end, left: Some(Lsn(u64::MAX)) };
        let facts = Facts { mode: "hybrid", state, generation, start_lsn, copy_id };
        let slot = source.slot.map(|slot| SlotInfo {
            restart_lsn: Lsn(1),
            confirmed_flush_lsn: slot.confirmed,
            invalidated: slot.invalidated,
        });
        let mut next = state::next(&facts, slot, welcome, history);
        let whole = welcome.generation == generation && welcome.copy_state == CopyState::Copied;
        if self.rule == Rule::SilentGap
            && whole
            && let Next::StartOver(_) = next
        {
            let end = self.source.end;
            self.source.slot = Some(Slot { confirmed: end, saved: end, invalidated: false });
            next = Next::Follow;
        }
        self.say(|| format!("worker decides {next:?}"));
        match next {
            Next::Follow => {
                self.source.job.state = "streaming";
                self.decode(welcome.applied_lsn);
            }
            Next::Copy { slot_exists } => self.copy(slot_exists, welcome.applied_lsn),
            Next::StartOver(why) => self.start_over(&why),
            Next::Refuse(why) => self.found(format!("the server is refused: {why}")),
            Next::Finished => self.found("a job that copies and streams is finished".to_owned()),
        }
    }

    fn start_over(&mut self, why: &str) {
        if !std::mem::take(&mut self.source.may_start_over) {
            return self.found(format!("the job starts over without a reason: {why}"));
        }
        self.figures.starts_over += 1;
        self.source.slot = None;
        if self.worker_dies() {
            // The slot is gone, and the job's row does not know: the next one starts over.
            self.source.may_start_over = true;
            return;
        }
        let job = &mut self.source.job;
        job.generation += 1;
        (job.copy_id, job.start_lsn, job.state) = (0, Lsn::INVALID, "copying");
        job.seen.clear();
        self.close_worker();
        let incarnation = self.source.incarnation;
        self.worker_starts(incarnation);
    }

    fn copy(&mut self, slot_exists: bool, applied: Lsn) {
        let job = &mut self.source.job;
        job.copy_id += 1;
        job.state = "copying";
        let copy_id = job.copy_id;
        if self.worker_dies() {
            return;
        }
        if !slot_exists {
            let end = self.source.end;
            self.source.slot = Some(Slot { confirmed: end, saved: end, invalidated: false });
            self.source.job.began = end;
            if self.worker_dies() {
                return;
            }
        }
        let sees = self.source.wal.len();
        let lead = self.open(Role::Lead);
        let own_snapshot = slot_exists;
        let Some(worker) = &mut self.source.worker else { return };
        worker.inboxes.insert(lead, BytesMut::new());
        worker.copy = Some(Copy {
            copy_id,
            sees,
            own_snapshot,
            lead: Some(lead),
            is_open: false,
            copier: None,
            plan: None,
            done: BTreeMap::new(),
            kept: Vec::new(),
        });
        worker.start = applied;
    }

    fn send_catalog(&mut self, lead: LinkId) {
        let Some(copy) = self.source.worker.as_ref().and_then(|worker| worker.copy.as_ref()) else { return };
        let copy_id = copy.copy_id;
        let bytes = frame(Tag::Catalog, |buf| buf.extend_from_slice(&copy_id.to_be_bytes()));
        self.send_to_sender(lead, bytes.into());
    }

    /// The shadow has the tables. The first time this makes the plan, and the stream begins.
    fn plan(&mut self, lead: LinkId, receipt: &CatalogApplied) {
        let Some(copy) = self.source.worker.as_mut().and_then(|worker| worker.copy.as_mut()) else { return };
        copy.is_open = true;
        if copy.plan.is_some() {
            return self.finish_if_whole(lead);
        }
        copy.kept = receipt.tables.clone();
        let missing = (0..TABLES).filter(|relid| !copy.kept.iter().any(|table| table.relid == *relid));
        let plan: Vec<(u32, u32)> = missing.flat_map(|relid| (0..CHUNKS).map(move |c| (relid, c))).collect();
        let tables: Vec<u32> = plan.iter().map(|(relid, _)| *relid).collect();
        copy.plan = Some(plan);
        let (sees, own_snapshot) = (copy.sees, copy.own_snapshot);
        let job = &mut self.source.job;
        let next_xid = sees as u64 + 1;
        for relid in tables {
            job.seen.remove(&relid);
            // A transaction of the broken rule's table comes by the copy and again by the stream.
            if own_snapshot
                && self.rule != Rule::SnapshotForgotten
                && let Ok(seen) = format!("{next_xid}:{next_xid}:").parse()
            {
                job.seen.insert(relid, seen);
            }
        }
        if !own_snapshot || !job.start_lsn.is_valid() {
            job.start_lsn = job.began;
        }
        let applied = self.source.worker.as_ref().map_or(Lsn::INVALID, |worker| worker.start);
        if self.worker_dies() {
            return;
        }
        self.decode(applied);
        self.open_copier();
        self.finish_if_whole(lead);
    }

    fn open_copier(&mut self) {
        let needed =
            self.source.worker.as_ref().and_then(|worker| worker.copy.as_ref()).is_some_and(|copy| {
                copy.plan.as_ref().is_some_and(|plan| plan.iter().any(|chunk| !copy.done.contains_key(chunk)))
            });
        if !needed {
            return;
        }
        let copier = self.open(Role::Copy);
        if let Some(worker) = &mut self.source.worker {
            worker.inboxes.insert(copier, BytesMut::new());
            if let Some(copy) = &mut worker.copy {
                copy.copier = Some(copier);
            }
        }
    }

    fn send_chunk(&mut self) {
        let Some(copy) = self.source.worker.as_ref().and_then(|worker| worker.copy.as_ref()) else { return };
        let (Some(copier), Some(plan)) = (copy.copier, &copy.plan) else { return };
        let Some((relid, chunk)) = plan.iter().find(|chunk| !copy.done.contains_key(chunk)).copied() else {
            return;
        };
        let rows: Vec<u32> = self
            .source
            .wal
            .iter()
            .take(copy.sees)
            .flat_map(|transaction| &transaction.rows)
            .filter(|(table, number)| *table == relid && number % CHUNKS == chunk)
            .map(|(_, number)| *number)
            .collect();
        let relation = Relation {
            relid,
            format: Format::Binary,
            replica_identity: ReplicaIdentity::Default,
            schema: "public".to_owned(),
            name: format!("t{relid}"),
            columns: Vec::new(),
        };
        let start = ChunkStart { copy_id: copy.copy_id, chunk, chunks: CHUNKS, relation };
        self.send_to_sender(copier, start.to_frame().into());
        for part in rows.chunks(5) {
            let bytes = frame(Tag::Rows, |buf| {
                part.iter().for_each(|number| buf.extend_from_slice(&number.to_be_bytes()));
            });
            self.send_to_sender(copier, bytes.into());
        }
        self.send_to_sender(copier, ChunkEnd { rows: rows.len() as u64 }.to_frame().into());
    }

    fn chunk_done(&mut self, done: &ChunkDone) {
        let Some(copy) = self.source.worker.as_mut().and_then(|worker| worker.copy.as_mut()) else { return };
        copy.done.insert((done.relid, done.chunk), done.rows);
        let (lead, copier) = (copy.lead, copy.copier);
        let all =
            copy.plan.as_ref().is_some_and(|plan| plan.iter().all(|chunk| copy.done.contains_key(chunk)));
        if !all {
            return self.send_chunk();
        }
        if let Some(copier) = copier {
            self.close_link(copier);
        }
        if let Some(lead) = lead {
            self.finish_if_whole(lead);
        }
    }

    fn finish_if_whole(&mut self, lead: LinkId) {
        let Some(copy) = self.source.worker.as_ref().and_then(|worker| worker.copy.as_ref()) else { return };
        let Some(plan) = copy.plan.as_ref().filter(|_| copy.is_open) else { return };
        if plan.iter().any(|chunk| !copy.done.contains_key(chunk)) {
            return;
        }
        let mut tables = copy.kept.clone();
        for (relid, _) in plan.iter().copied() {
            if tables.iter().all(|table| table.relid != relid) {
                let rows =
                    copy.done.iter().filter(|((table, _), _)| *table == relid).map(|(_, rows)| rows).sum();
                tables.push(CopiedTable { relid, chunks: CHUNKS, rows });
            }
        }
        self.send_to_sender(lead, CopyFinish { tables }.to_frame().into());
    }

    fn copy_finished(&mut self) {
        self.source.job.state = "streaming";
        self.figures.copies += 1;
        let Some(worker) = &mut self.source.worker else { return };
        if let Some(copy) = worker.copy.take() {
            [copy.lead, copy.copier].into_iter().flatten().for_each(|link| self.close_link(link));
        }
    }

    /// The slot is acquired, and decoding begins: `Output::new`.
    fn decode(&mut self, applied: Lsn) {
        let slot = self.source.slot.map_or(Lsn::INVALID, |slot| slot.confirmed);
        // Delivery is at least once: now and then it begins at the slot, as if it had not heard how far
        // the shadow is.
        let start = if self.rng.chance(20) { slot } else { applied.max(slot) };
        let incarnation = self.source.incarnation;
        let Some(worker) = &mut self.source.worker else { return };
        worker.progress = Some(Progress::new(start, start));
        (worker.start, worker.next) = (start, 0);
        self.after(500, Event::WorkerSends(incarnation));
    }

    /// The worker hands on what is in the WAL.
    pub fn worker_sends(&mut self, incarnation: u64) {
        if self.source.incarnation != incarnation || self.worker_dies() {
            return;
        }
        let (up_to, chance) = (1 + self.rng.below(5), self.rng.chance(30));
        let source = &mut self.source;
        let Some(worker) = &mut source.worker else { return };
        let Some(progress) = &mut worker.progress else { return };
        let stream = worker.stream;
        let mut bytes = vec![0; FRAME_HEADER_LEN];
        let mut sent = progress.sent_lsn();
        for transaction in source.wal.iter().skip(worker.next).take(up_to as usize) {
            worker.next += 1;
            // The server's own decoding: SnapBuildXactNeedsSkip.
            if transaction.commit < worker.start {
                continue;
            }
            let saw = |relid: u32| source.job.seen.get(&relid).is_some_and(|seen| seen.saw(transaction.xid));
            let rows: Vec<Row> = transaction.rows.iter().copied().filter(|(relid, _)| !saw(*relid)).collect();
            if rows.is_empty() {
                continue;
            }
            write_transaction(&mut bytes, transaction, &rows);
            sent = transaction.end;
        }
        let all = worker.next == source.wal.len();
        if all && chance && source.end > progress.sent_lsn() {
            ChangeWriter::new(&mut bytes).keepalive(source.end);
            sent = source.end;
        }
        if bytes.len() > FRAME_HEADER_LEN {
            // Before the bytes leave: an answer may come back while they do.
            progress.sent(sent);
            seal(&mut bytes, Tag::Batch, false, 0);
            if self.rule == Rule::ConfirmSent {
                self.move_slot(sent);
            }
            self.send_to_sender(stream, bytes.into());
        }
        let after = if all { 20_000 + self.rng.below(60_000) } else { 300 + self.rng.below(8_000) };
        self.after(after, Event::WorkerSends(incarnation));
    }

    fn confirmed(&mut self, confirm: Confirm) {
        let Some(progress) = self.source.worker.as_mut().and_then(|worker| worker.progress.as_mut()) else {
            return self.found("a confirmation came before anything was sent".to_owned());
        };
        match progress.confirm(confirm) {
            Ok(Some(flushed)) => self.move_slot(flushed),
            Ok(None) => {}
            Err(lie) => self.found(format!("the platform confirmed {} of {}", lie.confirmed, lie.sent)),
        }
    }

    fn move_slot(&mut self, to: Lsn) {
        let generation = self.source.job.generation;
        let durable = self.durable_lsn(generation);
        let Some(slot) = &mut self.source.slot else {
            return self.found("a slot that is not there was confirmed".to_owned());
        };
        let from = slot.confirmed;
        slot.confirmed = to;
        self.say(|| format!("slot confirmed {to}"));
        self.figures.confirms += 1;
        if to < from {
            self.found(format!("the slot went back from {from} to {to}"));
        }
        if to > durable {
            self.found(format!("the slot was confirmed to {to}, but durable is {durable}"));
        }
    }

    /// A connection of the worker is gone.
    pub fn worker_closed(&mut self, link: LinkId) {
        let Some(worker) = &mut self.source.worker else { return };
        if worker.inboxes.remove(&link).is_none() {
            return;
        }
        if link == worker.stream {
            // The process ends, and its copy with it.
            return self.worker_ends("its connection was lost");
        }
        if let Some(copy) = &mut worker.copy {
            let role = if copy.lead == Some(link) { Role::Lead } else { Role::Copy };
            match role {
                Role::Lead => (copy.lead, copy.is_open) = (None, false),
                _ => copy.copier = None,
            }
            let after = 20_000 + self.rng.below(200_000);
            let incarnation = self.source.incarnation;
            self.after(after, Event::Reopen(incarnation, role == Role::Lead));
        }
        self.close_link(link);
    }

    /// The leader or the snapshot worker connects again.
    pub fn reopen(&mut self, incarnation: u64, is_lead: bool) {
        if self.source.incarnation != incarnation {
            return;
        }
        if !self.sender_up {
            let after = 20_000 + self.rng.below(200_000);
            return self.after(after, Event::Reopen(incarnation, is_lead));
        }
        let Some(copy) = self.source.worker.as_ref().and_then(|worker| worker.copy.as_ref()) else { return };
        match is_lead {
            true if copy.lead.is_none() => {
                let lead = self.open(Role::Lead);
                if let Some(worker) = &mut self.source.worker {
                    worker.inboxes.insert(lead, BytesMut::new());
                    if let Some(copy) = &mut worker.copy {
                        copy.lead = Some(lead);
                    }
                }
            }
            false if copy.copier.is_none() => self.open_copier(),
            _ => {}
        }
    }

    fn close_link(&mut self, link: LinkId) {
        if let Some(worker) = &mut self.source.worker {
            worker.inboxes.remove(&link);
        }
        self.after(200, Event::WorkerClosed(link));
    }

    fn close_worker(&mut self) {
        self.source.incarnation += 1;
        let Some(worker) = self.source.worker.take() else { return };
        for link in worker.inboxes.into_keys() {
            self.after(200, Event::WorkerClosed(link));
        }
    }

    /// The worker's process ends; the launcher starts another one.
    pub fn worker_ends(&mut self, why: &str) {
        if self.source.worker.is_none() {
            return;
        }
        self.say(|| format!("worker ends: {why}"));
        self.close_worker();
        let after = 50_000 + self.rng.below(500_000);
        let incarnation = self.source.incarnation;
        self.after(after, Event::WorkerStarts(incarnation));
    }

    /// The server dies: the slot is as it was saved last.
    pub fn source_ends(&mut self) {
        self.say(|| "source crashes".to_owned());
        self.close_worker();
        self.source.up = false;
        if let Some(slot) = &mut self.source.slot {
            slot.confirmed = slot.saved;
        }
        let after = 50_000 + self.rng.below(500_000);
        self.after(after, Event::SourceStarts);
    }
}

fn write_transaction(bytes: &mut Vec<u8>, transaction: &Transaction, rows: &[Row]) {
    let Transaction { xid, commit, end, .. } = transaction;
    ChangeWriter::new(bytes).begin(Begin { xid: *xid, commit_lsn: *commit, commit_time: 0 });
    for (relid, number) in rows {
        let mut writer = ChangeWriter::new(bytes);
        let open = writer.insert(*relid);
        // One field of four bytes.
        writer.tuple().extend_from_slice(&1i16.to_be_bytes());
        writer.tuple().extend_from_slice(&4i32.to_be_bytes());
        writer.tuple().extend_from_slice(&number.to_be_bytes());
        let closed = writer.close(open);
        debug_assert!(closed.is_ok(), "a row of four bytes is not too large");
    }
    ChangeWriter::new(bytes).commit(Commit { commit_lsn: *commit, end_lsn: *end });
}
