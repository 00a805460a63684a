//! A refused change becomes a row of `scry_shadow.quarantine`.
//!
//! Values are read by the shadow's own types and stand by column name; where
//! that cannot be (a value that its type refuses, a table that is not there, a
//! large row) the tuple is kept as it came.

use crate::apply::fold::{Change, Old};
use crate::apply::schema::quote;
use crate::apply::tuple_values::{Param, Value, cut};
use crate::shadow::Session;
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::Lsn;
use scry_wire::message::{Format, Relation};
use tokio_postgres::types::{PgLsn, ToSql};

/// A refused change.
pub(super) struct Refused<'a> {
    pub relation: &'a Relation,
    /// The shadow's types of the columns, as SQL, where the table is there.
    pub types: Option<&'a [String]>,
    pub operation: &'static str,
    /// `None`: the change is of the table as a whole.
    pub change: Option<&'a Change>,
    pub xid: u64,
    pub commit_lsn: Lsn,
    pub error: &'a Error,
}

impl Refused<'_> {
    /// Writes it, in the open transaction of `session`.
    pub(super) async fn keep(&self, session: &Session) -> Result<()> {
        let cannot = || Error::sql("keep a refused change in scry_shadow.quarantine");
        if bytes_of(self.change) <= READ_BYTES_MAX {
            let (old, new) = self.objects()?;
            if let (Some(old), Some(new)) = (old, new) {
                session.batch_execute("SAVEPOINT scry_keep").await.map_err(cannot())?;
                let end = match self.insert(session, &old, &new, None, None).await {
                    Ok(()) => return session.batch_execute(RELEASE).await.map_err(cannot()),
                    Err(error) if session.is_closed() => return Err(cannot()(error)),
                    Err(_) => UNDO,
                };
                session.batch_execute(end).await.map_err(cannot())?;
            }
        }
        let (old, new) = tuples(self.change);
        let none = Object::default();
        self.insert(session, &none, &none, old, new).await.map_err(cannot())
    }

    /// Old and new row as objects; `None` where the types are not known.
    fn objects(&self) -> Result<(Option<Object>, Option<Object>)> {
        let (old, new) = match self.change {
            None => (None, None),
            Some(Change::Insert(new)) => (None, Some(new)),
            Some(Change::Update(old, new)) => (Some(old), Some(new)),
            Some(Change::Delete(old)) => (Some(old), None),
        };
        let mut next = FIXED_PARAMS;
        let old = match old {
            None | Some(Old::None) => Some(Object::default()),
            Some(Old::Key(tuple)) => self.object(tuple, true, &mut next)?,
            Some(Old::Full(tuple)) => self.object(tuple, false, &mut next)?,
        };
        let new = match new {
            None => Some(Object::default()),
            Some(tuple) => self.object(tuple, false, &mut next)?,
        };
        Ok((old, new))
    }

    fn object(&self, tuple: &Bytes, only_key: bool, next: &mut usize) -> Result<Option<Object>> {
        let mut object = Object::default();
        let mut pairs = Vec::new();
        let values = cut(tuple, tuple, self.relation.columns.len())?;
        for (place, (value, column)) in values.iter().zip(&self.relation.columns).enumerate() {
            if *value == Value::Unchanged || (only_key && !column.key) {
                continue;
            }
            let sql_type = match (self.relation.format, self.types.and_then(|types| types.get(place))) {
                // What a value is in words does not depend on what the shadow thinks of it.
                (Format::Text, _) => "text",
                (Format::Binary | Format::Stored, Some(sql_type)) => sql_type.as_str(),
                (Format::Binary | Format::Stored, None) => return Ok(None),
            };
            *next += 1;
            object.params.push(Param::new(value, self.relation.format)?);
            pairs.push(format!("{}, ${next}::{sql_type}", quote::literal(&column.name)));
        }
        // A function takes a hundred arguments.
        let parts: Vec<String> = pairs
            .chunks(PAIRS_MAX)
            .map(|part| format!("pg_catalog.jsonb_build_object({})", part.join(", ")))
            .collect();
        object.sql = match parts.is_empty() {
            true => "'{}'::jsonb".to_owned(),
            false => parts.join(" OPERATOR(pg_catalog.||) "),
        };
        Ok(Some(object))
    }

    async fn insert(
        &self,
        session: &Session,
        old: &Object,
        new: &Object,
        old_tuple: Option<&Bytes>,
        new_tuple: Option<&Bytes>,
    ) -> std::result::Result<(), tokio_postgres::Error> {
        let sql = format!(
            "INSERT INTO scry_shadow.quarantine (relid, schema, relation, operation, xid, commit_lsn, sqlstate, \
             error, detail, old_tuple, new_tuple, old_row, new_row) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, {}, {})",
            old.as_sql(),
            new.as_sql()
        );
        let relation = self.relation;
        let (xid, lsn) = (self.xid.cast_signed(), PgLsn::from(self.commit_lsn.0));
        let sqlstate = self.error.sqlstate().map(|state| state.code().to_owned());
        let text = self.error.to_string();
        let detail = self.error.detail();
        let (old_tuple, new_tuple) = (old_tuple.map(Bytes::as_ref), new_tuple.map(Bytes::as_ref));
        let mut params: Vec<&(dyn ToSql + Sync)> = vec![
            &relation.relid,
            &relation.schema,
            &relation.name,
            &self.operation,
            &xid,
            &lsn,
            &sqlstate,
            &text,
            &detail,
            &old_tuple,
            &new_tuple,
        ];
        params.extend(old.params.iter().chain(&new.params).map(|param| param as &(dyn ToSql + Sync)));
        session.execute(&sql, &params).await.map(drop)
    }
}

/// A row as an expression over parameters; empty for none.
#[derive(Default)]
struct Object {
    sql: String,
    params: Vec<Param>,
}

impl Object {
    fn as_sql(&self) -> &str {
        if self.sql.is_empty() { "NULL" } else { &self.sql }
    }
}

/// The bytes of a change's tuples.
pub(super) fn bytes_of(change: Option<&Change>) -> usize {
    let (old, new) = tuples(change);
    old.map_or(0, Bytes::len) + new.map_or(0, Bytes::len)
}

fn tuples(change: Option<&Change>) -> (Option<&Bytes>, Option<&Bytes>) {
    match change {
        None => (None, None),
        Some(Change::Insert(new)) => (None, Some(new)),
        Some(Change::Update(old, new)) => (old.tuple(), Some(new)),
        Some(Change::Delete(old)) => (old.tuple(), None),
    }
}

const RELEASE: &str = "RELEASE SAVEPOINT scry_keep";
const UNDO: &str = "ROLLBACK TO SAVEPOINT scry_keep; RELEASE SAVEPOINT scry_keep";

/// Larger rows are kept as they came.
const READ_BYTES_MAX: usize = 1 << 20;
/// Parameters before those of the values.
const FIXED_PARAMS: usize = 11;
const PAIRS_MAX: usize = 40;
