//! A replication slot as shared memory shows it. Plain values: the simulation
//! of `tests/simulation` compiles this file too.

use scry_wire::Lsn;

/// What shared memory says of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotInfo {
    /// WAL from here on is kept.
    pub restart_lsn: Lsn,
    /// Everything before has been confirmed.
    pub confirmed_flush_lsn: Lsn,
    /// The server has given up the WAL it needs.
    pub invalidated: bool,
}
