//! The schema twin: a corpus that reaches every kind of object is made on one database, read by
//! the queries of `sql/catalog`, built on another by a role without privileges, and
//! compared by pg_dump and by the queries themselves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod schema_lab;

use schema_lab::{Lab, diff};
use scry_platform::apply::schema::{create_post_data, create_pre_data, drop_all};
use scry_wire::catalog::{Catalog, Entry, LeftOut, closure_query, depends_query, queries};
use std::collections::BTreeSet;

const CORPUS: &[&str] = &[
    include_str!("corpus/10_types.sql"),
    include_str!("corpus/20_tables.sql"),
    include_str!("corpus/30_partitions.sql"),
    include_str!("corpus/40_dependencies.sql"),
    include_str!("corpus/50_behaviour.sql"),
    include_str!("corpus/60_names.sql"),
    include_str!("corpus/80_operators.sql"),
];

/// What needs a superuser, or is there in part.
const MORE: &[&str] = &[
    include_str!("corpus/81_code.sql"),
    include_str!("corpus/82_more.sql"),
    include_str!("corpus/83_foreign.sql"),
];

/// What is said of it.
const NOTES: &[&str] = &[
    "event trigger on \"ddl\": enabled on the source; disabled here, or it would act on the platform's own statements",
    "event trigger on_rewrite: enabled on the source; disabled here, or it would act on the platform's own statements",
    "foreign table shop.far_child: foreign tables cannot be read on the shadow: only its shape is here",
    "foreign table shop.far_part: foreign tables cannot be read on the shadow: only its shape is here",
    "foreign table shop.far_table: foreign tables cannot be read on the shadow: only its shape is here",
    "table shop.unlogged: unlogged tables leave nothing in the WAL: only its shape is here",
];

async fn load(lab: &Lab) -> tokio_postgres::Client {
    let source = lab.superuser("source").await;
    run_files(&source, CORPUS).await;
    source
}

async fn run_files(source: &tokio_postgres::Client, files: &[&str]) {
    for file in files {
        if let Err(error) = source.batch_execute(file).await {
            let begin: String = file.chars().take(80).collect();
            panic!("{begin}: {error:?}");
        }
    }
}

fn said<'a>(left_out: impl IntoIterator<Item = &'a LeftOut>) -> Vec<String> {
    let said: BTreeSet<String> =
        left_out.into_iter().map(|l| format!("{}: {}", l.object, l.reason)).collect();
    said.into_iter().collect()
}

/// A dump without what is documented as different: user mappings are not brought, event triggers are
/// disabled.
fn twin_of(dump: &str) -> String {
    let blocks = dump.split("\n--\n-- Name: ");
    let kept = blocks.filter(|block| !block.contains("; Type: USER MAPPING; "));
    let text = kept.collect::<Vec<_>>().join("\n--\n-- Name: ");
    let lines = text.lines().filter(|line| {
        !(line.starts_with("ALTER EVENT TRIGGER ")
            && (line.ends_with(" DISABLE;") || line.contains(" ENABLE")))
    });
    // A state of its own stands between empty lines.
    let mut lines: Vec<&str> = lines.collect();
    lines.dedup_by(|a, b| a.is_empty() && b.is_empty());
    lines.join("\n")
}

#[tokio::test]
async fn whole_database_dumps_equal() {
    let lab = Lab::start().await;
    let source = load(&lab).await;
    run_files(&source, MORE).await;
    let catalog = lab.catalog(&source, true, &[]).await;
    assert_eq!(
        said(&catalog.left_out),
        ["user mapping for public on server far: user mappings hold passwords"]
    );
    assert_eq!(said(&lab.build(&catalog).await), NOTES);
    let (mine, theirs) = (twin_of(&lab.dump("source")), twin_of(&lab.dump("shadow")));
    assert!(mine == theirs, "pg_dump differs:\n{}", diff(&mine, &theirs));

    let shadow = lab.superuser("shadow").await;
    let twin = lab.catalog(&shadow, true, &[]).await;
    assert_eq!(catalog.differences(&twin), []);
    let enabled = "SELECT count(*) FROM pg_event_trigger WHERE evtenabled <> 'D'";
    assert_eq!(shadow.query_one(enabled, &[]).await.unwrap().get::<_, i64>(0), 0);
    // All that can be is the role's own: it will be altered and dropped later.
    let not_own = "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner \
         WHERE c.oid >= 16384 AND c.relkind <> 'c' AND r.rolname <> 'shadow_owner' AND NOT EXISTS (SELECT FROM pg_depend d \
         WHERE d.objid = c.oid AND d.deptype = 'e') \
         UNION ALL SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_roles r ON r.oid = p.proowner \
         WHERE p.oid >= 16384 AND r.rolname <> 'shadow_owner' AND NOT EXISTS (SELECT FROM pg_depend d \
         WHERE d.objid = p.oid AND d.deptype IN ('e', 'i')) \
         UNION ALL SELECT o.opcname FROM pg_opclass o JOIN pg_roles r ON r.oid = o.opcowner \
         WHERE o.oid >= 16384 AND r.rolname <> 'shadow_owner' AND NOT EXISTS (SELECT FROM pg_depend d \
         WHERE d.objid = o.oid AND d.deptype = 'e')";
    let not_own: Vec<String> =
        shadow.query(not_own, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(not_own, Vec::<String>::new());
    // The functions made over the server's code are that code.
    let works = "SELECT shop.plus_one(1), shop.f_unaccent('public.unaccent', 'é'), \
                 '8'::shop.money8 OPERATOR(shop.>) '7'::shop.money8";
    let row = shadow.query_one(works, &[]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2)), (2, "e", true));
    // Differences are seen.
    shadow
        .batch_execute("ALTER TABLE shop.users ALTER COLUMN name DROP NOT NULL; DROP VIEW shop.constants")
        .await
        .unwrap();
    let twin = lab.catalog(&shadow, true, &[]).await;
    let found: Vec<String> =
        catalog.differences(&twin).into_iter().map(|d| format!("{}: {}", d.object, d.what)).collect();
    assert_eq!(found, ["table shop.users: columns", "view shop.constants: missing"]);
}

#[tokio::test]
async fn names_what_it_leaves_out() {
    let lab = Lab::start().await;
    let source = load(&lab).await;
    source.batch_execute(include_str!("corpus/91_left_out.sql")).await.unwrap();
    let catalog = lab.catalog(&source, true, &[]).await;
    let expected = [
        "1 large objects: large objects leave nothing in logical decoding",
        "publication everything: publications are not copied",
    ];
    assert_eq!(said(&catalog.left_out), expected);
    let refused: BTreeSet<String> = lab
        .build(&catalog)
        .await
        .into_iter()
        .map(|l| format!("{} {}: {}", l.sqlstate.unwrap_or_default(), l.object, l.reason))
        .collect();
    let expected = [
        " foreign table shop.over_loopback: foreign tables cannot be read on the shadow: only its shape is here",
        " table shop.users (forced row security): the shadow's role would be bound by it; \
         give that role BYPASSRLS to have it",
        " trigger always_on on table shop.audit: enabled ALWAYS on the source; \
         disabled here, or it would act twice on each change",
        "42501 cast from integer to pg_lsn: must be owner of type integer or type pg_lsn; NO_TWIN",
        "42501 cast from xml to bytea: must be owner of type xml or type bytea; NO_TWIN",
        "42501 extension postgres_fdw: permission denied to create extension \"postgres_fdw\"; \
         it is not among those that the platform creates: create it on the shadow by hand",
        "42501 function shop.in_c(anyelement): permission denied for language internal; NO_TWIN",
        "42501 function shop.odd_in(cstring): permission denied for language internal; NO_TWIN",
        "42501 function shop.odd_out(shop.odd): permission denied for language internal; NO_TWIN",
        "42501 function shop.text_as_int(text, text): permission denied for language internal; NO_TWIN",
        "42501 language plfree: must be superuser to create custom procedural language; NO_TWIN",
        "42501 operator class shop.mixed_ops for access method gist: \
         must be superuser to create an operator class; NO_TWIN",
        "42501 operator class shop.wrong_ops for access method btree: \
         must be superuser to create an operator class; NO_TWIN",
        "42501 transform for integer language sql: must be owner of type integer; NO_TWIN",
        "42501 type shop.odd: must be superuser to create a base type; NO_TWIN",
        "42883 view shop.over_in_c: function shop.in_c(integer) does not exist",
        "42P13 aggregate shop.mixed(double precision ORDER BY anyelement): \
         aggregate transition data type cannot be internal; NO_TWIN",
    ];
    let no_twin = "a superuser makes it only where the server or an extension of the shadow has the same \
                   code under the same signature";
    let expected = expected.map(|line| line.replace("NO_TWIN", no_twin));
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), expected);
    // By the inert wrapper the foreign table is there, and cannot be read.
    let shadow = lab.superuser("shadow").await;
    let error = shadow.query("SELECT * FROM shop.over_loopback", &[]).await.unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("has no handler"), "{error:?}");
}

fn names(catalog: &Catalog) -> Vec<String> {
    let mut names: Vec<String> = catalog
        .objects
        .iter()
        .map(|object| format!("{}{}", object.describe(), if object.selected { "" } else { " (needed)" }))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn two_tables_bring_what_they_need() {
    let lab = Lab::start().await;
    let source = load(&lab).await;
    let catalog = lab.catalog(&source, false, &["shop.orders", "shop.a_shared"]).await;
    let expected = [
        "constraint later on table shop.orders",
        "constraint maybe on table shop.orders",
        "constraint no_overlap on table shop.orders",
        "constraint orders_pkey on table shop.orders",
        "constraint orders_user_id_note_key on table shop.orders",
        "constraint pair on table shop.orders",
        "constraint self on table shop.orders",
        "constraint soon on table shop.orders",
        "domain shop.amount (needed)",
        "extension btree_gist (needed)",
        "function shop.keep() (needed)",
        "function shop.note_change() (needed)",
        "index shop.orders_expr",
        "index shop.orders_hash",
        "index shop.orders_note",
        "index shop.orders_once",
        "index shop.totals_user",
        "materialized view shop.a_not_filled",
        "materialized view shop.above",
        "materialized view shop.totals",
        "policy own on table shop.orders",
        "schema ext (needed)",
        "schema shop (needed)",
        "sequence shop.free (needed)",
        "sequence shop.orders_id_seq",
        "sequence shop.shared",
        "statistics object shop.orders_expr_stats",
        "statistics object shop.orders_stats",
        "table shop.a_shared",
        "table shop.orders",
        "trigger on_truncate on table shop.orders",
        "trigger statement_level on table shop.orders",
        "trigger switched_off on table shop.orders",
        "type shop.state (needed)",
        "view shop.over_matview",
    ];
    assert_eq!(names(&catalog), expected);
    let said: BTreeSet<String> =
        catalog.left_out.iter().map(|l| format!("{}: {}", l.object, l.reason)).collect();
    let left_out = [
        "constraint orders_user_id_fkey on table shop.orders: it refers to table shop.users, which is not selected",
        "policy by role on table shop.orders: it uses table shop.users, which is not selected",
        "trigger checked on table shop.orders: it uses table shop.users, which is not selected",
        "view shop.grouped: it reads tables that are not selected",
    ];
    assert_eq!(said.into_iter().collect::<Vec<_>>(), left_out);
    assert_eq!(lab.build(&catalog).await, []);
    // Exactly that exists, with the definitions of the source.
    let shadow = lab.superuser("shadow").await;
    let twin = lab.catalog(&shadow, true, &[]).await;
    let difference: Vec<String> = catalog.differences(&twin).iter().map(|d| d.object.clone()).collect();
    assert_eq!(difference, ["schema public"]);
}

#[tokio::test]
async fn parts_of_trees_stand_alone() {
    let lab = Lab::start().await;
    let source = load(&lab).await;
    // A partition without its parent, a sub-partitioned one with its own partitions, a child
    // without its parents, a table of another's row type.
    let tables = ["shop.events_old", "shop.events_2020", "shop.child", "shop.holds_rows"];
    let catalog = lab.catalog(&source, false, &tables).await;
    let tables: Vec<String> = names(&catalog).into_iter().filter(|n| n.starts_with("table")).collect();
    let expected = [
        "table shop.child",
        "table shop.events_2020",
        "table shop.events_2020_a",
        "table shop.events_2020_rest",
        "table shop.events_2020_rest_0",
        "table shop.events_2020_rest_1",
        "table shop.events_old",
        "table shop.holds_rows",
        "table shop.users (needed)",
    ];
    assert_eq!(tables, expected);
    let noted: BTreeSet<String> =
        lab.build(&catalog).await.into_iter().map(|l| format!("{}: {}", l.object, l.reason)).collect();
    let expected = [
        "table shop.child: a table it inherits from is not selected: its columns are its own",
        "table shop.events_2020: its partitioned table is not selected: it stands alone",
        "table shop.events_old: its partitioned table is not selected: it stands alone",
        "table shop.users: it is not selected: only its shape is here, because something needs it",
    ];
    assert_eq!(noted.into_iter().collect::<Vec<_>>(), expected);
    let shadow = lab.superuser("shadow").await;
    let twin = lab.catalog(&shadow, true, &[]).await;
    let columns = |catalog: &Catalog, name: &str| {
        let tables = catalog.objects.iter().filter_map(|o| match &o.entry {
            Entry::Table(table) if table.name == name => Some(table),
            _ => None,
        });
        let live = tables.flat_map(|t| t.columns.iter()).filter(|c| !c.dropped);
        live.map(|c| (c.name.clone(), c.data_type.clone().unwrap().sql, c.not_null)).collect::<Vec<_>>()
    };
    for table in ["child", "events_old", "events_2020_a", "users", "holds_rows"] {
        assert_eq!(columns(&catalog, table), columns(&twin, table), "{table}");
    }
}

#[tokio::test]
async fn begins_again_and_takes_up() {
    let lab = Lab::start().await;
    let source = load(&lab).await;
    run_files(&source, MORE).await;
    let catalog = lab.catalog(&source, true, &[]).await;
    let (client, admin) = (lab.owner().await.unwrap(), lab.superuser("shadow").await);
    let empty = lab.dump("shadow");
    for _ in 0..2 {
        // Twice each, as after a crash.
        create_pre_data(&client, Some(&admin), &catalog).await.unwrap();
        assert_eq!(said(&create_pre_data(&client, Some(&admin), &catalog).await.unwrap().left_out), NOTES);
        assert_eq!(create_post_data(|| lab.owner(), 2, &catalog, |_| {}).await.unwrap(), []);
        assert_eq!(create_post_data(|| lab.owner(), 2, &catalog, |_| {}).await.unwrap(), []);
        let (mine, theirs) = (twin_of(&lab.dump("source")), twin_of(&lab.dump("shadow")));
        assert!(mine == theirs, "pg_dump differs:\n{}", diff(&mine, &theirs));
        // Somebody rehearsed a migration.
        let theirs = "CREATE VIEW shop.rehearsal AS SELECT * FROM shop.users; \
                      ALTER TABLE public.plain RENAME TO renamed; DROP TABLE shop.counts; \
                      ALTER VIEW shop.constants SET SCHEMA public";
        client.batch_execute(theirs).await.unwrap();
        assert_eq!(drop_all(&client, Some(&admin)).await.unwrap(), []);
        let dropped = lab.dump("shadow");
        assert!(empty == dropped, "not empty:\n{}", diff(&empty, &dropped));
    }
    let settings = "SELECT current_setting('search_path'), current_setting('synchronous_commit'), \
                    current_setting('session_replication_role')";
    let row = client.query_one(settings, &[]).await.unwrap();
    let left: [String; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(left, ["\"$user\", public", "on", "origin"]);
}

#[tokio::test]
async fn text_of_the_source_is_one_statement() {
    let lab = Lab::start().await;
    let source = lab.superuser("source").await;
    source.batch_execute("CREATE TABLE t (i int DEFAULT 1)").await.unwrap();
    let mut catalog = lab.catalog(&source, true, &[]).await;
    for object in &mut catalog.objects {
        if let Entry::Table(table) = &mut object.entry {
            let default = table.columns.first_mut().unwrap().default.as_mut().unwrap();
            default.sql = "1); CREATE TABLE public.planted (i int".to_owned();
        }
    }
    let client = lab.owner().await.unwrap();
    let made = create_pre_data(&client, None, &catalog).await.unwrap();
    let [absent] = made.absent.as_slice() else { panic!("{made:?}") };
    assert!(absent.name == "t" && absent.reason.contains("multiple commands"), "{absent:?}");
    let planted = client.query_one("SELECT to_regclass('public.planted') IS NULL", &[]).await.unwrap();
    assert!(planted.get::<_, bool>(0));
}

/// The queries run as superuser on databases of others.
#[tokio::test]
async fn planted_operators_are_not_called() {
    let lab = Lab::start().await;
    let source = load(&lab).await;
    for kind in ["oid", "\"char\"", "name", "int2", "int4", "int8", "text", "bool", "int2[]"] {
        for operator in ["=", "<>", ">=", ">", "<", "||"] {
            let plant = format!(
                "CREATE OR REPLACE FUNCTION public.trap(a {kind}, b {kind}) RETURNS boolean LANGUAGE plpgsql \
                 AS $$ BEGIN RAISE EXCEPTION 'called'; END $$; \
                 CREATE OPERATOR public.{operator} (FUNCTION = public.trap, LEFTARG = {kind}, RIGHTARG = {kind})"
            );
            source.batch_execute(&plant).await.unwrap();
        }
    }
    let functions = [
        "concat(text, text)",
        "starts_with(text, text)",
        "obj_description(oid, name)",
        "format_type(oid, int)",
    ];
    for function in functions {
        let plant = format!(
            "CREATE FUNCTION public.{function} RETURNS text LANGUAGE plpgsql \
             AS $$ BEGIN RAISE EXCEPTION 'called'; END $$"
        );
        source.batch_execute(&plant).await.unwrap();
    }
    // As in production.
    assert!(lab.catalog(&source, true, &[]).await.objects.len() > 300);
    // Without the settings they would be found: qualified names alone keep them out, but for the
    // server's own printing of rules, which looks operators up.
    source.batch_execute("SET search_path = public, pg_catalog").await.unwrap();
    let called = source.query("SELECT 1::oid = 1::oid", &[]).await.unwrap_err();
    assert_eq!(called.as_db_error().unwrap().message(), "called");
    let all =
        "SELECT pg_catalog.array_agg(oid) FROM pg_catalog.pg_class WHERE relkind OPERATOR(pg_catalog.=) 'r'";
    let tables: Vec<u32> = source.query_one(all, &[]).await.unwrap().get(0);
    for whole in [true, false] {
        let closure = source.query(closure_query(), &[&tables, &whole]).await.unwrap();
        let classes: Vec<u32> = closure.iter().map(|row| row.get(0)).collect();
        let oids: Vec<u32> = closure.iter().map(|row| row.get(1)).collect();
        assert!(!source.query(depends_query(), &[&classes, &oids]).await.unwrap().is_empty());
        for query in queries().iter().filter(|q| !["view", "materialized_view", "rule"].contains(&q.kind)) {
            source.query(query.sql, &[&oids]).await.unwrap();
        }
    }
}

/// A table that the shadow cannot make is left out with what hangs on it; the rest is made, and
/// the table too once what it needs is there.
#[tokio::test]
async fn a_table_that_cannot_be_made_is_absent() {
    let lab = Lab::start().await;
    let source = lab.superuser("source").await;
    let make = "CREATE SCHEMA odd; CREATE TYPE odd.unknown_here AS ENUM ('a'); \
        CREATE TABLE tree (id int, of odd.unknown_here) PARTITION BY LIST (id); \
        CREATE TABLE leaf PARTITION OF tree (PRIMARY KEY (id)) FOR VALUES IN (1); \
        CREATE TABLE top (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, of odd.unknown_here); \
        CREATE TABLE below (more int) INHERITS (top); \
        CREATE TABLE plain (id int PRIMARY KEY REFERENCES top, v text); CREATE VIEW seen AS SELECT id FROM top; \
        CREATE INDEX ON top (of); CREATE VIEW well AS SELECT v FROM plain";
    source.batch_execute(make).await.unwrap();
    let catalog = lab.catalog(&source, true, &[]).await;
    let mut lacking = catalog.clone();
    lacking.objects.retain(|object| object.describe() != "type odd.unknown_here");
    let (client, admin) = (lab.owner().await.unwrap(), lab.superuser("shadow").await);
    let made = create_pre_data(&client, Some(&admin), &lacking).await.unwrap();
    let mut absent: Vec<&str> = made.absent.iter().map(|table| table.name.as_str()).collect();
    absent.sort_unstable();
    assert_eq!(absent, ["below", "leaf", "top", "tree"]);
    assert!(made.absent.iter().all(|table| table.reason.contains("odd.unknown_here")), "{made:?}");
    let here = lacking.without(&made.absent.iter().map(|table| table.relid).collect());
    let left_out = create_post_data(|| lab.owner(), 2, &here, |_| {}).await.unwrap();
    let mut left_out: Vec<&str> = left_out.iter().map(|item| item.object.as_str()).collect();
    left_out.sort_unstable();
    assert_eq!(left_out, ["constraint plain_id_fkey on table public.plain", "view public.seen"]);
    let sql = "SELECT to_regclass('public.plain') IS NOT NULL AND to_regclass('public.well') IS NOT NULL";
    assert!(client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
    // It is brought: the next round of the same copy makes all.
    admin.batch_execute("CREATE TYPE odd.unknown_here AS ENUM ('a')").await.unwrap();
    let made = create_pre_data(&client, Some(&admin), &lacking).await.unwrap();
    assert_eq!(made.absent, []);
    assert_eq!(create_post_data(|| lab.owner(), 2, &lacking, |_| {}).await.unwrap(), []);
    let differences = lacking.differences(&lab.catalog(&admin, true, &[]).await);
    let others: Vec<_> = differences.iter().filter(|d| !d.object.starts_with("type odd.")).collect();
    assert!(others.is_empty(), "{others:?}");
}
