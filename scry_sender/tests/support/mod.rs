//! What the tests share: the real program, a scripted platform on `h2`, and
//! workers on the Unix socket.
#![allow(dead_code, missing_docs)]

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::request::Parts;
use http::{Response, StatusCode};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use scry_wire::Lsn;
use scry_wire::frame::{Frame, Tag, seal};
use scry_wire::limits::{FRAME_HEADER_LEN, PACK_HEADER_LEN};
use scry_wire::message::{Confirm, CopyState, Hello, Message, Notice, Refuse, Role, Welcome};
use scry_wire::pack::{self, Kind};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// For anything that should happen.
pub const SOON: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

// ---- the program ----

pub struct Sender {
    child: Child,
    pub dir: tempfile::TempDir,
    pub socket: PathBuf,
}

impl Sender {
    /// Starts the program; `config` follows `[socket]`. `{dir}` is its directory.
    pub async fn start(config: &str) -> Sender {
        let mut sender = Sender::spawn(config);
        let deadline = Instant::now() + SOON;
        while !sender.socket.exists() {
            assert!(sender.child.try_wait().unwrap().is_none(), "scry_sender ended: {}", sender.log());
            assert!(Instant::now() < deadline, "no socket: {}", sender.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sender
    }

    pub fn spawn(config: &str) -> Sender {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        std::fs::create_dir(&run).unwrap();
        std::fs::set_permissions(&run, PermissionsExt::from_mode(0o700)).unwrap();
        let socket = run.join("s");
        write_private(&dir.path().join("token"), "s3cret-token\n");
        let sender_dir = dir.path().to_owned();
        write_config(&sender_dir, config);
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_scry_sender"))
            .arg("--config")
            .arg(dir.path().join("c.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Sender { child, dir, socket }
    }

    pub fn reconfigure(&self, config: &str) {
        write_config(self.dir.path(), config);
        self.signal(nix::sys::signal::SIGHUP);
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    }

    pub async fn exit(&mut self) -> ExitStatus {
        soon("exit", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub async fn logged(&self, words: &str) {
        soon(words, async {
            while !self.log().contains(words) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Peak resident memory in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of scry_sender ----\n{}", self.log());
        }
    }
}

fn write_config(dir: &std::path::Path, config: &str) {
    let shown = dir.display().to_string();
    let text = format!("[socket]\npath = \"{shown}/run/s\"\n{}", config.replace("{dir}", &shown));
    std::fs::write(dir.join("c.toml"), text).unwrap();
}

pub fn write_private(path: &std::path::Path, text: &str) {
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

// ---- a worker ----

pub struct Worker {
    pub socket: UnixStream,
    buf: BytesMut,
}

pub fn hello(role: Role) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        role,
        system_identifier: 7,
        timeline: 1,
        database_oid: 5,
        server_version_num: 150_020,
        generation: 1,
        database: "shop".into(),
        job: "default".into(),
        shadow_id: String::new(),
        encoding: "UTF8".into(),
        software: "test".into(),
    }
}

pub fn batch(len: usize, rows: u32) -> Vec<u8> {
    data(Tag::Batch, len, rows)
}

pub fn data(tag: Tag, len: usize, rows: u32) -> Vec<u8> {
    let mut buf = vec![0x5a; FRAME_HEADER_LEN + len];
    seal(&mut buf, tag, false, rows);
    buf
}

impl Worker {
    pub async fn connect(sender: &Sender) -> Worker {
        let socket = UnixStream::connect(&sender.socket).await.unwrap();
        Worker { socket, buf: BytesMut::new() }
    }

    pub async fn greet(sender: &Sender, role: Role) -> Worker {
        let mut worker = Worker::connect(sender).await;
        worker.send(&hello(role).to_frame()).await;
        worker
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon("worker's write", self.socket.write_all(bytes)).await.unwrap();
    }

    /// The next frame; `None` when the connection was closed.
    pub async fn next(&mut self) -> Option<Frame> {
        soon("frame to worker", async {
            loop {
                if let Some(frame) = Frame::take(&mut self.buf).unwrap() {
                    return Some(frame);
                }
                match self.socket.read_buf(&mut self.buf).await {
                    Ok(0) => {
                        assert!(self.buf.is_empty(), "closed inside a frame");
                        return None;
                    }
                    Ok(_) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                    Err(e) => panic!("{e}"),
                }
            }
        })
        .await
    }

    pub async fn read<M: Message>(&mut self) -> M {
        let frame = self.next().await.unwrap_or_else(|| panic!("closed instead of {}", M::NAME));
        M::from_frame(&frame).unwrap()
    }

    /// The refusal, after any notices; then the connection is closed.
    pub async fn refused(&mut self) -> Refuse {
        loop {
            let frame = self.next().await.expect("closed without a refusal");
            if frame.tag() != Tag::Notice {
                let refuse = Refuse::from_frame(&frame).unwrap();
                assert!(self.next().await.is_none(), "something after the refusal");
                return refuse;
            }
        }
    }

    pub async fn notice(&mut self) -> Notice {
        self.read().await
    }
}

// ---- the platform ----

pub struct Platform {
    pub port: u16,
    taken: mpsc::Receiver<Taken>,
    accepting: JoinHandle<()>,
    pub settings: Settings,
    mood: tokio::sync::watch::Sender<Mood>,
}

/// What every connection of the platform does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Serving,
    /// Sends GOAWAY and serves what it has.
    GoingAway,
    /// Neither reads nor writes: as if the network were gone.
    Frozen,
}

#[derive(Clone, Copy)]
pub struct Settings {
    pub stream_window: u32,
    pub connection_window: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { stream_window: 1 << 20, connection_window: 64 << 20 }
    }
}

/// A request that the platform has taken.
pub struct Taken {
    pub head: Parts,
    pub connection: usize,
    recv: RecvStream,
    buf: BytesMut,
    respond: SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    /// Say in the answer that packs are taken.
    pub takes_packs: bool,
    /// Packs that came, while packs come.
    coded: Option<BytesMut>,
    /// Bytes of the request's body so far, and packs by kind.
    pub wire: usize,
    pub packs: Vec<Kind>,
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Platform {
    pub async fn plain() -> Platform {
        Platform::start(0, None, Settings::default()).await
    }

    pub async fn start(port: u16, tls: Option<ServerConfig>, settings: Settings) -> Platform {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (taken_tx, taken) = mpsc::channel(64);
        let acceptor = tls.map(|c| tokio_rustls::TlsAcceptor::from(Arc::new(c)));
        let (mood, mood_seen) = tokio::sync::watch::channel(Mood::Serving);
        let accepting = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            let mut number = 0;
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                number += 1;
                let (taken, acceptor, mood) = (taken_tx.clone(), acceptor.clone(), mood_seen.clone());
                connections.spawn(async move {
                    match acceptor {
                        None => speak(tcp, settings, number, taken, mood).await,
                        Some(acceptor) => {
                            if let Ok(tls) = acceptor.accept(tcp).await {
                                speak(tls, settings, number, taken, mood).await;
                            }
                        }
                    }
                });
            }
        });
        Platform { port, taken, accepting, settings, mood }
    }

    pub fn mood(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }

    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub async fn take(&mut self) -> Taken {
        soon("request", self.taken.recv()).await.unwrap()
    }

    pub async fn take_within(&mut self, time: Duration) -> Option<Taken> {
        timeout(time, self.taken.recv()).await.ok().flatten()
    }

    /// Takes a request and welcomes it.
    pub async fn welcome(&mut self) -> Taken {
        let mut taken = self.take().await;
        taken.hello().await;
        taken.send_frame(&welcome().to_frame()).await;
        taken
    }

    /// Closes every TCP connection and the port.
    pub async fn cut(self) {
        self.accepting.abort();
        let _ = self.accepting.await;
    }
}

pub fn welcome() -> Welcome {
    Welcome {
        version: 1,
        applied_lsn: Lsn(42),
        flushed_lsn: Lsn(42),
        copy_state: CopyState::None,
        generation: 1,
        timeline: 1,
        copy_id: 0,
        takes_stored: false,
        shadow: "shadow".into(),
        software: "test".into(),
    }
}

pub fn confirm(lsn: u64) -> Vec<u8> {
    Confirm { applied_lsn: Lsn(lsn), flushed_lsn: Lsn(lsn) }.to_frame()
}

async fn speak<T: AsyncRead + AsyncWrite + Unpin>(
    io: T,
    settings: Settings,
    number: usize,
    taken: mpsc::Sender<Taken>,
    mut mood: tokio::sync::watch::Receiver<Mood>,
) {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .handshake::<_, Bytes>(io)
        .await
        .unwrap();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            Ok(()) = mood.changed() => {
                let now = *mood.borrow_and_update();
                match now {
                    Mood::Serving => {}
                    Mood::GoingAway => connection.graceful_shutdown(),
                    Mood::Frozen => std::future::pending().await,
                }
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { return };
        let (head, recv) = request.into_parts();
        let (buf, packs) = (BytesMut::new(), Vec::new());
        let one = Taken {
            head,
            connection: number,
            recv,
            buf,
            respond,
            send: None,
            takes_packs: false,
            coded: None,
            wire: 0,
            packs,
        };
        if taken.send(one).await.is_err() {
            return;
        }
    }
}

impl Taken {
    pub async fn hello(&mut self) -> Hello {
        Hello::from_frame(&self.next().await.unwrap().expect("a hello")).unwrap()
    }

    /// The next frame; `None` at the end of the request.
    pub async fn next(&mut self) -> Result<Option<Frame>, h2::Error> {
        soon("frame to platform", async {
            loop {
                if self.coded.is_none() && self.buf.first().is_some_and(|byte| pack::begins(*byte)) {
                    self.coded = Some(self.buf.split());
                }
                if let Some(frame) = Frame::take(&mut self.buf).unwrap() {
                    return Ok(Some(frame));
                }
                if self.unpack() {
                    continue;
                }
                match self.recv.data().await {
                    None => {
                        assert!(self.buf.is_empty(), "ended inside a frame");
                        assert!(self.coded.as_ref().is_none_or(|c| c.is_empty()), "ended inside a pack");
                        return Ok(None);
                    }
                    Some(piece) => {
                        let piece = piece?;
                        self.recv.flow_control().release_capacity(piece.len()).unwrap();
                        self.wire += piece.len();
                        self.coded.as_mut().unwrap_or(&mut self.buf).extend_from_slice(&piece);
                    }
                }
            }
        })
        .await
    }

    /// Takes a pack, if a whole one is there.
    fn unpack(&mut self) -> bool {
        let Some(coded) = &mut self.coded else { return false };
        let Some(head) = coded.first_chunk::<PACK_HEADER_LEN>() else { return false };
        let header = pack::Header::decode(head).unwrap();
        if coded.len() < PACK_HEADER_LEN + header.coded {
            return false;
        }
        assert!(self.takes_packs, "nobody asked for packs");
        self.packs.push(header.kind);
        let body = coded.split_to(PACK_HEADER_LEN + header.coded).split_off(PACK_HEADER_LEN);
        match header.kind {
            Kind::Plain => self.buf.extend_from_slice(&body),
            Kind::Zstd => self.buf.extend_from_slice(&zstd::bulk::decompress(&body, header.raw).unwrap()),
            Kind::End => {
                assert!(self.buf.is_empty(), "packs end inside a frame");
                self.buf = self.coded.take().unwrap();
            }
        }
        true
    }

    /// Reads to the end of the request, whole or cut off.
    pub async fn ended(&mut self) -> Result<(), h2::Error> {
        soon("end of request", async {
            while let Some(piece) = self.recv.data().await {
                self.recv.flow_control().release_capacity(piece?.len()).unwrap();
            }
            Ok(())
        })
        .await
    }

    fn answer(&mut self, status: u16, end: bool) -> SendStream<Bytes> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if status == 302 {
            response.headers_mut().insert("location", "https://evil.example/".parse().unwrap());
        }
        if self.takes_packs {
            response.headers_mut().insert(pack::HEADER, pack::ZSTD.parse().unwrap());
        }
        self.respond.send_response(response, end).unwrap()
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        if self.send.is_none() {
            self.send = Some(self.answer(200, false));
        }
        self.send.as_mut().unwrap().send_data(Bytes::copy_from_slice(bytes), false).unwrap();
    }

    pub async fn send_frame(&mut self, frame: &[u8]) {
        self.send_bytes(frame).await;
    }

    pub fn end(mut self) {
        if let Some(send) = &mut self.send {
            send.send_data(Bytes::new(), true).unwrap();
        }
    }

    /// Answers with another status and some words.
    pub fn reject(mut self, status: u16, words: &str) {
        let mut send = self.answer(status, false);
        send.send_data(Bytes::copy_from_slice(words.as_bytes()), true).unwrap();
    }

    /// Answers with another status and a refusal of its own.
    pub fn reject_with(mut self, status: u16, refuse: &Refuse) {
        let response = Response::builder()
            .status(status)
            .header("content-type", "application/vnd.scry.frames")
            .body(())
            .unwrap();
        let mut send = self.respond.send_response(response, false).unwrap();
        send.send_data(refuse.to_frame().into(), true).unwrap();
    }

    pub fn reset(mut self) {
        match &mut self.send {
            Some(send) => send.send_reset(h2::Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(h2::Reason::INTERNAL_ERROR),
        }
    }
}

// ---- certificates ----

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cert {
    Good,
    Expired,
    WrongName,
    SelfSigned,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// A server that takes only clients with a certificate of this authority.
    pub fn server_of_clients(&self) -> ServerConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::pem::PemObject::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        )
        .build()
        .unwrap();
        let (der, key) = self.signed("localhost");
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![der], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// A certificate and its key in PEM.
    pub fn client(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let cert =
            CertificateParams::new(vec!["sender".to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn signed(&self, name: &str) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let cert =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (cert.into(), key)
    }

    pub fn server(&self, cert: Cert, alpn: &[&str]) -> ServerConfig {
        let name = if cert == Cert::WrongName { "other.example" } else { "localhost" };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if cert == Cert::Expired {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let der: CertificateDer<'static> = match cert {
            Cert::SelfSigned => params.self_signed(&key).unwrap().into(),
            _ => params.signed_by(&key, &self.issuer).unwrap().into(),
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![der], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        config
    }
}
