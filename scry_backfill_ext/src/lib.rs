//! The extension `scry_backfill`: a live shadow of this database.
//!
//! ```text
//! WAL → decode → batch → handoff ──frames──► scry_sender ──► scry_platform ──► shadow
//!                confirm ◄──────────────────
//! ```
#![deny(unsafe_code, ffi_unwind_calls)]

#[allow(unsafe_code, ffi_unwind_calls)]
mod pg;
mod worker;

::pgrx::pg_module_magic!(name, version);
