//! One HTTP/2 connection to the platform: made, kept alive, ended.
//!
//! ```text
//! resolve ─► TCP ─► TLS (https) ─► HTTP/2 preface ─► Live ─┬─ requests
//!                                                         └─ driver: I/O, PING, `line`
//! ```
//!
//! Invariants: all of it within [`CONNECT_TIMEOUT`]; a peer that answers no
//! PING for two intervals is given up, and with it every stream on the
//! connection; what the platform can make us hold is bounded by our windows.
//! What it does not do: it does not retry.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::last_words::LastWords;
use super::line::Line;
use super::tls;
use crate::config::{Endpoint, PlatformConfig};
use crate::error::{Failure, FailureKind};
use crate::metrics;

/// For name, TCP, TLS and HTTP/2 together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without an answer to a PING for so many of its intervals the peer is dead.
const PONG_INTERVALS: u32 = 2;
/// Between two PINGs while streams wait and want to know what for.
const PING_GAP: Duration = Duration::from_millis(250);
/// The system's own probes, and its bound on data that nobody acknowledges.
const TCP_IDLE: Duration = Duration::from_secs(30);
const TCP_PROBE_EVERY: Duration = Duration::from_secs(10);
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// Without a stream the connection is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
const IDLE_LOOK_EVERY: Duration = Duration::from_secs(10);

/// What the platform may send on one stream before we read it: confirmations
/// have 32 bytes.
const STREAM_WINDOW: u32 = 32 << 10;
/// Streams that share a connection.
pub const STREAMS_MAX: usize = 64;
/// All streams' windows, so that a worker that reads nothing holds up no other.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * 64;
/// What HTTP/2 may hold of ours per stream; the bytes keep their room meanwhile.
const SEND_BUFFER: usize = 128 << 10;
/// Headers of a response; ours has four.
const HEADERS_MAX: u32 = 16 << 10;

const _: () = assert!(STREAMS_MAX == 64, "the connection's window is the sum of its streams'");

/// A connection that takes requests.
#[derive(Debug)]
pub struct Live {
    /// Makes requests.
    pub requests: SendRequest<Bytes>,
    /// What all its users see.
    pub shared: Arc<Shared>,
}

/// What the driver and the streams of a connection share.
#[derive(Debug, Default)]
pub struct Shared {
    streams: AtomicUsize,
    end: OnceLock<Failure>,
    /// What its PINGs say about the link.
    pub line: Line,
}

impl Shared {
    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Why the connection ended, once it has.
    pub fn end(&self) -> Option<&Failure> {
        self.end.get()
    }
}

/// Counts a stream while it lives.
#[derive(Debug)]
pub struct Lease(pub Arc<Shared>);

impl Lease {
    /// One more stream.
    pub fn new(shared: &Arc<Shared>) -> Self {
        shared.streams.fetch_add(1, Ordering::Relaxed);
        Lease(Arc::clone(shared))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connects, in bounded time.
pub async fn connect(config: &PlatformConfig) -> Result<Live, Failure> {
    let endpoint = &config.endpoint;
    match timeout(CONNECT_TIMEOUT, open(config)).await {
        Ok(done) => done,
        Err(_) => Err(Failure::new(
            FailureKind::Connect,
            format!("no connection to {endpoint} within {} s", CONNECT_TIMEOUT.as_secs()),
        )
        .hint("Check that scry_platform runs there and that no firewall drops packets.")),
    }
}

async fn open(config: &PlatformConfig) -> Result<Live, Failure> {
    let tcp = open_tcp(&config.endpoint).await?;
    if config.endpoint.tls {
        let stream = tls::handshake(config, tcp).await?;
        return http2(stream, config).await;
    }
    http2(tcp, config).await
}

async fn open_tcp(endpoint: &Endpoint) -> Result<TcpStream, Failure> {
    let addresses = lookup_host((endpoint.host.as_str(), endpoint.port)).await.map_err(|e| {
        Failure::new(FailureKind::Resolve, format!("could not resolve host \"{}\"", endpoint.host))
            .detail(&e.to_string())
    })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                tune(&stream);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(Failure::new(FailureKind::Connect, format!("could not connect to {endpoint}"))
        .detail(&last.to_string())
        .hint("Check that scry_platform runs there."))
}

/// No lingering, and a dead peer found by the system too.
fn tune(stream: &TcpStream) {
    let keepalive = TcpKeepalive::new().with_time(TCP_IDLE).with_interval(TCP_PROBE_EVERY).with_retries(3);
    let socket = SockRef::from(stream);
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_keepalive(&keepalive))
        .and_then(|()| socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT)));
    if let Err(error) = tuned {
        tracing::warn!(%error, "could not set options of a TCP socket");
    }
}

async fn http2<T>(io: T, config: &PlatformConfig) -> Result<Live, Failure>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (requests, mut connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .enable_push(false)
        .handshake::<_, Bytes>(LastWords::of(io))
        .await
        .map_err(|e| explain(&e, &config.endpoint))?;
    let shared = Arc::new(Shared::default());
    let ping = connection.ping_pong();
    let pings = keep_alive(ping, config.ping_interval, config.endpoint.clone(), Arc::clone(&shared));
    tokio::spawn(drive(connection, pings, Arc::clone(&shared), config.endpoint.clone()));
    Ok(Live { requests, shared })
}

/// Runs the connection until it ends; then notes why, for its streams.
async fn drive<T>(
    connection: Connection<T, Bytes>,
    pings: impl Future<Output = Failure>,
    shared: Arc<Shared>,
    endpoint: Endpoint,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let _counted = metrics::Upstream::new();
    tracing::info!(%endpoint, "connected");
    let failure = tokio::select! {
        end = connection => match end {
            Ok(()) => Failure::new(FailureKind::Lost, format!("{endpoint} closed the connection")),
            Err(error) => explain(&error, &endpoint),
        },
        failure = pings => failure,
        () = idle(&shared) => Failure::new(FailureKind::Lost, "idle connection closed"),
    };
    // Set before the connection is dropped: its streams look here first.
    tracing::info!(%endpoint, cause = failure.line(), "connection ended");
    let _ = shared.end.set(failure);
}

/// PINGs at once, then at the interval, and sooner where a stream asks; ends when one is not answered.
async fn keep_alive(
    ping: Option<PingPong>,
    interval: Duration,
    endpoint: Endpoint,
    shared: Arc<Shared>,
) -> Failure {
    let Some(mut ping) = ping else { return std::future::pending().await };
    let gap = PING_GAP.min(interval);
    loop {
        shared.line.sent(Instant::now().into_std());
        match timeout(interval * PONG_INTERVALS, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => shared.line.answered(Instant::now().into_std()),
            Ok(Err(error)) => return explain(&error, &endpoint),
            Err(_) => {
                let message = format!("{endpoint} has answered no PING for {:?}", interval * PONG_INTERVALS);
                return Failure::new(FailureKind::Lost, message);
            }
        }
        sleep(gap).await;
        // Late: the interval is over.
        let _ = timeout(interval - gap, shared.line.asked()).await;
    }
}

/// Ends when there has been no stream for [`IDLE_MAX`].
async fn idle(shared: &Shared) {
    let mut since = Instant::now();
    while since.elapsed() < IDLE_MAX {
        sleep(IDLE_LOOK_EVERY).await;
        if shared.streams() > 0 {
            since = Instant::now();
        }
    }
}

/// What an error of HTTP/2 means.
pub fn explain(error: &h2::Error, endpoint: &Endpoint) -> Failure {
    let words = error.to_string();
    if tls::is_about_our_certificate(&words) {
        return tls::refuses_our_certificate(endpoint, &words);
    }
    let (kind, message) = if error.is_go_away() && error.is_remote() {
        (FailureKind::Lost, format!("{endpoint} is going away"))
    } else if error.is_reset() && error.is_remote() {
        (FailureKind::Lost, format!("{endpoint} reset the stream"))
    } else if error.is_io() {
        (FailureKind::Lost, format!("connection to {endpoint} was lost"))
    } else {
        (FailureKind::NotHttp2, format!("{endpoint} does not speak HTTP/2 as it should"))
    };
    let hint = match kind {
        FailureKind::NotHttp2 => {
            "Check that the endpoint is a scry_platform, and http:// or https:// as it serves."
        }
        _ => "",
    };
    Failure::new(kind, message).detail(&words).hint(hint)
}

/// Waits for `future` until `deadline`; late is silent.
pub async fn answer_by<T>(
    deadline: Instant,
    endpoint: &Endpoint,
    future: impl Future<Output = T>,
) -> Result<T, Failure> {
    timeout_at(deadline, future).await.map_err(|_| {
        Failure::new(FailureKind::Silent, format!("{endpoint} took the request and has not answered it"))
    })
}
