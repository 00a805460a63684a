//! What the platform refuses, and that everything else goes on meanwhile.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod platform_lab;

use platform_lab::batch::{item_key, item_row, notes};
use platform_lab::catalog::{self, ITEMS};
use platform_lab::{
    Batch, COPY_ID, Peer, Platform, TOKEN, connect, hello, is_root, item, items, relation, row,
};
use scry_wire::frame::{Tag, frame};
use scry_wire::message::change::OldKind;
use scry_wire::message::{Hello, Message, RefuseKind, Role};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tokio::net::TcpStream;

#[tokio::test]
async fn rejects_garbage_and_lies_on_their_connection_only() {
    let platform = Platform::started().await;
    platform.copied(&[item_row(1, "one")]).await;
    let mut honest = platform.peer(Role::Stream).await;
    honest.welcome().await;
    honest.send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(2, "two")])).await;
    honest.confirmed(20).await;

    let mut garbage: Vec<Vec<u8>> = vec![
        vec![0xff; 64],
        b"GET / HTTP/1.1\r\n\r\n............".to_vec(),
        frame(Tag::Hello, |b| b.extend_from_slice(&[7; 40])),
        frame(Tag::Batch, |_| {}),
    ];
    let mut flipped = hello(Role::Stream).to_frame();
    flipped[30] ^= 1;
    garbage.push(flipped);
    for bytes in garbage {
        let mut peer = Peer::connect(platform.port, None).await;
        peer.send_bytes(bytes).await;
        assert_eq!(peer.refused().await.kind, RefuseKind::Protocol);
        assert!(peer.next().await.is_none());
    }
    let mut peer = Peer::connect(platform.port, None).await;
    peer.send(&Hello { version_min: 900, version_max: 901, ..hello(Role::Stream) }).await;
    let refuse = peer.refused().await;
    assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Version, false));
    // Roles take their own frames only.
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    lead.send_batch(&Batch::new().keepalive(9)).await;
    assert_eq!(lead.refused().await.kind, RefuseKind::Protocol);

    honest.send_batch(&Batch::new().transaction(20, 30, &[(3, "three")])).await;
    honest.confirmed(30).await;

    let known = || Batch::new().relation(&relation());
    let row_of = |relation: &scry_wire::message::Relation| {
        Batch::new().relation(relation).begin(40).insert(relation.relid, &item_row(9, "x")).commit(40, 50)
    };
    let mut ours = relation();
    ours.schema = "scry_shadow".into();
    ours.name = "origin".into();
    let mut nowhere = relation();
    nowhere.name = "x\"; DROP TABLE items;--\n".into();
    let lies = [
        Batch::new().begin(40).insert(999, &item_row(9, "x")).commit(40, 50),
        known().insert(ITEMS, &item_row(9, "x")),
        known().begin(40).begin(41),
        known().begin(40).commit(41, 50),
        known().transaction(40, 50, &[(9, "x")]).transaction(40, 50, &[(9, "x")]),
        known().keepalive(90).transaction(40, 50, &[(9, "x")]),
        known().begin(20).commit(20, 55),
        known().begin(40).insert(ITEMS, &row(&[Some(b"\0\0\0\x09")])).commit(40, 50),
        known().begin(40).insert(ITEMS, &row(&[Some(b"nine"), Some(b"x"), None])).commit(40, 50),
        Batch::new()
            .relation(&notes())
            .begin(40)
            .delete(notes().relid, OldKind::Key, &item_key(1))
            .commit(40, 50),
        row_of(&ours),
        row_of(&nowhere),
    ];
    for lie in lies {
        let mut peer = platform.peer(Role::Stream).await;
        peer.welcome().await;
        peer.send_batch(&lie).await;
        let refuse = peer.refused().await;
        assert!(matches!(refuse.kind, RefuseKind::Protocol | RefuseKind::Shadow), "{refuse:?}");
        assert!(!refuse.message.contains('\n'), "{refuse:?}");
    }
    let shadow = platform.shadow().await;
    let told: String = shadow
        .query_one("SELECT (SELECT applied_lsn FROM scry_shadow.origin)::text", &[])
        .await
        .unwrap()
        .get(0);
    assert!(told == "0/1E" || told == "0/5A", "the position is a true one: {told}");
    assert_eq!(items(&shadow).await, [item(1, "one"), item(2, "two"), item(3, "three")]);
}

#[tokio::test]
async fn a_missing_row_is_told_and_its_key_stays_on_the_shadow() {
    let platform = Platform::started().await;
    platform.copied(&[item_row(1, "one")]).await;
    let shadow = platform.shadow().await;
    shadow.batch_execute("DELETE FROM public.items").await.unwrap();
    for seen in 1..=2i64 {
        let mut stream = platform.peer(Role::Stream).await;
        stream.welcome().await;
        let batch = Batch::new()
            .relation(&relation())
            .begin(10)
            .insert(ITEMS, &item_row(77_123, "marker-value"))
            .update(ITEMS, None, &item_row(1, "marker-value"))
            .commit(10, 20);
        stream.send_batch(&batch).await;
        let refuse = stream.refused().await;
        assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Shadow, true));
        assert!(refuse.message.contains("\"public\".\"items\""), "{refuse:?}");
        platform_lab::eventually(seen, async || {
            let sql = "SELECT seen FROM scry_shadow.conflict WHERE key = '{\"id\": 1}'";
            shadow.query_opt(sql, &[]).await.unwrap().map_or(0, |row| row.get(0))
        })
        .await;
    }
    assert_eq!(items(&shadow).await, [], "nothing of the transaction stays");
    let (_, body) = platform.get("/api/v1/shadows").await.unwrap();
    assert!(body.contains("\"operation\":\"UPDATE\"") && body.contains("last_error"), "{body}");
    // A duplicate is the shadow's error, without its values.
    shadow.batch_execute("INSERT INTO public.items VALUES (5, 'by hand')").await.unwrap();
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(5, "marker-value")])).await;
    let refuse = stream.refused().await;
    assert!(refuse.message.contains("items_pkey"), "{refuse:?}");
    // Put right by hand, the stream goes on.
    shadow.batch_execute("DELETE FROM public.items").await.unwrap();
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    stream.send_batch(&Batch::new().relation(&relation()).transaction(10, 20, &[(5, "v")])).await;
    stream.confirmed(20).await;
    let shadow_log = std::fs::read_to_string(platform.data_dir().join("shadow.log")).unwrap();
    for text in [platform.log(), shadow_log, body, format!("{refuse:?}")] {
        assert!(!text.contains("marker-value") && !text.contains("(id)=("), "{text}");
    }
}

#[tokio::test]
async fn wants_the_token() {
    let mut platform = Platform::new();
    let file = platform.home.path().join("token");
    write_token(&file, TOKEN, 0o600);
    platform.args = vec!["--auth-token-file".into(), file.display().to_string()];
    platform.start().await;
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    for path in ["/api/v1/shadows", "/metrics"] {
        assert_eq!(platform.get(path).await.unwrap().0, 401);
        assert_eq!(platform.get_with(path, &bearer).await.unwrap().0, 200);
    }
    assert_eq!(platform.get("/api/v1/ready").await.unwrap().0, 200);
    for token in [None, Some("another-token")] {
        let mut peer = Peer::connect(platform.port, token).await;
        assert_eq!(peer.status, 401);
        assert_eq!(peer.refused().await.kind, RefuseKind::Auth);
    }
    let mut peer = Peer::connect(platform.port, Some(TOKEN)).await;
    peer.send(&hello(Role::Stream)).await;
    peer.welcome().await;
    // Another token, without a restart.
    write_token(&file, "the-next-token", 0o600);
    platform_lab::eventually(200, async || Peer::connect(platform.port, Some("the-next-token")).await.status)
        .await;
    assert_eq!(Peer::connect(platform.port, Some(TOKEN)).await.status, 401);
    assert!(!platform.log().contains(TOKEN));
}

fn write_token(file: &Path, token: &str, mode: u32) {
    std::fs::write(file, token).unwrap();
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    own(file);
}

fn own(file: &Path) {
    if is_root() {
        let user = std::env::var("SCRY_TEST_USER").unwrap_or_else(|_| "postgres".to_owned());
        assert!(Command::new("chown").arg(user).arg(file).status().unwrap().success());
    }
}

#[tokio::test]
async fn speaks_tls_and_wants_client_certificates() {
    let mut platform = Platform::new();
    let pki = Pki::new(platform.home.path());
    platform.args = ["--tls-cert", "server.pem", "--tls-key", "server.key", "--tls-client-ca", "ca.pem"]
        .iter()
        .map(|a| if a.starts_with("--") { (*a).to_owned() } else { pki.path(a) })
        .collect();
    let mut command = platform.command();
    let log = std::fs::File::create(platform.home.path().join("platform.log")).unwrap();
    let mut child = command.stderr(log).spawn().unwrap();
    platform_lab::eventually(true, async || TcpStream::connect(("127.0.0.1", platform.port)).await.is_ok())
        .await;
    let mut peer = pki.peer(platform.port, true).await.expect("a peer with a certificate is let in");
    peer.send(&hello(Role::Stream)).await;
    peer.welcome().await;
    assert!(pki.peer(platform.port, false).await.is_none(), "one without is not");
    assert!(platform.get("/api/v1/ready").await.is_none(), "nor is plain HTTP");
    // Everything is replaced, authorities too: who knows only the old ones is refused from then
    // on, without a restart, and whoever is connected stays.
    let old = platform.home.path().join("old");
    std::fs::create_dir(&old).unwrap();
    for name in ["ca.pem", "client.pem", "client.key"] {
        std::fs::copy(pki.path(name), old.join(name)).unwrap();
    }
    let pki = Pki::new(platform.home.path());
    let old = Pki { dir: old };
    platform_lab::eventually(true, async || pki.peer(platform.port, true).await.is_some()).await;
    assert!(old.peer(platform.port, true).await.is_none(), "the old authority is not known any more");
    peer.send_batch(&Batch::new().keepalive(9)).await;
    let mut newcomer = pki.peer(platform.port, true).await.unwrap();
    newcomer.send(&hello(Role::Stream)).await;
    newcomer.welcome().await;
    assert!(peer.refused().await.message.contains("taken over"), "it was still there");
    Command::new("kill").arg(child.id().to_string()).status().unwrap();
    assert!(child.wait().unwrap().success());
}

/// A CA, a server's and a client's certificate.
struct Pki {
    dir: std::path::PathBuf,
}

impl Pki {
    fn new(dir: &Path) -> Self {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let pki = Pki { dir: dir.to_owned() };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        pki.write("ca.pem", &params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            pki.write(&format!("{name}.pem"), &params.signed_by(&key, &issuer).unwrap().pem());
            pki.write(&format!("{name}.key"), &key.serialize_pem());
        }
        pki
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        own(Path::new(&self.path(name)));
    }

    async fn peer(&self, port: u16, with_certificate: bool) -> Option<Peer> {
        use rustls_pki_types::pem::PemObject;
        use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = if with_certificate {
            let chain = vec![CertificateDer::from_pem_file(self.path("client.pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(self.path("client.key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector.connect(name, stream).await.ok()?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        if !with_certificate {
            // TLS 1.3 tells a refused client with its first answer.
            use tokio::io::AsyncReadExt;
            let mut byte = [0];
            let read = stream.read(&mut byte).await;
            assert!(matches!(read, Err(_) | Ok(0)), "{read:?}");
            return None;
        }
        Some(Peer::over(stream, None).await)
    }
}

/// A superuser's session on the embedded server.
async fn admin(server: &Platform) -> tokio_postgres::Client {
    let url = server.shadow_url();
    let password = std::fs::read_to_string(server.data_dir().join("scry_admin.password")).unwrap();
    let own = url.split('@').next().unwrap();
    connect(&url.replace(own, &format!("postgresql://scry_admin:{}", password.trim()))).await
}

/// The connection ends while its database is being made: nobody knows of it afterwards.
#[tokio::test]
async fn a_database_that_nobody_lists_is_no_obstacle() {
    let server = Platform::started().await;
    server.copied(&[item_row(1, "one")]).await;
    let admin = admin(&server).await;
    admin.batch_execute("CREATE DATABASE shadow_shop_second OWNER scry_shadow").await.unwrap();
    let mut peer = Peer::connect(server.port, None).await;
    peer.send(&Hello { job: "second".into(), ..hello(Role::Lead) }).await;
    peer.welcome().await;
    let public = "SELECT has_database_privilege('public', 'shadow_shop_second', 'CONNECT')";
    assert!(!admin.query_one(public, &[]).await.unwrap().get::<_, bool>(0), "open to others");
}

#[tokio::test]
async fn an_external_shadow_serves_one_job_and_says_what_it_lacks() {
    let server = Platform::started().await;
    let url = server.shadow_url();
    let mut platform = Platform::new();
    platform.args = vec!["--shadow-url".into(), url.clone()];
    platform.start().await;
    platform.copied(&[item_row(1, "one")]).await;
    assert_eq!(items(&connect(&url).await).await, [item(1, "one")]);
    let mut peer = Peer::connect(platform.port, None).await;
    peer.send(&Hello { job: "second".into(), ..hello(Role::Stream) }).await;
    let refuse = peer.refused().await;
    assert_eq!((refuse.kind, refuse.retry), (RefuseKind::Identity, false));
    assert!(refuse.message.contains("job \"default\" of database \"shop\""), "{refuse:?}");
    let mut peer = Peer::connect(platform.port, None).await;
    peer.send(&Hello { timeline: 0, ..hello(Role::Stream) }).await;
    assert_eq!(peer.refused().await.kind, RefuseKind::Identity);

    let admin = admin(&server).await;
    admin.batch_execute("CREATE ROLE poor LOGIN PASSWORD 'poor'").await.unwrap();
    admin.batch_execute("CREATE DATABASE poor OWNER poor").await.unwrap();
    let at = url.rsplit_once('@').unwrap().1.replace("/shadow", "/poor");
    let mut platform = Platform::new();
    platform.args = vec!["--shadow-url".into(), format!("postgresql://poor:poor@{at}")];
    let output = platform.command().output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().last().unwrap();
    assert!(!output.status.success());
    assert!(line.contains("GRANT SET ON PARAMETER session_replication_role TO \"poor\""), "{text}");
    admin.batch_execute("GRANT SET ON PARAMETER session_replication_role TO poor").await.unwrap();
    platform.start().await;
}

#[tokio::test]
async fn says_in_one_line_why_it_cannot_start() {
    let platform = Platform::started().await;
    let open = platform.home.path().join("open-token");
    write_token(&open, TOKEN, 0o644);
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec!["--auth-token-file".into(), open.display().to_string()], "chmod 600"),
        (vec!["--tls-cert".into(), "/none".into(), "--tls-key".into(), "/none".into()], "--tls-cert /none"),
        (vec!["--shadow-url".into(), "nonsense://".into()], "--shadow-url"),
        (vec!["--pg-bin".into(), "/nowhere".into()], "--pg-bin /nowhere"),
    ];
    for (args, wanted) in cases {
        let mut other = Platform::new();
        other.args = args;
        refuses(&other, wanted);
    }
    // The same port; the same directory.
    let mut other = Platform::new();
    other.port = platform.port;
    refuses(&other, "cannot listen on");
    let mut twin = Platform::new();
    let home = std::mem::replace(&mut twin.home, tempfile::tempdir().unwrap());
    std::fs::create_dir(home.path().join("data")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scry_platform"));
    command
        .args(["serve", "--listen", &format!("127.0.0.1:{}", twin.port), "--data-dir"])
        .arg(platform.data_dir());
    if is_root() {
        command.args(["--run-as", "postgres"]);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("another scry_platform runs"), "{text}");
}

fn refuses(platform: &Platform, wanted: &str) {
    let output = platform.command().output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().last().unwrap_or_default();
    assert!(!output.status.success() && line.contains(wanted), "wanted {wanted:?}: {text}");
    assert!(line.starts_with("scry_platform: "), "{text}");
}

#[tokio::test]
async fn names_are_data() {
    let platform = Platform::started().await;
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    let evil = "x\"; DROP SCHEMA scry_shadow CASCADE;--\n%s";
    let document = String::from_utf8(catalog::items(COPY_ID)).unwrap();
    let escaped = serde_json::to_string(evil).unwrap();
    let document = document.replace("\"name\":\"v\"", &format!("\"name\":{escaped}"));
    lead.send_catalog(document.as_bytes()).await;
    lead.catalog_applied().await;
    let mut odd = relation();
    odd.columns[1].name = evil.into();
    let mut copy = platform.peer(Role::Copy).await;
    copy.welcome().await;
    copy.chunk(0, 1, &odd, &[item_row(1, "one")]).await;
    lead.finish(&[(ITEMS, 1, 1), (catalog::NOTES, 0, 0)]).await;
    let mut stream = platform.peer(Role::Stream).await;
    stream.welcome().await;
    let batch = Batch::new()
        .relation(&odd)
        .begin(10)
        .insert(ITEMS, &item_row(2, "two"))
        .update(ITEMS, None, &item_row(1, "ONE"))
        .commit(10, 20);
    stream.send_batch(&batch).await;
    stream.confirmed(20).await;
    let shadow = platform.shadow().await;
    let count: i64 = shadow.query_one("SELECT count(*) FROM public.items", &[]).await.unwrap().get(0);
    assert_eq!(count, 2);
    // A document that names our own schema is refused before anything is made.
    let mut lead = platform.peer(Role::Lead).await;
    lead.welcome().await;
    let document = String::from_utf8(catalog::items(COPY_ID)).unwrap();
    lead.send_catalog(document.replace("\"schema\":\"public\"", "\"schema\":\"scry_shadow\"").as_bytes())
        .await;
    assert_eq!(lead.refused().await.kind, RefuseKind::Protocol);
}
