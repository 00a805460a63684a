//! Relations and tuples as the decoder and the table scan see them.

use std::ffi::CStr;
use std::marker::PhantomData;
use std::ptr::NonNull;

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use scry_wire::message::{Column, Relation, ReplicaIdentity};

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
        // SAFETY: open by contract; catalog caches may be read both in a
        // transaction and under a historic snapshot.
        unsafe {
            let class = &*(*self.relation).rd_rel;
            let desc = (*self.relation).rd_att;
            let format = row::format_of(desc);
            let schema = pg_sys::get_namespace_name(class.relnamespace);
            let schema = if schema.is_null() {
                String::new()
            } else {
                CStr::from_ptr(schema).to_string_lossy().into_owned()
            };
            let replica_identity = match class.relreplident as u8 {
                b'i' => ReplicaIdentity::Index,
                b'f' => ReplicaIdentity::Full,
                b'n' => ReplicaIdentity::Nothing,
                _ => ReplicaIdentity::Default,
            };
            let relation = Relation {
                relid: self.relid(),
                format,
                replica_identity,
                schema,
                name: name_of(&class.relname),
                columns: self.columns(replica_identity == ReplicaIdentity::Full),
            };
            (relation, RowEncoder::new(desc, format, toast))
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
            let is_key = |a: &pg_sys::FormData_pg_attribute| {
                let member = i32::from(a.attnum) - pg_sys::FirstLowInvalidHeapAttributeNumber;
                pg_sys::bms_is_member(member, keys)
            };
            // Half a key identifies nothing: a generated column does not travel.
            let whole = (0..(*desc).natts as usize)
                .map(|i| &*compat::attribute(desc, i))
                .all(|a| row::travels(a) || !is_key(a));
            (0..(*desc).natts as usize)
                .map(|i| &*compat::attribute(desc, i))
                .filter(|a| row::travels(a))
                .map(|a| Column {
                    attnum: a.attnum,
                    key: full || (whole && is_key(a)),
                    identity_always: a.attidentity as u8 == pg_sys::ATTRIBUTE_IDENTITY_ALWAYS,
                    type_oid: a.atttypid.to_u32(),
                    type_mod: a.atttypmod,
                    name: name_of(&a.attname),
                })
                .collect()
        }
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
