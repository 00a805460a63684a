//! The relations that changes have named, as the stream writes them.
//!
//! An entry is made when a relation's first change is decoded, and made again
//! when the server says that the relation's definition may have changed
//! ([`crate::pg::invalidation`]). Its description is sent before the first
//! change and again only if it differs from the one sent last.

use std::collections::{BTreeSet, HashMap};
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
    excluded: BTreeSet<u32>,
    /// Partitioned tables above the job's tables.
    parents: BTreeSet<u32>,
}

impl Followed {
    /// Adds a table; `seen_by` when it was copied under a snapshot later than the slot's.
    pub fn add(&mut self, relid: u32, seen_by: Option<SeenBy>) {
        self.tables.insert(relid, seen_by);
    }

    /// A table that the job leaves alone, whatever its globs mean.
    pub fn exclude(&mut self, relid: u32) {
        self.tables.remove(&relid);
        self.excluded.insert(relid);
    }

    /// The partitioned tables above the job's tables.
    pub fn set_parents(&mut self, parents: BTreeSet<u32>) {
        self.parents = parents;
    }

    /// Makes `relids` the job's tables; those that were keep what they have.
    pub fn become_these(&mut self, relids: impl Iterator<Item = u32>) {
        let mut before = std::mem::take(&mut self.tables);
        self.tables = relids.map(|relid| (relid, before.remove(&relid).flatten())).collect();
    }

    /// A table that the job wants after all.
    pub fn include(&mut self, relid: u32) {
        self.excluded.remove(&relid);
    }

    /// The tables, by oid.
    pub fn relids(&self) -> BTreeSet<u32> {
        self.tables.keys().copied().collect()
    }

    /// What the job leaves alone.
    pub fn excluded(&self) -> &BTreeSet<u32> {
        &self.excluded
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

/// What a job has to do with a relation.
pub enum Lookup<'a> {
    /// It follows it.
    Followed(&'a mut Entry),
    /// Nothing.
    Ignored,
    /// It has changed, and the stream does not say so yet; look again after that.
    Unexpected,
}

enum Cached {
    Followed(Box<Entry>),
    Ignored,
}

/// What the cache knows, by oid.
pub struct RelationCache {
    followed: Followed,
    entries: HashMap<u32, Cached, BuildHasherDefault<OidHasher>>,
    /// Partitions of followed tables that the job does not follow, looked into once.
    strangers: BTreeSet<u32>,
    /// Tables outside the job that were new when their first row came, looked into once.
    newcomers: BTreeSet<u32>,
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
            strangers: BTreeSet::new(),
            newcomers: BTreeSet::new(),
            announced: HashMap::new(),
        }
    }

    /// What the job has to do with `relation`.
    #[inline]
    pub fn get(&mut self, relation: &RelationRef<'_>) -> Lookup<'_> {
        if invalidation::pending() {
            self.forget_invalidated();
        }
        let relid = relation.relid();
        if !self.entries.contains_key(&relid) {
            let (made, unexpected) = self.make(relation);
            self.entries.insert(relid, made);
            if unexpected {
                return Lookup::Unexpected;
            }
        }
        match self.entries.get_mut(&relid) {
            Some(Cached::Followed(entry)) => Lookup::Followed(entry),
            _ => Lookup::Ignored,
        }
    }

    /// The job's tables.
    pub fn followed(&mut self) -> &mut Followed {
        &mut self.followed
    }

    /// A schema stands in the stream: what was known of relations is void, and
    /// each is described again before its next change.
    pub fn forget_all(&mut self) {
        self.entries.clear();
        self.announced.clear();
    }

    /// The entry, and whether it comes as a surprise: the descriptor has
    /// changed, or a partition is new, and no schema was brought for it.
    fn make(&mut self, relation: &RelationRef<'_>) -> (Cached, bool) {
        let relid = relation.relid();
        let Some(seen_by) = self.followed.tables.get(&relid) else {
            let is_stranger = self.strangers.len() < STRANGERS_MAX
                && !self.followed.excluded.contains(&relid)
                && relation.ancestors().iter().any(|parent| self.followed.parents.contains(parent));
            let is_new = relation.is_of_this_transaction() && self.newcomers.insert(relid);
            return (Cached::Ignored, is_new || (is_stranger && self.strangers.insert(relid)));
        };
        let (description, encoder) = relation.describe(Toast::Unchanged);
        let last = self.announced.remove(&relid);
        let announced = last.as_ref().is_some_and(|last| *last == description);
        let is_full = description.replica_identity == ReplicaIdentity::Full;
        // A table without columns has no key column, and can be FULL all the same.
        let has_identity = is_full || description.columns.iter().any(|column| column.key);
        let entry =
            Entry { description, encoder, seen_by: seen_by.clone(), announced, has_identity, is_full };
        (Cached::Followed(Box::new(entry)), last.is_some() && !announced)
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

/// Partitions outside the job that are looked into, each once: one of them
/// may have been attached while the event triggers were off.
const STRANGERS_MAX: usize = 64;

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
