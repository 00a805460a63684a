//! The way up in packs: to whom they go, when, and that what arrives is what was sent.

#![allow(clippy::unwrap_used)]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use scry_testkit::proxy::{Behaviour, Proxy};
use scry_wire::frame::{Tag, seal};
use scry_wire::limits::FRAME_HEADER_LEN;
use scry_wire::message::{Message, Role, Welcome};
use scry_wire::pack::Kind;
use support::{Platform, Sender, Settings, Taken, Worker, welcome};
use tokio::sync::watch;

/// As many frames as a test sends at most while it waits for packs.
const FRAMES_MAX: usize = 400;

fn config(url: &str, compression: &str) -> String {
    format!(
        "[platform]\nendpoint = \"{url}\"\nauth_token_file = \"{{dir}}/token\"\n\
         compression = \"{compression}\"\n"
    )
}

/// A frame of rows that look like rows: `number` makes it another.
fn rows(number: usize, len: usize) -> Vec<u8> {
    let row = |at: usize| format!("{at}\t{}\tsomebody-{}@example.org\tpaid\n", at * 7919 % 100_003, at % 977);
    let text = (number * 100_000..).flat_map(|at| row(at).into_bytes());
    let mut frame = vec![0; FRAME_HEADER_LEN];
    frame.extend(text.take(len));
    seal(&mut frame, Tag::Rows, false, 1);
    frame
}

/// A worker of a copy and its request at a platform that takes packs, or not.
async fn connect(sender: &Sender, platform: &mut Platform, takes_packs: bool) -> (Worker, Taken) {
    let mut worker = Worker::greet(sender, Role::Copy).await;
    let mut taken = platform.take().await;
    taken.takes_packs = takes_packs;
    taken.hello().await;
    taken.send_frame(&welcome().to_frame()).await;
    worker.read::<Welcome>().await;
    (worker, taken)
}

/// Reads frames until the request ends, each of which must be the next one of
/// [`rows`]; tells how many packs were compressed.
async fn read_rows(
    mut taken: Taken,
    len: usize,
    seen: watch::Sender<usize>,
    pause: Duration,
) -> (usize, Taken) {
    let mut frames = 0;
    while let Some(frame) = taken.next().await.unwrap() {
        assert!(frame.into_bytes() == rows(frames, len), "frame {frames} is another");
        frames += 1;
        seen.send_replace(taken.packs.iter().filter(|kind| **kind == Kind::Zstd).count());
        tokio::time::sleep(pause).await;
    }
    (frames, taken)
}

#[tokio::test]
async fn packs_go_only_to_a_platform_that_takes_them_and_never_if_not_wanted() {
    for (compression, takes_packs, packed) in
        [("always", true, true), ("always", false, false), ("never", true, false), ("auto", true, false)]
    {
        let mut platform = Platform::plain().await;
        let sender = Sender::start(&config(&platform.http(), compression)).await;
        let (mut worker, mut taken) = connect(&sender, &mut platform, takes_packs).await;
        let mut sent = 0;
        for (number, len) in [0, 1, 100, 5_000, 32 << 10, 1 << 20, 70_000, 3].into_iter().enumerate() {
            let frame = rows(number, len);
            worker.send(&frame).await;
            assert_eq!(taken.next().await.unwrap().unwrap().into_bytes(), frame);
            sent += frame.len();
        }
        drop(worker);
        assert!(taken.next().await.unwrap().is_none());
        assert_eq!(taken.packs.contains(&Kind::Zstd), packed, "{compression}, {takes_packs}");
        if packed {
            assert!(taken.packs.contains(&Kind::Plain), "small frames are not compressed");
            assert!(taken.wire < sent / 2, "{} of {sent} bytes", taken.wire);
        }
    }
}

#[tokio::test]
async fn what_does_not_shrink_arrives_as_it_is() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http(), "always")).await;
    let (mut worker, mut taken) = connect(&sender, &mut platform, true).await;
    let mut state = 1_u64;
    let mut frame = vec![0; FRAME_HEADER_LEN + (1 << 20)];
    for byte in &mut frame[FRAME_HEADER_LEN..] {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *byte = (state >> 56) as u8;
    }
    seal(&mut frame, Tag::Rows, false, 1);
    worker.send(&frame).await;
    assert!(taken.next().await.unwrap().unwrap().into_bytes() == frame);
    assert!(taken.packs.iter().all(|kind| *kind == Kind::Plain));
    assert!(taken.wire < frame.len() + frame.len() / 500, "{} bytes", taken.wire);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_link_is_packed_and_what_arrives_is_what_was_sent() {
    const LEN: usize = 256 << 10;
    let mut platform = Platform::plain().await;
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], platform.port)), 1).unwrap();
    proxy.behave(Behaviour::Throttle(2 << 20));
    let sender = Sender::start(&config(&proxy.url(), "auto")).await;
    let (mut worker, taken) = connect(&sender, &mut platform, true).await;
    let (seen, mut packs) = watch::channel(0);
    let reading = tokio::spawn(read_rows(taken, LEN, seen, Duration::ZERO));
    let mut sent = 0;
    while *packs.borrow_and_update() == 0 {
        assert!(sent < FRAMES_MAX, "a slow link is not noticed");
        worker.send(&rows(sent, LEN)).await;
        sent += 1;
    }
    for _ in 0..100 {
        worker.send(&rows(sent, LEN)).await;
        sent += 1;
    }
    drop(worker);
    let (frames, taken) = reading.await.unwrap();
    let raw = frames * (LEN + FRAME_HEADER_LEN);
    assert!(frames >= sent - 20, "{frames} of {sent} frames: the last may be lost with their worker");
    println!("{} of {raw} bytes, {} packs", taken.wire, taken.packs.len());
    assert!(taken.wire < raw * 3 / 4, "{} of {raw} bytes", taken.wire);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loopback_link_is_never_packed() {
    const LEN: usize = 1 << 20;
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http(), "auto")).await;
    let (mut worker, taken) = connect(&sender, &mut platform, true).await;
    let (seen, _packs) = watch::channel(0);
    let reading = tokio::spawn(read_rows(taken, LEN, seen, Duration::ZERO));
    for number in 0..100 {
        worker.send(&rows(number, LEN)).await;
    }
    drop(worker);
    let (frames, taken) = reading.await.unwrap();
    assert!(taken.packs.is_empty(), "{} packs", taken.packs.len());
    assert!(frames > 90, "{frames}");
}

/// The platform takes its time for each frame, and its window is closed meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_is_not_taken_for_a_slow_link() {
    const LEN: usize = 64 << 10;
    let settings = Settings { stream_window: 64 << 10, connection_window: 64 << 20 };
    let mut platform = Platform::start(0, None, settings).await;
    let sender = Sender::start(&config(&platform.http(), "auto")).await;
    let (mut worker, taken) = connect(&sender, &mut platform, true).await;
    let (seen, packs) = watch::channel(0);
    let reading = tokio::spawn(read_rows(taken, LEN, seen, Duration::from_millis(20)));
    for number in 0..350 {
        worker.send(&rows(number, LEN)).await;
    }
    let packed = *packs.borrow();
    drop(worker);
    reading.abort();
    // Where all processors are taken, answers to PINGs are late as well: then it is tried for a second.
    assert!(packed < 100, "{packed} packs");
}
