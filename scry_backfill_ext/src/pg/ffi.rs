//! Functions of the server that pgrx does not bind.

use std::ffi::{c_char, c_int};

use pgrx::pg_sys;

/// `SnapBuild` (replication/snapbuild.h): opaque.
pub type SnapBuild = pg_sys::SnapBuild;

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
    /// tcop/tcopprot.h
    pub fn die(signal: c_int);
    /// postmaster/bgwriter.h
    pub fn RequestCheckpoint(flags: c_int);
    /// postmaster/interrupt.h
    pub fn SignalHandlerForConfigReload(signal: c_int);
}
