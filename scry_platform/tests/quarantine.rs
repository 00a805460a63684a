//! Delivery contract, rule 23: what the shadow refuses, with both policies,
//! against a real platform.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::{item_key, item_row, notes, row};
use platform_lab::catalog::{self, ITEMS, NOTES};
use platform_lab::{Batch, COPY_ID, Peer, Platform, eventually, item, items, relation};
use scry_platform::apply::quarantine;
use scry_wire::Lsn;
use scry_wire::message::change::OldKind;
use scry_wire::message::{ChunkDone, CopyFinished, RefuseKind, Role};
use tokio_postgres::Client;

/// The job's document, with this for `on_error`.
fn document(on_error: &str) -> Vec<u8> {
    let mut document: serde_json::Value = serde_json::from_slice(&catalog::items(COPY_ID)).unwrap();
    document["on_error"] = on_error.into();
    serde_json::to_vec(&document).unwrap()
}

/// A platform whose copy is complete: items 1 to 3, of a job with this policy.
async fn copied(on_error: &str) -> (Platform, Client) {
    let platform = Platform::started().await;
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    lead.send_catalog(&document(on_error)).await;
    lead.catalog_applied().await;
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    let rows = [item_row(1, "one"), item_row(2, "two"), item_row(3, "three")];
    copy.chunk(0, 1, &relation(), &rows).await;
    lead.finish(&[(ITEMS, 1, 3), (NOTES, 0, 0)]).await;
    let shadow = platform.shadow().await;
    (platform, shadow)
}

async fn stream(platform: &Platform) -> Peer {
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream
}

async fn refuse_thirteen(shadow: &Client) {
    shadow.batch_execute("ALTER TABLE public.items ADD CONSTRAINT no_13 CHECK (id <> 13)").await.unwrap();
}

/// Operation, xid, old row, new row and SQLSTATE of what is kept, in its order.
type Kept = (String, i64, Option<String>, Option<String>, Option<String>);

async fn kept(shadow: &Client) -> Vec<Kept> {
    let sql = "SELECT operation, xid, old_row::text, new_row::text, sqlstate FROM scry_shadow.quarantine ORDER BY seq";
    let rows = shadow.query(sql, &[]).await.unwrap();
    rows.iter().map(|r| (r.get(0), r.get(1), r.get(2), r.get(3), r.get(4))).collect()
}

async fn count(shadow: &Client, table: &str) -> i64 {
    shadow.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

/// Three transactions, a refused row in the middle of the second.
fn three() -> Batch {
    Batch::new()
        .relation(&relation())
        .transaction(100, 110, &[(10, "before")])
        .transaction(120, 130, &[(12, "a"), (13, "refused"), (14, "b")])
        .transaction(140, 150, &[(20, "after")])
}

#[tokio::test]
async fn a_refused_change_stops_the_stream_at_its_transaction() {
    let (platform, shadow) = copied("stop").await;
    refuse_thirteen(&shadow).await;
    for attempt in 0..3 {
        let mut stream = stream(&platform).await;
        stream.send_batch(&three()).await;
        let refuse = stream.refused().await;
        assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Shadow, true));
        for word in ["INSERT", "\"public\".\"items\"", "no_13", "23514"] {
            assert!(refuse.message.contains(word), "{word}: {}", refuse.message);
        }
        assert!(!refuse.message.contains("refused,"), "no value: {}", refuse.message);
        assert!(refuse.hint.contains("Take it away there"), "{}", refuse.hint);
        let mut expected = vec![item(1, "one"), item(2, "two"), item(3, "three")];
        if attempt > 0 {
            // Once it is known where it stops, all before it is there.
            expected.push(item(10, "before"));
        }
        assert_eq!(items(&shadow).await, expected, "attempt {attempt}");
    }
    assert_eq!(count(&shadow, "scry_shadow.quarantine").await, 0);
    shadow.batch_execute("ALTER TABLE public.items DROP CONSTRAINT no_13").await.unwrap();
    let mut stream = stream(&platform).await;
    stream.send_batch(&three()).await;
    stream.confirmed(150).await;
    assert_eq!(items(&shadow).await.len(), 8);
}

#[tokio::test]
async fn refused_changes_are_kept_and_all_else_is_applied() {
    let (platform, shadow) = copied("quarantine").await;
    refuse_thirteen(&shadow).await;
    let mut stream = stream(&platform).await;
    let poisoned = row(&[Some(&15i32.to_be_bytes()), Some(b"\xff")]);
    let batch = Batch::new()
        .relation(&relation())
        .relation(&notes())
        .begin(100)
        .insert(ITEMS, &item_row(12, "a"))
        .insert(ITEMS, &item_row(13, "refused"))
        .insert(NOTES, &row(&[Some(b"1"), Some(b"1")]))
        .update(ITEMS, None, &item_row(99, "no such row"))
        .update(ITEMS, Some((OldKind::Key, &item_key(1))), &item_row(13, "moved"))
        .insert(ITEMS, &poisoned)
        .commit(100, 110)
        .begin(120)
        .delete(ITEMS, OldKind::Key, &item_key(98))
        .insert(ITEMS, &item_row(2, "is there"))
        .insert(NOTES, &row(&[Some(b"{"), Some(b"2")]))
        .update(ITEMS, None, &item_row(3, "changed"))
        .commit(120, 130);
    stream.send_batch(&batch).await;
    stream.confirmed(130).await;
    assert_eq!(items(&shadow).await, [item(1, "one"), item(2, "two"), item(3, "changed"), item(12, "a")]);
    assert_eq!(count(&shadow, "public.notes").await, 1);
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        ("INSERT", 100, None, text(r#"{"v": "refused", "id": 13}"#), text("23514")),
        ("UPDATE", 100, None, text(r#"{"v": "no such row", "id": 99}"#), None),
        ("UPDATE", 100, text(r#"{"id": 1}"#), text(r#"{"v": "moved", "id": 13}"#), text("23514")),
        ("INSERT", 100, None, None, text("22021")),
        ("DELETE", 120, text(r#"{"id": 98}"#), None, None),
        ("INSERT", 120, None, text(r#"{"v": "is there", "id": 2}"#), text("23505")),
        ("INSERT", 120, None, text(r#"{"j": "{", "n": "2"}"#), text("22P02")),
    ]
    .map(|(operation, xid, old, new, state)| (operation.to_owned(), xid, old, new, state));
    assert_eq!(kept(&shadow).await, expected);
    let sql = "SELECT new_tuple FROM scry_shadow.quarantine WHERE sqlstate = '22021'";
    assert_eq!(shadow.query_one(sql, &[]).await.unwrap().get::<_, Vec<u8>>(0), poisoned);

    let marks = stream.marked(&[(ITEMS, 6), (NOTES, 1)]).await;
    assert!(marks[0].cause.contains("23505") && !marks[0].diverged, "{marks:?}");
    let notice = &stream.notices[0];
    assert!(notice.message.contains("table \"public\".\"items\" is quarantined"), "{notice:?}");
    assert!(notice.hint.contains("scry_backfill.resync('\"public\".\"items\"', 'default')"), "{notice:?}");
    for text in
        stream.notices.iter().flat_map(|n| [&n.message, &n.hint]).chain(marks.iter().map(|m| &m.cause))
    {
        assert!(
            !text.contains("is there") && !text.contains("no such row") && !text.contains("(id)="),
            "{text}"
        );
    }
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(body.contains("\"quarantined\":[{\"relid\":16001,\"schema\":\"public\""), "{body}");
    let (_, body) = platform.get("/metrics").await.unwrap();
    assert!(body.contains("scry_platform_tables_quarantined{shadow=\"shadow\"} 2"), "{body}");
    assert!(body.contains("scry_platform_quarantined_total{shadow=\"shadow\"} 7"), "{body}");
}

/// Enough changes to be folded and written as sets, with few bad ones among
/// them: these, and no others, are kept, whatever their place.
#[tokio::test]
async fn finds_the_refused_ones_among_thousands() {
    let (platform, shadow) = copied("quarantine").await;
    shadow.batch_execute("ALTER TABLE public.items ADD CHECK (id % 1000 <> 13)").await.unwrap();
    let mut stream = stream(&platform).await;
    let mut batch = Batch::new().relation(&relation()).begin(100);
    for id in 10..5_000 {
        batch = batch.insert(ITEMS, &item_row(id, "x"));
    }
    batch = batch.commit(100, 110).begin(120);
    for id in 10..5_000 {
        batch = batch.update(ITEMS, None, &item_row(id, "y"));
    }
    stream.send_batch(&batch.commit(120, 130)).await;
    stream.confirmed(130).await;
    let sql = "SELECT operation || ' ' || (new_row ->> 'id') FROM scry_shadow.quarantine ORDER BY seq";
    let got: Vec<String> = shadow.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    let of = |operation: &str| [13, 1013, 2013, 3013, 4013].map(|id| format!("{operation} {id}"));
    assert_eq!(got, [of("INSERT"), of("UPDATE")].concat());
    let sql = "SELECT count(*) FROM public.items WHERE v = 'y'";
    assert_eq!(shadow.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 4_990 - 5);
}

#[tokio::test]
async fn a_cut_in_the_middle_is_exactly_once() {
    let (mut platform, shadow) = copied("quarantine").await;
    refuse_thirteen(&shadow).await;
    let half = Batch::new()
        .relation(&relation())
        .begin(120)
        .insert(ITEMS, &item_row(12, "a"))
        .insert(ITEMS, &item_row(13, "refused"));
    for _ in 0..3 {
        let mut stream = stream(&platform).await;
        stream.send_batch(&half).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        drop(stream);
    }
    assert_eq!(count(&shadow, "scry_shadow.quarantine").await, 0);
    let mut first = stream(&platform).await;
    first.send_batch(&three()).await;
    first.confirmed(150).await;
    first.marked(&[(ITEMS, 1)]).await;
    platform.kill();
    platform.start().await;
    let shadow = platform.shadow().await;
    let mut second = stream(&platform).await;
    // What has lasted is told at once.
    second.marked(&[(ITEMS, 1)]).await;
    second.send_batch(&three()).await;
    second.send_batch(&Batch::new().transaction(160, 170, &[(21, "x")])).await;
    second.confirmed(170).await;
    assert_eq!(kept(&shadow).await.len(), 1);
    assert_eq!(items(&shadow).await.len(), 8);
    second.send_batch(&Batch::new().transaction(180, 190, &[(13, "again")])).await;
    second.confirmed(190).await;
    second.marked(&[(ITEMS, 2)]).await;
}

#[tokio::test]
async fn a_table_that_is_not_there_holds_nobody_up() {
    let (platform, shadow) = copied("quarantine").await;
    shadow.batch_execute("DROP TABLE public.notes").await.unwrap();
    let mut stream = stream(&platform).await;
    let note = row(&[Some(b"1"), Some(b"1")]);
    let batch = Batch::new()
        .relation(&relation())
        .relation(&notes())
        .begin(100)
        .insert(NOTES, &note)
        .insert(ITEMS, &item_row(10, "x"))
        .truncate(0, &[NOTES, ITEMS])
        .insert(ITEMS, &item_row(11, "y"))
        .delete(NOTES, OldKind::Full, &note)
        .commit(100, 110);
    stream.send_batch(&batch).await;
    stream.confirmed(110).await;
    assert_eq!(items(&shadow).await, [item(11, "y")]);
    let operations: Vec<String> = kept(&shadow).await.into_iter().map(|kept| kept.0).collect();
    assert_eq!(operations, ["INSERT", "TRUNCATE", "DELETE"]);
    stream.marked(&[(NOTES, 3)]).await;
    // Put back by hand: what comes now is applied, and the mark stays.
    shadow.batch_execute("CREATE TABLE public.notes (j json, n numeric)").await.unwrap();
    shadow.batch_execute("ALTER TABLE public.notes OWNER TO scry_shadow").await.unwrap();
    stream.send_batch(&Batch::new().begin(120).insert(NOTES, &note).commit(120, 130)).await;
    stream.confirmed(130).await;
    assert_eq!(count(&shadow, "public.notes").await, 1);
    assert_eq!(count(&shadow, "scry_shadow.quarantined").await, 1);
}

#[tokio::test]
async fn a_policy_changes_where_the_stream_says_so() {
    let (platform, shadow) = copied("stop").await;
    refuse_thirteen(&shadow).await;
    let bad = |at: u64, policy: Option<&str>| {
        let begun = Batch::new().relation(&relation()).begin(at);
        let begun = match policy {
            Some(policy) => begun.schema(&[], &document(policy)),
            None => begun,
        };
        begun.insert(ITEMS, &item_row(13, "refused")).commit(at, at + 10)
    };
    let mut first = stream(&platform).await;
    first.send_batch(&bad(100, None)).await;
    first.refused().await;
    let mut second = stream(&platform).await;
    second.send_batch(&bad(100, Some("quarantine"))).await;
    second.confirmed(110).await;
    // It is the job's from here on, also on another connection.
    let mut third = stream(&platform).await;
    third.send_batch(&bad(120, None)).await;
    third.confirmed(130).await;
    third.marked(&[(ITEMS, 2)]).await;
    third.send_batch(&bad(140, Some("stop"))).await;
    third.refused().await;
    assert_eq!(count(&shadow, "scry_shadow.quarantine").await, 2);
}

#[tokio::test]
async fn a_late_copy_clears_the_mark() {
    let (platform, shadow) = copied("quarantine").await;
    refuse_thirteen(&shadow).await;
    let mut stream = stream(&platform).await;
    stream.send_batch(&three()).await;
    stream.confirmed(150).await;
    stream.marked(&[(ITEMS, 1)]).await;
    shadow.batch_execute("ALTER TABLE public.items DROP CONSTRAINT no_13").await.unwrap();
    let hold = Batch::new()
        .begin(200)
        .schema(&[ITEMS], &document("quarantine"))
        .insert(ITEMS, &item_row(30, "behind the hold"))
        .commit(200, 210);
    stream.send_batch(&hold).await;
    stream.confirmed(210).await;
    let late = COPY_ID + 1;
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    lead.late(late, 210, 210, "300:300:", &[ITEMS]).await;
    lead.catalog_applied().await;
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk_of(late, 0, 1, &relation(), &[item_row(13, "whole"), item_row(30, "behind the hold")]).await;
    let done: ChunkDone = copy.expect().await;
    assert_eq!(done.rows, 2);
    lead.send_finish(&[(ITEMS, 1, 2)]).await;
    let _: CopyFinished = lead.expect().await;
    stream.marked(&[]).await;
    assert_eq!(stream.notices.last().unwrap().message, "", "the status is cleared");
    assert_eq!(items(&shadow).await, [item(13, "whole"), item(30, "behind the hold")]);
    assert_eq!(count(&shadow, "scry_shadow.quarantine").await, 0);
    assert_eq!(count(&shadow, "scry_shadow.quarantined").await, 0);
}

/// A table found equal at a position is cleared of what was refused before it,
/// and of no more.
#[tokio::test]
async fn clears_up_to_a_position() {
    let (platform, shadow) = copied("quarantine").await;
    refuse_thirteen(&shadow).await;
    let mut stream = stream(&platform).await;
    let bad = |at: u64| Batch::new().relation(&relation()).transaction(at, at + 10, &[(13, "refused")]);
    stream.send_batch(&bad(100)).await;
    stream.send_batch(&bad(200)).await;
    stream.confirmed(210).await;
    let session = platform.shadow().await;
    quarantine::clear(&session, &[ITEMS], Some(Lsn(150))).await.unwrap();
    assert_eq!(kept(&shadow).await.iter().map(|kept| kept.1).collect::<Vec<_>>(), [200]);
    assert_eq!(count(&shadow, "scry_shadow.quarantined").await, 1);
    quarantine::clear(&session, &[ITEMS], Some(Lsn(210))).await.unwrap();
    eventually((0, 0), async || {
        let tables = ["scry_shadow.quarantine", "scry_shadow.quarantined"];
        (count(&shadow, tables[0]).await, count(&shadow, tables[1]).await)
    })
    .await;
}

/// Too many: what comes is counted, and the table waits for a copy.
#[tokio::test]
async fn a_table_with_too_many_diverges() {
    let (platform, shadow) = copied("quarantine").await;
    shadow.batch_execute("ALTER TABLE public.items ADD CHECK (id < 100)").await.unwrap();
    let mut stream = stream(&platform).await;
    let mut batch = Batch::new().relation(&relation()).begin(100);
    for id in 1_000..11_010 {
        batch = batch.insert(ITEMS, &item_row(id, "x"));
    }
    stream.send_batch(&batch.insert(ITEMS, &item_row(10, "good")).commit(100, 110)).await;
    stream.send_batch(&Batch::new().transaction(120, 130, &[(11, "good too")])).await;
    stream.confirmed(130).await;
    let marks = stream.marked(&[(ITEMS, 10_012)]).await;
    assert!(marks[0].diverged);
    assert_eq!(count(&shadow, "scry_shadow.quarantine").await, 10_000);
    assert_eq!(items(&shadow).await.len(), 3, "rows of a table that has diverged are not tried");
}
