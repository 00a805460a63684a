//! TLS: what is accepted, and that each refusal has its own words.

#![allow(clippy::unwrap_used)]

mod support;

use scry_wire::frame::Tag;
use scry_wire::message::{Role, Welcome};
use support::{Authority, Cert, Platform, Sender, Settings, Worker, data, write_private};

fn config(port: u16, host: &str) -> String {
    format!(
        "[platform]\nendpoint = \"https://{host}:{port}\"\nauth_token_file = \"{{dir}}/token\"\nca_file = \"{{dir}}/ca\"\n"
    )
}

/// A sender that trusts `ca` and its first notice about a platform with `cert`.
async fn notice_of(cert: Cert, alpn: &[&str]) -> (String, Sender) {
    let ca = Authority::new();
    let platform = Platform::start(0, Some(ca.server(cert, alpn)), Settings::default()).await;
    let sender = Sender::start(&config(platform.port, "localhost")).await;
    write_private(&sender.dir.path().join("ca"), &ca.pem);
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let notice = worker.notice().await;
    assert!(!notice.message.is_empty());
    (notice.message, sender)
}

#[tokio::test]
async fn streams_over_tls() {
    let ca = Authority::new();
    let mut platform = Platform::start(0, Some(ca.server(Cert::Good, &["h2"])), Settings::default()).await;
    let sender = Sender::start(&config(platform.port, "localhost")).await;
    write_private(&sender.dir.path().join("ca"), &ca.pem);
    let mut worker = Worker::greet(&sender, Role::Copy).await;
    let mut taken = platform.welcome().await;
    assert_eq!(taken.head.uri.scheme_str(), Some("https"));
    worker.read::<Welcome>().await;
    let sent = data(Tag::Rows, 1 << 20, 10_000);
    worker.send(&sent).await;
    assert_eq!(taken.next().await.unwrap().unwrap().into_bytes(), sent);
}

#[tokio::test]
async fn a_certificate_that_has_expired_is_told() {
    let (words, _) = notice_of(Cert::Expired, &["h2"]).await;
    assert!(words.contains("has expired"), "{words}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_told() {
    let (words, _) = notice_of(Cert::WrongName, &["h2"]).await;
    assert!(words.contains("is for another name"), "{words}");
}

#[tokio::test]
async fn a_certificate_signed_by_itself_is_told() {
    let (words, _) = notice_of(Cert::SelfSigned, &["h2"]).await;
    assert!(words.contains("not trusted"), "{words}");
}

#[tokio::test]
async fn a_server_without_http2_is_told() {
    for alpn in [&["http/1.1"][..], &[]] {
        let (words, _) = notice_of(Cert::Good, alpn).await;
        assert!(words.contains("does not offer HTTP/2"), "{words}");
    }
}

#[tokio::test]
async fn a_server_without_tls_is_told() {
    let ca = Authority::new();
    let platform = Platform::plain().await;
    let sender = Sender::start(&config(platform.port, "localhost")).await;
    write_private(&sender.dir.path().join("ca"), &ca.pem);
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let words = worker.notice().await.message;
    assert!(words.contains("TLS"), "{words}");
}

/// A server that knows TLS 1.1 at most is not followed down to it.
#[tokio::test]
async fn an_old_version_of_tls_is_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = [0; 512];
            let _ = stream.read(&mut hello).await;
            // ServerHello of TLS 1.1, with a random of zeros and TLS_RSA_WITH_AES_128_CBC_SHA.
            let body = [&[3, 2][..], &[0; 32], &[0, 0, 0x2f, 0]].concat();
            let head = [0x16, 3, 2, 0, 42, 2, 0, 0, 38];
            let _ = stream.write_all(&[&head[..], &body].concat()).await;
            let _ = stream.read(&mut hello).await;
        }
    });
    let sender = Sender::start(&config(port, "localhost")).await;
    write_private(&sender.dir.path().join("ca"), &Authority::new().pem);
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let words = worker.notice().await.message;
    assert!(words.contains("TLS handshake") && words.contains("failed"), "{words}");
}

#[tokio::test]
async fn a_missing_ca_file_and_an_open_token_file_are_told() {
    let ca = Authority::new();
    let platform = Platform::start(0, Some(ca.server(Cert::Good, &["h2"])), Settings::default()).await;
    let sender = Sender::start(&config(platform.port, "localhost")).await;
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let words = worker.notice().await.message;
    assert!(words.contains("could not read CA file"), "{words}");

    write_private(&sender.dir.path().join("ca"), &ca.pem);
    let token = sender.dir.path().join("token");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let words = worker.notice().await.message;
    assert!(words.contains("mode 0644"), "{words}");
}

#[tokio::test]
async fn shows_its_own_certificate_where_one_is_asked_for() {
    let ca = Authority::new();
    let mut platform = Platform::start(0, Some(ca.server_of_clients()), Settings::default()).await;
    let without = config(platform.port, "localhost");
    let sender = Sender::start(&without).await;
    write_private(&sender.dir.path().join("ca"), &ca.pem);
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    let words = worker.notice().await.message;
    assert!(words.contains("refuses our client certificate") || words.contains("lost"), "{words}");

    let (cert, key) = ca.client();
    write_private(&sender.dir.path().join("cert"), &cert);
    write_private(&sender.dir.path().join("key"), &key);
    sender.reconfigure(&format!(
        "{without}client_cert_file = \"{{dir}}/cert\"\nclient_key_file = \"{{dir}}/key\"\n"
    ));
    let _taken = platform.welcome().await;
    while !worker.notice().await.message.is_empty() {}
    worker.read::<Welcome>().await;
}

/// A renewed certificate mends it, without anyone touching the sender.
#[tokio::test]
async fn a_renewed_certificate_mends_it() {
    let ca = Authority::new();
    let port = support::free_port();
    let platform = Platform::start(port, Some(ca.server(Cert::Expired, &["h2"])), Settings::default()).await;
    let sender = Sender::start(&config(port, "localhost")).await;
    write_private(&sender.dir.path().join("ca"), &ca.pem);
    let mut worker = Worker::greet(&sender, Role::Stream).await;
    assert!(worker.notice().await.message.contains("has expired"));
    platform.cut().await;
    let mut platform = Platform::start(port, Some(ca.server(Cert::Good, &["h2"])), Settings::default()).await;
    let _taken = platform.welcome().await;
    while !worker.notice().await.message.is_empty() {}
    worker.read::<Welcome>().await;
}
