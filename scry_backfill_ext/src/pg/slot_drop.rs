//! Dropping a slot of ours from a backend.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

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

/// Name of a slot of this extension in `database`, if there is one.
pub fn ours_in(database: u32) -> Option<String> {
    // SAFETY: the array lives as long as the server; read under its control lock, as pg_replication_slots does.
    unsafe {
        if pg_sys::ReplicationSlotCtl.is_null() {
            return None;
        }
        let lock = &raw mut (*pg_sys::MainLWLockArray.add(SLOT_CONTROL_LOCK)).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        let slots = (*pg_sys::ReplicationSlotCtl).replication_slots.as_ptr();
        let count = usize::try_from(pg_sys::max_replication_slots).unwrap_or(0);
        let mut found = None;
        for index in 0..count {
            let slot = slots.add(index);
            if !(*slot).in_use || (*slot).data.database.to_u32() != database {
                continue;
            }
            if CStr::from_ptr((*slot).data.plugin.data.as_ptr()) == c"scry_backfill" {
                found = Some(CStr::from_ptr((*slot).data.name.data.as_ptr()).to_owned());
                break;
            }
        }
        pg_sys::LWLockRelease(lock);
        found.map(|name| name.to_string_lossy().into_owned())
    }
}

/// Number of `ReplicationSlotControlLock` in `MainLWLockArray` (lwlocknames.txt, the same in 15 to 18).
const SLOT_CONTROL_LOCK: usize = 37;
