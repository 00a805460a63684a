//! The source's half of `verify()`, in the session that calls it.
//!
//! ```text
//! link ─► Stop, Position: a snapshot here and the same place in the stream there
//!      ─► for each table: hash here while the platform hashes there ─► compare
//!      ─► differ again under another snapshot? ─► which rows
//! ```
//!
//! `place` finds the common position, `table` reads the source's tables, `run`
//! compares and judges. Invariants: a table is locked (`AccessShareLock`) only
//! while it is read; no transaction ID is assigned; every wait can be
//! cancelled. Only what was hashed on both sides at one position is ever
//! called equal.

pub mod link;
pub mod place;
mod ranges;
pub mod run;
pub mod table;
