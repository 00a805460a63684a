//! Many changes at once: folded by table and key, written as sets.
//!
//! ```text
//! log ─► by table: fold ─► SAVEPOINT ─► deletes, updates, inserts as sets, then what
//!                                       the fold left, in order ─┬─► RELEASE
//!                                                 any failure ───┴─► ROLLBACK TO ─► the log in order
//! ```
//!
//! The tables' changes are independent of each other: foreign keys and
//! triggers are silent in this session. Invariants: a set must touch exactly as
//! many rows as it has keys; where that fails, or a constraint trips on a
//! state that the source never had, or anything else is wrong, the savepoint
//! undoes the sets and the changes are written one by one in their order: that
//! way decides what is a conflict and how it is told. A table whose sets fail
//! again and again is spared them for a while.
//!
//! Sets of updates and deletes are statements over arrays, a column each;
//! inserts are a COPY. Few rows go by the statements for single ones.

use super::fold::{Change, Fold, Old, Sets, Taken};
use super::pipeline::Note;
use super::relation_map::{Kind, Prepared};
use super::statement::Source;
use super::tuple_values::ArrayParam;
use super::writer::Writer;
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::tuple::{Field, Fields};
use std::collections::{BTreeMap, HashMap};

/// Changes that wait to be written together, in their order.
#[derive(Default)]
pub(super) struct Log {
    changes: Vec<(u32, Change)>,
    bytes: usize,
    /// Bytes of the batches that the changes keep alive, and the last of them.
    held: usize,
    batch: (usize, usize),
}

impl Log {
    /// The next change is a slice of this batch.
    pub(super) fn hold(&mut self, batch: &Bytes) {
        let this = (batch.as_ptr().addr(), batch.len());
        if this != self.batch {
            self.batch = this;
            self.held += batch.len();
        }
    }

    /// How many changes wait.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Appends a change; true when the log is full.
    pub(super) fn push(&mut self, relid: u32, change: Change, size: usize) -> bool {
        self.changes.push((relid, change));
        self.bytes += size;
        self.changes.len() >= LOG_ROWS_MAX || self.bytes >= LOG_BYTES_MAX || self.held >= LOG_HELD_MAX
    }
}

/// Whether to fold, and what came of it.
pub(super) struct Folding {
    on: bool,
    shy: HashMap<u32, Shy>,
    blamed: u32,
    fallbacks: u64,
}

/// A table whose sets have failed.
#[derive(Default)]
struct Shy {
    failures: u32,
    /// Runs left in which it is not folded.
    rest: u32,
}

impl Default for Folding {
    fn default() -> Self {
        Folding { on: true, shy: HashMap::new(), blamed: 0, fallbacks: 0 }
    }
}

impl Folding {
    pub(super) fn set_on(&mut self, on: bool) {
        self.on = on;
    }

    pub(super) fn take_fallbacks(&mut self) -> u64 {
        std::mem::take(&mut self.fallbacks)
    }

    /// What is written now, if it fails, is this relation's.
    pub(super) fn blame(&mut self, relid: u32) {
        self.blamed = relid;
    }

    fn failed(&mut self) {
        self.fallbacks += 1;
        if self.shy.len() >= SHY_MAX {
            self.shy.clear();
        }
        let shy = self.shy.entry(self.blamed).or_default();
        shy.failures = (shy.failures + 1).min(REST_MAX);
        shy.rest = 1 << shy.failures;
    }

    /// Whether the table is to be folded in this run.
    fn is_willing(&mut self, relid: u32) -> bool {
        let Some(shy) = self.shy.get_mut(&relid) else { return true };
        let willing = shy.rest == 0;
        shy.rest = shy.rest.saturating_sub(1);
        willing
    }
}

/// The changes of one table.
struct Part {
    relid: u32,
    fold: Option<Fold>,
    /// Places in the log of what follows the fold in order.
    tail: Vec<usize>,
}

impl Writer {
    /// Writes what is logged.
    pub(super) async fn write_log(&mut self) -> Result<()> {
        let changes = std::mem::take(&mut self.log).changes;
        match self.guard.is_on() {
            true => self.write_guarded(&changes).await,
            false => self.write_changes(&changes).await,
        }
    }

    /// Writes changes: many as sets, few in their order.
    pub(super) async fn write_changes(&mut self, changes: &[(u32, Change)]) -> Result<()> {
        if !self.folding.on || changes.len() < FOLD_MIN {
            return self.write_in_order(changes).await;
        }
        self.write_run().await?;
        let Ok(parts) = self.fold(changes).await else {
            // In order it shows what is wrong, and where.
            return self.write_in_order(changes).await;
        };
        self.plain("SAVEPOINT scry_fold", "set a savepoint").await?;
        // What was sent before is not the sets' failure.
        self.drain().await?;
        match self.write_parts(parts, changes).await {
            Ok(()) => self.plain("RELEASE SAVEPOINT scry_fold", "release a savepoint").await,
            Err(error) => self.fall_back(error, changes).await,
        }
    }

    async fn fall_back(&mut self, error: Error, changes: &[(u32, Change)]) -> Result<()> {
        if self.session.is_closed() {
            return Err(error);
        }
        self.forget_sent().await;
        self.conflict = None;
        self.folding.failed();
        tracing::debug!(%error, changes = changes.len(), "sets failed; their changes are written in order");
        let undone =
            self.session.batch_execute("ROLLBACK TO SAVEPOINT scry_fold; RELEASE SAVEPOINT scry_fold");
        // Without its savepoint the transaction is lost: the first cause says why.
        if undone.await.is_err() {
            return Err(error);
        }
        self.write_in_order(changes).await
    }

    async fn write_in_order(&mut self, changes: &[(u32, Change)]) -> Result<()> {
        for (relid, change) in changes {
            self.write(*relid, change).await?;
        }
        Ok(())
    }

    /// The changes by table, in the order of their first ones.
    async fn fold(&mut self, changes: &[(u32, Change)]) -> Result<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        let mut places: HashMap<u32, usize> = HashMap::new();
        let mut last = (0, usize::MAX);
        for (at, (relid, change)) in changes.iter().enumerate() {
            let place = match last {
                (last, place) if last == *relid && place != usize::MAX => place,
                _ => match places.get(relid) {
                    Some(place) => *place,
                    None => {
                        parts.push(self.part(*relid).await?);
                        places.insert(*relid, parts.len() - 1);
                        parts.len() - 1
                    }
                },
            };
            last = (*relid, place);
            let Some(part) = parts.get_mut(place) else { continue };
            let folded = match &mut part.fold {
                Some(fold) if part.tail.is_empty() => fold.take(change)?,
                _ => Taken::Left,
            };
            if folded == Taken::Left {
                part.tail.push(at);
            }
        }
        Ok(parts)
    }

    async fn part(&mut self, relid: u32) -> Result<Part> {
        self.look_up(relid).await?;
        let willing = self.folding.is_willing(relid);
        let target = self.relations.target(relid)?;
        let columns = target.relation.columns.len();
        let fold = target.fold_key.clone().filter(|_| willing).map(|key| Fold::new(columns, key));
        Ok(Part { relid, fold, tail: Vec::new() })
    }

    async fn write_parts(&mut self, parts: Vec<Part>, changes: &[(u32, Change)]) -> Result<()> {
        for part in parts {
            // A run with thousands of tables may have pushed it out meanwhile.
            self.look_up(part.relid).await?;
            if let Some(fold) = part.fold {
                self.write_sets(part.relid, fold.into_sets()).await?;
            }
            for at in part.tail {
                if let Some((relid, change)) = changes.get(at) {
                    self.write(*relid, change).await?;
                }
            }
        }
        self.write_run().await?;
        self.drain().await
    }

    async fn write_sets(&mut self, relid: u32, sets: Sets) -> Result<()> {
        if let Some(rows) = self.write_set(relid, "DELETE", Kind::DeleteSet, sets.deletes).await? {
            for row in rows {
                self.write_delete(relid, &Old::Key(row)).await?;
            }
        }
        let mut by_unchanged: BTreeMap<Vec<bool>, Vec<Bytes>> = BTreeMap::new();
        for row in sets.updates {
            let unchanged = unchanged(&row)?;
            match by_unchanged.get_mut(&unchanged) {
                Some(rows) => rows.push(row),
                None => drop(by_unchanged.insert(unchanged, vec![row])),
            }
        }
        for (unchanged, rows) in by_unchanged {
            if let Some(rows) = self.write_set(relid, "UPDATE", Kind::UpdateSet(unchanged), rows).await? {
                for row in rows {
                    self.write_update(relid, &Old::None, &row).await?;
                }
            }
        }
        if sets.inserts.len() >= SET_MIN {
            self.write_run().await?;
            return self.copy(relid, sets.inserts).await;
        }
        for row in sets.inserts {
            self.write(relid, &Change::Insert(row)).await?;
        }
        Ok(())
    }

    /// Writes the rows as a set, or gives them back when they are few or the
    /// table's types do not allow it.
    async fn write_set(
        &mut self,
        relid: u32,
        operation: &'static str,
        kind: Kind,
        rows: Vec<Bytes>,
    ) -> Result<Option<Vec<Bytes>>> {
        if rows.len() < SET_MIN {
            return Ok(Some(rows));
        }
        self.write_run().await?;
        let Some(prepared) = self.prepare(relid, &kind).await? else { return Ok(Some(rows)) };
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let (params, bytes, taken) = self.arrays(relid, &prepared, rest)?;
            let session = self.session.clone();
            let statement = prepared.statement.clone();
            let flight = async move { session.execute_raw(&statement, params).await };
            let note = Note { relid, operation, rows: Some(taken as u64), key: None };
            self.send(flight, note, bytes).await?;
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(None)
    }

    /// Arrays of as many rows as one statement takes: at least one.
    fn arrays(
        &mut self,
        relid: u32,
        prepared: &Prepared,
        rows: &[Bytes],
    ) -> Result<(Vec<ArrayParam>, usize, usize)> {
        let target = self.relations.target(relid)?;
        let mut slots = vec![None; target.relation.columns.len()];
        let mut arrays = Vec::with_capacity(prepared.params.len());
        for (at, source) in prepared.params.iter().enumerate() {
            let (Source::New(place) | Source::Old(place)) = source;
            let array = target.arrays.get(*place).and_then(Option::as_ref);
            let element = array.ok_or_else(|| Error::protocol("a set of a type without arrays"))?.element;
            arrays.push(ArrayParam::new(element));
            if let Some(slot) = slots.get_mut(*place) {
                *slot = Some(at);
            }
        }
        let (mut bytes, mut taken) = (0, 0);
        for row in rows {
            let mut fields = Fields::new(row)?;
            for slot in &slots {
                let field = fields.next_field()?.unwrap_or(Field::Null);
                if let Some(array) = slot.and_then(|at| arrays.get_mut(at)) {
                    array.push(field)?;
                }
            }
            bytes += row.len();
            taken += 1;
            if taken >= SET_ROWS_MAX || bytes >= SET_BYTES_MAX {
                break;
            }
        }
        Ok((arrays, bytes, taken))
    }
}

/// Which values of the tuple are left out.
fn unchanged(row: &[u8]) -> Result<Vec<bool>> {
    let mut fields = Fields::new(row)?;
    let mut unchanged = Vec::with_capacity(fields.left());
    while let Some(field) = fields.next_field()? {
        unchanged.push(field == Field::Unchanged);
    }
    Ok(unchanged)
}

/// The log is written when it holds this much, also inside a source
/// transaction: a little above a batch, so that batches are written whole.
const LOG_ROWS_MAX: usize = 24_000;
const LOG_BYTES_MAX: usize = 8 << 20;
/// Changes may be small parts of large batches.
const LOG_HELD_MAX: usize = 32 << 20;
/// Fewer changes are written in order: a savepoint costs a round trip.
const FOLD_MIN: usize = 48;
/// Fewer rows of a table go by statements of their own.
const SET_MIN: usize = 32;
/// What one statement takes: the next one is made while it runs.
const SET_ROWS_MAX: usize = 4096;
const SET_BYTES_MAX: usize = 1 << 20;
/// After n failures a table rests for 2^n runs, at most this n.
const REST_MAX: u32 = 6;
const SHY_MAX: usize = 10_000;
