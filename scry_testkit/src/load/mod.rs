//! Concurrent writers that count their own commits.
//!
//! Each writer has a connection and a random sequence of its own (both follow
//! from the seed), and runs one transaction of its `Workload` after another
//! until it is told to stop. A commit counts when the server confirmed it; a
//! conflict with another writer counts as a rollback; any other error fails
//! the load, unless it was told that the server may go away, in which case the
//! writer connects again.

mod mixed;
mod writer;

pub use mixed::{MIXED_SCHEMA, Mixed};
pub use writer::{Load, LoadOptions, LoadReport, Outcome, Workload};
