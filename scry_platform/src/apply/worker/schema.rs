//! A change of the schema, where it stands in the stream: the shadow follows
//! in the open transaction, and tables go on hold with it. How it follows
//! stands in [`crate::apply::follow`].

use super::Worker;
use crate::apply::follow::{Followed, Start};
use crate::apply::hold::HeldTable;
use crate::apply::quarantine::Policy;
use crate::{Error, Result};
use scry_wire::catalog::{Catalog, Class};

impl Worker<'_> {
    /// Another catalog document is in force, and tables go on hold with it.
    pub(super) async fn schema(&mut self, hold: &[u32], document: &[u8]) -> Result<()> {
        if !self.rounds.catalog_saw(self.xid) {
            return self.follow(hold, document).await;
        }
        // The shadow was made from a later one. Tables that are older than that still need what
        // the stream cannot bring.
        let hold: Vec<u32> =
            hold.iter().copied().filter(|relid| !self.rounds.saw(*relid, self.xid)).collect();
        match crate::origin::catalog(&**self.writer.session()).await? {
            Some(document) if !hold.is_empty() => self.follow(&hold, &document).await,
            _ => Ok(()),
        }
    }

    async fn follow(&mut self, hold: &[u32], document: &[u8]) -> Result<()> {
        let bad = |e| Error::protocol(format!("the catalog document in the stream cannot be read: {e}"));
        let catalog: Catalog = serde_json::from_slice(document).map_err(bad)?;
        self.write_kept().await?;
        self.writer.flush().await?;
        self.policy = Policy::of_document(document);
        self.writer.set_policy(self.policy).await?;
        self.writer.transaction(self.xid, self.commit_lsn);
        let before = crate::apply::lead::stored_catalog(self.writer.session())
            .await?
            .ok_or_else(|| Error::protocol("the schema changes, but there is no catalog"))?;
        let (wanted, mut gone) = self.holds_of(hold, &before, &catalog);
        if self.holds.is_copying(&wanted) || self.holds.is_copying(&gone) {
            // Their transactions hold locks on the tables.
            drop(self.shadow.copies.clear().await?);
        }
        let was_absent = self.writer.marks().absent();
        let refreshed = &crate::apply::follow::refreshed(document);
        let start =
            Start { before: &before, emptied: &wanted, absent: &was_absent, refreshed, policy: self.policy };
        let Followed { absent, left_out, later } =
            crate::apply::follow::follow(self.shadow, self.writer.session(), &start, &catalog).await?;
        self.batch.left_out.extend(left_out);
        self.batch.later.extend(later);
        self.writer.forget_targets();
        gone.extend(absent.iter().map(|table| table.relid));
        self.holds.forget(self.writer.session(), &gone).await?;
        let wanted: Vec<u32> = wanted.into_iter().filter(|relid| !gone.contains(relid)).collect();
        for relid in wanted.iter().filter(|relid| was_absent.contains(relid)) {
            self.writer.marks().found(*relid);
        }
        for table in &absent {
            self.writer.marks().miss(table, self.commit_lsn);
        }
        let tables = HeldTable::find(&catalog, &wanted);
        self.holds.begin(self.writer.session(), &tables, self.commit_lsn).await?;
        self.batch.moves_holds |= !tables.is_empty() || !gone.is_empty();
        if !tables.is_empty() {
            tracing::info!(shadow = %self.shadow.database, tables = tables.len(), "tables put on hold");
        }
        self.forget_marks(&catalog).await?;
        crate::origin::store_catalog(&**self.writer.session(), Some(document)).await?;
        // New labels of an enum can be used only after that.
        self.batch.is_urgent = true;
        Ok(())
    }

    /// What was refused of tables that are no longer there is of no use.
    async fn forget_marks(&mut self, after: &Catalog) -> Result<()> {
        let is_there =
            |relid: u32| after.objects.iter().any(|o| o.class == Class::Relation && o.oid == relid);
        let gone: Vec<u32> = self.writer.marks().relids().filter(|relid| !is_there(*relid)).collect();
        for relid in gone {
            self.writer.clear_marks(relid).await?;
        }
        Ok(())
    }

    /// Tables that go on hold by the document that is in force from here on, and those whose hold
    /// ends because they are gone. One that is on hold already and has another shape now begins
    /// anew.
    fn holds_of(&self, wanted: &[u32], before: &Catalog, after: &Catalog) -> (Vec<u32>, Vec<u32>) {
        let entry = |catalog: &Catalog, relid: u32| {
            let found = catalog.objects.iter().find(|o| o.class == Class::Relation && o.oid == relid);
            found.map(|object| object.entry.clone())
        };
        let mut wanted = wanted.to_vec();
        let mut gone = Vec::new();
        for relid in self.holds.relids() {
            match (entry(before, relid), entry(after, relid)) {
                (_, None) => gone.push(relid),
                (Some(old), Some(new)) if crate::apply::lead::is_same_table(&old, &new) => {}
                _ => wanted.push(relid),
            }
        }
        (wanted, gone)
    }
}
