//! Transactions of the workers, and the snapshots they read under.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// Runs `work` in a transaction of its own.
pub fn transaction<R>(work: impl FnOnce() -> R) -> R {
    begin();
    let result = work();
    commit();
    result
}

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
