//! Tables that the shadow cannot make or follow: left out, named, passed over; the rest goes on,
//! and they come when what they need is there. Against a real platform.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::{item_row, notes, row};
use platform_lab::catalog::{self, ITEMS, NOTES};
use platform_lab::{Batch, COPY_ID, Peer, Platform, eventually, item, items, relation};
use scry_wire::message::{ChunkDone, CopyFinished, Role};
use tokio_postgres::Client;

const LATE: u64 = COPY_ID + 1;

/// The document; column `v` of `items` and `n` of `notes` have these types.
fn document(v: &str, n: &str) -> Vec<u8> {
    let mut document: serde_json::Value = serde_json::from_slice(&catalog::items(COPY_ID)).unwrap();
    for (place, sql) in [(1, v), (2, n)] {
        document["objects"][place]["entry"]["columns"][1]["type"]["sql"] = sql.into();
    }
    serde_json::to_vec(&document).unwrap()
}

async fn stream(platform: &Platform) -> Peer {
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream
}

async fn count(shadow: &Client, table: &str) -> i64 {
    shadow.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

fn note(n: &[u8]) -> Vec<u8> {
    row(&[Some(b"{}"), Some(n)])
}

#[tokio::test]
async fn a_table_that_cannot_be_made_holds_up_nothing() {
    let platform = Platform::started().await;
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    lead.send_catalog(&document("text", "public.vector(3)")).await;
    let applied = lead.catalog_applied().await;
    let [left_out] = applied.left_out.as_slice() else { panic!("{applied:?}") };
    assert_eq!(left_out.object, "table public.notes");
    assert!(left_out.reason.contains("public.vector"), "{left_out:?}");
    // It counts as complete: nobody sends its rows.
    let [whole] = applied.tables.as_slice() else { panic!("{applied:?}") };
    assert_eq!((whole.relid, whole.chunks, whole.rows), (NOTES, 1, 0));
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk(0, 1, &relation(), &[item_row(1, "one")]).await;
    lead.finish(&[(ITEMS, 1, 1), (NOTES, 1, 0)]).await;

    let mut stream = stream(&platform).await;
    let marks = stream.marked(&[(NOTES, 1)]).await;
    assert!(marks[0].diverged && marks[0].cause.contains("public.vector"), "{marks:?}");
    let batch = Batch::new()
        .relation(&relation())
        .relation(&notes())
        .begin(100)
        .insert(NOTES, &note(b"[1,2,3]"))
        .insert(ITEMS, &item_row(2, "two"))
        .truncate(0, &[NOTES])
        .commit(100, 110);
    stream.send_batch(&batch).await;
    stream.confirmed(110).await;
    stream.marked(&[(NOTES, 3)]).await;
    let shadow = platform.shadow().await;
    assert_eq!(items(&shadow).await, [item(1, "one"), item(2, "two")]);
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(body.contains("table public.notes") && body.contains("\"diverged\":true"), "{body}");

    // Its definition changes, and it is asked for: neither brings it, and neither stops anything.
    let more = Batch::new()
        .begin(120)
        .schema(&[], &document("text", "public.vector(4)"))
        .commit(120, 130)
        .begin(140)
        .schema(&[NOTES], &document("text", "public.vector(5)"))
        .insert(NOTES, &note(b"[1,2,3,4,5]"))
        .insert(ITEMS, &item_row(3, "three"))
        .commit(140, 150);
    stream.send_batch(&more).await;
    stream.confirmed(150).await;
    assert_eq!(items(&shadow).await.len(), 3);
    assert_eq!(count(&shadow, "scry_shadow.hold").await, 0);
    let mut late = platform.peer(Role::Lead).await;
    late.welcome().await;
    late.late(LATE, 150, 150, "160:160:", &[NOTES]).await;
    assert_eq!(late.catalog_applied().await.tables.len(), 1, "nobody copies it");

    // What it needs is brought, and then it is asked for.
    shadow.batch_execute("CREATE DOMAIN public.vector AS text").await.unwrap();
    let asked = Batch::new()
        .begin(160)
        .schema(&[NOTES], &document("text", "public.vector"))
        .commit(160, 170)
        .relation(&notes())
        .begin(180)
        .insert(NOTES, &note(b"later"))
        .commit(180, 190);
    stream.send_batch(&asked).await;
    stream.confirmed(190).await;
    assert_eq!((count(&shadow, "scry_shadow.hold").await, count(&shadow, "public.notes").await), (1, 0));
    let mut late = platform.peer(Role::Lead).await;
    late.welcome().await;
    late.late(LATE + 1, 175, 190, "175:175:", &[NOTES]).await;
    assert_eq!(late.catalog_applied().await.tables, []);
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk_of(LATE + 1, 0, 1, &notes(), &[note(b"copied")]).await;
    let done: ChunkDone = copy.expect().await;
    assert_eq!(done.rows, 1);
    late.send_finish(&[(NOTES, 1, 1)]).await;
    let _: CopyFinished = late.expect().await;
    assert_eq!(count(&shadow, "public.notes").await, 2);
    stream.marked(&[]).await;
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(!body.contains("table public.notes"), "{body}");
}

#[tokio::test]
async fn a_change_that_cannot_be_followed_holds_up_nothing() {
    let platform = Platform::started().await;
    platform.copied(&[item_row(1, "one")]).await;
    let mut stream = stream(&platform).await;
    let batch = Batch::new()
        .relation(&relation())
        .relation(&notes())
        .begin(100)
        .insert(ITEMS, &item_row(2, "two"))
        .schema(&[ITEMS], &document("nowhere.vector", "numeric"))
        .insert(ITEMS, &item_row(3, "three"))
        .insert(NOTES, &note(b"1"))
        .commit(100, 110);
    stream.send_batch(&batch).await;
    stream.confirmed(110).await;
    let marks = stream.marked(&[(ITEMS, 2)]).await;
    assert!(marks[0].diverged && marks[0].cause.contains("nowhere"), "{marks:?}");
    let shadow = platform.shadow().await;
    assert_eq!(count(&shadow, "public.notes").await, 1);
    // A restart of the platform's connection goes on like that.
    drop(stream);
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    let batch = Batch::new()
        .relation(&relation())
        .relation(&notes())
        .begin(120)
        .insert(ITEMS, &item_row(4, "four"))
        .insert(NOTES, &note(b"2"))
        .commit(120, 130);
    stream.send_batch(&batch).await;
    stream.confirmed(130).await;
    eventually(2, async || count(&shadow, "public.notes").await).await;
    // The source takes it back, and the table is asked for.
    let back = Batch::new()
        .begin(140)
        .schema(&[ITEMS], &document("text", "numeric"))
        .insert(ITEMS, &item_row(5, "five"))
        .commit(140, 150);
    stream.send_batch(&back).await;
    stream.confirmed(150).await;
    assert_eq!((count(&shadow, "scry_shadow.hold").await, items(&shadow).await.len()), (1, 0));
}
