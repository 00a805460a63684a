//! Functions of the server that pgrx does not bind.

use std::ffi::{c_char, c_int};

use pgrx::pg_sys;

/// `SnapBuild` (replication/snapbuild.h): opaque.
pub type SnapBuild = pg_sys::SnapBuild;

/// `PQcommMethods` (libpq/libpq.h).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CommMethods {
    comm_reset: unsafe extern "C-unwind" fn(),
    /// Sends what has been written.
    pub flush: unsafe extern "C-unwind" fn() -> c_int,
    flush_if_writable: unsafe extern "C-unwind" fn() -> c_int,
    is_send_pending: unsafe extern "C-unwind" fn() -> bool,
    /// Writes a message.
    pub put_message: unsafe extern "C-unwind" fn(c_char, *const c_char, usize) -> c_int,
    put_message_noblock: unsafe extern "C-unwind" fn(c_char, *const c_char, usize),
}

impl CommMethods {
    /// The same with two others.
    pub fn with(
        self,
        flush: unsafe extern "C-unwind" fn() -> c_int,
        put_message: unsafe extern "C-unwind" fn(c_char, *const c_char, usize) -> c_int,
    ) -> Self {
        CommMethods { flush, put_message, ..self }
    }
}

unsafe extern "C-unwind" {
    /// replication/decode.h
    pub fn LogicalDecodingProcessRecord(
        ctx: *mut pg_sys::LogicalDecodingContext,
        record: *mut pg_sys::XLogReaderState,
    );
    /// replication/snapbuild.h
    pub fn SnapBuildExportSnapshot(builder: *mut SnapBuild) -> *const c_char;
    /// replication/snapbuild.h
    pub fn SnapBuildClearExportedSnapshot();
    /// access/xlogutils.h; bound here as a plain symbol, to be passed by pointer
    #[link_name = "wal_segment_open"]
    pub fn wal_segment_open_raw(
        state: *mut pg_sys::XLogReaderState,
        segno: pg_sys::XLogSegNo,
        tli: *mut pg_sys::TimeLineID,
    );
    /// access/xlogutils.h
    #[link_name = "wal_segment_close"]
    pub fn wal_segment_close_raw(state: *mut pg_sys::XLogReaderState);
    /// catalog/partition.h
    pub fn get_partition_ancestors(relid: pg_sys::Oid) -> *mut pg_sys::List;
    /// access/timeline.h
    pub fn readTimeLineHistory(timeline: pg_sys::TimeLineID) -> *mut pg_sys::List;
    /// access/timeline.h
    pub fn tliInHistory(timeline: pg_sys::TimeLineID, history: *mut pg_sys::List) -> bool;
    /// access/timeline.h
    pub fn tliSwitchPoint(
        timeline: pg_sys::TimeLineID,
        history: *mut pg_sys::List,
        next: *mut pg_sys::TimeLineID,
    ) -> pg_sys::XLogRecPtr;
    /// libpq/libpq.h
    pub fn pq_startmsgread();
    /// libpq/libpq.h
    pub fn pq_getbyte() -> c_int;
    /// libpq/libpq.h
    pub fn pq_getmessage(message: pg_sys::StringInfo, longest: c_int) -> c_int;
    /// libpq/libpq.h
    pub static mut PqCommMethods: *const CommMethods;
    /// access/heaptoast.h
    pub fn heap_toast_insert_or_update(
        relation: pg_sys::Relation,
        new: pg_sys::HeapTuple,
        old: pg_sys::HeapTuple,
        options: c_int,
    ) -> pg_sys::HeapTuple;
    /// tcop/tcopprot.h
    pub fn die(signal: c_int);
    /// postmaster/bgwriter.h
    pub fn RequestCheckpoint(flags: c_int);
    /// postmaster/interrupt.h
    pub fn SignalHandlerForConfigReload(signal: c_int);
}
