//! Tables on hold: emptied, their changes kept, until a copy of their own is
//! complete (delivery contract, rule 6).
//!
//! ```text
//!            begin                LateCopy             CopyFinish            position ≥ until_lsn
//! (live) ─────────────► waiting ───────────► copying ─────────────► copied ─────────────────► (live)
//!   ▲     in the stream    ▲  leader's session  │ ▲ another round      │     drain, in the stream
//!   │                      └── begin, or what was kept cannot be applied ─┘
//!   └ changes applied       changes kept in scry_shadow.kept
//! ```
//!
//! [`Holds`] belongs to the stream's writer; [`late`] is the leader's side;
//! [`drain`] joins the two. All of it stands in `scry_shadow.hold` and `kept`:
//! a restart of the platform goes on from there.
//!
//! Invariants: a table is emptied and put on hold in one transaction with the
//! position; while it is on hold every change of it is kept in the transaction
//! that moves the position past it; kept changes are applied or dropped in one
//! transaction with the end of the hold. What it does not do: find out which
//! tables must be held. The source says so.

pub mod drain;
pub mod kept;
pub mod late;

use super::schema::quote;
use crate::shadow::Session;
use crate::{Error, Result};
use kept::Keeper;
use scry_wire::Lsn;
use scry_wire::catalog::{Catalog, Class, Entry};
use std::collections::HashMap;
use tokio_postgres::GenericClient;
use tokio_postgres::types::PgLsn;

/// How far a table on hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No copy has begun. Set by [`Holds::begin`], left by a late copy.
    Waiting,
    /// Chunks are being loaded. Set by a late copy, left by its end.
    Copying,
    /// Every chunk is here; the stream may not have come far enough yet.
    Copied,
}

/// A table on hold, as `scry_shadow.hold` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The table.
    pub relid: u32,
    /// Commit of the transaction that put it on hold.
    pub since: Lsn,
    /// How far it is.
    pub state: State,
    /// The round that copies it; 0 before the first.
    pub copy_id: u64,
    /// What the round's snapshot saw.
    pub snapshot: String,
    /// Where the stream must be before the kept changes are applied.
    pub until: Lsn,
    /// Why the last round came to nothing.
    pub why: String,
}

/// A table to be put on hold: its oid on the source, and its name here as SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldTable {
    /// The oid on the source.
    pub relid: u32,
    /// The qualified, quoted name.
    pub name: String,
}

impl HeldTable {
    /// The tables of `relids` that `catalog` has; partitioned tables have no
    /// rows of their own and are not among them.
    #[must_use]
    pub fn find(catalog: &Catalog, relids: &[u32]) -> Vec<HeldTable> {
        let is_wanted = |oid: u32| relids.contains(&oid);
        let objects = catalog.objects.iter().filter(|o| o.class == Class::Relation && is_wanted(o.oid));
        objects
            .filter_map(|object| match &object.entry {
                Entry::Table(table) if !table.partitioned => {
                    let name = quote::qualified(&table.schema, &table.name);
                    Some(HeldTable { relid: object.oid, name })
                }
                _ => None,
            })
            .collect()
    }
}

/// The tables on hold, as the stream's writer knows them.
#[derive(Debug, Default)]
pub struct Holds {
    tables: HashMap<u32, Hold>,
    pub(super) kept: Keeper,
}

impl Holds {
    /// Reads what is on hold: at the beginning of a stream.
    pub async fn load(session: &Session) -> Result<Self> {
        let mut holds = Holds { kept: Keeper::load(session).await?, ..Holds::default() };
        holds.reload(session).await?;
        Ok(holds)
    }

    /// Reads again how far the late copies are. No transaction may be open.
    pub async fn reload(&mut self, session: &Session) -> Result<()> {
        self.tables = all(&**session).await?.into_iter().map(|hold| (hold.relid, hold)).collect();
        Ok(())
    }

    /// Whether no table is on hold.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// How many tables are on hold.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether the table is on hold.
    #[must_use]
    pub fn contains(&self, relid: u32) -> bool {
        !self.tables.is_empty() && self.tables.contains_key(&relid)
    }

    /// The tables on hold.
    pub fn relids(&self) -> impl Iterator<Item = u32> + '_ {
        self.tables.keys().copied()
    }

    /// Whether a late copy loads one of these tables now: its connections hold
    /// locks on it.
    #[must_use]
    pub fn is_copying(&self, relids: &[u32]) -> bool {
        relids.iter().any(|relid| self.tables.get(relid).is_some_and(|hold| hold.state == State::Copying))
    }

    /// Empties the tables and puts them on hold, in the open transaction of
    /// `session`: it belongs to the source transaction that commits at
    /// `since`. A table that is on hold already begins anew: what was kept of
    /// it is before the next copy's snapshot. Nothing may be under way on the
    /// session, and no late copy may hold locks on the tables.
    pub async fn begin(&mut self, session: &Session, tables: &[HeldTable], since: Lsn) -> Result<()> {
        if tables.is_empty() {
            return Ok(());
        }
        let relids: Vec<u32> = tables.iter().map(|table| table.relid).collect();
        let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        self.kept.forget(&relids);
        // Locks in the order in which copiers and leaders take them.
        session
            .execute(INSERT_HOLD, &[&relids, &PgLsn::from(since.0)])
            .await
            .map_err(Error::sql("write scry_shadow.hold"))?;
        empty(session, &names).await?;
        for sql in [
            "DELETE FROM scry_shadow.kept WHERE relid = ANY ($1)",
            "DELETE FROM scry_shadow.chunk WHERE relid = ANY ($1)",
        ] {
            session.execute(sql, &[&relids]).await.map_err(Error::sql("put tables on hold"))?;
        }
        for relid in relids {
            self.tables.insert(relid, Hold::new(relid, since));
        }
        Ok(())
    }

    /// Ends the hold of tables that are no longer there, in the open
    /// transaction of `session`.
    pub async fn forget(&mut self, session: &Session, relids: &[u32]) -> Result<()> {
        let held: Vec<u32> = relids.iter().copied().filter(|relid| self.contains(*relid)).collect();
        if held.is_empty() {
            return Ok(());
        }
        self.kept.forget(&held);
        for sql in [
            "DELETE FROM scry_shadow.kept WHERE relid = ANY ($1)",
            "DELETE FROM scry_shadow.chunk WHERE relid = ANY ($1)",
            "DELETE FROM scry_shadow.hold WHERE relid = ANY ($1)",
        ] {
            session.execute(sql, &[&held]).await.map_err(Error::sql("end the hold of dropped tables"))?;
        }
        for relid in held {
            self.tables.remove(&relid);
        }
        Ok(())
    }

    /// A table that is whole: every chunk is here and the stream, at
    /// `applied`, has passed the snapshot.
    pub(super) fn due(&self, applied: Lsn) -> Option<Hold> {
        let due = |hold: &&Hold| hold.state == State::Copied && hold.until <= applied;
        self.tables.values().find(due).cloned()
    }

    pub(super) fn remove(&mut self, relid: u32) {
        self.tables.remove(&relid);
    }
}

impl Hold {
    fn new(relid: u32, since: Lsn) -> Self {
        Hold {
            relid,
            since,
            state: State::Waiting,
            copy_id: 0,
            snapshot: String::new(),
            until: Lsn::INVALID,
            why: String::new(),
        }
    }

    fn from_row(row: &tokio_postgres::Row) -> Result<Self> {
        let lsn = |column: &str| Lsn(u64::from(row.get::<_, PgLsn>(column)));
        Ok(Hold {
            relid: row.get("relid"),
            since: lsn("since_lsn"),
            state: match row.get("state") {
                "waiting" => State::Waiting,
                "copying" => State::Copying,
                "copied" => State::Copied,
                _ => return Err(Error::protocol("scry_shadow.hold holds an unknown state")),
            },
            copy_id: row.get::<_, i64>("copy_id").cast_unsigned(),
            snapshot: row.get("snapshot"),
            until: lsn("until_lsn"),
            why: row.get("why"),
        })
    }
}

impl State {
    /// As it stands in `scry_shadow.hold` and in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Copying => "copying",
            State::Copied => "copied",
        }
    }
}

/// The tables on hold, by oid.
pub async fn all(client: &impl GenericClient) -> Result<Vec<Hold>> {
    let rows = client.query(SELECT_HOLD, &[]).await.map_err(Error::sql("read scry_shadow.hold"))?;
    rows.iter().map(Hold::from_row).collect()
}

/// Empties tables, and no other that refers to them. The session must be one
/// for changes: foreign keys are silent in it.
async fn empty(session: &Session, names: &[&str]) -> Result<()> {
    let cannot = || Error::sql(format!("empty {}", names.join(", ")));
    let reaches: bool =
        session.query_one(super::truncate::TRUNCATE_REACHES, &[&names]).await.map_err(cannot())?.get(0);
    let sql: String = match reaches {
        // TRUNCATE would refuse.
        true => names.iter().map(|name| format!("DELETE FROM ONLY {name};")).collect(),
        false => format!("TRUNCATE ONLY {}", names.join(", ONLY ")),
    };
    session.batch_execute(&sql).await.map_err(cannot())
}

const SELECT_HOLD: &str = "SELECT relid, since_lsn, state, copy_id, snapshot, until_lsn, why \
    FROM scry_shadow.hold ORDER BY relid";

const INSERT_HOLD: &str = "INSERT INTO scry_shadow.hold (relid, since_lsn) \
    SELECT r, $2 FROM pg_catalog.unnest($1::oid[]) AS r \
    ON CONFLICT (relid) DO UPDATE SET since_lsn = excluded.since_lsn, state = 'waiting', copy_id = 0, \
    snapshot = '', until_lsn = '0/0', held_at = excluded.held_at";
