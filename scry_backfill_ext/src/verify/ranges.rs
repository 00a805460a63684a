//! Between which keys the rows lie that differ.

use std::collections::HashSet;

use pgrx::PgSqlErrorCode;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::spi::{self, Spi, SpiError};
use scry_wire::message::{Relation, ReplicaIdentity};
use scry_wire::ranges;

use super::table;
use crate::pg::subtransaction;

/// Of the source's rows with these keys, under the snapshot in force. Nothing for a table whose rows
/// have no key, or one that cannot be put in order.
pub fn of_rows(relation: &Relation, keys: &HashSet<u128>) -> Vec<String> {
    if !has_order(relation) {
        return Vec::new();
    }
    let mut places: Vec<String> = Vec::new();
    table::each_row(relation.relid, |row| {
        if keys.contains(&row.hash.key) {
            places.push(format!("({},{})", row.place.0, row.place.1));
        }
        true
    });
    if places.is_empty() {
        return Vec::new();
    }
    let unless_cancelled = |error: CaughtError| match error {
        CaughtError::PostgresError(report)
            if report.sql_error_code() != PgSqlErrorCode::ERRCODE_QUERY_CANCELED =>
        {
            Vec::new()
        }
        other => other.rethrow(),
    };
    subtransaction::rolled_back(|| find(relation, &places).unwrap_or_default(), unless_cancelled)
}

/// Whether the rows are known by a key, which an index holds in order.
pub fn has_order(relation: &Relation) -> bool {
    matches!(relation.replica_identity, ReplicaIdentity::Default | ReplicaIdentity::Index)
        && relation.columns.iter().any(|column| column.key)
}

fn find(relation: &Relation, places: &[String]) -> Result<Vec<String>, SpiError> {
    let keys: Vec<String> =
        relation.columns.iter().filter(|c| c.key).map(|c| spi::quote_identifier(&c.name)).collect();
    let sql = ranges::sql(&spi::quote_qualified_identifier(&relation.schema, &relation.name), &keys);
    Spi::connect(|client| {
        client
            .select(&sql, None, &[DatumWithOid::from(places.to_vec())])?
            .map(|row| {
                let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
                Ok(ranges::words(&text(1)?, &text(2)?))
            })
            .collect()
    })
}
