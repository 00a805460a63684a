//! Putting tuples into a table of this server.
//!
//! ```text
//! new storage, no WAL, no index ─► pages of our own (as CREATE INDEX and CLUSTER write theirs)
//! anything else                 ─► heap_multi_insert, the table's indexes
//! ```
//!
//! NOT NULL is the caller's, who forms the tuples; CHECK and partition constraints are checked here.
//! Tables that need more (triggers, computed columns, another access method) are not opened.

use std::ptr;

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::varlena;
use pgrx::{PgSqlErrorCode, pg_sys};

use super::constraints::Constraints;
use super::relation::name_of;
use super::report::raise;
use super::row::RowContext;
use super::{compat, ffi};
use crate::loader::form::{Column, Layout, Server};
use crate::loader::page::{Page, visibility_map};
use crate::loader::value::Kind;

/// An open table, and what tuples go through.
pub struct TableWriter {
    relation: pg_sys::Relation,
    columns: Vec<Column>,
    receivers: Vec<Receiver>,
    /// What receive functions and toasting leave; emptied by [`after_row`](Self::after_row).
    memory: RowContext,
    message: pg_sys::StringInfoData,
    options: i32,
    constraints: Option<Constraints>,
    batch: Option<Batch>,
}

/// The receive function of a column.
struct Receiver {
    column: String,
    function: Box<pg_sys::FmgrInfo>,
    io_param: pg_sys::Oid,
    typmod: i32,
    len: i16,
    by_value: bool,
}

/// Tuples that wait for `heap_multi_insert`.
struct Batch {
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    filled: usize,
    bytes: usize,
    tuples: RowContext,
    bulk: pg_sys::BulkInsertState,
    cid: pg_sys::CommandId,
}

impl TableWriter {
    /// Opens a table for rows of these columns; the error says why its rows are the server's COPY's.
    /// In a transaction, which ends with what is written or without.
    pub fn open(relid: pg_sys::Oid, columns: &[String]) -> Result<TableWriter, String> {
        // SAFETY: in a transaction; an error or its end closes the table and gives the lock back.
        unsafe {
            let relation = pg_sys::try_relation_open(relid, pg_sys::RowExclusiveLock as i32);
            if relation.is_null() {
                return Err("there is no such table".to_owned());
            }
            match Self::on(relation, columns) {
                Ok(writer) => Ok(writer),
                Err(reason) => {
                    pg_sys::relation_close(relation, pg_sys::RowExclusiveLock as i32);
                    Err(reason)
                }
            }
        }
    }

    unsafe fn on(relation: pg_sys::Relation, names: &[String]) -> Result<TableWriter, String> {
        // SAFETY: open; descriptors live as long.
        unsafe {
            let class = &*(*relation).rd_rel;
            if class.relkind as u8 != pg_sys::RELKIND_RELATION || pg_sys::IsSystemRelation(relation) {
                return Err("it is no ordinary table".to_owned());
            }
            let allowed = pg_sys::pg_class_aclcheck(
                (*relation).rd_id,
                pg_sys::GetUserId(),
                pg_sys::ACL_INSERT as pg_sys::AclMode,
            );
            if allowed != pg_sys::AclResult::ACLCHECK_OK {
                return Err("permission denied".to_owned());
            }
            if (*relation).rd_tableam != pg_sys::GetHeapamTableAmRoutine() {
                return Err("it has another access method than heap".to_owned());
            }
            if pg_sys::GetDatabaseEncoding() != pg_sys::pg_enc::PG_UTF8 as i32 {
                return Err("the database's encoding is not UTF8".to_owned());
            }
            if has_live_triggers((*relation).trigdesc) {
                return Err("it has triggers that fire".to_owned());
            }
            let (columns, receivers) = describe((*relation).rd_att, names)?;
            let mut message: pg_sys::StringInfoData = std::mem::zeroed();
            pg_sys::initStringInfo(&mut message);
            let is_new = compat::is_stored_anew(relation);
            let constraints = Constraints::of(relation);
            let pages = is_new
                && class.relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT
                && pg_sys::wal_level == pg_sys::WalLevel::WAL_LEVEL_MINIMAL as i32
                && !class.relhasindex
                && pg_sys::RelationGetNumberOfBlocksInFork(relation, MAIN) == 0;
            let frozen = pg_sys::TABLE_INSERT_SKIP_FSM | pg_sys::TABLE_INSERT_FROZEN;
            Ok(TableWriter {
                relation,
                columns,
                receivers,
                memory: RowContext::new(pg_sys::CurrentMemoryContext),
                message,
                options: if is_new { frozen as i32 } else { 0 },
                constraints,
                batch: (!pages).then(|| Batch::new()),
            })
        }
    }

    /// The table's columns, dropped ones too.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Its name.
    pub fn name(&self) -> String {
        // SAFETY: open until `finish`.
        unsafe { name_of(&(*(*self.relation).rd_rel).relname) }
    }

    /// A column's name.
    pub fn column_name(&self, index: usize) -> String {
        // SAFETY: open until `finish`; the caller's columns are ours.
        unsafe { name_of(&(*compat::attribute((*self.relation).rd_att, index)).attname) }
    }

    /// The transaction that inserts.
    pub fn xid(&self) -> u32 {
        // SAFETY: in a transaction.
        unsafe { pg_sys::GetCurrentTransactionId().into_inner() }
    }

    /// Whether tuples are to be frozen: nobody can see the table before the transaction ends.
    pub fn is_frozen(&self) -> bool {
        self.options as u32 & pg_sys::TABLE_INSERT_FROZEN != 0
    }

    /// Whether the table takes whole pages ([`append`](Self::append)), or tuples
    /// ([`insert`](Self::insert)).
    pub fn takes_pages(&self) -> bool {
        self.batch.is_none()
    }

    /// Bytes of a page that the table wants to be left free (`fillfactor`).
    pub fn spare(&self) -> usize {
        // SAFETY: open; a table's options are of this type (utils/rel.h).
        let fillfactor = unsafe {
            let options = (*self.relation).rd_options.cast::<pg_sys::StdRdOptions>();
            if options.is_null() { 100 } else { (*options).fillfactor }
        };
        pg_sys::BLCKSZ as usize * usize::try_from(100 - fillfactor).unwrap_or(0) / 100
    }

    /// Checks what the server knows of rows of the table; raises its error.
    #[inline]
    pub fn check(&mut self, tuple: &[u8]) {
        if self.constraints.as_ref().is_none_or(|c| !c.checks && !c.is_partition) {
            return;
        }
        let tuple = self.copy_of(tuple);
        if let Some(constraints) = &self.constraints {
            // SAFETY: the tuple is of the table's descriptor, in the row's memory.
            unsafe { constraints.check(tuple) }
        }
    }

    /// Leaves the tuple, its large values compressed or put aside, in `out`; `false`, and nothing, if
    /// a page takes it as it is.
    #[inline]
    pub fn toast(&mut self, tuple: &[u8], out: &mut Vec<u8>) -> bool {
        if tuple.len() <= TOAST_TUPLE_THRESHOLD {
            return false;
        }
        let copy = self.copy_of(tuple);
        let (relation, options) = (self.relation, self.options);
        out.clear();
        // SAFETY: the copy is a tuple of the table's; what comes back lies in the row's memory.
        unsafe {
            let toasted = self.memory.within(|| {
                pg_guard_ffi_boundary(|| {
                    ffi::heap_toast_insert_or_update(relation, copy, ptr::null_mut(), options)
                })
            });
            let data: *const u8 = (*toasted).t_data.cast();
            out.extend_from_slice(std::slice::from_raw_parts(data, (*toasted).t_len as usize));
        }
        true
    }

    /// The row's memory is free again.
    #[inline]
    pub fn after_row(&mut self) {
        self.memory.reset();
    }

    /// Writes the next page, number `block`.
    pub fn append(&mut self, page: &mut Page, block: u32) {
        // SAFETY: open, new and ours alone; the page is one of the table's. The kernel begins to write
        // out what is there, so that the end of the transaction need not wait for all of it.
        unsafe {
            self.extend(MAIN, block, page);
            let after = block + 1;
            if after.is_multiple_of(WRITEBACK) {
                let smgr = pg_sys::RelationGetSmgr(self.relation);
                pg_sys::smgrwriteback(smgr, MAIN, after - WRITEBACK, WRITEBACK);
            }
        }
    }

    unsafe fn extend(&self, fork: pg_sys::ForkNumber::Type, block: u32, page: &mut Page) {
        let bytes = page.bytes().as_mut_ptr();
        // SAFETY: by contract. The end of the transaction syncs the file (`smgrDoPendingSyncs`).
        unsafe {
            pg_sys::PageSetChecksumInplace(bytes.cast(), block);
            pg_sys::smgrextend(pg_sys::RelationGetSmgr(self.relation), fork, block, bytes.cast(), true);
        }
    }

    /// Takes a tuple; it is in the table at the latest when this is finished.
    pub fn insert(&mut self, tuple: &[u8]) {
        let Some(batch) = &mut self.batch else { return };
        // SAFETY: the tuple is of the table's descriptor.
        unsafe {
            batch.add(self.relation, tuple);
            if batch.filled == TUPLES_MAX || batch.bytes > BYTES_MAX {
                batch.flush(self.relation, self.options, self.constraints.as_ref());
            }
        }
    }

    /// Ends with `rows` in the table; `pages` of them were appended.
    pub fn finish(mut self, rows: u64, pages: u32) {
        // SAFETY: everything was made by `on` and is given back once.
        unsafe {
            if let Some(batch) = &mut self.batch {
                batch.flush(self.relation, self.options, self.constraints.as_ref());
                batch.end();
            } else if pages > 0 {
                let smgr = pg_sys::RelationGetSmgr(self.relation);
                if !pg_sys::smgrexists(smgr, VISIBILITY_MAP) {
                    pg_sys::smgrcreate(smgr, VISIBILITY_MAP, false);
                }
                visibility_map(pages, |number, page| self.extend(VISIBILITY_MAP, number, page));
                pg_sys::pgstat_count_heap_insert(self.relation, rows as pg_sys::PgStat_Counter);
            }
            if let Some(constraints) = &self.constraints {
                constraints.end();
            }
            // The lock stays until the transaction's end.
            pg_sys::relation_close(self.relation, pg_sys::NoLock as i32);
        }
    }

    fn copy_of(&mut self, tuple: &[u8]) -> pg_sys::HeapTuple {
        let relation = self.relation;
        // SAFETY: the memory is valid until the next row.
        self.memory.within(|| unsafe { tuple_of(relation, tuple) })
    }
}

impl Server for TableWriter {
    fn receive(&mut self, place: usize, value: Option<&[u8]>, out: &mut Vec<u8>) {
        let Some(receiver) = self.receivers.get_mut(place) else { return };
        let message = &raw mut self.message;
        // SAFETY: the function is the type's receive function, called as COPY calls it
        // (commands/copyfromparse.c, `CopyReadBinaryAttribute`).
        unsafe {
            let buffer = if let Some(value) = value {
                pg_sys::resetStringInfo(message);
                pg_sys::appendBinaryStringInfo(message, value.as_ptr().cast(), value.len() as i32);
                message
            } else {
                ptr::null_mut()
            };
            let (function, io_param, typmod) = (&mut *receiver.function, receiver.io_param, receiver.typmod);
            let datum =
                self.memory.within(|| pg_sys::ReceiveFunctionCall(function, buffer, io_param, typmod));
            if value.is_none() {
                return;
            }
            if self.message.cursor != self.message.len {
                let (table, column) = (name_of(&(*(*self.relation).rd_rel).relname), &receiver.column);
                raise(
                    PgSqlErrorCode::ERRCODE_INVALID_BINARY_REPRESENTATION,
                    format!("incorrect binary data format in column \"{column}\" of relation \"{table}\""),
                );
            }
            let raw = datum.value();
            match (receiver.by_value, receiver.len) {
                (true, len) => {
                    out.extend_from_slice(&raw.to_ne_bytes()[..usize::try_from(len).unwrap_or(0)]);
                }
                (false, -1) => {
                    let value = self.memory.within(|| pg_sys::pg_detoast_datum_packed(raw as *mut _));
                    let len = varlena::varsize_any_exhdr(value);
                    out.extend_from_slice(std::slice::from_raw_parts(
                        varlena::vardata_any(value).cast(),
                        len,
                    ));
                }
                (false, len) => {
                    let len = usize::try_from(len).unwrap_or(0);
                    out.extend_from_slice(std::slice::from_raw_parts(raw as *const u8, len));
                }
            }
        }
    }
}

impl Batch {
    unsafe fn new() -> Batch {
        // SAFETY: in a transaction.
        unsafe {
            Batch {
                slots: Vec::new(),
                filled: 0,
                bytes: 0,
                tuples: RowContext::new(pg_sys::CurrentMemoryContext),
                bulk: pg_sys::GetBulkInsertState(),
                cid: pg_sys::GetCurrentCommandId(true),
            }
        }
    }

    unsafe fn add(&mut self, relation: pg_sys::Relation, tuple: &[u8]) {
        // SAFETY: by contract; slots live in the statement's memory.
        unsafe {
            if self.filled == self.slots.len() {
                let desc = (*relation).rd_att;
                self.slots.push(pg_sys::MakeSingleTupleTableSlot(desc, &raw const pg_sys::TTSOpsHeapTuple));
            }
            let slot = self.slots[self.filled];
            let copy = self.tuples.within(|| tuple_of(relation, tuple));
            pg_sys::ExecStoreHeapTuple(copy, slot, false);
            (*slot).tts_tableOid = (*relation).rd_id;
            // The tuple is the slot's own, as far as `heap_multi_insert` is concerned, which would
            // copy it otherwise. `flush` takes that back before it frees them all.
            (*slot).tts_flags |= pg_sys::TTS_FLAG_SHOULDFREE as u16;
        }
        self.filled += 1;
        self.bytes += tuple.len();
    }

    unsafe fn flush(&mut self, relation: pg_sys::Relation, options: i32, constraints: Option<&Constraints>) {
        if self.filled == 0 {
            return;
        }
        // SAFETY: by contract; the slots hold tuples of the relation.
        unsafe {
            let (slots, count) = (self.slots.as_mut_ptr(), self.filled as i32);
            let (cid, bulk) = (self.cid, self.bulk);
            self.tuples.within(|| pg_sys::heap_multi_insert(relation, slots, count, cid, options, bulk));
            for slot in self.slots.iter().take(self.filled) {
                if let Some(constraints) = constraints.filter(|c| c.indexes) {
                    constraints.index(*slot);
                }
                (**slot).tts_flags &= !(pg_sys::TTS_FLAG_SHOULDFREE as u16);
                if let Some(clear) = (*(**slot).tts_ops).clear {
                    let slot = *slot;
                    pg_guard_ffi_boundary(|| clear(slot));
                }
            }
            self.tuples.reset();
        }
        (self.filled, self.bytes) = (0, 0);
    }

    unsafe fn end(&mut self) {
        // SAFETY: made by `new` and `add`.
        unsafe {
            pg_sys::FreeBulkInsertState(self.bulk);
            for slot in self.slots.drain(..) {
                pg_sys::ExecDropSingleTupleTableSlot(slot);
            }
        }
    }
}

/// Whether a trigger fires when a row is inserted in this session.
unsafe fn has_live_triggers(triggers: *const pg_sys::TriggerDesc) -> bool {
    // SAFETY: null, or the relation's own.
    unsafe {
        if triggers.is_null() {
            return false;
        }
        let is_replica = pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32;
        let count = usize::try_from((*triggers).numtriggers).unwrap_or(0);
        std::slice::from_raw_parts((*triggers).triggers, count).iter().any(|trigger| {
            let fires = match trigger.tgenabled as u8 {
                b'A' => true,
                b'R' => is_replica,
                b'O' => !is_replica,
                _ => false,
            };
            fires && u32::from(trigger.tgtype.cast_unsigned()) & pg_sys::TRIGGER_TYPE_INSERT != 0
        })
    }
}

/// The table's columns and the receive functions of those that travel, which must be all that are
/// neither dropped nor computed.
unsafe fn describe(
    desc: pg_sys::TupleDesc,
    names: &[String],
) -> Result<(Vec<Column>, Vec<Receiver>), String> {
    // SAFETY: valid; catalog caches may be read in a transaction.
    unsafe {
        let attributes: Vec<&pg_sys::FormData_pg_attribute> =
            (0..(*desc).natts as usize).map(|i| &*compat::attribute(desc, i)).collect();
        let mut columns = Vec::new();
        let mut receivers: Vec<Option<Receiver>> = names.iter().map(|_| None).collect();
        for attribute in attributes {
            let name = name_of(&attribute.attname);
            if attribute.attgenerated != 0 {
                return Err(format!("column \"{name}\" is computed"));
            }
            let mut column = column(attribute);
            if !attribute.attisdropped {
                let place = names.iter().position(|n| *n == name);
                let Some(place) = place else { return Err(format!("column \"{name}\" does not travel")) };
                column.place = Some(place);
                receivers[place] = Some(Receiver::of(attribute));
            }
            columns.push(column);
        }
        let receivers: Option<Vec<Receiver>> = receivers.into_iter().collect();
        receivers.map(|receivers| (columns, receivers)).ok_or_else(|| "it lacks a column".to_owned())
    }
}

unsafe fn column(attribute: &pg_sys::FormData_pg_attribute) -> Column {
    let align = match attribute.attalign as u8 {
        b's' => 2,
        b'i' => 4,
        b'd' => 8,
        _ => 1,
    };
    let layout = Layout {
        len: attribute.attlen,
        align,
        packs: attribute.attlen == -1 && attribute.attstorage as u8 != b'p',
    };
    if attribute.attisdropped {
        return Column { place: None, kind: Kind::Server, layout, not_null: false, checks_null: false };
    }
    let oid = attribute.atttypid;
    // SAFETY: catalog caches may be read in a transaction.
    let (element, checks_null) = unsafe {
        let element = if attribute.attlen == -1 { pg_sys::get_element_type(oid) } else { pg_sys::InvalidOid };
        (element, pg_sys::get_typtype(oid) as u8 == pg_sys::TYPTYPE_DOMAIN)
    };
    let kind = Kind::of(oid.to_u32(), attribute.atttypmod, element.to_u32());
    Column { place: None, kind, layout, not_null: attribute.attnotnull, checks_null }
}

impl Receiver {
    unsafe fn of(attribute: &pg_sys::FormData_pg_attribute) -> Receiver {
        // SAFETY: catalog caches may be read in a transaction; the FmgrInfo is boxed, so that it
        // stays where fmgr_info put it together.
        unsafe {
            let mut function: Box<pg_sys::FmgrInfo> = Box::new(std::mem::zeroed());
            let (mut id, mut io_param) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::getTypeBinaryInputInfo(attribute.atttypid, &mut id, &mut io_param);
            pg_sys::fmgr_info(id, &mut *function);
            let (len, by_value) = (attribute.attlen, attribute.attbyval);
            Receiver {
                column: name_of(&attribute.attname),
                function,
                io_param,
                typmod: attribute.atttypmod,
                len,
                by_value,
            }
        }
    }
}

/// A tuple of the relation, in the current memory context.
unsafe fn tuple_of(relation: pg_sys::Relation, tuple: &[u8]) -> pg_sys::HeapTuple {
    // SAFETY: head and bytes in one piece, as heap_form_tuple makes them; MAXALIGNed both.
    unsafe {
        let head = size_of::<pg_sys::HeapTupleData>().next_multiple_of(8);
        let chunk = pg_sys::palloc(head + tuple.len());
        let data = chunk.cast::<u8>().add(head);
        ptr::copy_nonoverlapping(tuple.as_ptr(), data, tuple.len());
        let result: pg_sys::HeapTuple = chunk.cast();
        (*result).t_len = tuple.len() as u32;
        (*result).t_self = std::mem::zeroed();
        (*result).t_tableOid = (*relation).rd_id;
        (*result).t_data = data.cast();
        result
    }
}

const MAIN: pg_sys::ForkNumber::Type = pg_sys::ForkNumber::MAIN_FORKNUM;
const VISIBILITY_MAP: pg_sys::ForkNumber::Type = pg_sys::ForkNumber::VISIBILITYMAP_FORKNUM;
/// `TOAST_TUPLE_THRESHOLD` (access/heaptoast.h) for pages of this size: a quarter of a page with four
/// tuples.
const TOAST_TUPLE_THRESHOLD: usize = (pg_sys::BLCKSZ as usize - 40) / 4 / 8 * 8;
/// Pages that are written out together.
const WRITEBACK: u32 = 256;
/// `MAX_BUFFERED_TUPLES` (commands/copyfrom.c).
const TUPLES_MAX: usize = 1000;
/// Larger than COPY's 64 kB: a page takes a lock once for all that it holds.
const BYTES_MAX: usize = 256 << 10;
