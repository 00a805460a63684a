//! The fence: everything that speaks to PostgreSQL's C code unguarded.
//!
//! `unsafe` is denied in the whole crate but here. What leaves this folder is
//! safe to call: wrappers check what the server requires (a transaction, a
//! slot, the main thread), hold resources in types that give them back, and
//! turn C's errors into Rust panics at the border (`pg_guard_ffi_boundary`).
//! `SAFETY.md` says why each exception is sound.

pub mod answers;
pub mod callbacks;
pub mod child;
mod compat;
mod constraints;
pub mod copy_in;
pub mod databases;
pub mod decoding;
pub mod disk;
pub mod drop_guard;
pub mod dsm;
pub mod entry;
mod ffi;
pub mod guc_hook;
pub mod historic;
pub mod invalidation;
pub mod latch;
pub mod load;
pub mod message;
pub mod pace_memory;
pub mod peer;
pub mod privileged;
pub mod read;
pub mod relation;
pub mod report;
pub mod row;
pub mod scan;
pub mod sequence;
pub mod server;
pub mod settings;
pub mod shared;
pub mod slot_drop;
pub mod slot_info;
pub mod snapshot;
pub mod subtransaction;
pub mod table_writer;
pub mod touched;
pub mod wal;
pub mod worker;
pub mod xact;
