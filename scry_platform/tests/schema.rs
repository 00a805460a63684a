//! The schema twin: a corpus that reaches every kind of object is made on one database, read by
//! the queries of `sql/catalog`, built on another by a role without privileges, and
//! compared by pg_dump and by the queries themselves.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod schema_lab;

use schema_lab::{Lab, diff};
use scry_platform::apply::schema::{SchemaError, create_post_data, create_pre_data, drop_all};
use scry_wire::catalog::{Catalog, Entry};
use std::collections::BTreeSet;

const CORPUS: &[&str] = &[
    include_str!("corpus/10_types.sql"),
    include_str!("corpus/20_tables.sql"),
    include_str!("corpus/30_partitions.sql"),
    include_str!("corpus/40_dependencies.sql"),
    include_str!("corpus/50_behaviour.sql"),
    include_str!("corpus/60_names.sql"),
];

async fn load(lab: &Lab) -> tokio_postgres::Client {
    let source = lab.superuser("source").await;
    for file in CORPUS {
        source.batch_execute(file).await.unwrap();
    }
    source
}

#[tokio::test]
async fn whole_database_dumps_equal() {
    let lab = Lab::start().await;
    let source = load(&lab).await;
    let catalog = lab.catalog(&source, true, &[]).await;
    assert_eq!(catalog.left_out, []);
    assert_eq!(lab.build(&catalog).await, []);
    let (mine, theirs) = (lab.dump("source"), lab.dump("shadow"));
    assert!(mine == theirs, "pg_dump differs:\n{}", diff(&mine, &theirs));

    let shadow = lab.superuser("shadow").await;
    let twin = lab.catalog(&shadow, true, &[]).await;
    assert_eq!(catalog.differences(&twin), []);
    // Differences are seen.
    shadow.batch_execute("ALTER TABLE shop.users ALTER COLUMN name DROP NOT NULL; DROP VIEW shop.constants").await.unwrap();
    let twin = lab.catalog(&shadow, true, &[]).await;
    let found: Vec<String> =
        catalog.differences(&twin).into_iter().map(|d| format!("{}: {}", d.object, d.what)).collect();
    assert_eq!(found, ["table shop.users: columns", "view shop.constants: missing"]);
}

#[tokio::test]
async fn names_what_it_leaves_out() {
    let lab = Lab::start().await;
    let source = load(&lab).await;
    source.batch_execute(include_str!("corpus/70_superuser.sql")).await.unwrap();
    let catalog = lab.catalog(&source, true, &[]).await;
    let said: BTreeSet<String> =
        catalog.left_out.iter().map(|l| format!("{}: {}", l.object, l.reason)).collect();
    let expected = [
        "1 large objects: large objects leave nothing in logical decoding",
        "cast from shop.state to shop.nothing: casts are not copied",
        "foreign table shop.far_table: foreign tables are not copied",
        "foreign-data wrapper nowhere: foreign-data wrappers are not copied",
        "publication everything: publications are not copied",
        "sequence shop.unlogged_a_seq: unlogged tables and sequences leave nothing in the WAL",
        "server far: foreign servers are not copied",
        "table shop.unlogged: unlogged tables and sequences leave nothing in the WAL",
        "view shop.far_view: it reads tables that are not selected",
    ];
    assert_eq!(said.into_iter().collect::<Vec<_>>(), expected);
    let refused: BTreeSet<String> = lab
        .build(&catalog)
        .await
        .into_iter()
        .map(|l| format!("{} {}: {}", l.sqlstate.unwrap_or_default(), l.object, l.reason))
        .collect();
    let expected = [
        " table shop.users (forced row security): the shadow's role would be bound by it; \
         give that role BYPASSRLS to have it",
        " trigger always_on on table shop.audit: enabled ALWAYS on the source; \
         disabled here, or it would act twice on each change",
        "42501 function shop.in_c(anyelement): permission denied for language internal",
        "42501 function shop.silent(text): only superuser can define a leakproof function",
        "42883 function shop.silent(text) (comment): function shop.silent(text) does not exist",
        "42883 view shop.over_silent: function shop.silent(unknown) does not exist",
        "42P13 aggregate shop.mid(double precision ORDER BY anyelement): \
         aggregate transition data type cannot be internal",
    ];
    assert_eq!(refused.into_iter().collect::<Vec<_>>(), expected);
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
    println!("{:#?}", names(&catalog));
    println!("{:#?}", catalog.left_out);
    assert_eq!(lab.build(&catalog).await, []);
}

#[tokio::test]
async fn begins_again_and_takes_up() {
    let lab = Lab::start().await;
    let source = load(&lab).await;
    let catalog = lab.catalog(&source, true, &[]).await;
    let (client, admin) = (lab.owner().await.unwrap(), lab.superuser("shadow").await);
    let empty = lab.dump("shadow");
    for _ in 0..2 {
        // Twice each, as after a crash.
        create_pre_data(&client, Some(&admin), &catalog).await.unwrap();
        assert_eq!(create_pre_data(&client, Some(&admin), &catalog).await.unwrap(), []);
        assert_eq!(create_post_data(|| lab.owner(), 2, &catalog, |_| {}).await.unwrap(), []);
        assert_eq!(create_post_data(|| lab.owner(), 2, &catalog, |_| {}).await.unwrap(), []);
        let (mine, theirs) = (lab.dump("source"), lab.dump("shadow"));
        assert!(mine == theirs, "pg_dump differs:\n{}", diff(&mine, &theirs));
        // Somebody rehearsed a migration.
        let theirs = "CREATE VIEW shop.rehearsal AS SELECT * FROM shop.users";
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
            default.sql = "1); CREATE TABLE public.planted (); --".to_owned();
        }
    }
    let client = lab.owner().await.unwrap();
    let error = create_pre_data(&client, None, &catalog).await.unwrap_err();
    assert!(matches!(error, SchemaError::Table { .. }), "{error}");
    assert!(error.to_string().contains("multiple commands"), "{error}");
    let planted = client.query_one("SELECT to_regclass('public.planted') IS NULL", &[]).await.unwrap();
    assert!(planted.get::<_, bool>(0));
}
