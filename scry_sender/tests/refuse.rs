//! Refusals: what the platform answers, what a worker may not send, who may
//! not connect. A good connection goes on beside each.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use scry_wire::frame::{FLAG_CONTINUED, Tag, frame};
use scry_wire::limits::FRAME_HEADER_LEN;
use scry_wire::message::{Message, Refuse, RefuseKind, Role, Welcome};
use support::{Platform, Sender, Taken, Worker, batch, confirm, data, hello, soon};

fn config(url: &str) -> String {
    format!("[platform]\nendpoint = \"{url}\"\nauth_token_file = \"{{dir}}/token\"\n")
}

async fn answered(status: u16, words: &str) -> Refuse {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    platform.take().await.reject(status, words);
    worker.refused().await
}

#[tokio::test]
async fn a_token_that_is_refused_is_told() {
    let refuse = answered(401, "unknown token\n").await;
    assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Auth, true));
    assert!(refuse.message.contains("401"), "{}", refuse.message);
    assert_eq!(refuse.detail, "unknown token");
    assert!(refuse.hint.contains("auth_token_file"));
    assert_eq!(answered(403, "").await.kind, RefuseKind::Auth);
}

#[tokio::test]
async fn a_refusal_behind_a_status_is_told_in_the_platforms_words() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let own = Refuse {
        kind: RefuseKind::Auth,
        retry: false,
        message: "token does not match".into(),
        detail: String::new(),
        hint: "look at --auth-token-file".into(),
    };
    platform.take().await.reject_with(401, &own);
    let refuse = worker.refused().await;
    assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Auth, true));
    assert_eq!((refuse.detail, refuse.hint), (own.message, own.hint));
}

#[tokio::test]
async fn other_answers_are_told_with_bounded_words() {
    let refuse = answered(404, &"x".repeat(100_000)).await;
    assert_eq!(refuse.kind, RefuseKind::Protocol);
    assert!(refuse.detail.len() <= 1024);
    assert_eq!(answered(413, "").await.kind, RefuseKind::Protocol);
    let redirect = answered(302, "").await;
    assert!(redirect.message.contains("not followed"), "{}", redirect.message);
    assert!(redirect.detail.contains("evil.example"));
}

#[tokio::test]
async fn a_busy_platform_is_asked_again() {
    for status in [429, 503] {
        let mut platform = Platform::plain().await;
        let sender = Sender::start(&config(&platform.http())).await;
        let mut worker = Worker::greet(&sender, Role::Stream).await;
        platform.take().await.reject(status, "starting");
        assert!(worker.notice().await.message.ends_with("starting"));
        let _taken = platform.welcome().await;
        assert_eq!(worker.notice().await.message, "");
        worker.read::<Welcome>().await;
    }
}

#[tokio::test]
async fn the_platforms_own_refusal_is_passed_on() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let mut taken = platform.take().await;
    let refuse = Refuse {
        kind: RefuseKind::Identity,
        retry: false,
        message: "another source".into(),
        detail: "d".into(),
        hint: "h".into(),
    };
    taken.send_frame(&refuse.to_frame()).await;
    assert_eq!(worker.refused().await, refuse);

    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let mut taken = platform.welcome().await;
    worker.read::<Welcome>().await;
    let long = Refuse { message: "m".repeat(50_000), detail: "d".repeat(60_000), ..refuse };
    taken.send_frame(&long.to_frame()).await;
    assert_eq!(worker.refused().await, long);
}

#[tokio::test]
async fn a_broken_platform_is_refused() {
    let mut flipped = confirm(9);
    flipped[FRAME_HEADER_LEN] ^= 1;
    let first = [b"HTTP/1.1 garbage".to_vec(), confirm(1), batch(1, 1), hello(Role::Stream).to_frame()];
    for bytes in first {
        let mut platform = Platform::plain().await;
        let sender = Sender::start(&config(&platform.http())).await;
        let mut worker = Worker::greet(&sender, Role::Stream).await;
        let mut taken = platform.take().await;
        taken.send_bytes(&bytes).await;
        assert_eq!(worker.refused().await.kind, RefuseKind::Protocol);
    }
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let mut taken = platform.welcome().await;
    worker.read::<Welcome>().await;
    taken.send_bytes(&flipped).await;
    assert_eq!(worker.refused().await.kind, RefuseKind::Protocol);

    // A large frame passes in pieces; a bad one is never completed.
    let mut worker = Worker::greet(&sender, Role::Lead).await;
    let mut taken = platform.welcome().await;
    worker.read::<Welcome>().await;
    let mut large = data(Tag::CatalogApplied, 500_000, 0);
    *large.last_mut().unwrap() ^= 1;
    taken.send_bytes(&large).await;
    let mut got = Vec::new();
    soon("end", tokio::io::AsyncReadExt::read_to_end(&mut worker.socket, &mut got)).await.unwrap();
    assert!(got.len() < large.len());
}

/// A worker that goes on while others misbehave.
struct Good {
    worker: Worker,
    taken: Taken,
}

impl Good {
    async fn new(sender: &Sender, platform: &mut Platform) -> Good {
        let mut worker = Worker::greet(sender, Role::Stream).await;
        let taken = platform.welcome().await;
        worker.read::<Welcome>().await;
        Good { worker, taken }
    }

    async fn goes_on(&mut self) {
        self.worker.send(&batch(100, 1)).await;
        assert!(self.taken.next().await.unwrap().is_some());
    }
}

fn hellos_that_are_none() -> Vec<(&'static str, Vec<u8>)> {
    let good = hello(Role::Stream).to_frame();
    let mut bad_crc = good.clone();
    bad_crc[FRAME_HEADER_LEN + 30] ^= 0x10;
    let mut bad_magic = good[FRAME_HEADER_LEN..].to_vec();
    bad_magic[0] ^= 0xff;
    let bad_magic = frame(Tag::Hello, |buf| buf.extend_from_slice(&bad_magic));
    let huge = frame(Tag::Hello, |buf| buf.extend_from_slice(&[0; 100_000]));
    let mut long_name = hello(Role::Stream).to_frame()[FRAME_HEADER_LEN..].to_vec();
    long_name[41] = 0xff;
    let long_name = frame(Tag::Hello, |buf| buf.extend_from_slice(&long_name));
    vec![
        ("text", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("ones", vec![0xff; 64]),
        ("checksum", bad_crc),
        ("magic", bad_magic),
        ("huge", huge),
        ("long name", long_name),
        ("batch first", batch(10, 1)),
        ("confirm first", confirm(1)),
    ]
}

#[tokio::test]
async fn garbage_on_the_socket_is_refused_and_the_rest_goes_on() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut good = Good::new(&sender, &mut platform).await;
    for (name, bytes) in hellos_that_are_none() {
        let mut bad = Worker::connect(&sender).await;
        bad.send(&bytes).await;
        let refuse = bad.refused().await;
        assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Protocol, false), "{name}");
        good.goes_on().await;
    }
    let (min, max) = (1000, 1001);
    let mut bad = Worker::connect(&sender).await;
    let other = scry_wire::message::Hello { version_min: min, version_max: max, ..hello(Role::Stream) };
    bad.send(&other.to_frame()).await;
    let refuse = bad.refused().await;
    assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Version, false));
    good.goes_on().await;
    assert!(
        platform.take_within(Duration::from_millis(100)).await.is_none(),
        "nothing bad reached the platform"
    );
}

#[tokio::test]
async fn a_bad_frame_in_the_stream_ends_its_connection_only() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut good = Good::new(&sender, &mut platform).await;
    let mut flipped = batch(100_000, 1);
    *flipped.last_mut().unwrap() ^= 1;
    let mut flags = batch(10, 1);
    flags[5] = !FLAG_CONTINUED;
    for bytes in [flipped, flags, confirm(1), hello(Role::Stream).to_frame(), vec![0xff; 100]] {
        let Good { mut worker, mut taken } = Good::new(&sender, &mut platform).await;
        worker.send(&batch(10, 1)).await;
        assert!(taken.next().await.unwrap().is_some());
        worker.send(&bytes).await;
        assert_eq!(worker.refused().await.kind, RefuseKind::Protocol);
        assert!(taken.ended().await.is_err(), "its stream is reset");
        good.goes_on().await;
    }
}

#[tokio::test]
async fn a_truncated_frame_resets_the_stream() {
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut good = Good::new(&sender, &mut platform).await;
    let Good { mut worker, mut taken } = Good::new(&sender, &mut platform).await;
    let whole = batch(1000, 1);
    worker.send(&whole[..500]).await;
    drop(worker);
    assert!(taken.ended().await.is_err());
    good.goes_on().await;
    sender.logged("inside a frame").await;
}

/// Needs root, to become somebody else, and perl, to be a client.
#[tokio::test]
async fn another_user_is_refused_by_the_kernels_word() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    if !nix::unistd::Uid::effective().is_root() || !std::path::Path::new("/usr/bin/perl").exists() {
        println!("skipped: not root, or no perl");
        return;
    }
    let mut platform = Platform::plain().await;
    let sender = Sender::start(&config(&platform.http())).await;
    let mut good = Good::new(&sender, &mut platform).await;
    // Somebody opened the directory after the start.
    for (path, mode) in
        [(sender.dir.path(), 0o711), (sender.socket.parent().unwrap(), 0o711), (&sender.socket, 0o666)]
    {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let script = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0) or die 1; \
                  connect(S, sockaddr_un($ARGV[0])) or die $!; \
                  my $n = sysread(S, my $b, 1); exit(defined $n && $n == 0 ? 0 : 3)";
    let status = tokio::task::spawn_blocking({
        let socket = sender.socket.clone();
        move || {
            std::process::Command::new("/usr/bin/perl")
                .arg("-e")
                .arg(script)
                .arg(socket)
                .uid(65534)
                .status()
                .unwrap()
        }
    });
    assert!(soon("the stranger's end", status).await.unwrap().success());
    sender.logged("this user may not send").await;
    assert!(sender.log().contains("user 65534"), "{}", sender.log());
    good.goes_on().await;
}

#[tokio::test]
async fn too_many_connections_are_turned_away() {
    let mut platform = Platform::plain().await;
    let config = format!("{}[limits]\nmax_connections = 2\n", config(&platform.http()));
    let sender = Sender::start(&config).await;
    let mut good = Good::new(&sender, &mut platform).await;
    let second = Worker::greet(&sender, Role::Stream).await;
    let _taken = platform.welcome().await;
    let mut third = Worker::connect(&sender).await;
    assert!(third.next().await.is_none());
    good.goes_on().await;
    drop(second);
    soon("a free place", async {
        loop {
            let mut again = Worker::connect(&sender).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            if again.socket.try_write(&hello(Role::Stream).to_frame()).is_ok()
                && platform.take_within(Duration::from_millis(500)).await.is_some()
            {
                let _ = &mut again;
                return;
            }
        }
    })
    .await;
}
