//! The relations that changes have named, as the stream writes them.
//!
//! An entry is made when a relation's first change is decoded, and made again
//! when the server says that the relation's definition may have changed
//! ([`crate::pg::invalidation`]). Its description is sent before the first
//! change and again only if it differs from the one sent last.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use scry_wire::SeenBy;
use scry_wire::message::{Relation, ReplicaIdentity};

use crate::pg::invalidation;
use crate::pg::relation::RelationRef;
use crate::pg::row::{RowEncoder, Toast};

/// The tables of a job: what the stream brings.
#[derive(Debug, Clone, Default)]
pub struct Followed {
    tables: HashMap<u32, Option<SeenBy>>,
}

impl Followed {
    /// Adds a table; `seen_by` when it was copied under a snapshot later than the slot's.
    pub fn add(&mut self, relid: u32, seen_by: Option<SeenBy>) {
        self.tables.insert(relid, seen_by);
    }

    /// How many tables there are.
    pub fn len(&self) -> usize {
        self.tables.len()
    }
}

/// A followed relation.
pub struct Entry {
    /// As it is written.
    pub description: Relation,
    /// Writes its rows.
    pub encoder: RowEncoder,
    /// What the copy's snapshot saw, if it was not the slot's own.
    pub seen_by: Option<SeenBy>,
    /// The description stands in the stream of this connection.
    pub announced: bool,
    /// Updates and deletes can be followed: old rows can be named.
    pub has_identity: bool,
    /// Old rows are whole rows.
    pub is_full: bool,
}

enum Cached {
    Followed(Box<Entry>),
    Ignored,
}

/// What the cache knows, by oid.
pub struct RelationCache {
    followed: Followed,
    entries: HashMap<u32, Cached, BuildHasherDefault<OidHasher>>,
    /// Partitions of followed tables that the job does not follow, noticed and not yet told.
    strangers: Vec<String>,
    /// What stands in the stream of this connection, of relations whose entry was dropped.
    announced: HashMap<u32, Relation>,
}

impl RelationCache {
    /// A cache for the tables of a job.
    pub fn new(followed: Followed) -> Self {
        invalidation::listen();
        RelationCache {
            followed,
            entries: HashMap::default(),
            strangers: Vec::new(),
            announced: HashMap::new(),
        }
    }

    /// The entry of `relation`, `None` when the job does not follow it.
    #[inline]
    pub fn get(&mut self, relation: &RelationRef<'_>) -> Option<&mut Entry> {
        if invalidation::pending() {
            self.forget_invalidated();
        }
        let relid = relation.relid();
        if !self.entries.contains_key(&relid) {
            let made = self.make(relation);
            self.entries.insert(relid, made);
        }
        match self.entries.get_mut(&relid) {
            Some(Cached::Followed(entry)) => Some(entry),
            _ => None,
        }
    }

    /// Whether the job follows the relation.
    pub fn follows(&self, relid: u32) -> bool {
        self.followed.tables.contains_key(&relid)
    }

    /// A partition of a followed table that is not followed itself, once each:
    /// its rows do not reach the shadow, which must not go unsaid.
    pub fn take_stranger(&mut self) -> Option<String> {
        self.strangers.pop()
    }

    fn make(&mut self, relation: &RelationRef<'_>) -> Cached {
        let Some(seen_by) = self.followed.tables.get(&relation.relid()) else {
            if relation.ancestors().iter().any(|relid| self.follows(*relid)) {
                self.strangers.push(relation.name());
            }
            return Cached::Ignored;
        };
        let (description, encoder) = relation.describe(Toast::Unchanged);
        let announced = self.announced.remove(&description.relid).is_some_and(|last| last == description);
        let is_full = description.replica_identity == ReplicaIdentity::Full;
        // A table without columns has no key column, and can be FULL all the same.
        let has_identity = is_full || description.columns.iter().any(|column| column.key);
        Cached::Followed(Box::new(Entry {
            description,
            encoder,
            seen_by: seen_by.clone(),
            announced,
            has_identity,
            is_full,
        }))
    }

    /// Drops what may be out of date, but remembers what has been announced.
    fn forget_invalidated(&mut self) {
        let stale: Vec<u32> = match invalidation::take() {
            invalidation::Invalidated::All => self.entries.keys().copied().collect(),
            invalidation::Invalidated::Some(relids) => relids,
        };
        for relid in stale {
            if let Some(Cached::Followed(entry)) = self.entries.remove(&relid)
                && entry.announced
            {
                self.announced.insert(relid, entry.description);
            }
        }
    }
}

/// Spreads oids over a table: they come from a counter, and nobody outside
/// chooses them.
#[derive(Default)]
pub struct OidHasher(u64);

impl Hasher for OidHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(SPREAD);
        }
    }

    #[inline]
    fn write_u32(&mut self, oid: u32) {
        self.0 = u64::from(oid).wrapping_mul(SPREAD);
    }
}

/// 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, 6.4).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
