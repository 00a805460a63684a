//! Errors of the server, raised by us.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode};

/// Raises an ERROR.
pub fn raise(code: PgSqlErrorCode, message: String) -> ! {
    ErrorReport::new(code, message, "scry_backfill").report(PgLogLevel::ERROR);
    unreachable!("an error has been raised")
}
