//! Delivery contract, rule 6: a table on hold, its late copy, and the moment
//! when the two become one, against a real platform.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::{item_key, item_row, notes, row};
use platform_lab::catalog::{self, ITEMS, NOTES};
use platform_lab::{Batch, COPY_ID, Peer, Platform, eventually, item, items, relation};
use scry_wire::message::change::OldKind;
use scry_wire::message::{ChunkDone, CopyFinished, Role};
use tokio_postgres::Client;

const LATE: u64 = COPY_ID + 1;

/// A platform whose copy is complete: items 1 to 3. And its stream.
async fn streaming() -> (Platform, Peer) {
    let platform = Platform::started().await;
    platform.copied(&[item_row(1, "one"), item_row(2, "two"), item_row(3, "three")]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    (platform, stream)
}

/// A transaction that puts `items` on hold, between two of its own changes.
fn held_at(at: u64) -> Batch {
    Batch::new()
        .relation(&relation())
        .begin(at)
        .insert(ITEMS, &item_row(50, "before the hold"))
        .schema(&[ITEMS], &catalog::items(COPY_ID))
        .insert(ITEMS, &item_row(51, "behind the hold"))
        .commit(at, at + 10)
}

async fn leader(platform: &Platform) -> Peer {
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    lead
}

async fn chunk(platform: &Platform, copy_id: u64, number: u32, of: u32, rows: &[Vec<u8>]) {
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk_of(copy_id, number, of, &relation(), rows).await;
    let done: ChunkDone = copy.expect().await;
    assert_eq!((done.rows, done.repeated), (rows.len() as u64, false));
}

async fn count(shadow: &Client, table: &str) -> i64 {
    shadow.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_late_copy_and_the_changes_kept_meanwhile_become_one() {
    let (platform, mut stream) = streaming().await;
    let shadow = platform.shadow().await;
    stream.send_batch(&held_at(100)).await;
    stream.confirmed(110).await;
    assert_eq!(items(&shadow).await, []);
    // Other tables go on; this one's changes wait, also a large one and a TRUNCATE.
    let large = "x".repeat(3 << 20);
    let batch = Batch::new()
        .relation(&notes())
        .begin(120)
        .insert(ITEMS, &item_row(4, "seen"))
        .insert(NOTES, &row(&[Some(b"1"), Some(b"1")]))
        .commit(120, 130)
        .begin(130)
        .insert(ITEMS, &item_row(5, "unseen"))
        .insert(ITEMS, &item_row(6, &large))
        .update(ITEMS, Some((OldKind::Key, &item_key(1))), &item_row(10, "moved"))
        .commit(130, 140)
        .begin(140)
        .delete(ITEMS, OldKind::Key, &item_key(2))
        .truncate(0, &[NOTES])
        .commit(140, 150);
    stream.send_batch(&batch).await;
    stream.confirmed(150).await;
    assert_eq!((items(&shadow).await, count(&shadow, "public.notes").await), (vec![], 0));
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(body.contains("\"held\":[{\"relid\":16001,\"state\":\"waiting\""), "{body}");

    // A snapshot that saw all but 130 and what began after it.
    let mut lead = leader(&platform).await;
    lead.late(LATE, 115, 200, "130:145:130,140", &[ITEMS]).await;
    assert_eq!(lead.catalog_applied().await.tables, []);
    let copied = [item_row(1, "one"), item_row(2, "two"), item_row(3, "three"), item_row(4, "seen")];
    chunk(&platform, LATE, 0, 2, &copied[..2]).await;
    chunk(&platform, LATE, 1, 2, &copied[2..]).await;
    lead.send_finish(&[(ITEMS, 2, 4)]).await;
    eventually(true, async || {
        let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
        body.contains("\"state\":\"copied\"") && body.contains("\"until_lsn\":\"0/C8\"")
    })
    .await;
    // The stream has not reached the snapshot's position: half of it is not shown as whole.
    assert_eq!(items(&shadow).await.len(), 4);
    stream.send_batch(&Batch::new().begin(180).insert(ITEMS, &item_row(7, "last")).commit(180, 200)).await;
    stream.confirmed(200).await;
    let _: CopyFinished = lead.expect().await;
    let expected = [
        item(3, "three"),
        item(4, "seen"),
        item(5, "unseen"),
        item(6, &large),
        item(7, "last"),
        item(10, "moved"),
    ];
    assert_eq!(items(&shadow).await, expected);
    assert_eq!((count(&shadow, "scry_shadow.hold").await, count(&shadow, "scry_shadow.kept").await), (0, 0));
    // It is live again, and a leader that asks again learns that it is whole.
    stream
        .send_batch(&Batch::new().begin(210).delete(ITEMS, OldKind::Key, &item_key(6)).commit(210, 220))
        .await;
    stream.confirmed(220).await;
    assert_eq!(items(&shadow).await.len(), 5);
    let mut lead = leader(&platform).await;
    lead.late(LATE, 115, 200, "130:145:130,140", &[ITEMS]).await;
    let receipt = lead.catalog_applied().await;
    assert_eq!((receipt.tables[0].chunks, receipt.tables[0].rows), (2, 4));
    lead.finish(&[(ITEMS, 2, 4)]).await;
    assert_eq!(items(&shadow).await.len(), 5);
}

#[tokio::test]
async fn a_hold_survives_restarts_and_rounds_that_come_to_nothing() {
    let (mut platform, mut stream) = streaming().await;
    stream.send_batch(&held_at(100)).await;
    let kept = Batch::new()
        .begin(110)
        .update(ITEMS, None, &item_row(1, "ONE"))
        .commit(110, 120)
        .begin(120)
        .insert(ITEMS, &item_row(4, "four"))
        .commit(120, 130);
    stream.send_batch(&kept).await;
    stream.confirmed(130).await;
    let mut lead = leader(&platform).await;
    lead.late(LATE, 101, 140, "105:105:", &[ITEMS]).await;
    lead.catalog_applied().await;
    chunk(&platform, LATE, 0, 2, &[item_row(1, "old round")]).await;
    platform.kill();
    platform.start().await;

    // The stream comes again from where it was, and goes on keeping.
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.welcome().await.applied_lsn.0, 130);
    let again = Batch::new().relation(&relation()).begin(130).insert(ITEMS, &item_row(5, "five"));
    stream.send_batch(&again.commit(130, 140)).await;
    stream.confirmed(140).await;
    // Another round: the table is emptied, its changes stay.
    let mut lead = leader(&platform).await;
    lead.late(LATE + 1, 135, 150, "125:125:", &[ITEMS]).await;
    assert_eq!(lead.catalog_applied().await.chunks, []);
    let shadow = platform.shadow().await;
    assert_eq!(items(&shadow).await, []);
    // A copier of the round before is refused.
    let mut late = platform.peer(Role::Copy).await;
    late.welcome().await;
    late.chunk_of(LATE, 1, 2, &relation(), &[item_row(2, "old round")]).await;
    assert!(late.refused().await.retry);
    let rows = [item_row(1, "ONE"), item_row(2, "two"), item_row(3, "three"), item_row(4, "four")];
    chunk(&platform, LATE + 1, 0, 1, &rows).await;
    lead.send_finish(&[(ITEMS, 1, 4)]).await;
    // Complete and not yet joined: the platform goes down in between.
    eventually(true, async || {
        let sql = "SELECT FROM scry_shadow.hold WHERE state = 'copied'";
        !shadow.query(sql, &[]).await.unwrap().is_empty()
    })
    .await;
    platform.kill();
    platform.start().await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&Batch::new().keepalive(160)).await;
    stream.confirmed(160).await;
    let shadow = platform.shadow().await;
    let expected = [item(1, "ONE"), item(2, "two"), item(3, "three"), item(4, "four"), item(5, "five")];
    eventually(expected.to_vec(), async || items(&shadow).await).await;
}

#[tokio::test]
async fn refuses_what_could_lose_a_change() {
    let (platform, mut stream) = streaming().await;
    let shadow = platform.shadow().await;
    stream.send_batch(&held_at(100)).await;
    stream.confirmed(110).await;
    // A snapshot from before the hold.
    let mut lead = leader(&platform).await;
    lead.late(LATE, 100, 140, "105:105:", &[ITEMS]).await;
    let refuse = lead.refused().await;
    assert!(refuse.retry && refuse.message.contains("older than the hold"), "{refuse:?}");
    let mut lead = leader(&platform).await;
    lead.late(LATE, 101, 140, "105", &[ITEMS]).await;
    assert!(lead.refused().await.message.contains("snapshot"));
    // Not all rows, or a table without any chunk.
    let mut lead = leader(&platform).await;
    lead.late(LATE, 101, 105, "105:105:", &[ITEMS]).await;
    lead.catalog_applied().await;
    chunk(&platform, LATE, 0, 2, &[item_row(1, "one")]).await;
    lead.send_finish(&[(ITEMS, 2, 2)]).await;
    assert!(lead.refused().await.message.contains("not complete"));
    let mut lead = leader(&platform).await;
    lead.late(LATE, 101, 105, "105:105:", &[ITEMS]).await;
    assert_eq!(lead.catalog_applied().await.chunks.len(), 1);
    assert_eq!(items(&shadow).await.len(), 1);
    // A chunk of a table that is not on hold.
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk_of(LATE, 0, 1, &notes(), &[]).await;
    assert!(copy.refused().await.retry);
    // It is put on hold again while it is being copied: the round is over.
    chunk(&platform, LATE, 1, 2, &[item_row(2, "two")]).await;
    let again = Batch::new().begin(200).schema(&[ITEMS], &catalog::items(COPY_ID)).commit(200, 210);
    stream.send_batch(&again).await;
    stream.confirmed(210).await;
    lead.send_finish(&[(ITEMS, 2, 2)]).await;
    assert!(lead.refused().await.retry);
    assert_eq!((items(&shadow).await, count(&shadow, "scry_shadow.chunk").await), (vec![], 0));
}

#[tokio::test]
async fn kept_changes_that_do_not_fit_are_copied_again_and_stop_nothing() {
    let (platform, mut stream) = streaming().await;
    let shadow = platform.shadow().await;
    stream.send_batch(&held_at(100)).await;
    let kept = Batch::new().begin(110).update(ITEMS, None, &item_row(9, "not in the copy")).commit(110, 120);
    stream.send_batch(&kept).await;
    stream.confirmed(120).await;
    let mut lead = leader(&platform).await;
    lead.late(LATE, 101, 110, "105:105:", &[ITEMS]).await;
    lead.catalog_applied().await;
    chunk(&platform, LATE, 0, 1, &[item_row(1, "one")]).await;
    lead.send_finish(&[(ITEMS, 1, 1)]).await;
    let refuse = lead.refused().await;
    assert!(refuse.message.contains("found 0 rows"), "{refuse:?}");
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(body.contains("\"state\":\"waiting\"") && body.contains("found 0 rows"), "{body}");
    // The stream has gone on, and the next round brings the table back.
    stream.send_batch(&Batch::new().begin(120).insert(ITEMS, &item_row(11, "new")).commit(120, 130)).await;
    stream.confirmed(130).await;
    let mut lead = leader(&platform).await;
    lead.late(LATE + 1, 125, 130, "115:115:", &[ITEMS]).await;
    lead.catalog_applied().await;
    chunk(&platform, LATE + 1, 0, 1, &[item_row(1, "one"), item_row(9, "nine")]).await;
    lead.finish(&[(ITEMS, 1, 2)]).await;
    assert_eq!(items(&shadow).await, [item(1, "one"), item(9, "nine"), item(11, "new")]);
    let (_, metrics) = platform.get("/metrics").await.unwrap();
    assert!(metrics.contains("scry_platform_tables_held{shadow=\"shadow\"} 0"), "{metrics}");
}
