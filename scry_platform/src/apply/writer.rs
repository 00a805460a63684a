//! Writes changes to the shadow, inside one open transaction.
//!
//! ```text
//! insert, update, delete ─► log ─┬─ many ─► sets (fold; in their own order if a set fails)
//!   (large rows pass it by)      └─ few ──► in order:
//! insert ─► run of rows of one table ─┬─ long or large ─► COPY
//!                                     └─ short ─► statements ─┐
//! update, delete, truncate, sequence ─────────────────────────┴► pipeline ─► shadow
//! commit: log ─► position ─┬─ single rows, held to that by the server ─► COMMIT, drain
//!                          └─ else ─► drain ─► COMMIT
//! ```
//!
//! Invariants: what the shadow holds at COMMIT is what the changes make of it
//! in their order (a run is written before anything else is sent, the log
//! before what passes it by); every answer is checked before COMMIT is sent, or what it would be checked
//! for is seen to by the server (decision 32); an update or delete that does not touch exactly one row ends
//! the transaction. Memory: the log, a run and the pipeline, all bounded; a single large row passes in
//! slices where COPY takes it.

use super::conflict::ConflictNote;
use super::fold::{Change, Old};
use super::pipeline::{Miss, Note, Pipeline};
use super::quarantine::guard::Guard;
use super::relation_map::{Kind, Prepared, RelationMap, Target};
use super::run::Run;
use super::sets::{Folding, Log, UnderWay};
use super::statement::{Finder, Source};
use super::tuple_values::{Param, Value, check_whole, cut};
use crate::origin;
use crate::shadow::{Session, loader};
use crate::{Error, Result};
use bytes::Bytes;
use scry_wire::Lsn;
use scry_wire::message::change::{OldTuple, Sequence};
use scry_wire::message::{Format, Relation};
use scry_wire::one_row::MARK;
use std::sync::Arc;
use tokio_postgres::types::{PgLsn, ToSql};

/// Writes to one shadow through one session.
pub struct Writer {
    pub(super) session: Arc<Session>,
    pub(super) relations: RelationMap,
    pub(super) pipeline: Pipeline,
    pub(super) log: Log,
    pub(super) folding: Folding,
    pub(super) run: Run,
    open: bool,
    /// The server fails statements that do not touch their one row.
    holds: bool,
    /// The open transaction has no statement whose answer must be seen before COMMIT.
    held: bool,
    /// The open transaction holds nothing yet.
    pub(super) untouched: bool,
    pub(super) under_way: Option<UnderWay>,
    heavy: bool,
    pub(super) conflict: Option<ConflictNote>,
    pub(super) guard: Guard,
    advance: tokio_postgres::Statement,
    /// The source's timeline; 0 where nobody has said it.
    timeline: i64,
    setval: tokio_postgres::Statement,
    kept: Option<tokio_postgres::Statement>,
}

impl Writer {
    /// A writer on a fresh session.
    pub async fn new(session: Session, relations: RelationMap) -> Result<Self> {
        let cannot = || Error::sql("prepare the position's statement");
        let advance = session.prepare(&format!("{MARK}{}", origin::ADVANCE)).await.map_err(cannot())?;
        let setval = session.prepare(SETVAL).await.map_err(cannot())?;
        let holds = loader::serves_applier(&session).await?;
        Ok(Writer {
            session: Arc::new(session),
            relations,
            pipeline: Pipeline::default(),
            log: Log::default(),
            folding: Folding::default(),
            run: Run::default(),
            open: false,
            holds,
            held: false,
            untouched: false,
            under_way: None,
            heavy: false,
            conflict: None,
            guard: Guard::default(),
            advance,
            timeline: 0,
            setval,
            kept: None,
        })
    }

    /// What is written from here on comes from this timeline of the source.
    #[must_use]
    pub fn on_timeline(mut self, timeline: u32) -> Self {
        self.set_timeline(timeline);
        self
    }

    /// As [`on_timeline`](Self::on_timeline), in the middle.
    pub fn set_timeline(&mut self, timeline: u32) {
        self.timeline = timeline.into();
    }

    /// Gives the relations back, for another session.
    #[must_use]
    pub fn into_relations(mut self) -> RelationMap {
        self.relations.forget_targets();
        self.relations
    }

    /// Forgets what was looked up of the shadow's tables: they have changed.
    pub fn forget_targets(&mut self) {
        self.relations.forget_targets();
    }

    /// Takes the relations of an earlier writer.
    pub fn adopt(&mut self, relations: RelationMap) {
        self.relations = relations;
    }

    /// Runs a statement that takes a lock, outside of a transaction.
    pub async fn lock(&mut self, sql: &str) -> Result<()> {
        self.session.batch_execute(sql).await.map_err(Error::sql("wait for the shadow's earlier writer"))
    }

    /// Whether a large value has left its mark on the driver's buffers: the
    /// session should be replaced when no transaction is open.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        self.heavy
    }

    /// The conflict that ended the transaction, if one did.
    pub fn take_conflict(&mut self) -> Option<ConflictNote> {
        self.conflict.take()
    }

    /// The session, for statements between changes: after [`flush`](Self::flush).
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The relation as the stream has described it last.
    #[must_use]
    pub fn relation(&self, relid: u32) -> Option<&Relation> {
        self.relations.relation(relid)
    }

    /// Writes what waits and waits for every answer; the transaction stays open.
    pub async fn flush(&mut self) -> Result<()> {
        self.write_log().await?;
        self.write_run().await?;
        self.drain().await
    }

    /// Writes changes of tables on hold into `scry_shadow.kept`.
    pub async fn keep(&mut self, columns: super::hold::kept::Columns) -> Result<()> {
        let statement = match &self.kept {
            Some(statement) => statement.clone(),
            None => {
                self.drain().await?;
                let sql = super::hold::kept::INSERT_KEPT;
                let cannot = || Error::sql("prepare the statement that keeps changes");
                let statement = self.session.prepare(sql).await.map_err(cannot())?;
                self.kept.insert(statement).clone()
            }
        };
        let (session, bytes, rows) = (self.session.clone(), columns.bytes, columns.relids.len());
        let flight = async move {
            let c = columns;
            let params: [&(dyn ToSql + Sync); 6] =
                [&c.relids, &c.seqs, &c.xids, &c.relations, &c.changes, &c.more];
            session.execute(&statement, &params).await
        };
        let note = Note::rows(0, "keep changes", Some(rows as u64));
        self.send(flight, note, bytes).await
    }

    /// Opens a transaction, if none is open.
    pub async fn begin(&mut self) -> Result<()> {
        if self.open {
            return Ok(());
        }
        self.open = true;
        self.plain("BEGIN", "begin").await?;
        self.untouched = true;
        self.held = self.holds;
        Ok(())
    }

    /// Whether changes are folded; they are unless this says otherwise.
    pub fn set_folding(&mut self, on: bool) {
        self.folding.set_on(on);
    }

    /// How often sets failed and their changes were written in order, since
    /// this was last asked.
    pub fn take_fallbacks(&mut self) -> u64 {
        self.folding.take_fallbacks()
    }

    /// What a relation's rows look like from here on.
    pub async fn describe(&mut self, relation: Relation) -> Result<()> {
        if self.relations.knows(&relation) {
            return Ok(());
        }
        self.write_log().await?;
        self.write_run().await?;
        // What was sent is of the former description.
        self.drain().await?;
        self.relations.describe(relation)
    }

    /// A row is new.
    pub async fn insert(&mut self, batch: &Bytes, relid: u32, new: &[u8]) -> Result<()> {
        if self.passes_over(relid) {
            return Ok(());
        }
        if self.find(relid).await? {
            check_whole(new, self.relations.target(relid)?.relation.columns.len())?;
        }
        self.change(batch, relid, new.len(), |keep| Change::Insert(keep(new))).await
    }

    /// A row has changed.
    pub async fn update(&mut self, batch: &Bytes, relid: u32, old: OldTuple<'_>, new: &[u8]) -> Result<()> {
        if self.passes_over(relid) {
            return Ok(());
        }
        self.find(relid).await?;
        let size = new.len() + old_bytes(old).len();
        self.change(batch, relid, size, |keep| Change::Update(kept(old, keep), keep(new))).await
    }

    /// A row is gone.
    pub async fn delete(&mut self, batch: &Bytes, relid: u32, old: OldTuple<'_>) -> Result<()> {
        if self.passes_over(relid) {
            return Ok(());
        }
        self.find(relid).await?;
        self.change(batch, relid, old_bytes(old).len(), |keep| Change::Delete(kept(old, keep))).await
    }

    /// Logs a change; a large one is written, after all that came before it.
    async fn change(
        &mut self,
        batch: &Bytes,
        relid: u32,
        size: usize,
        change: impl FnOnce(&dyn Fn(&[u8]) -> Bytes) -> Change,
    ) -> Result<()> {
        if size >= LARGE_ROW {
            self.write_log().await?;
            let change = change(&|part| batch.slice_ref(part));
            return match self.guard.is_on() {
                true => self.write_guarded(Arc::new(vec![(relid, change)])).await,
                false => self.write(relid, &change).await,
            };
        }
        // A slice keeps the whole batch alive: not a large one for a small row.
        let change = match batch.len() <= KEY_BATCH_MAX {
            true => {
                self.log.hold(batch);
                change(&|part| batch.slice_ref(part))
            }
            false => change(&|part| Bytes::copy_from_slice(part)),
        };
        if self.log.push(relid, change, size) { self.write_log().await } else { Ok(()) }
    }

    /// Writes one change, after those written before.
    pub(super) async fn write(&mut self, relid: u32, change: &Change) -> Result<()> {
        match change {
            Change::Insert(new) => self.write_insert(relid, new).await,
            Change::Update(old, new) => self.write_update(relid, old, new).await,
            Change::Delete(old) => self.write_delete(relid, old).await,
        }
    }

    pub(super) async fn write_update(&mut self, relid: u32, old: &Old, new: &Bytes) -> Result<()> {
        self.write_run().await?;
        self.look_up(relid).await?;
        let target = self.relations.target(relid)?;
        let columns = target.relation.columns.len();
        let new_row = cut(new, new, columns)?;
        let old_row = old.tuple().map(|tuple| cut(tuple, tuple, columns)).transpose()?;
        check_identity(target, old.as_wire(), old_row.is_none())?;
        let unchanged: Vec<bool> = new_row.iter().map(|v| *v == Value::Unchanged).collect();
        let kind = match moves_identity_column(&target.relation, old.as_wire(), old_row.as_deref(), &new_row)
        {
            true => Kind::Replace(unchanged),
            false => Kind::Update(unchanged),
        };
        let Some(prepared) = self.prepare(relid, &kind).await? else { return Ok(()) };
        let note = one_row(relid, "UPDATE", old.tuple().unwrap_or(new));
        self.execute(relid, prepared, &new_row, old_row.as_deref().unwrap_or(&new_row), note).await
    }

    pub(super) async fn write_delete(&mut self, relid: u32, old: &Old) -> Result<()> {
        self.write_run().await?;
        self.look_up(relid).await?;
        let target = self.relations.target(relid)?;
        check_identity(target, old.as_wire(), false)?;
        let tuple = old.tuple().ok_or_else(|| Error::protocol("a delete without an old row"))?;
        let old_row = cut(tuple, tuple, target.relation.columns.len())?;
        let Some(prepared) = self.prepare(relid, &Kind::Delete).await? else { return Ok(()) };
        let note = one_row(relid, "DELETE", tuple);
        self.execute(relid, prepared, &[], &old_row, note).await
    }

    /// A sequence has moved; one that the shadow does not have is passed over.
    pub async fn sequence(&mut self, sequence: Sequence) -> Result<()> {
        self.write_run().await?;
        let (session, setval) = (self.session.clone(), self.setval.clone());
        let flight = async move {
            let Sequence { schema, name, last_value, is_called, .. } = sequence;
            session.execute(&setval, &[&schema, &name, &last_value, &is_called]).await
        };
        self.send(flight, Note::plain("setval"), 0).await
    }

    /// Commits, with the position moved `from` … `to`. When this returns, all of
    /// it is flushed, unless the session was set up not to wait for that.
    pub async fn commit(&mut self, generation: u64, from: Lsn, to: Lsn, rows: u64) -> Result<()> {
        self.write_log().await?;
        self.write_run().await?;
        self.write_marks().await?;
        if to > from {
            let (session, advance) = (self.session.clone(), self.advance.clone());
            let (rows, timeline) = (rows.cast_signed(), self.timeline);
            let flight = async move {
                let (from, to) = (PgLsn::from(from.0), PgLsn::from(to.0));
                session.execute(&advance, &[&from, &to, &rows, &generation.cast_signed(), &timeline]).await
            };
            self.send(flight, Note::one_row(0, "position", None), 0).await?;
        }
        // Not before every answer is checked, here or by the server.
        if !self.held || self.under_way.is_some() {
            self.drain().await?;
        }
        if self.open {
            self.plain("COMMIT", "commit").await?;
            self.drain().await?;
            self.open = false;
        }
        Ok(())
    }

    /// Ends the open transaction without its changes.
    pub async fn roll_back(&mut self) {
        self.log = Log::default();
        self.under_way = None;
        self.forget_sent().await;
        if self.open && self.session.batch_execute("ROLLBACK").await.is_ok() {
            self.open = false;
        }
    }

    /// Waits for what was sent; its answers no longer matter.
    pub(super) async fn forget_sent(&mut self) {
        self.run = Run::default();
        self.held = false;
        while !self.pipeline.is_empty() {
            let _ = self.pipeline.drain().await;
        }
    }

    /// Looks the table up. One that is not there is, where refused changes are
    /// kept aside, a matter of its changes: then this is false.
    async fn find(&mut self, relid: u32) -> Result<bool> {
        match self.look_up(relid).await {
            Ok(()) => Ok(true),
            Err(error) if self.guard.is_on() && error.is_refusal() && !self.session.is_closed() => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn look_up(&mut self, relid: u32) -> Result<()> {
        if self.relations.is_ready(relid) {
            return Ok(());
        }
        self.drain().await?;
        self.relations.prepare(&self.session, relid).await
    }

    pub(super) async fn prepare(&mut self, relid: u32, kind: &Kind) -> Result<Option<Prepared>> {
        if let Some(prepared) = self.relations.target(relid)?.prepared(kind) {
            return Ok(prepared);
        }
        self.drain().await?;
        self.relations.target(relid)?.prepare(&self.session, kind).await
    }

    pub(super) async fn execute(
        &mut self,
        relid: u32,
        prepared: Prepared,
        new: &[Value],
        old: &[Value],
        note: Note,
    ) -> Result<()> {
        let format = self.relations.target(relid)?.relation.format;
        let (params, bytes) = collect(&prepared.params, new, old, format)?;
        let session = self.session.clone();
        let flight = async move { session.execute_raw(&prepared.statement, params).await };
        self.send(flight, note, bytes).await?;
        if bytes >= HEAVY_BYTES {
            self.heavy = true;
            self.drain().await?;
        }
        Ok(())
    }

    pub(super) async fn plain(&mut self, sql: &'static str, operation: &'static str) -> Result<()> {
        let session = self.session.clone();
        let flight = async move { session.batch_execute(sql).await.map(|()| 0) };
        self.send(flight, Note::plain(operation), 0).await
    }

    pub(super) async fn send<F>(&mut self, flight: F, note: Note, bytes: usize) -> Result<()>
    where
        F: Future<Output = super::pipeline::Answer> + Send + 'static,
    {
        // Sets are undone with all that was sent after them: what is none of theirs waits for them.
        self.settle_sets().await?;
        self.untouched = false;
        self.held &= note.is_held;
        let sent = self.pipeline.send(flight, note, bytes).await;
        sent.map_err(|miss| self.explain(miss))
    }

    /// Waits for every answer. From here on somebody may write by the session itself.
    pub(super) async fn drain(&mut self) -> Result<()> {
        self.settle_sets().await?;
        self.untouched = false;
        self.held = false;
        self.land().await
    }

    /// As [`drain`](Self::drain), unless nothing but the transaction's beginning can be under way.
    pub(super) async fn drain_unless_untouched(&mut self) -> Result<()> {
        if self.untouched { Ok(()) } else { self.drain().await }
    }

    /// Waits for what the pipeline holds.
    pub(super) async fn land(&mut self) -> Result<()> {
        let landed = self.pipeline.drain().await;
        landed.map_err(|miss| self.explain(miss))
    }

    fn explain(&mut self, miss: Miss) -> Error {
        let (Miss::Sql(note, _) | Miss::Rows(note, _)) = &miss;
        self.folding.blame(note.relid);
        match miss {
            Miss::Sql(note, source) => {
                let action = match note.relid {
                    0 => format!("{} on the shadow", note.operation),
                    relid => format!("{} on {}", note.operation, self.relations.name(relid)),
                };
                Error::Sql { action, source }
            }
            Miss::Rows(note, _) if note.relid == 0 => Error::Busy(
                "the shadow's position was moved by another connection or a new history".to_owned(),
            ),
            Miss::Rows(note, found) => match self.relations.target(note.relid) {
                Err(error) => error,
                Ok(target) => {
                    let conflict = ConflictNote {
                        relation: target.relation.clone(),
                        types: target.types.clone(),
                        finder: target.finder.clone(),
                        operation: note.operation,
                        key: note.key,
                        found,
                    };
                    let error = Error::Conflict {
                        operation: note.operation,
                        schema: conflict.relation.schema.clone(),
                        relation: conflict.relation.name.clone(),
                        wanted: note.rows.unwrap_or(1),
                        found,
                    };
                    self.conflict = Some(conflict);
                    error
                }
            },
        }
    }
}

/// What an old row must hold so that the finder can use it.
fn check_identity(target: &Target, old: OldTuple<'_>, by_new: bool) -> Result<()> {
    let name = || super::relation_map::full_name(&target.relation);
    match &target.finder {
        None => {
            Err(Error::protocol(format!("a row of {} is changed, but it has no replica identity", name())))
        }
        Some(Finder::Image) if by_new || !matches!(old, OldTuple::Full(_)) => {
            Err(Error::protocol(format!("a change of {} lacks the whole old row", name())))
        }
        Some(_) => Ok(()),
    }
}

/// Whether the change may give a column GENERATED ALWAYS AS IDENTITY another
/// value, which UPDATE cannot set. Unknown counts as yes.
fn moves_identity_column(
    relation: &Relation,
    old: OldTuple<'_>,
    old_row: Option<&[Value]>,
    new_row: &[Value],
) -> bool {
    relation.columns.iter().enumerate().any(|(place, column)| {
        if !column.identity_always {
            return false;
        }
        match (old, old_row) {
            (OldTuple::Full(_), Some(row)) => row.get(place) != new_row.get(place),
            (OldTuple::Key(_), Some(row)) if column.key => row.get(place) != new_row.get(place),
            // An identity that did not change is not sent.
            (OldTuple::None, _) if column.key => false,
            _ => true,
        }
    })
}

fn old_bytes(old: OldTuple<'_>) -> &[u8] {
    match old {
        OldTuple::None => &[],
        OldTuple::Key(tuple) | OldTuple::Full(tuple) => tuple,
    }
}

fn kept(old: OldTuple<'_>, keep: &dyn Fn(&[u8]) -> Bytes) -> Old {
    match old {
        OldTuple::None => Old::None,
        OldTuple::Key(tuple) => Old::Key(keep(tuple)),
        OldTuple::Full(tuple) => Old::Full(keep(tuple)),
    }
}

fn one_row(relid: u32, operation: &'static str, key: &Bytes) -> Note {
    // Not for the sake of a large row.
    let key = (key.len() < LARGE_ROW).then(|| key.clone());
    Note::one_row(relid, operation, key)
}

fn collect(sources: &[Source], new: &[Value], old: &[Value], format: Format) -> Result<(Vec<Param>, usize)> {
    let mut bytes = 0;
    let mut params = Vec::with_capacity(sources.len());
    for source in sources {
        let value = match source {
            Source::New(place) => new.get(*place),
            Source::Old(place) => old.get(*place),
            Source::Row => None,
        };
        let value = value.ok_or_else(|| Error::protocol("a row lacks a value of its relation"))?;
        if let Value::Bytes(b) = value {
            bytes += b.len();
        }
        params.push(Param::new(value, format)?);
    }
    Ok((params, bytes))
}

/// `$1` schema, `$2` name, `$3` last_value, `$4` is_called.
pub(super) const SETVAL: &str = "SELECT pg_catalog.setval(s.seqrelid::pg_catalog.regclass, $3::bigint, $4::boolean) \
    FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = $1::text AND c.relname = $2::text AND $3::bigint BETWEEN s.seqmin AND s.seqmax";

/// Large rows go by COPY one by one: it takes them in slices.
pub(super) const COPY_BYTES_MIN: usize = 256 << 10;
/// Rows this large are not logged.
const LARGE_ROW: usize = COPY_BYTES_MIN;
/// Values this large stay behind as capacity of the driver's buffers.
const HEAVY_BYTES: usize = 16 << 20;
const KEY_BATCH_MAX: usize = 2 << 20;
