//! A replication slot, and the server's decoding machinery around it.
//!
//! The loop is the server's own (`pg_logical_slot_get_changes_guts` in
//! logicalfuncs.c, and the walsender's way of waiting): acquire the slot,
//! create the context, read from `restart_lsn`, hand each record to
//! `LogicalDecodingProcessRecord`. It runs outside a transaction: the reorder
//! buffer opens its own.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use pgrx::pg_sys;
use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use scry_wire::Lsn;

use super::callbacks::{self, Sink};
use super::slot_info::SlotInfo;
use super::{compat, ffi, sequence, wal, worker};

const PLUGIN: &CStr = c"scry_backfill";

/// Looks a slot up.
pub fn slot_info(name: &str) -> Option<SlotInfo> {
    let name = c_name(name);
    // SAFETY: the array of slots lives as long as the server; the fields are
    // read without the spinlock, and each is read whole.
    unsafe {
        let slot = pg_sys::SearchNamedReplicationSlot(name.as_ptr(), true);
        if slot.is_null() {
            return None;
        }
        let data = &(*slot).data;
        Some(SlotInfo {
            restart_lsn: Lsn(data.restart_lsn),
            confirmed_flush_lsn: Lsn(data.confirmed_flush),
            invalidated: compat::slot_is_invalid(slot),
        })
    }
}

/// Drops a slot that no process holds.
pub fn drop_slot(name: &str) {
    let name = c_name(name);
    // SAFETY: raises ERROR when it is held or missing.
    unsafe { pg_sys::ReplicationSlotDrop(name.as_ptr(), true) }
}

/// Lets this process load the output plugin where the server restricts them
/// (`output_plugin_libraries`, from 15.19 and its siblings on).
fn allow_output_plugin() {
    let setting = c"output_plugin_libraries";
    if let Some(list) = worker::option(setting)
        && !list.split(',').any(|item| item.trim() == "scry_backfill")
    {
        let list =
            if list.is_empty() { "scry_backfill".to_owned() } else { format!("{list}, scry_backfill") };
        worker::set_option(setting, &c_name(&list));
    }
}

/// A snapshot exported with the creation of a slot. While it lives this
/// process is in a transaction and must do nothing else with the database.
pub struct ExportedSnapshot {
    name: String,
}

impl ExportedSnapshot {
    /// What `SET TRANSACTION SNAPSHOT` takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends the transaction that holds the snapshot. Whoever imported it keeps it.
    pub fn clear(self) {
        // SAFETY: only `create_slot` makes the value, after exporting.
        unsafe { pg_guard_ffi_boundary(|| ffi::SnapBuildClearExportedSnapshot()) }
    }
}

/// Creates the slot `name` and exports the snapshot that fits it: the slot
/// gives out exactly the transactions that the snapshot does not see.
///
/// Waits for all running transactions that write to end; `sink` is asked while
/// waiting for WAL. The slot is released and persistent on return.
pub fn create_slot(name: &str, sink: &mut (dyn Sink + 'static)) -> ExportedSnapshot {
    let slot = c_name(name);
    allow_output_plugin();
    callbacks::with_sink(sink, || {
        let mut routine = routine();
        // SAFETY: the steps of CreateReplicationSlot (walsender.c); errors
        // unwind and end the process, which drops the ephemeral slot.
        unsafe {
            pg_sys::CheckLogicalDecodingRequirements();
            compat::create_slot(slot.as_ptr());
            let ctx = pg_sys::CreateInitDecodingContext(
                PLUGIN.as_ptr(),
                ptr::null_mut(),
                true,
                0,
                &mut routine,
                Some(prepare_write),
                Some(do_write),
                None,
            );
            (*ctx).streaming = false;
            pg_sys::DecodingContextFindStartpoint(ctx);
            let builder = (*ctx).snapshot_builder;
            let exported = pg_guard_ffi_boundary(|| ffi::SnapBuildExportSnapshot(builder));
            let name = CStr::from_ptr(exported).to_string_lossy().into_owned();
            pg_sys::FreeDecodingContext(ctx);
            pg_sys::ReplicationSlotPersist();
            pg_sys::ReplicationSlotRelease();
            ExportedSnapshot { name }
        }
    })
}

/// A slot that this process decodes from.
pub struct Decoder {
    ctx: *mut pg_sys::LogicalDecodingContext,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A record has been decoded; the WAL has been read up to here.
    Record(Lsn),
    /// The sink wanted to stop.
    Stopped,
}

impl Decoder {
    /// Acquires the slot `name` and begins to decode: transactions whose
    /// commit record begins before `start` are skipped. `in_pieces`: those that
    /// are larger than `logical_decoding_work_mem` are given out before they end.
    pub fn open(name: &str, start: Lsn, in_pieces: bool) -> Decoder {
        let slot = c_name(name);
        allow_output_plugin();
        let mut routine = routine();
        // SAFETY: as StartLogicalReplication (walsender.c); outside a transaction.
        unsafe {
            pg_sys::CheckLogicalDecodingRequirements();
            compat::acquire_slot(slot.as_ptr());
            let ctx = pg_sys::CreateDecodingContext(
                start.0,
                ptr::null_mut(),
                false,
                &mut routine,
                Some(prepare_write),
                Some(do_write),
                None,
            );
            // As pgoutput does (pgoutput.c, `pgoutput_startup`): never changed while it decodes,
            // the reorder buffer keeps books on it.
            (*ctx).streaming = in_pieces;
            pg_sys::XLogBeginRead((*ctx).reader, (*pg_sys::MyReplicationSlot).data.restart_lsn);
            Decoder { ctx }
        }
    }

    /// Reads and decodes one record. Changes go to `sink`, as do waits.
    pub fn step(&mut self, sink: &mut (dyn Sink + 'static)) -> Step {
        callbacks::with_sink(sink, || self.step_inner())
    }

    fn step_inner(&mut self) -> Step {
        let ctx = self.ctx;
        let mut message: *mut c_char = ptr::null_mut();
        // SAFETY: ctx is valid until drop; the reader belongs to it.
        unsafe {
            let reader = (*ctx).reader;
            let record = pg_sys::XLogReadRecord(reader, &mut message);
            if record.is_null() {
                if message.is_null() {
                    return Step::Stopped;
                }
                let message = CStr::from_ptr(message).to_string_lossy();
                pgrx::error!("could not read WAL at {}: {message}", Lsn((*reader).EndRecPtr));
            }
            pg_guard_ffi_boundary(|| ffi::LogicalDecodingProcessRecord(ctx, reader));
            if let Some(record) = sequence::of_record(reader) {
                callbacks::sequence(&record);
            }
            Step::Record(Lsn((*reader).EndRecPtr))
        }
    }

    /// Tells the slot that everything before `lsn` is durable on the shadow.
    pub fn confirm(lsn: Lsn) {
        // SAFETY: a slot is acquired while a Decoder lives; as the walsender
        // does between and inside transactions (ProcessStandbyReplyMessage).
        unsafe {
            if !pg_sys::MyReplicationSlot.is_null() {
                pg_sys::LogicalConfirmReceivedLocation(lsn.0);
                pg_sys::ReplicationSlotMarkDirty();
            }
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // While unwinding the process is about to end, which releases the slot.
        if std::thread::panicking() {
            return;
        }
        // SAFETY: ctx came from CreateDecodingContext and is freed once.
        unsafe {
            pg_sys::FreeDecodingContext(self.ctx);
            pg_sys::ReplicationSlotRelease();
        }
    }
}

fn routine() -> pg_sys::XLogReaderRoutine {
    pg_sys::XLogReaderRoutine {
        page_read: Some(wal::page_read),
        segment_open: Some(ffi::wal_segment_open_raw),
        segment_close: Some(ffi::wal_segment_close_raw),
    }
}

fn c_name(name: &str) -> CString {
    CString::new(name.replace('\0', "")).unwrap_or_default()
}

/// The context wants writers; this plugin hands its output on by itself.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn prepare_write(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    _lsn: pg_sys::XLogRecPtr,
    _xid: pg_sys::TransactionId,
    _last: bool,
) {
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn do_write(
    _ctx: *mut pg_sys::LogicalDecodingContext,
    _lsn: pg_sys::XLogRecPtr,
    _xid: pg_sys::TransactionId,
    _last: bool,
) {
}
