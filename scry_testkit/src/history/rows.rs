//! Statements on rows, with values that fit whatever type a column has.

use super::statement::{Catalog, Table};
use crate::rng::Rng;

/// A statement on the rows of some table; `None` when there is none.
pub fn statement(rng: &mut Rng, catalog: &Catalog) -> Option<String> {
    if rng.chance(8) {
        let sequence = rng.pick(&catalog.sequences)?;
        return Some(format!("SELECT nextval('{}')", sequence.replace('\'', "''")));
    }
    let table = rng.pick(&catalog.tables)?;
    Some(match rng.below(10) {
        0..=5 => insert(rng, catalog, table),
        6 | 7 => update(rng, catalog, table)?,
        8 => format!(
            "DELETE FROM {} WHERE ctid IN (SELECT ctid FROM {} LIMIT {})",
            table.name,
            table.name,
            rng.below(5)
        ),
        _ => format!("TRUNCATE {}{}", table.name, if rng.chance(50) { " CASCADE" } else { "" }),
    })
}

/// Some new rows.
fn insert(rng: &mut Rng, catalog: &Catalog, table: &Table) -> String {
    let mut columns: Vec<(&str, String)> = Vec::new();
    for column in table.writable().filter(|column| column.identity.is_empty()) {
        if column.key || !rng.chance(20) {
            columns.push((&column.name, value(rng, catalog, &column.data_type, column.not_null)));
        }
    }
    if columns.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", table.name);
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<&str> = columns.iter().map(|(_, value)| value.as_str()).collect();
    let rows = 1 + rng.below(20);
    format!(
        "INSERT INTO {} ({}) SELECT {} FROM generate_series(1, {rows}) g ON CONFLICT DO NOTHING",
        table.name,
        names.join(", "),
        values.join(", ")
    )
}

fn update(rng: &mut Rng, catalog: &Catalog, table: &Table) -> Option<String> {
    let columns: Vec<_> = table.writable().filter(|column| column.identity.is_empty()).collect();
    let column = rng.pick(&columns)?;
    let value = value(rng, catalog, &column.data_type, column.not_null);
    // One value for several rows: a unique column refuses it, mostly.
    let limit = if column.key { 1 } else { 1 + rng.below(10) };
    Some(format!(
        "UPDATE {} SET {} = (SELECT {value} FROM (VALUES (7)) AS v (g)) WHERE ctid IN (SELECT ctid FROM {} LIMIT {limit})",
        table.name, column.name, table.name
    ))
}

/// An expression of a type, which may vary with `g`.
fn value(rng: &mut Rng, catalog: &Catalog, data_type: &str, not_null: bool) -> String {
    if !not_null && rng.chance(15) {
        return format!("NULL::{data_type}");
    }
    let n = rng.below(1_000_000);
    let base = data_type.split('(').next().unwrap_or(data_type).trim();
    match base {
        "integer" | "bigint" => format!("({n} + g)::{data_type}"),
        "smallint" => format!("(({n} + g) % 30000)::smallint"),
        "numeric" => format!("(({n} + g) % 900)::{data_type} / 7"),
        "double precision" | "real" => format!("(({n} + g) / 3.0)::{data_type}"),
        "boolean" => format!("(g + {n}) % 2 = 0"),
        "text" | "character varying" => {
            let text = if rng.chance(10) { rng.hex(6_000) } else { format!("é'{n}").replace('\'', "''") };
            if base == "text" {
                format!("'{text}' || g")
            } else {
                format!("left('v{n}' || g, 10)::{data_type}")
            }
        }
        "character" => format!("left('c{n}' || g, 5)::{data_type}"),
        "date" => format!("DATE '2020-01-01' + ({n} + g)::int % 3000"),
        "timestamp with time zone" | "timestamp without time zone" => {
            format!("(TIMESTAMP '2020-01-01' + ({n} + g) * INTERVAL '1 second')::{data_type}")
        }
        "interval" => format!("(g + {n}) * INTERVAL '1 minute'"),
        "uuid" => format!("md5('{n}' || g)::uuid"),
        "jsonb" | "json" => format!("json_build_object('n', {n} + g, 'list', ARRAY[g, NULL])::{data_type}"),
        "bytea" => format!("decode(md5('{n}' || g), 'hex')"),
        "integer[]" => format!("ARRAY[g, NULL, {n}]::integer[]"),
        "text[]" => "ARRAY['a,b', NULL, g::text]::text[]".to_owned(),
        "int4range" => format!("int4range(({n} + g)::int, ({n} + g + 5)::int)"),
        "point" => format!("point(g, {n})"),
        _ if catalog.enums.iter().any(|name| same_type(name, data_type)) => format!(
            "(enum_range(NULL::{data_type}))[1 + (({n} + g) % array_length(enum_range(NULL::{data_type}), 1))::int]"
        ),
        // Domains of the history are over integer.
        _ => format!("({n} + g)::integer::{data_type}"),
    }
}

/// `format_type` leaves out schemas of the search path.
fn same_type(qualified: &str, data_type: &str) -> bool {
    qualified == data_type || qualified.strip_prefix("public.") == Some(data_type)
}
