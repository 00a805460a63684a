//! Is the content of tables the same on two servers?
//!
//! A table's digest is its row count and a hash that does not depend on the
//! order of the rows, on the order of the columns (a restored inheritance
//! child may have another one) or on any setting: each row's values are
//! written as the text of a record, columns in the order of their names, under
//! fixed settings; the md5 of each is added up as two 64-bit numbers.
//!
//! Not for rows near a gigabyte: their text form is larger than PostgreSQL's
//! limit. Tests with such rows compare by `octet_length` and `sha256`.

use anyhow::{Context, Result, bail};
use postgres::Client;
use std::fmt;

/// Settings that decide how values are written.
const FIXED_SETTINGS: &str = "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC'; \
     SET extra_float_digits = 3; SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET lc_numeric = 'C'; \
     SET xmloption = 'content'; SET search_path = pg_catalog; SET row_security = off; SET statement_timeout = 0";

/// The schemas that never belong to a user.
const USER_TABLES: &str = "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' \
       AND n.nspname NOT IN ('information_schema', 'scry_backfill', 'scry_shadow') \
     ORDER BY 1, 2";

/// A table's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableName {
    /// Its schema.
    pub schema: String,
    /// Its name in the schema.
    pub name: String,
}

impl TableName {
    /// A table of schema `public`, or of another one if `name` has a dot.
    pub fn new(name: &str) -> TableName {
        let (schema, name) = name.split_once('.').unwrap_or(("public", name));
        TableName { schema: schema.to_owned(), name: name.to_owned() }
    }

    /// The name as it stands in SQL.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.schema), quote(&self.name))
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// Row count and hash of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// Number of rows.
    pub rows: i64,
    /// The hash, as text.
    pub hash: String,
}

/// One table on both sides; `None` where it does not exist.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// Which table.
    pub table: TableName,
    /// On the source.
    pub source: Option<Digest>,
    /// On the shadow.
    pub shadow: Option<Digest>,
}

impl Comparison {
    /// Whether the table exists on both sides with the same content.
    pub fn equal(&self) -> bool {
        self.source.is_some() && self.source == self.shadow
    }
}

/// The comparison of several tables; displays as a table of its own.
#[derive(Debug, Clone)]
pub struct Report(pub Vec<Comparison>);

impl Report {
    /// Whether every table is equal (and there is at least one).
    pub fn equal(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(Comparison::equal)
    }

    /// Fails with the whole report when a table differs.
    pub fn require_equal(&self) -> Result<()> {
        if !self.equal() {
            bail!("source and shadow differ:\n{self}");
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|row| row.table.to_string().len()).max().unwrap_or(0).max(5);
        writeln!(
            f,
            "{:width$}  {:>12}  {:>12}  {:16}  {:16}  equal",
            "table", "source rows", "shadow rows", "source hash", "shadow hash"
        )?;
        for row in &self.0 {
            let rows =
                |side: &Option<Digest>| side.as_ref().map_or("missing".to_owned(), |d| d.rows.to_string());
            let hash = |side: &Option<Digest>| side.as_ref().map_or(String::new(), |d| d.hash.clone());
            writeln!(
                f,
                "{:width$}  {:>12}  {:>12}  {:16}  {:16}  {}",
                row.table.to_string(),
                rows(&row.source),
                rows(&row.shadow),
                hash(&row.source),
                hash(&row.shadow),
                if row.equal() { "yes" } else { "NO" }
            )?;
        }
        Ok(())
    }
}

/// All ordinary tables of users in a database.
pub fn user_tables(client: &mut Client) -> Result<Vec<TableName>> {
    let rows = client.query(USER_TABLES, &[]).context("list the user's tables")?;
    Ok(rows.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) }).collect())
}

/// All materialized views of users that have been filled.
pub fn filled_views(client: &mut Client) -> Result<Vec<TableName>> {
    let sql = "SELECT schemaname::text, matviewname::text FROM pg_catalog.pg_matviews WHERE ispopulated ORDER BY 1, 2";
    let rows = client.query(sql, &[]).context("list the materialized views")?;
    Ok(rows.iter().map(|row| TableName { schema: row.get(0), name: row.get(1) }).collect())
}

/// The digest of a table (or a materialized view), or `None` when it does not exist.
pub fn digest(client: &mut Client, table: &TableName) -> Result<Option<Digest>> {
    client.batch_execute(FIXED_SETTINGS).context("fix the settings of values' text")?;
    let columns = client
        .query(
            "SELECT a.attname FROM pg_catalog.pg_attribute a \
             JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped \
             ORDER BY a.attname COLLATE \"C\"",
            &[&table.schema, &table.name],
        )
        .with_context(|| format!("read the columns of {table}"))?;
    if columns.is_empty() && !exists(client, table)? {
        return Ok(None);
    }
    let fields: Vec<String> = columns.iter().map(|row| format!("t.{}", quote(row.get(0)))).collect();
    let only = if is_partitioned(client, table)? { "" } else { "ONLY " };
    // The md5 is cut into halves because PostgreSQL has no 128-bit integer.
    let sql = format!(
        "SELECT count(*), \
                coalesce(sum(('x' || left(h, 16))::bit(64)::bigint::numeric), 0)::text, \
                coalesce(sum(('x' || right(h, 16))::bit(64)::bigint::numeric), 0)::text \
         FROM (SELECT md5(ROW({})::text) AS h FROM {only}{} t) rows",
        fields.join(", "),
        table.quoted()
    );
    let row = client.query_one(&sql, &[]).with_context(|| format!("hash {table}"))?;
    let (left, right): (String, String) = (row.get(1), row.get(2));
    let hash = client.query_one("SELECT left(md5($1::text || ' ' || $2::text), 16)", &[&left, &right])?;
    Ok(Some(Digest { rows: row.get(0), hash: hash.get(0) }))
}

/// Compares `tables` between two databases.
pub fn compare(source: &mut Client, shadow: &mut Client, tables: &[TableName]) -> Result<Report> {
    tables
        .iter()
        .map(|table| {
            let source = digest(source, table).context("on the source")?;
            let shadow = digest(shadow, table).context("on the shadow")?;
            Ok(Comparison { table: table.clone(), source, shadow })
        })
        .collect::<Result<Vec<_>>>()
        .map(Report)
}

fn exists(client: &mut Client, table: &TableName) -> Result<bool> {
    let sql = "SELECT to_regclass($1) IS NOT NULL";
    Ok(client.query_one(sql, &[&table.quoted()]).context("look for the table")?.get(0))
}

fn is_partitioned(client: &mut Client, table: &TableName) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1) AND relkind = 'p')";
    Ok(client.query_one(sql, &[&table.quoted()]).context("look for the table")?.get(0))
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::{TableName, compare, user_tables};
    use crate::cluster::{Cluster, ClusterOptions};
    use crate::lab::scenario;
    use anyhow::ensure;

    #[test]
    fn order_settings_and_column_order_do_not_matter_but_values_do() {
        scenario("content", |lab| {
            let cluster = Cluster::start_new(lab, "one", &ClusterOptions::default())?;
            cluster.psql("postgres", "CREATE DATABASE left_side; CREATE DATABASE right_side")?;
            cluster.psql(
                "left_side",
                "CREATE TABLE t(a int, b timestamptz, \"c d\" float8); CREATE TABLE e(); INSERT INTO e DEFAULT VALUES;
                 INSERT INTO t SELECT i, '2020-01-01 UTC'::timestamptz + i * '1s'::interval, i / 3.0
                 FROM generate_series(1, 1000) i",
            )?;
            cluster.psql(
                "right_side",
                "ALTER DATABASE right_side SET TimeZone = 'Asia/Tokyo'; SET TimeZone = 'Asia/Tokyo';
                 CREATE TABLE t(gone int, \"c d\" float8, b timestamptz, a int); ALTER TABLE t DROP gone;
                 CREATE TABLE e(); INSERT INTO e DEFAULT VALUES;
                 INSERT INTO t(a, b, \"c d\") SELECT i, '2020-01-01 UTC'::timestamptz + i * '1s'::interval, i / 3.0
                 FROM generate_series(1000, 1, -1) i",
            )?;
            let (mut left, mut right) = (cluster.client("left_side")?, cluster.client("right_side")?);
            let tables = user_tables(&mut left)?;
            ensure!(tables == [TableName::new("e"), TableName::new("t")]);
            compare(&mut left, &mut right, &tables)?.require_equal()?;

            // The same number of rows, one value exchanged between two of them.
            right.batch_execute("UPDATE public.t SET a = 3001 - a WHERE a IN (1000, 1)")?;
            let report = compare(&mut left, &mut right, &tables)?;
            ensure!(!report.equal() && report.0[0].equal() && !report.0[1].equal());
            right.batch_execute("DROP TABLE public.t")?;
            ensure!(!compare(&mut left, &mut right, &tables)?.equal());
            Ok(())
        });
    }
}
