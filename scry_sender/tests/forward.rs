//! The path itself: frames both ways, breaks, back-pressure, memory.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, Instant};

use scry_wire::Lsn;
use scry_wire::frame::Tag;
use scry_wire::message::{Confirm, Level, Message, RefuseKind, Role, Welcome};
use support::{Mood, Platform, Sender, Settings, Worker, batch, confirm, data, free_port, welcome};

fn config(url: &str) -> String {
    format!("[platform]\nendpoint = \"{url}\"\nauth_token_file = \"{{dir}}/token\"\n")
}

#[tokio::test]
async fn passes_frames_both_ways() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let mut taken = platform.take().await;
    assert_eq!(taken.head.uri.path(), "/api/v1/stream");
    assert_eq!(taken.head.headers["authorization"], "Bearer s3cret-token");
    assert_eq!(taken.head.headers["content-type"], "application/vnd.scry.frames");
    let hello = taken.hello().await;
    assert_eq!((hello.role, hello.job.as_str()), (Role::Stream, "default"));
    taken.send_frame(&welcome().to_frame()).await;
    assert_eq!(worker.read::<Welcome>().await.applied_lsn, Lsn(42));

    for len in [0, 1, 100, 32 << 10, 1 << 20] {
        let sent = batch(len, 3);
        worker.send(&sent).await;
        let got = taken.next().await.unwrap().unwrap();
        assert_eq!((got.tag(), got.rows()), (Tag::Batch, 3));
        assert_eq!(got.into_bytes(), sent);
        taken.send_frame(&confirm(100 + len as u64)).await;
        assert_eq!(worker.read::<Confirm>().await.flushed_lsn, Lsn(100 + len as u64));
    }
    drop(worker);
    assert!(taken.next().await.unwrap().is_none(), "a worker that leaves ends its request");
    assert!(!sender.log().contains("s3cret"));
}

#[tokio::test]
async fn large_frames_come_down_whole_to_many_workers() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut pairs = Vec::new();
    for _ in 0..8 {
        let mut worker = Worker::greet(&sender, Role::Lead).await;
        let mut taken = platform.welcome().await;
        worker.read::<Welcome>().await;
        for _ in 0..3 {
            taken.send_frame(&data(Tag::CatalogApplied, 1 << 20, 0)).await;
        }
        taken.send_frame(&confirm(7)).await;
        pairs.push((worker, taken));
    }
    for (worker, _taken) in &mut pairs {
        for _ in 0..3 {
            assert_eq!(worker.next().await.unwrap().into_bytes(), data(Tag::CatalogApplied, 1 << 20, 0));
        }
        worker.read::<Confirm>().await;
    }
    assert!(sender.peak_memory() < 64 << 20);
}

#[tokio::test]
async fn what_a_worker_sent_before_it_left_still_arrives() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut worker = Worker::greet(&sender, Role::Copy).await;
    let mut taken = platform.welcome().await;
    worker.read::<Welcome>().await;
    for _ in 0..100 {
        worker.send(&data(Tag::Rows, 1000, 10)).await;
    }
    drop(worker);
    let mut frames = 0;
    while let Some(_frame) = taken.next().await.unwrap() {
        frames += 1;
    }
    assert_eq!(frames, 100);
}

#[tokio::test]
async fn streams_share_a_connection_apart_from_copies() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut seen = Vec::new();
    let mut held = Vec::new();
    for role in [Role::Stream, Role::Stream, Role::Copy, Role::Copy, Role::Lead] {
        let worker = Worker::greet(&sender, role).await;
        let taken = platform.welcome().await;
        seen.push(taken.connection);
        held.push((worker, taken));
    }
    assert_eq!(seen[0], seen[1]);
    assert!(!seen[2..].contains(&seen[0]));
    assert_ne!(seen[2], seen[3], "copies spread over connections");
}

#[tokio::test]
async fn an_unreachable_platform_is_told_and_retried() {
    let port = free_port();
    let sender = Sender::start(&config(&format!("http://127.0.0.1:{port}"))).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let notice = worker.notice().await;
    assert_eq!(notice.level, Level::Error);
    assert!(notice.message.contains("could not connect to http://127.0.0.1"), "{}", notice.message);
    let mut platform = Platform::start(port, None, Settings::default()).await;
    let _taken = platform.welcome().await;
    let cleared = worker.notice().await;
    assert_eq!(cleared.message, "");
    worker.read::<Welcome>().await;
}

#[tokio::test]
async fn a_cause_that_lasts_is_told_again() {
    let sender = Sender::start(&config(&format!("http://127.0.0.1:{}", free_port()))).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let first = worker.notice().await;
    let begun = Instant::now();
    assert_eq!(worker.notice().await, first);
    assert!(begun.elapsed() < Duration::from_secs(12));
}

#[tokio::test]
async fn an_upstream_that_is_cut_ends_the_workers_connection() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let mut taken = platform.welcome().await;
    worker.read::<Welcome>().await;
    worker.send(&batch(10, 1)).await;
    taken.next().await.unwrap();
    platform.cut().await;
    let refuse = worker.refused().await;
    assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Unreachable, true));
}

#[tokio::test]
async fn a_reset_stream_and_an_ended_one_end_only_their_worker() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut workers = Vec::new();
    let mut taken = Vec::new();
    for _ in 0..3 {
        workers.push(Worker::greet(&sender, Role::Stream).await);
        taken.push(platform.welcome().await);
        workers.last_mut().unwrap().read::<Welcome>().await;
    }
    taken.remove(0).reset();
    assert_eq!(workers[0].refused().await.kind, RefuseKind::Unreachable);
    taken.remove(0).end();
    assert_eq!(workers[1].refused().await.kind, RefuseKind::Unreachable);
    workers[2].send(&batch(10, 1)).await;
    assert!(taken[0].next().await.unwrap().is_some());
}

#[tokio::test]
async fn a_platform_that_goes_away_keeps_its_streams_and_gets_no_new_ones() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut old = Worker::greet(&sender, Role::Stream).await;
    let mut old_taken = platform.welcome().await;
    old.read::<Welcome>().await;
    platform.mood(Mood::GoingAway);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut new = Worker::greet(&sender, Role::Stream).await;
    let new_taken = platform.welcome().await;
    while new.next().await.unwrap().tag() != Tag::Welcome {}
    assert_ne!(old_taken.connection, new_taken.connection);
    old.send(&batch(10, 1)).await;
    assert!(old_taken.next().await.unwrap().is_some());
}

#[tokio::test]
async fn a_dead_peer_is_found() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&format!("{}ping_interval_ms = 300\n", config(&platform.http()))).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let _taken = platform.welcome().await;
    worker.read::<Welcome>().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = Instant::now();
    platform.mood(Mood::Frozen);
    let refuse = worker.refused().await;
    assert!(refuse.message.contains("answered no PING"), "{}", refuse.message);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

/// The platform reads nothing: the worker is stopped, memory stays bounded,
/// acknowledgements and other connections go on, and a worker that dies
/// meanwhile frees its stream at once.
#[tokio::test]
async fn a_full_window_stops_the_worker_and_nothing_else() {
    let settings = Settings { stream_window: 64 << 10, connection_window: 64 << 20 };
    let mut platform = Platform::start(0, None, settings).await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut stalled = Worker::greet(&sender, Role::Stream).await;
    let mut unread = platform.welcome().await;
    stalled.read::<Welcome>().await;

    let frame = batch(1 << 20, 1);
    let mut taken_in = 0;
    loop {
        let full = tokio::time::timeout(Duration::from_secs(1), stalled.socket.writable()).await.is_err();
        if full {
            break;
        }
        let from = taken_in % frame.len();
        match stalled.socket.try_write(&frame[from..]) {
            Ok(written) => taken_in += written,
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(e) => panic!("{e}"),
        }
        assert!(taken_in < 16 << 20, "the sender reads without bound");
    }
    assert!(taken_in > 1 << 20, "only {taken_in} bytes were read ahead");

    // The way down is free.
    unread.send_frame(&confirm(43)).await;
    assert_eq!(stalled.read::<Confirm>().await.flushed_lsn, Lsn(43));

    // So is every other connection.
    let mut other = Worker::greet(&sender, Role::Stream).await;
    let mut read = platform.welcome().await;
    other.read::<Welcome>().await;
    other.send(&frame).await;
    assert!(read.next().await.unwrap().is_some());

    drop(stalled);
    let begun = Instant::now();
    assert!(unread.ended().await.is_err(), "a worker that left inside a frame has its stream reset");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn memory_is_bounded_whatever_is_streamed() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut pairs = Vec::new();
    for role in [Role::Stream, Role::Copy, Role::Copy, Role::Copy, Role::Copy] {
        let mut worker = Worker::greet(&sender, role).await;
        let taken = platform.welcome().await;
        worker.read::<Welcome>().await;
        pairs.push((worker, taken));
    }
    let mut tasks = Vec::new();
    for (mut worker, mut taken) in pairs {
        tasks.push(tokio::spawn(async move {
            let send = async {
                let frame = batch(1 << 20, 1000);
                for _ in 0..40 {
                    worker.send(&frame).await;
                }
            };
            let receive = async {
                for _ in 0..40 {
                    taken.next().await.unwrap().unwrap();
                }
            };
            tokio::join!(send, receive);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let peak = sender.peak_memory();
    println!("sender's peak memory: {} MB", peak >> 20);
    assert!(peak < 64 << 20, "{peak} bytes");
}

/// Many stalled workers: the whole budget is used, and no more.
#[tokio::test]
async fn memory_is_bounded_when_everything_stalls() {
    let settings = Settings { stream_window: 64 << 10, connection_window: 64 << 20 };
    let mut platform = Platform::start(0, None, settings).await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut held = Vec::new();
    let frame = batch(1 << 20, 1);
    for _ in 0..40 {
        let mut worker = Worker::greet(&sender, Role::Copy).await;
        let taken = platform.welcome().await;
        worker.read::<Welcome>().await;
        let mut quiet = 0;
        let mut written = 0;
        while quiet < 3 {
            match worker.socket.try_write(&frame[written % frame.len()..]) {
                Ok(n) => (written, quiet) = (written + n, 0),
                Err(_) => {
                    quiet += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        held.push((worker, taken));
    }
    let peak = sender.peak_memory();
    println!("sender's peak memory: {} MB", peak >> 20);
    assert!(peak < 64 << 20, "{peak} bytes");
}
