//! What has another name or another schema.
//!
//! ```text
//! schemas ─► new schemas ─► out of the way (temporary names) ─► SET SCHEMA ─► names ─► columns, labels
//! ```
//!
//! A name that another object has now, or a move together with a new name, goes by a
//! temporary name: so names can be swapped, and the order does not matter.
//!
//! Invariants: rows stay where they are; a table's indexes and owned sequences move with it.

use super::changes::Changes;
use super::names::{Place, Space, at, place, space};
use crate::apply::schema::plan::{Need, Step};
use crate::apply::schema::quote::{ident, literal, qualified};
use crate::apply::schema::render::comment::target;
use scry_wire::catalog::{Entry, Object};
use std::collections::{HashMap, HashSet};

/// The steps, in the order in which they are run.
#[derive(Debug, Default)]
pub(super) struct Renames {
    /// Schemas; before new ones are made.
    pub schemas: Vec<Step>,
    /// Everything else.
    pub objects: Vec<Step>,
}

/// Plans the renames. `in_the_way` are dropped objects that are still there because something
/// that is changed later needs them: if their name is wanted, they take another until they go.
/// Returned with them: what they are called from then on.
pub(super) fn renames<'a>(changes: &Changes<'a>, in_the_way: &[&'a Object]) -> (Renames, Vec<Object>) {
    let mut renamer =
        Renamer { changes, schemas: HashMap::new(), taken: taken(changes), out: Renames::default() };
    let waiting = renamer.clear(in_the_way);
    renamer.rename_schemas();
    renamer.rename_objects();
    renamer.rename_parts();
    let Renamer { schemas, out, .. } = renamer;
    let waiting = waiting.into_iter().map(|object| in_schema(&schemas, object)).collect();
    (out, waiting)
}

/// A dropped object's place once schemas are renamed.
fn in_schema(schemas: &HashMap<&str, String>, object: Object) -> Object {
    match place(&object.entry) {
        Some(p) if schemas.contains_key(p.schema) => {
            let schema = schemas.get(p.schema).map_or(p.schema, String::as_str);
            at(&object, Place { schema, ..p })
        }
        _ => object,
    }
}

/// Names of objects that stay, as they are before.
fn taken<'a>(changes: &Changes<'a>) -> HashSet<(Space, &'a str, &'a str)> {
    let old = changes.changed.iter().map(|(old, _)| *old);
    old.filter_map(|object| {
        let p = place(&object.entry)?;
        Some((space(&object.entry)?, p.schema, p.name))
    })
    .collect()
}

struct Renamer<'c, 'a> {
    changes: &'c Changes<'a>,
    /// Old names of schemas that have a new one.
    schemas: HashMap<&'a str, String>,
    taken: HashSet<(Space, &'a str, &'a str)>,
    out: Renames,
}

impl<'a> Renamer<'_, 'a> {
    fn pairs(&self) -> impl Iterator<Item = (&'a Object, &'a Object)> {
        self.changes.changed.iter().copied()
    }

    /// With those that read the same: where a schema has another name now, what was in it has
    /// moved into the one that has its name.
    fn placed(&self) -> impl Iterator<Item = (&'a Object, &'a Object)> {
        let same = if self.schemas.is_empty() { &[][..] } else { &self.changes.same };
        self.pairs().chain(same.iter().copied())
    }

    /// The schema's name after the renames of schemas.
    fn schema<'s>(&'s self, old: &'s str) -> &'s str {
        self.schemas.get(old).map_or(old, String::as_str)
    }

    /// Gives dropped objects that are still there a name that nobody wants.
    fn clear(&mut self, in_the_way: &[&'a Object]) -> Vec<Object> {
        let wanted: HashSet<(Space, &str, &str)> = self
            .changes
            .created
            .iter()
            .copied()
            .chain(self.pairs().map(|(_, new)| new))
            .filter_map(|object| {
                let p = place(&object.entry)?;
                Some((space(&object.entry)?, p.schema, p.name))
            })
            .collect();
        let mut waiting = Vec::new();
        for object in in_the_way {
            let (Some(p), Some(space)) = (place(&object.entry), space(&object.entry)) else {
                waiting.push((*object).clone());
                continue;
            };
            if !wanted.contains(&(space, p.schema, p.name)) {
                waiting.push((*object).clone());
                continue;
            }
            let name = temporary(object);
            self.out.schemas.extend(rename_step(object, &name, Need::Nothing));
            waiting.push(at(object, Place { name: &name, ..p }));
            if matches!(object.entry, Entry::Schema(_)) {
                self.schemas.insert(p.name, name);
            }
        }
        waiting
    }

    fn rename_schemas(&mut self) {
        let renamed: Vec<(&Object, &str, &str)> = self
            .pairs()
            .filter_map(|(old, new)| match (&old.entry, &new.entry) {
                (Entry::Schema(a), Entry::Schema(b)) if a.name != b.name => Some((old, &*a.name, &*b.name)),
                _ => None,
            })
            .collect();
        let mut last = Vec::new();
        for (old, from, to) in renamed {
            if self.taken.contains(&(Space::Schemas, "", to)) {
                let name = temporary(old);
                self.out.schemas.extend(rename_step(old, &name, Need::Success));
                let moved = at(old, Place { schema: "", table: "", name: &name });
                last.extend(rename_step(&moved, to, Need::Success));
            } else {
                // At once: its old name may be wanted.
                self.out.schemas.extend(rename_step(old, to, Need::Success));
            }
            self.schemas.insert(from, to.to_owned());
        }
        self.out.schemas.extend(last);
    }

    /// Routines last: by then the types of their arguments have their new names.
    fn rename_objects(&mut self) {
        let routine = |object: &Object| matches!(object.entry, Entry::Function(_) | Entry::Aggregate(_));
        let (routines, others): (Vec<_>, Vec<_>) = self.placed().partition(|(old, _)| routine(old));
        self.rename_these(others.into_iter());
        self.rename_these(routines.into_iter());
    }

    fn rename_these(&mut self, pairs: impl Iterator<Item = (&'a Object, &'a Object)>) {
        let (mut clear_parts, mut clear, mut moves, mut names, mut parts) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (old, new) in pairs {
            let (Some(from), Some(to)) = (place(&old.entry), place(&new.entry)) else { continue };
            if matches!(old.entry, Entry::Schema(_)) || comes_along(self.changes, old) {
                continue;
            }
            let schema = self.schema(from.schema).to_owned();
            let moves_itself = schema != to.schema && !moves_with_table(self.changes, old, new);
            let renamed = from.name != to.name;
            if !renamed && !moves_itself {
                continue;
            }
            let taken = space(&new.entry).is_some_and(|s| self.taken.contains(&(s, to.schema, to.name)));
            let need = need_of(new);
            let hangs = !from.table.is_empty();
            let mut here = at(old, Place { schema: &schema, ..from });
            match (&mut here.entry, &new.entry) {
                (Entry::Function(here), Entry::Function(new)) => here.arguments.clone_from(&new.arguments),
                (Entry::Aggregate(here), Entry::Aggregate(new)) => {
                    here.identity_arguments.clone_from(&new.identity_arguments);
                }
                _ => {}
            }
            let (first, last) = if hangs { (&mut clear_parts, &mut parts) } else { (&mut clear, &mut names) };
            if renamed && !taken && !moves_itself {
                // At once: its old name may be wanted.
                first.extend(rename_step(&here, to.name, need));
                continue;
            }
            if renamed {
                let name = temporary(old);
                first.extend(rename_step(&here, &name, need.clone()));
                here = at(&here, Place { schema: &schema, table: from.table, name: &name });
            }
            if moves_itself && let Some((word, name)) = target(&here.entry) {
                let sql = format!("ALTER {word} {name} SET SCHEMA {}", ident(to.schema));
                moves.push(Step::new(new, "schema", vec![sql]).need(need.clone()));
            }
            if renamed {
                let name = place(&here.entry).map_or(from.name, |p| p.name).to_owned();
                let there = at(&here, Place { name: &name, ..to });
                last.extend(rename_step(&there, to.name, need));
            }
        }
        for list in [clear_parts, clear, moves, names, parts] {
            self.out.objects.extend(list);
        }
    }

    /// Columns, attributes, labels, a domain's constraints: their whole has its new name by now.
    fn rename_parts(&mut self) {
        let mut steps = Vec::new();
        for (old, new) in self.pairs() {
            steps.extend(part_renames(self.changes, old, new));
        }
        self.out.objects.extend(steps);
    }
}

/// One that nobody else has: OIDs are the source's own numbers.
fn temporary(object: &Object) -> String {
    format!("scry_renamed_{}", object.oid)
}

fn need_of(object: &Object) -> Need {
    match object.entry {
        Entry::Table(_) if object.selected => Need::Success,
        _ => Need::Nothing,
    }
}

fn rename_step(object: &Object, name: &str, need: Need) -> Option<Step> {
    let sql = match &object.entry {
        Entry::Constraint(e) => format!(
            "ALTER TABLE {} RENAME CONSTRAINT {} TO {}",
            qualified(&e.schema, &e.table),
            ident(&e.name),
            ident(name)
        ),
        // Its arguments' types are not looked for among those that are renamed too.
        other => {
            let (word, old) = target(other)?;
            format!("ALTER {word} {old} RENAME TO {}", ident(name))
        }
    };
    Some(Step::new(object, "rename", vec![sql]).need(need))
}

/// It has its new name when what it belongs to has.
fn comes_along(changes: &Changes<'_>, old: &Object) -> bool {
    match &old.entry {
        Entry::Constraint(e) => e.contype == "c" && e.inherited > 0 && !e.local,
        Entry::Trigger(e) => e.parent_oid != 0,
        Entry::Sequence(e) => {
            e.owner.as_ref().is_some_and(|o| o.identity && changes.drops_relation(o.table_oid))
        }
        _ => false,
    }
}

/// Indexes have the schema of their table; sequences go with the table that owns them.
fn moves_with_table(changes: &Changes<'_>, old: &Object, new: &Object) -> bool {
    match (&old.entry, &new.entry) {
        (
            Entry::Index(_) | Entry::Constraint(_) | Entry::Trigger(_) | Entry::Rule(_) | Entry::Policy(_),
            _,
        ) => true,
        (Entry::Sequence(before), Entry::Sequence(after)) => {
            let Some(owner) = &before.owner else { return false };
            let table = changes.kept_relation(owner.table_oid);
            table.is_some_and(|table| place(&table.entry).is_some_and(|p| p.schema == after.schema))
        }
        _ => false,
    }
}

/// Names that change within an object: number, old, new.
fn part_renames(changes: &Changes<'_>, old: &Object, new: &Object) -> Vec<Step> {
    let columns = |word: &str, thing: &str, tail: &str, pairs: Vec<(&str, &str)>, need: Need| {
        let Some((_, name)) = target(&new.entry) else { return Vec::new() };
        let steps = swaps(&pairs).into_iter().map(|(from, to)| {
            let sql = format!("ALTER {word} {name} RENAME {thing} {} TO {}{tail}", ident(&from), ident(&to));
            Step::new(new, "rename column", vec![sql]).need(need.clone())
        });
        steps.collect()
    };
    match (&old.entry, &new.entry) {
        (Entry::Table(a), Entry::Table(b)) if b.of_type.is_none() => {
            // A child's column is renamed with its parent's.
            let parents_here = b.parents.iter().any(|p| changes.changes_relation(p.oid));
            let pairs =
                a.columns.iter().filter(|c| !(c.dropped || parents_here && c.inherited > 0)).filter_map(
                    |c| {
                        let now = b.columns.iter().find(|d| d.attnum == c.attnum && !d.dropped)?;
                        Some((&*c.name, &*now.name))
                    },
                );
            columns("TABLE", "COLUMN", "", pairs.collect(), need_of(new))
        }
        (Entry::View(a), Entry::View(b)) => {
            let pairs = a
                .columns
                .iter()
                .filter_map(|c| Some((&*c.name, &*b.columns.iter().find(|d| d.attnum == c.attnum)?.name)));
            columns("VIEW", "COLUMN", "", pairs.collect(), Need::Nothing)
        }
        (Entry::MaterializedView(a), Entry::MaterializedView(b)) => {
            let pairs = a
                .columns
                .iter()
                .filter_map(|c| Some((&*c.name, &*b.columns.iter().find(|d| d.attnum == c.attnum)?.name)));
            columns("MATERIALIZED VIEW", "COLUMN", "", pairs.collect(), Need::Nothing)
        }
        (Entry::Composite(a), Entry::Composite(b)) => {
            let pairs = a
                .attributes
                .iter()
                .filter_map(|c| Some((&*c.name, &*b.attributes.iter().find(|d| d.attnum == c.attnum)?.name)));
            columns("TYPE", "ATTRIBUTE", " CASCADE", pairs.collect(), Need::Nothing)
        }
        (Entry::Domain(a), Entry::Domain(b)) => {
            let pairs = a
                .constraints
                .iter()
                .filter_map(|c| Some((&*c.name, &*b.constraints.iter().find(|d| d.oid == c.oid)?.name)));
            columns("DOMAIN", "CONSTRAINT", "", pairs.collect(), Need::Nothing)
        }
        (Entry::Enum(a), Entry::Enum(b)) => {
            let Some((_, name)) = target(&new.entry) else { return Vec::new() };
            let now: HashMap<u32, &String> = b.label_oids.iter().copied().zip(&b.labels).collect();
            let labels = a.label_oids.iter().zip(&a.labels);
            let pairs: Vec<(&str, &str)> =
                labels.filter_map(|(oid, label)| Some((&**label, now.get(oid)?.as_str()))).collect();
            let steps = swaps(&pairs).into_iter().map(|(from, to)| {
                let sql = format!("ALTER TYPE {name} RENAME VALUE {} TO {}", literal(&from), literal(&to));
                Step::new(new, "rename value", vec![sql]).need(Need::Success)
            });
            steps.collect()
        }
        _ => Vec::new(),
    }
}

/// Renames one after another that make each old name its new one, names being unique.
fn swaps(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let taken: HashSet<&str> = pairs.iter().map(|(old, _)| *old).collect();
    let renamed = || pairs.iter().enumerate().filter(|(_, (old, new))| old != new);
    let mut first = Vec::new();
    let mut last = Vec::new();
    for (number, (old, new)) in renamed() {
        if taken.contains(new) {
            let between = format!("scry_renamed_{number}");
            first.push(((*old).to_owned(), between.clone()));
            last.push((between, (*new).to_owned()));
        } else {
            // At once: its old name may be wanted.
            first.push(((*old).to_owned(), (*new).to_owned()));
        }
    }
    first.extend(last);
    first
}

#[cfg(test)]
mod tests {
    use super::swaps;

    fn run(names: &[&str], pairs: &[(&str, &str)]) -> Vec<String> {
        let mut now: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        for (from, to) in swaps(pairs) {
            assert!(!now.contains(&to), "{to} is taken");
            let place = now.iter().position(|n| *n == from).expect("it is there");
            now[place] = to;
        }
        now
    }

    #[test]
    fn names_can_be_swapped_and_passed_on() {
        assert_eq!(run(&["a", "b"], &[("a", "b"), ("b", "a")]), ["b", "a"]);
        assert_eq!(run(&["a", "b", "c"], &[("a", "b"), ("b", "c"), ("c", "d")]), ["b", "c", "d"]);
        assert_eq!(run(&["a", "b"], &[("a", "x"), ("b", "b")]), ["x", "b"]);
    }
}
