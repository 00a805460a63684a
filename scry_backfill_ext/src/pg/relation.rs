//! Relations and tuples as the decoder and the table scan see them.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::NonNull;

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use scry_wire::message::{Column, Relation, ReplicaIdentity};

use super::historic;
use super::row::{self, RowEncoder, Toast};
use super::{compat, ffi};
use crate::batch::LargeValue;

/// An open relation, lent by the server for the time of a callback or scan.
pub struct RelationRef<'a> {
    relation: pg_sys::Relation,
    lent: PhantomData<&'a ()>,
}

impl RelationRef<'_> {
    /// # Safety
    /// `relation` must stay open for the lifetime.
    pub unsafe fn new(relation: pg_sys::Relation) -> Self {
        RelationRef { relation, lent: PhantomData }
    }

    /// The relation's oid.
    #[inline]
    pub fn relid(&self) -> u32 {
        // SAFETY: open by contract.
        unsafe { (*self.relation).rd_id.to_u32() }
    }

    /// The relation's storage number: another one means rewritten or truncated.
    pub fn filenode(&self) -> u32 {
        // SAFETY: open by contract.
        unsafe { compat::relation_filenode(self.relation) }
    }

    /// Whether the relation is a partition.
    pub fn is_partition(&self) -> bool {
        // SAFETY: open by contract; rd_rel is always set.
        unsafe { (*(*self.relation).rd_rel).relispartition }
    }

    /// Whether it is an ordinary table that the transaction being decoded has
    /// made or altered: what writes rows into a new table (`CREATE TABLE AS`)
    /// does so before its event trigger says that there is one.
    pub fn is_of_this_transaction(&self) -> bool {
        // SAFETY: open by contract; the tuple is released before returning.
        unsafe {
            if (*(*self.relation).rd_rel).relkind != pg_sys::RELKIND_RELATION as std::ffi::c_char {
                return false;
            }
            let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
            let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from((*self.relation).rd_id));
            if tuple.is_null() {
                return false;
            }
            let xmin = (*(*tuple).t_data).t_choice.t_heap.t_xmin;
            pg_sys::ReleaseSysCache(tuple);
            historic::is_current_transaction(xmin.into_inner())
        }
    }

    /// The partitioned tables above a partition, nearest first.
    pub fn ancestors(&self) -> Vec<u32> {
        if !self.is_partition() {
            return Vec::new();
        }
        // SAFETY: reads pg_inherits under the snapshot in force; the list is
        // palloc'd, in the callback's context.
        unsafe {
            let relid = (*self.relation).rd_id;
            let list = pg_guard_ffi_boundary(|| ffi::get_partition_ancestors(relid));
            if list.is_null() {
                return Vec::new();
            }
            let cells = std::slice::from_raw_parts((*list).elements, (*list).length as usize);
            cells.iter().map(|cell| cell.oid_value.to_u32()).collect()
        }
    }

    /// Its description for the wire, and what encodes its rows.
    pub fn describe(&self, toast: Toast) -> (Relation, RowEncoder) {
        let relation = self.description();
        // SAFETY: open by contract; catalog caches may be read both in a
        // transaction and under a historic snapshot.
        let encoder = unsafe { RowEncoder::new((*self.relation).rd_att, relation.format, toast) };
        (relation, encoder)
    }

    /// As [`describe`](Self::describe), for chunks; `stored`: the platform takes stored values.
    pub fn describe_chunk(&self, stored: bool) -> (Relation, RowEncoder) {
        let mut relation = self.description();
        // SAFETY: as `describe`.
        let encoder = unsafe {
            let desc = (*self.relation).rd_att;
            if stored {
                relation.format = row::stored_format(desc, relation.format);
            }
            RowEncoder::new(desc, relation.format, Toast::Fetch)
        };
        (relation, encoder)
    }

    fn description(&self) -> Relation {
        // SAFETY: as `describe`.
        unsafe {
            let class = &*(*self.relation).rd_rel;
            let replica_identity = replica_identity(class);
            Relation {
                relid: self.relid(),
                format: row::format_of((*self.relation).rd_att, row::travels),
                replica_identity,
                schema: self.schema(),
                name: name_of(&class.relname),
                columns: self.columns(replica_identity == ReplicaIdentity::Full),
            }
        }
    }

    /// As [`describe`](Self::describe), for hashes of whole rows
    /// ([`scry_wire::hash`]): generated columns too, in the order of the hash,
    /// and by the primary key where the replica identity is no key. In a
    /// transaction.
    pub fn describe_whole(&self) -> (Relation, RowEncoder) {
        // SAFETY: open by contract; the bitmaps are palloc'd, for the function's time.
        unsafe {
            let class = &*(*self.relation).rd_rel;
            let desc = (*self.relation).rd_att;
            let is_there = |a: &pg_sys::FormData_pg_attribute| !a.attisdropped;
            let format = row::format_of(desc, is_there);
            let mut keys = pg_sys::RelationGetIdentityKeyBitmap(self.relation);
            if keys.is_null() {
                let primary = pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY;
                keys = pg_sys::RelationGetIndexAttrBitmap(self.relation, primary);
            }
            let mut columns: Vec<Column> = (0..(*desc).natts as usize)
                .map(|i| &*compat::attribute(desc, i))
                .filter(|a| is_there(a))
                .map(|a| column(a, is_member(a, keys)))
                .collect();
            scry_wire::hash::sort(&mut columns);
            let encoder = RowEncoder::of_columns(desc, columns.iter().map(|c| c.attnum), format);
            let relation = Relation {
                relid: self.relid(),
                format,
                replica_identity: replica_identity(class),
                schema: self.schema(),
                name: name_of(&class.relname),
                columns,
            };
            (relation, encoder)
        }
    }

    /// What encodes rows of the columns that travel, for as long as the transaction.
    pub fn plain(&self) -> (Relation, RowEncoder) {
        let relation = self.description();
        let attnums = relation.columns.iter().map(|c| c.attnum);
        // SAFETY: open by contract; the description's columns are its own.
        let encoder = unsafe { RowEncoder::of_columns((*self.relation).rd_att, attnums, relation.format) };
        (relation, encoder)
    }

    unsafe fn schema(&self) -> String {
        // SAFETY: open by contract; the name is palloc'd, null if it is gone.
        unsafe {
            let schema = pg_sys::get_namespace_name((*(*self.relation).rd_rel).relnamespace);
            if schema.is_null() {
                String::new()
            } else {
                CStr::from_ptr(schema).to_string_lossy().into_owned()
            }
        }
    }

    /// Appends `tuple`, which belongs to this relation, to `out`; large values
    /// stay where they are and are noted in `large`.
    #[inline]
    pub fn encode<'t>(
        &self,
        encoder: &mut RowEncoder,
        tuple: TupleRef<'t>,
        out: &mut Vec<u8>,
        large: &mut Vec<LargeValue<'t>>,
    ) {
        // SAFETY: open by contract; the server decodes with this descriptor.
        unsafe { encoder.encode_tuple((*self.relation).rd_att, tuple, out, large) }
    }

    unsafe fn columns(&self, full: bool) -> Vec<Column> {
        // SAFETY: open by contract.
        unsafe {
            let desc = (*self.relation).rd_att;
            let keys = pg_sys::RelationGetIdentityKeyBitmap(self.relation);
            let is_key = |a: &pg_sys::FormData_pg_attribute| is_member(a, keys);
            // Half a key identifies nothing: a generated column does not travel.
            let whole = (0..(*desc).natts as usize)
                .map(|i| &*compat::attribute(desc, i))
                .all(|a| row::travels(a) || !is_key(a));
            (0..(*desc).natts as usize)
                .map(|i| &*compat::attribute(desc, i))
                .filter(|a| row::travels(a))
                .map(|a| column(a, full || (whole && is_key(a))))
                .collect()
        }
    }
}

fn column(a: &pg_sys::FormData_pg_attribute, key: bool) -> Column {
    Column {
        attnum: a.attnum,
        key,
        identity_always: a.attidentity as u8 == pg_sys::ATTRIBUTE_IDENTITY_ALWAYS,
        type_oid: a.atttypid.to_u32(),
        type_mod: a.atttypmod,
        name: name_of(&a.attname),
    }
}

/// Whether a column is in a bitmap of columns; none are in a null one.
unsafe fn is_member(a: &pg_sys::FormData_pg_attribute, columns: *mut pg_sys::Bitmapset) -> bool {
    let member = i32::from(a.attnum) - pg_sys::FirstLowInvalidHeapAttributeNumber;
    // SAFETY: a bitmap of the server's, or null.
    unsafe { pg_sys::bms_is_member(member, columns) }
}

fn replica_identity(class: &pg_sys::FormData_pg_class) -> ReplicaIdentity {
    match class.relreplident as u8 {
        b'i' => ReplicaIdentity::Index,
        b'f' => ReplicaIdentity::Full,
        b'n' => ReplicaIdentity::Nothing,
        _ => ReplicaIdentity::Default,
    }
}

/// The text of a `NameData`.
pub fn name_of(name: &pg_sys::NameData) -> String {
    // SAFETY: a NameData ends with a zero byte.
    unsafe { CStr::from_ptr(name.data.as_ptr()) }.to_string_lossy().into_owned()
}

/// A tuple, lent by the server for the time of a callback.
#[derive(Clone, Copy)]
pub struct TupleRef<'a> {
    tuple: NonNull<pg_sys::HeapTupleData>,
    lent: PhantomData<&'a ()>,
}

impl TupleRef<'_> {
    /// `None` for a null pointer.
    ///
    /// # Safety
    /// `tuple` must be null or valid for the lifetime.
    pub unsafe fn new(tuple: pg_sys::HeapTuple) -> Option<Self> {
        NonNull::new(tuple).map(|tuple| TupleRef { tuple, lent: PhantomData })
    }

    /// The pointer.
    pub fn as_ptr(&self) -> pg_sys::HeapTuple {
        self.tuple.as_ptr()
    }
}
