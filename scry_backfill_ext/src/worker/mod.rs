//! The extension's own processes, and what they tell each other.

pub mod launcher;
pub mod registration;
pub mod scout;
pub mod sender_child;
pub mod shmem;
pub mod socket;
