//! Kills at random moments: no transaction is lost, none has effect twice.
//!
//! `SCRY_TEST_KILLS` (default 8) and `SCRY_TEST_SEED` choose how long and which
//! way; the seed is printed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::item_row;
use platform_lab::catalog::ITEMS;
use platform_lab::{Batch, Peer, Platform, hello, relation};
use scry_wire::Lsn;
use scry_wire::frame::Tag;
use scry_wire::message::{Confirm, Message, Role, Welcome};
use std::time::{Duration, Instant};

/// A small generator: the run is replayed by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// Transaction `n` inserts row n and counts in row 0.
fn transaction(batch: Batch, n: u64) -> Batch {
    let id = i32::try_from(n).unwrap();
    batch
        .begin(n * 10)
        .insert(ITEMS, &item_row(id, "x"))
        .update(ITEMS, None, &item_row(0, &n.to_string()))
        .commit(n * 10, n * 10 + 10)
}

/// A worker: says hello, sends from the position it is told, reads what is
/// confirmed; ends when its connection does.
async fn work(port: u16, upto: u64, confirmed: &std::sync::atomic::AtomicU64) -> Option<()> {
    let mut peer = Peer::try_connect(port).await?;
    peer.send(&hello(Role::Stream)).await;
    let frame = peer.try_next().await?;
    let welcome = Welcome::from_frame(&frame).ok()?;
    let first = (welcome.flushed_lsn.0 / 10).max(1);
    assert!(
        welcome.flushed_lsn.0 >= confirmed.load(std::sync::atomic::Ordering::SeqCst),
        "a confirmed transaction is lost"
    );
    if welcome.flushed_lsn == Lsn(upto * 10 + 10) {
        return Some(());
    }
    peer.send_bytes(Batch::new().relation(&relation()).frames().concat()).await;
    let mut sent = first.saturating_sub(3).max(1);
    loop {
        if sent <= upto {
            let batch = (sent..=upto.min(sent + 20)).fold(Batch::new(), transaction);
            sent = upto.min(sent + 20) + 1;
            if !peer.send_bytes(batch.frames().concat()).await {
                return None;
            }
        }
        let frame = match tokio::time::timeout(Duration::from_millis(2), peer.try_next()).await {
            Err(_) if sent <= upto => continue,
            Err(_) => peer.try_next().await?,
            Ok(frame) => frame?,
        };
        if frame.tag() != Tag::Confirm {
            return None;
        }
        let lsn = Confirm::from_frame(&frame).ok()?.flushed_lsn;
        confirmed.fetch_max(lsn.0, std::sync::atomic::Ordering::SeqCst);
        if lsn == Lsn(upto * 10 + 10) {
            return Some(());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_whatever_is_killed() {
    storm("none").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_doubled_with_a_journal() {
    storm("file").await;
}

async fn storm(journal: &str) {
    let kills = setting("SCRY_TEST_KILLS", 8);
    let seed = setting("SCRY_TEST_SEED", u64::from(std::process::id()) * 7919 + 1);
    println!("SCRY_TEST_SEED={seed} SCRY_TEST_KILLS={kills}");
    let mut dice = Dice(seed);
    let mut platform = Platform::new();
    platform.args = vec!["--journal".into(), journal.into()];
    platform.start().await;
    platform.copied(&[item_row(0, "0")]).await;
    let upto = kills * 5000;
    let confirmed = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let port = platform.port;
    let worker = tokio::spawn({
        let confirmed = confirmed.clone();
        async move {
            while work(port, upto, &confirmed).await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    });
    for _ in 0..kills {
        tokio::time::sleep(Duration::from_millis(50 + dice.roll(700))).await;
        match dice.roll(3) {
            0 => {
                // It may be down already, between two kills.
                let Some(postmaster) = platform.postmaster() else { continue };
                let signal = ["-9", "-QUIT"][usize::try_from(dice.roll(2)).unwrap()];
                std::process::Command::new("kill").args([signal, &postmaster.to_string()]).status().unwrap();
            }
            1 => {
                platform.kill();
                platform.start().await;
            }
            _ => {
                assert!(platform.stop().success(), "{}", platform.log());
                platform.start().await;
            }
        }
    }
    let start = Instant::now();
    tokio::time::timeout(Duration::from_secs(120), worker)
        .await
        .expect("the worker comes to its end")
        .unwrap();
    println!("{upto} transactions through {kills} kills; the last {:?} undisturbed", start.elapsed());
    platform.start_if_stopped().await;
    let shadow = platform.shadow().await;
    let sql = "SELECT count(*), count(DISTINCT id), max(id), (SELECT v FROM public.items WHERE id = 0) FROM public.items";
    let upto = i64::try_from(upto).unwrap();
    // What is confirmed may be on its way out of the journal.
    platform_lab::eventually((upto + 1, upto + 1, upto, upto.to_string()), async || {
        let row = shadow.query_one(sql, &[]).await.unwrap();
        (row.get(0), row.get(1), i64::from(row.get::<_, i32>(2)), row.get(3))
    })
    .await;
}
