//! Transactions of the workers, and the snapshots they read under.

use std::cell::Cell;
use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// Runs `work` in a transaction of its own.
///
/// While a process decodes, other snapshots look past its transaction ID
/// (procarray.c, `GetSnapshotData`) and vacuum past its snapshot: what it wrote
/// in a transaction could be taken for aborted by whoever reads it before the
/// commit. So for the time of the transaction it counts as any other process.
pub fn transaction<R>(work: impl FnOnce() -> R) -> R {
    let decodes = set_decodes(false);
    if decodes {
        CACHES_OF_NOW.set(true);
    }
    begin();
    let result = work();
    commit();
    set_decodes(decodes);
    result
}

thread_local! {
    /// The catalog caches of this process, which decodes, may hold what the catalogs say now.
    static CACHES_OF_NOW: Cell<bool> = const { Cell::new(false) };
}

/// Empties the catalog caches if a transaction of this process has filled them since: what is
/// read next is of another time (as `pg_logical_slot_get_changes_guts`, logicalfuncs.c).
pub fn forget_caches_of_now() {
    if CACHES_OF_NOW.replace(false) {
        // SAFETY: inside a transaction or a callback of the decoder, whose open relations the
        // server builds anew in their places.
        unsafe { pg_sys::InvalidateSystemCaches() };
    }
}

/// Whether the server takes this process for one that decodes; sets it anew.
/// Outside a transaction. Returns what it was.
fn set_decodes(decodes: bool) -> bool {
    const FLAG: u8 = pg_sys::PROC_IN_LOGICAL_DECODING as u8;
    // SAFETY: as ReplicationSlotRelease and StartupDecodingContext, which change
    // the flag (slot.c, logical.c); outside a transaction, under the array's lock.
    unsafe {
        let process = pg_sys::MyProc;
        let before = (*process).statusFlags & FLAG != 0;
        if before != decodes {
            let lock = &raw mut (*pg_sys::MainLWLockArray.add(PROC_ARRAY_LOCK)).lock;
            pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
            (*process).statusFlags ^= FLAG;
            let place = usize::try_from((*process).pgxactoff).unwrap_or_default();
            *(*pg_sys::ProcGlobal).statusFlags.add(place) = (*process).statusFlags;
            pg_sys::LWLockRelease(lock);
        }
        before
    }
}

/// `ProcArrayLock` in the array of the server's own locks: the same in all
/// versions from 13 to 18 (lwlocknames.txt, lwlocklist.h).
const PROC_ARRAY_LOCK: usize = 4;

/// A repeatable-read, read-only transaction whose snapshot others can import.
/// Ends with the process or by [`ReadTransaction::end`].
pub struct ReadTransaction(());

impl ReadTransaction {
    /// Begins one with a snapshot of its own.
    pub fn begin() -> Self {
        Self::start(None)
    }

    /// Begins one with the snapshot that another process exported as `name`.
    pub fn import(name: &str) -> Self {
        Self::start(Some(name))
    }

    fn start(import: Option<&str>) -> Self {
        let name = import.map(|name| CString::new(name).unwrap_or_default());
        // SAFETY: outside a transaction; as BEGIN ISOLATION LEVEL REPEATABLE
        // READ, READ ONLY; SET TRANSACTION SNAPSHOT (snapmgr.c, ImportSnapshot).
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::XactIsoLevel = pg_sys::XACT_REPEATABLE_READ as i32;
            pg_sys::XactReadOnly = true;
            if let Some(name) = &name {
                pg_sys::ImportSnapshot(name.as_ptr());
            }
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        ReadTransaction(())
    }

    /// Exports the snapshot; valid while this transaction lasts.
    pub fn export(&self) -> String {
        // SAFETY: inside a transaction with an active snapshot.
        unsafe {
            let name = pg_sys::ExportSnapshot(pg_sys::GetActiveSnapshot());
            CStr::from_ptr(name).to_string_lossy().into_owned()
        }
    }

    /// Ends the transaction.
    pub fn end(self) {
        commit();
    }
}

/// A snapshot of this moment, in force until it is dropped: for a function of
/// a user's session, whatever the isolation level of its transaction.
pub struct Moment(());

impl Moment {
    /// Takes the snapshot. What is in force must be given back in turn.
    pub fn take() -> Self {
        // SAFETY: inside a transaction (SQL functions only); pushing copies the snapshot.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) }
        Moment(())
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        // While unwinding the transaction's abort gives it back.
        if !std::thread::panicking() {
            // SAFETY: pushed by `take`; all that was pushed since is gone.
            unsafe { pg_sys::PopActiveSnapshot() }
        }
    }
}

fn begin() {
    // SAFETY: outside a transaction; as pgrx's BackgroundWorker::transaction.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
}

fn commit() {
    // SAFETY: `begin` or `start` came before.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
}
