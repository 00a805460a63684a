//! Sequences in the WAL (`xl_seq_rec`, commands/sequence.h).
//!
//! Logical decoding skips them; whoever owns the WAL reader can look. A record
//! holds the sequence's whole new row. Sequences are not transactional, so the
//! record counts at its place in the WAL, whatever becomes of its transaction.

use std::ffi::CStr;

use pgrx::pg_sys;
use scry_wire::Lsn;

use super::{compat, snapshot};

/// Where a sequence is stored: tablespace and storage number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Storage {
    tablespace: u32,
    number: u32,
}

/// A sequence's new state, as the WAL has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceRecord {
    /// Which sequence.
    pub storage: Storage,
    /// Which (sub)transaction wrote it; 0 when that one had no number yet.
    pub xid: u32,
    /// Where the record ends.
    pub end: Lsn,
    /// `last_value`: up to 32 values ahead of the last one used.
    pub last_value: i64,
    /// Whether `last_value` itself has been used.
    pub is_called: bool,
}

/// A sequence by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedSequence {
    /// Its oid.
    pub relid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

const NODE_LEN: usize = 12;
/// Offset of `t_hoff` in a tuple's header (access/htup_details.h).
const HOFF_AT: usize = 22;

/// The state in the record that `reader` has just read, if it is a sequence's
/// of this database.
///
/// # Safety
/// `reader` must hold a record.
pub unsafe fn of_record(reader: *const pg_sys::XLogReaderState) -> Option<SequenceRecord> {
    // SAFETY: by contract; main_data has main_data_len bytes.
    let (data, xid, end) = unsafe {
        let record = (*reader).record;
        if u32::from((*record).header.xl_rmid) != pg_sys::RmgrIds::RM_SEQ_ID {
            return None;
        }
        let header = (*record).header;
        let data =
            std::slice::from_raw_parts((*record).main_data.cast::<u8>(), (*record).main_data_len as usize);
        (data, header.xl_xid.into_inner(), Lsn((*reader).EndRecPtr))
    };
    let number = |at: usize| Some(u32::from_ne_bytes(data.get(at..at + 4)?.try_into().ok()?));
    // SAFETY: a plain global, set at process start.
    if number(4)? != unsafe { pg_sys::MyDatabaseId }.to_u32() {
        return None;
    }
    let row = data.get(NODE_LEN..)?;
    let columns = row.get(usize::from(*row.get(HOFF_AT)?)..)?;
    Some(SequenceRecord {
        storage: Storage { tablespace: number(0)?, number: number(8)? },
        xid,
        end,
        last_value: i64::from_ne_bytes(columns.get(..8)?.try_into().ok()?),
        is_called: *columns.get(16)? != 0,
    })
}

/// The sequence that is stored there now; `None` when it is gone or not yet
/// committed. Outside of a transaction.
pub fn resolve(storage: Storage) -> Option<NamedSequence> {
    snapshot::transaction(|| look_up(storage))
}

/// The sequence that is stored there under the snapshot in force: in a
/// callback, as the transaction that is given out leaves it.
pub fn look_up(storage: Storage) -> Option<NamedSequence> {
    // SAFETY: inside a transaction; the names are palloc'd or null.
    unsafe {
        // The catalog stores 0 for the database's own tablespace.
        let tablespace = if storage.tablespace == pg_sys::MyDatabaseTableSpace.to_u32() {
            pg_sys::InvalidOid
        } else {
            storage.tablespace.into()
        };
        let relid = compat::relation_stored_at(tablespace, storage.number.into());
        if relid == pg_sys::InvalidOid {
            return None;
        }
        let name = pg_sys::get_rel_name(relid);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relid));
        if name.is_null() || schema.is_null() {
            return None;
        }
        Some(NamedSequence {
            relid: relid.to_u32(),
            schema: CStr::from_ptr(schema).to_string_lossy().into_owned(),
            name: CStr::from_ptr(name).to_string_lossy().into_owned(),
        })
    }
}

/// Whether the transaction has not ended yet.
pub fn is_running(xid: u32) -> bool {
    // SAFETY: reads shared memory under its own locks.
    unsafe { pg_sys::TransactionIdIsInProgress(xid.into()) }
}
