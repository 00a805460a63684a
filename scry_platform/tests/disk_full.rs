//! The shadow's disk is full: told, waited for, gone on.
//!
//! Needs the right to mount a tmpfs of a fixed size; without it the test says
//! so and passes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::item_row;
use platform_lab::catalog::ITEMS;
use platform_lab::{Batch, Peer, Platform, hello, items, relation};
use scry_wire::Lsn;
use scry_wire::frame::Tag;
use scry_wire::message::{Confirm, Message, Refuse, Role, Welcome};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A small disk; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(dir: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir(dir).ok()?;
        let size = format!("size={megabytes}m,mode=777");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).output().ok()?;
        mounted.status.success().then(|| Disk(dir.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Sends transactions of one megabyte from the shadow's position on; returns
/// the last confirmed position and the refusal, if one came.
async fn work(port: u16, upto: u64) -> Option<(Lsn, Option<Refuse>)> {
    let mut peer = Peer::try_connect(port).await?;
    peer.send(&hello(Role::Stream)).await;
    let frame = peer.try_next().await?;
    if frame.tag() == Tag::Refuse {
        return Some((Lsn::INVALID, Refuse::from_frame(&frame).ok()));
    }
    let mut position = Welcome::from_frame(&frame).ok()?.applied_lsn;
    peer.send_bytes(Batch::new().relation(&relation()).frames().concat()).await;
    for n in (position.0 / 10).max(1)..=upto {
        let id = i32::try_from(n).unwrap();
        // Does not compress: TOAST must not make it small.
        let mut x = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let text: String = (0..(1 << 20))
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                char::from(b'!' + u8::try_from(x % 90).unwrap())
            })
            .collect();
        let batch =
            Batch::new().begin(n * 10).insert(ITEMS, &item_row(id, &text)).commit(n * 10, n * 10 + 10);
        peer.send_bytes(batch.frames().concat()).await;
        while position < Lsn(n * 10 + 10) {
            let frame = peer.try_next().await?;
            if frame.tag() == Tag::Refuse {
                return Some((position, Refuse::from_frame(&frame).ok()));
            }
            position = Confirm::from_frame(&frame).ok()?.flushed_lsn;
        }
    }
    Some((position, None))
}

#[tokio::test]
async fn a_full_disk_is_told_and_survived() {
    let mut platform = Platform::new();
    // With one, the stream goes on into the journal: see tests/journal.rs.
    platform.args = vec!["--journal".into(), "none".into()];
    let Some(_disk) = Disk::mount(&platform.data_dir(), 420) else {
        println!("skipped: cannot mount a tmpfs here");
        return;
    };
    let filler = platform.data_dir().join("filler");
    if platform_lab::is_root() {
        let user = std::env::var("SCRY_TEST_USER").unwrap_or_else(|_| "postgres".to_owned());
        Command::new("chown").arg(user).arg(platform.data_dir()).status().unwrap();
    }
    platform.start().await;
    platform.copied(&[]).await;
    std::fs::write(&filler, vec![1u8; 150 << 20]).unwrap();
    let upto = 150;
    let mut refusal = None;
    let start = Instant::now();
    while refusal.is_none() {
        if let Some((position, refuse)) = work(platform.port, upto).await {
            assert!(position < Lsn(upto * 10 + 10), "the disk is never full");
            refusal = refuse;
        }
        assert!(start.elapsed() < Duration::from_secs(60));
    }
    let refusal = refusal.unwrap();
    println!("told: {}", refusal.message);
    assert!(refusal.retry, "{refusal:?}");
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(body.contains("\"last_error\":{"), "{body}");
    std::fs::remove_file(&filler).unwrap();
    let start = Instant::now();
    while work(platform.port, 60).await.is_none_or(|(position, _)| position < Lsn(610)) {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not go on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("gone on after {:?}", start.elapsed());
    let held = items(&platform.shadow().await).await;
    let ids: Vec<i32> = held.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, (1..=i32::try_from(held.len()).unwrap()).collect::<Vec<_>>());
    assert!(held.len() >= 60);
    drop(platform);
}
