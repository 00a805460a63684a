//! Between which keys the rows lie that only the shadow has.

use super::diff::Differing;
use super::rows::TableRows;
use crate::Result;
use crate::apply::relation_map::{full_name, qualified};
use crate::apply::schema::quote;
use crate::shadow::Session;
use crate::{Error, apply::relation_map};
use scry_wire::message::Relation;
use scry_wire::ranges;

/// Reads the table once more for their places. Inside the transaction at the place.
pub async fn of_extra(session: &Session, relation: &Relation, rows: &Differing) -> Result<Vec<String>> {
    relation_map::check_name(relation)?;
    let keys: Vec<String> =
        relation.columns.iter().filter(|column| column.key).map(|c| quote::ident(&c.name)).collect();
    if keys.is_empty() || !rows.has_extra() {
        return Ok(Vec::new());
    }
    let mut places: Vec<String> = Vec::new();
    let each = |row: super::rows::Row| {
        if rows.is_extra(row.hash) {
            places.push(format!("({},{})", row.ctid.0, row.ctid.1));
        }
        Ok(())
    };
    TableRows::new(relation, true).read(session, each).await?;
    let sql = ranges::sql(&qualified(relation), &keys);
    let cannot = || Error::sql(format!("order the keys of {}", full_name(relation)));
    let found = session.query(&sql, &[&places]).await.map_err(cannot())?;
    Ok(found.iter().map(|row| ranges::words(row.get(0), row.get(1))).collect())
}
