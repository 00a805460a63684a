//! HTTP/2 used as a weapon: bounded memory, and honest peers go on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use bytes::Bytes;
use platform_lab::{Batch, Platform, relation};
use scry_wire::message::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn peak(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Opens requests and resets them at once, until the connection is ended.
async fn rapid_reset(port: u16, most: usize) -> usize {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for n in 0..most {
        let Ok(ready) = client.ready().await else { return n };
        client = ready;
        let request = http::Request::post("http://platform/api/v1/stream").body(()).unwrap();
        let Ok((answer, mut up)) = client.send_request(request, false) else { return n };
        up.send_reset(h2::Reason::CANCEL);
        drop(answer);
        tokio::task::yield_now().await;
    }
    most
}

/// HTTP/2 by hand: preface, settings, then `frames` again and again.
async fn raw(port: u16, first: &[u8], again: &[u8], times: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let _ = stream.write_all(first).await;
    for _ in 0..times {
        if stream.write_all(again).await.is_err() {
            return;
        }
    }
    let mut rest = Vec::new();
    let read = tokio::time::timeout(std::time::Duration::from_secs(20), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection is ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_end_their_own_connection() {
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let mut honest = platform.peer(Role::Stream).await;
    honest.welcome().await;
    let before = peak(platform.pid());
    let resets = rapid_reset(platform.port, 100_000).await;
    // Headers without an end: a HEADERS frame, then CONTINUATION after CONTINUATION.
    let headers = [b"\0\0\x01\x01\0\0\0\0\x01".as_slice(), b"\x82"].concat();
    let mut more = b"\0\x40\0\x09\0\0\0\0\x01".to_vec();
    more.resize(9 + 0x4000, b'\x40');
    raw(platform.port, &headers, &more, 4_000).await;
    // A request whose hello never comes: many bytes of nothing.
    let mut slow = platform_lab::Peer::connect(platform.port, None).await;
    slow.send_bytes(Bytes::from_static(b"\0\0\0\x40H")).await;
    let grown = peak(platform.pid()) - before;
    println!("{resets} resets before the end; memory grew by {} kB", grown >> 10);
    assert!(grown < 64 << 20, "{} MB", grown >> 20);
    honest.send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(1, "one")])).await;
    honest.confirmed(20).await;
    let refuse = slow.refused().await;
    assert!(refuse.message.contains("no hello"), "{refuse:?}");
}
