//! Entry points of launcher and scout, as the postmaster calls them.

use pgrx::{pg_guard, pg_sys};

use crate::worker::{launcher, scout};

/// Entry point of the launcher.
// SAFETY: the name is this extension's own.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn scry_backfill_launcher_main(_argument: pg_sys::Datum) {
    launcher::main();
}

/// Entry point of the scout; the argument is the database's OID.
// SAFETY: the name is this extension's own.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn scry_backfill_scout_main(argument: pg_sys::Datum) {
    if let Ok(database) = u32::try_from(argument.value()) {
        scout::main(database);
    }
}
