//! Packs: what comes compressed is what was sent, and what lies about its size is refused.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::{frames, item_row};
use platform_lab::catalog::{ITEMS, NOTES, items as catalog_of_items};
use platform_lab::{Batch, COPY_ID, Peer, Platform, item, items, relation};
use scry_wire::frame::Tag;
use scry_wire::limits::{PACK_BYTES_MAX, PACK_RATIO_MAX};
use scry_wire::message::{ChunkDone, ChunkEnd, ChunkStart, Message, RefuseKind, Role};
use scry_wire::pack::{self, Header, Kind};

fn peak(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn packed(kind: Kind, raw: usize, body: &[u8]) -> Vec<u8> {
    [&Header { kind, raw, coded: body.len() }.encode()[..], body].concat()
}

/// Bytes of frames as compressed packs, cut anywhere.
fn packs(raw: &[u8]) -> Vec<u8> {
    let pack = |part: &[u8]| packed(Kind::Zstd, part.len(), &zstd::bulk::compress(part, 1).unwrap());
    raw.chunks(PACK_BYTES_MAX - 77).flat_map(pack).collect()
}

fn end() -> Vec<u8> {
    packed(Kind::End, 0, &[])
}

#[tokio::test]
async fn packs_and_frames_in_turns_are_applied_as_they_were_sent() {
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let mut stream = platform.peer(Role::Stream).await;
    assert_eq!(stream.headers[pack::HEADER], pack::ZSTD);
    stream.welcome().await;
    let text = "much of the same ".repeat(20);
    let rows = |ids: std::ops::Range<i32>| ids.map(|id| (id, format!("{text}{id}"))).collect::<Vec<_>>();
    let sent = rows(0..6_000);
    for (at, part) in (1_u64..).zip(sent.chunks(1_000)) {
        let rows: Vec<(i32, &str)> = part.iter().map(|(id, v)| (*id, v.as_str())).collect();
        let bytes =
            Batch::new().relation(&relation()).transaction(at * 10, at * 10 + 10, &rows).frames().concat();
        match at % 3 {
            0 => stream.send_bytes(bytes).await,
            1 => stream.send_bytes([packs(&bytes), end()].concat()).await,
            _ => {
                let (a, b) = bytes.split_at(bytes.len() / 2);
                stream
                    .send_bytes([packs(a), packed(Kind::Plain, 9, &b[..9]), packs(&b[9..]), end()].concat())
                    .await
            }
        };
    }
    stream.confirmed(70).await;
    let want: Vec<_> = sent.iter().map(|(id, v)| item(*id, v)).collect();
    assert!(items(&platform.shadow().await).await == want);
}

#[tokio::test]
async fn a_copy_in_packs_is_loaded_as_it_was_sent() {
    let platform = Platform::started().await;
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    let document: Vec<u8> = frames(Tag::Catalog, &catalog_of_items(COPY_ID), 0).concat();
    lead.send_bytes([packs(&document), end()].concat()).await;
    lead.catalog_applied().await;
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    // The rows are more than a frame.
    let rows: Vec<Vec<u8>> =
        (0..20_000).map(|id| item_row(id, &format!("row number {id} ").repeat(8))).collect();
    let start = ChunkStart { copy_id: COPY_ID, chunk: 0, chunks: 1, relation: relation() };
    let mut bytes = start.to_frame();
    bytes.extend(frames(Tag::Rows, &rows.concat(), 20_000).concat());
    bytes.extend(ChunkEnd { rows: 20_000 }.to_frame());
    copy.send_bytes([packs(&bytes), end()].concat()).await;
    assert_eq!(copy.expect::<ChunkDone>().await.rows, 20_000);
    lead.finish(&[(ITEMS, 1, 20_000), (NOTES, 0, 0)]).await;
    let shadow = platform.shadow().await;
    let sql = "SELECT count(*), count(*) FILTER (WHERE v = repeat('row number ' || id || ' ', 8)) FROM public.items";
    let row = shadow.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (20_000, 20_000));
}

/// One Zstandard frame of blocks of one repeated byte: 4 bytes for each 128 KiB.
fn bomb(blocks: usize) -> Vec<u8> {
    // RFC 8878: magic, no content size, a window of 128 KiB; then blocks: last, RLE, their size.
    let mut bytes = b"\x28\xb5\x2f\xfd\x00\x38".to_vec();
    for block in 1..=blocks {
        let header = u32::from(block == blocks) | 1 << 1 | (128 << 10) << 3;
        bytes.extend_from_slice(&header.to_le_bytes()[..3]);
        bytes.push(0);
    }
    bytes
}

#[tokio::test]
async fn packs_that_inflate_without_end_are_refused_in_bounded_memory() {
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let mut honest = platform.peer(Role::Stream).await;
    honest.welcome().await;
    let zeros = bomb(3_000);
    // It is one: 12 kB, and all that it is stopped by is the room that it is given.
    let mut inflater = zstd::stream::read::Decoder::new(&zeros[..]).unwrap();
    assert_eq!(std::io::copy(&mut inflater, &mut std::io::sink()).unwrap(), 3_000 << 17);
    let before = peak(platform.pid());
    let head = |raw: u32, coded: u32| [b"z\0\0\0", &raw.to_be_bytes()[..], &coded.to_be_bytes()[..]].concat();
    let full = u32::try_from(PACK_BYTES_MAX).unwrap();
    let least = full / u32::try_from(PACK_RATIO_MAX).unwrap();
    let lies = [
        // 10 kB that say that they are 4 GB, and that hold it.
        ([head(u32::MAX, 10_000), zeros[..10_000].to_vec()].concat(), "pack length is too large"),
        (head(full, u32::MAX), "pack compressed length is too large"),
        (head(full, least - 1), "by its ratio"),
        // What is said is allowed, what comes is not: it inflates to 375 MB.
        (packed(Kind::Zstd, PACK_BYTES_MAX, &zeros), "does not inflate"),
        (packed(Kind::Zstd, PACK_BYTES_MAX, &bomb(1).repeat(60)), "does not inflate"),
        (packed(Kind::Zstd, 1_000, &zstd::bulk::compress(&[7; 999], 1).unwrap()), "inflates to 999"),
        (packed(Kind::Zstd, 9_000, &[b'x'; 500]), "does not inflate"),
        (packed(Kind::Plain, 4, &[0; 4]).into_iter().chain(end()).collect(), "inside a frame"),
    ];
    for (bytes, words) in lies {
        let mut liar = platform.peer(Role::Verify).await;
        liar.welcome().await;
        liar.send_bytes(bytes).await;
        let refuse = liar.refused().await;
        assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Protocol, true), "{refuse:?}");
        assert!(refuse.message.contains(words), "{words}: {refuse:?}");
    }
    let grown = peak(platform.pid()) - before;
    println!("memory grew by {} kB", grown >> 10);
    assert!(grown < 16 << 20, "{} MB", grown >> 20);
    honest.send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(1, "one")])).await;
    honest.confirmed(20).await;
}

#[tokio::test]
async fn a_request_that_ends_inside_a_pack_is_refused() {
    let platform = Platform::started().await;
    platform.copied(&[]).await;
    let mut stream: Peer = platform.peer(Role::Stream).await;
    stream.welcome().await;
    let bytes =
        packs(&Batch::new().relation(&relation()).transaction(10, 20, &[(1, "one")]).frames().concat());
    stream.send_bytes(bytes[..bytes.len() - 1].to_vec()).await;
    stream.end();
    assert_eq!(stream.refused().await.kind, RefuseKind::Protocol);
    assert!(items(&platform.shadow().await).await.is_empty());
}
