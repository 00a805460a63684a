//! A copy's plan in dynamic shared memory: the snapshot leader makes it, its
//! workers take chunks from it, status views look at it.
//!
//! Numbers only. Chunks are claimed by an atomic counter per table; what a
//! worker holds stands in its own cell, so that another can take it over.

use std::sync::atomic::{AtomicU32, AtomicU64};

use pgrx::pg_sys;

use super::shared::SNAPSHOT_WORKERS_MAX;

/// What stands before the tables.
#[repr(C)]
pub struct PlanHead {
    /// Recognises a plan.
    magic: u32,
    /// Number of tables.
    pub tables: u32,
    /// Blocks in a chunk.
    pub chunk_blocks: u32,
    /// A worker found a table rewritten or altered: this snapshot cannot be completed. Its oid.
    pub rewritten: AtomicU32,
    /// The round of the copy.
    pub copy_id: u64,
    /// Chunks whose worker ended: table index + 1 in the upper half, chunk in the lower; 0 for none.
    pub claims: [AtomicU64; SNAPSHOT_WORKERS_MAX],
}

/// One table of the plan.
#[repr(C)]
pub struct PlanTable {
    /// The table.
    pub relid: u32,
    /// Its storage number under the snapshot.
    pub filenode: u32,
    /// Its name and columns under the snapshot, as a number.
    pub shape: u64,
    /// Blocks to copy.
    pub blocks: u32,
    /// Chunks to copy; 0 when an earlier round has completed the table.
    pub chunks: u32,
    /// The shadow has rows of a former history: 1 if they are to be compared first, 2 when they
    /// were found equal, 3 when they were mended.
    pub former: AtomicU32,
    /// The next chunk to be taken.
    pub next_chunk: AtomicU32,
    /// Chunks that have their receipt.
    pub done_chunks: AtomicU32,
    /// Rows that have their receipt.
    pub rows: AtomicU64,
    /// Bytes sent.
    pub bytes: AtomicU64,
    /// When the first chunk was taken (`TimestampTz`), 0 before.
    pub started_at: AtomicU64,
}

/// What the leader knows of a table when it makes the plan.
#[derive(Debug, Clone, Copy)]
pub struct TablePlan {
    /// The table.
    pub relid: u32,
    /// Its storage number under the snapshot.
    pub filenode: u32,
    /// Its name and columns under the snapshot, as a number.
    pub shape: u64,
    /// Blocks to copy.
    pub blocks: u32,
    /// Chunks to copy.
    pub chunks: u32,
    /// The shadow has rows of a former history.
    pub former: bool,
    /// Rows of a completed table.
    pub rows: u64,
}

const MAGIC: u32 = 0x5C2B_9F11;

/// A mapped plan.
pub struct Plan {
    segment: *mut pg_sys::dsm_segment,
    head: *const PlanHead,
}

impl Plan {
    /// Makes a plan; it lives until this process ends. `None` when there is no
    /// dynamic shared memory left.
    pub fn create(copy_id: u64, chunk_blocks: u32, tables: &[TablePlan]) -> Option<Plan> {
        let size = size_of::<PlanHead>() + size_of_val_tables(tables.len());
        // SAFETY: the segment is `size` bytes, aligned to pages; everything is
        // written before its handle is given to anyone.
        unsafe {
            let segment = pg_sys::dsm_create(size, pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as i32);
            if segment.is_null() {
                return None;
            }
            pg_sys::dsm_pin_mapping(segment);
            let address = pg_sys::dsm_segment_address(segment);
            let head = address.cast::<PlanHead>();
            head.write(PlanHead {
                magic: MAGIC,
                tables: tables.len() as u32,
                chunk_blocks,
                rewritten: AtomicU32::new(0),
                copy_id,
                claims: [const { AtomicU64::new(0) }; SNAPSHOT_WORKERS_MAX],
            });
            let first = head.add(1).cast::<PlanTable>();
            for (i, table) in tables.iter().enumerate() {
                first.add(i).write(PlanTable {
                    relid: table.relid,
                    filenode: table.filenode,
                    shape: table.shape,
                    blocks: table.blocks,
                    chunks: table.chunks,
                    former: AtomicU32::new(u32::from(table.former)),
                    next_chunk: AtomicU32::new(0),
                    done_chunks: AtomicU32::new(0),
                    rows: AtomicU64::new(table.rows),
                    bytes: AtomicU64::new(0),
                    started_at: AtomicU64::new(0),
                });
            }
            Some(Plan { segment, head })
        }
    }

    /// Maps the plan of `handle`; `None` when it is gone.
    pub fn attach(handle: u32) -> Option<Plan> {
        if handle == 0 {
            return None;
        }
        // SAFETY: attaching checks the handle; the magic number checks the content.
        unsafe {
            let segment = pg_sys::dsm_attach(handle);
            if segment.is_null() {
                return None;
            }
            pg_sys::dsm_pin_mapping(segment);
            let head = pg_sys::dsm_segment_address(segment).cast::<PlanHead>();
            if pg_sys::dsm_segment_map_length(segment) < size_of::<PlanHead>() || (*head).magic != MAGIC {
                pg_sys::dsm_detach(segment);
                return None;
            }
            Some(Plan { segment, head })
        }
    }

    /// What others attach by.
    pub fn handle(&self) -> u32 {
        // SAFETY: mapped until drop.
        unsafe { pg_sys::dsm_segment_handle(self.segment) }
    }

    /// What stands before the tables.
    pub fn head(&self) -> &PlanHead {
        // SAFETY: mapped until drop, and never written but through atomics.
        unsafe { &*self.head }
    }

    /// The tables, largest first.
    pub fn tables(&self) -> &[PlanTable] {
        // SAFETY: `create` wrote that many behind the head.
        unsafe { std::slice::from_raw_parts(self.head.add(1).cast(), self.head().tables as usize) }
    }
}

fn size_of_val_tables(count: usize) -> usize {
    count * size_of::<PlanTable>()
}

impl Drop for Plan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // SAFETY: attached once, detached once.
        unsafe { pg_sys::dsm_detach(self.segment) }
    }
}

const _: () = assert!(size_of::<PlanHead>().is_multiple_of(8), "the tables behind the head are aligned");
