//! Partitions and children leave their parents.
//!
//! Role: the server looks whether rows refer to those of a partition that leaves, also in a session
//! in which foreign keys are silent. Rows that only the shadow has (of a table that is followed by
//! its inserts, or on hold) must not stop the stream: such keys are dropped and made again, where
//! rows are in the way without a look at them, which is named.

use super::Evolution;
use super::drop;
use super::run::Refused;
use crate::Result;
use scry_wire::catalog::{Catalog, Entry, Object, ObjectId};
use std::collections::BTreeSet;

impl Evolution<'_> {
    /// Lets them leave; returns the foreign keys that were dropped for it.
    pub(super) async fn detach(&mut self) -> Result<Vec<ObjectId>> {
        let mut refused = self.runner.rounds(drop::detaches(&self.changes)).await?;
        let mut loosened = Vec::new();
        if refused.iter().any(|r| r.code == STILL_REFERENCED) {
            let keys = keys_to(self.change.old, &above(self.change.old, &refused));
            loosened = keys.iter().map(|key| key.id()).collect();
            let steps = keys.iter().filter_map(|key| drop::drop_step(key, "make again"));
            self.runner.rounds(steps.collect()).await?;
            refused = self.runner.rounds(refused.into_iter().map(|r| r.step).collect()).await?;
        }
        self.judge(&refused)?;
        Ok(loosened)
    }
}

/// The tables that could not leave, and all above them.
fn above(catalog: &Catalog, refused: &[Refused]) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = refused.iter().map(|r| r.step.object.oid).collect();
    let mut open: Vec<u32> = found.iter().copied().collect();
    while let Some(oid) = open.pop() {
        let table = catalog.objects.iter().find(|object| object.id().is_relation(oid));
        if let Some(Entry::Table(table)) = table.map(|object| &object.entry) {
            open.extend(table.parents.iter().map(|parent| parent.oid).filter(|oid| found.insert(*oid)));
        }
    }
    found
}

fn keys_to<'c>(catalog: &'c Catalog, tables: &BTreeSet<u32>) -> Vec<&'c Object> {
    let refers = |object: &&Object| match &object.entry {
        Entry::Constraint(key) => key.contype == "f" && tables.contains(&key.referenced_oid),
        _ => false,
    };
    catalog.objects.iter().filter(refers).collect()
}

const STILL_REFERENCED: &str = "23503";
