//! What the shadow itself says of some objects, in the words of the document.
//!
//! The objects are found by name and read with the same queries of `sql/catalog` as on the
//! source, inside the transaction, so that what was changed a moment ago is seen.
//!
//! Invariants: the caller has the settings of [`scry_wire::catalog::SETTINGS`]; an object that
//! is not there is absent from the answer.

use super::names::place;
use crate::{Error, Result};
use scry_wire::catalog::{Catalog, Class, ClosureRow, Object, queries};
use std::collections::{BTreeMap, HashMap};
use tokio_postgres::Client;

/// The objects on the shadow that go by the names of `wanted`, by kind and name.
pub(super) async fn observe(client: &Client, wanted: &[&Object]) -> Result<HashMap<String, Object>> {
    let cannot = || Error::sql("read the shadow's own catalog");
    let mut by_class: BTreeMap<Class, Vec<&Object>> = BTreeMap::new();
    for object in wanted {
        by_class.entry(object.class).or_default().push(object);
    }
    let mut closure: Vec<ClosureRow> = Vec::new();
    for (class, objects) in by_class {
        let Some((classid, lookup)) = lookup(class) else { continue };
        let places = || objects.iter().filter_map(|object| place(&object.entry));
        let schemas: Vec<&str> = places().map(|p| p.schema).collect();
        let tables: Vec<&str> = places().map(|p| p.table).collect();
        let names: Vec<&str> = places().map(|p| p.name).collect();
        let rows = client.query(lookup, &[&schemas, &tables, &names]).await.map_err(cannot())?;
        closure.extend(rows.iter().map(|row| ClosureRow {
            classid,
            objid: row.get(0),
            standing: "needed".to_owned(),
            object: None,
            reason: None,
        }));
    }
    let mut entries: Vec<(&str, String)> = Vec::new();
    for query in queries() {
        let ids = query.ids(&closure);
        if ids.is_empty() {
            continue;
        }
        let sql = format!("SELECT q.entry::text FROM ({}) AS q (entry)", query.sql.trim_end());
        let rows = client.query(&sql, &[&ids]).await.map_err(cannot())?;
        entries.extend(rows.iter().map(|row| (query.kind, row.get::<_, String>(0))));
    }
    let catalog = Catalog::assemble(false, &closure, entries, [])
        .map_err(|e| Error::protocol(format!("the shadow's own catalog cannot be read: {e}")))?;
    Ok(catalog.objects.into_iter().map(|object| (object.describe(), object)).collect())
}

/// Whether objects of the class can be read from the shadow.
pub(super) fn is_readable(class: Class) -> bool {
    lookup(class).is_some()
}

/// OID of the class, and its objects by schema (`$1`), table (`$2`) and name (`$3`). Too many is
/// no harm: they are told apart by their whole description.
fn lookup(class: Class) -> Option<(u32, &'static str)> {
    macro_rules! named {
        ($catalog:literal, $schema:literal, $name:literal) => {
            concat!(
                "SELECT c.oid FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), \
                 pg_catalog.unnest($3::text[])) AS w (s, t, n) \
                 JOIN pg_catalog.pg_namespace AS ns ON ns.nspname OPERATOR(pg_catalog.=) w.s \
                 JOIN pg_catalog.",
                $catalog,
                " AS c ON c.",
                $schema,
                " OPERATOR(pg_catalog.=) ns.oid \
                 AND c.",
                $name,
                " OPERATOR(pg_catalog.=) w.n"
            )
        };
    }
    macro_rules! hanging {
        ($catalog:literal, $relation:literal, $name:literal) => {
            concat!(
                "SELECT c.oid FROM ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::text[]), \
                 pg_catalog.unnest($3::text[])) AS w (s, t, n) \
                 JOIN pg_catalog.pg_namespace AS ns ON ns.nspname OPERATOR(pg_catalog.=) w.s \
                 JOIN pg_catalog.pg_class AS r ON r.relnamespace OPERATOR(pg_catalog.=) ns.oid \
                 AND r.relname OPERATOR(pg_catalog.=) w.t \
                 JOIN pg_catalog.",
                $catalog,
                " AS c ON c.",
                $relation,
                " OPERATOR(pg_catalog.=) r.oid \
                 AND c.",
                $name,
                " OPERATOR(pg_catalog.=) w.n"
            )
        };
    }
    const SCHEMAS: &str = "SELECT n.oid FROM pg_catalog.pg_namespace AS n \
        WHERE n.nspname OPERATOR(pg_catalog.=) ANY ($3::text[]) \
        AND ($1::text[], $2::text[]) IS NOT NULL";
    const EXTENSIONS: &str = "SELECT e.oid FROM pg_catalog.pg_extension AS e \
        WHERE e.extname OPERATOR(pg_catalog.=) ANY ($3::text[]) \
        AND ($1::text[], $2::text[]) IS NOT NULL";
    const CASTS: &str = "SELECT c.oid FROM pg_catalog.pg_cast AS c \
        WHERE c.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
        AND ($1::text[], $2::text[], $3::text[]) IS NOT NULL";
    const TRANSFORMS: &str = "SELECT t.oid FROM pg_catalog.pg_transform AS t \
        WHERE t.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid \
        AND ($1::text[], $2::text[], $3::text[]) IS NOT NULL";
    macro_rules! free {
        ($catalog:literal, $name:literal) => {
            concat!(
                "SELECT o.oid FROM pg_catalog.",
                $catalog,
                " AS o WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid AND o.",
                $name,
                " OPERATOR(pg_catalog.=) ANY ($3::text[]) AND ($1::text[], $2::text[]) IS NOT NULL"
            )
        };
    }
    Some(match class {
        Class::Namespace => (2615, SCHEMAS),
        Class::Extension => (3079, EXTENSIONS),
        Class::Cast => (2605, CASTS),
        Class::Collation => (3456, named!("pg_collation", "collnamespace", "collname")),
        Class::Type => (1247, named!("pg_type", "typnamespace", "typname")),
        Class::Proc => (1255, named!("pg_proc", "pronamespace", "proname")),
        Class::Relation => (1259, named!("pg_class", "relnamespace", "relname")),
        Class::Statistics => (3381, named!("pg_statistic_ext", "stxnamespace", "stxname")),
        Class::Operator => (2617, named!("pg_operator", "oprnamespace", "oprname")),
        Class::TextSearchDictionary => (3600, named!("pg_ts_dict", "dictnamespace", "dictname")),
        Class::TextSearchConfiguration => (3602, named!("pg_ts_config", "cfgnamespace", "cfgname")),
        Class::OperatorFamily => (2753, named!("pg_opfamily", "opfnamespace", "opfname")),
        Class::OperatorClass => (2616, named!("pg_opclass", "opcnamespace", "opcname")),
        Class::Conversion => (2607, named!("pg_conversion", "connamespace", "conname")),
        Class::TextSearchParser => (3601, named!("pg_ts_parser", "prsnamespace", "prsname")),
        Class::TextSearchTemplate => (3764, named!("pg_ts_template", "tmplnamespace", "tmplname")),
        Class::AccessMethod => (2601, free!("pg_am", "amname")),
        Class::Language => (2612, free!("pg_language", "lanname")),
        Class::ForeignDataWrapper => (2328, free!("pg_foreign_data_wrapper", "fdwname")),
        Class::Server => (1417, free!("pg_foreign_server", "srvname")),
        Class::EventTrigger => (3466, free!("pg_event_trigger", "evtname")),
        Class::Transform => (3576, TRANSFORMS),
        Class::Constraint => (2606, hanging!("pg_constraint", "conrelid", "conname")),
        Class::Trigger => (2620, hanging!("pg_trigger", "tgrelid", "tgname")),
        Class::Rewrite => (2618, hanging!("pg_rewrite", "ev_class", "rulename")),
        Class::Policy => (3256, hanging!("pg_policy", "polrelid", "polname")),
        Class::AttributeDefault | Class::Unknown => return None,
    })
}
