//! Where an object's name stands: its schema, its table, and who else may not have that name.

use scry_wire::catalog::{Entry, Object};

/// A name and where it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// The schema; empty for what stands in none.
    pub schema: &'a str,
    /// The table or view that it hangs on; empty for what hangs on none.
    pub table: &'a str,
    pub name: &'a str,
}

/// Names are unique within one of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Space {
    Schemas,
    /// Relations and types: a table's row type has its name.
    Relations,
    /// With the arguments.
    Routines(String),
    Collations,
    Dictionaries,
    Configurations,
    Statistics,
    Constraints(u32),
    Triggers(u32),
    Rules(u32),
    Policies(u32),
}

/// Where the object's name stands; None for what has no name of that sort.
pub(super) fn place(entry: &Entry) -> Option<Place<'_>> {
    let named = |schema, name| Some(Place { schema, table: "", name });
    let on = |schema, table, name| Some(Place { schema, table, name });
    match entry {
        Entry::Schema(e) => named("", &e.name),
        Entry::Extension(e) => named("", &e.name),
        Entry::Collation(e) => named(&e.schema, &e.name),
        Entry::Enum(e) => named(&e.schema, &e.name),
        Entry::Domain(e) => named(&e.schema, &e.name),
        Entry::Composite(e) => named(&e.schema, &e.name),
        Entry::Range(e) => named(&e.schema, &e.name),
        Entry::Sequence(e) => named(&e.schema, &e.name),
        Entry::Table(e) => named(&e.schema, &e.name),
        Entry::Index(e) => named(&e.schema, &e.name),
        Entry::Statistics(e) => named(&e.schema, &e.name),
        Entry::View(e) => named(&e.schema, &e.name),
        Entry::MaterializedView(e) => named(&e.schema, &e.name),
        Entry::Function(e) => named(&e.schema, &e.name),
        Entry::Aggregate(e) => named(&e.schema, &e.name),
        Entry::Operator(e) => named(&e.schema, &e.name),
        Entry::TextSearchDictionary(e) => named(&e.schema, &e.name),
        Entry::TextSearchConfiguration(e) => named(&e.schema, &e.name),
        Entry::Constraint(e) => on(&e.schema, &e.table, &e.name),
        Entry::Rule(e) => on(&e.schema, &e.table, &e.name),
        Entry::Trigger(e) => on(&e.schema, &e.table, &e.name),
        Entry::Policy(e) => on(&e.schema, &e.table, &e.name),
        Entry::OperatorFamily(e) => named(&e.schema, &e.name),
        Entry::OperatorClass(e) => named(&e.schema, &e.name),
        Entry::Conversion(e) => named(&e.schema, &e.name),
        Entry::BaseType(e) => named(&e.schema, &e.name),
        Entry::TextSearchParser(e) => named(&e.schema, &e.name),
        Entry::TextSearchTemplate(e) => named(&e.schema, &e.name),
        Entry::ForeignTable(e) => named(&e.table.schema, &e.table.name),
        Entry::AccessMethod(e) => named("", &e.name),
        Entry::Language(e) => named("", &e.name),
        Entry::EventTrigger(e) => named("", &e.name),
        Entry::ForeignDataWrapper(e) => named("", &e.name),
        Entry::Server(e) => named("", &e.name),
        Entry::Cast(_) | Entry::Transform(_) | Entry::Unknown => None,
    }
}

/// Who may not have the same name; None for what is not renamed.
pub(super) fn space(entry: &Entry) -> Option<Space> {
    Some(match entry {
        Entry::Schema(_) => Space::Schemas,
        Entry::Collation(_) => Space::Collations,
        Entry::Enum(_)
        | Entry::Domain(_)
        | Entry::Composite(_)
        | Entry::Range(_)
        | Entry::BaseType(_)
        | Entry::Sequence(_)
        | Entry::Table(_)
        | Entry::ForeignTable(_)
        | Entry::Index(_)
        | Entry::View(_)
        | Entry::MaterializedView(_) => Space::Relations,
        Entry::Function(e) => Space::Routines(e.arguments.clone()),
        Entry::Aggregate(e) => Space::Routines(e.identity_arguments.clone()),
        Entry::Statistics(_) => Space::Statistics,
        Entry::TextSearchDictionary(_) => Space::Dictionaries,
        Entry::TextSearchConfiguration(_) => Space::Configurations,
        // The index has the constraint's name.
        Entry::Constraint(e) if e.index.is_some() => Space::Relations,
        Entry::Constraint(e) => Space::Constraints(e.table_oid),
        Entry::Trigger(e) => Space::Triggers(e.table_oid),
        Entry::Rule(e) => Space::Rules(e.table_oid),
        Entry::Policy(e) => Space::Policies(e.table_oid),
        // Made anew under another name.
        _ => return None,
    })
}

/// The object at another place, for statements about it there.
pub(super) fn at(object: &Object, to: Place<'_>) -> Object {
    let mut moved = object.clone();
    let set = |schema: &mut String, name: &mut String| {
        to.schema.clone_into(schema);
        to.name.clone_into(name);
    };
    let set_on = |schema: &mut String, table: &mut String, name: &mut String| {
        to.schema.clone_into(schema);
        to.table.clone_into(table);
        to.name.clone_into(name);
    };
    match &mut moved.entry {
        Entry::Schema(e) => to.name.clone_into(&mut e.name),
        Entry::Extension(_) | Entry::Cast(_) | Entry::Transform(_) | Entry::Unknown => {}
        Entry::OperatorFamily(e) => set(&mut e.schema, &mut e.name),
        Entry::OperatorClass(e) => set(&mut e.schema, &mut e.name),
        Entry::Conversion(e) => set(&mut e.schema, &mut e.name),
        Entry::BaseType(e) => set(&mut e.schema, &mut e.name),
        Entry::TextSearchParser(e) => set(&mut e.schema, &mut e.name),
        Entry::TextSearchTemplate(e) => set(&mut e.schema, &mut e.name),
        Entry::ForeignTable(e) => set(&mut e.table.schema, &mut e.table.name),
        Entry::AccessMethod(e) => to.name.clone_into(&mut e.name),
        Entry::Language(e) => to.name.clone_into(&mut e.name),
        Entry::EventTrigger(e) => to.name.clone_into(&mut e.name),
        Entry::ForeignDataWrapper(e) => to.name.clone_into(&mut e.name),
        Entry::Server(e) => to.name.clone_into(&mut e.name),
        Entry::Collation(e) => set(&mut e.schema, &mut e.name),
        Entry::Enum(e) => set(&mut e.schema, &mut e.name),
        Entry::Domain(e) => set(&mut e.schema, &mut e.name),
        Entry::Composite(e) => set(&mut e.schema, &mut e.name),
        Entry::Range(e) => set(&mut e.schema, &mut e.name),
        Entry::Sequence(e) => set(&mut e.schema, &mut e.name),
        Entry::Table(e) => set(&mut e.schema, &mut e.name),
        Entry::Index(e) => set(&mut e.schema, &mut e.name),
        Entry::Statistics(e) => set(&mut e.schema, &mut e.name),
        Entry::View(e) => set(&mut e.schema, &mut e.name),
        Entry::MaterializedView(e) => set(&mut e.schema, &mut e.name),
        Entry::Function(e) => set(&mut e.schema, &mut e.name),
        Entry::Aggregate(e) => set(&mut e.schema, &mut e.name),
        Entry::Operator(e) => set(&mut e.schema, &mut e.name),
        Entry::TextSearchDictionary(e) => set(&mut e.schema, &mut e.name),
        Entry::TextSearchConfiguration(e) => set(&mut e.schema, &mut e.name),
        Entry::Constraint(e) => set_on(&mut e.schema, &mut e.table, &mut e.name),
        Entry::Rule(e) => set_on(&mut e.schema, &mut e.table, &mut e.name),
        Entry::Trigger(e) => set_on(&mut e.schema, &mut e.table, &mut e.name),
        Entry::Policy(e) => set_on(&mut e.schema, &mut e.table, &mut e.name),
    }
    moved
}
