//! Everything that differs between server versions: the only `cfg(pgNN)`.

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

/// Installs a signal handler (`pqsignal_be` from 18 on).
///
/// # Safety
/// `handler` must be async-signal-safe.
pub unsafe fn pqsignal(signal: i32, handler: unsafe extern "C-unwind" fn(i32)) {
    // SAFETY: by contract.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// Ends the process (18's header does not tell bindgen that it never returns).
///
/// # Safety
/// Not inside a callback that the server calls while exiting.
pub unsafe fn proc_exit(code: i32) -> ! {
    // SAFETY: by contract.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        pg_sys::proc_exit(code);
        #[cfg(feature = "pg18")]
        {
            pg_sys::proc_exit(code);
            unreachable!("proc_exit returned")
        }
    }
}

/// Creates an ephemeral logical slot (17 adds failover and synced).
///
/// # Safety
/// `name` must be a valid C string.
pub unsafe fn create_slot(name: *const std::ffi::c_char) {
    let ephemeral = pg_sys::ReplicationSlotPersistency::RS_EPHEMERAL;
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::ReplicationSlotCreate(name, true, ephemeral, false);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::ReplicationSlotCreate(name, true, ephemeral, false, false, false);
    }
}

/// Acquires a slot, or raises ERROR when another process has it (18 adds a
/// check for invalidation).
///
/// # Safety
/// `name` must be a valid C string.
pub unsafe fn acquire_slot(name: *const std::ffi::c_char) {
    // SAFETY: by contract.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        pg_sys::ReplicationSlotAcquire(name, true);
        #[cfg(feature = "pg18")]
        pg_sys::ReplicationSlotAcquire(name, true, true);
    }
}

// libpq/libpq.h
unsafe extern "C-unwind" {
    #[cfg(feature = "pg15")]
    fn pq_buffer_has_data() -> bool;
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    fn pq_buffer_remaining_data() -> isize;
}

/// Whether bytes of the client are here that have not been looked at (17 says how many).
///
/// # Safety
/// In a session with a client.
pub unsafe fn has_input() -> bool {
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return pq_buffer_has_data();
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pq_buffer_remaining_data() > 0;
    }
}

/// A set for so many events, which lives as long as the process or until it is freed (from 17 on it may
/// have an owner).
///
/// # Safety
/// In a process with a latch.
pub unsafe fn create_wait_event_set(events: usize) -> *mut pg_sys::WaitEventSet {
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::CreateWaitEventSet(pg_sys::TopMemoryContext, events as i32);
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return pg_sys::CreateWaitEventSet(std::ptr::null_mut(), events as i32);
    }
}

/// A relation's storage number.
///
/// # Safety
/// `relation` must be open.
pub unsafe fn relation_filenode(relation: pg_sys::Relation) -> u32 {
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return (*relation).rd_node.relNode.to_u32();
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return (*relation).rd_locator.relNumber.to_u32();
    }
}

/// Whether a relation's storage was made by this very (sub)transaction: nobody else can see it, and
/// it goes with it (utils/rel.h; commands/copyfrom.c, `CopyFrom`).
///
/// # Safety
/// `relation` must be open, in a transaction.
pub unsafe fn is_stored_anew(relation: pg_sys::Relation) -> bool {
    // SAFETY: by contract.
    unsafe {
        let now = pg_sys::GetCurrentSubTransactionId();
        #[cfg(feature = "pg15")]
        let stored = (*relation).rd_firstRelfilenodeSubid;
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        let stored = (*relation).rd_firstRelfilelocatorSubid;
        (*relation).rd_createSubid == now || stored == now
    }
}

/// Makes the index entries of a tuple that has been inserted (16 adds a flag for updates).
///
/// # Safety
/// `result` must have its indexes open, `slot` hold the tuple.
pub unsafe fn insert_index_tuples(
    result: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    estate: *mut pg_sys::EState,
) {
    let none = std::ptr::null_mut();
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        pg_sys::ExecInsertIndexTuples(result, slot, estate, false, false, none, std::ptr::null_mut());
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        pg_sys::ExecInsertIndexTuples(result, slot, estate, false, false, none, std::ptr::null_mut(), false);
    }
}

/// Whether a slot has been invalidated.
///
/// # Safety
/// `slot` must point into the array of slots.
pub unsafe fn slot_is_invalid(slot: *const pg_sys::ReplicationSlot) -> bool {
    // SAFETY: by contract.
    unsafe {
        #[cfg(feature = "pg15")]
        return (*slot).data.invalidated_at != 0;
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        return (*slot).data.invalidated != pg_sys::ReplicationSlotInvalidationCause::RS_INVAL_NONE;
    }
}

/// The old and new tuples of a row change (17 drops the buffer around them).
///
/// # Safety
/// `change` must be a row change given to the output plugin.
pub unsafe fn change_tuples(
    change: *const pg_sys::ReorderBufferChange,
) -> (pg_sys::HeapTuple, pg_sys::HeapTuple) {
    // SAFETY: by contract.
    unsafe {
        let tp = &(*change).data.tp;
        #[cfg(feature = "pg15")]
        {
            let of = |buf: *mut pg_sys::ReorderBufferTupleBuf| {
                if buf.is_null() { std::ptr::null_mut() } else { &raw mut (*buf).tuple }
            };
            (of(tp.oldtuple), of(tp.newtuple))
        }
        #[cfg(any(feature = "pg17", feature = "pg18"))]
        (tp.oldtuple, tp.newtuple)
    }
}

/// The attributes of a tuple descriptor (18 keeps them behind the compact ones).
///
/// # Safety
/// `desc` must be valid and `index` below its `natts`.
pub unsafe fn attribute(desc: pg_sys::TupleDesc, index: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: by contract.
    unsafe {
        #[cfg(any(feature = "pg15", feature = "pg17"))]
        return (*desc).attrs.as_ptr().add(index);
        #[cfg(feature = "pg18")]
        return pg_sys::TupleDescAttr(desc, index as i32);
    }
}

unsafe extern "C-unwind" {
    /// utils/relfilenodemap.h, utils/relfilenumbermap.h (renamed in 16)
    #[cfg_attr(any(feature = "pg17", feature = "pg18"), link_name = "RelidByRelfilenumber")]
    fn RelidByRelfilenode(tablespace: pg_sys::Oid, number: pg_sys::Oid) -> pg_sys::Oid;
}

/// The relation that is stored there, if any; tablespace 0 is the database's own.
///
/// # Safety
/// Inside a transaction.
pub unsafe fn relation_stored_at(tablespace: pg_sys::Oid, number: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: by contract; plain numbers in and out.
    unsafe { pg_guard_ffi_boundary(|| RelidByRelfilenode(tablespace, number)) }
}

unsafe extern "C-unwind" {
    /// replication/message.h
    #[cfg(feature = "pg15")]
    fn LogLogicalMessage(
        prefix: *const std::ffi::c_char,
        message: *const std::ffi::c_char,
        size: usize,
        transactional: bool,
    ) -> pg_sys::XLogRecPtr;
    /// replication/message.h: 17 adds `flush`.
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    fn LogLogicalMessage(
        prefix: *const std::ffi::c_char,
        message: *const std::ffi::c_char,
        size: usize,
        transactional: bool,
        flush: bool,
    ) -> pg_sys::XLogRecPtr;
}

/// Writes a transactional logical message.
///
/// # Safety
/// Inside a transaction; `prefix` must be a C string and `message` have `size` bytes.
pub unsafe fn log_logical_message(
    prefix: *const std::ffi::c_char,
    message: *const std::ffi::c_char,
    size: usize,
) {
    // SAFETY: by contract.
    unsafe {
        pg_guard_ffi_boundary(|| {
            #[cfg(feature = "pg15")]
            LogLogicalMessage(prefix, message, size, true);
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            LogLogicalMessage(prefix, message, size, true, false);
        });
    }
}

/// Files that backends had to sync themselves; always 0 from 17 on, which
/// counts them elsewhere.
pub fn backend_fsyncs() -> u64 {
    #[cfg(feature = "pg15")]
    // SAFETY: the snapshot is this process's own; it is made anew, and read before it can change.
    unsafe {
        pg_sys::pgstat_clear_snapshot();
        let stats = pg_sys::pgstat_fetch_stat_checkpointer();
        if stats.is_null() { 0 } else { (*stats).buf_fsync_backend.unsigned_abs() }
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    0
}
