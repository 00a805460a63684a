//! The slots of this extension, and dropping one from outside its worker.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use scry_wire::Lsn;

/// Drops the slot `name`. Raises an ERROR when a process has it acquired.
/// Returns whether there was one.
pub fn drop_slot(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: a NUL-terminated name; the lock is taken inside. Nothing else of this backend holds a slot.
    unsafe {
        if pg_sys::SearchNamedReplicationSlot(name.as_ptr(), true).is_null() {
            return false;
        }
        pg_sys::ReplicationSlotDrop(name.as_ptr(), true);
    }
    true
}

/// A slot of this extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSlot {
    /// Its name.
    pub name: String,
    /// Its database.
    pub database: u32,
    /// WAL from here on is kept; 0 before it is known, or once it is given up.
    pub restart_lsn: Lsn,
    /// The process that has it acquired; 0 for none.
    pub active_pid: i32,
}

/// The slots of this extension, in all databases.
pub fn all_own() -> Vec<OwnSlot> {
    let mut found = Vec::new();
    // SAFETY: the array lives as long as the server; read under its control lock, as pg_replication_slots does.
    // Nothing between the lock and its release can raise an ERROR.
    unsafe {
        if pg_sys::ReplicationSlotCtl.is_null() {
            return found;
        }
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(SLOT_CONTROL_LOCK)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        let slots = (*pg_sys::ReplicationSlotCtl).replication_slots.as_ptr();
        for index in 0..usize::try_from(pg_sys::max_replication_slots).unwrap_or(0) {
            let slot = slots.add(index);
            if (*slot).in_use && CStr::from_ptr((*slot).data.plugin.data.as_ptr()) == c"scry_backfill" {
                found.push(OwnSlot {
                    name: CStr::from_ptr((*slot).data.name.data.as_ptr()).to_string_lossy().into_owned(),
                    database: (*slot).data.database.to_u32(),
                    restart_lsn: Lsn((*slot).data.restart_lsn),
                    active_pid: (*slot).active_pid,
                });
            }
        }
        pg_sys::LWLockRelease(lock);
    }
    found
}

/// Name of a slot of this extension in `database`, if there is one.
pub fn ours_in(database: u32) -> Option<String> {
    all_own().into_iter().find(|slot| slot.database == database).map(|slot| slot.name)
}

/// Number of `ReplicationSlotControlLock` in `MainLWLockArray` (lwlocknames.txt, the same in 15 to 18).
const SLOT_CONTROL_LOCK: usize = 37;
