//! How quickly the shadow follows: prints figures, asserts only what any
//! machine can do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::item_row;
use platform_lab::catalog::ITEMS;
use platform_lab::{Batch, Platform, relation};
use scry_wire::message::Role;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_small_transactions() {
    let platform = Platform::started().await;
    let rows: Vec<Vec<u8>> = (0..1000).map(|id| item_row(id, "0")).collect();
    platform.copied(&rows).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&Batch::new().relation(&relation())).await;
    // One at a time: from the first byte to the confirmation.
    let mut times = Vec::new();
    let mut at = 10;
    for n in 0..200 {
        let start = Instant::now();
        stream.send_batch(&transaction(Batch::new(), at, n)).await;
        stream.confirmed(at + 10).await;
        times.push(start.elapsed());
        at += 10;
    }
    times.sort();
    println!("commit to confirmed: median {:?}, 99th {:?}", times[100], times[197]);
    // A backlog: three updates and an insert each.
    let count: u64 = 20_000;
    let start = Instant::now();
    let mut n = 200;
    for _ in 0..count / 200 {
        let mut batch = Batch::new();
        for _ in 0..200 {
            batch = transaction(batch, at, n);
            at += 10;
            n += 1;
        }
        stream.send_batch(&batch).await;
    }
    stream.confirmed(at).await;
    let time = start.elapsed();
    println!(
        "{count} transactions of 4 changes in {time:?}: {:.0} changes a second",
        4.0 * 20_000.0 / time.as_secs_f64()
    );
    assert!(times[100] < Duration::from_secs(1) && time < Duration::from_secs(120));
}

fn transaction(batch: Batch, at: u64, n: i32) -> Batch {
    let open = batch.begin(at);
    let changed =
        (0..3).fold(open, |b, i| b.update(ITEMS, None, &item_row((n * 7 + i * 331) % 1000, &n.to_string())));
    changed.insert(ITEMS, &item_row(1_000 + n, "new")).commit(at, at + 10)
}
