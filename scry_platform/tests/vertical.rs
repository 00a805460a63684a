//! The whole way of a job through a real platform: copy, stream, restarts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::{item_key, item_row, item_row_unchanged, notes};
use platform_lab::catalog::{self, ITEMS, NOTES};
use platform_lab::{
    Batch, COPY_ID, GENERATION, Platform, eventually, hello, item, items, kill_server, relation, row,
};
use scry_wire::Lsn;
use scry_wire::message::change::{OldKind, TRUNCATE_RESTART};
use scry_wire::message::{CopyState, Role};

#[tokio::test]
async fn copies_then_follows() {
    let platform = Platform::started().await;
    platform.copied(&[item_row(1, "one"), item_row(2, "two"), item_row(3, "three\tthird")]).await;
    let shadow = platform.shadow().await;
    assert_eq!(items(&shadow).await, [item(1, "one"), item(2, "two"), item(3, "three\tthird")]);
    let counter: i64 = shadow.query_one("SELECT last_value FROM public.counter", &[]).await.unwrap().get(0);
    assert_eq!(counter, 33);

    let mut stream = platform.peer(Role::Stream).await;
    let welcome = stream.welcome().await;
    assert_eq!((welcome.copy_state, welcome.generation), (CopyState::Copied, GENERATION));
    assert_eq!((welcome.applied_lsn, welcome.shadow.as_str()), (Lsn::INVALID, "shadow"));
    let batch = Batch::new()
        .relation(&relation())
        .begin(100)
        .insert(ITEMS, &item_row(4, "four"))
        .update(ITEMS, None, &item_row(1, "ONE"))
        .update(ITEMS, Some((OldKind::Key, &item_key(2))), &item_row(20, "moved"))
        .update(ITEMS, None, &item_row_unchanged(3))
        .sequence("counter", 64)
        .sequence("unknown", 64)
        .commit(100, 110)
        .begin(110)
        .delete(ITEMS, OldKind::Key, &item_key(4))
        .commit(110, 120);
    stream.send_batch(&batch).await;
    stream.confirmed(120).await;
    assert_eq!(items(&shadow).await, [item(1, "ONE"), item(3, "three\tthird"), item(20, "moved")]);
    let counter: i64 = shadow.query_one("SELECT last_value FROM public.counter", &[]).await.unwrap().get(0);
    assert_eq!(counter, 64);
    stream.send_batch(&Batch::new().keepalive(500)).await;
    stream.confirmed(500).await;
    let lsn: String =
        shadow.query_one("SELECT applied_lsn::text FROM scry_shadow.origin", &[]).await.unwrap().get(0);
    assert_eq!(lsn, "0/1F4");
    stream.send_batch(&Batch::new().begin(600).truncate(TRUNCATE_RESTART, &[ITEMS]).commit(600, 610)).await;
    stream.confirmed(610).await;
    assert_eq!(items(&shadow).await, []);
    stream.end();
    assert!(stream.next().await.is_none());
    let (status, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert_eq!(status, 200);
    assert!(
        body.contains("\"copy_state\":\"copied\"") && body.contains("\"applied_lsn\":\"0/262\""),
        "{body}"
    );
    let (_, metrics) = platform.get("/metrics").await.unwrap();
    assert!(metrics.contains("scry_platform_rows_applied_total{shadow=\"shadow\"} 6"), "{metrics}");
}

#[tokio::test]
async fn goes_on_after_every_kind_of_end() {
    let mut platform = Platform::new();
    platform.args = vec!["--journal".into(), "none".into()];
    platform.start().await;
    platform.copied(&[]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    let history = |upto: u64| {
        (1..=upto).fold(Batch::new().relation(&relation()), |batch, n| {
            let id = i32::try_from(n).unwrap();
            batch.transaction(n * 10, n * 10 + 10, &[(id, "x")])
        })
    };
    let ids = async |platform: &Platform| items(&platform.shadow().await).await.len();
    stream.send_batch(&history(10)).await;
    stream.confirmed(110).await;
    // A transaction without its end, then SIGKILL: it leaves nothing.
    stream.send_batch(&Batch::new().begin(110).insert(ITEMS, &item_row(11, "half"))).await;
    platform.kill();
    platform.start().await;
    assert_eq!(ids(&platform).await, 10);
    // Everything is sent again; what is there is skipped.
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.welcome().await.applied_lsn, Lsn(110));
    stream.send_batch(&history(20)).await;
    stream.confirmed(210).await;
    assert_eq!(ids(&platform).await, 20);
    // A clean stop tells the peer.
    assert!(platform.stop().success(), "{}", platform.log());
    assert_eq!(stream.refused().await.message, "the platform is stopping");
    platform.start().await;
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.welcome().await.applied_lsn, Lsn(210));
    // The shadow's server is killed: told, restarted, gone on.
    kill_server(platform.postmaster().unwrap()).await;
    stream.send_batch(&history(30)).await;
    let refuse = stream.refused().await;
    assert!(refuse.retry, "{refuse:?}");
    let mut position = Lsn::INVALID;
    while position != Lsn(310) {
        let mut stream = platform.peer(Role::Stream).await;
        let Some(frame) = stream.next().await else { continue };
        if frame.tag() != scry_wire::frame::Tag::Welcome {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        }
        stream.send_batch(&history(30)).await;
        stream.confirmed(310).await;
        position = Lsn(310);
    }
    assert_eq!(ids(&platform).await, 30);
}

#[tokio::test]
async fn newest_stream_wins() {
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let mut old = platform.peer(Role::Stream).await;
    old.welcome().await;
    old.send_batch(&Batch::new().relation(&relation()).begin(10).insert(ITEMS, &item_row(1, "old"))).await;
    let mut new = platform.peer(Role::Stream).await;
    new.welcome().await;
    assert!(old.refused().await.message.contains("taken over"));
    new.send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(1, "new")])).await;
    new.confirmed(20).await;
    assert_eq!(items(&platform.shadow().await).await, [item(1, "new")]);
}

#[tokio::test]
async fn waits_for_the_copy_and_loads_chunks_once() {
    let mut platform = Platform::started().await;
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.welcome().await.copy_state, CopyState::None);
    stream.send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(9, "streamed")])).await;
    let mut lead = platform.peer(Role::Lead).await;
    assert_eq!(lead.welcome().await.copy_state, CopyState::None);
    lead.send_catalog(&catalog::items(COPY_ID)).await;
    assert_eq!(lead.catalog_applied().await.left_out, []);
    let mut copy = platform.peer(Role::Copy).await;
    assert_eq!(copy.welcome().await.copy_state, CopyState::Copying);
    let first = [item_row(1, "a"), item_row(2, "b")];
    assert!(!copy.chunk(0, 2, &relation(), &first).await.repeated);
    let again = copy.chunk(0, 2, &relation(), &first).await;
    assert_eq!((again.repeated, again.rows), (true, 2));
    // Text rows, cut by the form of their table.
    let text = [
        row(&[Some(b"{\"a\": \"x\\ty\"}"), Some(b"1.00")]),
        row(&[Some(b"[1,\n2]"), None]),
        row(&[Some(b"[1,\n2]"), None]),
    ];
    copy.chunk(0, 1, &notes(), &text).await;
    // Receipts of a first copy do not wait for the disk; a later commit that does brings all to it.
    let shadow = platform.shadow().await;
    shadow.batch_execute("CREATE TABLE public.later(); DROP TABLE public.later").await.unwrap();
    drop(shadow);
    // The platform dies in the middle of a chunk: nothing of it stays.
    copy.send(&scry_wire::message::ChunkStart {
        copy_id: COPY_ID,
        chunk: 1,
        chunks: 2,
        relation: relation(),
    })
    .await;
    for frame in platform_lab::batch::frames(scry_wire::frame::Tag::Rows, &item_row(3, "c"), 1) {
        copy.send_bytes(frame).await;
    }
    platform.kill();
    platform.start().await;
    let mut lead = platform.peer(Role::Lead).await;
    assert_eq!(lead.welcome().await.copy_state, CopyState::Copying);
    lead.send_catalog(&catalog::items(COPY_ID)).await;
    let applied = lead.catalog_applied().await;
    assert_eq!(applied.tables.iter().map(|t| (t.relid, t.rows)).collect::<Vec<_>>(), [(NOTES, 3)]);
    assert_eq!(applied.chunks.iter().map(|c| (c.chunk, c.rows)).collect::<Vec<_>>(), [(0, 2)]);
    // Wrong counts are named.
    lead.send(&scry_wire::message::CopyFinish {
        tables: vec![scry_wire::message::CopiedTable { relid: ITEMS, chunks: 2, rows: 3 }],
    })
    .await;
    let refuse = lead.refused().await;
    assert!(
        refuse.message.contains("\"public\".\"items\" (1 chunks and 2 rows here, 2 and 3 sent)"),
        "{refuse:?}"
    );
    assert!(refuse.message.contains("\"public\".\"notes\""), "{refuse:?}");
    // Another snapshot: whole tables stay, the others are empty again.
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    lead.send_catalog(&catalog::items(COPY_ID + 1)).await;
    let applied = lead.catalog_applied().await;
    assert_eq!((applied.tables.len(), applied.chunks.len()), (1, 0));
    let shadow = platform.shadow().await;
    assert_eq!(items(&shadow).await, []);
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk_of(COPY_ID, 0, 1, &relation(), &first).await;
    assert!(copy.refused().await.message.contains("not the one under way"));
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk_of(COPY_ID + 1, 0, 1, &relation(), &first).await;
    copy.expect::<scry_wire::message::ChunkDone>().await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(9, "streamed")])).await;
    assert_eq!(items(&shadow).await.len(), 2, "nothing is applied before the copy is complete");
    lead.finish(&[(ITEMS, 1, 2), (NOTES, 1, 3)]).await;
    stream.confirmed(20).await;
    assert_eq!(items(&shadow).await, [item(1, "a"), item(2, "b"), item(9, "streamed")]);
    // Rows without a key are found by their image; one of two equal rows goes.
    let json = shadow.query("SELECT j::text, n::text FROM public.notes ORDER BY 1, 2", &[]).await.unwrap();
    assert_eq!(json.len(), 3);
    stream
        .send_batch(
            &Batch::new()
                .relation(&notes())
                .begin(20)
                .delete(NOTES, OldKind::Full, &text[1])
                .update(NOTES, Some((OldKind::Full, &text[0])), &row(&[Some(b"{}"), Some(b"2.50")]))
                .commit(20, 30),
        )
        .await;
    stream.confirmed(30).await;
    let rows = shadow.query("SELECT j::text, n::text FROM public.notes ORDER BY 1", &[]).await.unwrap();
    let got: Vec<(String, Option<String>)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    assert_eq!(got, [("[1,\n2]".into(), None), ("{}".into(), Some("2.50".into()))]);
}

/// A table that is complete gets its indexes while others are still copied; the end passes over them.
#[tokio::test]
async fn indexes_do_not_wait_for_other_tables() {
    let platform = Platform::started().await;
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    lead.send_catalog(&catalog::items(COPY_ID)).await;
    lead.catalog_applied().await;
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    let wide = "x".repeat(100 << 10);
    let rows: Vec<Vec<u8>> = (1..=90).map(|id| item_row(id, &wide)).collect();
    assert_eq!(copy.chunk(0, 1, &relation(), &rows).await.rows, 90);
    let shadow = platform.shadow().await;
    let indexes = async || -> i64 {
        let sql = "SELECT count(*) FROM pg_index WHERE indrelid = 'public.items'::regclass AND indisvalid";
        shadow.query_one(sql, &[]).await.unwrap().get(0)
    };
    platform_lab::eventually(true, async || indexes().await > 0).await;
    let made = indexes().await;
    assert_eq!(lead.finish(&[(ITEMS, 1, 90), (NOTES, 0, 0)]).await.left_out, []);
    assert_eq!(indexes().await, made);
    let keys =
        "SELECT count(*) FROM pg_constraint WHERE conrelid = 'public.items'::regclass AND contype = 'p'";
    assert_eq!(shadow.query_one(keys, &[]).await.unwrap().get::<_, i64>(0), 1);
}

#[tokio::test]
async fn another_generation_starts_over() {
    let platform = Platform::started().await;
    platform.copied(&[item_row(1, "old")]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&Batch::new().keepalive(900)).await;
    stream.confirmed(900).await;
    let mut next = hello(Role::Lead);
    next.generation = GENERATION + 1;
    let mut lead = platform_lab::Peer::connect(platform.port, None).await;
    lead.send(&next).await;
    let welcome = lead.welcome().await;
    assert_eq!((welcome.generation, welcome.copy_state), (GENERATION, CopyState::None));
    assert_eq!(welcome.applied_lsn, Lsn::INVALID);
    lead.send_catalog(&catalog::document(COPY_ID, "other")).await;
    assert_eq!(lead.catalog_applied().await, Default::default());
    assert!(stream.refused().await.retry);
    let shadow = platform.shadow().await;
    let count: i64 =
        shadow.query_one("SELECT count(*) FROM public.items WHERE other IS NULL", &[]).await.unwrap().get(0);
    assert_eq!(count, 0);
    lead.finish(&[(ITEMS, 0, 0), (NOTES, 0, 0)]).await;
    let lsn: String =
        shadow.query_one("SELECT applied_lsn::text FROM scry_shadow.origin", &[]).await.unwrap().get(0);
    assert_eq!(lsn, "0/0");
}

#[tokio::test]
async fn each_job_has_its_own_shadow() {
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let mut other = hello(Role::Lead);
    other.job = "second".into();
    let mut lead = platform_lab::Peer::connect(platform.port, None).await;
    lead.send(&other).await;
    assert_eq!(lead.welcome().await.shadow, "shadow_shop_second");
    eventually(true, async || {
        platform.get("/api/v1/shadows").await.is_some_and(|(_, body)| body.contains("shadow_shop_second"))
    })
    .await;
}
