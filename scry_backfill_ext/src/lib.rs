//! The extension `scry_backfill`: a live shadow of this database.
//!
//! ```text
//! WAL → decode → batch → handoff ──frames──► scry_sender ──► scry_platform ──► shadow
//!                confirm ◄──────────────────
//! ```
#![deny(unsafe_code, ffi_unwind_calls)]

mod api;
mod batch;
mod catalog;
mod confirm;
mod decode;
mod failpoint;
mod guc;
mod handoff;
mod loader;
#[allow(unsafe_code, ffi_unwind_calls)]
mod pg;
mod snapshot;
mod verify;
mod worker;

::pgrx::pg_module_magic!(name, version);

/// Called when the library is loaded: by the postmaster if it stands in
/// `shared_preload_libraries`, else by the session that first needs it.
#[::pgrx::pg_guard]
#[allow(non_snake_case)]
pub extern "C-unwind" fn _PG_init() {
    guc::define();
    pg::entry::install(worker::mains());
    // Without preload too: the slots of earlier jobs are still there.
    pg::drop_guard::install();
    if pg::server::preloading() {
        pg::shared::request();
        pg::xact::register();
        worker::registration::register_launcher();
    }
}
