//! Tables into chunks, largest table first, and who takes which.
//!
//! A chunk is a range of a table's blocks. Chunks are taken from the first
//! table that has any left, so that the largest tables are worked on by all
//! workers and the small ones fill the end.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use scry_wire::message::{CatalogApplied, CopiedTable};

use crate::catalog::Stored;
use crate::pg::dsm::{Plan, PlanTable, TablePlan};
use crate::pg::latch;
use crate::pg::scan::TableScan;
use crate::worker::shmem::JobRef;

/// Fewest blocks in a chunk: 4 MB of table, so that a chunk's transaction on
/// the shadow costs little beside its rows.
const CHUNK_BLOCKS_MIN: u32 = 512;

/// Most blocks in a chunk of a table that is cut, and most that are read under one lock of any:
/// 64 MB, so that repeating or waiting costs little.
pub const CHUNK_BLOCKS_MAX: u32 = 8192;

/// Most blocks of a table that is one chunk wherever it may be: 512 MB, some seconds.
const WHOLE_BLOCKS: u32 = 1 << 16;

/// Most blocks of a table that is one chunk because it is hardly more than a worker's share: 4 GB.
const WHOLE_BLOCKS_MAX: u32 = 1 << 19;

/// Chunks that each worker should find, so that all end at about the same time.
const CHUNKS_PER_WORKER: u64 = 8;

/// Blocks in a chunk of a copy of so many blocks by so many workers.
pub fn chunk_blocks(blocks: u64, workers: usize) -> u32 {
    let wanted = blocks / (CHUNKS_PER_WORKER * workers.max(1) as u64);
    u32::try_from(wanted).unwrap_or(u32::MAX).clamp(CHUNK_BLOCKS_MIN, CHUNK_BLOCKS_MAX)
}

/// Chunks of a table of so many blocks in a copy of `all` blocks by so many workers. The shadow
/// loads whole tables at about three quarters of the cost (decision 26): so one that is no more
/// than a worker's share and a third is one chunk, and so is a small one.
fn chunks(blocks: u32, all: u64, workers: usize, size: u32) -> u32 {
    let share = all / workers.max(1) as u64;
    let is_fair = blocks <= WHOLE_BLOCKS_MAX && u64::from(blocks) <= share + share / 3;
    if blocks <= WHOLE_BLOCKS || is_fair { 1 } else { blocks.div_ceil(size).max(1) }
}

/// Makes the plan for `tables` and says how many blocks a chunk has; tables
/// that the shadow holds already get no chunks, those with rows of a former history one.
///
/// Runs inside the snapshot's transaction. Tables that have been dropped since
/// the snapshot are left out: the stream will not bring them either.
pub fn make(tables: &[Stored], applied: &CatalogApplied, workers: usize) -> (u32, Vec<TablePlan>) {
    let kept: HashMap<u32, u64> = applied.tables.iter().map(|t| (t.relid, t.rows)).collect();
    let former: HashSet<u32> = applied.former.iter().copied().collect();
    let mut plans: Vec<TablePlan> = tables
        .iter()
        .filter_map(|Stored { relid, filenode, shape }| {
            let scan = TableScan::open(*relid, false)?;
            let rows = kept.get(relid).copied().unwrap_or_default();
            Some(TablePlan {
                relid: *relid,
                // The snapshot's: another one is noticed when a chunk is read.
                filenode: *filenode,
                shape: *shape,
                blocks: scan.blocks(),
                chunks: 0,
                former: former.contains(relid),
                rows,
            })
        })
        .collect();
    let missing = |plan: &&mut TablePlan| !kept.contains_key(&plan.relid);
    let blocks = plans.iter_mut().filter(missing).map(|plan| u64::from(plan.blocks)).sum();
    let size = chunk_blocks(blocks, workers);
    for plan in plans.iter_mut().filter(missing) {
        // What is compared is compared as a whole.
        plan.chunks = if plan.former { 1 } else { chunks(plan.blocks, blocks, workers, size) };
    }
    plans.sort_by_key(|plan| std::cmp::Reverse(plan.blocks));
    (size, plans)
}

/// Chunks of a table that an earlier round completed.
pub fn kept_chunks(applied: &CatalogApplied, relid: u32) -> u32 {
    applied.tables.iter().find(|t| t.relid == relid).map_or(0, |t| t.chunks)
}

/// Tables that were sent and that the shadow, by its receipt, does not have whole. A receipt that
/// names as many tables as it can may not name all.
pub fn lost(sent: &[CopiedTable], applied: &CatalogApplied) -> Vec<CopiedTable> {
    if applied.tables.len() >= CatalogApplied::TABLES_MAX {
        return Vec::new();
    }
    let held: HashMap<u32, &CopiedTable> = applied.tables.iter().map(|t| (t.relid, t)).collect();
    let is_lost = |table: &&CopiedTable| table.chunks > 0 && held.get(&table.relid) != Some(table);
    sent.iter().filter(is_lost).copied().collect()
}

/// A chunk in a worker's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Index of the table in the plan.
    pub table: usize,
    /// The chunk's number.
    pub chunk: u32,
}

impl Claim {
    fn to_cell(self) -> u64 {
        (self.table as u64 + 1) << 32 | u64::from(self.chunk)
    }

    fn from_cell(cell: u64) -> Option<Claim> {
        let table = usize::try_from(cell >> 32).ok()?.checked_sub(1)?;
        Some(Claim { table, chunk: (cell & 0xFFFF_FFFF) as u32 })
    }
}

/// The next chunk for worker `number`: first the one its predecessor left.
pub fn claim(plan: &Plan, number: usize) -> Option<Claim> {
    let cell = plan.head().claims.get(number)?;
    if let Some(claim) = Claim::from_cell(cell.load(Acquire)) {
        return Some(claim);
    }
    for (index, table) in plan.tables().iter().enumerate() {
        if table.next_chunk.load(Relaxed) >= table.chunks {
            continue;
        }
        let chunk = table.next_chunk.fetch_add(1, AcqRel);
        if chunk < table.chunks {
            let _ = table.started_at.compare_exchange(0, latch::now() as u64, Relaxed, Relaxed);
            let claim = Claim { table: index, chunk };
            cell.store(claim.to_cell(), std::sync::atomic::Ordering::Release);
            return Some(claim);
        }
    }
    None
}

/// Whether the rows that the shadow has of the table are to be compared before it is copied.
pub fn is_to_be_compared(table: &PlanTable) -> bool {
    table.former.load(Acquire) == 1
}

/// The rows that the shadow had of the table are those of the snapshot, so many of them mended;
/// `None` if they could not be made so.
pub fn compared(table: &PlanTable, mended: Option<u64>) {
    let state = mended.map_or(0, |rows| if rows == 0 { 2 } else { 3 });
    table.former.store(state, std::sync::atomic::Ordering::Release);
}

/// Tables whose rows were on the shadow already, and how many of them were mended.
pub fn found(plan: &Plan) -> (usize, usize) {
    let states = || plan.tables().iter().map(|table| table.former.load(Acquire));
    (states().filter(|state| *state >= 2).count(), states().filter(|state| *state == 3).count())
}

/// The chunk in worker `number`'s hands has its receipt.
pub fn done(plan: &Plan, number: usize, claim: Claim, rows: u64) {
    if let Some(table) = plan.tables().get(claim.table) {
        table.rows.fetch_add(rows, Relaxed);
        table.done_chunks.fetch_add(1, AcqRel);
    }
    if let Some(cell) = plan.head().claims.get(number) {
        cell.store(0, std::sync::atomic::Ordering::Release);
    }
}

/// Blocks of a chunk: from (included) to (excluded).
pub fn blocks(plan: &Plan, table: &PlanTable, chunk: u32) -> (u32, u32) {
    if table.chunks == 1 {
        return (0, table.blocks);
    }
    let size = plan.head().chunk_blocks;
    let from = chunk.saturating_mul(size);
    (from, from.saturating_add(size).min(table.blocks).max(from))
}

/// Whether every chunk has its receipt.
pub fn is_complete(plan: &Plan) -> bool {
    plan.tables().iter().all(|t| t.done_chunks.load(Acquire) >= t.chunks)
}

/// Whether there are chunks that nobody has taken.
pub fn has_unclaimed(plan: &Plan) -> bool {
    plan.tables().iter().any(|t| t.next_chunk.load(Acquire) < t.chunks)
}

/// How far a table's copy is.
#[derive(Debug, Clone, Copy)]
pub struct TableProgress {
    /// The table.
    pub relid: u32,
    /// Chunks in all; 0 when an earlier round completed the table.
    pub chunks: u32,
    /// Chunks that have their receipt.
    pub done_chunks: u32,
    /// Blocks in all.
    pub blocks: u32,
    /// Rows that have their receipt.
    pub rows: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// When the first chunk was taken (`TimestampTz`); 0 before.
    pub started_at: i64,
}

/// How far each table of a job's running copy is; empty when none runs.
pub fn progress(job: JobRef) -> Vec<TableProgress> {
    let Some(plan) = Plan::attach(job.live().plan_handle.load(Acquire)) else { return Vec::new() };
    plan.tables()
        .iter()
        .map(|t| TableProgress {
            relid: t.relid,
            chunks: t.chunks,
            done_chunks: t.done_chunks.load(Acquire),
            blocks: t.blocks,
            rows: t.rows.load(Relaxed),
            bytes: t.bytes.load(Relaxed),
            started_at: t.started_at.load(Relaxed) as i64,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_chunks_by_the_size_of_the_copy() {
        assert_eq!(chunk_blocks(0, 2), CHUNK_BLOCKS_MIN);
        assert_eq!(chunk_blocks(16_000, 2), 1000);
        assert_eq!(chunk_blocks(u64::MAX, 0), CHUNK_BLOCKS_MAX);
    }

    #[test]
    fn a_table_within_its_share_is_one_chunk() {
        assert_eq!(chunks(400_000, 600_000, 2, 5_000), 1);
        assert_eq!(chunks(400_001, 600_000, 2, 5_000), 81);
        assert_eq!(chunks(0, 0, 0, CHUNK_BLOCKS_MIN), 1);
        assert_eq!(chunks(WHOLE_BLOCKS, u64::from(WHOLE_BLOCKS), 4, CHUNK_BLOCKS_MAX), 1);
        assert_eq!(chunks(WHOLE_BLOCKS + 1, u64::from(WHOLE_BLOCKS), 4, CHUNK_BLOCKS_MAX), 9);
        assert_eq!(chunks(WHOLE_BLOCKS_MAX + 1, u64::MAX, 2, CHUNK_BLOCKS_MAX), 65);
    }

    #[test]
    fn finds_what_the_shadow_has_lost() {
        let table = |relid, chunks, rows| CopiedTable { relid, chunks, rows };
        let sent = [table(1, 2, 10), table(2, 1, 5), table(3, 1, 0), table(4, 0, 0)];
        let mut applied = CatalogApplied { tables: sent[..3].to_vec(), ..CatalogApplied::default() };
        assert_eq!(lost(&sent, &applied), []);
        applied.tables[0].rows = 9;
        applied.tables.remove(1);
        assert_eq!(lost(&sent, &applied), sent[..2]);
        applied.tables = vec![table(9, 1, 1); CatalogApplied::TABLES_MAX];
        assert_eq!(lost(&sent, &applied), []);
    }

    #[test]
    fn keeps_a_claim_in_a_cell() {
        for claim in [Claim { table: 0, chunk: 0 }, Claim { table: 59_999, chunk: u32::MAX }] {
            assert_eq!(Claim::from_cell(claim.to_cell()), Some(claim));
        }
        assert_eq!(Claim::from_cell(0), None);
    }
}
