//! The extension's own processes, and what they tell each other.

pub mod shmem;
pub mod socket;
