//! Tables on hold, as the stream meets them: their changes are kept, and holds
//! that can end are ended between two shadow transactions. What a hold is
//! stands in [`crate::apply::hold`].

use super::Worker;
use crate::apply::hold::{Hold, drain};
use crate::{Error, Result, metrics};
use scry_wire::message::change::ChangeWriter;

impl Worker<'_> {
    /// Keeps a change of a table on hold.
    pub(super) async fn keep(&mut self, relid: u32, whole: &[u8]) -> Result<()> {
        let mut parts = whole.chunks(KEPT_PART).peekable();
        while let Some(part) = parts.next() {
            let relation = self.writer.relation(relid).ok_or_else(|| {
                Error::protocol(format!("relation {relid} is changed before it is described"))
            })?;
            if self.holds.kept.keep(self.xid, relation, part, parts.peek().is_none()) {
                self.write_kept().await?;
            }
        }
        Ok(())
    }

    pub(super) async fn write_kept(&mut self) -> Result<()> {
        let Some(columns) = self.holds.kept.take() else { return Ok(()) };
        let label = self.shadow.database.clone();
        ::metrics::counter!(metrics::CHANGES_KEPT, "shadow" => label).increment(columns.bytes as u64);
        self.writer.keep(columns).await
    }

    /// Empties tables; for those on hold this is a change like any other.
    pub(super) async fn truncate(&mut self, flags: u8, mut relids: Vec<u32>) -> Result<()> {
        let held: Vec<u32> = relids.extract_if(.., |relid| self.holds.contains(*relid)).collect();
        for relid in held {
            let mut whole = Vec::new();
            ChangeWriter::new(&mut whole).truncate(flags, &[relid]);
            self.keep(relid, &whole).await?;
        }
        self.writer.truncate(&relids).await
    }

    /// Looks how far late copies are, and ends the holds that can end.
    pub(super) async fn tend_holds(&mut self) -> Result<()> {
        if self.course.in_transaction() || self.batch.since.is_some() {
            return Ok(());
        }
        if self.marks_news.has_changed().unwrap_or(false) {
            self.marks_news.mark_unchanged();
            self.writer.reload_marks().await?;
            self.tell().await?;
        }
        if self.hold_news.has_changed().unwrap_or(false) {
            self.hold_news.mark_unchanged();
            self.holds.reload(self.writer.session()).await?;
        }
        while let Some(hold) = self.holds.due(self.course.applied()) {
            let (generation, position) = (self.generation, self.course.applied());
            match drain::drain(&mut self.writer, &mut self.holds, &hold, generation, position).await {
                Ok(rows) => {
                    tracing::info!(shadow = %self.shadow.database, relid = hold.relid, rows, "late copy complete");
                    crate::apply::follow::after_hold(self.writer.session(), hold.relid).await?;
                }
                Err(error) => self.give_back(&hold, error).await?,
            }
            self.shadow.holds_changed();
            self.count_holds();
        }
        Ok(())
    }

    /// What was kept cannot be applied: the table is copied again. An error of
    /// the shadow itself, which another copy would not mend, is the stream's.
    async fn give_back(&mut self, hold: &Hold, error: Error) -> Result<()> {
        if self.writer.session().is_closed() {
            return Err(error);
        }
        self.writer.roll_back().await;
        self.writer.take_conflict();
        self.writer.reload_marks().await?;
        tracing::warn!(shadow = %self.shadow.database, relid = hold.relid, %error, "kept changes cannot be applied");
        drain::give_back(self.writer.session(), hold, &error.to_string()).await?;
        self.holds.reload(self.writer.session()).await
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
    fn count_holds(&self) {
        let label = self.shadow.database.clone();
        ::metrics::gauge!(metrics::TABLES_HELD, "shadow" => label).set(self.holds.len() as f64);
    }
}

/// A change is kept in parts of this, so that a large one is not held twice.
const KEPT_PART: usize = 1 << 20;
