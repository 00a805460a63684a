//! The schema at a place in the stream: what the shadow must look like from
//! there on, and which tables the job follows.
//!
//! ```text
//! message, or a changed descriptor ─► dirty ─► next change or commit ─► read (historic snapshot)
//!                                                     │ document, tables, tables to be copied
//!                                                     ▼
//!                                       Schema in the stream ─► note in job_table
//! ```
//!
//! Invariants: the document is read by the queries that the copy uses, at the
//! very place where it stands in the stream. A table that was made in the
//! transaction at hand has all its rows in the stream; any other that comes
//! into the job's scope has rows that nobody sent, and is put on hold: the
//! platform keeps its changes until it has been copied.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::Oid;
use scry_wire::catalog::{Catalog, Entry, Table};

use crate::api::options::{Alone, JobOptions, Keyless, OnError};
use crate::api::refusal::Refusal;
use crate::api::select::{self, Caller};
use crate::catalog::{self, Extent};
use crate::pg::{historic, read};

/// What a job was started with, as far as its scope goes.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Names and globs.
    pub list: String,
    /// `include` and `exclude`.
    pub options: JobOptions,
    /// The role whose privileges count.
    pub owner: u32,
    /// Along which names without a schema are looked up.
    pub search_path: Vec<String>,
    /// `start('*')`: objects that no table needs come along.
    pub whole_database: bool,
}

impl Scope {
    /// What the job leaves alone now, but for `tables`, which it follows.
    pub fn alone(&self, tables: &[u32]) -> Result<Vec<u32>, Refusal> {
        let caller = Caller::of_job(self.owner, self.search_path.clone());
        let alone = select::left_alone(&self.options.alone, &caller)?;
        Ok(alone.into_iter().filter(|relid| !tables.contains(relid)).collect())
    }
}

/// A table of the job, by its name of that moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
}

/// What has changed among the tables of the job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// New ones, whose rows all come by the stream.
    pub joined: BTreeMap<u32, Member>,
    /// To be copied while the stream goes on; some may be new.
    pub held: BTreeMap<u32, Member>,
    /// On hold until they have a replica identity again.
    pub unidentified: BTreeMap<u32, Member>,
    /// Not in the job any more.
    pub gone: BTreeSet<u32>,
}

impl Notes {
    /// Whether there is nothing to note.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.held.is_empty() && self.unidentified.is_empty() && self.gone.is_empty()
    }

    /// Adds what came later.
    pub fn extend(&mut self, later: Notes) {
        for relid in later.gone {
            self.joined.remove(&relid);
            self.held.remove(&relid);
            self.unidentified.remove(&relid);
            self.gone.insert(relid);
        }
        for (relid, member) in later.joined {
            self.gone.remove(&relid);
            self.joined.insert(relid, member);
        }
        for (relid, member) in later.held {
            self.gone.remove(&relid);
            self.unidentified.remove(&relid);
            self.held.insert(relid, member);
        }
        for (relid, member) in later.unidentified {
            self.gone.remove(&relid);
            self.held.remove(&relid);
            self.unidentified.insert(relid, member);
        }
    }
}

/// The schema at one place.
pub struct Reading {
    /// The catalog document, JSON.
    pub document: Vec<u8>,
    /// All tables of the job from here on.
    pub tables: BTreeMap<u32, Member>,
    /// The partitioned tables above them.
    pub parents: BTreeSet<u32>,
    /// What has changed among them.
    pub notes: Notes,
    /// Materialized views have been refreshed.
    refreshes: bool,
    /// What the job's globs mean but cannot bring, with the reason.
    pub left_out: Vec<String>,
}

/// What messages in the stream have said since the last schema.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// Tables to be copied (again), as the job's owner wants it.
    pub wanted: BTreeSet<u32>,
    /// Tables that a command has rewritten.
    pub rewritten: BTreeSet<u32>,
    /// Materialized views that a command has refreshed, in that order.
    pub refreshed: Vec<u32>,
    /// Tables of which a row has changed that cannot be identified.
    pub unidentified: BTreeSet<u32>,
    /// Transactions before this one whose changes of the schema have not been read yet.
    pub earlier: BTreeSet<u32>,
}

/// What the stream brings: the catalog, what the job wants done with refused
/// changes, and materialized views to be refreshed, in that order.
#[derive(serde::Serialize)]
struct Document<'a> {
    on_error: OnError,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refreshed: Vec<u32>,
    #[serde(flatten)]
    catalog: &'a Catalog,
}

/// Reads schemas for one job.
pub struct SchemaReader {
    scope: Scope,
    /// Updates and deletes of tables without a replica identity are passed over.
    inserts_only: bool,
    /// Hash of the document sent last on this connection.
    sent: Option<u64>,
    /// Storage and newest column of the tables, when they were read last.
    shapes: BTreeMap<u32, Shape>,
}

/// What of a table tells whether the shadow can have its rows from itself and the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    filenode: u32,
    last_attnum: i16,
    has_identity: bool,
}

impl SchemaReader {
    /// A reader that has sent nothing yet.
    pub fn new(mut scope: Scope) -> SchemaReader {
        // A table is born without its key; what comes of that is seen with its first update.
        let inserts_only = scope.options.keyless == Keyless::InsertsOnly;
        if scope.options.keyless == Keyless::Refuse {
            scope.options.keyless = Keyless::InsertsOnly;
        }
        SchemaReader { scope, inserts_only, sent: None, shapes: BTreeMap::new() }
    }

    /// What is made under these names and globs from here on stays out of the job.
    pub fn leave_alone(&mut self, patterns: &[String]) {
        self.scope.options.alone = Alone::new(patterns, BTreeSet::new());
    }

    /// Reads the schema at the place that is being decoded. `None` when a
    /// lock is in the way: try again later.
    ///
    /// `followed`: the job's tables so far; `excluded`: tables it does not
    /// want.
    pub fn read(
        &mut self,
        followed: &BTreeSet<u32>,
        excluded: &BTreeSet<u32>,
        asked: &Asked,
    ) -> Option<Reading> {
        let (reading, shapes) = historic::read(|| self.read_here(followed, excluded, asked))?;
        self.shapes = shapes;
        Some(reading)
    }

    /// Whether the document says something new, and from now on is what was sent.
    pub fn is_news(&mut self, reading: &Reading) -> bool {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&reading.document);
        self.sent.replace(hash) != Some(hash) || reading.refreshes
    }

    fn read_here(
        &self,
        followed: &BTreeSet<u32>,
        excluded: &BTreeSet<u32>,
        asked: &Asked,
    ) -> (Reading, BTreeMap<u32, Shape>) {
        let caller = Caller::of_job(self.scope.owner, self.scope.search_path.clone());
        let mut options = self.scope.options.clone();
        options.alone.relids = excluded.clone();
        let selection = match select::select(&self.scope.list, &options, &caller) {
            Ok(selection) => selection,
            Err(refusal) => pgrx::error!("could not find the tables of the job: {}", refusal.finding()),
        };
        let member =
            |table: &select::Relation| Member { schema: table.schema.clone(), name: table.name.clone() };
        let mut tables: BTreeMap<u32, Member> = selection
            .tables
            .iter()
            .filter(|table| !excluded.contains(&table.oid))
            .map(|table| (table.oid, member(table)))
            .collect();
        // A renamed table stays, whatever the list says to its new name.
        tables.extend(logged_tables(
            followed.union(&asked.wanted).copied().filter(|relid| !excluded.contains(relid)),
        ));

        let mut notes = Notes {
            gone: followed.difference(&tables.keys().copied().collect()).copied().collect(),
            ..Notes::default()
        };
        let born = births(tables.keys().copied().filter(|relid| !followed.contains(relid)));
        let mut here = historic::current_transaction();
        here.extend(&asked.earlier);
        let rewritten = written_here(&asked.rewritten, &here);
        let relids: Vec<u32> = tables.keys().copied().collect();
        let alone: Vec<u32> =
            selection.alone.iter().copied().filter(|relid| !tables.contains_key(relid)).collect();
        let extent = Extent::of_job(self.scope.whole_database, &relids, &alone);
        let catalog = catalog::document(extent, &catalog::SequenceValues::default());
        let shapes = shapes(&catalog);
        let unknown = self.unknown_values(&catalog);
        for (relid, member) in &tables {
            let is_new = !followed.contains(relid);
            let is_born_here = born.get(relid).is_some_and(|xid| here.contains(xid));
            if asked.unidentified.contains(relid) {
                notes.unidentified.insert(*relid, member.clone());
            } else if asked.wanted.contains(relid)
                || rewritten.contains(relid)
                || unknown.contains(relid)
                || (is_new && !is_born_here)
            {
                notes.held.insert(*relid, member.clone());
            } else if is_new {
                notes.joined.insert(*relid, member.clone());
            }
        }
        let refreshed = refreshed(&catalog, &asked.refreshed, &here);
        let refreshes = !refreshed.is_empty();
        let document = Document { on_error: self.scope.options.on_error, refreshed, catalog: &catalog };
        let document = serde_json::to_vec(&document)
            .unwrap_or_else(|err| pgrx::error!("could not write the catalog document: {err}"));
        let parents = parents(relids.iter().copied());
        let reading = Reading {
            document,
            tables,
            parents,
            notes,
            refreshes,
            left_out: selection
                .left_out
                .into_iter()
                .map(|(name, why)| format!("{name} is left out: {why}"))
                .collect(),
        };
        (reading, shapes)
    }

    /// Tables whose rows the shadow cannot have from itself and the stream.
    ///
    /// Those that have a new column and another storage since they were read last, where the
    /// catalog does not keep the value that older rows have: it stood there and went with the
    /// storage, if the column was added first (`VACUUM FULL` and `CLUSTER` tell nobody). An
    /// `ALTER TABLE` that rewrites is told by itself.
    ///
    /// And those that had no replica identity and have one now, where what was done to their rows
    /// was passed over until then.
    fn unknown_values(&self, catalog: &Catalog) -> BTreeSet<u32> {
        let now = shapes(catalog);
        let is_unknown = |(oid, table): &(u32, &Table)| {
            let (Some(before), Some(now)) = (self.shapes.get(oid), now.get(oid)) else { return false };
            let mut new = table.columns.iter().filter(|c| !c.dropped && c.attnum > before.last_attnum);
            let is_moved = before.filenode != now.filenode;
            let is_lost = is_moved && new.any(|c| c.missing.is_none() && c.generated.is_empty());
            is_lost || self.inserts_only && now.has_identity && !before.has_identity
        };
        stored(catalog).filter(is_unknown).map(|(oid, _)| oid).collect()
    }
}

fn stored(catalog: &Catalog) -> impl Iterator<Item = (u32, &Table)> {
    catalog.objects.iter().filter_map(|object| match &object.entry {
        Entry::Table(table) if object.selected && !table.partitioned => Some((object.oid, table)),
        _ => None,
    })
}

fn shapes(catalog: &Catalog) -> BTreeMap<u32, Shape> {
    let keys = catalog.objects.iter().filter_map(|object| match &object.entry {
        Entry::Constraint(key) if key.contype == "p" => Some(key.table_oid),
        _ => None,
    });
    let keys: BTreeSet<u32> = keys.collect();
    let shape = |oid: u32, table: &Table| Shape {
        filenode: table.filenode,
        last_attnum: table.columns.iter().map(|column| column.attnum).max().unwrap_or(0),
        has_identity: match table.replica_identity.as_str() {
            "f" => true,
            "i" => table.replica_identity_index.is_some(),
            "d" => keys.contains(&oid),
            _ => false,
        },
    };
    stored(catalog).map(|(oid, table)| (oid, shape(oid, table))).collect()
}

/// Those of the relations that are there and whose changes stand in the WAL.
fn logged_tables(relids: impl Iterator<Item = u32>) -> BTreeMap<u32, Member> {
    const SQL: &str = "SELECT c.oid, n.nspname::pg_catalog.text, c.relname::pg_catalog.text \
        FROM pg_catalog.pg_class AS c \
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
        WHERE c.oid OPERATOR(pg_catalog.=) ANY ($1) AND c.relkind OPERATOR(pg_catalog.=) 'r' \
          AND c.relpersistence OPERATOR(pg_catalog.=) 'p'";
    let found = read::rows(SQL, &[oids(relids)], |rows| {
        rows.map(|row| {
            let member =
                Member { schema: row.get(2)?.unwrap_or_default(), name: row.get(3)?.unwrap_or_default() };
            Ok((row.get::<Oid>(1)?.map_or(0, Oid::to_u32), member))
        })
        .collect()
    });
    found.unwrap_or_else(|err| pgrx::error!("could not read the names of the job's tables: {err}"))
}

/// Which transactions made these tables. The row of a system column is written
/// with the table and never again, whatever is altered later.
fn births(relids: impl Iterator<Item = u32>) -> BTreeMap<u32, u32> {
    const SQL: &str = "SELECT a.attrelid, a.xmin::pg_catalog.text FROM pg_catalog.pg_attribute AS a \
        WHERE a.attrelid OPERATOR(pg_catalog.=) ANY ($1) AND a.attnum OPERATOR(pg_catalog.=) -1::pg_catalog.int2";
    writers(SQL, relids)
}

/// Runs a query that tells which transaction wrote a table's row in a catalog.
fn writers(sql: &str, relids: impl Iterator<Item = u32>) -> BTreeMap<u32, u32> {
    let found = read::rows(sql, &[oids(relids)], |rows| {
        rows.map(|row| {
            let xid = row.get::<String>(2)?.and_then(|text| text.parse().ok()).unwrap_or(0);
            Ok((row.get::<Oid>(1)?.map_or(0, Oid::to_u32), xid))
        })
        .collect()
    });
    found.unwrap_or_else(|err| pgrx::error!("could not read who made or changed the job's tables: {err}"))
}

/// Those of the materialized views that the shadow has, and that the transactions `here` have
/// refreshed.
fn refreshed(catalog: &Catalog, told: &[u32], here: &BTreeSet<u32>) -> Vec<u32> {
    let written = written_here(&told.iter().copied().collect(), here);
    let is_view = |oid: u32| {
        let mut relations = catalog.objects.iter().filter(|object| object.id().is_relation(oid));
        relations.any(|object| matches!(object.entry, Entry::MaterializedView(_)))
    };
    told.iter().copied().filter(|relid| written.contains(relid) && is_view(*relid)).collect()
}

/// Those of the relations whose row in `pg_class` the transactions `here` have written, as
/// whoever rewrites or refreshes one does. Anybody may write a message; that row is written by
/// the relation's owner only.
fn written_here(relids: &BTreeSet<u32>, here: &BTreeSet<u32>) -> BTreeSet<u32> {
    const SQL: &str = "SELECT c.oid, c.xmin::pg_catalog.text FROM pg_catalog.pg_class AS c \
        WHERE c.oid OPERATOR(pg_catalog.=) ANY ($1)";
    if relids.is_empty() {
        return BTreeSet::new();
    }
    writers(SQL, relids.iter().copied())
        .into_iter()
        .filter(|(_, xid)| here.contains(xid))
        .map(|(relid, _)| relid)
        .collect()
}

/// The partitioned tables above these tables.
pub fn parents(relids: impl Iterator<Item = u32>) -> BTreeSet<u32> {
    const SQL: &str = "SELECT DISTINCT a.relid::pg_catalog.oid FROM pg_catalog.unnest($1) AS t (oid) \
        CROSS JOIN LATERAL pg_catalog.pg_partition_ancestors(t.oid) AS a \
        WHERE a.relid OPERATOR(pg_catalog.<>) t.oid";
    let found = read::rows(SQL, &[oids(relids)], |rows| {
        rows.map(|row| Ok(row.get::<Oid>(1)?.map_or(0, Oid::to_u32))).collect()
    });
    found.unwrap_or_else(|err| pgrx::error!("could not read the parents of the job's tables: {err}"))
}

fn oids(relids: impl Iterator<Item = u32>) -> DatumWithOid<'static> {
    DatumWithOid::from(relids.map(Oid::from).collect::<Vec<_>>())
}

/// What a message of the extension's own says.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Order {
    /// For which job.
    pub job: String,
    /// The job's generation, which only the extension's own functions know:
    /// anybody may write messages into the WAL.
    pub generation: u64,
    /// Tables to be copied (again) while the stream goes on; they join the job.
    #[serde(default)]
    pub hold: BTreeSet<u32>,
    /// Tables that leave the job, and partitioned ones above them.
    #[serde(default)]
    pub drop: BTreeSet<u32>,
    /// Partitioned tables that were left alone and are not any more.
    #[serde(default)]
    pub take_back: BTreeSet<u32>,
    /// The names and globs that the job leaves alone from here on; `None` for those it has.
    #[serde(default)]
    pub left_alone: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Member {
        Member { schema: "public".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn later_notes_win() {
        let mut notes = Notes { joined: [(1, member("a")), (2, member("b"))].into(), ..Notes::default() };
        notes.extend(Notes { gone: [1, 5].into(), ..Notes::default() });
        notes.extend(Notes { held: [(5, member("e"))].into(), ..Notes::default() });
        assert_eq!(notes.joined.keys().copied().collect::<Vec<_>>(), [2]);
        assert_eq!(notes.held.keys().copied().collect::<Vec<_>>(), [5]);
        assert_eq!(notes.gone, [1].into());
    }

    #[test]
    fn values_that_went_with_the_storage_are_unknown() {
        let catalog = |filenode: u32, columns: serde_json::Value| -> Catalog {
            serde_json::from_value(serde_json::json!({"format": 1, "objects": [{
                "class": "pg_class", "oid": 7, "selected": true,
                "entry": {"kind": "table", "schema": "s", "name": "t", "partitioned": false,
                          "replica_identity": "d", "filenode": filenode, "columns": columns}
            }]}))
            .unwrap()
        };
        let one = serde_json::json!([{"attnum": 1, "name": "a"}]);
        let two = serde_json::json!([{"attnum": 1, "name": "a"}, {"attnum": 2, "name": "b"}]);
        let kept =
            serde_json::json!([{"attnum": 1, "name": "a"}, {"attnum": 2, "name": "b", "missing": "{5}"}]);
        let mut reader = SchemaReader::new(Scope::default());
        assert!(reader.unknown_values(&catalog(10, two.clone())).is_empty(), "nothing is known of before");
        reader.shapes = shapes(&catalog(10, one.clone()));
        assert!(reader.unknown_values(&catalog(11, one)).is_empty());
        assert!(reader.unknown_values(&catalog(10, two.clone())).is_empty());
        assert!(reader.unknown_values(&catalog(11, kept)).is_empty());
        assert_eq!(reader.unknown_values(&catalog(11, two)), [7].into());
    }

    #[test]
    fn a_table_that_gets_its_identity_late_is_copied_if_only_inserts_were_followed() {
        let catalog = |identity: &str| -> Catalog {
            serde_json::from_value(serde_json::json!({"format": 1, "objects": [{
                "class": "pg_class", "oid": 7, "selected": true,
                "entry": {"kind": "table", "schema": "s", "name": "t", "partitioned": false,
                          "replica_identity": identity, "columns": []}
            }]}))
            .unwrap()
        };
        for (keyless, expected) in [(Keyless::InsertsOnly, vec![7]), (Keyless::Refuse, vec![])] {
            let mut scope = Scope::default();
            scope.options.keyless = keyless;
            let mut reader = SchemaReader::new(scope);
            reader.shapes = shapes(&catalog("d"));
            let found: Vec<u32> = reader.unknown_values(&catalog("f")).into_iter().collect();
            assert_eq!(found, expected);
            assert!(reader.unknown_values(&catalog("n")).is_empty());
        }
    }

    #[test]
    fn reads_orders() {
        let order: Order =
            serde_json::from_str(r#"{"job": "default", "generation": 3, "hold": [7]}"#).unwrap();
        assert_eq!(
            order,
            Order { job: "default".to_owned(), generation: 3, hold: [7].into(), ..Order::default() }
        );
    }
}
