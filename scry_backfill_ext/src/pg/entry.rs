//! The functions by which the postmaster starts the workers.
//!
//! The server finds a background worker's main function by its symbol; the
//! symbols are here, what they run is installed by `_PG_init`.

use std::sync::OnceLock;

use pgrx::{pg_guard, pg_sys};

/// What the workers run. Each takes the worker's argument.
pub struct Mains {
    /// The launcher; no argument.
    pub launcher: fn(usize),
    /// A scout; the database.
    pub scout: fn(usize),
    /// A job's stream worker; the job's place in shared memory.
    pub stream: fn(usize),
    /// A job's snapshot leader; the job's place in shared memory.
    pub leader: fn(usize),
    /// A snapshot worker; the job's place times 256 plus the worker's number.
    pub copier: fn(usize),
}

static MAINS: OnceLock<Mains> = OnceLock::new();

/// Says what the workers run.
pub fn install(mains: Mains) {
    // A second load of the library in one process installs the same again.
    let _ = MAINS.set(mains);
}

fn run(argument: pg_sys::Datum, main: impl FnOnce(&Mains) -> fn(usize)) {
    match MAINS.get() {
        Some(mains) => main(mains)(argument.value()),
        None => pgrx::error!("the library scry_backfill has not been initialised"),
    }
}

/// Main function of the launcher.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn scry_backfill_launcher_main(argument: pg_sys::Datum) {
    run(argument, |mains| mains.launcher);
}

/// Main function of scouts.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn scry_backfill_scout_main(argument: pg_sys::Datum) {
    run(argument, |mains| mains.scout);
}

/// Main function of stream workers.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn scry_backfill_stream_main(argument: pg_sys::Datum) {
    run(argument, |mains| mains.stream);
}

/// Main function of snapshot leaders.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn scry_backfill_leader_main(argument: pg_sys::Datum) {
    run(argument, |mains| mains.leader);
}

/// Main function of snapshot workers.
#[unsafe(no_mangle)]
#[pg_guard]
pub extern "C-unwind" fn scry_backfill_copier_main(argument: pg_sys::Datum) {
    run(argument, |mains| mains.copier);
}
