//! Which tables a list of names means, and which of them cannot be taken.
//!
//! ```text
//!   names, globs ──catalogs, caller's search_path──► relations
//!                        │ partitions, inheritance children
//!                        ▼
//!                    tables   refused (named one by one: an error; by a glob: left out and told)
//! ```
//!
//! The catalogs are read as superuser with a safe search_path; what the caller
//! may do is asked for the caller by OID. Nothing is changed here.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pgrx::PgSqlErrorCode;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::Oid;
use pgrx::spi;

use super::names::{self, TablePattern};
use super::options::{Alone, JobOptions, Keyless};
use super::refusal::{Refusal, plural};
use crate::pg::read;

/// A relation of the database, as far as a selection cares.
#[derive(Debug, Clone)]
pub struct Relation {
    /// Its OID.
    pub oid: u32,
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    kind: char,
    persistence: char,
    identity: char,
    has_key: bool,
    system: bool,
    may_use_schema: bool,
    may_select: bool,
    row_security: bool,
    extension: Option<String>,
}

impl Relation {
    /// `schema.name`, quoted where SQL needs it.
    pub fn quoted(&self) -> String {
        // Every session calls its own temporary schema so.
        let schema = if self.persistence == 't' { "pg_temp" } else { &self.schema };
        spi::quote_qualified_identifier(schema, &self.name)
    }

    /// Whether updates and deletes can be told apart row by row.
    fn is_keyless(&self) -> bool {
        self.kind == 'r' && self.identity != 'f' && !self.has_key
    }

    /// Why this relation cannot be copied whoever asks.
    fn unfit(&self) -> Option<Refusal> {
        let name = self.quoted();
        let (what, hint) = match (self.kind, self.persistence) {
            _ if self.system => ("is a system table", "Every server has its own."),
            ('v', _) => {
                ("is a view", "Select the tables it reads; views are made on the shadow from the catalog.")
            }
            ('m', _) => (
                "is a materialized view",
                "Select the tables it reads; materialized views are made on the shadow from the catalog.",
            ),
            ('f', _) => ("is a foreign table", "Its rows are not in this database."),
            (_, 't') => ("is a temporary table", "Only its session can read it."),
            (_, 'u') => (
                "is an unlogged table",
                "Its changes are not in the WAL. Make it logged: ALTER TABLE ... SET LOGGED.",
            ),
            _ => return None,
        };
        Some(
            Refusal::new(
                PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
                format!("cannot shadow {name}: it {what}"),
            )
            .hint(hint),
        )
    }

    /// Why the caller may not have it copied.
    fn forbidden(&self) -> Option<Refusal> {
        let name = self.quoted();
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        if !self.may_use_schema {
            return Some(
                Refusal::new(code, format!("permission denied for schema {}", self.schema))
                    .detail(format!("The caller needs USAGE on the schema to shadow {name}.")),
            );
        }
        if !self.may_select {
            return Some(
                Refusal::new(code, format!("permission denied for table {name}"))
                    .detail("The caller needs SELECT on every table of a job.")
                    .hint(format!(
                        "GRANT SELECT ON {name} to the caller, or have a superuser start the job."
                    )),
            );
        }
        if self.row_security {
            return Some(
                Refusal::new(code, format!("cannot shadow {name}: row security applies to the caller"))
                    .detail("The shadow holds all rows of a table, also those that its policies hide.")
                    .hint("Have a role with BYPASSRLS, or the table's owner, start the job."),
            );
        }
        None
    }
}

/// What a list of names comes to.
#[derive(Debug, Default)]
pub struct Selection {
    /// The tables to copy, by schema and name.
    pub tables: Vec<Relation>,
    /// All relations taken, partitioned parents too.
    pub covered: BTreeSet<u32>,
    /// The partitioned parents among them.
    pub parents: Vec<Relation>,
    /// What the job leaves alone ([`JobOptions::alone`]): partitioned parents too.
    pub alone: BTreeSet<u32>,
    /// The list again, each name and glob with its schema.
    pub qualified: Vec<String>,
    /// Why the list as it stands cannot be taken.
    pub refused: Vec<Refusal>,
    /// What a glob or an option left out: relation and reason.
    pub left_out: Vec<(String, String)>,
    /// The list means the whole database.
    pub whole_database: bool,
    /// Tables without a usable key that were taken all the same.
    pub inserts_only: Vec<String>,
}

/// Who asks, and how names are looked up for them.
pub struct Caller {
    user: Oid,
    /// Schemas of the search_path, those searched implicitly too.
    path: Vec<String>,
}

impl Caller {
    /// The current user and search_path. Before anything changes either.
    pub fn current() -> Result<Caller, Refusal> {
        let path =
            read::one::<Vec<String>>("SELECT pg_catalog.current_schemas(true)::pg_catalog.text[]", &[])?
                .unwrap_or_default();
        Ok(Caller { user: crate::pg::server::user(), path })
    }

    /// The one who started a job, as its row keeps them.
    pub fn of_job(user: u32, path: Vec<String>) -> Caller {
        Caller { user: Oid::from(user), path }
    }

    /// Schemas along which names are looked up.
    pub fn path(&self) -> &[String] {
        &self.path
    }
}

/// All that the catalogs say about relations.
struct Catalog {
    relations: BTreeMap<u32, Relation>,
    by_name: HashMap<(String, String), u32>,
    children: HashMap<u32, Vec<u32>>,
}

const RELATIONS: &str = "
    SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, c.relreplident::text,
        EXISTS (SELECT FROM pg_catalog.pg_index AS i
            WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND i.indisunique AND i.indpred IS NULL
            AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute AS a
                WHERE a.attrelid = c.oid AND a.attgenerated <> ''
                AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]))),
        n.nspname ^@ 'pg_' AND c.relpersistence <> 't' OR n.nspname IN ('information_schema', 'scry_backfill'),
        pg_catalog.has_schema_privilege($1, n.oid, 'USAGE'),
        pg_catalog.has_table_privilege($1, c.oid, 'SELECT'),
        c.relrowsecurity AND NOT u.rolsuper AND NOT u.rolbypassrls
            AND (c.relforcerowsecurity OR NOT pg_catalog.pg_has_role($1, c.relowner, 'USAGE')),
        e.extname::text
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_roles AS u ON u.oid = $1
    LEFT JOIN pg_catalog.pg_depend AS d
        ON d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
        AND d.deptype = 'e' AND d.refclassid = 'pg_catalog.pg_extension'::regclass
    LEFT JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'pg_toast'";

const CHILDREN: &str = "SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits ORDER BY inhparent, inhrelid";

impl Catalog {
    /// Reads it for `caller`; as superuser.
    fn read(caller: &Caller) -> Result<Catalog, Refusal> {
        let relations = read::rows(RELATIONS, &[DatumWithOid::from(caller.user)], |rows| {
            let mut relations = Vec::new();
            for row in rows {
                let letter = |text: Option<String>| text.and_then(|text| text.chars().next()).unwrap_or('?');
                relations.push(Relation {
                    oid: row.get::<Oid>(1)?.map_or(0, Oid::to_u32),
                    schema: row.get(2)?.unwrap_or_default(),
                    name: row.get(3)?.unwrap_or_default(),
                    kind: letter(row.get(4)?),
                    persistence: letter(row.get(5)?),
                    identity: letter(row.get(6)?),
                    has_key: row.get(7)?.unwrap_or(false),
                    system: row.get(8)?.unwrap_or(false),
                    may_use_schema: row.get(9)?.unwrap_or(false),
                    may_select: row.get(10)?.unwrap_or(false),
                    row_security: row.get(11)?.unwrap_or(true),
                    extension: row.get(12)?,
                });
            }
            Ok(relations)
        })?;
        let children = read::rows(CHILDREN, &[], |rows| {
            let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
            for row in rows {
                let parent = row.get::<Oid>(1)?.map_or(0, Oid::to_u32);
                children.entry(parent).or_default().extend(row.get::<Oid>(2)?.map(Oid::to_u32));
            }
            Ok(children)
        })?;
        let by_name = relations.iter().map(|r| ((r.schema.clone(), r.name.clone()), r.oid)).collect();
        let relations = relations.into_iter().map(|relation| (relation.oid, relation)).collect();
        Ok(Catalog { relations, by_name, children })
    }

    fn find(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.relations.get(self.by_name.get(&(schema.to_owned(), name.to_owned()))?)
    }

    /// The relation a name without wildcards means.
    fn lookup(&self, caller: &Caller, schema: Option<&str>, name: &str) -> Option<&Relation> {
        match schema {
            Some(schema) => self.find(schema, name),
            None => caller.path.iter().find_map(|schema| self.find(schema, name)),
        }
    }

    fn unknown(&self, pattern: &TablePattern, schema: Option<&str>, name: &str) -> Refusal {
        let refusal = Refusal::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("table {} does not exist", pattern.quoted()),
        );
        let user = self.relations.values().filter(|relation| !relation.system && relation.may_use_schema);
        let elsewhere: Vec<String> =
            user.clone().filter(|relation| relation.name == name).take(3).map(Relation::quoted).collect();
        if !elsewhere.is_empty() {
            let reason = if schema.is_some() { "in another schema" } else { "outside the search_path" };
            return refusal.hint(format!("There is {} {reason}.", elsewhere.join(" and ")));
        }
        let near = names::near(name, user.map(|relation| relation.name.as_str()));
        if near.is_empty() {
            return refusal
                .hint("Names are looked up along search_path; name the schema, or use a glob as 'shop.*'.");
        }
        refusal.hint(format!("Perhaps you meant {}.", near.join(" or ")))
    }

    /// Whether a relation fits a pattern; without a schema only along the search_path.
    fn fits(caller: &Caller, pattern: &TablePattern, relation: &Relation) -> bool {
        let in_schema = match &pattern.schema {
            Some(schema) => schema.matches(&relation.schema),
            None => pattern.is_everything() || caller.path.contains(&relation.schema),
        };
        in_schema && pattern.table.matches(&relation.name)
    }

    /// Tables that are left alone, with all below them.
    fn alone(&self, caller: &Caller, alone: &Alone) -> BTreeSet<u32> {
        let is_meant = |relation: &&Relation| {
            matches!(relation.kind, 'r' | 'p')
                && !relation.system
                && (alone.relids.contains(&relation.oid)
                    || alone.patterns.iter().any(|pattern| Self::fits(caller, pattern, relation)))
        };
        let roots = self.relations.values().filter(is_meant);
        roots.flat_map(|relation| self.family(relation.oid)).collect()
    }

    /// A name or glob with the schemas that it means now; nothing for a name that nothing has.
    fn qualified(&self, caller: &Caller, pattern: &TablePattern) -> Vec<String> {
        if let Some((schema, name)) = pattern.exact() {
            let found = self.lookup(caller, schema.as_deref(), &name);
            return found.map(Relation::quoted).into_iter().collect();
        }
        if pattern.schema.is_some() || pattern.is_everything() {
            return vec![pattern.text.clone()];
        }
        let schemas = caller.path.iter().filter(|schema| !schema.starts_with("pg_"));
        schemas.map(|schema| format!("{}.{}", spi::quote_identifier(schema), pattern.text)).collect()
    }

    /// A relation and all below it: partitions, inheritance children.
    fn family(&self, root: u32) -> Vec<u32> {
        let mut seen = BTreeSet::from([root]);
        let mut family = vec![root];
        let mut at = 0;
        while let Some(parent) = family.get(at) {
            for child in self.children.get(parent).into_iter().flatten() {
                if seen.insert(*child) {
                    family.push(*child);
                }
            }
            at += 1;
        }
        family
    }
}

/// The tables that a job leaves alone, as they are now. As superuser.
pub fn left_alone(alone: &Alone, caller: &Caller) -> Result<BTreeSet<u32>, Refusal> {
    if alone.is_empty() {
        return Ok(BTreeSet::new());
    }
    Ok(Catalog::read(caller)?.alone(caller, alone))
}

/// Finds the tables that `list` means. As superuser; names are the caller's.
pub fn select(list: &str, options: &JobOptions, caller: &Caller) -> Result<Selection, Refusal> {
    let patterns = names::parse(list)?;
    let catalog = Catalog::read(caller)?;
    let mut selection = Selection::default();
    let mut roots: BTreeSet<u32> = BTreeSet::new();
    for pattern in &patterns {
        selection.qualified.extend(catalog.qualified(caller, pattern));
        match pattern.exact() {
            Some((schema, name)) => match catalog.lookup(caller, schema.as_deref(), &name) {
                None => selection.refused.push(catalog.unknown(pattern, schema.as_deref(), &name)),
                Some(relation) => {
                    let refused = relation.unfit().or_else(|| relation.forbidden());
                    match refused {
                        Some(refusal) => selection.refused.push(refusal),
                        None => {
                            roots.insert(relation.oid);
                        }
                    }
                }
            },
            None => select_glob(&catalog, caller, pattern, &mut selection, &mut roots),
        }
    }
    selection.whole_database = options.include.is_empty()
        && options.exclude.is_empty()
        && patterns.iter().any(TablePattern::is_everything);
    selection.alone = catalog.alone(caller, &options.alone);
    expand(&catalog, caller, options, &roots, &mut selection);
    judge_keys(options, &mut selection);
    if selection.tables.is_empty() && selection.refused.is_empty() && !selection.whole_database {
        selection.refused.push(
            Refusal::new(PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, format!("no table fits \"{}\"", list.trim()))
                .hint("Globs without a schema are looked up along search_path; '*' means all tables of the database."),
        );
    }
    Ok(selection)
}

fn select_glob(
    catalog: &Catalog,
    caller: &Caller,
    pattern: &TablePattern,
    selection: &mut Selection,
    roots: &mut BTreeSet<u32>,
) {
    let mut forbidden: Vec<(u32, Refusal)> = Vec::new();
    for relation in catalog.relations.values() {
        if relation.system || relation.persistence == 't' || !Catalog::fits(caller, pattern, relation) {
            continue;
        }
        if let Some(refusal) = relation.unfit() {
            // Views come from the catalog; there is nothing to tell.
            if !matches!(relation.kind, 'v' | 'm') {
                selection.left_out.push((relation.quoted(), refusal.finding()));
            }
        } else if let Some(extension) = &relation.extension {
            selection.left_out.push((relation.quoted(), format!("it belongs to extension {extension}")));
        } else if let Some(refusal) = relation.forbidden() {
            forbidden.push((relation.oid, refusal));
        } else {
            roots.insert(relation.oid);
        }
    }
    // Who may read a parent may read its children through it.
    let below: BTreeSet<u32> = roots.iter().flat_map(|root| catalog.family(*root)).collect();
    selection
        .refused
        .extend(forbidden.into_iter().filter(|(oid, _)| !below.contains(oid)).map(|(_, refusal)| refusal));
}

/// Adds partitions and children, applies include and exclude.
fn expand(
    catalog: &Catalog,
    caller: &Caller,
    options: &JobOptions,
    roots: &BTreeSet<u32>,
    selection: &mut Selection,
) {
    let fits_any = |patterns: &[TablePattern], relation: &Relation| {
        patterns.iter().any(|pattern| Catalog::fits(caller, pattern, relation))
    };
    let mut tables: BTreeMap<(String, String), Relation> = BTreeMap::new();
    for root in roots {
        let wanted = catalog.relations.get(root).is_some_and(|root| {
            (options.include.is_empty() || fits_any(&options.include, root))
                && !fits_any(&options.exclude, root)
        });
        if !wanted {
            continue;
        }
        for member in catalog.family(*root) {
            let Some(relation) = catalog.relations.get(&member) else { continue };
            if fits_any(&options.exclude, relation) || selection.alone.contains(&member) {
                continue;
            }
            let is_new = selection.covered.insert(member);
            if relation.kind == 'p' {
                selection.parents.extend(is_new.then(|| relation.clone()));
                continue;
            }
            if let Some(refusal) = relation.unfit() {
                selection.left_out.push((relation.quoted(), refusal.finding()));
                continue;
            }
            tables.insert((relation.schema.clone(), relation.name.clone()), relation.clone());
        }
    }
    selection.tables = tables.into_values().collect();
    selection.left_out.sort();
    selection.left_out.dedup();
}

/// Refuses, leaves out or notes the tables without a usable key.
fn judge_keys(options: &JobOptions, selection: &mut Selection) {
    let (keyless, keyed): (Vec<Relation>, Vec<Relation>) =
        selection.tables.drain(..).partition(Relation::is_keyless);
    selection.tables = keyed;
    if keyless.is_empty() {
        return;
    }
    match options.keyless {
        Keyless::Refuse => {
            selection.refused.push(keyless_refusal(&keyless));
        }
        Keyless::Skip => {
            for relation in keyless {
                selection.covered.remove(&relation.oid);
                selection
                    .left_out
                    .push((relation.quoted(), "it has no usable key (keyless: skip)".to_owned()));
            }
        }
        Keyless::InsertsOnly => {
            selection.inserts_only = keyless.iter().map(Relation::quoted).collect();
            selection.tables.extend(keyless);
            selection.tables.sort_by(|a, b| (&a.schema, &a.name).cmp(&(&b.schema, &b.name)));
        }
    }
}

fn keyless_refusal(keyless: &[Relation]) -> Refusal {
    const SHOWN: usize = 20;
    let names: Vec<String> = keyless.iter().take(SHOWN).map(Relation::quoted).collect();
    let more = keyless.len().saturating_sub(SHOWN);
    let list = if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") };
    Refusal::not_ready(format!(
        "{} {list} {} no key that identifies a row",
        plural(keyless.len(), "table", "tables"),
        plural(keyless.len(), "has", "have")
    ))
    .detail("An update or delete of such a table does not say which row it means.")
    .hint(
        "Add a primary key, or name a unique index: ALTER TABLE ... REPLICA IDENTITY USING INDEX ...; or say what to do \
         with such tables: options => '{\"keyless\": \"skip\"}' or '{\"keyless\": \"inserts_only\"}'.",
    )
}

/// Refuses the tables that hold what nothing can write: values of types whose input functions take
/// no text and whose receive functions no bytes (`pg_node_tree_in` and its like), which are made
/// inside the server only. Reads rows: not while a place in the WAL is being decoded.
pub fn refuse_closed(selection: &mut Selection) -> Result<(), Refusal> {
    const COLUMNS: &str = "
        WITH RECURSIVE closed (oid) AS (
            SELECT t.oid FROM pg_catalog.pg_type AS t WHERE t.typnamespace = 'pg_catalog'::regnamespace
                AND t.typname IN ('gtsvector', 'pg_brin_bloom_summary', 'pg_brin_minmax_multi_summary',
                    'pg_dependencies', 'pg_mcv_list', 'pg_ndistinct', 'pg_node_tree')
            UNION ALL
            SELECT t.oid FROM closed JOIN pg_catalog.pg_type AS t ON t.typbasetype = closed.oid)
        SELECT a.attrelid::regclass::text, pg_catalog.quote_ident(a.attname),
            pg_catalog.format_type(a.atttypid, a.atttypmod)
        FROM pg_catalog.pg_attribute AS a JOIN closed ON closed.oid = a.atttypid
        WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum";
    let relids: Vec<Oid> = selection.tables.iter().map(|table| Oid::from(table.oid)).collect();
    let columns = read::rows(COLUMNS, &[relids.into()], |rows| {
        rows.map(|row| Ok([row.get::<String>(1)?, row.get(2)?, row.get(3)?].map(Option::unwrap_or_default)))
            .collect::<Result<Vec<_>, spi::Error>>()
    })?;
    for [table, column, of_type] in columns {
        let any = format!("SELECT EXISTS (SELECT FROM ONLY {table} WHERE {column} IS NOT NULL)");
        if read::one::<bool>(&any, &[])? == Some(true) {
            selection.refused.push(
                Refusal::new(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("cannot shadow {table}: its column {column} holds values of type {of_type}"),
                )
                .detail("The server accepts no value of this type from outside.")
                .hint("Leave the table out of the job, or keep the column's values as text."),
            );
        }
    }
    Ok(())
}
