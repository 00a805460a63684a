//! One request to the platform: a worker's frames up in its body, the
//! platform's frames down in the answer's.
//!
//! ```text
//! open:  POST /api/v1/stream, hello ─► 200 ─► Exchange { up, down }
//!                                   └► other status ─► Failure
//! up:    `up`
//! down:  DATA ─► `confirm`
//! ```
//!
//! Invariants: up and down wait for nothing of each other; redirects are not
//! followed; of an answer that is not a stream only the first bytes are read;
//! packs go only to a platform whose answer says that it takes them.
//! What it does not do: it decides nothing about retries (`error`, `session`).

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use scry_wire::frame::Frame;
use scry_wire::message::{Message, Refuse};
use scry_wire::pack;
use tokio::time::{Instant, timeout};

use super::connect::{Lease, answer_by, explain};
use super::credentials::authorization;
use super::line::Line;
use super::pool::{Class, Place, Pool};
use super::up::Up;
use crate::config::{Endpoint, PlatformConfig};
use crate::confirm::Down;
use crate::error::{DETAIL_BYTES_MAX, Failure, FailureKind, readable};
use crate::pack::Packing;

const PATH: &str = "/api/v1/stream";
use scry_wire::frame::CONTENT_TYPE as CONTENT_TYPE_FRAMES;
/// From the request to the answer's status.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// For the first bytes of an answer that is not a stream.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// An open stream.
#[derive(Debug)]
pub struct Exchange {
    /// The way up.
    pub up: Up,
    /// The way down.
    pub down: Down,
}

/// What is needed to say why a stream ended.
#[derive(Debug, Clone)]
pub struct Ends {
    lease: Arc<Lease>,
    /// Where the stream goes to.
    pub endpoint: Endpoint,
}

impl Ends {
    /// The connection's end explains more than the stream's.
    pub fn explain(&self, error: &h2::Error) -> Failure {
        self.lease.0.end().cloned().unwrap_or_else(|| explain(error, &self.endpoint))
    }

    /// The stream was closed without an error.
    pub fn closed(&self) -> Failure {
        let words = || format!("{} closed the stream", self.endpoint);
        self.lease.0.end().cloned().unwrap_or_else(|| Failure::new(FailureKind::Lost, words()))
    }

    /// What is known about the connection's link.
    pub fn line(&self) -> &Line {
        &self.lease.0.line
    }
}

impl Exchange {
    /// Makes the request, sends the hello, waits for the answer's status.
    pub async fn open(pool: &Pool, class: Class, hello: Bytes) -> Result<Exchange, Failure> {
        let Place { requests, lease, config } = pool.place(class).await?;
        let request = request(&config)?;
        let ends = Ends { lease: Arc::new(lease), endpoint: config.endpoint.clone() };
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        let mut requests = match answer_by(deadline, &ends.endpoint, requests.ready()).await? {
            Ok(ready) => ready,
            Err(error) => {
                pool.refuse(&ends.lease);
                return Err(ends.explain(&error));
            }
        };
        let (answer, send) = requests.send_request(request, false).map_err(|e| ends.explain(&e))?;
        let mut up = Up::new(send, ends.clone());
        let sent = answer_by(deadline, &ends.endpoint, up.send(hello)).await?;
        // Whoever refuses need not wait for the hello: an answer says more than the stream's end.
        let answer = answer_by(deadline, &ends.endpoint, answer).await?.map_err(|e| ends.explain(&e))?;
        let (head, body) = answer.into_parts();
        let kind =
            head.headers.get(CONTENT_TYPE).map_or(CONTENT_TYPE_FRAMES.as_bytes(), HeaderValue::as_bytes);
        if head.status == StatusCode::OK && kind == CONTENT_TYPE_FRAMES.as_bytes() {
            sent?;
            let takes_packs = head.headers.get(pack::HEADER).is_some_and(|kinds| kinds == pack::ZSTD);
            let packing = takes_packs.then(|| Packing::new(config.compression, pool.presses())).flatten();
            return Ok(Exchange { up: up.packing(packing), down: Down::new(body, ends) });
        }
        let words = first_bytes(body).await;
        let failure = refusal(head.status, &head.headers, &words, &ends.endpoint);
        Err(if kind == CONTENT_TYPE_FRAMES.as_bytes() { in_its_words(failure, &words) } else { failure })
    }
}

fn request(config: &PlatformConfig) -> Result<Request<()>, Failure> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(config.endpoint.url(PATH))
        .header(CONTENT_TYPE, CONTENT_TYPE_FRAMES)
        .header(USER_AGENT, concat!("scry_sender/", env!("CARGO_PKG_VERSION")))
        .body(())
        .map_err(|e| {
            Failure::new(FailureKind::Status, "could not make the request").detail(&e.to_string())
        })?;
    if let Some(file) = &config.auth_token_file {
        request.headers_mut().insert(AUTHORIZATION, authorization(file)?);
    }
    Ok(request)
}

/// What a status other than a stream means.
fn refusal(status: StatusCode, headers: &HeaderMap, words: &[u8], endpoint: &Endpoint) -> Failure {
    let text = |name| headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).unwrap_or_default();
    let (kind, what, hint) = match status.as_u16() {
        200..=299 => {
            (FailureKind::Status, "answers, but not with frames", "The endpoint must be a scry_platform.")
        }
        300..=399 => (
            FailureKind::Status,
            "redirects elsewhere, which is not followed",
            "Set the endpoint to where scry_platform itself listens.",
        ),
        401 => (
            FailureKind::Auth,
            "does not accept our token",
            "Set auth_token_file to a file with the platform's token.",
        ),
        403 => (FailureKind::Auth, "does not allow our token to stream", "Ask for a token that may."),
        404 | 405 => (
            FailureKind::Status,
            "takes no streams",
            "The endpoint must be a scry_platform of a release that belongs to this one.",
        ),
        413 => (FailureKind::Status, "finds the request too large", "Raise the limit of a proxy in between."),
        408 | 425 | 429 => (FailureKind::Busy, "asks us to come back later", ""),
        500..=599 => (FailureKind::Busy, "is not ready", ""),
        _ => (FailureKind::Status, "refuses the stream", ""),
    };
    let mut detail = String::from_utf8_lossy(words).into_owned();
    if status.is_redirection() {
        detail = format!("location: {}", text(LOCATION));
    }
    let mut failure = Failure::new(kind, format!("{endpoint} {what} (HTTP status {})", status.as_u16()))
        .detail(&detail)
        .hint(hint);
    failure.retry_after = text(RETRY_AFTER).parse().ok().map(Duration::from_secs);
    failure
}

/// The platform's own refusal, where the answer's body is one.
fn in_its_words(failure: Failure, words: &[u8]) -> Failure {
    let frame = Frame::take(&mut BytesMut::from(words)).ok().flatten();
    let Some(refuse) = frame.and_then(|f| Refuse::from_frame(&f).ok()) else { return failure };
    let detail = [refuse.message, refuse.detail].join(" ");
    let hint = if refuse.hint.is_empty() { failure.hint.clone() } else { readable(refuse.hint.as_bytes()) };
    failure.detail(&detail).hint(hint)
}

async fn first_bytes(mut body: RecvStream) -> Vec<u8> {
    let mut words = Vec::new();
    let read = async {
        while words.len() < DETAIL_BYTES_MAX {
            let Some(Ok(piece)) = body.data().await else { break };
            let _ = body.flow_control().release_capacity(piece.len());
            let room = DETAIL_BYTES_MAX - words.len();
            words.extend_from_slice(piece.get(..piece.len().min(room)).unwrap_or_default());
        }
    };
    // Late or not: what came is shown.
    let _ = timeout(BODY_TIMEOUT, read).await;
    words
}
