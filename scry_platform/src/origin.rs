//! Whose history a shadow holds, and how far it is: `scry_shadow.origin`.
//!
//! The tables are made by the numbered files of `sql/shadow`. Invariants: one
//! row; the generation changes only together with the loss of everything the
//! old one had; `applied_lsn` moves only forward and only in the transaction
//! that brings the changes up to it. What it does not do: decide. It reads
//! and writes.

pub mod rounds;

use crate::{Error, Result};
use rounds::Round;
use scry_wire::Lsn;
use scry_wire::message::{CopiedTable, CopyState, DoneChunk, Hello, LeftOutText};
use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, GenericClient, Row};

/// Whose history a shadow holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The source's cluster.
    pub system_identifier: u64,
    /// Its timeline when it was last heard.
    pub timeline: u32,
    /// The database's oid.
    pub database_oid: u32,
    /// The database's name.
    pub database: String,
    /// The job's name.
    pub job: String,
    /// What the source calls this shadow.
    pub shadow_id: String,
    /// Which full start of the job this is; 0 before the first copy.
    pub generation: u64,
    /// The snapshot that is or was copied.
    pub copy_id: u64,
    /// How far the copy is.
    pub copy_state: CopyState,
    /// End of the last source transaction that is here.
    pub applied_lsn: Lsn,
    /// Row changes applied since the shadow was bound.
    pub rows_applied: u64,
}

impl Origin {
    /// Whether `hello` speaks for the same job of the same database.
    #[must_use]
    pub fn is_of(&self, hello: &Hello) -> bool {
        self.system_identifier == hello.system_identifier
            && self.database_oid == hello.database_oid
            && self.job == hello.job
    }

    /// How far the copy of `generation` is.
    #[must_use]
    pub fn copy_state_of(&self, generation: u64) -> CopyState {
        if self.generation == generation { self.copy_state } else { CopyState::None }
    }

    /// The position within `generation`.
    #[must_use]
    pub fn applied_lsn_of(&self, generation: u64) -> Lsn {
        if self.generation == generation { self.applied_lsn } else { Lsn::INVALID }
    }
}

/// Brings the platform's own tables up to date.
pub async fn migrate(client: &mut Client) -> Result<()> {
    let tx = client.transaction().await.map_err(Error::sql("begin"))?;
    // Two platforms that start at once on one external shadow.
    tx.batch_execute("SELECT pg_catalog.pg_advisory_xact_lock(7239850000000000001)")
        .await
        .map_err(Error::sql("lock the shadow's own tables"))?;
    let done: i32 = match tx
        .query_one("SELECT pg_catalog.to_regclass('scry_shadow.migration') IS NOT NULL", &[])
        .await
        .map_err(Error::sql("look for schema scry_shadow"))?
        .get(0)
    {
        false => 0,
        true => tx
            .query_one("SELECT coalesce(pg_catalog.max(number), 0) FROM scry_shadow.migration", &[])
            .await
            .map_err(Error::sql("read scry_shadow.migration"))?
            .get(0),
    };
    for (number, text) in MIGRATIONS.iter().filter(|(number, _)| *number > done) {
        let what = format!("make schema scry_shadow (migration {number})");
        tx.batch_execute(text).await.map_err(Error::sql(what))?;
        tx.execute("INSERT INTO scry_shadow.migration (number) VALUES ($1)", &[number])
            .await
            .map_err(Error::sql("record a migration"))?;
    }
    tx.commit().await.map_err(Error::sql("commit the migration"))
}

/// Reads the origin, if the shadow is bound.
pub async fn load(client: &impl GenericClient) -> Result<Option<Origin>> {
    let row = client.query_opt(SELECT_ORIGIN, &[]).await.map_err(Error::sql("read scry_shadow.origin"))?;
    row.as_ref().map(from_row).transpose()
}

fn from_row(row: &Row) -> Result<Origin> {
    let lsn: PgLsn = row.get("applied_lsn");
    Ok(Origin {
        system_identifier: row.get::<_, i64>("system_identifier").cast_unsigned(),
        timeline: u32::try_from(row.get::<_, i64>("timeline")).unwrap_or(u32::MAX),
        database_oid: row.get("database_oid"),
        database: row.get("database"),
        job: row.get("job"),
        shadow_id: row.get("shadow_id"),
        generation: row.get::<_, i64>("generation").cast_unsigned(),
        copy_id: row.get::<_, i64>("copy_id").cast_unsigned(),
        copy_state: match row.get("copy_state") {
            "none" => CopyState::None,
            "copying" => CopyState::Copying,
            "copied" => CopyState::Copied,
            _ => return Err(Error::protocol("scry_shadow.origin holds an unknown copy_state")),
        },
        applied_lsn: Lsn(u64::from(lsn)),
        rows_applied: row.get::<_, i64>("rows_applied").cast_unsigned(),
    })
}

/// Binds an unbound shadow to the job of `hello`, with no history yet.
pub async fn bind(client: &impl GenericClient, hello: &Hello) -> Result<()> {
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 8] = [
        &hello.system_identifier.cast_signed(),
        &i64::from(hello.timeline),
        &hello.database_oid,
        &hello.database,
        &hello.job,
        &hello.shadow_id,
        &hello.encoding,
        &i64::from(hello.server_version_num),
    ];
    client.execute(BIND, &params).await.map_err(Error::sql("bind the shadow to its job"))?;
    Ok(())
}

/// Writes down what a new hello says about a source already bound. Not its
/// timeline: that is the position's, and moves with it.
pub async fn touch(client: &impl GenericClient, hello: &Hello) -> Result<()> {
    let sql = "UPDATE scry_shadow.origin SET database = $1, shadow_id = $2, server_version_num = $3 \
               WHERE (database, shadow_id, server_version_num) IS DISTINCT FROM ($1, $2, $3)";
    let version = i64::from(hello.server_version_num);
    client
        .execute(sql, &[&hello.database, &hello.shadow_id, &version])
        .await
        .map_err(Error::sql("update scry_shadow.origin"))?;
    Ok(())
}

/// Begins the copy of `round` in the generation of `hello`. A new generation starts from
/// no position; within one the position stays (there is none before its copy).
pub async fn begin_copy(client: &impl GenericClient, hello: &Hello, round: &Round) -> Result<()> {
    let sql = "UPDATE scry_shadow.origin SET \
               applied_lsn = CASE WHEN generation = $1 THEN applied_lsn ELSE '0/0' END, \
               generation = $1, copy_id = $2, copy_state = 'copying', copied_at = NULL, timeline = $3";
    let (generation, timeline) = (hello.generation.cast_signed(), i64::from(hello.timeline));
    client
        .execute(sql, &[&generation, &round.copy_id.cast_signed(), &timeline])
        .await
        .map_err(Error::sql("begin the copy in scry_shadow.origin"))?;
    rounds::note(client, round).await
}

/// Forgets the history: before everything of the old one is dropped.
pub async fn forget_history(client: &impl GenericClient) -> Result<()> {
    client
        .batch_execute(
            "UPDATE scry_shadow.origin SET generation = 0, copy_id = 0, copy_state = 'none', \
             applied_lsn = '0/0', copied_at = NULL, schema_kept = false; \
             TRUNCATE scry_shadow.former, scry_shadow.chunk, scry_shadow.copy_round, scry_shadow.left_out, scry_shadow.conflict, \
             scry_shadow.hold, scry_shadow.kept, scry_shadow.refill, scry_shadow.quarantined, \
             scry_shadow.quarantine",
        )
        .await
        .map_err(Error::sql("forget the shadow's old history"))
}

/// Marks the copy complete.
pub async fn finish_copy(client: &impl GenericClient, generation: u64) -> Result<()> {
    let sql = "UPDATE scry_shadow.origin SET copy_state = 'copied', copied_at = pg_catalog.now() \
               WHERE generation = $1";
    let rows = client
        .execute(sql, &[&generation.cast_signed()])
        .await
        .map_err(Error::sql("complete the copy in scry_shadow.origin"))?;
    if rows == 1 {
        return Ok(());
    }
    Err(Error::protocol("the shadow was bound to another history while it was completed"))
}

/// The stored catalog document.
pub async fn catalog(client: &impl GenericClient) -> Result<Option<Vec<u8>>> {
    let row = client
        .query_opt("SELECT document FROM scry_shadow.catalog", &[])
        .await
        .map_err(Error::sql("read scry_shadow.catalog"))?;
    Ok(row.map(|row| row.get(0)))
}

/// Stores the catalog document; `None` forgets it.
pub async fn store_catalog(client: &impl GenericClient, document: Option<&[u8]>) -> Result<()> {
    let what = "write scry_shadow.catalog";
    client.execute("DELETE FROM scry_shadow.catalog", &[]).await.map_err(Error::sql(what))?;
    if let Some(document) = document {
        let sql = "INSERT INTO scry_shadow.catalog (document) VALUES ($1)";
        client.execute(sql, &[&document]).await.map_err(Error::sql(what))?;
    }
    Ok(())
}

/// A table's lines in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerTable {
    /// The table, its chunks when it is complete, and the rows loaded.
    pub copied: CopiedTable,
    /// Chunks that are there.
    pub chunks_done: u32,
}

impl LedgerTable {
    /// Whether every chunk is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.chunks_done == self.copied.chunks
    }
}

/// The ledger, a line a table.
pub async fn ledger(client: &impl GenericClient) -> Result<Vec<LedgerTable>> {
    let sql = "SELECT relid, pg_catalog.max(chunks) AS chunks, pg_catalog.count(*) AS done, \
               pg_catalog.sum(rows)::bigint AS rows FROM scry_shadow.chunk GROUP BY relid ORDER BY relid";
    let rows = client.query(sql, &[]).await.map_err(Error::sql("read scry_shadow.chunk"))?;
    Ok(rows
        .iter()
        .map(|row| LedgerTable {
            copied: CopiedTable {
                relid: row.get("relid"),
                chunks: row.get::<_, i32>("chunks").cast_unsigned(),
                rows: row.get::<_, i64>("rows").cast_unsigned(),
            },
            chunks_done: u32::try_from(row.get::<_, i64>("done")).unwrap_or(u32::MAX),
        })
        .collect())
}

/// The chunks of tables that are not complete.
pub async fn chunks(client: &impl GenericClient) -> Result<Vec<DoneChunk>> {
    let sql = "SELECT relid, chunk, rows FROM scry_shadow.chunk c WHERE (SELECT pg_catalog.count(*) \
               FROM scry_shadow.chunk d WHERE d.relid = c.relid) < c.chunks ORDER BY relid, chunk";
    let rows = client.query(sql, &[]).await.map_err(Error::sql("read scry_shadow.chunk"))?;
    Ok(rows
        .iter()
        .map(|row| DoneChunk {
            relid: row.get("relid"),
            chunk: row.get::<_, i32>("chunk").cast_unsigned(),
            rows: row.get::<_, i64>("rows").cast_unsigned(),
        })
        .collect())
}

/// Replaces the list of what is left out.
pub async fn store_left_out(client: &impl GenericClient, left_out: &[LeftOutText]) -> Result<()> {
    let what = "write scry_shadow.left_out";
    client.execute("DELETE FROM scry_shadow.left_out", &[]).await.map_err(Error::sql(what))?;
    let objects: Vec<&str> = left_out.iter().map(|item| item.object.as_str()).collect();
    let reasons: Vec<&str> = left_out.iter().map(|item| item.reason.as_str()).collect();
    let sql = "INSERT INTO scry_shadow.left_out SELECT * FROM unnest($1::text[], $2::text[])";
    client.execute(sql, &[&objects, &reasons]).await.map_err(Error::sql(what))?;
    Ok(())
}

/// What is left out.
pub async fn left_out(client: &impl GenericClient) -> Result<Vec<LeftOutText>> {
    let sql = "SELECT object, reason FROM scry_shadow.left_out ORDER BY object, reason";
    let rows = client.query(sql, &[]).await.map_err(Error::sql("read scry_shadow.left_out"))?;
    Ok(rows.iter().map(|row| LeftOutText { object: row.get(0), reason: row.get(1) }).collect())
}

/// A conflict, without its key.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The relation's schema.
    pub schema: String,
    /// The relation's name.
    pub relation: String,
    /// UPDATE or DELETE.
    pub operation: String,
    /// How often it was met.
    pub seen: i64,
}

/// The newest conflicts.
pub async fn conflicts(client: &impl GenericClient) -> Result<Vec<Conflict>> {
    let sql = "SELECT schema, relation, operation, seen FROM scry_shadow.conflict \
               ORDER BY last_seen DESC LIMIT 100";
    let rows = client.query(sql, &[]).await.map_err(Error::sql("read scry_shadow.conflict"))?;
    Ok(rows
        .iter()
        .map(|row| Conflict {
            schema: row.get("schema"),
            relation: row.get("relation"),
            operation: row.get("operation"),
            seen: row.get("seen"),
        })
        .collect())
}

/// Moves the position, in the open transaction: `$1` from, `$2` to, `$3` rows,
/// `$4` the generation, `$5` the source's timeline (0 where it is not known).
/// Finds no row when somebody else moved it, or the history is another.
pub const ADVANCE: &str = "UPDATE scry_shadow.origin SET applied_lsn = $2, \
    applied_at = pg_catalog.clock_timestamp(), rows_applied = rows_applied + $3, timeline = GREATEST(timeline, $5) \
    WHERE applied_lsn = $1 AND generation = $4 AND copy_state = 'copied'";

const SELECT_ORIGIN: &str = "SELECT system_identifier, timeline, database_oid, database, job, shadow_id, \
    generation, copy_id, copy_state, applied_lsn, rows_applied FROM scry_shadow.origin";

const BIND: &str = "INSERT INTO scry_shadow.origin (system_identifier, timeline, database_oid, database, \
    job, shadow_id, encoding, server_version_num) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// The numbered files of `sql/shadow`, in order.
const MIGRATIONS: &[(i32, &str)] = &[
    (1, include_str!("../../sql/shadow/001_origin.sql")),
    (2, include_str!("../../sql/shadow/002_hold.sql")),
    (3, include_str!("../../sql/shadow/003_quarantine.sql")),
    (4, include_str!("../../sql/shadow/004_absent.sql")),
    (5, include_str!("../../sql/shadow/005_copy_round.sql")),
    (6, include_str!("../../sql/shadow/006_refill.sql")),
    (7, include_str!("../../sql/shadow/007_former.sql")),
    (8, include_str!("../../sql/shadow/008_origin_checks.sql")),
];
