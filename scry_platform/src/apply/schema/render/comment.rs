//! `COMMENT ON`, one step an object with its columns.

use super::Rendered;
use super::access::using;
use super::datatype::part_node;
use super::language::transform_name;
use super::routine::{aggregate_name, cast_name, function_name, operator_name};
use crate::apply::schema::plan::{Need, Privileged, StageName, Step};
use crate::apply::schema::quote::{ident, literal, qualified};
use scry_wire::catalog::{Entry, Object};

pub(super) fn comments(object: &Object, out: &mut Rendered) {
    let standard = |on: &str, text: &Option<String>| {
        // Every database has this schema, with a comment.
        on == "SCHEMA \"public\"" && text.as_deref() == Some("standard public schema")
    };
    let mut sql = Vec::new();
    for (on, text) in texts(object) {
        let absent = text.is_none() && on != "SCHEMA \"public\"";
        if !absent && !standard(&on, &text) {
            sql.push(statement(&on, text.as_deref()));
        }
    }
    if sql.is_empty() {
        return;
    }
    let step = Step::new(object, "comment", sql);
    if is_a_superusers(&object.entry) {
        // Made with what needs a superuser, before the data.
        let step = step.need(Need::Superuser(Privileged::default()));
        out.nodes.push(part_node(vec![object.id()], 14, step));
    } else {
        out.stage(StageName::Comments, step);
    }
}

/// `COMMENT ON ... IS ...`
pub(in crate::apply::schema) fn statement(on: &str, text: Option<&str>) -> String {
    format!("COMMENT ON {on} IS {}", text.map_or_else(|| "NULL".to_owned(), literal))
}

/// What of an object can have a comment, with the one it has. An extension's is not among
/// them: it is set when the extension is made, and that may need another role.
pub(in crate::apply::schema) fn texts(object: &Object) -> Vec<(String, Option<String>)> {
    let mut found: Vec<(String, Option<String>)> = Vec::new();
    if let Some((word, name)) = target(&object.entry) {
        found.push((format!("{word} {name}"), object.comment.clone()));
    }
    let mut comment = |on: String, text: &Option<String>| found.push((on, text.clone()));
    match &object.entry {
        Entry::Table(e) => {
            for column in e.columns.iter().filter(|c| !c.dropped) {
                comment(self::column(&e.schema, &e.name, &column.name), &column.comment);
            }
        }
        Entry::ForeignTable(e) => {
            for column in e.table.columns.iter().filter(|c| !c.dropped) {
                comment(self::column(&e.table.schema, &e.table.name, &column.name), &column.comment);
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
    found
}

/// Nobody but a superuser owns such a thing; what is said of it is a name and a literal.
fn is_a_superusers(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::AccessMethod(_)
            | Entry::Cast(_)
            | Entry::EventTrigger(_)
            | Entry::ForeignDataWrapper(_)
            | Entry::TextSearchParser(_)
            | Entry::TextSearchTemplate(_)
            | Entry::Transform(_)
    )
}

fn column(schema: &str, relation: &str, column: &str) -> String {
    format!("COLUMN {}.{}", qualified(schema, relation), ident(column))
}

/// The words by which DROP, ALTER and COMMENT know the object: its kind and its name. None for
/// an extension (see [`texts`]) and what has no name.
pub(in crate::apply::schema) fn target(entry: &Entry) -> Option<(&'static str, String)> {
    let on = |kind, name: &str, schema: &str, table: &str| {
        Some((kind, format!("{} ON {}", ident(name), qualified(schema, table))))
    };
    let named = |kind, schema: &str, name: &str| Some((kind, qualified(schema, name)));
    match entry {
        Entry::Schema(e) => Some(("SCHEMA", ident(&e.name))),
        Entry::Extension(_) | Entry::Unknown => None,
        Entry::Collation(e) => named("COLLATION", &e.schema, &e.name),
        Entry::Enum(e) => named("TYPE", &e.schema, &e.name),
        Entry::Composite(e) => named("TYPE", &e.schema, &e.name),
        Entry::Range(e) => named("TYPE", &e.schema, &e.name),
        Entry::BaseType(e) => named("TYPE", &e.schema, &e.name),
        Entry::ForeignTable(e) => named("FOREIGN TABLE", &e.table.schema, &e.table.name),
        Entry::OperatorFamily(e) => Some(("OPERATOR FAMILY", using(&e.schema, &e.name, &e.access_method))),
        Entry::OperatorClass(e) => Some(("OPERATOR CLASS", using(&e.schema, &e.name, &e.access_method))),
        Entry::Conversion(e) => named("CONVERSION", &e.schema, &e.name),
        Entry::Language(e) => Some(("LANGUAGE", ident(&e.name))),
        Entry::Transform(e) => Some(("TRANSFORM", transform_name(e))),
        Entry::AccessMethod(e) => Some(("ACCESS METHOD", ident(&e.name))),
        Entry::EventTrigger(e) => Some(("EVENT TRIGGER", ident(&e.name))),
        Entry::ForeignDataWrapper(e) => Some(("FOREIGN DATA WRAPPER", ident(&e.name))),
        Entry::Server(e) => Some(("SERVER", ident(&e.name))),
        Entry::TextSearchParser(e) => named("TEXT SEARCH PARSER", &e.schema, &e.name),
        Entry::TextSearchTemplate(e) => named("TEXT SEARCH TEMPLATE", &e.schema, &e.name),
        Entry::Domain(e) => named("DOMAIN", &e.schema, &e.name),
        Entry::Sequence(e) => named("SEQUENCE", &e.schema, &e.name),
        Entry::Table(e) => named("TABLE", &e.schema, &e.name),
        Entry::Index(e) => named("INDEX", &e.schema, &e.name),
        Entry::View(e) => named("VIEW", &e.schema, &e.name),
        Entry::MaterializedView(e) => named("MATERIALIZED VIEW", &e.schema, &e.name),
        Entry::Statistics(e) => named("STATISTICS", &e.schema, &e.name),
        Entry::Function(e) => Some(("ROUTINE", function_name(e))),
        Entry::Operator(e) => Some(("OPERATOR", operator_name(e)?)),
        Entry::Cast(e) => Some(("CAST", cast_name(e))),
        Entry::TextSearchDictionary(e) => named("TEXT SEARCH DICTIONARY", &e.schema, &e.name),
        Entry::TextSearchConfiguration(e) => named("TEXT SEARCH CONFIGURATION", &e.schema, &e.name),
        Entry::Aggregate(e) => Some(("AGGREGATE", aggregate_name(e))),
        Entry::Constraint(e) => on("CONSTRAINT", &e.name, &e.schema, &e.table),
        Entry::Rule(e) => on("RULE", &e.name, &e.schema, &e.table),
        Entry::Trigger(e) => on("TRIGGER", &e.name, &e.schema, &e.table),
        Entry::Policy(e) => on("POLICY", &e.name, &e.schema, &e.table),
    }
}
