//! How much memory the platform takes: large transactions, large values.
//!
//! Bounds: 256 MB, and twice a value on top of it. A transaction of
//! `SCRY_TEST_ROWS` rows (default 300,000; ten million in the long run).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::{item_key, item_row};
use platform_lab::catalog::ITEMS;
use platform_lab::{Batch, Platform, relation};
use scry_wire::message::Role;
use scry_wire::message::change::OldKind;
use std::time::Instant;

const CAP: u64 = 256 << 20;

/// The most memory the process has had, in bytes.
fn peak(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_large_transaction_passes_in_bounded_memory() {
    let rows: i32 = std::env::var("SCRY_TEST_ROWS").ok().and_then(|v| v.parse().ok()).unwrap_or(300_000);
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    let start = Instant::now();
    stream.send_batch(&Batch::new().relation(&relation()).begin(10)).await;
    for first in (0..rows).step_by(10_000) {
        let ids = first..rows.min(first + 10_000);
        let batch = ids.fold(Batch::new(), |b, id| b.insert(ITEMS, &item_row(id, "some text of a row")));
        stream.send_batch(&batch).await;
    }
    stream.send_batch(&Batch::new().commit(10, 20)).await;
    stream.confirmed(20).await;
    let inserted = start.elapsed();
    let start = Instant::now();
    stream.send_batch(&Batch::new().begin(20)).await;
    let changes = rows / 10;
    for first in (0..changes).step_by(5_000) {
        let ids = first..changes.min(first + 5_000);
        let batch = ids.fold(Batch::new(), |b, id| match id % 2 {
            0 => b.update(ITEMS, None, &item_row(id, "some other text of a row")),
            _ => b.delete(ITEMS, OldKind::Key, &item_key(id)),
        });
        stream.send_batch(&batch).await;
    }
    stream.send_batch(&Batch::new().commit(20, 30)).await;
    stream.confirmed(30).await;
    let changed = start.elapsed();
    let shadow = platform.shadow().await;
    let sql = "SELECT count(*), count(*) FILTER (WHERE v = 'some other text of a row') FROM public.items";
    let row = shadow.query_one(sql, &[]).await.unwrap();
    let (count, other): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!((count, other), (i64::from(rows - changes / 2), i64::from(changes - changes / 2)));
    let peak = peak(platform.pid());
    println!(
        "{rows} inserts in {inserted:?}, {changes} updates and deletes in {changed:?}, peak {} MB",
        peak >> 20
    );
    assert!(peak < CAP, "{} MB", peak >> 20);
}

#[tokio::test]
async fn a_large_value_passes() {
    let megabytes: usize = 200;
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    let value = "x".repeat(megabytes << 20);
    let insert = Batch::new()
        .relation(&relation())
        .begin(10)
        .insert(ITEMS, &item_row(1, &value))
        .insert(ITEMS, &item_row(2, "small"))
        .commit(10, 20);
    stream.send_batch(&insert).await;
    drop(insert);
    stream.confirmed(20).await;
    let inserted = peak(platform.pid());
    let value = value.replace('x', "y");
    let update = Batch::new().begin(20).update(ITEMS, None, &item_row(1, &value)).commit(20, 30);
    stream.send_batch(&update).await;
    drop(update);
    stream.confirmed(30).await;
    stream.send_batch(&Batch::new().transaction(30, 40, &[(3, "after")])).await;
    stream.confirmed(40).await;
    let updated = peak(platform.pid());
    println!("peak {} MB after the insert, {} MB after the update", inserted >> 20, updated >> 20);
    let shadow = platform.shadow().await;
    let sql = "SELECT octet_length(v), left(v, 3) FROM public.items WHERE id = 1";
    let row = shadow.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i32>(0), row.get::<_, &str>(1)), (200 << 20, "yyy"));
    assert!(updated < CAP + ((2 * megabytes as u64) << 20), "{} MB", updated >> 20);
}
