//! Constraints, indexes, statistics objects, triggers, rules.

use super::settle::{Context, Settle};
use super::settle_type::valid;
use crate::apply::schema::plan::Step;
use crate::apply::schema::quote::{ident, qualified};
use scry_wire::catalog::{Constraint, Index, Object, Rule, Statistics, Trigger};

pub(super) fn constraint(context: &Context<'_>, want: &Object, a: &Constraint, b: &Constraint) -> Settle {
    let table = qualified(&b.schema, &b.table);
    let name = ident(&b.name);
    let mut settle = Settle::default();
    if let (Some(old), Some(new)) = (&a.index, &b.index) {
        if old.definition != new.definition {
            return index_options(&old.definition, &new.definition).map_or_else(Settle::again, |actions| {
                let index = qualified(&b.schema, &new.name);
                let sql = actions.into_iter().map(|action| format!("ALTER INDEX {index} {action}"));
                Settle::own(vec![Step::new(want, "options", sql.collect())])
            });
        }
        cluster(want, &table, &new.name, (old.clustered, new.clustered), &mut settle);
        let index = qualified(&b.schema, &new.name);
        under_parent(context, want, &index, (old.parent_oid, new.parent_oid), &mut settle);
    }
    if a.definition == b.definition {
        // Whose a child's check is follows from its parents'.
        return settle;
    }
    if !a.validated && b.validated && valid(&a.definition) == b.definition {
        let sql = format!("ALTER TABLE {table} VALIDATE CONSTRAINT {name}");
        settle.own.push(Step::new(want, "validate", vec![sql]));
        return settle;
    }
    if b.contype == "f" && deferral(&a.definition) == deferral(&b.definition) {
        let when = match (b.deferrable, b.deferred) {
            (true, true) => "DEFERRABLE INITIALLY DEFERRED",
            (true, false) => "DEFERRABLE INITIALLY IMMEDIATE",
            _ => "NOT DEFERRABLE",
        };
        let sql = format!("ALTER TABLE {table} ALTER CONSTRAINT {name} {when}");
        settle.own.push(Step::new(want, "deferral", vec![sql]));
        return settle;
    }
    Settle::again()
}

/// A foreign key without the words of when it is checked.
fn deferral(definition: &str) -> String {
    let text = definition.replace(" DEFERRABLE", "").replace(" INITIALLY DEFERRED", "");
    text.replace(" NOT VALID", "")
}

/// Another index that takes the place, later, puts this one out of it.
fn cluster(want: &Object, table: &str, index: &str, (old, new): (bool, bool), settle: &mut Settle) {
    if old && !new {
        let sql = format!("ALTER TABLE {table} SET WITHOUT CLUSTER");
        settle.own.push(Step::new(want, "cluster", vec![sql]));
    } else if new && !old {
        let sql = format!("ALTER TABLE {table} CLUSTER ON {}", ident(index));
        settle.late.push(Step::new(want, "cluster", vec![sql]));
    }
}

/// What makes one definition the other, if they differ in storage parameters only.
fn index_options(old: &str, new: &str) -> Option<Vec<String>> {
    let (old_form, old_list) = without_options(old)?;
    let (new_form, new_list) = without_options(new)?;
    (old_form == new_form).then(|| super::settle::option_changes(&old_list, &new_list, ""))
}

/// The definition without ` WITH (...)`, and the parameters as `name=value`. The server writes
/// that clause after the columns and before TABLESPACE and WHERE; None where it could also be
/// part of an expression or a name.
fn without_options(definition: &str) -> Option<(String, Vec<String>)> {
    let mut places = definition.match_indices(" WITH (");
    let Some((start, word)) = places.next() else { return Some((definition.to_owned(), Vec::new())) };
    if places.next().is_some() {
        return None;
    }
    let after = definition.get(start + word.len()..)?;
    let end = after.find(')')?;
    let list = after.get(..end)?;
    let options = list.split(", ").map(|item| {
        let (name, value) = item.split_once('=')?;
        let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        let value = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\'')).unwrap_or(value);
        (plain(name) && plain(value)).then(|| format!("{name}={value}"))
    });
    let options = options.collect::<Option<Vec<_>>>()?;
    let before = definition.get(..start)?;
    Some((format!("{before}{}", after.get(end + 1..)?), options))
}

pub(super) fn index(context: &Context<'_>, want: &Object, a: &Index, b: &Index) -> Settle {
    let name = qualified(&b.schema, &b.name);
    let mut sql = Vec::new();
    if a.definition != b.definition || a.unique != b.unique {
        match index_options(&a.definition, &b.definition) {
            Some(actions) => {
                sql.extend(actions.into_iter().map(|action| format!("ALTER INDEX {name} {action}")))
            }
            None => return Settle::again(),
        }
    }
    for column in &b.statistics {
        if !a.statistics.contains(column) {
            let (number, target) = (column.attnum, column.target);
            sql.push(format!("ALTER INDEX {name} ALTER COLUMN {number} SET STATISTICS {target}"));
        }
    }
    for gone in a.statistics.iter().filter(|old| b.statistics.iter().all(|new| new.attnum != old.attnum)) {
        sql.push(format!("ALTER INDEX {name} ALTER COLUMN {} SET STATISTICS -1", gone.attnum));
    }
    let mut settle = Settle::default();
    if !sql.is_empty() {
        settle.own.push(Step::new(want, "options", sql));
    }
    let table = qualified(&b.table_schema, &b.table);
    cluster(want, &table, &b.name, (a.clustered, b.clustered), &mut settle);
    under_parent(context, want, &name, (a.parent_oid, b.parent_oid), &mut settle);
    settle
}

/// An index that becomes part of a partitioned table's, a key's too.
fn under_parent(
    context: &Context<'_>,
    want: &Object,
    index: &str,
    (old, new): (Option<u32>, Option<u32>),
    settle: &mut Settle,
) {
    if let (None, Some((schema, parent))) = (old, context.lookup.index(new)) {
        let sql = format!("ALTER INDEX {} ATTACH PARTITION {index}", qualified(schema, parent));
        settle.late.push(Step::new(want, "attach", vec![sql]));
    }
}

pub(super) fn statistics(want: &Object, a: &Statistics, b: &Statistics) -> Settle {
    if a.definition != b.definition {
        return Settle::again();
    }
    if a.target == b.target {
        return Settle::default();
    }
    let name = qualified(&b.schema, &b.name);
    let sql = format!("ALTER STATISTICS {name} SET STATISTICS {}", b.target.unwrap_or(-1));
    Settle::own(vec![Step::new(want, "target", vec![sql])])
}

/// What fires for a replica too is disabled here (see the renderer).
fn is_on(enabled: &str) -> bool {
    enabled == "O"
}

pub(super) fn trigger(want: &Object, a: &Trigger, b: &Trigger) -> Settle {
    // A partition's copy of a trigger is its parent's affair.
    if a.definition != b.definition && b.parent_oid == 0 {
        return Settle::again();
    }
    if is_on(&a.enabled) == is_on(&b.enabled) {
        return Settle::default();
    }
    let word = if is_on(&b.enabled) { "ENABLE" } else { "DISABLE" };
    // A parent's switch is that of the copies in its partitions, but for those listed themselves.
    let only = if b.view || b.parent_oid == 0 { "" } else { "ONLY " };
    let table = qualified(&b.schema, &b.table);
    let sql = format!("ALTER TABLE {only}{table} {word} TRIGGER {}", ident(&b.name));
    Settle { late: vec![Step::new(want, "state", vec![sql])], ..Settle::default() }
}

pub(super) fn rule(want: &Object, a: &Rule, b: &Rule) -> Settle {
    if a.definition != b.definition {
        return Settle::again();
    }
    if is_on(&a.enabled) == is_on(&b.enabled) {
        return Settle::default();
    }
    let word = if is_on(&b.enabled) { "ENABLE" } else { "DISABLE" };
    let sql = format!("ALTER TABLE {} {word} RULE {}", qualified(&b.schema, &b.table), ident(&b.name));
    Settle { late: vec![Step::new(want, "state", vec![sql])], ..Settle::default() }
}

#[cfg(test)]
mod tests {
    use super::{deferral, index_options};

    #[test]
    fn storage_parameters_are_told_from_the_rest() {
        let plain = "CREATE INDEX i ON s.t USING btree (a) WHERE (a > 0)";
        let filled = "CREATE INDEX i ON s.t USING btree (a) WITH (fillfactor='70') WHERE (a > 0)";
        let found = index_options(plain, filled).expect("options only");
        assert_eq!(found, ["SET (\"fillfactor\" = '70')"]);
        assert_eq!(index_options(filled, plain).expect("options only"), ["RESET (\"fillfactor\")"]);
        assert_eq!(index_options(plain, "CREATE INDEX i ON s.t USING btree (b)"), None);
        let odd = "CREATE INDEX i ON s.t USING btree ((a || ' WITH (x=1)')) WITH (fillfactor='70')";
        assert_eq!(index_options(odd, plain), None);
    }

    #[test]
    fn when_a_key_is_checked_is_no_part_of_it() {
        let key = "FOREIGN KEY (a) REFERENCES s.t(a) ON DELETE CASCADE";
        assert_eq!(deferral(&format!("{key} DEFERRABLE INITIALLY DEFERRED")), key);
        assert_eq!(deferral(&format!("{key} DEFERRABLE")), key);
    }
}
