//! What is different between two documents of one source, by identity.
//!
//! An object is itself as long as its class and OID are: under another name it is renamed.
//! What is gone under one OID and here again under another, with another name or not, was
//! dropped and made. Indexes are the exception: REINDEX CONCURRENTLY gives them new OIDs.

use scry_wire::catalog::{Catalog, Class, Entry, Object, ObjectId};
use std::collections::{HashMap, HashSet};

/// The difference, each list in its document's order.
#[derive(Debug, Default)]
pub(super) struct Changes<'a> {
    /// In the old document only.
    pub dropped: Vec<&'a Object>,
    /// In the new document only.
    pub created: Vec<&'a Object>,
    /// In both, not the same: old and new.
    pub changed: Vec<(&'a Object, &'a Object)>,
    /// In both, the same: old and new.
    pub same: Vec<(&'a Object, &'a Object)>,
    /// OIDs of relations of `dropped`, and of `changed`.
    gone: HashSet<u32>,
    touched: HashSet<u32>,
    /// Relations that stay, as they are in the new document.
    kept: HashMap<u32, &'a Object>,
}

impl<'a> Changes<'a> {
    /// Compares.
    pub(super) fn new(old: &'a Catalog, new: &'a Catalog) -> Self {
        let mut before: HashMap<ObjectId, &Object> = old.objects.iter().map(|o| (o.id(), o)).collect();
        let mut found = Self::default();
        for object in &new.objects {
            match before.remove(&object.id()) {
                None => found.created.push(object),
                Some(old) if is_same(old, object) => found.same.push((old, object)),
                Some(old) => found.changed.push((old, object)),
            }
        }
        found.dropped = old.objects.iter().filter(|object| before.contains_key(&object.id())).collect();
        found.join_rebuilt_indexes();
        let relation = |object: &&Object| object.class == Class::Relation;
        found.gone = found.dropped.iter().copied().filter(relation).map(|o| o.oid).collect();
        found.touched = found.changed.iter().map(|(_, new)| *new).filter(relation).map(|o| o.oid).collect();
        let kept = found.changed.iter().chain(&found.same).map(|(_, new)| *new).filter(relation);
        found.kept = kept.map(|object| (object.oid, object)).collect();
        found
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dropped.is_empty() && self.created.is_empty() && self.changed.is_empty()
    }

    fn join_rebuilt_indexes(&mut self) {
        let name = |object: &Object| match &object.entry {
            Entry::Index(index) => Some((index.table_oid, index.name.clone())),
            _ => None,
        };
        let dropped: HashMap<(u32, String), &Object> =
            self.dropped.iter().filter_map(|object| Some((name(object)?, *object))).collect();
        let mut rebuilt: Vec<(&Object, &Object)> = Vec::new();
        for object in &self.created {
            let old = name(object).and_then(|name| dropped.get(&name));
            rebuilt.extend(old.filter(|old| old.entry == object.entry).map(|old| (*old, *object)));
        }
        let old: HashSet<ObjectId> = rebuilt.iter().map(|(old, _)| old.id()).collect();
        let new: HashSet<ObjectId> = rebuilt.iter().map(|(_, new)| new.id()).collect();
        self.dropped.retain(|object| !old.contains(&object.id()));
        self.created.retain(|object| !new.contains(&object.id()));
        self.changed.extend(rebuilt);
    }

    /// The table itself is gone.
    pub(super) fn drops_relation(&self, oid: u32) -> bool {
        self.gone.contains(&oid)
    }

    /// A relation that stays, as it is in the new document.
    pub(super) fn kept_relation(&self, oid: u32) -> Option<&'a Object> {
        self.kept.get(&oid).copied()
    }

    /// The relation is another one than before.
    pub(super) fn changes_relation(&self, oid: u32) -> bool {
        self.touched.contains(&oid)
    }
}

/// Another OID of something inside it, or another state, is a difference too: columns are told
/// apart by their numbers, and what the shadow has decides in the end.
fn is_same(old: &Object, new: &Object) -> bool {
    old.entry == new.entry && old.comment == new.comment && old.selected == new.selected
}
