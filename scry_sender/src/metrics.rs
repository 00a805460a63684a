//! Names of the metrics, once, and the loopback page that shows them.
//!
//! Role: the rest of the program calls the functions below; nobody else writes
//! a metric's name. Flow: recorder → Prometheus text on `[metrics] listen`.
//! Invariants: labels are words of the program (role, kind), never names or
//! values from outside, so that their number is bounded. Without a listener
//! nothing is recorded.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::PrometheusBuilder;
use scry_wire::message::{RefuseKind, Role};

const FRAMES: &str = "scry_sender_frames_total";
const BYTES: &str = "scry_sender_bytes_total";
const PACKED_BYTES: &str = "scry_sender_packed_bytes_total";
const ROWS: &str = "scry_sender_rows_total";
const QUEUE_BYTES: &str = "scry_sender_queue_bytes";
const THROTTLE_SECONDS: &str = "scry_sender_throttle_wait_seconds";
const RECONNECTS: &str = "scry_sender_reconnects_total";
const REFUSED: &str = "scry_sender_refused_total";
const CONNECTIONS: &str = "scry_sender_connections";
const UPSTREAM: &str = "scry_sender_upstream_connections";

/// Seconds: from a timer's tick to a rate that is too low for its frames.
const THROTTLE_BUCKETS: [f64; 5] = [0.001, 0.01, 0.1, 1.0, 10.0];

/// Starts to record, and to serve the page on `listen`. Call inside the runtime.
pub fn serve(listen: SocketAddr) -> Result<()> {
    let (recorder, exporter) = PrometheusBuilder::new()
        .with_http_listener(listen)
        .set_buckets(&THROTTLE_BUCKETS)
        .context("the buckets of a histogram are not valid")?
        .build()
        .with_context(|| format!("could not listen on {listen} for metrics"))?;
    metrics::set_global_recorder(recorder).context("could not install the metrics recorder")?;
    describe_counter!(FRAMES, "Frames passed on, by direction");
    describe_counter!(BYTES, "Bytes passed on, by direction");
    describe_counter!(PACKED_BYTES, "Bytes that went to the platform in packs, before and after");
    describe_counter!(ROWS, "Rows passed on to the platform");
    describe_gauge!(QUEUE_BYTES, "Bytes of frames held in memory");
    describe_histogram!(THROTTLE_SECONDS, "Times that connections waited for the rate limit");
    describe_counter!(RECONNECTS, "Attempts to reach the platform that were repeated, by cause");
    describe_counter!(REFUSED, "Connections of workers that were refused or ended, by kind");
    describe_gauge!(CONNECTIONS, "Connections of workers, by role");
    describe_gauge!(UPSTREAM, "HTTP/2 connections to the platform");
    tokio::spawn(async move {
        if let Err(error) = exporter.await {
            tracing::error!(?error, "could not serve metrics");
        }
    });
    Ok(())
}

/// Frames went to the platform.
pub fn passed_up(frames: u64, rows: u64, bytes: usize) {
    counter!(FRAMES, "direction" => "up").increment(frames);
    counter!(ROWS).increment(rows);
    counter!(BYTES, "direction" => "up").increment(bytes as u64);
}

/// Bytes of frames became a pack of so many bytes.
pub fn packed(before: usize, after: usize) {
    counter!(PACKED_BYTES, "packing" => "before").increment(before as u64);
    counter!(PACKED_BYTES, "packing" => "after").increment(after as u64);
}

/// A frame, or a piece of one, went to a worker.
pub fn passed_down(begins: bool, bytes: usize) {
    counter!(FRAMES, "direction" => "down").increment(u64::from(begins));
    counter!(BYTES, "direction" => "down").increment(bytes as u64);
}

/// Bytes are held, or no longer.
pub fn queue_bytes_changed(bytes: usize, up: bool) {
    #[allow(clippy::cast_precision_loss)]
    let bytes = bytes as f64;
    if up {
        gauge!(QUEUE_BYTES).increment(bytes);
    } else {
        gauge!(QUEUE_BYTES).decrement(bytes);
    }
}

/// A connection waited for its rate.
pub fn throttled(waited: Duration) {
    histogram!(THROTTLE_SECONDS).record(waited.as_secs_f64());
}

/// An attempt failed and is repeated.
pub fn reconnect(cause: &'static str) {
    counter!(RECONNECTS, "cause" => cause).increment(1);
}

/// A worker was refused.
pub fn refused(kind: RefuseKind) {
    counter!(REFUSED, "kind" => kind_label(kind)).increment(1);
}

/// A process was turned away before it could say anything.
pub fn turned_away(why: &'static str) {
    counter!(REFUSED, "kind" => why).increment(1);
}

/// Counts a worker's connection while it lives.
#[derive(Debug)]
pub struct Connected(&'static str);

impl Connected {
    /// One more connection of this role.
    #[must_use]
    pub fn new(role: Role) -> Self {
        let role = role_label(role);
        gauge!(CONNECTIONS, "role" => role).increment(1);
        Connected(role)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        gauge!(CONNECTIONS, "role" => self.0).decrement(1);
    }
}

/// Counts an HTTP/2 connection while it lives.
#[derive(Debug)]
pub struct Upstream(());

impl Upstream {
    /// One more HTTP/2 connection.
    #[must_use]
    pub fn new() -> Self {
        gauge!(UPSTREAM).increment(1);
        Upstream(())
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        gauge!(UPSTREAM).decrement(1);
    }
}

/// A role as a word.
#[must_use]
pub fn role_label(role: Role) -> &'static str {
    match role {
        Role::Stream => "stream",
        Role::Lead => "lead",
        Role::Copy => "copy",
        Role::Verify => "verify",
    }
}

fn kind_label(kind: RefuseKind) -> &'static str {
    match kind {
        RefuseKind::Auth => "auth",
        RefuseKind::Version => "version",
        RefuseKind::Identity => "identity",
        RefuseKind::Protocol => "protocol",
        RefuseKind::Busy => "busy",
        RefuseKind::Unreachable => "unreachable",
        RefuseKind::Shadow => "shadow",
        RefuseKind::Stopping => "stopping",
    }
}
