//! What goes: objects, columns, places in a tree.
//!
//! Nothing is dropped with CASCADE: what the source dropped along with something is gone from
//! its document too, and what others have built on the shadow is theirs. The order here is a
//! good guess; whoever runs it tries again what others stood in the way of.

use super::changes::Changes;
use crate::apply::schema::plan::{Need, Step, rank};
use crate::apply::schema::quote::{ident, qualified};
use crate::apply::schema::render::comment::target;
use scry_wire::catalog::{Catalog, Class, Entry, Object, ObjectId, Table};
use std::cmp::Reverse;

/// Partitions and children that leave their parents: before anything goes, because a partition
/// goes with its parent.
pub(super) fn detaches(changes: &Changes<'_>) -> Vec<Step> {
    let tables = changes.changed.iter().filter_map(|(old, new)| match (&old.entry, &new.entry) {
        (Entry::Table(before), Entry::Table(after)) => Some(detach(new, before, after)),
        _ => None,
    });
    tables.flatten().collect()
}

/// Statements for everything that is gone, what hangs on others first.
pub(super) fn drops(changes: &Changes<'_>) -> Vec<Step> {
    let mut objects: Vec<&Object> =
        changes.dropped.iter().copied().filter(|o| !goes_with_its_table(changes, o)).collect();
    objects.sort_by_key(|object| (turn(&object.entry), Reverse(object.oid)));
    let (hanging, others): (Vec<&Object>, Vec<&Object>) =
        objects.into_iter().partition(|object| turn(&object.entry) < PARTS_TURN);
    let parts = changes.changed.iter().flat_map(|(old, new)| parts(changes, old, new));
    let step = |object| drop_step(object, "drop");
    hanging.into_iter().filter_map(step).chain(parts).chain(others.into_iter().filter_map(step)).collect()
}

/// What goes with its table, taken by itself: two objects that are gone may need each other by
/// such parts (a table made of a view's type, to which a rule of the view writes; a function of
/// a table's type, which a check of the table calls).
pub(super) fn entangled(changes: &Changes<'_>) -> Vec<Step> {
    let mut objects: Vec<&Object> =
        changes.dropped.iter().copied().filter(|o| goes_with_its_table(changes, o)).collect();
    objects.sort_by_key(|object| (turn(&object.entry), Reverse(object.oid)));
    let is_part = |object: &&Object| match &object.entry {
        Entry::Sequence(_) => false,
        Entry::Trigger(trigger) => trigger.parent_oid == 0,
        _ => true,
    };
    let parts = objects.into_iter().filter(is_part);
    let steps = parts.filter_map(|object| Some(drop_step(object, "part")?.need(Need::Nothing)));
    let steps = steps.chain(changes.dropped.iter().flat_map(|object| values(object)));
    steps.chain(views_at_once(changes)).collect()
}

/// Views that are gone, in one statement: they may have read each other.
fn views_at_once(changes: &Changes<'_>) -> Option<Step> {
    let views: Vec<(&Object, String)> = changes
        .dropped
        .iter()
        .filter_map(|object| match &object.entry {
            Entry::View(view) => Some((*object, qualified(&view.schema, &view.name))),
            _ => None,
        })
        .collect();
    let (first, _) = views.first().filter(|_| views.len() > 1)?;
    let names: Vec<&str> = views.iter().map(|(_, name)| name.as_str()).collect();
    Some(Step::new(first, "part", vec![format!("DROP VIEW IF EXISTS {}", names.join(", "))]))
}

/// What computes values of a table's columns, or checks those of a domain.
fn values(object: &Object) -> Vec<Step> {
    let step = |sql: String| Step::new(object, "part", vec![sql]);
    match &object.entry {
        Entry::Table(table) => {
            let name = qualified(&table.schema, &table.name);
            let columns = table.columns.iter().filter(|column| column.default.is_some());
            let alter = columns.map(|column| {
                let drop = if column.generated.is_empty() { "DROP DEFAULT" } else { "DROP EXPRESSION" };
                step(format!("ALTER TABLE IF EXISTS {name} ALTER COLUMN {} {drop}", ident(&column.name)))
            });
            alter.collect()
        }
        Entry::Domain(domain) => {
            let name = qualified(&domain.schema, &domain.name);
            let checks = domain.constraints.iter();
            checks
                .map(|c| step(format!("ALTER DOMAIN {name} DROP CONSTRAINT IF EXISTS {}", ident(&c.name))))
                .collect()
        }
        _ => Vec::new(),
    }
}

/// The statement that drops an object.
pub(super) fn drop_step(object: &Object, part: &'static str) -> Option<Step> {
    let need = match &object.entry {
        Entry::Table(_) if object.selected => Need::Success,
        _ => Need::Nothing,
    };
    Some(Step::new(object, part, vec![drop_sql(&object.entry)?]).need(need))
}

fn drop_sql(entry: &Entry) -> Option<String> {
    match entry {
        Entry::Constraint(e) => Some(format!(
            "ALTER TABLE IF EXISTS {} DROP CONSTRAINT IF EXISTS {}",
            qualified(&e.schema, &e.table),
            ident(&e.name)
        )),
        Entry::Extension(e) => Some(format!("DROP EXTENSION IF EXISTS {}", ident(&e.name))),
        other => target(other).map(|(word, name)| format!("DROP {word} IF EXISTS {name}")),
    }
}

/// Copies of triggers in partitions that the document no longer lists, because they are switched
/// like their parents now: so they are made to be.
pub(super) fn copies(changes: &Changes<'_>, new: &Catalog) -> Vec<Step> {
    let find = |oid: u32| {
        let id = ObjectId { class: Class::Relation, oid };
        new.objects.iter().find(|o| o.id() == id).and_then(|o| match &o.entry {
            Entry::Table(table) => Some(table),
            _ => None,
        })
    };
    let mut steps = Vec::new();
    for object in &changes.dropped {
        let Entry::Trigger(copy) = &object.entry else { continue };
        let Some(table) = find(copy.table_oid).filter(|_| copy.parent_oid != 0) else { continue };
        let mut above = Some(table);
        // Trees are never this deep.
        for _ in 0..64 {
            let Some(parent) = above.and_then(|t| t.parents.first()) else { break };
            let trigger = new.objects.iter().find_map(|o| match &o.entry {
                Entry::Trigger(e) if e.table_oid == parent.oid => {
                    (o.oid == copy.parent_oid || e.name == copy.name).then_some(e)
                }
                _ => None,
            });
            if let Some(trigger) = trigger {
                let word = if trigger.enabled == "O" { "ENABLE" } else { "DISABLE" };
                let name = qualified(&table.schema, &table.name);
                let sql = format!("ALTER TABLE ONLY {name} {word} TRIGGER {}", ident(&trigger.name));
                steps.push(Step::new(object, "state", vec![sql]));
                break;
            }
            above = find(parent.oid);
        }
    }
    steps
}

fn goes_with_its_table(changes: &Changes<'_>, object: &Object) -> bool {
    match &object.entry {
        // It may stand elsewhere by now; dropped twice it is gone.
        Entry::Sequence(e) => e.owner.as_ref().is_some_and(|owner| owner.identity),
        // Two tables may refer to each other.
        Entry::Constraint(e) if e.contype == "f" => false,
        // A partition's copy of a trigger goes with its parent's; see [`copies`].
        Entry::Trigger(e) if e.parent_oid != 0 => true,
        entry => entry.table_oid().is_some_and(|oid| changes.drops_relation(oid)),
    }
}

/// Lower goes first.
fn turn(entry: &Entry) -> u8 {
    match entry {
        Entry::Policy(_) => 0,
        Entry::Rule(_) | Entry::Trigger(_) => 1,
        Entry::Constraint(e) if e.contype == "f" => 2,
        Entry::Statistics(_) | Entry::Index(_) => 3,
        Entry::Constraint(_) => 4,
        other => 100 - rank(other),
    }
}

/// What is gone of an object that stays.
fn parts(changes: &Changes<'_>, old: &Object, new: &Object) -> Vec<Step> {
    match (&old.entry, &new.entry) {
        (Entry::Table(before), Entry::Table(after)) => columns(changes, new, before, after),
        (Entry::Composite(before), Entry::Composite(after)) => {
            let name = qualified(&before.schema, &before.name);
            let gone =
                before.attributes.iter().filter(|a| after.attributes.iter().all(|b| a.attnum != b.attnum));
            gone.map(|a| {
                let sql = format!("ALTER TYPE {name} DROP ATTRIBUTE IF EXISTS {} CASCADE", ident(&a.name));
                Step::new(new, "drop attribute", vec![sql])
            })
            .collect()
        }
        (Entry::Domain(before), Entry::Domain(after)) => {
            let name = qualified(&before.schema, &before.name);
            let gone = before.constraints.iter().filter(|c| after.constraints.iter().all(|d| c.oid != d.oid));
            gone.map(|c| {
                let sql = format!("ALTER DOMAIN {name} DROP CONSTRAINT IF EXISTS {}", ident(&c.name));
                Step::new(new, "drop constraint", vec![sql])
            })
            .collect()
        }
        _ => Vec::new(),
    }
}

fn detach(object: &Object, before: &Table, after: &Table) -> Vec<Step> {
    let name = qualified(&before.schema, &before.name);
    let mut steps = Vec::new();
    if before.of_type.is_some() && after.of_type.is_none() {
        // Before anything becomes of the type.
        let sql = format!("ALTER TABLE IF EXISTS {name} NOT OF");
        steps.push(Step::new(object, "of", vec![sql]));
    }
    for parent in &before.parents {
        let parent_name = qualified(&parent.schema, &parent.name);
        let stays = after.parents.iter().any(|p| p.oid == parent.oid);
        let sql = if before.partition_bound.is_none() {
            if stays {
                continue;
            }
            format!("ALTER TABLE IF EXISTS {name} NO INHERIT {parent_name}")
        } else {
            if stays && before.partition_bound == after.partition_bound {
                continue;
            }
            format!("ALTER TABLE IF EXISTS {parent_name} DETACH PARTITION {name}")
        };
        steps.push(Step::new(object, "detach", vec![sql]).need(Need::Success));
    }
    steps
}

fn columns(changes: &Changes<'_>, object: &Object, before: &Table, after: &Table) -> Vec<Step> {
    // Columns of a typed table are its type's.
    if after.of_type.is_some() {
        return Vec::new();
    }
    let need = if object.selected { Need::Success } else { Need::Nothing };
    let name = qualified(&before.schema, &before.name);
    let here = |attnum| after.columns.iter().any(|c| c.attnum == attnum && !c.dropped);
    let gone = before.columns.iter().filter(|c| !c.dropped && !here(c.attnum));
    gone.map(|column| {
        let only = if stays_below(changes, object.oid, &column.name) { "ONLY " } else { "" };
        let column = ident(&column.name);
        let sql = format!("ALTER TABLE IF EXISTS {only}{name} DROP COLUMN IF EXISTS {column}");
        Step::new(object, "drop column", vec![sql]).need(need.clone())
    })
    .collect()
}

/// A child by inheritance keeps the column, and its values.
fn stays_below(changes: &Changes<'_>, parent: u32, column: &str) -> bool {
    changes.changed.iter().any(|(old, new)| match (&old.entry, &new.entry) {
        (Entry::Table(before), Entry::Table(after)) => {
            before.parents.iter().any(|p| p.oid == parent)
                && before
                    .columns
                    .iter()
                    .filter(|c| !c.dropped && c.name == column)
                    .any(|c| after.columns.iter().any(|d| d.attnum == c.attnum && !d.dropped))
        }
        _ => false,
    })
}

/// Columns go after what hangs on tables and after views, before tables, functions and types.
const PARTS_TURN: u8 = 90;
