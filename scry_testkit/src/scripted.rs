//! A platform that follows a script instead of its duty: it answers what a
//! broken, hostile or lying platform would. HTTP/2 without TLS on a loopback
//! address, frames by `scry_wire`.

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use scry_wire::frame::Frame;
use scry_wire::message::{Hello, Message};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Media type of a stream of frames.
pub const CONTENT_TYPE: &str = "application/vnd.scry.frames";

/// As the real platform's: the scripted one may stand in for it in a bench.
const WINDOW: u32 = 4 << 20;

/// The answer to a hello: these bytes, in these pieces.
pub type Answer = Arc<dyn Fn(&Hello) -> Vec<Vec<u8>> + Send + Sync>;

/// What the platform does with a request.
#[derive(Clone)]
pub enum Script {
    /// Answers this HTTP status and nothing else.
    Status(u16),
    /// Answers a hello with bytes, then reads on and says nothing more.
    Frames(Answer),
    /// As `Frames`, but ends the stream after the bytes.
    FramesThenEnd(Answer),
    /// Reads and never answers.
    Silence,
    /// Takes the request, then tells the connection to go away (HTTP/2 GOAWAY).
    GoAway,
}

/// A running scripted platform; gone when dropped.
pub struct ScriptedPlatform {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: Runtime,
}

struct Shared {
    script: Mutex<Script>,
    hellos: Mutex<Vec<Hello>>,
    received: AtomicU64,
    content_type: String,
}

impl ScriptedPlatform {
    /// Listens on a free port of 127.0.0.1; answers carry `content_type`.
    pub fn start(script: Script, content_type: &str) -> Result<ScriptedPlatform> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .context("start a runtime")?;
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).context("bind")?;
        let address = listener.local_addr().context("address")?;
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            hellos: Mutex::new(Vec::new()),
            received: AtomicU64::new(0),
            content_type: content_type.to_owned(),
        });
        let for_task = Arc::clone(&shared);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, Arc::clone(&for_task)));
            }
        });
        Ok(ScriptedPlatform { address, shared, _runtime: runtime })
    }

    /// Its URL, for `scry_backfill.endpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Follows another script from the next request on.
    pub fn follow(&self, script: Script) {
        *self.shared.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// Bytes that came after the hellos.
    pub fn received_bytes(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// The hellos that came so far.
    pub fn hellos(&self) -> Vec<Hello> {
        self.shared.hellos.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One HTTP/2 connection; its errors are the script's business.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let Ok(mut http) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = http.accept().await {
        if matches!(*shared.script.lock().unwrap_or_else(PoisonError::into_inner), Script::GoAway) {
            http.abrupt_shutdown(h2::Reason::NO_ERROR);
            continue;
        }
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let _ = answer(request.into_body(), respond, &shared).await;
        });
    }
}

async fn answer(
    mut body: h2::RecvStream,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
) -> Result<(), h2::Error> {
    let script = shared.script.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (pieces, end) = match script {
        Script::Status(status) => {
            let mut response = http::Response::new(());
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
            respond.send_response(response, true)?;
            return Ok(());
        }
        // A connection that was told so asks for nothing more.
        Script::GoAway => return Ok(()),
        Script::Silence => {
            drain(&mut body, shared).await;
            return Ok(());
        }
        Script::Frames(answer) => (hello(&mut body, shared).await.map(|hello| answer(&hello)), false),
        Script::FramesThenEnd(answer) => (hello(&mut body, shared).await.map(|hello| answer(&hello)), true),
    };
    let mut response = http::Response::new(());
    if let Ok(value) = shared.content_type.parse() {
        response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    }
    let mut send = respond.send_response(response, false)?;
    for piece in pieces.unwrap_or_default() {
        send.send_data(piece.into(), false)?;
    }
    if end {
        return send.send_data(Bytes::new(), true);
    }
    drain(&mut body, shared).await;
    Ok(())
}

/// The first frame, as a hello.
async fn hello(body: &mut h2::RecvStream, shared: &Shared) -> Option<Hello> {
    let mut buffer = BytesMut::new();
    loop {
        if let Some(frame) = Frame::take(&mut buffer).ok()? {
            let hello = Hello::from_frame(&frame).ok()?;
            shared.hellos.lock().unwrap_or_else(PoisonError::into_inner).push(hello.clone());
            return Some(hello);
        }
        let piece = body.data().await?.ok()?;
        let _ = body.flow_control().release_capacity(piece.len());
        buffer.extend_from_slice(&piece);
    }
}

/// Reads and counts all that comes.
async fn drain(body: &mut h2::RecvStream, shared: &Shared) {
    while let Some(Ok(piece)) = body.data().await {
        shared.received.fetch_add(piece.len() as u64, Ordering::Relaxed);
        let _ = body.flow_control().release_capacity(piece.len());
    }
}
