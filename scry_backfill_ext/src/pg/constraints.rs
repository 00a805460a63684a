//! What a table asks of its rows beside NOT NULL: CHECK constraints, a partition's bound, indexes. By
//! the executor's own functions.

use std::ptr;

use pgrx::pg_sys;

use super::compat;

/// What the executor checks and keeps.
pub struct Constraints {
    estate: *mut pg_sys::EState,
    result: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    /// The table has CHECK constraints.
    pub checks: bool,
    /// … and a partition's bound.
    pub is_partition: bool,
    /// … and indexes.
    pub indexes: bool,
}

impl Constraints {
    /// `None` where nothing is to be checked or kept.
    ///
    /// # Safety
    /// `relation` must be open for as long as this is used, in a statement.
    pub unsafe fn of(relation: pg_sys::Relation) -> Option<Constraints> {
        // SAFETY: open; the executor's state lives in the statement's memory.
        unsafe {
            let class = &*(*relation).rd_rel;
            let constraints = (*(*relation).rd_att).constr;
            let checks = !constraints.is_null() && (*constraints).num_check > 0;
            let (is_partition, indexes) = (class.relispartition, class.relhasindex);
            if !checks && !is_partition && !indexes {
                return None;
            }
            let estate = pg_sys::CreateExecutorState();
            let result: *mut pg_sys::ResultRelInfo =
                pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast();
            (*result).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(result, relation, 0, ptr::null_mut(), 0);
            if indexes {
                pg_sys::ExecOpenIndices(result, false);
            }
            let slot =
                pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsHeapTuple);
            Some(Constraints { estate, result, slot, checks, is_partition, indexes })
        }
    }

    /// Checks a tuple that is about to be written; raises the server's error.
    ///
    /// # Safety
    /// The tuple must be of the relation's descriptor.
    pub unsafe fn check(&self, tuple: pg_sys::HeapTuple) {
        // SAFETY: the tuple is of the relation's descriptor and outlives the slot's use of it.
        unsafe {
            pg_sys::ExecStoreHeapTuple(tuple, self.slot, false);
            if self.is_partition {
                pg_sys::ExecPartitionCheck(self.result, self.slot, self.estate, true);
            }
            if self.checks {
                pg_sys::ExecConstraints(self.result, self.slot, self.estate);
            }
            self.after();
        }
    }

    /// Makes the index entries of a tuple that has been inserted.
    ///
    /// # Safety
    /// The slot must hold it, with its place.
    pub unsafe fn index(&self, slot: *mut pg_sys::TupleTableSlot) {
        // SAFETY: the slot holds a tuple that has just been inserted.
        unsafe {
            compat::insert_index_tuples(self.result, slot, self.estate);
            self.after();
        }
    }

    /// What expressions have left (`ResetPerTupleExprContext`).
    unsafe fn after(&self) {
        // SAFETY: made by the executor, if at all.
        unsafe {
            let expressions = (*self.estate).es_per_tuple_exprcontext;
            if !expressions.is_null() {
                pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
            }
        }
    }

    /// Gives everything back.
    ///
    /// # Safety
    /// Once.
    pub unsafe fn end(&self) {
        // SAFETY: made by `of`.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            if self.indexes {
                pg_sys::ExecCloseIndices(self.result);
            }
            pg_sys::FreeExecutorState(self.estate);
        }
    }
}
