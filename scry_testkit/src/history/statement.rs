//! What there is to change, as the catalogs show it.

use anyhow::{Context, Result};
use postgres::Client;

/// A column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Quoted name.
    pub name: String,
    /// As `format_type` writes it.
    pub data_type: String,
    /// `a` always, `d` by default, or empty.
    pub identity: String,
    /// Its value is computed.
    pub generated: bool,
    /// NULL is refused.
    pub not_null: bool,
    /// Part of the primary key.
    pub key: bool,
}

/// A table with rows of its own, or a partitioned one.
#[derive(Debug, Clone)]
pub struct Table {
    /// Schema and name, quoted.
    pub name: String,
    /// Partitioned.
    pub partitioned: bool,
    /// A partition.
    pub partition: bool,
    /// Its columns.
    pub columns: Vec<Column>,
}

impl Table {
    /// The schema, quoted.
    pub fn schema(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// Whether `regclass` means it: without a schema of the search path, maybe.
    pub fn is_named(&self, regclass: &str) -> bool {
        self.name == regclass || self.name.strip_prefix("public.") == Some(regclass)
    }

    /// Columns that can be written.
    pub fn writable(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| !column.generated && column.identity != "a")
    }
}

/// Objects of the user's schemas, as quoted names.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Tables.
    pub tables: Vec<Table>,
    /// Indexes without a constraint.
    pub indexes: Vec<String>,
    /// Table and constraint.
    pub constraints: Vec<(String, String)>,
    /// Views.
    pub views: Vec<String>,
    /// Materialized views.
    pub matviews: Vec<String>,
    /// Sequences.
    pub sequences: Vec<String>,
    /// Enum types.
    pub enums: Vec<String>,
    /// Domains.
    pub domains: Vec<String>,
    /// Functions with their arguments.
    pub functions: Vec<String>,
    /// Table and trigger.
    pub triggers: Vec<(String, String)>,
    /// Table and policy.
    pub policies: Vec<(String, String)>,
    /// Statistics objects.
    pub statistics: Vec<String>,
}

/// The schemas that histories live in.
pub const SCHEMAS: &[&str] = &["public", "app", "\"Od d\""];

const IN_SCOPE: &str = "IN ('public', 'app', 'Od d')";

impl Catalog {
    /// Reads it.
    pub fn read(client: &mut Client) -> Result<Catalog> {
        let mut names = |what: &str, sql: String| -> Result<Vec<(String, String)>> {
            let rows = client.query(&sql, &[]).with_context(|| format!("read {what}"))?;
            Ok(rows.iter().map(|row| (row.get(0), row.try_get(1).unwrap_or_default())).collect())
        };
        let relations = |kinds: &str| {
            format!(
                "SELECT format('%I.%I', n.nspname, c.relname), '' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname {IN_SCOPE} AND c.relkind IN ({kinds}) AND c.relpersistence = 'p' \
                 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('i', 'e')) ORDER BY 1"
            )
        };
        let of_table = |name: &str, from: &str, relid: &str, more: &str| {
            format!(
                "SELECT {relid}::regclass::text, quote_ident({name}) FROM {from} x JOIN pg_class c ON c.oid = {relid} \
                 JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname {IN_SCOPE} {more} ORDER BY 1, 2"
            )
        };
        let of_schema = |name: &str, from: &str, schema: &str, more: &str| {
            format!(
                "SELECT format('%I.%I', n.nspname, {name}), '' FROM {from} x JOIN pg_namespace n ON n.oid = {schema} \
                 WHERE n.nspname {IN_SCOPE} {more} ORDER BY 1"
            )
        };
        let firsts = |pairs: Vec<(String, String)>| pairs.into_iter().map(|(name, _)| name).collect();
        let mut catalog = Catalog {
            indexes: firsts(names("indexes", relations("'i'"))?),
            views: firsts(names("views", relations("'v'"))?),
            matviews: firsts(names("materialized views", relations("'m'"))?),
            sequences: firsts(names("sequences", relations("'S'"))?),
            constraints: names(
                "constraints",
                of_table("conname", "pg_constraint", "conrelid", "AND conislocal"),
            )?,
            triggers: names("triggers", of_table("tgname", "pg_trigger", "tgrelid", "AND NOT tgisinternal"))?,
            policies: names("policies", of_table("polname", "pg_policy", "polrelid", ""))?,
            enums: firsts(names(
                "enums",
                of_schema("typname", "pg_type", "typnamespace", "AND typtype = 'e'"),
            )?),
            domains: firsts(names(
                "domains",
                of_schema("typname", "pg_type", "typnamespace", "AND typtype = 'd'"),
            )?),
            statistics: firsts(names(
                "statistics",
                of_schema("stxname", "pg_statistic_ext", "stxnamespace", ""),
            )?),
            functions: firsts(names(
                "functions",
                format!(
                    "SELECT p.oid::regprocedure::text, '' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
                     WHERE n.nspname {IN_SCOPE} ORDER BY 1"
                ),
            )?),
            tables: Vec::new(),
        };
        let sql = format!(
            "SELECT format('%I.%I', n.nspname, c.relname), c.relkind = 'p', c.relispartition, quote_ident(a.attname), \
             format_type(a.atttypid, a.atttypmod), a.attidentity::text, a.attgenerated <> '', a.attnotnull, \
             coalesce(a.attnum = ANY (i.indkey), false) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
             LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary \
             WHERE n.nspname {IN_SCOPE} AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' \
             ORDER BY n.nspname, c.relname, a.attnum"
        );
        for row in client.query(&sql, &[]).context("read tables")? {
            let name: String = row.get(0);
            if catalog.tables.last().is_none_or(|table| table.name != name) {
                let (partitioned, partition) = (row.get(1), row.get(2));
                catalog.tables.push(Table { name, partitioned, partition, columns: Vec::new() });
            }
            if let (Some(table), Some(name)) = (catalog.tables.last_mut(), row.get::<_, Option<String>>(3)) {
                table.columns.push(Column {
                    name,
                    data_type: row.get(4),
                    identity: row.get(5),
                    generated: row.get(6),
                    not_null: row.get(7),
                    key: row.get(8),
                });
            }
        }
        Ok(catalog)
    }
}
