//! Sequences in the WAL, by name.
//!
//! The WAL names a sequence by where it is stored. Names are looked up once
//! and forgotten when a relation's definition may have changed: a sequence can
//! be renamed, and a restarted one is stored elsewhere.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::pg::invalidation;
use crate::pg::sequence::{self, NamedSequence, Storage};

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
