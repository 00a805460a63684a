//! Many changes at once: folded by table and key, written as sets.
//!
//! ```text
//! log ─► by table: fold ─► [the sets before are settled] ─► SAVEPOINT ─► deletes, updates, few inserts
//!                                                  as sets: under way
//! settle, when the next log is folded or anything else is to be sent:
//!     every answer ─► many inserts (COPY), what the fold left, in order ─┬─► RELEASE
//!                                                         any failure ───┴─► ROLLBACK TO ─► the log in order
//! ```
//!
//! While the shadow works on one log's sets the next log is read and folded. The first log of a
//! transaction needs no savepoint: where it fails, the transaction is begun anew.
//!
//! The tables' changes are independent of each other: foreign keys and
//! triggers are silent in this session. Invariants: a set must touch exactly as
//! many rows as it has keys; where that fails, or a constraint trips on a
//! state that the source never had, or anything else is wrong, the savepoint
//! undoes the sets and the changes are written one by one in their order: that
//! way decides what is a conflict and how it is told. A table whose sets fail
//! again and again is spared them for a while.
//!
//! Sets are statements over arrays, a column each; many inserts are a COPY. Few rows go by the
//! statements for single ones.

use super::fold::{Change, Fold, Old, Sets, Taken};
use super::pipeline::Note;
use super::relation_map::{Kind, Prepared};
use super::run::is_for_copy;
use super::statement::{RowColumn, SetTypes, Source};
use super::tuple_values::ArrayParam;
use super::writer::Writer;
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::tuple::{Field, Fields};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

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

/// Sets that were sent, and whose answers are not all known.
pub(super) struct UnderWay {
    changes: Arc<Changes>,
    /// What follows the answers.
    rest: Vec<Rest>,
    undo: Undo,
}

/// What of a table's changes follows its sets. A COPY is not sent behind what may fail: one that the
/// server refuses because of that leaves the driver out of step with it.
struct Rest {
    relid: u32,
    inserts: Vec<Bytes>,
    /// Places in the log.
    tail: Vec<usize>,
}

/// Changes in their order, each with its relation.
pub(super) type Changes = Vec<(u32, Change)>;

/// How sets are undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undo {
    /// By their savepoint.
    Savepoint,
    /// With the transaction: there is nothing else in it.
    Transaction,
}

impl Part {
    /// Whether anything of it is worth a set.
    fn has_set(&self) -> bool {
        self.fold.as_ref().is_some_and(|fold| fold.len() >= SET_MIN) || self.tail.len() >= SET_MIN
    }
}

impl Writer {
    /// Writes what is logged; its last answers may be awaited later.
    pub(super) async fn write_log(&mut self) -> Result<()> {
        let changes = Arc::new(std::mem::take(&mut self.log).changes);
        match self.guard.is_on() {
            true => self.write_guarded(changes).await,
            false => self.write_changes(changes).await,
        }
    }

    /// Writes changes: many as sets, few in their order.
    pub(super) async fn write_changes(&mut self, changes: Arc<Changes>) -> Result<()> {
        if !self.folding.on || changes.len() < FOLD_MIN {
            return self.write_in_order(&changes).await;
        }
        let parts = match self.fold(&changes).await {
            Ok(parts) if parts.iter().any(Part::has_set) => parts,
            // Nothing to be gained; or what is wrong, and where, is shown in order.
            _ => return self.write_in_order(&changes).await,
        };
        self.write_run().await?;
        // What was sent before is not the sets' failure.
        self.drain_unless_untouched().await?;
        let undo = match std::mem::take(&mut self.untouched) {
            true => Undo::Transaction,
            false => {
                self.plain("SAVEPOINT scry_fold", "set a savepoint").await?;
                Undo::Savepoint
            }
        };
        match self.write_parts(parts).await {
            Ok(rest) => {
                self.under_way = Some(UnderWay { changes, rest, undo });
                Ok(())
            }
            Err(error) => self.fall_back(error, &changes, undo).await,
        }
    }

    /// Waits for the answers of the sets that are under way, and writes what follows them; their
    /// changes are written in order if anything of it is bad.
    pub(super) async fn settle_sets(&mut self) -> Result<()> {
        match self.under_way.take() {
            None => Ok(()),
            // What follows the sets comes this way again, with nothing under way.
            Some(under_way) => Box::pin(self.settle(under_way)).await,
        }
    }

    async fn settle(&mut self, under_way: UnderWay) -> Result<()> {
        let UnderWay { changes, rest, undo } = under_way;
        let written = match self.land().await {
            Ok(()) => self.write_rest(rest, &changes).await,
            failed => failed,
        };
        match written {
            Ok(()) if undo == Undo::Transaction => Ok(()),
            Ok(()) => self.plain("RELEASE SAVEPOINT scry_fold", "release a savepoint").await,
            Err(error) => self.fall_back(error, &changes, undo).await,
        }
    }

    async fn fall_back(&mut self, error: Error, changes: &Changes, undo: Undo) -> Result<()> {
        if self.session.is_closed() {
            return Err(error);
        }
        self.forget_sent().await;
        self.conflict = None;
        self.folding.failed();
        tracing::debug!(%error, changes = changes.len(), "sets failed; their changes are written in order");
        let undone = self.session.batch_execute(match undo {
            Undo::Savepoint => "ROLLBACK TO SAVEPOINT scry_fold; RELEASE SAVEPOINT scry_fold",
            Undo::Transaction => "ROLLBACK; BEGIN",
        });
        // Without its savepoint the transaction is lost: the first cause says why.
        if undone.await.is_err() {
            return Err(error);
        }
        self.write_in_order(changes).await?;
        // Whoever waits for the sets, or sends something else now, has written its own run before.
        self.write_run().await
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
            if at % CHANGES_AT_ONCE == CHANGES_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
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

    /// Sends the sets; what is to follow their answers.
    async fn write_parts(&mut self, parts: Vec<Part>) -> Result<Vec<Rest>> {
        let mut rest = Vec::new();
        for part in parts {
            // A run with thousands of tables may have pushed it out meanwhile.
            self.look_up(part.relid).await?;
            let mut inserts = Vec::new();
            if let Some(fold) = part.fold {
                inserts = self.write_sets(part.relid, fold.into_sets()).await?;
            }
            let bytes = inserts.iter().map(Bytes::len).sum();
            if part.tail.is_empty() && !is_for_copy(inserts.len(), bytes) {
                for row in inserts.drain(..) {
                    self.write(part.relid, &Change::Insert(row)).await?;
                }
            }
            if !(inserts.is_empty() && part.tail.is_empty()) {
                rest.push(Rest { relid: part.relid, inserts, tail: part.tail });
            }
        }
        self.write_run().await?;
        Ok(rest)
    }

    async fn write_rest(&mut self, rest: Vec<Rest>, changes: &Changes) -> Result<()> {
        for Rest { relid, inserts, tail } in rest {
            for row in inserts {
                self.write(relid, &Change::Insert(row)).await?;
            }
            for at in tail {
                if let Some((relid, change)) = changes.get(at) {
                    self.write(*relid, change).await?;
                }
            }
        }
        self.write_run().await?;
        self.land().await
    }

    /// Deletes and updates as sets; the inserts come back.
    async fn write_sets(&mut self, relid: u32, sets: Sets) -> Result<Vec<Bytes>> {
        self.write_run().await?;
        if let Some(rows) = self.send_set(relid, "DELETE", Kind::DeleteSet, sets.deletes).await? {
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
            if let Some(rows) = self.send_set(relid, "UPDATE", Kind::UpdateSet(unchanged), rows).await? {
                for row in rows {
                    self.write_update(relid, &Old::None, &row).await?;
                }
            }
        }
        Ok(sets.inserts)
    }

    /// Sends the rows as a set, or gives them back when they are few or the
    /// table's types do not allow it. No run may wait.
    pub(super) async fn send_set(
        &mut self,
        relid: u32,
        operation: &'static str,
        kind: Kind,
        rows: Vec<Bytes>,
    ) -> Result<Option<Vec<Bytes>>> {
        if rows.len() < SET_MIN {
            return Ok(Some(rows));
        }
        let Some(prepared) = self.prepare(relid, &kind).await? else { return Ok(Some(rows)) };
        let mut rest = rows.as_slice();
        while !rest.is_empty() {
            let (params, bytes, taken) = self.arrays(relid, &prepared, rest)?;
            let session = self.session.clone();
            let statement = prepared.statement.clone();
            let flight = async move { session.execute_raw(&statement, params).await };
            let note = Note::rows(relid, operation, Some(taken as u64));
            self.send(flight, note, bytes).await?;
            rest = rest.get(taken..).unwrap_or_default();
            if !rest.is_empty() {
                tokio::task::yield_now().await;
            }
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
        let mut filling = Filling::new(&target.set_types, prepared)?;
        let (mut bytes, mut taken) = (0, 0);
        for row in rows {
            filling.push(row)?;
            bytes += row.len();
            taken += 1;
            if taken >= SET_ROWS_MAX || bytes >= SET_BYTES_MAX {
                break;
            }
        }
        Ok((filling.arrays, bytes, taken))
    }
}

/// Arrays that are being filled with tuples.
struct Filling<'a> {
    arrays: Vec<ArrayParam>,
    /// The array that a place of the tuple goes to.
    slots: Vec<Option<usize>>,
    /// Whole rows of these columns are sent.
    rows: Option<&'a [RowColumn]>,
}

impl<'a> Filling<'a> {
    fn new(types: &'a SetTypes, prepared: &Prepared) -> Result<Self> {
        let mut slots = vec![None; types.arrays.len()];
        let mut arrays = Vec::with_capacity(prepared.params.len());
        let mut rows = None;
        for (at, source) in prepared.params.iter().enumerate() {
            let element = match source {
                Source::Row => {
                    rows = Some(types.columns.as_slice());
                    types.row
                }
                Source::New(place) | Source::Old(place) => {
                    if let Some(slot) = slots.get_mut(*place) {
                        *slot = Some(at);
                    }
                    let array = types.arrays.get(*place).and_then(Option::as_ref);
                    array.ok_or_else(|| Error::protocol("a set of a type without arrays"))?.element
                }
            };
            arrays.push(ArrayParam::new(element));
        }
        Ok(Filling { arrays, slots, rows })
    }

    fn push(&mut self, row: &[u8]) -> Result<()> {
        let mut fields = Fields::new(row)?;
        if let (Some(columns), Some(array)) = (self.rows, self.arrays.first_mut()) {
            return array.push_row(&mut fields, columns);
        }
        for slot in &self.slots {
            let field = fields.next_field()?.unwrap_or(Field::Null);
            if let Some(array) = slot.and_then(|at| self.arrays.get_mut(at)) {
                array.push(field)?;
            }
        }
        Ok(())
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
const LOG_ROWS_MAX: usize = 64_000;
const LOG_BYTES_MAX: usize = 20 << 20;
/// Changes may be small parts of large batches.
const LOG_HELD_MAX: usize = 40 << 20;
/// After so many changes the other tasks of this thread come to their turn: the connection has more to
/// read, the session more to send.
pub(super) const CHANGES_AT_ONCE: usize = 512;
/// Fewer changes are written in order.
const FOLD_MIN: usize = 8;
/// Fewer rows of a table go by statements of their own.
pub(super) const SET_MIN: usize = 4;
/// What one statement takes: the next one is made while it runs.
const SET_ROWS_MAX: usize = 4096;
const SET_BYTES_MAX: usize = 1 << 20;
/// After n failures a table rests for 2^n runs, at most this n.
const REST_MAX: u32 = 6;
const SHY_MAX: usize = 10_000;
