//! Which indexes and keys of partitioned tables come after their partitions.
//!
//! A partition that is attached gets a part of every index of its parent; one that the source's
//! does not have (made with `ON ONLY`, or of a build that failed) would be one too many, and would
//! refuse rows. So a tree of new indexes is made once all partitions stand in their places. A
//! part of an index that is there already comes before: the server finds it when its table is
//! attached, instead of making another.

use scry_wire::catalog::{Catalog, Entry, ObjectId};
use std::collections::{HashMap, HashSet};

/// Those of `create`, the objects to be made, that wait for the partitions.
pub(super) fn after_partitions(new: &Catalog, create: &HashSet<ObjectId>) -> HashSet<ObjectId> {
    let mut indexes: HashMap<u32, (ObjectId, Option<u32>)> = HashMap::new();
    let mut partitioned: Vec<u32> = Vec::new();
    for object in &new.objects {
        let (oid, parent, is_parent) = match &object.entry {
            Entry::Index(index) => (object.oid, index.parent_oid, index.table_kind == "p"),
            Entry::Constraint(key) => match &key.index {
                Some(index) => (index.oid, index.parent_oid, key.partitioned),
                None => continue,
            },
            _ => continue,
        };
        indexes.insert(oid, (object.id(), parent));
        if is_parent {
            partitioned.push(oid);
        }
    }
    let is_new = |oid: &u32| {
        let mut above = Some(*oid);
        while let Some((id, parent)) = above.and_then(|oid| indexes.get(&oid)) {
            if !create.contains(id) {
                return false;
            }
            above = *parent;
        }
        true
    };
    let waits = partitioned.iter().filter(|oid| is_new(oid));
    waits.filter_map(|oid| indexes.get(oid)).map(|(id, _)| *id).collect()
}
