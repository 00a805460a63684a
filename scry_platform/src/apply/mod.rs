//! From frames to the shadow's tables.
//!
//! ```text
//! stream: frames ─► [journal ─► applier, keep] ─► worker ─► course, order ─► writer ─► log ─► rows: statement ─► pipeline ─► shadow
//!                                               │   └─ runs of inserts ─► copy_rows ─► COPY ─┘
//!                                               └─► fold ─► sets: statement over arrays, COPY
//! lead:   catalog ─► lead ─► schema (pre-data) … CopyFinish ─► schema (post-data)
//! copy:   chunk ─► copy ─► COPY + ledger line; a table is complete ─► early (its indexes)
//! schema changes: worker ─► follow ─► schema::evolve, in the open transaction (refill: materialized views over
//!         tables that have no rows yet)
//! tables that cannot be made: lead, follow ─► absent (marked like tables with refused changes)
//! refused changes: writer ─► quarantine (guard: savepoints, row: kept, tell)
//! tables on hold: worker ─► hold (kept) … LateCopy, chunks, CopyFinish ─► hold (drain) ─► writer
//! ```
//!
//! `bounds`, `course`, `order`, `chunk`, `fold` and `copy_rows` are pure; the others speak SQL
//! through a [`crate::shadow::Session`].

pub mod absent;
pub mod applier;
mod bounds;
pub mod chunk;
pub mod conflict;
pub mod copy;
pub mod copy_rows;
pub mod course;
pub mod early;
pub mod fold;
pub mod follow;
pub mod former;
pub mod halt;
pub mod hold;
pub mod keep;
pub mod lead;
pub mod order;
pub mod pipeline;
pub mod quarantine;
mod refill;
pub mod relation_map;
mod run;
pub mod schema;
pub mod sets;
pub mod statement;
pub mod stream;
mod truncate;
pub mod tuple_values;
mod worker;
pub mod writer;

use crate::origin::Origin;
use crate::shadow::Shadow;
use scry_wire::Lsn;
use scry_wire::message::{CopyState, Hello, Welcome};
use scry_wire::version;

/// The answer to a hello, from what the shadow holds.
pub(crate) fn welcome(shadow: &Shadow, hello: &Hello, origin: Option<&Origin>) -> Welcome {
    Welcome {
        version: version::VERSION_MAX.min(hello.version_max),
        applied_lsn: origin.map_or(Lsn::INVALID, |o| o.applied_lsn_of(hello.generation)),
        flushed_lsn: origin.map_or(Lsn::INVALID, |o| o.applied_lsn_of(hello.generation)),
        copy_state: origin.map_or(CopyState::None, |o| o.copy_state_of(hello.generation)),
        generation: origin.map_or(0, |o| o.generation),
        timeline: origin.map_or(0, |o| o.timeline),
        copy_id: origin.map_or(0, |o| o.copy_id),
        takes_stored: false,
        shadow: shadow.database.clone(),
        software: concat!("scry_platform ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}
