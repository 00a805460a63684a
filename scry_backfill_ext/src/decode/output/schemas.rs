//! What the stream knows of the schema, and whether that may differ from what stands in it.
//!
//! ```text
//! a transaction changes the schema: dirty ─commit─► read, or waiting in the lull ─► read
//! a row older than what was read last: behind ─► read again at its transaction's end
//! ```
//!
//! Reading itself is [`SchemaReader`]'s, writing what was read [`super::Output`]'s.

use std::collections::BTreeSet;
use std::time::Duration;

use scry_wire::{Lsn, SeenBy};

use crate::decode::lull::Lull;
use crate::decode::schema::{Asked, Notes, SchemaReader};
use crate::pg::callbacks::Transaction;
use crate::worker::job::Job;

/// What the stream knows of the schema.
pub struct Schemas {
    pub(super) reader: SchemaReader,
    /// The transaction at hand has changed the schema, or nothing is known of it yet.
    pub(super) dirty: bool,
    /// It has been read for a row that was written before another transaction changed the schema,
    /// which is in the stream already: to be read again at the end of the row's transaction.
    pub(super) behind: bool,
    /// The end of the last transaction whose schema was read.
    pub(super) newest: Lsn,
    /// Changes of it that are read with later ones.
    pub(super) lull: Lull,
    /// What the snapshot of the copied catalog saw, if it was not the slot's own.
    pub(super) seen_by: Option<SeenBy>,
    /// What the next schema must look into.
    pub(super) asked: Asked,
    pub(super) notes: Notes,
    /// Tables on hold for want of a replica identity, as far as this stream has met them.
    pub(super) unidentified: BTreeSet<u32>,
    /// What has been told already.
    pub(super) told: BTreeSet<String>,
}

impl Schemas {
    /// For the job of this row.
    pub fn new(row: &Job) -> Schemas {
        let seen_by = match row.catalog_snapshot.as_deref().map(str::parse).transpose() {
            Ok(seen_by) => seen_by,
            Err(err) => pgrx::error!("could not read the snapshot of the copied catalog: {err}"),
        };
        Schemas {
            reader: SchemaReader::new(row.scope.clone()),
            // A job that goes on may have other options than the shadow knows of.
            dirty: row.mode == "cdc",
            behind: false,
            newest: Lsn::INVALID,
            lull: Lull::default(),
            seen_by,
            asked: Asked::default(),
            notes: Notes::default(),
            unidentified: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    /// Whether the schema may differ from what stands in the stream.
    pub(super) fn waits(&self) -> bool {
        self.dirty || self.behind || self.lull.waits()
    }

    /// Whether it may, for what was written at `at`. Asked of every row.
    #[inline]
    pub(super) fn is_stale(&self, at: Lsn) -> bool {
        self.dirty || self.lull.waits_before(at)
    }

    /// It has been read where `transaction` stands; that took so long.
    pub(super) fn read(&mut self, took: Duration, transaction: &Transaction) {
        let Transaction { at, commit_lsn, .. } = *transaction;
        self.dirty = false;
        let misses_newest = at < self.newest && self.newest < commit_lsn;
        self.behind = misses_newest || (self.behind && at < commit_lsn);
        self.newest = self.newest.max(commit_lsn);
        self.lull.read(took, at);
        let asked = std::mem::take(&mut self.asked);
        if self.lull.waits() {
            // Of tables and views that a transaction has changed which was not seen.
            let Asked { rewritten, refreshed, .. } = asked;
            self.asked = Asked { rewritten, refreshed, ..Asked::default() };
        }
    }
}
