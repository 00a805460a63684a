//! The queries of `sql/catalog`, embedded.
//!
//! Whoever runs them (the extension by SPI, the platform and tests by a connection) first
//! applies [`SETTINGS`], because expressions are printed by them.

use super::Class;

/// Settings under which the queries must run, so that text means the same on both sides.
pub const SETTINGS: &[(&str, &str)] = &[
    ("search_path", ""),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("quote_all_identifiers", "off"),
    ("jit", "off"),
    // A merge join inside a subquery reads a whole catalog for each object.
    ("enable_mergejoin", "off"),
];

/// The query of one kind: `$1 oid[]` to rows of one column, `entry json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CatalogQuery {
    /// The kind its rows have in the document.
    pub kind: &'static str,
    /// The class whose ids of the closure are given as `$1`; the query picks its kind.
    pub class: Class,
    /// The text.
    pub sql: &'static str,
}

macro_rules! sql {
    ($file:literal) => {
        include_str!(concat!("../../../sql/catalog/", $file, ".sql"))
    };
}

macro_rules! query {
    ($kind:literal, $class:ident) => {
        CatalogQuery { kind: $kind, class: Class::$class, sql: sql!($kind) }
    };
}

/// `$1 oid[]` (tables), `$2 boolean` (whole database) to rows of [`super::ClosureRow`].
#[must_use]
pub fn closure_query() -> &'static str {
    sql!("closure")
}

/// `$1 oid[]`, `$2 oid[]` ([`super::closure_objects`]) to rows of [`super::DependsRow`].
#[must_use]
pub fn depends_query() -> &'static str {
    sql!("depends")
}

/// One query a kind, in the order in which kinds stand in the document.
#[must_use]
pub fn queries() -> &'static [CatalogQuery] {
    &[
        query!("schema", Namespace),
        query!("extension", Extension),
        query!("language", Language),
        query!("access_method", AccessMethod),
        query!("collation", Collation),
        query!("conversion", Conversion),
        query!("enum", Type),
        query!("domain", Type),
        query!("composite", Type),
        query!("range", Type),
        query!("base_type", Type),
        query!("function", Proc),
        query!("aggregate", Proc),
        query!("operator", Operator),
        query!("operator_family", OperatorFamily),
        query!("operator_class", OperatorClass),
        query!("cast", Cast),
        query!("transform", Transform),
        query!("text_search_parser", TextSearchParser),
        query!("text_search_template", TextSearchTemplate),
        query!("text_search_dictionary", TextSearchDictionary),
        query!("text_search_configuration", TextSearchConfiguration),
        query!("foreign_data_wrapper", ForeignDataWrapper),
        query!("server", Server),
        query!("sequence", Relation),
        query!("table", Relation),
        query!("foreign_table", Relation),
        query!("constraint", Constraint),
        query!("index", Relation),
        query!("statistics", Statistics),
        query!("view", Relation),
        query!("materialized_view", Relation),
        query!("rule", Rewrite),
        query!("trigger", Trigger),
        query!("policy", Policy),
        query!("event_trigger", EventTrigger),
    ]
}

#[cfg(test)]
mod tests {
    use super::{closure_query, depends_query, queries};

    /// They run as superuser on databases whose owners may plant operators.
    #[test]
    fn operators_are_qualified() {
        let texts = queries().iter().map(|q| (q.kind, q.sql));
        for (kind, sql) in texts.chain([("closure", closure_query()), ("depends", depends_query())]) {
            for line in sql.lines().filter(|l| !l.trim_start().starts_with("--")) {
                for operator in
                    [" = ", " <> ", " < ", " > ", " >= ", " || ", " IN (", " -> ", " ->> ", " LIKE "]
                {
                    assert!(!line.contains(operator), "{kind}: {operator} in: {line}");
                }
            }
        }
    }

    #[test]
    fn functions_are_qualified() {
        let keywords =
            ["unnest", "json_agg", "json_build_object", "format_type", "obj_description", "count", "concat"];
        for query in queries() {
            for word in keywords {
                let calls = query.sql.matches(&format!("{word}(")).count();
                let qualified = query.sql.matches(&format!("pg_catalog.{word}(")).count();
                assert_eq!(calls, qualified, "{}: {word}", query.kind);
            }
        }
    }
}
