//! The program: start, signals, configuration, metrics.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{SIGINT, SIGTERM};
use scry_wire::frame::Tag;
use scry_wire::message::{Message, RefuseKind, Role, Welcome};
use support::{Platform, Sender, Worker, data, free_port, hello};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn config(url: &str) -> String {
    format!("[platform]\nendpoint = \"{url}\"\nauth_token_file = \"{{dir}}/token\"\n")
}

fn output(args: &[&str]) -> (bool, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_scry_sender")).args(args).output().unwrap();
    let text = |b| String::from_utf8(b).unwrap();
    (out.status.success(), text(out.stdout), text(out.stderr))
}

#[test]
fn tells_its_version_and_its_help() {
    let (ok, out, _) = output(&["--version"]);
    assert!(ok && out.starts_with("scry_sender 0."), "{out}");
    let (ok, out, _) = output(&["--help"]);
    assert!(ok && out.contains("--config") && out.contains("SCRY_BACKFILL_SECTION__KEY"), "{out}");
}

#[tokio::test]
async fn says_in_one_line_why_it_cannot_start() {
    let (ok, _, err) = output(&["--config", "/nonexistent/c.toml"]);
    assert!(!ok && err.lines().count() == 1 && err.contains("/nonexistent/c.toml"), "{err}");
    for (config, words) in [
        ("[platform]\nendpoint = \"http://10.1.2.3:80\"\n", "unencrypted"),
        ("[platform]\n", "endpoint is missing"),
        ("[platform]\nendpoint = \"https://h:1\"\ntoken = \"s3cret\"\n", "unknown field"),
        ("[platform]\nendpoint = \"https://h:1\"\n[metrics]\nlisten = \"0.0.0.0:1\"\n", "loopback"),
        ("[platform]\nendpoint = \"https://h:1\"\n[log]\nlevel = \"=x=\"\n", "level"),
        ("not toml", "not valid"),
        ("auth_token = s3cret", "line 3"),
    ] {
        let mut sender = Sender::spawn(config);
        assert!(!sender.exit().await.success());
        let log = sender.log();
        assert!(log.contains(words) && log.trim().lines().count() == 1, "{log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
}

#[tokio::test]
async fn stops_cleanly_and_tells_its_workers() {
    for signal in [SIGTERM, SIGINT] {
        let mut platform = Platform::plain().await;
        let mut sender = Sender::start(&config(&platform.http())).await;
        // Connections are accepted in order: this one before the next is welcomed.
        let mut silent = Worker::connect(&sender).await;
        let mut streaming = Worker::greet(&sender, Role::Stream).await;
        let mut taken = platform.welcome().await;
        streaming.read::<Welcome>().await;
        let mut connecting = Worker::greet(&sender, Role::Copy).await;
        let _unanswered = platform.take().await;
        let begun = Instant::now();
        sender.signal(signal);
        for worker in [&mut streaming, &mut connecting, &mut silent] {
            let refuse = worker.refused().await;
            assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Stopping, true));
        }
        assert!(sender.exit().await.success());
        assert!(begun.elapsed() < Duration::from_secs(6));
        assert!(!sender.socket.exists());
        assert!(taken.ended().await.is_err());
    }
}

#[tokio::test]
async fn a_worker_that_reads_nothing_does_not_hold_up_the_stop() {
    let mut sender = Sender::start(&config(&format!("http://127.0.0.1:{}", free_port()))).await;
    let _worker = Worker::greet(&sender, Role::Stream).await;
    sender.logged("worker connected").await;
    sender.signal(SIGTERM);
    assert!(sender.exit().await.success());
}

/// 256 kB a second for a megabyte takes seconds; a new rate frees it at once.
#[tokio::test]
async fn sighup_changes_the_rate_of_running_connections() {
    let mut platform = Platform::plain().await;
    let base = config(&platform.http());
    let slow = format!("{base}[rate_limit]\nmax_bytes_per_second = \"64kB\"\nburst_multiplier = 1\n");
    let sender = Sender::start(&slow).await;
    let mut worker = Worker::greet(&sender, Role::Copy).await;
    let mut taken = platform.welcome().await;
    worker.read::<Welcome>().await;

    let begun = Instant::now();
    worker.send(&data(Tag::Rows, 128 << 10, 1)).await;
    taken.next().await.unwrap();
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(800) && took < Duration::from_secs(4), "{took:?}");

    let sending = tokio::spawn(async move {
        for _ in 0..8 {
            worker.send(&data(Tag::Rows, 1 << 20, 1)).await;
        }
        worker
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let begun = Instant::now();
    sender.reconfigure(&base);
    for _ in 0..8 {
        taken.next().await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    sending.await.unwrap();
}

#[tokio::test]
async fn rows_are_limited_for_copies_and_streams_apart() {
    let mut platform = Platform::plain().await;
    let limited =
        format!("{}[rate_limit]\nrows_per_second = 1000\nburst_multiplier = 1\n", config(&platform.http()));
    let sender = Sender::start(&limited).await;
    for (role, tag, limited) in [(Role::Copy, Tag::Rows, true), (Role::Stream, Tag::Batch, false)] {
        let mut worker = Worker::greet(&sender, role).await;
        let mut taken = platform.welcome().await;
        worker.read::<Welcome>().await;
        let begun = Instant::now();
        for _ in 0..2 {
            worker.send(&data(tag, 1000, 1000)).await;
            taken.next().await.unwrap();
        }
        let took = begun.elapsed();
        assert_eq!(took > Duration::from_millis(700), limited, "{role:?}: {took:?}");
    }
}

#[tokio::test]
async fn sighup_changes_endpoint_and_token_for_new_connections() {
    let (mut old, mut new) = (Platform::plain().await, Platform::plain().await);
    let sender = Sender::start(&config(&old.http())).await;
    let mut first = Worker::greet(&sender, Role::Stream).await;
    let mut old_taken = old.welcome().await;
    first.read::<Welcome>().await;

    support::write_private(&sender.dir.path().join("token"), "another-token");
    sender.reconfigure(&config(&new.http()));
    sender.logged("configuration reread").await;
    let mut second = Worker::greet(&sender, Role::Stream).await;
    let taken = new.welcome().await;
    assert_eq!(taken.head.headers["authorization"], "Bearer another-token");
    second.read::<Welcome>().await;
    first.send(&data(Tag::Batch, 10, 1)).await;
    assert!(old_taken.next().await.unwrap().is_some(), "what runs goes on");

    sender.reconfigure("[platform]\nendpoint = \"ftp://x\"\n");
    sender.logged("configuration not changed").await;
    let _third = Worker::greet(&sender, Role::Stream).await;
    new.welcome().await;
}

#[tokio::test]
async fn serves_metrics_on_loopback() {
    let mut platform = Platform::plain().await;
    let port = free_port();
    let with = format!(
        "{}[metrics]\nlisten = \"127.0.0.1:{port}\"\n[log]\nformat = \"json\"\n",
        config(&platform.http())
    );
    let sender = Sender::start(&with).await;
    let mut worker = Worker::greet(&sender, Role::Copy).await;
    let mut taken = platform.welcome().await;
    worker.read::<Welcome>().await;
    worker.send(&data(Tag::Rows, 500, 12)).await;
    taken.next().await.unwrap();
    let mut bad = Worker::connect(&sender).await;
    bad.send(&[0xff; 40]).await;
    bad.refused().await;

    let mut http = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    http.read_to_string(&mut page).await.unwrap();
    for line in [
        "scry_sender_rows_total 12",
        "scry_sender_frames_total{direction=\"up\"} 1",
        "scry_sender_frames_total{direction=\"down\"} 1",
        "scry_sender_connections{role=\"copy\"} 1",
        "scry_sender_refused_total{kind=\"protocol\"} 1",
        "scry_sender_upstream_connections 1",
        "scry_sender_queue_bytes 0",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    let log = sender.log();
    assert!(log.lines().all(|l| l.starts_with('{')), "{log}");
}

#[tokio::test]
async fn two_senders_do_not_share_a_socket() {
    let sender = Sender::start(&config("https://localhost:1")).await;
    let out = Command::new(env!("CARGO_BIN_EXE_scry_sender"))
        .arg("--config")
        .arg(sender.dir.path().join("c.toml"))
        .output()
        .unwrap();
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("another scry_sender"));
    let mut worker = Worker::connect(&sender).await;
    worker.send(&hello(Role::Stream).to_frame()).await;
    worker.notice().await;
}
