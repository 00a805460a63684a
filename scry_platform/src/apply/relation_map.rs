//! The source's relations and their twins on the shadow.
//!
//! A relation is described by the stream before its first change; its twin is
//! looked up once, by name, when a change needs it: the types of its columns,
//! the index that finds a row, prepared statements. A new description forgets
//! all of that. Names of schemas that are ours or the server's are refused.

use super::schema::quote;
use super::statement::{ArrayOf, Finder, KeyColumn, RowColumn, SetTypes, Shape, Source, Statement};
use crate::shadow::Session;
use crate::{Error, Result};
use scry_wire::message::{Format, Relation, ReplicaIdentity};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// A prepared statement and where its parameters come from.
#[derive(Clone)]
pub struct Prepared {
    /// The statement.
    pub statement: tokio_postgres::Statement,
    /// Its parameters.
    pub params: Arc<[Source]>,
}

/// A relation with its twin.
pub struct Target {
    /// The relation, as the source describes it.
    pub relation: Relation,
    /// The shadow's types of its columns, as SQL.
    pub types: Vec<String>,
    /// How rows are found; `None` when the relation has no identity.
    pub finder: Option<Finder>,
    /// Partitioned: its rows live elsewhere.
    pub partitioned: bool,
    /// What values of sets are sent as.
    pub set_types: SetTypes,
    /// The key's places, if changes of this table may be folded: see
    /// [`choose_fold_key`].
    pub fold_key: Option<Vec<usize>>,
    insert: Option<Prepared>,
    delete: Option<Prepared>,
    updates: HashMap<Vec<bool>, Option<Prepared>>,
    replaces: HashMap<Vec<bool>, Prepared>,
    update_sets: HashMap<Vec<bool>, Option<Prepared>>,
    delete_set: Option<Option<Prepared>>,
    insert_set: Option<Option<Prepared>>,
    copy: Option<tokio_postgres::Statement>,
}

/// The relations of one stream connection.
#[derive(Default)]
pub struct RelationMap {
    known: HashMap<u32, Relation>,
    targets: HashMap<u32, Target>,
}

impl RelationMap {
    /// Whether the stream has described the relation just so.
    #[must_use]
    pub fn knows(&self, relation: &Relation) -> bool {
        self.known.get(&relation.relid) == Some(relation)
    }

    /// The stream describes a relation.
    pub fn describe(&mut self, relation: Relation) -> Result<()> {
        check_name(&relation)?;
        if self.known.get(&relation.relid) != Some(&relation) {
            self.targets.remove(&relation.relid);
            if self.known.len() >= RELATIONS_MAX && !self.known.contains_key(&relation.relid) {
                return Err(Error::protocol(format!("more than {RELATIONS_MAX} relations are described")));
            }
            self.known.insert(relation.relid, relation);
        }
        Ok(())
    }

    /// The relation as the stream has described it last.
    #[must_use]
    pub fn relation(&self, relid: u32) -> Option<&Relation> {
        self.known.get(&relid)
    }

    /// Whether the relation's twin has been looked up.
    #[must_use]
    pub fn is_ready(&self, relid: u32) -> bool {
        self.targets.contains_key(&relid)
    }

    /// Looks the twin up. Nothing else may be under way on `session`.
    pub async fn prepare(&mut self, session: &Session, relid: u32) -> Result<()> {
        let relation = self.known.get(&relid).ok_or_else(|| undescribed(relid))?;
        let target = look_up(session, relation.clone()).await?;
        if self.targets.len() >= TARGETS_MAX {
            // Looked up again when they are needed; the server's memory is bounded too.
            self.targets.clear();
        }
        self.targets.insert(relid, target);
        Ok(())
    }

    /// The relation and its twin.
    pub fn target(&mut self, relid: u32) -> Result<&mut Target> {
        self.targets.get_mut(&relid).ok_or_else(|| undescribed(relid))
    }

    /// The relation's name, for messages.
    #[must_use]
    pub fn name(&self, relid: u32) -> String {
        self.known.get(&relid).map_or_else(|| format!("relation {relid}"), full_name)
    }

    /// Forgets what was looked up of a table.
    pub fn forget_target(&mut self, relid: u32) {
        self.targets.remove(&relid);
    }

    /// Forgets what was looked up: for a new session.
    pub fn forget_targets(&mut self) {
        self.targets.clear();
    }
}

fn undescribed(relid: u32) -> Error {
    Error::protocol(format!("relation {relid} is changed before it is described"))
}

/// Which statement of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Insert the new row.
    Insert,
    /// Delete the row.
    Delete,
    /// Update it; which columns keep their value.
    Update(Vec<bool>),
    /// Delete it and insert its new form; which columns are carried over.
    Replace(Vec<bool>),
    /// Update a set of rows; which columns keep their value.
    UpdateSet(Vec<bool>),
    /// Delete a set of rows.
    DeleteSet,
    /// Insert a set of rows.
    InsertSet,
}

impl Target {
    /// The statement, if it is prepared: `Some(None)` when there is nothing to do.
    #[must_use]
    pub fn prepared(&self, kind: &Kind) -> Option<Option<Prepared>> {
        match kind {
            Kind::Insert => self.insert.clone().map(Some),
            Kind::Delete => self.delete.clone().map(Some),
            Kind::Update(unchanged) => self.updates.get(unchanged).cloned(),
            Kind::Replace(unchanged) => self.replaces.get(unchanged).cloned().map(Some),
            Kind::UpdateSet(unchanged) => self.update_sets.get(unchanged).cloned(),
            Kind::DeleteSet => self.delete_set.clone(),
            Kind::InsertSet => self.insert_set.clone(),
        }
    }

    /// Prepares the statement. Nothing else may be under way on `session`.
    pub async fn prepare(&mut self, session: &Session, kind: &Kind) -> Result<Option<Prepared>> {
        let none = Finder::Key(Vec::new());
        let shape = Shape {
            relation: &self.relation,
            types: &self.types,
            finder: self.finder.as_ref().unwrap_or(&none),
        };
        let rendered = match kind {
            Kind::Insert => Some(shape.insert().for_one_row()),
            Kind::Delete => Some(shape.delete().for_one_row()),
            Kind::Update(unchanged) => shape.update(unchanged).map(Statement::for_one_row),
            Kind::Replace(unchanged) => Some(shape.replace(unchanged).for_one_row()),
            Kind::UpdateSet(unchanged) => shape.update_set(unchanged, &self.set_types),
            Kind::DeleteSet => shape.delete_set(&self.set_types),
            Kind::InsertSet if self.relation.format == Format::Binary => shape.insert_set(&self.set_types),
            Kind::InsertSet => None,
        };
        let prepared = match rendered {
            None => None,
            Some(rendered) => Some(Prepared {
                statement: session
                    .prepare(&rendered.sql)
                    .await
                    .map_err(self.cannot("prepare a statement for"))?,
                params: rendered.params.into(),
            }),
        };
        match kind {
            Kind::Insert => self.insert = prepared.clone(),
            Kind::Delete => self.delete = prepared.clone(),
            Kind::Update(unchanged) => {
                if self.updates.len() >= VARIANTS_MAX {
                    self.updates.clear();
                }
                self.updates.insert(unchanged.clone(), prepared.clone());
            }
            Kind::Replace(unchanged) => {
                if self.replaces.len() >= VARIANTS_MAX {
                    self.replaces.clear();
                }
                if let Some(prepared) = &prepared {
                    self.replaces.insert(unchanged.clone(), prepared.clone());
                }
            }
            Kind::UpdateSet(unchanged) => {
                if self.update_sets.len() >= VARIANTS_MAX {
                    self.update_sets.clear();
                }
                self.update_sets.insert(unchanged.clone(), prepared.clone());
            }
            Kind::DeleteSet => self.delete_set = Some(prepared.clone()),
            Kind::InsertSet => self.insert_set = Some(prepared.clone()),
        }
        Ok(prepared)
    }

    /// The prepared COPY. Nothing else may be under way on `session`.
    pub async fn copy(&mut self, session: &Session) -> Result<tokio_postgres::Statement> {
        if let Some(statement) = &self.copy {
            return Ok(statement.clone());
        }
        let sql = super::copy::copy_statement(&self.relation, false);
        let statement = session.prepare(&sql).await.map_err(self.cannot("prepare a copy into"))?;
        self.copy = Some(statement.clone());
        Ok(statement)
    }

    fn cannot(&self, what: &str) -> impl FnOnce(tokio_postgres::Error) -> Error + use<> {
        Error::sql(format!("{what} {}", full_name(&self.relation)))
    }
}

async fn look_up(session: &Session, relation: Relation) -> Result<Target> {
    let name = full_name(&relation);
    let cannot = || Error::sql(format!("look up table {name}"));
    let row = session
        .query_opt(FIND, &[&relation.schema, &relation.name])
        .await
        .map_err(cannot())?
        .ok_or_else(|| missing(format!("table {name} does not exist on the shadow")))?;
    let (oid, relkind, row_type): (u32, String, u32) = (row.get(0), row.get(1), row.get(2));
    let rows = session.query(COLUMNS, &[&oid]).await.map_err(cannot())?;
    let columns = rows.iter().map(|r| RowColumn {
        type_oid: r.get("element"),
        place: relation.columns.iter().position(|column| column.name == r.get::<_, &str>("column")),
    });
    let columns = columns.collect();
    let mut by_name: HashMap<String, TwinColumn> =
        rows.iter().map(|r| (r.get("column"), twin_column(r))).collect();
    let mut types = Vec::with_capacity(relation.columns.len());
    let mut arrays = Vec::with_capacity(relation.columns.len());
    let mut deterministic = Vec::with_capacity(relation.columns.len());
    for column in &relation.columns {
        let twin = by_name.remove(&column.name).ok_or_else(|| {
            missing(format!(
                "column {} of table {name} does not exist on the shadow",
                quote::ident(&column.name)
            ))
        })?;
        types.push(twin.sql);
        arrays.push(twin.array);
        deterministic.push(twin.deterministic);
    }
    let rows = session.query(INDEXES, &[&oid]).await.map_err(cannot())?;
    let mut indexes: Vec<UniqueIndex> = Vec::new();
    for row in &rows {
        let index: u32 = row.get("index");
        if indexes.last().is_none_or(|last| last.oid != index) {
            indexes.push(UniqueIndex { oid: index, primary: row.get("primary"), columns: Vec::new() });
        }
        if let Some(last) = indexes.last_mut() {
            last.columns.push((row.get("column"), (row.get("schema"), row.get("operator"))));
        }
    }
    let finder = choose_finder(&relation, &indexes);
    let partitioned = relkind == "p";
    let fold_key = match &finder {
        Some(finder) if !partitioned => choose_fold_key(&relation, finder, &indexes, &deterministic),
        _ => None,
    };
    Ok(Target {
        relation,
        types,
        finder,
        partitioned,
        set_types: SetTypes { arrays, row: row_type, columns },
        fold_key,
        insert: None,
        delete: None,
        updates: HashMap::new(),
        replaces: HashMap::new(),
        update_sets: HashMap::new(),
        delete_set: None,
        insert_set: None,
        copy: None,
    })
}

/// A column of the twin.
struct TwinColumn {
    sql: String,
    array: Option<ArrayOf>,
    deterministic: bool,
}

fn twin_column(row: &tokio_postgres::Row) -> TwinColumn {
    let array: Option<String> = row.get("array");
    TwinColumn {
        sql: row.get("type"),
        array: array.map(|name| ArrayOf { element: row.get("element"), name }),
        deterministic: row.get("deterministic"),
    }
}

fn missing(message: String) -> Error {
    Error::Shadow {
        message,
        hint: "The shadow's schema was changed, or the copy is incomplete; start the job anew.".to_owned(),
        retry: true,
    }
}

/// A unique index of the shadow, with each column's equality operator.
#[derive(Debug, Clone)]
struct UniqueIndex {
    oid: u32,
    primary: bool,
    columns: Vec<(String, (String, String))>,
}

/// How rows of `relation` are found on the shadow.
fn choose_finder(relation: &Relation, indexes: &[UniqueIndex]) -> Option<Finder> {
    let place = |name: &str| relation.columns.iter().position(|c| c.name == name);
    let by_index = |index: &UniqueIndex| -> Option<Finder> {
        let columns = index.columns.iter();
        let keys = columns
            .map(|(name, operator)| Some(KeyColumn { place: place(name)?, operator: operator.clone() }));
        keys.collect::<Option<Vec<_>>>().map(Finder::Key)
    };
    if relation.replica_identity == ReplicaIdentity::Full {
        // The old row holds every column: the primary key is the quick way to it.
        let primary = indexes.iter().find(|index| index.primary);
        return Some(primary.and_then(by_index).unwrap_or(Finder::Image));
    }
    let wanted: BTreeSet<&str> = relation.columns.iter().filter(|c| c.key).map(|c| c.name.as_str()).collect();
    if wanted.is_empty() {
        return None;
    }
    let same = |index: &&UniqueIndex| {
        index.columns.iter().map(|(n, _)| n.as_str()).collect::<BTreeSet<_>>() == wanted
    };
    let plain = || {
        let equals = || ("pg_catalog".to_owned(), "=".to_owned());
        let keys =
            wanted.iter().filter_map(|name| Some(KeyColumn { place: place(name)?, operator: equals() }));
        Finder::Key(keys.collect())
    };
    Some(indexes.iter().find(same).and_then(by_index).unwrap_or_else(plain))
}

/// The places of the key by whose bytes changes of `relation` may be folded:
/// two keys are equal exactly when their bytes are, the shadow holds a key at
/// most once, and an update can set every column outside the key.
fn choose_fold_key(
    relation: &Relation,
    finder: &Finder,
    indexes: &[UniqueIndex],
    deterministic: &[bool],
) -> Option<Vec<usize>> {
    let Finder::Key(columns) = finder else { return None };
    if relation.format != Format::Binary || relation.replica_identity == ReplicaIdentity::Full {
        return None;
    }
    let places: Vec<usize> = columns.iter().map(|key| key.place).collect();
    let bytes_tell = columns.iter().all(|key| {
        let column = relation.columns.get(key.place);
        column.is_some_and(|c| EQUAL_BY_BYTES.contains(&c.type_oid))
            && deterministic.get(key.place) == Some(&true)
            && key.operator.0 == "pg_catalog"
            && key.operator.1 == "="
    });
    let names: BTreeSet<&str> =
        places.iter().filter_map(|p| relation.columns.get(*p)).map(|c| c.name.as_str()).collect();
    let unique = indexes
        .iter()
        .any(|index| index.columns.iter().map(|(n, _)| n.as_str()).collect::<BTreeSet<_>>() == names);
    let settable =
        relation.columns.iter().enumerate().all(|(p, c)| !c.identity_always || places.contains(&p));
    (bytes_tell && unique && settable && !places.is_empty()).then_some(places)
}

/// Refuses names that are not a user's.
pub fn check_name(relation: &Relation) -> Result<()> {
    if is_reserved(&relation.schema) {
        return Err(Error::protocol(format!("{} is not a user's table", full_name(relation))));
    }
    Ok(())
}

/// Schemas that are ours or the server's.
#[must_use]
pub fn is_reserved(schema: &str) -> bool {
    schema == "scry_shadow" || schema == "information_schema" || schema.starts_with("pg_")
}

/// The relation's name as SQL.
#[must_use]
pub fn qualified(relation: &Relation) -> String {
    quote::qualified(&relation.schema, &relation.name)
}

/// The relation's name for messages: on one line.
#[must_use]
pub fn full_name(relation: &Relation) -> String {
    qualified(relation).replace(char::is_control, "?")
}

/// Relations that one stream may describe: about a kilobyte each.
const RELATIONS_MAX: usize = 100_000;
/// Twins that are kept with their prepared statements.
const TARGETS_MAX: usize = 2_000;
/// Sets of unchanged columns that are kept prepared for one table.
const VARIANTS_MAX: usize = 64;

/// Built-in types whose values are equal exactly when their bytes are: bool,
/// bytea, "char", name, int8, int2, int4, text, oid, varchar, date, time,
/// timestamp, timestamptz, uuid. Text only under a deterministic collation.
const EQUAL_BY_BYTES: [u32; 15] = [16, 17, 18, 19, 20, 21, 23, 25, 26, 1043, 1082, 1083, 1114, 1184, 2950];

const FIND: &str = "SELECT c.oid, c.relkind::text, c.reltype FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1::text AND c.relname = $2::text AND c.relkind IN ('r', 'p')";

/// The array type stands under its own name: it has no modifier.
const COLUMNS: &str = "SELECT a.attname::text AS column, a.atttypid AS element, \
        pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, \
        (SELECT pg_catalog.format('%I.%I', n.nspname, e.typname) FROM pg_catalog.pg_type e \
            JOIN pg_catalog.pg_namespace n ON n.oid = e.typnamespace WHERE e.oid = t.typarray) AS array, \
        coalesce((SELECT c.collisdeterministic FROM pg_catalog.pg_collation c \
            WHERE c.oid = a.attcollation), true) AS deterministic \
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";

/// Unique indexes over plain columns, with the equality operator of each
/// column's operator class (strategy 3 of btree). A deferrable one is none:
/// inside a transaction it may hold a key twice.
const INDEXES: &str = "SELECT i.indexrelid AS index, i.indisprimary AS primary, a.attname::text AS column, \
        n.nspname::text AS schema, o.oprname::text AS operator \
    FROM pg_catalog.pg_index i \
    CROSS JOIN LATERAL unnest(i.indkey::int2[], i.indclass::oid[]) \
        WITH ORDINALITY AS k (attnum, opclass, place) \
    JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
    JOIN pg_catalog.pg_opclass c ON c.oid = k.opclass \
    JOIN pg_catalog.pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3 \
        AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype \
    JOIN pg_catalog.pg_operator o ON o.oid = m.amopopr \
    JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace \
    WHERE i.indrelid = $1 AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
    ORDER BY i.indisprimary DESC, i.indexrelid, k.place";

#[cfg(test)]
mod tests {
    use super::*;
    use scry_wire::message::{Column, Format};

    fn relation(identity: ReplicaIdentity, keys: &[bool]) -> Relation {
        let columns = keys.iter().zip(["a", "b", "c"]).map(|(key, name)| Column {
            attnum: 1,
            key: *key,
            identity_always: false,
            type_oid: 23,
            type_mod: -1,
            name: name.to_owned(),
        });
        Relation {
            relid: 1,
            format: Format::Binary,
            replica_identity: identity,
            schema: "public".into(),
            name: "t".into(),
            columns: columns.collect(),
        }
    }

    fn index(primary: bool, columns: &[&str]) -> UniqueIndex {
        let operator = ("ext".to_owned(), "=".to_owned());
        UniqueIndex {
            oid: 1,
            primary,
            columns: columns.iter().map(|c| ((*c).to_owned(), operator.clone())).collect(),
        }
    }

    fn places(finder: Option<Finder>) -> Vec<(usize, String)> {
        match finder {
            Some(Finder::Key(keys)) => keys.into_iter().map(|k| (k.place, k.operator.0)).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn takes_the_operators_of_the_index_over_the_identity() {
        let relation = relation(ReplicaIdentity::Default, &[true, true, false]);
        let indexes = [index(false, &["c"]), index(true, &["b", "a"])];
        assert_eq!(places(choose_finder(&relation, &indexes)), [(1, "ext".into()), (0, "ext".into())]);
        assert_eq!(
            places(choose_finder(&relation, &[])),
            [(0, "pg_catalog".into()), (1, "pg_catalog".into())]
        );
    }

    #[test]
    fn finds_full_rows_by_primary_key_or_image() {
        let relation = relation(ReplicaIdentity::Full, &[true, true, true]);
        assert_eq!(places(choose_finder(&relation, &[index(true, &["a"])])), [(0, "ext".into())]);
        assert_eq!(choose_finder(&relation, &[index(false, &["a"])]), Some(Finder::Image));
    }

    #[test]
    fn folds_only_by_keys_whose_bytes_tell() {
        let key = |relation: &Relation, deterministic: bool| {
            let indexes = [UniqueIndex {
                oid: 1,
                primary: true,
                columns: vec![("a".into(), ("pg_catalog".into(), "=".into()))],
            }];
            let finder = choose_finder(relation, &indexes).unwrap();
            choose_fold_key(relation, &finder, &indexes, &[deterministic, true])
        };
        let good = relation(ReplicaIdentity::Default, &[true, false]);
        assert_eq!(key(&good, true), Some(vec![0]));
        assert_eq!(key(&good, false), None, "a collation that calls other bytes equal");
        let mut numeric = good.clone();
        numeric.columns[0].type_oid = 1700;
        assert_eq!(key(&numeric, true), None, "1.0 and 1.00");
        let mut text = good.clone();
        text.format = Format::Text;
        assert_eq!(key(&text, true), None);
        let mut identity = good.clone();
        identity.columns[1].identity_always = true;
        assert_eq!(key(&identity, true), None, "a column that no update sets");
        assert_eq!(key(&relation(ReplicaIdentity::Full, &[true, true]), true), None);
        let finder = choose_finder(&good, &[]).unwrap();
        assert_eq!(choose_fold_key(&good, &finder, &[], &[true, true]), None, "no unique index");
    }

    #[test]
    fn knows_when_there_is_no_identity() {
        assert_eq!(choose_finder(&relation(ReplicaIdentity::Nothing, &[false, false]), &[]), None);
    }

    #[test]
    fn refuses_schemas_that_are_not_a_users() {
        for schema in ["scry_shadow", "pg_catalog", "pg_toast", "information_schema"] {
            assert!(is_reserved(schema));
        }
        assert!(!is_reserved("public"));
    }
}
