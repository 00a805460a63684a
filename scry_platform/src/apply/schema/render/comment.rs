//! `COMMENT ON`, one step an object with its columns.

use super::Rendered;
use super::routine::{aggregate_name, cast_name, function_name, operator_name};
use crate::apply::schema::plan::{StageName, Step};
use crate::apply::schema::quote::{ident, literal, qualified};
use scry_wire::catalog::{Entry, Object};

pub(super) fn comments(object: &Object, out: &mut Rendered) {
    let mut sql = Vec::new();
    // An extension's comment is set when it is made: that may need another role.
    match (&object.entry, target(&object.entry)) {
        (Entry::Schema(schema), Some(target)) if schema.name == "public" => {
            // Every database has this one, with a comment.
            match object.comment.as_deref() {
                Some("standard public schema") => {}
                None => sql.push(format!("COMMENT ON {target} IS NULL")),
                Some(text) => sql.push(format!("COMMENT ON {target} IS {}", literal(text))),
            }
        }
        (_, Some(target)) => {
            sql.extend(
                object.comment.as_ref().map(|text| format!("COMMENT ON {target} IS {}", literal(text))),
            );
        }
        _ => {}
    }
    let mut comment = |on: String, text: &Option<String>| {
        sql.extend(text.as_ref().map(|text| format!("COMMENT ON {on} IS {}", literal(text))));
    };
    match &object.entry {
        Entry::Table(e) => {
            for column in e.columns.iter().filter(|c| !c.dropped) {
                comment(self::column(&e.schema, &e.name, &column.name), &column.comment);
            }
        }
        Entry::View(e) => {
            for column in &e.columns {
                comment(self::column(&e.schema, &e.name, &column.name), &column.comment);
            }
        }
        Entry::MaterializedView(e) => {
            for column in &e.columns {
                comment(self::column(&e.schema, &e.name, &column.name), &column.comment);
            }
        }
        Entry::Composite(e) => {
            for attribute in &e.attributes {
                comment(self::column(&e.schema, &e.name, &attribute.name), &attribute.comment);
            }
        }
        Entry::Domain(e) => {
            for check in &e.constraints {
                let domain = qualified(&e.schema, &e.name);
                comment(format!("CONSTRAINT {} ON DOMAIN {domain}", ident(&check.name)), &check.comment);
            }
        }
        Entry::Constraint(e) => {
            if let Some(index) = &e.index {
                comment(format!("INDEX {}", qualified(&e.schema, &index.name)), &index.comment);
            }
        }
        _ => {}
    }
    if !sql.is_empty() {
        out.stage(StageName::Comments, Step::new(object, "comment", sql));
    }
}

fn column(schema: &str, relation: &str, column: &str) -> String {
    format!("COLUMN {}.{}", qualified(schema, relation), ident(column))
}

fn target(entry: &Entry) -> Option<String> {
    let on = |kind: &str, name: &str, schema: &str, table: &str| {
        Some(format!("{kind} {} ON {}", ident(name), qualified(schema, table)))
    };
    let named = |kind: &str, schema: &str, name: &str| Some(format!("{kind} {}", qualified(schema, name)));
    match entry {
        Entry::Schema(e) => Some(format!("SCHEMA {}", ident(&e.name))),
        Entry::Extension(_) | Entry::Unknown => None,
        Entry::Collation(e) => named("COLLATION", &e.schema, &e.name),
        Entry::Enum(e) => named("TYPE", &e.schema, &e.name),
        Entry::Composite(e) => named("TYPE", &e.schema, &e.name),
        Entry::Range(e) => named("TYPE", &e.schema, &e.name),
        Entry::Domain(e) => named("DOMAIN", &e.schema, &e.name),
        Entry::Sequence(e) => named("SEQUENCE", &e.schema, &e.name),
        Entry::Table(e) => named("TABLE", &e.schema, &e.name),
        Entry::Index(e) => named("INDEX", &e.schema, &e.name),
        Entry::View(e) => named("VIEW", &e.schema, &e.name),
        Entry::MaterializedView(e) => named("MATERIALIZED VIEW", &e.schema, &e.name),
        Entry::Statistics(e) => named("STATISTICS", &e.schema, &e.name),
        Entry::Function(e) => Some(format!("ROUTINE {}", function_name(e))),
        Entry::Operator(e) => Some(format!("OPERATOR {}", operator_name(e)?)),
        Entry::Cast(e) => Some(format!("CAST {}", cast_name(e))),
        Entry::TextSearchDictionary(e) => named("TEXT SEARCH DICTIONARY", &e.schema, &e.name),
        Entry::TextSearchConfiguration(e) => named("TEXT SEARCH CONFIGURATION", &e.schema, &e.name),
        Entry::Aggregate(e) => Some(format!("AGGREGATE {}", aggregate_name(e))),
        Entry::Constraint(e) => on("CONSTRAINT", &e.name, &e.schema, &e.table),
        Entry::Rule(e) => on("RULE", &e.name, &e.schema, &e.table),
        Entry::Trigger(e) => on("TRIGGER", &e.name, &e.schema, &e.table),
        Entry::Policy(e) => on("POLICY", &e.name, &e.schema, &e.table),
    }
}
