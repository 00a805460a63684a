//! The self-hosted scry-platform endpoint: takes the stream, keeps the shadow.
//!
//! ```text
//!  scry_sender ──HTTP/2──► accept ──frames──► journal ─► apply ──SQL──► shadow PostgreSQL
//!              ◄─Confirm──        ◄─ durable ─┘  └─────  origin ◄──────  scry_shadow.*
//!                          api ◄── shadow (which databases, whose, how far)
//! ```
//!
//! Role: one HTTP/2 request is one connection of a worker in the source's
//! server. `accept` checks who speaks, `apply` writes, `origin` remembers in
//! the shadow itself. Invariants: the position is committed with the changes
//! that lead to it, nothing is confirmed before it is flushed, there or in the
//! journal, and memory is
//! bounded by queues of frames. What it does not do: decode values, decide
//! what is copied, or hold state of its own beside the shadow's: a journal holds
//! changes on their way there.
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::indexing_slicing)
)]

pub mod accept;
pub mod api;
pub mod apply;
pub mod config;
mod error;
pub mod journal;
pub mod metrics;
pub mod origin;
pub mod serve;
pub mod shadow;
mod spool;
pub mod verify;

pub use error::{Error, Result, describe as error_text};
