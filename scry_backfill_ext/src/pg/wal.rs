//! Reading the WAL as it is written, and where it ends.

use std::ffi::{c_char, c_int};

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::{pg_guard, pg_sys};
use scry_wire::Lsn;

use super::{callbacks, ffi};

/// Where the next WAL record will begin, or the last one ended where that is
/// the same: page headers that the next record would skip are not counted.
pub fn insert_position() -> Lsn {
    // SAFETY: reads shared memory under its own lock.
    let lsn = unsafe { pg_sys::GetXLogInsertRecPtr() };
    without_page_header(lsn)
}

/// Where the WAL on disk ends.
pub fn flush_position() -> Lsn {
    // SAFETY: as above; the timeline is not asked for.
    Lsn(unsafe { pg_sys::GetFlushRecPtr(std::ptr::null_mut()) })
}

/// Makes the WAL up to `lsn` durable.
pub fn flush(lsn: Lsn) {
    // SAFETY: lsn comes from `insert_position`, so it does not lie beyond the end.
    unsafe { pg_sys::XLogFlush(lsn.0) }
}

/// Asks for a checkpoint at once, and does not wait for it: only a checkpoint
/// removes WAL that nobody keeps any more.
pub fn request_checkpoint() {
    let flags = pg_sys::CHECKPOINT_IMMEDIATE | pg_sys::CHECKPOINT_FORCE;
    // SAFETY: sets a flag in shared memory and signals the checkpointer.
    unsafe { pg_guard_ffi_boundary(|| ffi::RequestCheckpoint(flags as c_int)) }
}

/// The timeline that WAL is written to.
pub fn timeline() -> u32 {
    // SAFETY: reads shared memory; the server is not in recovery.
    unsafe { pg_sys::GetWALInsertionTimeLine() }
}

/// Where this server's history left timeline `old`; `None` if it never was on
/// it. Inside a transaction: the history is read from a file into its memory.
pub fn left_timeline(old: u32) -> Option<Lsn> {
    let own = timeline();
    if old == own {
        return Some(Lsn(u64::MAX));
    }
    // SAFETY: plain numbers in; the list is palloc'd here, checked before it is asked, and ends with the transaction.
    unsafe {
        pg_guard_ffi_boundary(|| {
            let history = ffi::readTimeLineHistory(own);
            ffi::tliInHistory(old, history)
                .then(|| Lsn(ffi::tliSwitchPoint(old, history, std::ptr::null_mut())))
        })
    }
}

/// The end of the WAL, page headers and all: no record of this server ends behind it.
pub fn end() -> Lsn {
    // SAFETY: reads shared memory under its own lock.
    let inserted = Lsn(unsafe { pg_sys::GetXLogInsertRecPtr() });
    inserted.max(flush_position())
}

/// The cluster's identity (`pg_control_system()`).
pub fn system_identifier() -> u64 {
    // SAFETY: reads the control file's copy in shared memory.
    unsafe { pg_sys::GetSystemIdentifier() }
}

fn without_page_header(lsn: u64) -> Lsn {
    let in_page = lsn % u64::from(pg_sys::XLOG_BLCKSZ);
    let short = size_of::<pg_sys::XLogPageHeaderData>().next_multiple_of(8) as u64;
    let long = size_of::<pg_sys::XLogLongPageHeaderData>().next_multiple_of(8) as u64;
    // SAFETY: a plain global, set at server start.
    let segment = unsafe { pg_sys::wal_segment_size } as u64;
    let header = if lsn % segment == in_page { long } else { short };
    Lsn(if in_page == header { lsn - header } else { lsn })
}

/// `XLogReaderRoutine.page_read`: as `read_local_xlog_page` (xlogutils.c), but
/// it waits as the walsender does (`WalSndWaitForWal`): on the latch, serving
/// the socket, until the WAL is there or the worker is to stop. The end of the
/// flushed WAL is kept between calls: asking costs a spinlock a page otherwise.
#[pg_guard]
pub unsafe extern "C-unwind" fn page_read(
    state: *mut pg_sys::XLogReaderState,
    page: pg_sys::XLogRecPtr,
    required: c_int,
    _record: pg_sys::XLogRecPtr,
    buffer: *mut c_char,
) -> c_int {
    let needed = page + required as u64;
    let mut timeline: pg_sys::TimeLineID = 0;
    // SAFETY: state and buffer are the reader's own, valid during the call.
    unsafe {
        let upto = loop {
            let flushed = pg_sys::GetFlushRecPtr(&mut timeline);
            pg_sys::XLogReadDetermineTimeline(state, page, required as u32, timeline);
            if (*state).currTLI != timeline {
                // A historic timeline is complete up to the switch.
                timeline = (*state).currTLI;
                break (*state).currTLIValidUntil;
            }
            if needed <= flushed {
                break flushed;
            }
            if !callbacks::wait_for_wal(Lsn((*state).EndRecPtr)) {
                return -1;
            }
        };
        if needed > upto {
            return -1;
        }
        let block = u64::from(pg_sys::XLOG_BLCKSZ);
        let count = if page + block <= upto { block } else { upto - page };
        let mut info: pg_sys::WALReadError = std::mem::zeroed();
        if !pg_sys::WALRead(state, buffer, page, block as usize, timeline, &mut info) {
            pg_sys::WALReadRaiseError(&mut info);
        }
        count as c_int
    }
}
