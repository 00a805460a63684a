//! The format between scry-backfill's programs.
//!
//! ```text
//! worker (in PostgreSQL) ──frames──► scry_sender ──frames──► scry_platform
//!                        ◄─frames───             ◄─frames───
//! ```
//!
//! Role: what crosses a border is described here once, its writer beside its
//! reader. Flow: a [`message`] is encoded into the payload of a [`frame`]; a
//! reader checks the frame's length and checksum before it looks inside.
//! Invariants: every length is checked against [`limits`] before memory is
//! taken for it; bad input is a typed [`Error`], never a panic.
//! What it does not do: no I/O, no clock, no threads, no `unsafe`.
//!
//! `docs/wire-format.md` is the same format as a page, field by field.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::indexing_slicing)
)]

pub mod catalog;
pub mod codec;
mod error;
pub mod frame;
pub mod hash;
pub mod limits;
mod lsn;
pub mod message;
pub mod one_row;
pub mod pack;
pub mod ranges;
mod seen;
pub mod tuple;
pub mod version;

pub use error::Error;
pub use lsn::Lsn;
pub use seen::SeenBy;
