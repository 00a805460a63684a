//! A document without some of its tables, for a shadow that does not have them.
//!
//! Invariants: what hangs on such a table (constraints, indexes, triggers, identity sequences)
//! goes with it, and a sequence that it owned is nobody's; whatever else mentions it stays.

use super::{Catalog, Entry};
use std::collections::BTreeSet;

impl Entry {
    /// The table (or view) that this is a part of, by OID: of a constraint, an index, a trigger...
    #[must_use]
    pub fn table_oid(&self) -> Option<u32> {
        match self {
            Self::Constraint(e) => Some(e.table_oid),
            Self::Index(e) => Some(e.table_oid),
            Self::Statistics(e) => Some(e.table_oid),
            Self::Rule(e) => Some(e.table_oid),
            Self::Trigger(e) => Some(e.table_oid),
            Self::Policy(e) => Some(e.table_oid),
            Self::Sequence(e) => e.owner.as_ref().map(|owner| owner.table_oid),
            _ => None,
        }
    }
}

impl Catalog {
    /// The document as it is for whoever lacks these tables.
    #[must_use]
    pub fn without(&self, tables: &BTreeSet<u32>) -> Self {
        if tables.is_empty() {
            return self.clone();
        }
        let mut catalog = self.clone();
        catalog.objects.retain_mut(|object| match &mut object.entry {
            Entry::Table(_) | Entry::ForeignTable(_) => !tables.contains(&object.oid),
            Entry::Sequence(sequence) => {
                let lost = sequence.owner.take_if(|owner| tables.contains(&owner.table_oid));
                !lost.is_some_and(|owner| owner.identity)
            }
            entry => entry.table_oid().is_none_or(|oid| !tables.contains(&oid)),
        });
        catalog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn catalog() -> Catalog {
        let sequence = |oid: u32, identity: bool| {
            serde_json::json!({
                "class": "pg_class", "oid": oid,
                "entry": {
                    "kind": "sequence", "schema": "s", "name": format!("q{oid}"), "type": "bigint", "start": 1,
                    "increment": 1, "min": 1, "max": 9, "cache": 1, "cycle": false,
                    "owner": {
                        "table_oid": 5, "schema": "s", "table": "t", "attnum": 1, "column": "a", "identity": identity
                    }
                }
            })
        };
        let table = |oid: u32| {
            serde_json::json!({
                "class": "pg_class", "oid": oid,
                "entry": { "kind": "table", "schema": "s", "name": format!("t{oid}"), "partitioned": false,
                           "replica_identity": "d", "columns": [] }
            })
        };
        let constraint = |oid: u32, on: u32, to: u32| {
            serde_json::json!({
                "class": "pg_constraint", "oid": oid,
                "entry": { "kind": "constraint", "name": "k", "table_oid": on, "schema": "s", "table": "t",
                           "type": "f", "definition": "", "validated": true, "local": true, "referenced_oid": to }
            })
        };
        let objects = [
            table(5),
            table(6),
            sequence(7, true),
            sequence(8, false),
            constraint(9, 5, 6),
            constraint(10, 6, 5),
        ];
        serde_json::from_value(serde_json::json!({ "format": 1, "objects": objects })).unwrap()
    }

    #[test]
    fn what_hangs_on_a_table_goes_with_it() {
        let catalog = catalog();
        assert_eq!(catalog.without(&BTreeSet::new()), catalog);
        let without = catalog.without(&[5].into());
        let left: Vec<u32> = without.objects.iter().map(|object| object.oid).collect();
        assert_eq!(left, [6, 8, 10]);
        assert!(matches!(&without.objects[1].entry, Entry::Sequence(sequence) if sequence.owner.is_none()));
        assert_eq!(catalog.without(&[99].into()), catalog);
    }
}
