//! The part of a document that some of its objects need.

use super::{Catalog, Class, Entry, Object, ObjectId};
use std::collections::{HashMap, HashSet};

impl Catalog {
    /// These objects, by kind and name, and all that they stand on; not the whole database.
    #[must_use]
    pub fn around(&self, names: &HashSet<String>) -> Self {
        let by_id: HashMap<ObjectId, &Object> = self.objects.iter().map(|o| (o.id(), o)).collect();
        let wanted = self.objects.iter().filter(|object| names.contains(&object.describe()));
        let mut open: Vec<&Object> = wanted.collect();
        let mut kept: HashSet<ObjectId> = open.iter().map(|object| object.id()).collect();
        while let Some(object) = open.pop() {
            let needs = needs(object);
            // A column is an identity by its sequence.
            let sequences = self.objects.iter().filter(|other| is_identity_of(other, object)).map(Object::id);
            let new: Vec<ObjectId> =
                needs.into_iter().chain(sequences).filter(|id| kept.insert(*id)).collect();
            open.extend(new.iter().filter_map(|id| by_id.get(id).copied()));
        }
        let objects = self.objects.iter().filter(|object| kept.contains(&object.id()));
        Catalog { format: self.format, objects: objects.cloned().collect(), ..Catalog::default() }
    }
}

fn needs(object: &Object) -> Vec<ObjectId> {
    let relation = |oid: u32| ObjectId { class: Class::Relation, oid };
    let mut needs = object.depends_on.clone();
    needs.extend(object.entry.table_oid().map(relation));
    let table = match &object.entry {
        Entry::Table(table) => Some(table),
        Entry::ForeignTable(foreign) => Some(&foreign.table),
        _ => None,
    };
    if let Some(table) = table {
        needs.extend(table.parents.iter().map(|parent| relation(parent.oid)));
        let defaults = table.columns.iter().filter_map(|column| column.default.as_ref());
        needs.extend(defaults.flat_map(|default| &default.depends_on));
    }
    if let Entry::Constraint(key) = &object.entry
        && key.referenced_oid != 0
    {
        needs.push(relation(key.referenced_oid));
    }
    needs
}

fn is_identity_of(sequence: &Object, table: &Object) -> bool {
    match &sequence.entry {
        Entry::Sequence(sequence) => sequence
            .owner
            .as_ref()
            .is_some_and(|owner| owner.identity && table.id().is_relation(owner.table_oid)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_what_is_needed_and_nothing_else() {
        let relation = |oid: u32, needs: &[u32], entry: serde_json::Value| {
            let needs: Vec<_> = needs.iter().map(|oid| json!({ "class": "pg_class", "oid": oid })).collect();
            json!({ "class": "pg_class", "oid": oid, "depends_on": needs, "entry": entry })
        };
        let table = |name: &str| {
            json!({ "kind": "table", "schema": "s", "name": name, "partitioned": false,
                    "replica_identity": "d", "columns": [] })
        };
        let view = |name: &str| json!({ "kind": "view", "schema": "s", "name": name, "definition": "", "columns": [] });
        let objects = [
            relation(1, &[], table("a")),
            relation(2, &[], table("b")),
            relation(3, &[1], view("over_a")),
            relation(4, &[3], view("above")),
            relation(5, &[2], view("over_b")),
        ];
        let catalog = json!({ "format": 1, "whole_database": true, "objects": objects });
        let catalog: Catalog = serde_json::from_value(catalog).unwrap();
        let part = catalog.around(&HashSet::from(["view s.above".to_owned()]));
        let oids: Vec<u32> = part.objects.iter().map(|object| object.oid).collect();
        assert_eq!(oids, [1, 3, 4]);
        assert!(!part.whole_database);
        assert_eq!(catalog.around(&HashSet::new()).objects.len(), 0);
    }
}
