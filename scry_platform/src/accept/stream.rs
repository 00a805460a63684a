//! From a request to a role: hello, shadow, lease, work, last word.
//!
//! ```text
//! hello ─► version ─► shadow of the job ─► seat of the role ─► lead | copy | stream | verify
//!   └─ any error on the way ─► Refuse frame, end of the answer
//! ```
//!
//! A connection ends when its work ends, when its seat is wanted by a newer
//! one, when its peer is gone, or when the platform stops; the work's future
//! is dropped then, which cancels its statement on the shadow.

use super::auth::{Auth, Pass};
use super::link::{FrameReader, FrameSender};
use crate::apply::{copy, lead, stream};
use crate::shadow::lease::Guard;
use crate::shadow::{Shadow, Shadows};
use crate::spool::Intake;
use crate::verify;
use crate::{Error, Result, metrics};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http::StatusCode;
use scry_wire::message::{Hello, Message, Refuse, Role};
use scry_wire::pack;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What requests share.
pub struct App {
    /// The shadows.
    pub shadows: Shadows,
    /// The token.
    pub auth: Auth,
    /// Told when the platform stops.
    pub stopping: CancellationToken,
    /// The connections' tasks, waited for when the platform stops.
    pub tasks: TaskTracker,
    /// Where large transactions are put aside.
    pub spool: PathBuf,
    /// What `/metrics` shows.
    pub recorder: metrics_exporter_prometheus::PrometheusHandle,
}

/// `POST /api/v1/stream`.
pub async fn accept_stream(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let (sender, answer) = FrameSender::new();
    let pass = match app.auth.check(&parts.headers) {
        Ok(pass) => pass,
        Err(error) => {
            count_refused(&error);
            tracing::info!(%error, "connection refused");
            let refuse = error.refuse().map(|r| r.to_frame()).unwrap_or_default();
            return (StatusCode::UNAUTHORIZED, [(http::header::CONTENT_TYPE, CONTENT_TYPE)], refuse)
                .into_response();
        }
    };
    if parts.version < http::Version::HTTP_2 {
        // HTTP/1.1 does not carry both bodies at the same time.
        return StatusCode::HTTP_VERSION_NOT_SUPPORTED.into_response();
    }
    let task_app = app.clone();
    app.tasks.spawn(async move { serve(task_app, &pass, FrameReader::new(body), sender).await });
    let head = [(http::header::CONTENT_TYPE.as_str(), CONTENT_TYPE), (pack::HEADER, pack::ZSTD)];
    (head, axum::body::Body::new(answer)).into_response()
}

async fn serve(app: Arc<App>, pass: &Pass, reader: FrameReader, sender: FrameSender) {
    let error = tokio::select! {
        result = greet(&app, reader, &sender) => match result {
            Ok(()) => return,
            Err(error) => error,
        },
        error = sender.gone() => error,
        error = app.auth.revoked(pass) => error,
        () = app.stopping.cancelled() => Error::Stopping,
    };
    count_refused(&error);
    if let Some(refuse) = error.refuse() {
        tell(&sender, refuse).await;
    }
}

/// The last word; a peer that does not read it is not waited for.
async fn tell(sender: &FrameSender, refuse: Refuse) {
    let _ = tokio::time::timeout(LAST_WORD_TIMEOUT, sender.send(&refuse)).await;
}

async fn greet(app: &App, mut reader: FrameReader, sender: &FrameSender) -> Result<()> {
    let frame = tokio::time::timeout(HELLO_TIMEOUT, reader.expect())
        .await
        .map_err(|_| Error::protocol("no hello came in time"))??;
    let hello = Hello::from_frame(&frame)?;
    scry_wire::version::negotiate(hello.version_min, hello.version_max)?;
    let shadow = app.shadows.assign(&hello).await?;
    let open = Open::new(hello.role);
    tracing::info!(
        role = open.role, shadow = %shadow.database, job = %hello.job, generation = hello.generation,
        software = %hello.software, "connection open"
    );
    let result = with_seat(&shadow, &hello, reader, sender, &app.spool).await;
    match &result {
        Ok(()) | Err(Error::Gone) => {
            tracing::info!(role = open.role, shadow = %shadow.database, "connection closed");
        }
        Err(error) => {
            tracing::warn!(role = open.role, shadow = %shadow.database, %error, "connection ended");
            if !matches!(error, Error::Busy(_)) {
                shadow.news.failed(error.to_string());
            }
        }
    }
    result
}

async fn with_seat(
    shadow: &Arc<Shadow>,
    hello: &Hello,
    reader: FrameReader,
    sender: &FrameSender,
    spool: &Path,
) -> Result<()> {
    let guard = match hello.role {
        Role::Stream => shadow.stream.take().await?,
        Role::Lead => shadow.lead.take().await?,
        Role::Copy => shadow.copies.join().await?,
        Role::Verify => shadow.verifiers.join().await?,
    };
    let work: BoxFuture<'_, Result<()>> = match hello.role {
        Role::Stream => Box::pin(stream::serve(shadow, hello, Intake::new(reader, spool), sender)),
        Role::Lead => Box::pin(lead::serve(shadow, hello, reader, sender)),
        Role::Copy => Box::pin(copy::serve(shadow, hello, reader, sender)),
        Role::Verify => Box::pin(verify::serve(shadow, hello, reader, sender)),
    };
    let Guard { replaced, .. } = &guard;
    tokio::select! {
        result = work => result,
        () = replaced.cancelled() => {
            Err(Error::Busy("another connection of this job has taken over".to_owned()))
        }
    }
}

fn count_refused(error: &Error) {
    if let Some(refuse) = error.refuse() {
        let kind = format!("{:?}", refuse.kind).to_lowercase();
        ::metrics::counter!(metrics::REFUSED, "kind" => kind).increment(1);
    }
    if matches!(error, Error::Conflict { .. }) {
        ::metrics::counter!(metrics::CONFLICTS).increment(1);
    }
}

/// Counts an open connection as long as it lives.
struct Open {
    role: &'static str,
}

impl Open {
    fn new(role: Role) -> Self {
        let role = match role {
            Role::Stream => "stream",
            Role::Lead => "lead",
            Role::Copy => "copy",
            Role::Verify => "verify",
        };
        ::metrics::gauge!(metrics::CONNECTIONS, "role" => role).increment(1.0);
        Open { role }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        ::metrics::gauge!(metrics::CONNECTIONS, "role" => self.role).decrement(1.0);
    }
}

/// Media type of a stream of frames.
pub use scry_wire::frame::CONTENT_TYPE;
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(2);
