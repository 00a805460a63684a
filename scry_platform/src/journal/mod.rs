//! The journal: changes on their way from the stream to the shadow.
//!
//! ```text
//! connection ─► border (transactions' ends) ─► store: append ─► segment files
//!                                                │  └─ feed ──► tail ─► applier
//!                                                └─ sync ─► durable position ─► Confirm
//! ```
//!
//! Role: what stands here and is durable is confirmed to the source, whatever
//! the shadow does, so that a shadow that is slow or stopped keeps no WAL in
//! production. A shadow that keeps up costs nothing but the write: it takes the
//! changes from memory, what it has brought to its own disk is confirmed, and segments
//! are removed before anybody has waited for their way to the disk.
//!
//! Invariants:
//! - nothing is called durable before the file, those before it, and the
//!   directory's entry are;
//! - a record is read whole or not at all: each is chained to all before it by
//!   a checksum; what follows the last whole transaction is void;
//! - a segment begins between two transactions and describes the relations
//!   that its changes need: reading begins at any of them;
//! - a connection begins where the last one was confirmed: what was not is
//!   dropped, the source sends it again;
//! - the files are bounded; what does not fit is not read from the source.
//!
//! What it does not do: know the shadow. Its owner tells how far that is.

pub mod border;
mod files;
pub mod segment;
mod settings;
mod store;
mod tail;

pub(crate) use settings::is_disk_short;
pub use settings::{Journals, parse_size};
pub use store::{Appended, Identity, Journal, Opened, Status};
pub(crate) use tail::blocking;
pub use tail::{Event, Tail};

use bytes::Bytes;

/// A place in the journal: segments have growing numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The segment's number.
    pub segment: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// Changes that stand in the journal, or are about to.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where the record begins.
    pub at: Place,
    /// Where it ends.
    pub next: Place,
    /// The chain's checksum behind it.
    pub chain: u32,
    /// Changes, as they stood in a `Batch` frame.
    pub payload: Bytes,
    /// The last change goes on in the next part.
    pub continued: bool,
}
