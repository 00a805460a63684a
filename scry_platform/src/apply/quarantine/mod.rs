//! Changes that the shadow refuses, of a job that goes on all the same
//! (delivery contract, rule 23).
//!
//! ```text
//!          refused                       too many
//! (well) ──────────► quarantined ─────────────────────► diverged
//!   ▲                  │ refused: kept                     │ any change: counted
//!   └──── late copy complete, or found equal at a position ┘
//! ```
//!
//! [`guard`] tries changes under savepoints and finds those that are refused;
//! [`row`] keeps them; [`tell`] says so. [`Marks`] belongs to the stream's
//! writer and is written with the changes it is about, in one transaction with
//! the position: after any crash the two agree.
//!
//! Invariants: nothing is refused without a mark that lasts; what is kept is
//! bounded for each table. What it does not do: choose. The source's document
//! says which policy holds.

pub mod guard;
mod row;
pub mod tell;

use super::schema::Absent;
use crate::{Error, Result};
use scry_wire::Lsn;
use scry_wire::message::{Relation, TableMark, TableMarks};
use serde::Deserialize;
use std::collections::{BTreeSet, HashMap};
use tokio_postgres::GenericClient;
use tokio_postgres::types::PgLsn;

/// What is done with a change that the shadow refuses: the job's `on_error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// The stream stops there.
    #[default]
    Stop,
    /// The change is kept aside, and the stream goes on.
    Quarantine,
}

impl Policy {
    /// As the catalog document of the job says. What it does not say, or says
    /// in a word of a later release, is to stop.
    #[must_use]
    pub fn of_document(document: &[u8]) -> Policy {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            on_error: Policy,
        }
        serde_json::from_slice::<Head>(document).map_or(Policy::Stop, |head| head.on_error)
    }
}

/// A table with refused changes, as `scry_shadow.quarantined` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The table on the source.
    pub relid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub relation: String,
    /// Commit of the first transaction with such a change.
    pub since: Lsn,
    /// Commit of the last one.
    pub last: Lsn,
    /// How many changes were refused, or passed over since it diverged.
    pub changes: u64,
    /// How many of them are kept.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Later changes are counted only.
    pub diverged: bool,
    /// The shadow does not have the table: see [`super::absent`].
    pub absent: bool,
    /// What was tried last and why it was refused.
    pub cause: String,
}

impl Mark {
    fn new(relation: &Relation, at: Lsn) -> Self {
        Mark {
            relid: relation.relid,
            schema: relation.schema.clone(),
            relation: relation.name.clone(),
            since: at,
            last: at,
            changes: 0,
            kept: 0,
            kept_bytes: 0,
            diverged: false,
            absent: false,
            cause: String::new(),
        }
    }

    /// Whether another change may be kept.
    fn has_room(&self) -> bool {
        self.kept < KEPT_MAX && self.kept_bytes < KEPT_BYTES_MAX
    }

    fn from_row(row: &tokio_postgres::Row) -> Self {
        let lsn = |column: &str| Lsn(u64::from(row.get::<_, PgLsn>(column)));
        let number = |column: &str| row.get::<_, i64>(column).cast_unsigned();
        Mark {
            relid: row.get("relid"),
            schema: row.get("schema"),
            relation: row.get("relation"),
            since: lsn("since_lsn"),
            last: lsn("last_lsn"),
            changes: number("changes"),
            kept: number("kept"),
            kept_bytes: number("kept_bytes"),
            diverged: row.get("diverged"),
            absent: row.get("absent"),
            cause: row.get("cause"),
        }
    }
}

/// The marks, as the stream's writer knows them.
#[derive(Debug, Default)]
pub struct Marks {
    tables: HashMap<u32, Mark>,
    /// Changed in the open transaction, and not written yet.
    unwritten: BTreeSet<u32>,
    /// Moves with every change.
    version: u64,
    /// Changes since they were last asked for.
    added: u64,
}

impl Marks {
    /// Reads them, in place of what is known. No transaction may be open that
    /// has changed them.
    pub async fn reload(&mut self, client: &impl GenericClient) -> Result<()> {
        self.tables = all(client).await?.into_iter().map(|mark| (mark.relid, mark)).collect();
        self.unwritten.clear();
        self.version += 1;
        Ok(())
    }

    /// Whether the table's changes are counted only.
    #[must_use]
    pub fn is_diverged(&self, relid: u32) -> bool {
        !self.tables.is_empty() && self.tables.get(&relid).is_some_and(|mark| mark.diverged)
    }

    /// Counts changes of a table that has diverged.
    fn pass_over(&mut self, relid: u32, at: Lsn) {
        if let Some(mark) = self.tables.get_mut(&relid) {
            mark.changes += 1;
            mark.last.advance(at);
            self.unwritten.insert(relid);
            self.version += 1;
            self.added += 1;
        }
    }

    /// A change was refused. Says whether it is to be kept.
    fn refused(&mut self, relation: &Relation, at: Lsn, bytes: u64, cause: String) -> bool {
        let mark = self.tables.entry(relation.relid).or_insert_with(|| Mark::new(relation, at));
        mark.schema.clone_from(&relation.schema);
        mark.relation.clone_from(&relation.name);
        mark.last.advance(at);
        mark.changes += 1;
        mark.cause = cause;
        let keeps = mark.has_room();
        if keeps {
            mark.kept += 1;
            mark.kept_bytes += bytes;
        } else {
            mark.diverged = true;
        }
        self.unwritten.insert(relation.relid);
        self.version += 1;
        self.added += 1;
        keeps
    }

    /// The shadow could not make or follow a table.
    pub(super) fn miss(&mut self, table: &Absent, at: Lsn) {
        let mark = self.tables.entry(table.relid).or_insert_with(|| Mark {
            relid: table.relid,
            schema: table.schema.clone(),
            relation: table.name.clone(),
            since: at,
            last: at,
            changes: 0,
            kept: 0,
            kept_bytes: 0,
            diverged: true,
            absent: true,
            cause: String::new(),
        });
        mark.schema.clone_from(&table.schema);
        mark.relation.clone_from(&table.name);
        mark.last.advance(at);
        // The definition that was refused.
        mark.changes += 1;
        (mark.diverged, mark.absent) = (true, true);
        mark.cause = super::absent::cause(table);
        self.unwritten.insert(table.relid);
        self.version += 1;
        self.added += 1;
    }

    /// A table that was absent has been made; its rows are not here yet.
    pub(super) fn found(&mut self, relid: u32) {
        if let Some(mark) = self.tables.get_mut(&relid).filter(|mark| mark.absent) {
            mark.absent = false;
            self.unwritten.insert(relid);
            self.version += 1;
        }
    }

    /// The tables that the shadow does not have.
    pub(super) fn absent(&self) -> BTreeSet<u32> {
        self.tables.values().filter(|mark| mark.absent).map(|mark| mark.relid).collect()
    }

    /// Writes what has changed, in the open transaction of `client`.
    async fn write(&mut self, client: &impl GenericClient) -> Result<()> {
        let relids = std::mem::take(&mut self.unwritten);
        for mark in relids.iter().filter_map(|relid| self.tables.get(relid)) {
            client
                .execute(
                    WRITE_MARK,
                    &[
                        &mark.relid,
                        &mark.schema,
                        &mark.relation,
                        &PgLsn::from(mark.since.0),
                        &PgLsn::from(mark.last.0),
                        &mark.changes.cast_signed(),
                        &mark.kept.cast_signed(),
                        &mark.kept_bytes.cast_signed(),
                        &mark.diverged,
                        &mark.cause,
                        &mark.absent,
                    ],
                )
                .await
                .map_err(Error::sql("write scry_shadow.quarantined"))?;
        }
        Ok(())
    }

    /// Forgets a table, in the open transaction of `client`.
    pub(super) async fn clear(&mut self, client: &impl GenericClient, relids: &[u32]) -> Result<()> {
        clear(client, relids, None).await?;
        for relid in relids {
            self.unwritten.remove(relid);
            if self.tables.remove(relid).is_some() {
                self.version += 1;
            }
        }
        Ok(())
    }

    /// The marks, by oid.
    fn sorted(&self) -> Vec<&Mark> {
        let mut marks: Vec<&Mark> = self.tables.values().collect();
        marks.sort_unstable_by_key(|mark| mark.relid);
        marks
    }

    /// What the worker is told.
    #[must_use]
    pub fn message(&self) -> TableMarks {
        let mark = |mark: &Mark| TableMark {
            relid: mark.relid,
            changes: mark.changes,
            diverged: mark.diverged,
            cause: mark.cause.clone(),
        };
        TableMarks { tables: self.sorted().into_iter().map(mark).collect() }
    }

    /// The marked tables.
    pub fn relids(&self) -> impl Iterator<Item = u32> + '_ {
        self.tables.keys().copied()
    }

    /// How many tables are marked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether no table is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// How many changes were refused or passed over since this was last asked.
    pub fn take_added(&mut self) -> u64 {
        std::mem::take(&mut self.added)
    }
}

/// The marks of a shadow, by oid.
pub async fn all(client: &impl GenericClient) -> Result<Vec<Mark>> {
    let rows = client.query(SELECT_MARKS, &[]).await.map_err(Error::sql("read scry_shadow.quarantined"))?;
    Ok(rows.iter().map(Mark::from_row).collect())
}

/// Deletes what is kept of these tables, and their marks, in the transaction
/// of `client`. With `at`, a position where the tables were found to be equal:
/// only what was refused up to there, and the mark only if that is all.
/// Whoever calls this outside of the stream's writer tells it by
/// [`crate::shadow::Shadow::marks_changed`] once it is committed.
pub async fn clear(client: &impl GenericClient, relids: &[u32], at: Option<Lsn>) -> Result<()> {
    let at = PgLsn::from(at.map_or(u64::MAX, |lsn| lsn.0));
    for sql in [
        "DELETE FROM scry_shadow.quarantine WHERE relid = ANY ($1) AND commit_lsn <= $2",
        "DELETE FROM scry_shadow.quarantined WHERE relid = ANY ($1) AND last_lsn <= $2",
    ] {
        client.execute(sql, &[&relids, &at]).await.map_err(Error::sql("end a quarantine in scry_shadow"))?;
    }
    Ok(())
}

/// Rows of the table's first copy were refused, in the transaction of `client`.
pub async fn diverge(client: &impl GenericClient, relation: &Relation, cause: &str) -> Result<()> {
    client
        .execute(DIVERGE, &[&relation.relid, &relation.schema, &relation.name, &cause])
        .await
        .map(drop)
        .map_err(Error::sql("write scry_shadow.quarantined"))
}

const DIVERGE: &str = "INSERT INTO scry_shadow.quarantined (relid, schema, relation, since_lsn, last_lsn, changes, \
    kept, kept_bytes, diverged, cause) VALUES ($1, $2, $3, '0/0', '0/0', 1, 0, 0, true, $4) \
    ON CONFLICT (relid) DO UPDATE SET changes = quarantined.changes + 1, diverged = true, cause = excluded.cause";

const SELECT_MARKS: &str = "SELECT relid, schema, relation, since_lsn, last_lsn, changes, kept, kept_bytes, \
    diverged, cause, absent FROM scry_shadow.quarantined ORDER BY relid";

const WRITE_MARK: &str = "INSERT INTO scry_shadow.quarantined (relid, schema, relation, since_lsn, last_lsn, \
    changes, kept, kept_bytes, diverged, cause, absent) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
    ON CONFLICT (relid) DO UPDATE SET schema = excluded.schema, relation = excluded.relation, \
    last_lsn = excluded.last_lsn, changes = excluded.changes, kept = excluded.kept, \
    kept_bytes = excluded.kept_bytes, diverged = excluded.diverged, cause = excluded.cause, \
    absent = excluded.absent, \
    last_at = pg_catalog.now()";

/// Changes of one table that are kept. A table with more is not worth trying
/// row by row: it needs a copy.
const KEPT_MAX: u64 = 10_000;
/// Their bytes.
const KEPT_BYTES_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::message::{Format, ReplicaIdentity};

    fn relation(relid: u32, name: &str) -> Relation {
        Relation {
            relid,
            format: Format::Binary,
            replica_identity: ReplicaIdentity::Default,
            schema: "s".into(),
            name: name.into(),
            columns: Vec::new(),
        }
    }

    #[test]
    fn reads_the_policy() {
        for (document, policy) in [
            (r#"{"format": 1, "objects": [], "on_error": "quarantine"}"#, Policy::Quarantine),
            (r#"{"format": 1, "on_error": "stop"}"#, Policy::Stop),
            (r#"{"format": 1}"#, Policy::Stop),
            (r#"{"format": 1, "on_error": "some later word"}"#, Policy::Stop),
        ] {
            assert_eq!(Policy::of_document(document.as_bytes()), policy, "{document}");
        }
    }

    #[test]
    fn keeps_so_many_and_then_only_counts() {
        let mut marks = Marks::default();
        let a = relation(7, "a");
        for n in 1..=KEPT_MAX {
            assert!(marks.refused(&a, Lsn(n), 10, "why".into()));
        }
        assert!(!marks.is_diverged(7));
        assert!(!marks.refused(&a, Lsn(KEPT_MAX + 1), 10, "why not".into()));
        assert!(marks.is_diverged(7));
        marks.pass_over(7, Lsn(KEPT_MAX + 2));
        marks.pass_over(8, Lsn(1));
        let mark = &marks.tables[&7];
        assert_eq!((mark.changes, mark.kept), (KEPT_MAX + 2, KEPT_MAX));
        assert_eq!((mark.since, mark.last), (Lsn(1), Lsn(KEPT_MAX + 2)));
        assert_eq!(mark.cause, "why not");
        assert_eq!(marks.len(), 1);
        assert_eq!(marks.take_added(), KEPT_MAX + 2);
    }

    #[test]
    fn a_table_that_is_absent_is_passed_over_until_it_is_found_and_copied() {
        let mut marks = Marks::default();
        let table = Absent {
            relid: 7,
            schema: "s".into(),
            name: "a".into(),
            partitioned: false,
            reason: "type \"v\" does not exist".into(),
        };
        marks.miss(&table, Lsn(5));
        assert!(marks.is_diverged(7));
        assert_eq!(marks.absent(), [7].into());
        assert_eq!(marks.message().tables[0].changes, 1);
        assert!(marks.message().tables[0].cause.ends_with("type \"v\" does not exist"));
        marks.found(8);
        marks.found(7);
        assert!(marks.absent().is_empty() && marks.is_diverged(7), "its rows are not here");
    }

    #[test]
    fn keeps_so_many_bytes() {
        let mut marks = Marks::default();
        assert!(marks.refused(&relation(7, "a"), Lsn(1), KEPT_BYTES_MAX, String::new()));
        assert!(!marks.refused(&relation(7, "b"), Lsn(1), 1, String::new()));
        assert_eq!(marks.message().tables.len(), 1);
        assert!(marks.message().tables[0].diverged);
        assert_eq!(marks.tables[&7].relation, "b", "the name of now");
    }
}
