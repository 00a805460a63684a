//! The shadow: rows, the origin, the ledger, and transactions that commit whole
//! or not at all.

use crate::world::Rule;
use scry_platform::origin::Origin;
use scry_wire::Lsn;
use scry_wire::message::{CopiedTable, CopyState};
use std::collections::BTreeMap;

/// A row of the source: its table and its number in all tables.
pub type Row = (u32, u32);

/// What a transaction of the platform does.
#[derive(Debug, Clone)]
pub enum Work {
    /// Rows of the stream, and the position with them.
    Advance { generation: u64, from: Lsn, to: Lsn, rows: Vec<Row> },
    /// Rows of a chunk, and its line in the ledger with them.
    Chunk { generation: u64, copy_id: u64, relid: u32, chunk: u32, chunks: u32, rows: Vec<Row>, count: u64 },
    /// A copy begins: whole tables of its generation stay.
    BeginCopy { generation: u64, copy_id: u64 },
    /// The copy is complete.
    FinishCopy { generation: u64 },
}

/// What is in the shadow's database.
#[derive(Debug, Clone)]
pub struct Content {
    /// How often each row is there.
    pub rows: BTreeMap<Row, u32>,
    /// Whose history, and how far.
    pub origin: Origin,
    /// (table, chunk) → (chunks of the table, rows).
    pub ledger: BTreeMap<(u32, u32), (u32, u64)>,
}

/// The shadow's server.
#[derive(Debug)]
pub struct Shadow {
    /// Whether it answers.
    pub up: bool,
    /// What sessions see.
    pub content: Content,
    /// What a crash leaves.
    pub durable: Content,
    /// What an old backup of it holds.
    pub backup: Option<Content>,
}

impl Shadow {
    /// An empty one.
    pub fn new() -> Self {
        let origin = Origin {
            system_identifier: 1,
            timeline: 1,
            database_oid: 1,
            database: String::new(),
            job: String::new(),
            shadow_id: String::new(),
            generation: 0,
            copy_id: 0,
            copy_state: CopyState::None,
            applied_lsn: Lsn::INVALID,
            rows_applied: 0,
        };
        let content = Content { rows: BTreeMap::new(), origin, ledger: BTreeMap::new() };
        Shadow { up: true, durable: content.clone(), content, backup: None }
    }

    /// Commits; flushes it too, unless that rule is broken.
    pub fn commit(&mut self, work: &Work, rule: Rule) -> Result<(), String> {
        self.content.apply(work)?;
        if rule != Rule::CommitNotFlushed {
            self.flush();
        }
        Ok(())
    }

    /// What is committed becomes durable.
    pub fn flush(&mut self) {
        self.durable = self.content.clone();
    }

    /// Dies; what is not durable is lost.
    pub fn crash(&mut self) {
        self.up = false;
        self.content = self.durable.clone();
    }

    /// Tables of the ledger that are whole.
    pub fn whole_tables(&self) -> Vec<CopiedTable> {
        let mut tables: BTreeMap<u32, (u32, u32, u64)> = BTreeMap::new();
        for ((relid, _), (chunks, rows)) in &self.content.ledger {
            let table = tables.entry(*relid).or_insert((*chunks, 0, 0));
            table.1 += 1;
            table.2 += rows;
        }
        tables
            .into_iter()
            .filter(|(_, (chunks, done, _))| chunks == done)
            .map(|(relid, (chunks, _, rows))| CopiedTable { relid, chunks, rows })
            .collect()
    }
}

impl Content {
    fn apply(&mut self, work: &Work) -> Result<(), String> {
        let origin = &mut self.origin;
        match work {
            // `origin::ADVANCE`: finds no row when somebody else has moved it.
            Work::Advance { generation, from, to, rows } => {
                let ours = origin.generation == *generation && origin.copy_state == CopyState::Copied;
                if !ours || origin.applied_lsn != *from {
                    return Err("the position was moved by another connection".to_owned());
                }
                origin.applied_lsn = *to;
                self.insert(rows);
            }
            Work::Chunk { generation, copy_id, relid, chunk, chunks, rows, count } => {
                let ours = origin.generation == *generation
                    && origin.copy_id == *copy_id
                    && origin.copy_state == CopyState::Copying;
                if !ours {
                    return Err("the copy is not the one under way".to_owned());
                }
                if self.ledger.contains_key(&(*relid, *chunk)) {
                    return Err("the chunk's line is there already".to_owned());
                }
                self.ledger.insert((*relid, *chunk), (*chunks, *count));
                self.insert(rows);
            }
            Work::BeginCopy { generation, copy_id } => self.begin_copy(*generation, *copy_id),
            Work::FinishCopy { generation } => {
                if origin.generation != *generation {
                    return Err("the shadow was bound to another history".to_owned());
                }
                origin.copy_state = CopyState::Copied;
            }
        }
        Ok(())
    }

    /// `lead::keep` and `lead::start_over`.
    fn begin_copy(&mut self, generation: u64, copy_id: u64) {
        let origin = &mut self.origin;
        if origin.generation != generation || origin.copy_state == CopyState::None {
            self.rows.clear();
            self.ledger.clear();
            origin.applied_lsn = Lsn::INVALID;
        } else if origin.copy_id != copy_id {
            let mut done: BTreeMap<u32, u32> = BTreeMap::new();
            for (relid, _) in self.ledger.keys() {
                *done.entry(*relid).or_default() += 1;
            }
            let is_partial = |relid: u32, chunks: u32| done.get(&relid) != Some(&chunks);
            let partial: Vec<u32> = self
                .ledger
                .iter()
                .filter(|((relid, _), (chunks, _))| is_partial(*relid, *chunks))
                .map(|((relid, _), _)| *relid)
                .collect();
            // What has no line has no rows: nothing else is emptied.
            self.ledger.retain(|(relid, _), _| !partial.contains(relid));
            self.rows.retain(|(relid, _), _| !partial.contains(relid));
        }
        let origin = &mut self.origin;
        (origin.generation, origin.copy_id, origin.copy_state) = (generation, copy_id, CopyState::Copying);
    }

    /// Rows of a broken rule, which come without what belongs to them.
    pub fn insert(&mut self, rows: &[Row]) {
        for row in rows {
            *self.rows.entry(*row).or_default() += 1;
        }
    }
}
