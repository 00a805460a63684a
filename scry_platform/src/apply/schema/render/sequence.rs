//! Sequences, by themselves or inside an identity column.

use super::Rendered;
use crate::apply::schema::plan::{Lookup, StageName, Step, main_node};
use crate::apply::schema::quote::{ident, literal, qualified};
use scry_wire::catalog::{Object, Sequence};

pub(super) fn sequence(lookup: &Lookup<'_>, object: &Object, sequence: &Sequence, out: &mut Rendered) {
    let owner = sequence.owner.as_ref().filter(|owner| table_is_here(lookup, owner.table_oid));
    if owner.is_some_and(|owner| owner.identity) {
        return;
    }
    let name = qualified(&sequence.schema, &sequence.name);
    let unlogged = if sequence.unlogged { " UNLOGGED" } else { "" };
    let sql = vec![format!(
        "CREATE{unlogged} SEQUENCE {name} AS {}{}",
        sequence.data_type,
        sequence_options(sequence)
    )];
    let step = Step::new(object, "create", sql)
        .values(set_value(sequence).into_iter().collect())
        .undo(format!("DROP SEQUENCE IF EXISTS {name} CASCADE"))
        .makes(&sequence.schema, &sequence.name);
    out.nodes.push(main_node(object, step));
    if let Some(owner) = owner {
        let column = format!("{}.{}", qualified(&owner.schema, &owner.table), ident(&owner.column));
        let sql = format!("ALTER SEQUENCE {name} OWNED BY {column}");
        out.stage(StageName::Settings, Step::new(object, "owned by", vec![sql]));
    }
}

fn table_is_here(lookup: &Lookup<'_>, oid: u32) -> bool {
    lookup.table(oid).is_some()
}

/// `START WITH ...` and the rest.
pub(in crate::apply::schema) fn sequence_options(sequence: &Sequence) -> String {
    format!(
        " START WITH {} INCREMENT BY {} MINVALUE {} MAXVALUE {} CACHE {}{}",
        sequence.start,
        sequence.increment,
        sequence.min,
        sequence.max,
        sequence.cache,
        if sequence.cycle { " CYCLE" } else { " NO CYCLE" }
    )
}

/// The statement that sets its value to the source's, if the document has it.
pub(super) fn set_value(sequence: &Sequence) -> Option<String> {
    let value = sequence.last_value?;
    let name = literal(&qualified(&sequence.schema, &sequence.name));
    Some(format!("SELECT pg_catalog.setval({name}::pg_catalog.regclass, {value}, {})", sequence.is_called))
}
