//! Floods of HTTP/2 frames, each on a connection of its own, one kind after the
//! other: memory stays bounded, and an honest worker hardly notices.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::{Batch, Platform, relation};
use scry_wire::message::Role;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the platform may grow by, whatever comes.
const GROWTH_MAX: u64 = 64 << 20;
/// How long each flood lasts at most.
const FLOOD: Duration = Duration::from_secs(4);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// SETTINGS with INITIAL_WINDOW_SIZE 0: nothing that is answered can be sent.
const NO_WINDOW: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0scry-scr";

fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A HEADERS frame: `POST /api/v1/stream`, or `GET /metrics`.
fn headers(stream: u32, post: bool) -> Vec<u8> {
    let path: &[u8] = if post { b"/api/v1/stream" } else { b"/metrics" };
    let mut block = vec![if post { 0x83 } else { 0x82 }, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path);
    block.extend_from_slice(b"\x01\x01x");
    let mut frame = u32::try_from(block.len()).unwrap().to_be_bytes()[1..].to_vec();
    // HEADERS; END_HEADERS, and END_STREAM for a GET.
    frame.extend_from_slice(&[0x01, if post { 0x04 } else { 0x05 }]);
    frame.extend_from_slice(&stream.to_be_bytes());
    [frame, block].concat()
}

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Sends until the platform ends the connection or the time is over: what was
/// sent, and whether it ended. What is answered is read, or left where it is.
async fn flood(port: u16, settings: &[u8], reads: bool, mut next: impl FnMut(u32) -> Vec<u8>) -> (u32, bool) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&[PREFACE, settings].concat()).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let reader = tokio::spawn(async move {
        let mut buffer = vec![0; 64 << 10];
        while reads && from.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
        if !reads {
            std::future::pending::<()>().await;
        }
    });
    let begun = Instant::now();
    let mut number = 0;
    while begun.elapsed() < FLOOD && !reader.is_finished() {
        let bytes: Vec<u8> = (0..32).flat_map(|step| next(number + step)).collect();
        match tokio::time::timeout(Duration::from_secs(1), to.write_all(&bytes)).await {
            Ok(Ok(())) => number += 32,
            Ok(Err(_)) => {
                reader.abort();
                return (number, true);
            }
            // The platform reads no more: its answers are not taken.
            Err(_) => break,
        }
    }
    let ended = reader.is_finished();
    reader.abort();
    (number, ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_flood_is_bounded_and_honest_peers_go_on() {
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let mut honest = platform.peer(Role::Stream).await;
    honest.welcome().await;
    honest.send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(1, "one")])).await;
    honest.confirmed(20).await;
    let (port, pid) = (platform.port, platform.pid());
    let odd = |number: u32| number * 2 + 1;
    let mut at = 20;
    for kind in
        ["pings", "settings", "empty data", "made resets", "unknown frames", "slow reading", "open requests"]
    {
        let before = resident(pid);
        let attack = tokio::spawn(async move {
            match kind {
                "pings" => flood(port, SETTINGS, false, |_| PING.to_vec()).await,
                "settings" => flood(port, SETTINGS, false, |_| SETTINGS.to_vec()).await,
                // One request, then DATA without data.
                "empty data" => {
                    flood(port, SETTINGS, true, |n| if n == 0 { headers(1, true) } else { frame(0, 1, &[]) })
                        .await
                }
                // Frames that make the platform itself reset the stream (CVE-2025-8671).
                "made resets" => {
                    flood(port, SETTINGS, true, |n| {
                        [headers(odd(n), true), frame(8, odd(n), &[0; 4])].concat()
                    })
                    .await
                }
                "unknown frames" => flood(port, SETTINGS, true, |_| frame(0xfa, 0, &[0; 64])).await,
                "slow reading" => flood(port, NO_WINDOW, false, |n| headers(odd(n), false)).await,
                _ => flood(port, SETTINGS, true, |n| headers(odd(n), true)).await,
            }
        });
        let mut slowest = Duration::ZERO;
        let mut grown = 0;
        while !attack.is_finished() {
            let asked = Instant::now();
            let id = i32::try_from(at).unwrap();
            honest.send_batch(&Batch::new().transaction(at, at + 10, &[(id, "more")])).await;
            at += 10;
            honest.confirmed(at).await;
            slowest = slowest.max(asked.elapsed());
            grown = grown.max(resident(pid).saturating_sub(before));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (sent, ended) = attack.await.unwrap();
        println!(
            "{kind}: {sent} sent, {}; memory grew by {} kB; an honest transaction took {slowest:?} at most",
            if ended { "connection ended" } else { "held" },
            grown >> 10
        );
        assert!(grown < GROWTH_MAX, "{kind}: {} MB", grown >> 20);
        assert!(slowest < Duration::from_secs(5), "{kind}: {slowest:?}");
        // What one request after the other opens and makes fail does not go on for ever.
        assert!(ended || !["made resets", "empty data"].contains(&kind), "{kind}: not ended after {sent}");
    }
}
