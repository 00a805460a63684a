//! The shadow's schema follows: every migration of `evolve_cases` is run on one database, the
//! difference of its documents on another, and the two are compared by the queries of
//! `sql/catalog`, by pg_dump and by their rows.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod schema_lab;

use futures_util::FutureExt;
use schema_lab::{Lab, diff};
use scry_platform::apply::schema::{DROPPED, SchemaChange, drop_later};
use scry_wire::catalog::{Catalog, Class, Entry, LeftOut, ObjectId, Table};
use std::panic::AssertUnwindSafe;
use tokio_postgres::Client;

/// A step of a case.
#[derive(Debug, Clone, Copy)]
enum Run<'a> {
    /// On the source; the shadow follows.
    Source(&'a str),
    /// Rows, on both.
    Both(&'a str),
}

/// `--- name` begins a case, `--` a step, `--=` a step that is run on both sides.
fn cases(file: &str) -> Vec<(&str, Vec<Run<'_>>)> {
    let mut cases = Vec::new();
    for case in file.split("--- ").skip(1) {
        let (name, body) = case.split_once('\n').unwrap();
        let steps = format!("\n{body}");
        let steps: &str = Box::leak(steps.into_boxed_str());
        let runs = steps.split("\n--").map(|step| match step.strip_prefix('=') {
            Some(rows) => Run::Both(rows.trim()),
            None => Run::Source(step.trim()),
        });
        cases.push((name, runs.collect()));
    }
    cases
}

/// The two databases and what the shadow was last made from.
struct Twins {
    lab: Lab,
    source: Client,
    shadow: Client,
    admin: Client,
    reader: Client,
    catalog: Catalog,
}

impl Twins {
    async fn start() -> Self {
        let lab = Lab::start().await;
        let source = lab.superuser("source").await;
        let reader = lab.superuser("shadow").await;
        let catalog = lab.catalog(&source, true, &[]).await;
        lab.build(&catalog).await;
        let shadow = lab.owner().await.unwrap();
        shadow.batch_execute("SET session_replication_role = replica").await.unwrap();
        let admin = lab.superuser("shadow").await;
        Twins { source, shadow, admin, reader, catalog, lab }
    }

    /// Runs a migration, and lets the shadow follow.
    async fn migrate(&mut self, name: &str, sql: &str) -> Vec<LeftOut> {
        self.source.batch_execute("RESET ALL").await.unwrap();
        self.source.batch_execute(sql).await.unwrap_or_else(|e| panic!("{name}: {sql}: {e:?}"));
        let new = self.lab.catalog(&self.source, true, &[]).await;
        let hold = held(&self.catalog, &new);
        self.shadow.batch_execute("BEGIN").await.unwrap();
        let change = SchemaChange {
            old: &self.catalog,
            new: &new,
            hold: &hold,
            again: &[],
            refresh: &[],
            rows_too: false,
        };
        let outcome = change.apply(&self.shadow, Some(&self.admin)).await;
        let outcome = outcome.unwrap_or_else(|e| panic!("{name}: {sql}: {e} {:?}", e.refuse()));
        self.shadow.batch_execute("COMMIT").await.unwrap();
        let role = self.shadow.query_one("SELECT CURRENT_USER::text", &[]).await.unwrap();
        let mut gone = drop_later(&self.admin, role.get(0), outcome.later).await.unwrap();
        gone.iter_mut().for_each(|title| title.push_str(DROPPED));
        self.copy(&new, &hold).await;
        self.catalog = new;
        outcome.left_out.into_iter().filter(|item| !gone.contains(&item.object)).collect()
    }

    /// As a late copy does.
    async fn copy(&self, catalog: &Catalog, tables: &[u32]) {
        for table in tables.iter().filter_map(|oid| table(catalog, *oid)).filter(|t| !t.partitioned) {
            let columns = table.columns.iter().filter(|c| !c.dropped && c.generated.is_empty());
            let list: Vec<String> = columns.map(|c| format!("\"{}\"", c.name.replace('"', "\"\""))).collect();
            let name = format!("\"{}\".\"{}\"", table.schema, table.name);
            let rows = format!("SELECT ROW({})::text FROM ONLY {name}", list.join(", "));
            for row in self.source.query(&rows, &[]).await.unwrap() {
                let values = row.get::<_, String>(0).replace('\'', "''");
                let put = format!(
                    "INSERT INTO {name} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM (SELECT (('{values}'::text)::scry_row).*) AS r",
                    list.join(", "),
                    list.join(", ")
                );
                let types: Vec<String> = table
                    .columns
                    .iter()
                    .filter(|c| !c.dropped && c.generated.is_empty())
                    .map(|c| format!("\"{}\" {}", c.name, c.data_type.as_ref().unwrap().sql))
                    .collect();
                let session = "SET search_path = pg_temp; DROP TYPE IF EXISTS pg_temp.scry_row";
                self.shadow.batch_execute(session).await.unwrap();
                let make = format!("CREATE TYPE pg_temp.scry_row AS ({})", types.join(", "));
                self.shadow.batch_execute(&make).await.unwrap();
                self.shadow.batch_execute(&put).await.unwrap();
                self.shadow.batch_execute("DROP TYPE pg_temp.scry_row; RESET search_path").await.unwrap();
            }
        }
    }

    async fn compare(&self, name: &str, step: &str) {
        let twin = self.lab.catalog(&self.reader, true, &[]).await;
        let differences = self.catalog.differences(&twin);
        let of = |catalog: &Catalog, name: &str| {
            let found = catalog.objects.iter().find(|o| o.describe() == name);
            found.map(|o| serde_json::to_string_pretty(o).unwrap()).unwrap_or_default()
        };
        let shown: Vec<String> = differences
            .iter()
            .map(|d| format!("{d:?}\n{}", diff(&of(&self.catalog, &d.object), &of(&twin, &d.object))))
            .collect();
        assert!(differences.is_empty(), "{name}: after {step}: {}", shown.join("\n"));
        for object in &self.catalog.objects {
            let Entry::Table(table) = &object.entry else { continue };
            let quoted = |name: &str| name.replace('"', "\"\"");
            let rows = format!(
                "SELECT pg_catalog.count(*), pg_catalog.md5(pg_catalog.string_agg(to_jsonb(t)::text, ',' ORDER BY to_jsonb(t)::text)) FROM ONLY \"{}\".\"{}\" AS t",
                quoted(&table.schema),
                quoted(&table.name)
            );
            let count = async |client: &Client| -> (i64, Option<String>) {
                let row = client.query_one(&rows, &[]).await.unwrap();
                (row.get(0), row.get(1))
            };
            let (mine, theirs) = (count(&self.source).await, count(&self.reader).await);
            assert_eq!(mine, theirs, "{name}: after {step}: rows of {}", table.name);
        }
    }

    fn compare_dumps(&self, name: &str) {
        let (mine, theirs) = (self.lab.dump("source"), self.lab.dump("shadow"));
        assert!(mine == theirs, "{name}: pg_dump differs:\n{}", diff(&mine, &theirs));
    }

    async fn case(&mut self, name: &str, steps: &[Run<'_>]) {
        assert_eq!(self.migrate(name, "CREATE SCHEMA c").await, []);
        for step in steps {
            let sql = match step {
                Run::Source(sql) => {
                    let left_out = self.migrate(name, sql).await;
                    assert_eq!(left_out, [], "{name}: after {sql}");
                    sql
                }
                Run::Both(sql) => {
                    self.source.batch_execute(sql).await.unwrap();
                    self.shadow.batch_execute(sql).await.unwrap();
                    sql
                }
            };
            self.compare(name, sql).await;
        }
        self.compare_dumps(name);
        assert_eq!(self.migrate(name, "DROP SCHEMA c CASCADE").await, [], "{name}: drop");
        self.compare(name, "DROP SCHEMA").await;
    }
}

fn table(catalog: &Catalog, oid: u32) -> Option<&Table> {
    let id = ObjectId { class: Class::Relation, oid };
    catalog.objects.iter().find(|o| o.id() == id).and_then(|o| match &o.entry {
        Entry::Table(table) => Some(table),
        _ => None,
    })
}

/// Tables that were rewritten, but for the sake of generated columns alone.
fn held(old: &Catalog, new: &Catalog) -> Vec<u32> {
    let numbers = |table: &Table, generated: bool| -> Vec<i16> {
        let columns = table.columns.iter().filter(|c| !c.dropped && c.generated.is_empty() != generated);
        columns.map(|c| c.attnum).collect()
    };
    let both = new.objects.iter().filter_map(|o| Some((o.oid, table(old, o.oid)?, table(new, o.oid)?)));
    let rewritten = both.filter(|(_, a, b)| {
        let generated = numbers(a, true) != numbers(b, true) && numbers(a, false) == numbers(b, false);
        a.filenode != b.filenode && !generated
    });
    rewritten.map(|(oid, ..)| oid).collect()
}

/// All cases of a file; `CASE=part of a name` runs some.
async fn run(file: &str) {
    let only = std::env::var("CASE").unwrap_or_default();
    let mut failed = Vec::new();
    let mut twins = Twins::start().await;
    for (name, steps) in cases(file).into_iter().filter(|(name, _)| name.contains(&only)) {
        if AssertUnwindSafe(twins.case(name, &steps)).catch_unwind().await.is_err() {
            failed.push(name);
            twins = Twins::start().await;
        }
    }
    assert_eq!(failed, [""; 0], "cases that fail");
}

/// A foreign key to a table that is copied again is not looked at before its rows are there.
#[tokio::test]
async fn foreign_keys_wait_for_rows() {
    let mut twins = Twins::start().await;
    let make = "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE r (i int REFERENCES t)";
    assert_eq!(twins.migrate("keys", make).await, []);
    for client in [&twins.source, &twins.shadow] {
        let rows = "INSERT INTO public.t VALUES (1, 'a'); INSERT INTO public.r VALUES (1)";
        client.batch_execute(rows).await.unwrap();
    }
    let left_out = twins.migrate("keys", "ALTER TABLE public.t ALTER id TYPE bigint").await;
    let said: Vec<&str> = left_out.iter().map(|l| l.object.as_str()).collect();
    assert_eq!(said, ["constraint r_i_fkey on table public.r (validate)"]);
    // The rows are here now.
    let keys: Vec<ObjectId> = twins.catalog.objects.iter().map(scry_wire::catalog::Object::id).collect();
    let change = SchemaChange {
        old: &twins.catalog,
        new: &twins.catalog,
        hold: &[],
        again: &keys,
        refresh: &[],
        rows_too: false,
    };
    twins.shadow.batch_execute("BEGIN").await.unwrap();
    let outcome = change.apply(&twins.shadow, None).await.unwrap();
    twins.shadow.batch_execute("COMMIT").await.unwrap();
    assert_eq!(outcome.left_out, []);
    twins.compare("keys", "the copy").await;
    twins.compare_dumps("keys");
}

/// Rows that only the shadow has do not keep a partition from leaving.
#[tokio::test]
async fn a_partition_leaves_whatever_refers_to_it() {
    let mut twins = Twins::start().await;
    let make = "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id); \
                CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (1) TO (10); \
                CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20); CREATE TABLE r (i int REFERENCES t)";
    assert_eq!(twins.migrate("leave", make).await, []);
    for client in [&twins.source, &twins.shadow] {
        client
            .batch_execute("INSERT INTO public.t VALUES (1), (11); INSERT INTO public.r VALUES (11)")
            .await
            .unwrap();
    }
    twins.shadow.batch_execute("INSERT INTO public.r VALUES (1)").await.unwrap();
    let left_out = twins.migrate("leave", "ALTER TABLE t DETACH PARTITION t1").await;
    let said: Vec<&str> = left_out.iter().map(|l| l.object.as_str()).collect();
    assert_eq!(said, ["constraint r_i_fkey on table public.r (validate)"]);
    let alone = "SELECT NOT relispartition FROM pg_class WHERE relname = 't1'";
    assert!(twins.reader.query_one(alone, &[]).await.unwrap().get::<_, bool>(0));
    // Once they are gone it is as on the source.
    twins.shadow.batch_execute("DELETE FROM public.r WHERE i = 1").await.unwrap();
    assert_eq!(twins.migrate("leave", "ALTER TABLE r RENAME CONSTRAINT r_i_fkey TO r_key").await, []);
    twins.compare("leave", "the rows are gone").await;
}

/// What is in foreign hands or was never made stops nothing that does not need it.
#[tokio::test]
async fn what_the_shadow_lacks_stops_nothing() {
    let mut twins = Twins::start().await;
    let make = "CREATE TABLE t (id int PRIMARY KEY, v text); \
                CREATE FUNCTION f(internal) RETURNS internal LANGUAGE internal AS 'int4in'; \
                CREATE VIEW gone AS SELECT id FROM t; CREATE INDEX gone_too ON t (v)";
    let left_out = twins.migrate("lacks", make).await;
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    // The owner of the shadow has tried something out.
    twins.shadow.batch_execute("DROP VIEW public.gone; DROP INDEX public.gone_too").await.unwrap();
    let change = "ALTER FUNCTION f(internal) RENAME TO g; ALTER VIEW gone RENAME TO back; \
                  ALTER INDEX gone_too RENAME TO back_too; ALTER TABLE t RENAME v TO w; COMMENT ON TABLE t IS 'x'";
    let left_out = twins.migrate("lacks", change).await;
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    assert_eq!(left_out[0].object, "function public.g(internal)");
    let made = "SELECT to_regclass('public.back') IS NOT NULL AND to_regclass('public.back_too') IS NOT NULL";
    assert!(twins.reader.query_one(made, &[]).await.unwrap().get::<_, bool>(0));
    assert_eq!(twins.migrate("lacks", "DROP FUNCTION g(internal); DROP TABLE t CASCADE").await, []);
    twins.compare("lacks", "all drops").await;
}

/// The server prints some definitions otherwise once they were read from its own text.
#[tokio::test]
async fn what_the_shadow_writes_otherwise_is_made_once() {
    let mut twins = Twins::start().await;
    let make = "CREATE TABLE t (id int PRIMARY KEY, v varchar(9)); \
                ALTER TABLE t ADD CONSTRAINT odd CHECK (v IN ('a', 'b')); CREATE INDEX part ON t (id) WHERE v IN ('a', 'b'); \
                CREATE VIEW w AS SELECT id, NULL::int AS n FROM t UNION SELECT 1, NULL::int";
    let there = "SELECT count(*) FROM pg_constraint WHERE conname = 'odd' \
                 UNION ALL SELECT count(*) FROM pg_indexes WHERE indexname = 'part' \
                 UNION ALL SELECT count(*) FROM pg_views WHERE viewname = 'w'";
    let again = "ALTER TABLE t RENAME v TO vv; ALTER TABLE t DROP CONSTRAINT odd; \
                 ALTER TABLE t ADD CONSTRAINT odd CHECK (vv IN ('a', 'b', 'c'))";
    for sql in [make, again] {
        assert_eq!(twins.migrate("prints", sql).await, []);
        let found: Vec<i64> =
            twins.reader.query(there, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        assert_eq!(found, [1, 1, 1], "after {sql}");
    }
    twins.shadow.batch_execute("INSERT INTO public.t VALUES (1, 'c')").await.unwrap();
    assert!(twins.shadow.batch_execute("INSERT INTO public.t VALUES (2, 'd')").await.is_err());
}

/// Extensions that need each other, and what only a superuser makes, in one transaction.
#[tokio::test]
async fn what_takes_a_superuser_follows() {
    let mut twins = Twins::start().await;
    let make = "CREATE SCHEMA ext; CREATE EXTENSION cube SCHEMA ext; CREATE EXTENSION earthdistance SCHEMA ext; \
        CREATE EXTENSION unaccent; COMMENT ON EXTENSION unaccent IS 'for names'; \
        CREATE FUNCTION plain(regdictionary, text) RETURNS text LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE \
            AS '$libdir/unaccent', 'unaccent_dict'; \
        CREATE TABLE t (id int PRIMARY KEY, name text, at ext.earth); \
        CREATE INDEX ON t (plain('unaccent'::regdictionary, name)); \
        CREATE ROLE corpus_late; CREATE TABLE r (id int PRIMARY KEY, who regrole)";
    assert_eq!(twins.migrate("superuser", make).await, []);
    twins.compare("superuser", "all").await;
    assert_eq!(
        twins.migrate("superuser", "ALTER EXTENSION unaccent SET SCHEMA ext; DROP TABLE t, r").await,
        []
    );
    twins.compare("superuser", "drops").await;
}

/// What is a superuser's on the shadow goes as well, with what needs it in the same transaction.
#[tokio::test]
async fn what_takes_a_superuser_goes() {
    let mut twins = Twins::start().await;
    let make = "CREATE SCHEMA ext; CREATE EXTENSION cube SCHEMA ext; CREATE EXTENSION unaccent; \
        CREATE EXTENSION amcheck; CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler; \
        CREATE FOREIGN DATA WRAPPER bare; CREATE SERVER nowhere FOREIGN DATA WRAPPER bare; \
        CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; \
        CREATE EVENT TRIGGER sees ON ddl_command_end EXECUTE FUNCTION see(); \
        CREATE TABLE t (id int PRIMARY KEY, at ext.cube); CREATE TABLE other (id int PRIMARY KEY) USING heap_too";
    let left_out = twins.migrate("goes", make).await;
    // It says that it is disabled.
    assert!(matches!(left_out.as_slice(), [only] if only.object == "event trigger sees"), "{left_out:?}");
    let rename = "CREATE TEXT SEARCH PARSER words (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype)";
    assert_eq!(twins.migrate("goes", rename).await, []);
    let rename = "ALTER TEXT SEARCH PARSER words RENAME TO parts; ALTER TEXT SEARCH PARSER parts SET SCHEMA ext; \
        ALTER FOREIGN DATA WRAPPER bare RENAME TO naked";
    assert_eq!(twins.migrate("goes", rename).await, []);
    let named = "SELECT (SELECT count(*) FROM pg_ts_parser WHERE prsname = 'parts' AND prsnamespace = 'ext'::regnamespace) \
        + (SELECT count(*) FROM pg_foreign_data_wrapper WHERE fdwname = 'naked')";
    assert_eq!(twins.reader.query_one(named, &[]).await.unwrap().get::<_, i64>(0), 2);
    let drop = "DROP TABLE t; DROP SCHEMA ext CASCADE; DROP EXTENSION unaccent, amcheck; DROP EVENT TRIGGER sees; \
        DROP FUNCTION see(); DROP SERVER nowhere; DROP FOREIGN DATA WRAPPER naked; DROP TABLE other; \
        DROP ACCESS METHOD heap_too";
    assert_eq!(twins.migrate("goes", drop).await, []);
    twins.compare("goes", "gone").await;
}

/// What only a superuser makes is made beside the open transaction, and may wait for that itself:
/// then it is left out by name, and nothing stands still.
#[tokio::test]
async fn what_a_superuser_cannot_make_beside_the_transaction_is_left_out() {
    let mut twins = Twins::start().await;
    let make = "CREATE FUNCTION h(int4, int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2'; \
        CREATE FUNCTION t(text, int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT length($1) + $2'; \
        CREATE OPERATOR CLASS of_int FOR TYPE int4 USING hash AS OPERATOR 1 =, FUNCTION 2 h(int4, int8); \
        CREATE OPERATOR CLASS of_text FOR TYPE text USING hash AS OPERATOR 1 =, FUNCTION 2 t(text, int8)";
    twins.migrate("beside", make).await;
    let change = "DROP OPERATOR CLASS of_int USING hash CASCADE; \
        ALTER OPERATOR FAMILY of_text USING hash ADD FUNCTION 2 (int4) h(int4, int8)";
    let left_out = twins.migrate("beside", change).await;
    assert!(left_out.iter().any(|item| format!("{item:?}").contains("only a superuser")), "{left_out:?}");
}

/// What it is made of stands in the same transaction: that goes ahead.
#[tokio::test]
async fn what_takes_a_superuser_finds_what_it_is_made_of() {
    let mut twins = Twins::start().await;
    let make = "CREATE SCHEMA ops; CREATE FUNCTION ops.h(int4, int8) RETURNS int8 LANGUAGE sql IMMUTABLE AS 'SELECT $1 + $2'; \
        CREATE OPERATOR CLASS ops.of_int FOR TYPE int4 USING hash AS OPERATOR 1 =, FUNCTION 2 ops.h(int4, int8); \
        CREATE FUNCTION ops.same(text, text) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 = $2'; \
        CREATE OPERATOR ops.=== (FUNCTION = ops.same, LEFTARG = text, RIGHTARG = text, HASHES); \
        CREATE FUNCTION ops.t(text) RETURNS int4 LANGUAGE sql IMMUTABLE AS 'SELECT length($1)'; \
        CREATE OPERATOR CLASS ops.of_text FOR TYPE text USING hash AS OPERATOR 1 ops.===, FUNCTION 1 ops.t(text); \
        CREATE TABLE parted(a int4) PARTITION BY HASH (a ops.of_int); \
        CREATE TABLE part PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0); \
        CREATE TABLE indexed(t text); CREATE INDEX ON indexed USING hash (t ops.of_text)";
    assert_eq!(twins.migrate("ahead", make).await, []);
    twins.compare("ahead", "made").await;
}

#[tokio::test]
async fn tables_follow() {
    run(include_str!("evolve_cases/10_tables.sql")).await;
}

#[tokio::test]
async fn trees_follow() {
    run(include_str!("evolve_cases/20_trees.sql")).await;
}

#[tokio::test]
async fn what_hangs_on_tables_follows() {
    run(include_str!("evolve_cases/30_attached.sql")).await;
}

#[tokio::test]
async fn definitions_follow() {
    run(include_str!("evolve_cases/40_definitions.sql")).await;
}

#[tokio::test]
async fn types_follow() {
    run(include_str!("evolve_cases/50_types.sql")).await;
}

#[tokio::test]
async fn histories_follow() {
    run(include_str!("evolve_cases/90_history.sql")).await;
}
