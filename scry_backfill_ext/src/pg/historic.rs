//! The catalogs as they were at the place in the WAL that is being decoded.
//!
//! While the reorder buffer gives out a transaction, the server's historic
//! snapshot is in force: catalog tables, and only they, are seen as they were
//! after that transaction's latest command (snapbuild.c, `SNAPSHOT_HISTORIC_MVCC`).
//! The queries of `sql/catalog` read nothing else, so they can be run there:
//! what a schema change has made is read by the worker, not by the user who made it.
//! (Workers run no parallel queries: a helper could not see what this process sees.)
//!
//! Invariants: an internal subtransaction is rolled back whatever happens, so
//! that no lock outlives the reading; nobody is waited for long
//! ([`subtransaction::wait_briefly`]).

use std::collections::BTreeSet;

use pgrx::pg_sys;

use super::{snapshot, subtransaction};

/// Runs `work`, which reads catalogs only. Inside a callback of the decoder.
/// `None` when somebody holds a lock that the reading needs: try again later.
pub fn read<R>(work: impl FnOnce() -> R) -> Option<R> {
    snapshot::forget_caches_of_now();
    let reading = || {
        subtransaction::wait_briefly();
        // SAFETY: a callback of the reorder buffer runs in a transaction with the historic
        // snapshot set up; the end of the subtransaction pops what is pushed here.
        unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        Some(work())
    };
    subtransaction::rolled_back(reading, subtransaction::none_if_locked)
}

/// Whether `xid` is the transaction being decoded or one of its
/// subtransactions. Inside a callback of the decoder.
pub fn is_current_transaction(xid: u32) -> bool {
    with_own_xids(|own| own.iter().any(|own| own.into_inner() == xid))
}

/// The transaction being decoded and its subtransactions. Inside a callback
/// of the decoder.
pub fn current_transaction() -> BTreeSet<u32> {
    with_own_xids(|own| own.iter().map(|own| own.into_inner()).collect())
}

fn with_own_xids<R>(look: impl FnOnce(&[pg_sys::TransactionId]) -> R) -> R {
    // SAFETY: this is the historic snapshot when one is active (snapmgr.c); in such a one subxip
    // holds the decoded transaction and its subtransactions (reorderbuffer.c, ReorderBufferCopySnap).
    let own = unsafe {
        let snapshot = match pg_sys::HistoricSnapshotActive() {
            true => pg_sys::GetTransactionSnapshot(),
            false => std::ptr::null_mut(),
        };
        if snapshot.is_null() || (*snapshot).subxip.is_null() || (*snapshot).subxcnt <= 0 {
            &[]
        } else {
            std::slice::from_raw_parts((*snapshot).subxip, (*snapshot).subxcnt as usize)
        }
    };
    look(own)
}
