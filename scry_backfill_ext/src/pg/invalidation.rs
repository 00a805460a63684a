//! Which relations may have changed their definition (inval.c).
//!
//! The callback runs whenever the server processes invalidation messages,
//! also in the middle of a call from here; it only takes notes.

use std::cell::{Cell, RefCell};

use pgrx::{pg_guard, pg_sys};

/// Relations noted since the last [`take`].
pub enum Invalidated {
    /// Everything.
    All,
    /// These.
    Some(Vec<u32>),
}

thread_local! {
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static PENDING: Cell<bool> = const { Cell::new(false) };
    static ALL: Cell<bool> = const { Cell::new(false) };
    static EPOCH: Cell<u64> = const { Cell::new(0) };
    static RELIDS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// More relations than this are noted as "all".
const NOTES_MAX: usize = 1024;

/// Begins to take notes; once a process.
pub fn listen() {
    if LISTENING.replace(true) {
        return;
    }
    // SAFETY: the callbacks live as long as the process. Renamed schemas and
    // changed types reach a relation's description only through their own caches.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0));
        for cache in [pg_sys::SysCacheIdentifier::NAMESPACEOID, pg_sys::SysCacheIdentifier::TYPEOID] {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as i32,
                Some(catalog_changed),
                pg_sys::Datum::from(0),
            );
        }
    }
}

/// Whether there are notes.
#[inline]
pub fn pending() -> bool {
    PENDING.get()
}

/// A number that changes whenever any definition may have changed.
#[inline]
pub fn epoch() -> u64 {
    EPOCH.get()
}

/// Takes the notes.
pub fn take() -> Invalidated {
    PENDING.set(false);
    let relids = RELIDS.take();
    if ALL.replace(false) { Invalidated::All } else { Invalidated::Some(relids) }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_arg: pg_sys::Datum, relid: pg_sys::Oid) {
    PENDING.set(true);
    EPOCH.set(EPOCH.get() + 1);
    let noted = relid != pg_sys::InvalidOid
        && RELIDS.with(|relids| match relids.try_borrow_mut() {
            Ok(mut relids) if relids.len() < NOTES_MAX => {
                relids.push(relid.to_u32());
                true
            }
            _ => false,
        });
    if !noted {
        ALL.set(true);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn catalog_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    PENDING.set(true);
    EPOCH.set(EPOCH.get() + 1);
    ALL.set(true);
}
