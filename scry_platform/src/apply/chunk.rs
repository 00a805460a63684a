//! One chunk's way into the shadow: a pure state machine.
//!
//! ```text
//!        claimed: new                 end: counts agree          committed
//! Began ─────────────► Loading ─► … ─────────────────► Written ──────────► receipt
//!   └──── claimed: there already ──► Dropping ─► … ─ end ─► receipt from the ledger
//! ```
//!
//! Invariants: rows are taken only after the chunk's line in the ledger has
//! been claimed in the same transaction; a receipt is given out only for a line
//! that is committed, by this connection or by an earlier one. What it does not
//! do: no I/O. `copy` does what it says; the simulation of `tests/simulation`
//! runs it as it stands here.

use crate::{Error, Result};
use scry_wire::message::{ChunkDone, ChunkStart};

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Announced; its line is to be claimed.
    Began,
    /// The line is ours, and uncommitted.
    Loading,
    /// The line was there: the rows are passed over.
    Dropping,
    /// Rows and line are written, and uncommitted.
    Written { rows: u64 },
}

/// What is done with a chunk's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Load them.
    Load,
    /// The shadow has them: pass over them.
    PassOver,
}

/// A chunk on its way.
#[derive(Debug)]
pub struct Chunk {
    relid: u32,
    table: String,
    chunk: u32,
    state: State,
}

impl Chunk {
    /// The peer has announced it.
    #[must_use]
    pub fn new(start: &ChunkStart) -> Self {
        let relation = &start.relation;
        Chunk {
            relid: relation.relid,
            table: super::relation_map::full_name(relation),
            chunk: start.chunk,
            state: State::Began,
        }
    }

    /// The claim's answer: whether the line is new.
    pub fn claimed(&mut self, is_new: bool) -> Rows {
        let (state, rows) =
            if is_new { (State::Loading, Rows::Load) } else { (State::Dropping, Rows::PassOver) };
        self.state = state;
        rows
    }

    /// The rows have ended: so many were loaded, so many announced. After this
    /// the line may be written and committed.
    pub fn loaded(&mut self, rows: u64, announced: u64) -> Result<()> {
        if self.state != State::Loading {
            return Err(Error::protocol(format!("chunk {} ends before it is claimed", self.chunk)));
        }
        if rows != announced {
            return Err(Error::protocol(format!(
                "chunk {} of {} holds {rows} rows, but {announced} were announced",
                self.chunk, self.table
            )));
        }
        self.state = State::Written { rows };
        Ok(())
    }

    /// Rows and line are committed.
    pub fn committed(self) -> Result<ChunkDone> {
        let State::Written { rows } = self.state else {
            return Err(Error::protocol(format!("chunk {} is committed before it is written", self.chunk)));
        };
        Ok(ChunkDone { relid: self.relid, chunk: self.chunk, rows, repeated: false })
    }

    /// The rows were passed over; the ledger's committed line has so many.
    pub fn repeated(self, rows: u64) -> Result<ChunkDone> {
        if self.state != State::Dropping {
            return Err(Error::protocol(format!("chunk {} is not there yet", self.chunk)));
        }
        Ok(ChunkDone { relid: self.relid, chunk: self.chunk, rows, repeated: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::message::{Format, Relation, ReplicaIdentity};

    fn chunk() -> Chunk {
        let relation = Relation {
            relid: 9,
            format: Format::Binary,
            replica_identity: ReplicaIdentity::Default,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            columns: Vec::new(),
        };
        Chunk::new(&ChunkStart { copy_id: 1, chunk: 2, chunks: 3, relation })
    }

    #[test]
    fn a_receipt_follows_a_commit() {
        let mut chunk = chunk();
        assert_eq!(chunk.claimed(true), Rows::Load);
        chunk.loaded(5, 5).unwrap();
        let done = chunk.committed().unwrap();
        assert_eq!(done, ChunkDone { relid: 9, chunk: 2, rows: 5, repeated: false });
    }

    #[test]
    fn a_chunk_that_is_there_is_passed_over() {
        let mut chunk = chunk();
        assert_eq!(chunk.claimed(false), Rows::PassOver);
        assert!(chunk.loaded(5, 5).is_err(), "its rows are not written");
        let done = chunk.repeated(7).unwrap();
        assert!(done.repeated && done.rows == 7);
    }

    #[test]
    fn rejects_receipts_without_a_commit() {
        let mut counts = chunk();
        counts.claimed(true);
        assert!(counts.loaded(4, 5).is_err(), "rows are missing");
        assert!(counts.committed().is_err(), "not written");
        assert!(chunk().committed().is_err(), "not claimed");
        assert!(chunk().repeated(1).is_err(), "not looked for");
    }
}
