//! The socket, and HTTP's limits.
//!
//! Every limit is set here, with its reason: what a peer can make this side
//! hold is bounded before it has shown a token.

use super::lanes::{Lanes, OnLane};
use super::tls::Tls;
use crate::config::TlsFiles;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A bound socket that serves until it is told to stop.
pub struct Listener {
    socket: TcpListener,
    tls: Option<Tls>,
    lanes: Lanes,
}

impl Listener {
    /// Binds the address and reads the certificates.
    ///
    /// # Errors
    /// One line with the address or file and what is wrong with it.
    pub async fn bind(address: SocketAddr, tls: Option<&TlsFiles>) -> Result<Self, String> {
        let tls = tls.map(Tls::new).transpose()?;
        let socket =
            TcpListener::bind(address).await.map_err(|e| format!("cannot listen on {address}: {e}"))?;
        let lanes = Lanes::start().map_err(|e| format!("cannot start threads: {e}"))?;
        Ok(Listener { socket, tls, lanes })
    }

    /// The bound address.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The certificates, to have them read again.
    pub fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// Serves `app` until `stopping`; then waits for connections to end, a
    /// bounded time. What they have spawned lives as long as the lanes.
    pub async fn serve(self, app: Router, stopping: CancellationToken) -> Lanes {
        let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                accepted = accept(&self.socket, &seats) => accepted,
            };
            let Some((stream, seat)) = accepted else { continue };
            let Some((stream, lane, place)) = change_over(&self.lanes, stream) else { continue };
            let (app, tls, stopping) = (app.clone(), self.tls.as_ref().map(Tls::acceptor), stopping.clone());
            let serve = async move {
                let stream = match TcpStream::from_std(stream) {
                    Ok(stream) => stream,
                    Err(error) => return cannot_hand_over(&error),
                };
                let _ = stream.set_nodelay(true);
                match tls {
                    None => serve_connection(stream, app, stopping).await,
                    Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                        Ok(Ok(stream)) => serve_connection(stream, app, stopping).await,
                        Ok(Err(error)) => tracing::info!(%error, "TLS handshake refused"),
                        Err(_) => tracing::info!("TLS handshake took too long"),
                    },
                }
                drop((seat, place));
            };
            connections.spawn_on(serve, &lane);
        }
        drop(self.socket);
        connections.close();
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, connections.wait()).await;
        self.lanes
    }
}

/// Takes a connection off this thread, for the lane that is to have it.
fn change_over(lanes: &Lanes, stream: TcpStream) -> Option<(std::net::TcpStream, Handle, OnLane)> {
    let (lane, place) = lanes.take()?;
    match stream.into_std() {
        Ok(stream) => Some((stream, lane, place)),
        Err(error) => {
            cannot_hand_over(&error);
            None
        }
    }
}

/// The peer sees its connection end, and connects again.
fn cannot_hand_over(error: &std::io::Error) {
    tracing::warn!(%error, "could not hand a connection to its thread");
}

async fn accept(
    socket: &TcpListener,
    seats: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let seat = seats.clone().acquire_owned().await.ok()?;
    match socket.accept().await {
        Ok((stream, _)) => Some((stream, seat)),
        Err(error) => {
            // Out of descriptors, say: give others time to close theirs.
            tracing::warn!(%error, "could not accept a connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

async fn serve_connection<S>(stream: S, app: Router, stopping: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_MAX)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * STREAMS_MAX)
        .max_frame_size(FRAME_SIZE)
        .max_header_list_size(HEADERS_MAX)
        .max_send_buf_size(SEND_BUFFER_MAX)
        .max_pending_accept_reset_streams(RESETS_PENDING_MAX)
        .max_local_error_reset_streams(RESETS_LOCAL_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "HTTP connection ended");
    }
}

/// TCP connections at a time: senders keep a few each.
const CONNECTIONS_MAX: usize = 1024;
/// Requests on one HTTP/2 connection; a sender with more opens another.
const STREAMS_MAX: u32 = 64;
/// Bytes that one worker may have under way: 20 MB/s at 100 ms.
const STREAM_WINDOW: u32 = 2 << 20;
/// Large frames cost fewer headers.
const FRAME_SIZE: u32 = 256 << 10;
const HEADERS_MAX: u32 = 16 << 10;
const SEND_BUFFER_MAX: usize = 256 << 10;
/// Rapid reset (CVE-2023-44487) and its kin end the connection here.
const RESETS_PENDING_MAX: usize = 20;
const RESETS_LOCAL_MAX: usize = 64;
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const HTTP1_BUFFER_MAX: usize = 64 << 10;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(
    (STREAM_WINDOW as u64) * (STREAMS_MAX as u64) < 1 << 31,
    "a stalled stream's window never takes another's: the connection's holds all of them"
);
