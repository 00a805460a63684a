//! Delivery contract, rule 7: a change of the schema at its place in the stream, against a real
//! platform.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::{column, item_row, row};
use platform_lab::catalog::{self, ITEMS};
use platform_lab::{Batch, COPY_ID, GENERATION, Peer, Platform, hello, item, items, relation};
use scry_wire::Lsn;
use scry_wire::message::{Format, Relation, ReplicaIdentity, Role};
use serde_json::{Value, json};
use tokio_postgres::Client;

const MORE: u32 = 16010;

/// The document after this migration of [`catalog::items`]:
/// `ALTER TABLE items RENAME v TO w; ALTER TABLE items ADD n int DEFAULT 7;
/// ALTER TABLE items ALTER n SET DEFAULT 8; CREATE TABLE more (id int); DROP TABLE notes;
/// CREATE FUNCTION broken() ...; CREATE VIEW shown AS SELECT w FROM items`
fn migrated() -> Value {
    let mut document: Value = serde_json::from_slice(&catalog::items(COPY_ID)).unwrap();
    let objects = document["objects"].as_array_mut().unwrap();
    objects.retain(|object| object["entry"]["name"] != "notes");
    let integer = json!({ "schema": "pg_catalog", "name": "int4", "sql": "integer" });
    let items = objects.iter_mut().find(|object| object["oid"] == ITEMS).unwrap();
    let columns = items["entry"]["columns"].as_array_mut().unwrap();
    columns[1]["name"] = json!("w");
    columns.push(json!({
        "attnum": 3, "name": "n", "local": true, "type": integer, "missing": "{7}",
        "default": { "oid": 16020, "sql": "8" }
    }));
    objects.push(json!({
        "class": "pg_class", "oid": MORE, "selected": true,
        "entry": {
            "kind": "table", "schema": "public", "name": "more", "partitioned": false,
            "replica_identity": "d",
            "columns": [{ "attnum": 1, "name": "id", "local": true, "type": integer }]
        }
    }));
    objects.push(json!({
        "class": "pg_proc", "oid": 16011, "selected": true,
        "entry": {
            "kind": "function", "schema": "public", "name": "broken", "prokind": "f", "language": "c",
            "arguments": "", "definition": "CREATE OR REPLACE FUNCTION public.broken() RETURNS void LANGUAGE c AS 'nowhere'"
        }
    }));
    objects.push(json!({
        "class": "pg_class", "oid": 16012, "selected": true,
        "depends_on": [{ "class": "pg_class", "oid": ITEMS }],
        "entry": {
            "kind": "view", "schema": "public", "name": "shown", "definition": " SELECT items.w\n   FROM public.items;",
            "columns": [{ "attnum": 1, "name": "w", "type": { "schema": "pg_catalog", "name": "text", "sql": "text" } }]
        }
    }));
    document
}

fn bytes(document: &Value) -> Vec<u8> {
    serde_json::to_vec(document).unwrap()
}

fn items_after() -> Relation {
    let mut relation = relation();
    relation.columns[1].name = "w".to_owned();
    relation.columns.push(column(3, "n", false, 23));
    relation
}

fn more() -> Relation {
    Relation {
        relid: MORE,
        format: Format::Binary,
        replica_identity: ReplicaIdentity::Nothing,
        schema: "public".into(),
        name: "more".into(),
        columns: vec![column(1, "id", false, 23)],
    }
}

fn row_after(id: i32, w: &str, n: i32) -> Vec<u8> {
    row(&[Some(&id.to_be_bytes()), Some(w.as_bytes()), Some(&n.to_be_bytes())])
}

/// Rows, the migration, and rows of the new schema in one transaction.
fn migration() -> Batch {
    let mut batch = Batch::new().relation(&relation()).begin(100);
    for id in 10..60 {
        batch = batch.insert(ITEMS, &item_row(id, "before"));
    }
    batch
        .update(ITEMS, None, &item_row(1, "ONE"))
        .schema(&[], &bytes(&migrated()))
        .relation(&items_after())
        .relation(&more())
        .insert(ITEMS, &row_after(4, "four", 8))
        .update(ITEMS, None, &row_after(10, "changed", 9))
        .insert(MORE, &row(&[Some(&5i32.to_be_bytes())]))
}

async fn streaming() -> (Platform, Peer) {
    let platform = Platform::started().await;
    platform.copied(&[item_row(1, "one"), item_row(2, "two")]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    (platform, stream)
}

async fn text(shadow: &Client, sql: &str) -> String {
    shadow.query_one(sql, &[]).await.unwrap().get::<_, Option<String>>(0).unwrap_or_default()
}

#[tokio::test]
async fn a_migration_in_a_transaction_with_rows() {
    let (mut platform, mut stream) = streaming().await;
    // The platform dies with the migration done and not committed: nothing of it stays.
    stream.send_batch(&migration()).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    platform.kill();
    platform.start().await;
    let shadow = platform.shadow().await;
    assert_eq!(items(&shadow).await, [item(1, "one"), item(2, "two")]);
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.welcome().await.applied_lsn, Lsn::INVALID);
    stream.send_batch(&migration().commit(100, 110)).await;
    stream.confirmed(110).await;

    let all = "SELECT string_agg(format('%s=%s/%s', id, w, n), ' ' ORDER BY id) FROM public.items \
               WHERE id < 12";
    assert_eq!(text(&shadow, all).await, "1=ONE/7 2=two/7 4=four/8 10=changed/9 11=before/7");
    assert_eq!(text(&shadow, "SELECT count(*)::text FROM public.shown").await, "53");
    assert_eq!(text(&shadow, "SELECT id::text FROM public.more").await, "5");
    assert_eq!(text(&shadow, "SELECT to_regclass('public.notes')::text").await, "");
    let default =
        "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'public.items'::regclass";
    assert_eq!(text(&shadow, default).await, "8");
    // What cannot be made is named, and stops nothing.
    let left = "SELECT object || ': ' || reason FROM scry_shadow.left_out";
    assert_eq!(text(&shadow, left).await, "function public.broken(): permission denied for language c");

    // Sent again it is skipped, and the stream goes on with the new schema.
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.welcome().await.applied_lsn, Lsn(110));
    let more = Batch::new().begin(110).insert(ITEMS, &row_after(5, "five", 8)).commit(110, 120);
    let mut again = migration().commit(100, 110);
    again.bytes.extend_from_slice(&more.bytes);
    stream.send_batch(&again).await;
    stream.confirmed(120).await;
    assert_eq!(text(&shadow, "SELECT w FROM public.items WHERE id = 5").await, "five");

    // Back, under other rows; what was left out is forgotten with its object.
    let back = Batch::new()
        .begin(120)
        .schema(&[], &catalog::items(COPY_ID))
        .relation(&relation())
        .insert(ITEMS, &item_row(6, "six"))
        .commit(120, 130);
    stream.send_batch(&back).await;
    stream.confirmed(130).await;
    assert_eq!(text(&shadow, "SELECT v FROM public.items WHERE id = 6").await, "six");
    assert_eq!(text(&shadow, "SELECT count(*)::text FROM scry_shadow.left_out").await, "0");

    // Another history drops all that both documents have made.
    let mut next = hello(Role::Lead);
    next.generation = GENERATION + 1;
    let mut lead = Peer::connect(platform.port, None).await;
    lead.send(&next).await;
    lead.welcome().await;
    lead.send_catalog(&bytes(&migrated())).await;
    assert_eq!(lead.catalog_applied().await.tables, []);
    assert_eq!(text(&shadow, "SELECT count(w)::text FROM public.items").await, "0");
}

#[tokio::test]
async fn what_others_have_built_stops_the_change_and_is_named() {
    let (platform, mut stream) = streaming().await;
    let shadow = platform.shadow().await;
    shadow.batch_execute("CREATE VIEW public.theirs AS SELECT n FROM public.notes").await.unwrap();
    stream.send_batch(&migration().commit(100, 110)).await;
    let refuse = stream.refused().await;
    assert!(refuse.retry, "{refuse:?}");
    assert!(refuse.message.contains("could not follow a change of table public.notes"), "{refuse:?}");
    assert!(refuse.hint.contains("view public.theirs depends on table public.notes"), "{refuse:?}");
    assert_eq!(items(&shadow).await, [item(1, "one"), item(2, "two")]);
    shadow.batch_execute("DROP VIEW public.theirs").await.unwrap();
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&migration().commit(100, 110)).await;
    stream.confirmed(110).await;
    // A view over columns that keep their names follows by itself.
    shadow.batch_execute("CREATE VIEW public.theirs AS SELECT id, w FROM public.items").await.unwrap();
    let mut document = migrated();
    let objects = document["objects"].as_array_mut().unwrap();
    let items = objects.iter_mut().find(|object| object["oid"] == ITEMS).unwrap();
    items["entry"]["columns"][1]["name"] = json!("renamed");
    objects.retain(|object| object["entry"]["kind"] != "view");
    stream.send_batch(&Batch::new().begin(110).schema(&[], &bytes(&document)).commit(110, 120)).await;
    stream.confirmed(120).await;
    assert_eq!(text(&shadow, "SELECT w FROM public.theirs WHERE id = 4").await, "four");
}

#[tokio::test]
async fn a_definition_that_is_none_is_not_run() {
    let (platform, mut stream) = streaming().await;
    let mut document: Value = serde_json::from_slice(&catalog::items(COPY_ID)).unwrap();
    document["objects"].as_array_mut().unwrap().push(json!({
        "class": "pg_proc", "oid": 16011, "selected": true,
        "entry": {
            "kind": "function", "schema": "public", "name": "odd", "prokind": "f", "language": "sql",
            "arguments": "", "definition": "COMMIT"
        }
    }));
    let batch = Batch::new()
        .relation(&relation())
        .begin(100)
        .insert(ITEMS, &item_row(3, "three"))
        .schema(&[], &bytes(&document));
    stream.send_batch(&batch).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let shadow = platform.shadow().await;
    assert_eq!(items(&shadow).await.len(), 2);
    stream.send_batch(&Batch::new().commit(100, 110)).await;
    stream.confirmed(110).await;
    assert_eq!(items(&shadow).await.len(), 3);
    let left = text(&shadow, "SELECT reason FROM scry_shadow.left_out").await;
    assert!(left.contains("does not begin like one"), "{left}");
}
