//! A change that did not find its row, for the shadow's owner.
//!
//! The row's key is written into `scry_shadow.conflict` on the shadow and nowhere else: not
//! into a log, not to the source.

use super::statement::Finder;
use super::tuple_values::{Param, cut};
use crate::shadow::Session;
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::Lsn;
use scry_wire::message::Relation;
use tokio_postgres::types::{PgLsn, ToSql};

/// A row that was not found, for the record.
pub struct ConflictNote {
    pub(super) relation: Relation,
    pub(super) types: Vec<String>,
    pub(super) finder: Option<Finder>,
    pub(super) operation: &'static str,
    pub(super) key: Option<Bytes>,
    pub(super) found: u64,
}

impl ConflictNote {
    /// Writes the conflict, with the row's key, into the shadow's own table.
    pub async fn record(&self, session: &Session, applied: Lsn) -> Result<()> {
        let mut pairs = Vec::new();
        let mut keys: Vec<Param> = Vec::new();
        if let (Some(Finder::Key(columns)), Some(key)) = (&self.finder, &self.key) {
            let values = cut(key, key, self.relation.columns.len())?;
            for column in columns.iter().take(KEY_COLUMNS_MAX) {
                let (Some(value), Some(name), Some(sql_type)) = (
                    values.get(column.place),
                    self.relation.columns.get(column.place),
                    self.types.get(column.place),
                ) else {
                    continue;
                };
                keys.push(Param::new(value, self.relation.format)?);
                let name = super::schema::quote::literal(&name.name);
                pairs.push(format!("{name}, ${}::{sql_type}", keys.len() + FIXED_PARAMS));
            }
        }
        let sql = format!(
            "INSERT INTO scry_shadow.conflict AS c (schema, relation, operation, applied_lsn, found, key) \
             VALUES ($1, $2, $3, $4, $5, pg_catalog.jsonb_build_object({})) \
             ON CONFLICT (schema, relation, operation, applied_lsn) DO UPDATE SET \
             last_seen = pg_catalog.now(), seen = c.seen + 1, found = excluded.found, key = excluded.key",
            pairs.join(", ")
        );
        let lsn = PgLsn::from(applied.0);
        let found = self.found.cast_signed();
        let mut params: Vec<&(dyn ToSql + Sync)> =
            vec![&self.relation.schema, &self.relation.name, &self.operation, &lsn, &found];
        params.extend(keys.iter().map(|key| key as &(dyn ToSql + Sync)));
        session.execute(&sql, &params).await.map_err(Error::sql("record a conflict"))?;
        Ok(())
    }
}

const KEY_COLUMNS_MAX: usize = 32;
const FIXED_PARAMS: usize = 5;
