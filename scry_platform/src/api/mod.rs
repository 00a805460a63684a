//! Questions about the shadows: `/api/v1/ready`, `/api/v1/shadows`, `/metrics`.
//!
//! Answers come from the shadows' own tables where they are asked for, with a
//! time limit, and from memory where the shadow does not answer. No answer
//! holds a value of a row, a key or a password.

use crate::accept::{App, accept_stream};
use crate::apply::{hold, quarantine};
use crate::origin;
use crate::shadow::{Purpose, Shadow};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use scry_wire::message::CopyState;
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Every route of the platform.
pub fn routes(app: Arc<App>) -> Router {
    let closed = Router::new()
        .route("/api/v1/shadows", get(shadows))
        .route("/metrics", get(metrics))
        .route_layer(middleware::from_fn_with_state(app.clone(), require_token));
    Router::new()
        .route("/api/v1/ready", get(ready))
        .route("/api/v1/stream", post(accept_stream))
        .merge(closed)
        .with_state(app)
}

async fn require_token(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.auth.check(request.headers()) {
        Ok(_) => next.run(request).await,
        Err(error) => (StatusCode::UNAUTHORIZED, Json(Problem { error: error.to_string() })).into_response(),
    }
}

#[derive(Serialize)]
struct Problem {
    error: String,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    version: &'static str,
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    let ready = !app.stopping.is_cancelled() && app.shadows.is_ready().await;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, version: env!("CARGO_PKG_VERSION") })).into_response()
}

async fn metrics(State(app): State<Arc<App>>) -> String {
    app.recorder.render()
}

/// A shadow, as `/api/v1/shadows` tells it.
#[derive(Debug, Serialize)]
struct ShadowView {
    database: String,
    bound: bool,
    source: Option<SourceView>,
    copy_state: &'static str,
    generation: u64,
    copy_id: u64,
    applied_lsn: Option<String>,
    /// Seconds since 1970.
    last_applied_at: Option<f64>,
    rows_applied: u64,
    tables: Vec<TableView>,
    /// Tables whose rows are not the source's yet.
    held: Vec<HeldView>,
    /// Tables of which changes were refused and kept aside.
    quarantined: Vec<QuarantinedView>,
    left_out: Vec<LeftOutView>,
    conflicts: Vec<ConflictView>,
    journal: Option<JournalView>,
    last_error: Option<ErrorView>,
}

#[derive(Debug, Serialize)]
struct SourceView {
    /// As text: it does not fit a JavaScript number.
    system_identifier: String,
    timeline: u32,
    database_oid: u32,
    database: String,
    job: String,
    shadow_id: String,
}

#[derive(Debug, Serialize)]
struct TableView {
    relid: u32,
    chunks: u32,
    chunks_done: u32,
    rows: u64,
}

#[derive(Debug, Serialize)]
struct HeldView {
    relid: u32,
    state: &'static str,
    copy_id: u64,
    /// The stream must have reached this.
    until_lsn: Option<String>,
    /// Why the last round came to nothing.
    why: String,
}

#[derive(Debug, Serialize)]
struct QuarantinedView {
    relid: u32,
    schema: String,
    relation: String,
    changes: u64,
    kept: u64,
    diverged: bool,
    since_lsn: String,
    cause: String,
}

#[derive(Debug, Serialize)]
struct LeftOutView {
    object: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct ConflictView {
    schema: String,
    relation: String,
    operation: String,
    seen: i64,
}

#[derive(Debug, Serialize)]
struct JournalView {
    /// `off`, `starting`, `running`, `waiting` (tries again by itself) or `failed`.
    applier: &'static str,
    why: String,
    bytes: u64,
    bytes_max: u64,
    full: bool,
    /// The last whole transaction that stands in it.
    written_lsn: String,
    /// Up to where changes survive a crash, here or on the shadow.
    flushed_lsn: String,
}

#[derive(Debug, Serialize)]
struct ErrorView {
    message: String,
    at: f64,
}

#[derive(Serialize)]
struct ShadowsView {
    shadows: Vec<ShadowView>,
}

async fn shadows(State(app): State<Arc<App>>) -> Json<ShadowsView> {
    let mut views = Vec::new();
    for shadow in app.shadows.all().await {
        let mut view = from_memory(&shadow);
        if let Ok(Err(error)) = tokio::time::timeout(ASK_TIMEOUT, from_shadow(&shadow, &mut view)).await {
            tracing::debug!(%error, shadow = %shadow.database, "could not ask the shadow");
        }
        views.push(view);
    }
    Json(ShadowsView { shadows: views })
}

fn from_memory(shadow: &Shadow) -> ShadowView {
    let origin = shadow.origin();
    let last = shadow.news.last();
    ShadowView {
        database: shadow.database.clone(),
        bound: origin.is_some(),
        copy_state: match origin.as_ref().map(|o| o.copy_state) {
            None | Some(CopyState::None) => "none",
            Some(CopyState::Copying) => "copying",
            Some(CopyState::Copied) => "copied",
        },
        generation: origin.as_ref().map_or(0, |o| o.generation),
        copy_id: origin.as_ref().map_or(0, |o| o.copy_id),
        applied_lsn: origin.as_ref().filter(|o| o.applied_lsn.is_valid()).map(|o| o.applied_lsn.to_string()),
        rows_applied: origin.as_ref().map_or(0, |o| o.rows_applied),
        source: origin.map(|o| SourceView {
            system_identifier: o.system_identifier.to_string(),
            timeline: o.timeline,
            database_oid: o.database_oid,
            database: o.database,
            job: o.job,
            shadow_id: o.shadow_id,
        }),
        last_applied_at: last.applied_at.map(seconds),
        last_error: last.error.map(|(message, at)| ErrorView { message, at: seconds(at) }),
        tables: Vec::new(),
        held: Vec::new(),
        quarantined: Vec::new(),
        left_out: Vec::new(),
        conflicts: Vec::new(),
        journal: shadow.seat.journal().map(|journal| {
            let (status, state) = (journal.status(), shadow.seat.watch().borrow().clone());
            let (applier, why) = state.words();
            JournalView {
                applier,
                why: why.to_owned(),
                bytes: status.bytes,
                bytes_max: journal.bytes_max(),
                full: status.is_full,
                written_lsn: status.mark.to_string(),
                flushed_lsn: journal.safe().to_string(),
            }
        }),
    }
}

async fn from_shadow(shadow: &Shadow, view: &mut ShadowView) -> crate::Result<()> {
    let session = shadow.owner.open(Purpose::Own).await?.cancelled_on_drop();
    let ledger = origin::ledger(&*session).await?;
    view.tables = ledger
        .iter()
        .map(|table| TableView {
            relid: table.copied.relid,
            chunks: table.copied.chunks,
            chunks_done: table.chunks_done,
            rows: table.copied.rows,
        })
        .collect();
    view.held = hold::all(&*session)
        .await?
        .into_iter()
        .map(|held| HeldView {
            relid: held.relid,
            state: held.state.as_str(),
            copy_id: held.copy_id,
            until_lsn: held.until.is_valid().then(|| held.until.to_string()),
            why: held.why,
        })
        .collect();
    view.quarantined = quarantine::all(&*session)
        .await?
        .into_iter()
        .map(|mark| QuarantinedView {
            relid: mark.relid,
            schema: mark.schema,
            relation: mark.relation,
            changes: mark.changes,
            kept: mark.kept,
            diverged: mark.diverged,
            since_lsn: mark.since.to_string(),
            cause: mark.cause,
        })
        .collect();
    let left_out = origin::left_out(&*session).await?;
    view.left_out =
        left_out.into_iter().map(|l| LeftOutView { object: l.object, reason: l.reason }).collect();
    let conflicts = origin::conflicts(&*session).await?;
    view.conflicts = conflicts
        .into_iter()
        .map(|c| ConflictView {
            schema: c.schema,
            relation: c.relation,
            operation: c.operation,
            seen: c.seen,
        })
        .collect();
    session.close().await;
    Ok(())
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

const ASK_TIMEOUT: Duration = Duration::from_secs(5);
