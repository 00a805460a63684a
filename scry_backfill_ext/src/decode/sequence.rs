//! Sequences in the WAL, by name.
//!
//! The WAL names a sequence by where it is stored. Names are looked up once
//! and forgotten when a relation's definition may have changed: a sequence can
//! be renamed.
//!
//! A sequence that is restarted (`TRUNCATE … RESTART IDENTITY`, `ALTER SEQUENCE
//! … RESTART`) is stored elsewhere from then on, which counts when the
//! transaction commits. Records that nobody can name yet are held and given
//! out with the commit that makes them visible, or dropped when the
//! transaction that made the storage has ended without.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use scry_wire::Lsn;

use crate::pg::sequence::{self, NamedSequence, SequenceRecord, Storage};
use crate::pg::{invalidation, wal};

/// A record that waits for the commit that makes its storage visible.
struct Held {
    record: SequenceRecord,
    /// Who wrote the first record of this storage, and so made it.
    maker: u32,
    /// The maker had ended when the WAL reached so far.
    ended: Option<Lsn>,
}

/// Records that are held, the newest of each storage.
#[derive(Default)]
pub struct HeldRecords {
    held: HashMap<Storage, Held>,
}

impl HeldRecords {
    /// Holds a record.
    pub fn hold(&mut self, record: SequenceRecord) {
        match self.held.entry(record.storage) {
            Entry::Occupied(mut place) => place.get_mut().record = record,
            Entry::Vacant(place) => {
                place.insert(Held { record, maker: record.xid, ended: None });
            }
        }
    }

    /// A newer record of this storage has been given out.
    pub fn forget(&mut self, storage: Storage) {
        if !self.held.is_empty() {
            self.held.remove(&storage);
        }
    }

    /// Takes what can be named now. In a commit's callback.
    pub fn take_visible(&mut self) -> Vec<(SequenceRecord, NamedSequence)> {
        let storages: Vec<Storage> = self.held.keys().copied().collect();
        let visible = storages.into_iter().filter_map(|storage| {
            let named = sequence::look_up(storage)?;
            Some((self.held.remove(&storage)?.record, named))
        });
        visible.collect()
    }

    /// Drops what can never be named: its maker has ended, and the WAL has
    /// been read beyond that, up to `end`.
    pub fn drop_orphans(&mut self, end: Lsn) {
        self.held.retain(|_, held| match held.ended {
            Some(ended) => end < ended,
            None => {
                if !sequence::is_running(held.maker) {
                    held.ended = Some(wal::insert_position());
                }
                true
            }
        });
    }
}

/// Names that have been looked up.
#[derive(Default)]
pub struct SequenceNames {
    names: HashMap<Storage, NamedSequence>,
    epoch: u64,
}

impl SequenceNames {
    /// The sequence that is stored there; `None` when it cannot be seen (now).
    pub fn name_of(&mut self, storage: Storage) -> Option<&NamedSequence> {
        let epoch = invalidation::epoch();
        if self.epoch != epoch {
            self.names.clear();
            self.epoch = epoch;
        }
        match self.names.entry(storage) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(place) => Some(place.insert(sequence::resolve(storage)?)),
        }
    }
}
