//! Making the source's schema on the shadow.
//!
//! ```text
//! Catalog ──plan──> steps ──create_pre_data──> (rows) ──create_post_data──> a twin
//!                              │                              │
//!                              └──── scry_shadow.schema_step ─┴──drop_all──> empty
//! ```
//!
//! Role: every step is one transaction that also writes the step into the ledger
//! `scry_shadow.schema_step`, so that work begun is taken up after a crash and can be undone.
//! Invariants: each statement is sent alone by the extended protocol, so that no
//! text of the source can bring a second one along; names are quoted in [`quote`]
//! alone; what cannot be made is left out by name; a selected table that cannot be made is
//! [`Absent`], and everything is made as for a document without it.
//! What it does not do: follow DDL in the stream, move rows, grant privileges, set owners.

mod evolve;
mod extensions;
mod ledger;
mod order;
mod plan;
pub mod quote;
mod refusal;
mod render;
mod run;
mod session;

pub use evolve::{DROPPED, Outcome, SchemaChange, drop_later};
pub use plan::{ExtensionNeed, Need, Plan, Privileged, Stage, StageName, Step, plan};
pub use refusal::Absent;
pub use run::{
    PreData, Progress, SchemaError, create_post_data, create_pre_data, drop_all, index_steps, run_steps,
};
