//! Constraints, indexes, statistics, rules, triggers, policies.
//!
//! A key is built as an index first, because index builds run side by side on one table
//! and keys do not; the constraint then takes the index over. Partitioned tables and
//! exclusions take the constraint directly.

use super::Rendered;
use super::datatype::part_node;
use crate::apply::schema::order::Node;
use crate::apply::schema::plan::{Lookup, Need, Privileged, StageName, Step};
use crate::apply::schema::quote::{ident, ident_list, literal, qualified};
use scry_wire::catalog::{BackingIndex, Constraint, Index, Object, Policy, Rule, Statistics, Trigger};

pub(super) fn constraint(lookup: &Lookup<'_>, object: &Object, constraint: &Constraint, out: &mut Rendered) {
    let table = qualified(&constraint.schema, &constraint.table);
    let name = ident(&constraint.name);
    let add =
        |only: &str| format!("ALTER TABLE {only}{table} ADD CONSTRAINT {name} {}", constraint.definition);
    match (constraint.contype.as_str(), &constraint.index) {
        ("c", _) => {
            let parent_has_it = parent_has_check(lookup, constraint);
            if constraint.local || !parent_has_it {
                let only = if constraint.no_inherit { "ONLY " } else { "" };
                let stage = if parent_has_it { StageName::ChildChecks } else { StageName::Checks };
                let step = Step::new(object, "create", vec![add(only)]);
                out.stage(stage, step.reads(&constraint.schema, &constraint.table));
            }
        }
        ("f", _) => {
            let only = if constraint.partitioned { "" } else { "ONLY " };
            let step = Step::new(object, "create", vec![add(only)]);
            out.stage(StageName::ForeignKeys, step.reads(&constraint.schema, &constraint.table));
        }
        ("p" | "u", Some(index)) if index.method == "btree" && !constraint.partitioned => {
            let build = Step::new(object, "index", vec![index.definition.clone()]);
            out.stage(StageName::Indexes, build.reads(&constraint.schema, &constraint.table));
            let sql =
                format!("ALTER TABLE ONLY {table} ADD CONSTRAINT {name} {}", using_index(constraint, index));
            out.stage(StageName::Keys, Step::new(object, "create", vec![sql]));
        }
        _ => {
            let stage = if constraint.partitioned { StageName::Keys } else { StageName::Indexes };
            let step = Step::new(object, "create", vec![add("ONLY ")]);
            out.stage(stage, step.reads(&constraint.schema, &constraint.table));
        }
    }
    if let Some(index) = &constraint.index {
        if let Some(parent) = lookup.index(index.parent_oid) {
            attach(object, parent, (&constraint.schema, &index.name), out);
        }
        if index.clustered {
            cluster(object, &table, &index.name, out);
        }
    }
}

fn using_index(constraint: &Constraint, index: &BackingIndex) -> String {
    let word = if constraint.contype == "p" { "PRIMARY KEY" } else { "UNIQUE" };
    let when = match (constraint.deferrable, constraint.deferred) {
        (true, true) => " DEFERRABLE INITIALLY DEFERRED",
        (true, false) => " DEFERRABLE",
        _ => "",
    };
    format!("{word} USING INDEX {}{when}", ident(&index.name))
}

/// A parent that is here brings the check to its children.
fn parent_has_check(lookup: &Lookup<'_>, check: &Constraint) -> bool {
    let Some(table) = lookup.table(check.table_oid) else { return false };
    table.parents.iter().any(|p| lookup.table(p.oid).is_some() && lookup.has_check(p.oid, &check.name))
}

pub(super) fn index(lookup: &Lookup<'_>, object: &Object, index: &Index, out: &mut Rendered) {
    let name = qualified(&index.schema, &index.name);
    let mut sql = vec![index.definition.clone()];
    for column in &index.statistics {
        sql.push(format!(
            "ALTER INDEX {name} ALTER COLUMN {} SET STATISTICS {}",
            column.attnum, column.target
        ));
    }
    let stage = if index.table_kind == "m" { StageName::MaterializedIndexes } else { StageName::Indexes };
    out.stage(stage, Step::new(object, "create", sql).reads(&index.table_schema, &index.table));
    if let Some(parent) = lookup.index(index.parent_oid) {
        attach(object, parent, (&index.schema, &index.name), out);
    }
    if index.clustered {
        cluster(object, &qualified(&index.table_schema, &index.table), &index.name, out);
    }
}

fn attach(object: &Object, parent: (&str, &str), child: (&str, &str), out: &mut Rendered) {
    let parent = qualified(parent.0, parent.1);
    let sql = format!("ALTER INDEX {parent} ATTACH PARTITION {}", qualified(child.0, child.1));
    out.stage(StageName::IndexPartitions, Step::new(object, "attach", vec![sql]));
}

fn cluster(object: &Object, table: &str, index: &str, out: &mut Rendered) {
    let sql = format!("ALTER TABLE {table} CLUSTER ON {}", ident(index));
    out.stage(StageName::Settings, Step::new(object, "cluster", vec![sql]));
}

pub(super) fn statistics(object: &Object, statistics: &Statistics, out: &mut Rendered) {
    let mut sql = vec![statistics.definition.clone()];
    if let Some(target) = statistics.target {
        let name = qualified(&statistics.schema, &statistics.name);
        sql.push(format!("ALTER STATISTICS {name} SET STATISTICS {target}"));
    }
    out.stage(StageName::Statistics, Step::new(object, "create", sql));
}

pub(super) fn rule(object: &Object, rule: &Rule, out: &mut Rendered) {
    let table = qualified(&rule.schema, &rule.table);
    let mut sql = vec![rule.definition.clone()];
    // ALTER TABLE takes views here too.
    sql.extend(
        disable(object, &rule.enabled, out)
            .then(|| format!("ALTER TABLE {table} DISABLE RULE {}", ident(&rule.name))),
    );
    out.stage(StageName::Behaviour, Step::new(object, "create", sql));
}

pub(super) fn trigger(lookup: &Lookup<'_>, object: &Object, trigger: &Trigger, out: &mut Rendered) {
    let table = qualified(&trigger.schema, &trigger.table);
    let name = ident(&trigger.name);
    let disabled = disable(object, &trigger.enabled, out);
    // A partition's copy comes with the parent's trigger; only its state is its own.
    if trigger.parent_oid != 0 && has_parent(lookup, trigger.table_oid) {
        let word = if disabled { "DISABLE" } else { "ENABLE" };
        let sql = format!("ALTER TABLE ONLY {table} {word} TRIGGER {name}");
        out.stage(StageName::Settings, Step::new(object, "state", vec![sql]));
        return;
    }
    let mut sql = vec![trigger.definition.clone()];
    // With the copies of partitions.
    sql.extend(disabled.then(|| format!("ALTER TABLE {table} DISABLE TRIGGER {name}")));
    out.stage(StageName::Behaviour, Step::new(object, "create", sql));
}

fn has_parent(lookup: &Lookup<'_>, table: u32) -> bool {
    let parents = lookup.table(table).map(|table| table.parents.as_slice()).unwrap_or_default();
    parents.iter().any(|parent| lookup.table(parent.oid).is_some())
}

/// Changes are applied as a replica applies them. What fires for a replica too would
/// do its work a second time, on top of the rows that the source's did and sent.
fn disable(object: &Object, enabled: &str, out: &mut Rendered) -> bool {
    if matches!(enabled, "A" | "R") {
        let word = if enabled == "A" { "ALWAYS" } else { "REPLICA" };
        out.note(
            object,
            &format!("enabled {word} on the source; disabled here, or it would act twice on each change"),
        );
    }
    matches!(enabled, "A" | "R" | "D")
}

pub(super) fn policy(object: &Object, policy: &Policy, out: &mut Rendered) {
    let mut sql =
        format!("CREATE POLICY {} ON {}", ident(&policy.name), qualified(&policy.schema, &policy.table));
    if !policy.permissive {
        sql.push_str(" AS RESTRICTIVE");
    }
    match policy.command.as_str() {
        "r" => sql.push_str(" FOR SELECT"),
        "a" => sql.push_str(" FOR INSERT"),
        "w" => sql.push_str(" FOR UPDATE"),
        "d" => sql.push_str(" FOR DELETE"),
        _ => {}
    }
    if !policy.roles.is_empty() {
        sql.push_str(&format!(" TO {}", ident_list(policy.roles.iter().map(String::as_str))));
    }
    if let Some(expression) = &policy.using {
        sql.push_str(&format!(" USING ({expression})"));
    }
    if let Some(expression) = &policy.check {
        sql.push_str(&format!(" WITH CHECK ({expression})"));
    }
    out.stage(StageName::Behaviour, Step::new(object, "create", vec![sql]));
    out.nodes.extend(policy.roles.iter().map(|role| self::role(object, role)));
}

/// A role that a policy or a value names, if the shadow does not have it: nobody can log in as it, and it may do
/// nothing. Roles are the cluster's: it stays when the shadow goes.
pub(super) fn role(object: &Object, role: &str) -> Node {
    let guard = format!(
        "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_roles AS r \
         WHERE r.rolname OPERATOR(pg_catalog.=) {}::pg_catalog.name)",
        literal(role)
    );
    let sql = format!("CREATE ROLE {} NOLOGIN", ident(role));
    let need = Privileged { guard: Some(guard), optional: true, ..Privileged::default() };
    part_node(Vec::new(), 0, Step::new(object, "role", vec![sql]).need(Need::Superuser(need)))
}
