//! The extension's own processes, and what they tell each other.

pub mod adaptive;
pub mod copier;
pub mod guard;
pub mod job;
pub mod late;
pub mod launcher;
pub mod leader;
pub mod meter;
pub mod pace;
pub mod registration;
pub mod scout;
pub mod sender_child;
pub mod session;
pub mod shmem;
pub mod socket;
pub mod state;
pub mod stream;
pub mod wal_level;

use crate::pg::entry::Mains;

/// What the postmaster starts.
pub fn mains() -> Mains {
    Mains {
        launcher: launcher::main,
        scout: scout::main,
        stream: stream::main,
        leader: leader::main,
        copier: copier::main,
    }
}
