//! Reading a range of a table's blocks.
//!
//! A TID range scan (tidbitmap of one range; access/tableam.h) under the
//! transaction's snapshot, by the table's own access method, with the bulk
//! strategy's ring of buffers, so that copying does not push the application's
//! pages out of the cache.

use std::ptr;

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use scry_wire::hash::{RowHash, RowHasher};
use scry_wire::message::Relation;

use super::relation::RelationRef;
use super::row::RowEncoder;
use crate::batch::Batch;

/// A table, locked against changes of its definition and open for reading.
pub struct TableScan {
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    encoder: RowEncoder,
    description: Relation,
    natts: usize,
}

impl TableScan {
    /// Locks and opens the table; `None` when it has been dropped.
    ///
    /// Must be called, and dropped, inside one transaction. `stored`: rows are for a platform that
    /// takes stored values.
    pub fn open(relid: u32, stored: bool) -> Option<TableScan> {
        // SAFETY: inside a transaction; AccessShareLock conflicts only with
        // AccessExclusiveLock and is held for one chunk.
        unsafe {
            let relation = pg_sys::try_relation_open(relid.into(), pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                return None;
            }
            let slot = pg_sys::table_slot_create(relation, ptr::null_mut());
            let (description, encoder) = RelationRef::new(relation).describe_chunk(stored);
            let natts = (*(*relation).rd_att).natts as usize;
            Some(TableScan { relation, slot, encoder, description, natts })
        }
    }

    /// The table, as its rows are written.
    pub fn description(&self) -> &Relation {
        &self.description
    }

    /// The table's storage number.
    pub fn filenode(&self) -> u32 {
        // SAFETY: open until drop.
        unsafe { RelationRef::new(self.relation).filenode() }
    }

    /// Blocks of the table now.
    pub fn blocks(&self) -> u32 {
        // SAFETY: open until drop; partitioned tables have no storage and are not opened here.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// Appends each row of blocks `from` (included) to `to` (excluded) to
    /// `batch`; calls `after_row` after each, which may empty it, and ends the
    /// reading when that says `false`. Returns the number of rows read.
    pub fn read(
        &mut self,
        from: u32,
        to: u32,
        batch: &mut Batch,
        mut after_row: impl FnMut(&mut Batch) -> bool,
    ) -> u64 {
        let mut rows = 0;
        // SAFETY: relation and slot are valid until drop; the scan lives
        // within this call; an error ends the transaction, which ends the scan.
        unsafe {
            let scan = Scan::begin(self.relation, from, to);
            while scan.next(self.slot) {
                let slot = &mut *self.slot;
                if (slot.tts_nvalid as usize) < self.natts {
                    pg_sys::slot_getsomeattrs_int(self.slot, self.natts as i32);
                }
                let values = std::slice::from_raw_parts(slot.tts_values, self.natts);
                let nulls = std::slice::from_raw_parts(slot.tts_isnull, self.natts);
                self.encoder.encode(values, nulls, batch.buf(), None);
                rows += 1;
                if !after_row(batch) {
                    break;
                }
            }
        }
        rows
    }
}

/// A table whose rows are hashed.
pub struct HashScan {
    relation: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    hashed: (Relation, RowEncoder),
    plain: (Relation, RowEncoder),
    hasher: RowHasher,
    natts: usize,
}

/// A row under the scan.
pub struct HashedRow<'a> {
    /// Its hashes.
    pub hash: RowHash,
    /// Where it stands: block and item.
    pub place: (u32, u16),
    /// Bytes that were hashed.
    pub len: usize,
    plain: &'a mut RowEncoder,
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
}

impl HashedRow<'_> {
    /// Appends the row as it travels.
    pub fn encode(&mut self, out: &mut Vec<u8>) {
        // SAFETY: the values are the scan's, of the encoder's relation.
        unsafe { self.plain.encode(self.values, self.nulls, out, None) }
    }
}

impl HashScan {
    /// Locks and opens the table; `None` when it has been dropped.
    pub fn open(relid: u32) -> Option<HashScan> {
        // SAFETY: as `TableScan::open`.
        unsafe {
            let relation = pg_sys::try_relation_open(relid.into(), pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                return None;
            }
            let slot = pg_sys::table_slot_create(relation, ptr::null_mut());
            let lent = RelationRef::new(relation);
            let hashed = lent.describe_whole();
            let plain = lent.plain();
            let hasher = RowHasher::new(&hashed.0.columns);
            let natts = (*(*relation).rd_att).natts as usize;
            Some(HashScan { relation, slot, hashed, plain, hasher, natts })
        }
    }

    /// The table, as its rows are hashed.
    pub fn description(&self) -> &Relation {
        &self.hashed.0
    }

    /// The table, as its rows travel.
    pub fn plain(&self) -> &Relation {
        &self.plain.0
    }

    /// The table's storage number.
    pub fn filenode(&self) -> u32 {
        // SAFETY: open until drop.
        unsafe { RelationRef::new(self.relation).filenode() }
    }

    /// Blocks of the table.
    pub fn blocks(&self) -> u32 {
        // SAFETY: open until drop.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.relation, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// Hands each row of these blocks that the snapshot in force sees to `each`, until that
    /// says `false`.
    pub fn rows(&mut self, from: u32, to: u32, mut each: impl FnMut(HashedRow<'_>) -> bool) {
        let to = to.min(self.blocks());
        if from >= to {
            return;
        }
        let mut tuple = Vec::with_capacity(8 << 10);
        let HashScan { relation, slot, hashed, plain, hasher, natts } = self;
        // SAFETY: as `TableScan::read`.
        unsafe {
            let scan = Scan::begin(*relation, from, to);
            while scan.next(*slot) {
                let row = &mut **slot;
                if (row.tts_nvalid as usize) < *natts {
                    pg_sys::slot_getsomeattrs_int(*slot, *natts as i32);
                }
                let values = std::slice::from_raw_parts(row.tts_values, *natts);
                let nulls = std::slice::from_raw_parts(row.tts_isnull, *natts);
                tuple.clear();
                hashed.1.encode(values, nulls, &mut tuple, None);
                let fields = tuple.get(FIELD_COUNT_LEN..).unwrap_or_default();
                let Ok((hash, _)) = hasher.row(fields) else {
                    pgrx::error!("a row was encoded that cannot be hashed")
                };
                let pg_sys::ItemPointerData { ip_blkid, ip_posid } = row.tts_tid;
                let block = u32::from(ip_blkid.bi_hi) << 16 | u32::from(ip_blkid.bi_lo);
                let place = (block, ip_posid);
                let len = tuple.len();
                if !each(HashedRow { hash, place, len, plain: &mut plain.1, values, nulls }) {
                    break;
                }
                if tuple.capacity() > TUPLE_KEEP {
                    tuple = Vec::with_capacity(8 << 10);
                }
            }
        }
    }
}

impl Drop for HashScan {
    fn drop(&mut self) {
        // While unwinding the transaction's abort gives everything back.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: as `TableScan::drop`.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::relation_close(self.relation, pg_sys::AccessShareLock as i32);
        }
    }
}

/// A tuple's field count, in front of what is hashed.
const FIELD_COUNT_LEN: usize = 2;
/// Room that is kept from row to row.
const TUPLE_KEEP: usize = 1 << 20;

impl Drop for TableScan {
    fn drop(&mut self) {
        // While unwinding the transaction's abort gives everything back.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: both were made by `open`; the lock is given back as well, so
        // that DDL on the source waits for one chunk at most.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::relation_close(self.relation, pg_sys::AccessShareLock as i32);
        }
    }
}

struct Scan {
    desc: pg_sys::TableScanDesc,
    method: *const pg_sys::TableAmRoutine,
}

impl Scan {
    /// `table_beginscan_tidrange` (access/tableam.h), with the bulk strategy.
    unsafe fn begin(relation: pg_sys::Relation, from: u32, to: u32) -> Scan {
        // SAFETY: relation is open; the method's functions are the access method's own.
        unsafe {
            let method = (*relation).rd_tableam;
            let flags = pg_sys::ScanOptions::SO_TYPE_TIDRANGESCAN
                | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE
                | pg_sys::ScanOptions::SO_ALLOW_STRAT;
            let (Some(begin), Some(set_range)) = ((*method).scan_begin, (*method).scan_set_tidrange) else {
                pgrx::error!("the table access method cannot read ranges of blocks")
            };
            let snapshot = pg_sys::GetActiveSnapshot();
            let mut low = tid(from, 0);
            let mut high = tid(to.saturating_sub(1), u16::MAX);
            let desc = pg_guard_ffi_boundary(|| {
                begin(relation, snapshot, 0, ptr::null_mut(), ptr::null_mut(), flags)
            });
            pg_guard_ffi_boundary(|| set_range(desc, &mut low, &mut high));
            Scan { desc, method }
        }
    }

    unsafe fn next(&self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        // SAFETY: as `begin`.
        unsafe {
            let Some(next) = (*self.method).scan_getnextslot_tidrange else { return false };
            let desc = self.desc;
            pg_guard_ffi_boundary(|| next(desc, pg_sys::ScanDirection::ForwardScanDirection, slot))
        }
    }
}

impl Drop for Scan {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // SAFETY: begun by `begin`, ended once.
        unsafe {
            let desc = self.desc;
            if let Some(end) = (*self.method).scan_end {
                pg_guard_ffi_boundary(|| end(desc));
            }
        }
    }
}

fn tid(block: u32, offset: u16) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData { bi_hi: (block >> 16) as u16, bi_lo: block as u16 },
        ip_posid: offset,
    }
}
