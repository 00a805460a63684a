//! Changes tried under savepoints: what is refused is found and kept aside,
//! all else is applied, in exact order.
//!
//! ```text
//! log ─► SAVEPOINT ─► as always (sets, …) ─► every answer ─┬─ good ─► RELEASE
//!                                                          └─ bad ──► ROLLBACK TO, then part by part:
//!   part ─► SAVEPOINT ─► in order ─► every answer ─┬─ good ─► RELEASE, the next part is twice as large
//!                                                  ├─ bad, many ─► ROLLBACK TO, half of it
//!                                                  └─ bad, one ──► ROLLBACK TO, kept, the next part is one
//! ```
//!
//! Only a job with `on_error` = `quarantine` comes this way, and pays a
//! savepoint a log for it. Invariants: a part whose savepoint is released has
//! touched exactly what it should; an error that is no refusal (a full disk, a
//! lost session) ends the transaction as it always does.

use super::row::{Refused, bytes_of};
use super::{Marks, Policy};
use crate::apply::fold::Change;
use crate::apply::sets::Changes;
use crate::apply::writer::Writer;
use crate::{Error, Result};
use scry_wire::Lsn;
use std::sync::Arc;

/// What the writer knows of the job's policy, its marked tables, and of the
/// transactions whose changes wait in the log.
#[derive(Debug, Default)]
pub struct Guard {
    policy: Policy,
    pub(in crate::apply) marks: Marks,
    /// Where in the log each transaction's changes begin.
    begins: Vec<Begun>,
    current: Begun,
}

/// A source transaction.
#[derive(Debug, Default, Clone, Copy)]
struct Begun {
    at: usize,
    xid: u64,
    commit_lsn: Lsn,
}

impl Guard {
    /// Whether refused changes are kept aside.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.policy == Policy::Quarantine
    }

    /// A transaction begins; `logged` changes are of earlier ones.
    fn begin(&mut self, logged: usize, xid: u64, commit_lsn: Lsn) {
        self.current = Begun { at: logged, xid, commit_lsn };
        match self.begins.last_mut() {
            Some(last) if last.at == logged => *last = self.current,
            _ => self.begins.push(self.current),
        }
    }

    /// The transactions of the log that is taken now; the open one goes on in
    /// the next log.
    fn take_begins(&mut self) -> Vec<Begun> {
        self.current.at = 0;
        std::mem::replace(&mut self.begins, vec![self.current])
    }
}

impl Writer {
    /// What is done with refused changes, from here on.
    pub async fn set_policy(&mut self, policy: Policy) -> Result<()> {
        if self.guard.policy != policy {
            // What is logged was sent under the other one.
            self.flush().await?;
            self.guard.policy = policy;
        }
        Ok(())
    }

    /// The changes that follow are of this transaction.
    pub fn transaction(&mut self, xid: u64, commit_lsn: Lsn) {
        let logged = self.log.len();
        if self.guard.is_on() {
            self.guard.begin(logged, xid, commit_lsn);
        } else {
            self.guard.current = Begun { at: logged, xid, commit_lsn };
        }
    }

    /// The marked tables.
    pub fn marks(&mut self) -> &mut Marks {
        &mut self.guard.marks
    }

    /// Reads the marks anew: somebody else has cleared some, or a transaction
    /// that changed them was rolled back.
    pub async fn reload_marks(&mut self) -> Result<()> {
        self.guard.marks.reload(&**self.session.clone()).await
    }

    /// Forgets what is kept of a table, in the open transaction: it is a copy
    /// of the source's from here on. Nothing may be under way.
    pub async fn clear_marks(&mut self, relid: u32) -> Result<()> {
        let session = self.session.clone();
        self.guard.marks.clear(&**session, &[relid]).await
    }

    /// Writes the marks of the open transaction.
    pub(in crate::apply) async fn write_marks(&mut self) -> Result<()> {
        if self.guard.marks.unwritten.is_empty() {
            return Ok(());
        }
        self.drain().await?;
        let session = self.session.clone();
        self.guard.marks.write(&**session).await
    }

    /// Whether the table has diverged or is not here: its change is counted, and that is all.
    pub(in crate::apply) fn passes_over(&mut self, relid: u32) -> bool {
        let passes = self.guard.marks.is_diverged(relid);
        if passes {
            self.guard.marks.pass_over(relid, self.guard.current.commit_lsn);
        }
        passes
    }

    /// Writes changes; those that are refused are kept aside.
    pub(in crate::apply) async fn write_guarded(&mut self, changes: Arc<Changes>) -> Result<()> {
        let begins = self.guard.take_begins();
        if changes.is_empty() {
            return Ok(());
        }
        self.set_guard().await?;
        let whole = match self.write_changes(changes.clone()).await {
            Ok(()) => self.settle_guard().await,
            Err(error) => Err(error),
        };
        match whole {
            Ok(()) => Ok(()),
            Err(error) => {
                self.undo_to_guard(error).await?;
                self.write_parts_guarded(&changes, &begins).await
            }
        }
    }

    async fn write_parts_guarded(&mut self, changes: &[(u32, Change)], begins: &[Begun]) -> Result<()> {
        let (mut at, mut size) = (0, (changes.len() / 2).max(1));
        while let Some(rest) = changes.get(at..).filter(|rest| !rest.is_empty()) {
            let part = rest.get(..size).unwrap_or(rest);
            self.set_guard().await?;
            match self.write_part(part).await {
                Ok(()) => {
                    self.count_passed_over(part, at, begins);
                    at += part.len();
                    size = part.len() * 2;
                }
                Err(error) => {
                    let error = self.undo_to_guard(error).await?;
                    match part {
                        [(relid, change)] => {
                            self.put_aside(*relid, Some(change), origin(begins, at), &error).await?;
                            at += 1;
                        }
                        _ => size = part.len() / 2,
                    }
                }
            }
        }
        Ok(())
    }

    /// Changes in order, but for tables that have diverged.
    async fn write_part(&mut self, part: &[(u32, Change)]) -> Result<()> {
        for (relid, change) in part {
            if !self.guard.marks.is_diverged(*relid) {
                self.write(*relid, change).await?;
            }
        }
        self.settle_guard().await
    }

    fn count_passed_over(&mut self, part: &[(u32, Change)], at: usize, begins: &[Begun]) {
        for (place, (relid, _)) in part.iter().enumerate() {
            if self.guard.marks.is_diverged(*relid) {
                self.guard.marks.pass_over(*relid, origin(begins, at + place).commit_lsn);
            }
        }
    }

    /// Empties tables, each for itself where they cannot be emptied together.
    pub(in crate::apply) async fn truncate_guarded(&mut self, relids: &[u32]) -> Result<()> {
        let Err(error) = self.try_truncate(relids).await else { return Ok(()) };
        let error = self.undo_to_guard(error).await?;
        if let [relid] = relids {
            return self.put_aside(*relid, None, self.guard.current, &error).await;
        }
        for relid in relids {
            if let Err(error) = self.try_truncate(&[*relid]).await {
                let error = self.undo_to_guard(error).await?;
                self.put_aside(*relid, None, self.guard.current, &error).await?;
            }
        }
        Ok(())
    }

    async fn try_truncate(&mut self, relids: &[u32]) -> Result<()> {
        self.set_guard().await?;
        self.truncate_now(relids).await?;
        self.settle_guard().await
    }

    async fn set_guard(&mut self) -> Result<()> {
        self.plain("SAVEPOINT scry_guard", "set a savepoint").await
    }

    /// Every answer is good: the savepoint goes.
    async fn settle_guard(&mut self) -> Result<()> {
        self.write_run().await?;
        self.drain().await?;
        self.plain("RELEASE SAVEPOINT scry_guard", "release a savepoint").await
    }

    /// Undoes what a refusal has spoiled and gives the refusal back; any other
    /// error stays one. A savepoint that is not there was never reached: then
    /// something before it has failed.
    async fn undo_to_guard(&mut self, error: Error) -> Result<Error> {
        if self.session.is_closed() || !error.is_refusal() {
            return Err(error);
        }
        self.forget_sent().await;
        self.take_conflict();
        let undone =
            self.session.batch_execute("ROLLBACK TO SAVEPOINT scry_guard; RELEASE SAVEPOINT scry_guard");
        if undone.await.is_err() { Err(error) } else { Ok(error) }
    }

    /// Keeps a refused change aside and marks its table.
    async fn put_aside(
        &mut self,
        relid: u32,
        change: Option<&Change>,
        begun: Begun,
        error: &Error,
    ) -> Result<()> {
        let session = self.session.clone();
        let relation =
            self.relations.relation(relid).cloned().ok_or_else(|| {
                Error::protocol(format!("relation {relid} is changed before it is described"))
            })?;
        let bytes = bytes_of(change) as u64;
        if !self.guard.marks.refused(&relation, begun.commit_lsn, bytes, error.to_string()) {
            return Ok(());
        }
        let types = self.relations.target(relid).ok().map(|target| target.types.clone());
        if error.is_of_table() {
            // Somebody may change it by hand, and then it is to be looked up again.
            self.relations.forget_target(relid);
        }
        let refused = Refused {
            relation: &relation,
            types: types.as_deref(),
            operation: match change {
                None => "TRUNCATE",
                Some(Change::Insert(_)) => "INSERT",
                Some(Change::Update(..)) => "UPDATE",
                Some(Change::Delete(_)) => "DELETE",
            },
            change,
            xid: begun.xid,
            commit_lsn: begun.commit_lsn,
            error,
        };
        refused.keep(&session).await
    }
}

/// The transaction of the change at this place of the log.
fn origin(begins: &[Begun], at: usize) -> Begun {
    let after = begins.partition_point(|begun| begun.at <= at);
    begins.get(after.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_whose_a_logged_change_is() {
        let mut guard = Guard::default();
        guard.begin(0, 7, Lsn(70));
        guard.begin(3, 8, Lsn(80));
        // A transaction without a change of its own.
        guard.begin(5, 9, Lsn(90));
        guard.begin(5, 10, Lsn(100));
        let begins = guard.take_begins();
        let xids: Vec<u64> = (0..7).map(|at| origin(&begins, at).xid).collect();
        assert_eq!(xids, [7, 7, 7, 8, 8, 10, 10]);
        // The open transaction goes on in the next log.
        let begins = guard.take_begins();
        assert_eq!((origin(&begins, 0).xid, origin(&begins, 0).commit_lsn), (10, Lsn(100)));
        assert_eq!(origin(&[], 3).xid, 0);
    }
}
