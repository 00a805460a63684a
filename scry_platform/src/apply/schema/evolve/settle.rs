//! What makes an object as it stands on the shadow the one of the document.
//!
//! The left side is what the shadow itself says now, after renames: PostgreSQL has written the
//! new names into views, checks and defaults by itself, and what reads the same needs nothing.
//! A kind that has no form of its own here is dropped and made again.
//!
//! Invariants: asking again after the steps have been run gives no steps; rows are never lost
//! (a table is altered, never made again).

use super::settle_attached as attached;
use super::settle_table as table;
use super::settle_type as types;
use crate::apply::schema::plan::{ExtensionNeed, Lookup, Need, Step};
use crate::apply::schema::quote::{ident, literal, qualified};
use crate::apply::schema::render::comment::{statement, texts};
use crate::apply::schema::render::sequence::sequence_options;
use crate::apply::schema::render::view::refresh;
use crate::apply::schema::render::{compression_word, options, storage_word};
use scry_wire::catalog::{Entry, Extension, MaterializedView, Object, Sequence, View};
use std::collections::{BTreeMap, HashSet};

/// What is known beside the two sides.
pub(super) struct Context<'a> {
    /// The new document.
    pub lookup: &'a Lookup<'a>,
    /// Row security does not bind the shadow's role.
    pub bypasses_row_security: bool,
    /// Tables that are empty now, and copied again: the values of their columns do not matter.
    pub emptied: &'a HashSet<u32>,
}

/// What is to be done for one object.
#[derive(Debug, Default)]
pub(super) struct Settle {
    /// In the object's own place in the order of creation.
    pub own: Vec<Step>,
    /// Once indexes and keys are there: places in a tree.
    pub attach: Vec<Step>,
    /// At the end.
    pub late: Vec<Step>,
    /// It is dropped and made again, with what depends on it.
    pub again: bool,
}

impl Settle {
    pub(super) fn again() -> Self {
        Self { again: true, ..Self::default() }
    }

    pub(super) fn own(steps: Vec<Step>) -> Self {
        Self { own: steps, ..Self::default() }
    }
}

/// Compares what is there with what shall be.
pub(super) fn settle(context: &Context<'_>, have: &Object, want: &Object) -> Settle {
    let mut settle = match (&have.entry, &want.entry) {
        (Entry::Schema(_), Entry::Schema(_)) => Settle::default(),
        (Entry::Extension(a), Entry::Extension(b)) => extension(want, a, b),
        (Entry::Enum(a), Entry::Enum(b)) => types::enumeration(want, a, b),
        (Entry::Domain(a), Entry::Domain(b)) => types::domain(want, a, b),
        (Entry::Composite(a), Entry::Composite(b)) => types::composite(want, a, b),
        (Entry::TextSearchDictionary(a), Entry::TextSearchDictionary(b)) => types::dictionary(want, a, b),
        (Entry::TextSearchConfiguration(a), Entry::TextSearchConfiguration(b)) => {
            types::configuration(want, a, b)
        }
        (Entry::Operator(a), Entry::Operator(b)) => types::operator(want, a, b),
        (Entry::Sequence(a), Entry::Sequence(b)) => sequence(context, want, a, b),
        (Entry::Table(a), Entry::Table(b)) => table::table(context, want, a, b),
        (Entry::Constraint(a), Entry::Constraint(b)) => attached::constraint(context, want, a, b),
        (Entry::Index(a), Entry::Index(b)) => attached::index(context, want, a, b),
        (Entry::Statistics(a), Entry::Statistics(b)) => attached::statistics(want, a, b),
        (Entry::Trigger(a), Entry::Trigger(b)) => attached::trigger(want, a, b),
        (Entry::Rule(a), Entry::Rule(b)) => attached::rule(want, a, b),
        (Entry::View(a), Entry::View(b)) => view(want, a, b),
        (Entry::MaterializedView(a), Entry::MaterializedView(b)) => materialized(want, a, b),
        (Entry::Function(a), Entry::Function(b)) if a.prokind == b.prokind => {
            let new = (a.definition != b.definition).then(|| b.definition.clone());
            Settle::own(new.map(|sql| Step::new(want, "replace", vec![sql])).into_iter().collect())
        }
        _ if without_comments(have) == without_comments(want) => Settle::default(),
        _ => Settle::again(),
    };
    if !settle.again {
        settle.late.extend(comments(have, want));
    }
    settle
}

pub(super) fn without_comments(object: &Object) -> serde_json::Value {
    let mut value = object.comparable();
    forget_comments(&mut value);
    value
}

fn forget_comments(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.remove("comment");
            fields.values_mut().for_each(forget_comments);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(forget_comments),
        _ => {}
    }
}

fn comments(have: &Object, want: &Object) -> Option<Step> {
    let mut there: BTreeMap<String, Option<String>> = texts(have).into_iter().collect();
    let mut sql = Vec::new();
    for (on, text) in texts(want) {
        if there.remove(&on).flatten() != text {
            sql.push(statement(&on, text.as_deref()));
        }
    }
    (!sql.is_empty()).then(|| Step::new(want, "comment", sql))
}

/// `SET (...)` and `RESET (...)` from one list of `name=value` to the other.
pub(super) fn option_changes(have: &[String], want: &[String], prefix: &str) -> Vec<String> {
    let name = |option: &String| option.split('=').next().unwrap_or_default().to_owned();
    let new: Vec<&String> = want.iter().filter(|option| !have.contains(option)).collect();
    let kept: HashSet<String> = want.iter().map(name).collect();
    let gone: Vec<String> = have
        .iter()
        .map(name)
        .filter(|n| !kept.contains(n))
        .map(|n| format!("{prefix}{}", ident(&n)))
        .collect();
    let mut actions = Vec::new();
    if !new.is_empty() {
        let list = if prefix.is_empty() { options(new, []) } else { options([], new) };
        actions.push(format!("SET {list}"));
    }
    if !gone.is_empty() {
        actions.push(format!("RESET ({})", gone.join(", ")));
    }
    actions
}

fn extension(want: &Object, a: &Extension, b: &Extension) -> Settle {
    let name = ident(&b.name);
    let mut steps = Vec::new();
    // The role may own the extension, but not what its script has made.
    let step = |part, sql| {
        let (name, version) = (b.name.clone(), b.version.clone());
        let need = ExtensionNeed { name, any_version: String::new(), version, schema: None, comment: None };
        Step::new(want, part, vec![sql]).need(Need::Extension(need))
    };
    if a.schema != b.schema {
        steps.push(step("schema", format!("ALTER EXTENSION {name} SET SCHEMA {}", ident(&b.schema))));
    }
    if a.version != b.version {
        let sql = format!("ALTER EXTENSION {name} UPDATE TO {}", literal(&b.version).trim_start());
        steps.push(step("update", sql));
    }
    Settle::own(steps)
}

fn sequence(context: &Context<'_>, want: &Object, a: &Sequence, b: &Sequence) -> Settle {
    let name = qualified(&b.schema, &b.name);
    let shape = |s: &Sequence| (s.data_type.clone(), sequence_options(s));
    let mut settle = Settle::default();
    if shape(a) != shape(b) {
        // Its value here is ahead of the last one used there (`log_cnt`, commands/sequence.c), so that it
        // may lie beyond new bounds; the stream brings what it becomes.
        let into_bounds = format!(
            "SELECT pg_catalog.setval({}::pg_catalog.regclass, \
             least(greatest(last_value, {min}), {max}), true) FROM {name} WHERE last_value NOT BETWEEN {min} AND {max}",
            literal(&name),
            min = b.min,
            max = b.max
        );
        let sql = format!("ALTER SEQUENCE {name} AS {}{}", b.data_type, sequence_options(b));
        settle.own.push(Step::new(want, "options", vec![into_bounds, sql]));
    }
    let owner = |s: &Sequence| {
        let owner = s.owner.as_ref()?;
        (!owner.identity)
            .then(|| format!("{}.{}", qualified(&owner.schema, &owner.table), ident(&owner.column)))
    };
    let identity = |s: &Sequence| s.owner.as_ref().is_some_and(|owner| owner.identity);
    let here = b.owner.as_ref().is_none_or(|owner| {
        let id =
            scry_wire::catalog::ObjectId { class: scry_wire::catalog::Class::Relation, oid: owner.table_oid };
        context.lookup.get(id).is_some()
    });
    // An identity's sequence comes and goes with the column.
    if owner(a) != owner(b) && here && !identity(a) && !identity(b) {
        let by = owner(b).unwrap_or_else(|| "NONE".to_owned());
        settle.late.push(Step::new(want, "owned by", vec![format!("ALTER SEQUENCE {name} OWNED BY {by}")]));
    }
    settle
}

fn view(want: &Object, a: &View, b: &View) -> Settle {
    let name = qualified(&b.schema, &b.name);
    let columns = |v: &View| -> Vec<(String, String, _)> {
        v.columns.iter().map(|c| (c.name.clone(), c.data_type.sql.clone(), c.collation.clone())).collect()
    };
    let (before, after) = (columns(a), columns(b));
    let mut settle = Settle::default();
    if a.definition != b.definition || a.options != b.options || before != after {
        if !after.starts_with(&before) {
            return Settle::again();
        }
        settle.own.push(crate::apply::schema::render::view::replace(want, b));
    }
    let mut defaults = Vec::new();
    for column in &b.columns {
        let old = a.columns.iter().find(|c| c.name == column.name).and_then(|c| c.default.as_ref());
        let new = column.default.as_ref();
        if old.map(|d| &d.sql) != new.map(|d| &d.sql) {
            let action = new.map_or_else(|| "DROP DEFAULT".to_owned(), |d| format!("SET DEFAULT {}", d.sql));
            defaults.push(format!("ALTER VIEW {name} ALTER COLUMN {} {action}", ident(&column.name)));
        }
    }
    if !defaults.is_empty() {
        settle.late.push(Step::new(want, "default", defaults));
    }
    settle
}

fn materialized(want: &Object, a: &MaterializedView, b: &MaterializedView) -> Settle {
    let name = qualified(&b.schema, &b.name);
    let names = |v: &MaterializedView| v.columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    if a.definition != b.definition || names(a) != names(b) {
        return Settle::again();
    }
    let mut sql = Vec::new();
    let actions = option_changes(&a.options, &b.options, "").into_iter();
    for action in actions.chain(option_changes(&a.toast_options, &b.toast_options, "toast.")) {
        sql.push(format!("ALTER MATERIALIZED VIEW {name} {action}"));
    }
    if a.access_method != b.access_method
        && let Some(method) = &b.access_method
    {
        sql.push(format!("ALTER MATERIALIZED VIEW {name} SET ACCESS METHOD {}", ident(method)));
    }
    for (old, new) in a.columns.iter().zip(&b.columns) {
        let mut alter = |action: String| {
            sql.push(format!("ALTER MATERIALIZED VIEW {name} ALTER COLUMN {} {action}", ident(&new.name)));
        };
        if old.storage != new.storage
            && let Some(word) = new.storage.as_deref().and_then(storage_word)
        {
            alter(format!("SET STORAGE {word}"));
        }
        if old.compression != new.compression {
            alter(format!("SET COMPRESSION {}", compression_word(&new.compression).unwrap_or("default")));
        }
        if old.statistics != new.statistics {
            alter(format!("SET STATISTICS {}", new.statistics.unwrap_or(-1)));
        }
        option_changes(&old.options, &new.options, "").into_iter().for_each(alter);
    }
    let mut settle = Settle::default();
    if !sql.is_empty() {
        settle.own.push(Step::new(want, "settings", sql));
    }
    if b.populated != a.populated {
        settle.late.push(refresh(want, b));
    }
    settle
}

#[cfg(test)]
mod tests {
    use super::option_changes;

    #[test]
    fn options_are_set_and_reset() {
        let list = |items: &[&str]| items.iter().map(|i| (*i).to_owned()).collect::<Vec<_>>();
        let found = option_changes(&list(&["fillfactor=70", "a=1"]), &list(&["fillfactor=80", "b=x"]), "");
        assert_eq!(found, ["SET (\"fillfactor\" = '80', \"b\" = 'x')", "RESET (\"a\")"]);
        assert_eq!(option_changes(&list(&["a=1"]), &list(&["a=1"]), "").len(), 0);
        let toast = option_changes(&list(&["a=1"]), &[], "toast.");
        assert_eq!(toast, ["RESET (toast.\"a\")"]);
    }
}
