//! Tables of a job that the shadow does not have: it cannot make them, or cannot follow what
//! has become of them (a type of an extension that is not installed, a privilege it lacks).
//!
//! ```text
//!            could not be made or altered              asked for again (resync), and made
//! (follows) ──────────────────────────────► absent ─────────────────────────────► on hold ─► (follows)
//!                                             │ ▲ any change: counted, passed over
//!                                             └─┘
//! ```
//!
//! Role: such a table is marked as diverged in `scry_shadow.quarantined`, with `absent` and the
//! shadow's words; the worker is told like of any other mark. For the schema it is as if the
//! source did not have it ([`scry_wire::catalog::Catalog::without`]). In a copy it counts as
//! complete, with no rows, so that nobody sends them.
//!
//! Invariants: the mark is written in the transaction of what failed; the rest of the job goes
//! on. What it does not do: try again by itself. What is missing, somebody must bring.

use super::schema::Absent;
use crate::{Error, Result};
use std::collections::BTreeSet;
use tokio_postgres::GenericClient;

/// Tables that this shadow does not have, by their OIDs on the source.
pub async fn relids(client: &impl GenericClient) -> Result<BTreeSet<u32>> {
    let sql = "SELECT relid FROM scry_shadow.quarantined WHERE absent";
    let rows = client.query(sql, &[]).await.map_err(Error::sql("read scry_shadow.quarantined"))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Why this table is not here, if it is one of them.
pub async fn reason(client: &impl GenericClient, relid: u32) -> Result<Option<String>> {
    let sql = "SELECT cause FROM scry_shadow.quarantined WHERE absent AND relid = $1";
    let row = client.query_opt(sql, &[&relid]).await.map_err(Error::sql("read scry_shadow.quarantined"))?;
    Ok(row.map(|row| row.get(0)))
}

/// Before or during the first copy, in the open transaction: these tables are absent and no
/// others. One that was and is not any more is copied like all.
pub async fn renew(client: &impl GenericClient, tables: &[Absent]) -> Result<()> {
    let cannot = || Error::sql("write down which tables the shadow does not have");
    let now: Vec<u32> = tables.iter().map(|table| table.relid).collect();
    for sql in [
        "DELETE FROM scry_shadow.chunk WHERE relid IN (SELECT relid FROM scry_shadow.quarantined WHERE absent) \
         OR relid = ANY ($1)",
        "DELETE FROM scry_shadow.quarantined WHERE absent OR relid = ANY ($1)",
    ] {
        client.execute(sql, &[&now]).await.map_err(cannot())?;
    }
    for table in tables {
        let cause = cause(table);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&table.relid, &table.schema, &table.name, &cause];
        client.execute(MARK, &values).await.map_err(cannot())?;
        if !table.partitioned {
            client.execute(WHOLE, &[&table.relid]).await.map_err(cannot())?;
        }
    }
    Ok(())
}

/// As it is told.
pub(super) fn cause(table: &Absent) -> String {
    format!("the shadow does not have the table as it is on the source: {}", table.reason)
}

/// The definition that was refused counts as a change.
const MARK: &str = "INSERT INTO scry_shadow.quarantined (relid, schema, relation, since_lsn, last_lsn, changes, \
    kept, kept_bytes, diverged, cause, absent) VALUES ($1, $2, $3, '0/0', '0/0', 1, 0, 0, true, $4, true)";

/// One chunk of no rows, which is here.
const WHOLE: &str =
    "INSERT INTO scry_shadow.chunk (relid, chunk, chunks, copy_id, rows) VALUES ($1, 0, 1, 0, 0)";
