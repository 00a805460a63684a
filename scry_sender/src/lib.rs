//! The sidecar of scry-backfill: takes frames from workers on a Unix socket
//! and streams them over HTTP/2 to the platform.
//!
//! ```text
//! worker ─► intake ─► queue ─► throttle ─► stream ─► platform
//!        ◄──────────────── confirm ◄─────────────
//! ```
//!
//! Role: one worker's connection is one HTTP/2 request; frames pass as they
//! are, checked on the way, and packed ([`pack`]) where the link is slow.
//! Flow: [`serve`] accepts, [`relay`] runs a connection, [`session`] decides.
//! Invariants: memory is bounded whatever is streamed; the way back never waits
//! for the way up; a full queue stops the worker, and nothing is dropped. What
//! it does not do: it keeps nothing on disk and knows no positions; after any
//! break the worker starts again from the position in its next welcome.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::unwrap_used)
)]

pub mod config;
pub mod confirm;
pub mod error;
pub mod intake;
pub mod metrics;
pub mod pack;
pub mod queue;
pub mod relay;
pub mod scan;
pub mod serve;
pub mod session;
pub mod stream;
pub mod throttle;
