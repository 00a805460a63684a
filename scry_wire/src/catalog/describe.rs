//! Kind and name of an object, for people.

use super::{Entry, Object};

impl Object {
    /// Kind and name, as PostgreSQL's messages put them: `table public.orders`,
    /// `trigger t on table public.orders`. For reading, not for SQL.
    #[must_use]
    pub fn describe(&self) -> String {
        let on = |kind: &str, name: &str, view: bool, schema: &str, table: &str| {
            format!("{kind} {name} on {} {schema}.{table}", if view { "view" } else { "table" })
        };
        match &self.entry {
            Entry::Schema(e) => format!("schema {}", e.name),
            Entry::Extension(e) => format!("extension {}", e.name),
            Entry::Collation(e) => format!("collation {}.{}", e.schema, e.name),
            Entry::Enum(e) => format!("type {}.{}", e.schema, e.name),
            Entry::Domain(e) => format!("domain {}.{}", e.schema, e.name),
            Entry::Composite(e) => format!("type {}.{}", e.schema, e.name),
            Entry::Range(e) => format!("type {}.{}", e.schema, e.name),
            Entry::BaseType(e) => format!("type {}.{}", e.schema, e.name),
            Entry::Sequence(e) => format!("sequence {}.{}", e.schema, e.name),
            Entry::Table(e) => format!("table {}.{}", e.schema, e.name),
            Entry::ForeignTable(e) => format!("foreign table {}.{}", e.table.schema, e.table.name),
            Entry::Index(e) => format!("index {}.{}", e.schema, e.name),
            Entry::View(e) => format!("view {}.{}", e.schema, e.name),
            Entry::MaterializedView(e) => format!("materialized view {}.{}", e.schema, e.name),
            Entry::Function(e) if e.prokind == "p" => {
                format!("procedure {}.{}({})", e.schema, e.name, e.arguments)
            }
            Entry::Function(e) => format!("function {}.{}({})", e.schema, e.name, e.arguments),
            Entry::Aggregate(e) => format!("aggregate {}.{}({})", e.schema, e.name, e.identity_arguments),
            Entry::Operator(e) => {
                let side = |sql: &Option<String>| sql.clone().unwrap_or_else(|| "none".to_owned());
                format!("operator {}.{}({}, {})", e.schema, e.name, side(&e.left), side(&e.right))
            }
            Entry::Cast(e) => format!("cast from {} to {}", e.source, e.target),
            Entry::OperatorFamily(e) => {
                format!("operator family {}.{} for access method {}", e.schema, e.name, e.access_method)
            }
            Entry::OperatorClass(e) => {
                format!("operator class {}.{} for access method {}", e.schema, e.name, e.access_method)
            }
            Entry::AccessMethod(e) => format!("access method {}", e.name),
            Entry::Conversion(e) => format!("conversion {}.{}", e.schema, e.name),
            Entry::Language(e) => format!("language {}", e.name),
            Entry::Transform(e) => format!("transform for {} language {}", e.data_type.sql, e.language),
            Entry::EventTrigger(e) => format!("event trigger {}", e.name),
            Entry::ForeignDataWrapper(e) => format!("foreign-data wrapper {}", e.name),
            Entry::Server(e) => format!("server {}", e.name),
            Entry::TextSearchParser(e) => format!("text search parser {}.{}", e.schema, e.name),
            Entry::TextSearchTemplate(e) => format!("text search template {}.{}", e.schema, e.name),
            Entry::TextSearchDictionary(e) => format!("text search dictionary {}.{}", e.schema, e.name),
            Entry::TextSearchConfiguration(e) => {
                format!("text search configuration {}.{}", e.schema, e.name)
            }
            Entry::Constraint(e) => on("constraint", &e.name, false, &e.schema, &e.table),
            Entry::Statistics(e) => format!("statistics object {}.{}", e.schema, e.name),
            Entry::Rule(e) => on("rule", &e.name, e.view, &e.schema, &e.table),
            Entry::Trigger(e) => on("trigger", &e.name, e.view, &e.schema, &e.table),
            Entry::Policy(e) => on("policy", &e.name, false, &e.schema, &e.table),
            Entry::Unknown => format!("object {} of an unknown kind", self.oid),
        }
    }
}
