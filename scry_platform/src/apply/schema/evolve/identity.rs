//! Which tables have rows that updates and deletes can name.

use scry_wire::catalog::{Catalog, Entry, Object};

/// Whether the document's table has no replica identity.
pub(super) fn lacks(catalog: &Catalog, relid: u32) -> bool {
    let is_key = |object: &Object| match &object.entry {
        Entry::Constraint(key) => key.contype == "p" && key.table_oid == relid,
        _ => false,
    };
    let table = catalog.objects.iter().find(|object| object.id().is_relation(relid));
    match table.map(|object| &object.entry) {
        Some(Entry::Table(table)) => match table.replica_identity.as_str() {
            "f" => false,
            "i" => table.replica_identity_index.is_none(),
            "d" => !catalog.objects.iter().any(is_key),
            _ => true,
        },
        _ => false,
    }
}
