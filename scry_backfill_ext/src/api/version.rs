//! The extension's version in this database, and the library's.
//!
//! A library that was replaced finds the SQL objects of the version before
//! until `ALTER EXTENSION scry_backfill UPDATE` has run: until then nothing is
//! started on them, and that is said.

use super::refusal::Refusal;
use crate::pg::read;

/// The library's version.
pub const LIBRARY: &str = env!("CARGO_PKG_VERSION");

/// The SQL objects of this database must be the library's. Inside a transaction.
pub fn same() -> Result<(), Refusal> {
    const SQL: &str = "SELECT extversion FROM pg_catalog.pg_extension \
                       WHERE extname::pg_catalog.text OPERATOR(pg_catalog.=) 'scry_backfill'";
    match read::one::<String>(SQL, &[])? {
        Some(installed) if installed != LIBRARY => Err(differs(&installed)),
        _ => Ok(()),
    }
}

fn differs(installed: &str) -> Refusal {
    Refusal::not_ready(format!(
        "extension scry_backfill has version {installed} in this database, the server's library has {LIBRARY}"
    ))
    .hint("Run in this database: ALTER EXTENSION scry_backfill UPDATE;")
}
