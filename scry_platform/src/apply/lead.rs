//! The snapshot leader's connection: schema first, completion last.
//!
//! ```text
//! Catalog… ─► same history? ─► keep whole tables, empty the others ──────────────┐
//!                └─ no ─┬─ complete, same schema ─► former rows are kept (former) ┤
//!                       └─ drop everything ─► make the schema ───────────────────┴► CatalogApplied
//! CopyFinish ─► counts agree with the ledger? ─► post-data ─► 'copied' ─► CopyFinished
//! LateCopy ─► hold::late, while the stream goes on
//! ```
//!
//! Invariants: nothing of an old history is seen as part of a new one (the
//! origin forgets it before the first object goes); while the schema changes
//! no snapshot worker and no stream of another generation is at work; the copy
//! is called complete only after everything before it is durable.

use super::absent;
use super::former;
use super::hold::late;
use super::schema::{self, PreData, Progress, SchemaError, quote};
use crate::accept::link::{FrameReader, FrameSender, unexpected};
use crate::origin::{self, LedgerTable, rounds::Round};
use crate::shadow::{Connector, Purpose, Session, Shadow, warm};
use crate::{Error, Result};
use scry_wire::catalog::{Catalog, Class, Entry};
use scry_wire::frame::{Frame, Tag};
use scry_wire::limits;
use scry_wire::message::{
    CatalogApplied, CopiedTable, CopyFinish, CopyFinished, CopyProgress, CopyState, Hello, LateCopy,
    LeftOutText, Message,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, Client};
use tokio_util::sync::CancellationToken;

/// A snapshot leader's connection.
pub async fn serve(
    shadow: &Arc<Shadow>,
    hello: &Hello,
    mut reader: FrameReader,
    sender: &FrameSender,
) -> Result<()> {
    let session = shadow.owner.open(Purpose::Own).await?.cancelled_on_drop();
    wait_for_helpers(&session).await?;
    origin::touch(&*session, hello).await?;
    let origin = shadow.refresh(&session).await?;
    sender.send(&super::welcome(shadow, hello, origin.as_ref())).await?;
    let mut document: Option<Vec<u8>> = None;
    let mut round: Option<late::Round> = None;
    loop {
        let next = tokio::select! {
            biased;
            next = reader.next() => next?,
            over = late::over(shadow, &session, round.as_ref()) => return Err(over?),
        };
        let Some(frame) = next else { break };
        match frame.tag() {
            Tag::Catalog => {
                let bytes = document.get_or_insert_default();
                if append(bytes, &frame)? {
                    let bytes = document.take().unwrap_or_default();
                    apply_catalog(shadow, hello, &session, &bytes, sender).await?;
                }
            }
            Tag::CopyFinish => {
                let finish = CopyFinish::from_frame(&frame)?;
                match &round {
                    Some(round) => late::finish(shadow, &session, round, &finish, sender).await?,
                    None => finish_copy(shadow, hello, &session, &finish, sender).await?,
                }
            }
            Tag::LateCopy => {
                let message = LateCopy::from_frame(&frame)?;
                let (begun, receipt) = late::begin(shadow, hello, &session, &message).await?;
                round = Some(begun);
                sender.send(&receipt).await?;
            }
            _ => return Err(unexpected(&frame, "catalog, late copy or copy finish")),
        }
    }
    session.close().await;
    Ok(())
}

/// Appends a piece of the document; true when it was the last.
fn append(document: &mut Vec<u8>, frame: &Frame) -> Result<bool> {
    let payload = frame.payload();
    let len = document.len() + payload.len();
    if len > limits::CATALOG_BYTES_MAX {
        let (got, max) = (len as u64, limits::CATALOG_BYTES_MAX as u64);
        return Err(scry_wire::Error::TooLarge { what: "catalog document", got, max }.into());
    }
    document.extend_from_slice(&payload);
    Ok(!frame.continued())
}

async fn apply_catalog(
    shadow: &Arc<Shadow>,
    hello: &Hello,
    session: &Session,
    document: &[u8],
    sender: &FrameSender,
) -> Result<()> {
    let bad = |e: serde_json::Error| Error::protocol(format!("the catalog document cannot be read: {e}"));
    let catalog: Arc<Catalog> = Arc::new(serde_json::from_slice(document).map_err(bad)?);
    let round = serde_json::from_slice::<Round>(document).map_err(bad)?;
    round.seen_by().map_err(Error::protocol)?;
    check_names(&catalog)?;
    let origin = shadow.refresh(session).await?;
    let same_generation = origin.as_ref().is_some_and(|o| o.generation == hello.generation);
    let same_copy = same_generation && origin.as_ref().is_some_and(|o| o.copy_id == round.copy_id);
    let state = origin.as_ref().map_or(CopyState::None, |o| o.copy_state_of(hello.generation));
    let stored = if same_generation { stored_catalog(session).await? } else { None };
    let same_schema = stored.is_some_and(|stored| is_same_schema(&stored, &catalog));
    // Nobody else writes while tables come and go. The same document again, from
    // a leader that has lost its connection, disturbs nobody.
    let everybody_out = if same_copy && same_schema { None } else { Some(shadow.copies.clear().await?) };
    shadow.early.settle().await;
    let notes = match (state, same_schema) {
        // All of it is here; the receipt says so.
        (CopyState::Copied, true) => origin::left_out(&**session).await?,
        (CopyState::Copying, true) => keep(shadow, hello, session, &round, &catalog, document).await?,
        _ => match former::begin(shadow, hello, session, &round, &catalog, document).await? {
            Some(left_out) => left_out,
            None => start_over(shadow, hello, session, &round, &catalog, document).await?,
        },
    };
    let origin = shadow.refresh(session).await?;
    if origin.is_some_and(|o| o.copy_state == CopyState::Copying)
        && !former::is_schema_kept(&**session).await?
    {
        let absent = absent::relids(&**session).await?;
        shadow.early.begin(round.copy_id, &catalog.without(&absent));
    }
    drop(everybody_out);
    sender.send(&receipt(session, notes).await?).await
}

/// The same history and schema: what is whole stays. Under another snapshot
/// tables that are not whole are emptied, and those that the receipt has no room for.
async fn keep(
    shadow: &Arc<Shadow>,
    hello: &Hello,
    session: &Session,
    round: &Round,
    catalog: &Arc<Catalog>,
    document: &[u8],
) -> Result<Vec<LeftOutText>> {
    let mut left_out = origin::left_out(&**session).await?;
    let made = match former::is_schema_kept(&**session).await? {
        true => PreData::default(),
        false => make_schema(shadow, catalog.clone()).await?,
    };
    left_out.extend(made.left_out.into_iter().map(to_text));
    tidy(&mut left_out);
    if shadow.origin().is_some_and(|o| o.copy_id != round.copy_id) {
        let ledger = origin::ledger(&**session).await?;
        let names = table_names(catalog);
        for relids in begun_anew(&ledger, CatalogApplied::TABLES_MAX).chunks(EMPTIED_AT_ONCE) {
            empty(session, relids, &names).await?;
        }
    }
    session.batch_execute("BEGIN").await.map_err(Error::sql("begin"))?;
    absent::renew(&**session, &made.absent).await?;
    origin::begin_copy(&**session, hello, round).await?;
    origin::store_catalog(&**session, Some(document)).await?;
    session.batch_execute("COMMIT").await.map_err(Error::sql("commit the new snapshot"))?;
    Ok(left_out)
}

/// Tables that are copied from their beginning by another round: those that are not whole, and of the
/// others those that a receipt for `named` tables would not name. Their leader would send these
/// again, in chunks of another size, and the stream would pass over what the new snapshot saw.
fn begun_anew(ledger: &[LedgerTable], named: usize) -> Vec<u32> {
    let (whole, partial): (Vec<&LedgerTable>, Vec<_>) = ledger.iter().partition(|table| table.is_complete());
    partial.into_iter().chain(whole.into_iter().skip(named)).map(|table| table.copied.relid).collect()
}

/// Empties tables and clears their lines in the ledger, in one transaction.
async fn empty(session: &Session, relids: &[u32], names: &HashMap<u32, String>) -> Result<()> {
    let list: Vec<&str> = relids.iter().filter_map(|relid| names.get(relid)).map(String::as_str).collect();
    let cannot = || Error::sql("clear the ledger of tables that are copied anew");
    session.batch_execute("BEGIN").await.map_err(cannot())?;
    empty_tables(session, &list).await?;
    let ledger = "DELETE FROM scry_shadow.chunk WHERE relid = ANY ($1)";
    session.execute(ledger, &[&relids]).await.map_err(cannot())?;
    session.batch_execute("COMMIT").await.map_err(cannot())
}

/// Empties tables (as SQL names them), in the open transaction, whether or not others refer to them.
pub(super) async fn empty_tables(session: &Session, tables: &[&str]) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let list = tables.join(", ONLY ");
    let cannot = || Error::sql(format!("empty {list}"));
    session.batch_execute("SAVEPOINT scry_empty").await.map_err(cannot())?;
    match session.batch_execute(&format!("TRUNCATE ONLY {list}")).await {
        // Foreign keys of other tables.
        Err(error) if error.code() == Some(&SqlState::FEATURE_NOT_SUPPORTED) => {
            let rows: String = tables.iter().map(|table| format!("; DELETE FROM ONLY {table}")).collect();
            let sql = format!("ROLLBACK TO SAVEPOINT scry_empty{rows}");
            session.batch_execute(&sql).await.map_err(cannot())
        }
        emptied => emptied.map_err(cannot()),
    }
}

/// Another history or schema: everything recorded goes, then the schema is made.
async fn start_over(
    shadow: &Arc<Shadow>,
    hello: &Hello,
    session: &Session,
    round: &Round,
    catalog: &Arc<Catalog>,
    document: &[u8],
) -> Result<Vec<LeftOutText>> {
    // First of all: from here on nobody takes what is left for a history.
    origin::forget_history(&**session).await?;
    origin::store_catalog(&**session, None).await?;
    // A stream of the old history sees this and lets go of its locks.
    shadow.refresh(session).await?;
    drop_schema(shadow).await?;
    let made = make_schema(shadow, catalog.clone()).await?;
    let left_out: Vec<LeftOutText> = made.left_out.into_iter().map(to_text).collect();
    session.batch_execute("BEGIN").await.map_err(Error::sql("begin"))?;
    absent::renew(&**session, &made.absent).await?;
    origin::begin_copy(&**session, hello, round).await?;
    origin::store_catalog(&**session, Some(document)).await?;
    origin::store_left_out(&**session, &left_out).await?;
    session.batch_execute("COMMIT").await.map_err(Error::sql("commit the new schema"))?;
    tracing::info!(
        shadow = %shadow.database, generation = hello.generation, copy_id = round.copy_id,
        objects = catalog.objects.len(), left_out = left_out.len(), absent = made.absent.len(),
        "schema made; the copy begins"
    );
    Ok(left_out)
}

async fn drop_schema(shadow: &Arc<Shadow>) -> Result<()> {
    let own = shadow.clone();
    let dropped = on_own_thread(async move || {
        let (session, admin) = sessions(&own).await?;
        let kept = schema::drop_all(&session, admin.as_ref()).await.map_err(schema_error)?;
        session.close().await;
        Ok::<_, Error>(kept)
    });
    for kept in dropped.await?? {
        tracing::warn!(object = %kept.object, reason = %kept.reason, "could not drop an object of the old history");
    }
    Ok(())
}

async fn make_schema(shadow: &Arc<Shadow>, catalog: Arc<Catalog>) -> Result<PreData> {
    let own = shadow.clone();
    let made = on_own_thread(async move || {
        let (session, admin) = sessions(&own).await?;
        let made = schema::create_pre_data(&session, admin.as_ref(), &catalog).await.map_err(schema_error)?;
        session.close().await;
        Ok::<_, Error>(made)
    });
    made.await?
}

async fn sessions(shadow: &Shadow) -> Result<(Session, Option<Client>)> {
    let session = shadow.owner.open(Purpose::Own).await?.cancelled_on_drop();
    session.batch_execute(&helpers_lock()).await.map_err(Error::sql("begin work on the schema"))?;
    let admin = match &shadow.admin {
        Some(connector) => Some(connector.client().await.map_err(Error::sql("connect as superuser"))?.0),
        None => None,
    };
    Ok((session, admin))
}

/// Runs `work` on a thread of its own, beside the connections' tasks: making a
/// large schema is long work. When the caller goes away, so does the work.
pub(crate) async fn on_own_thread<W, T>(work: W) -> Result<T>
where
    W: AsyncFnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let given_up = CancellationToken::new();
    let watched = given_up.clone();
    let _guard = given_up.drop_guard();
    let runtime = tokio::runtime::Handle::current();
    let thread = tokio::task::spawn_blocking(move || {
        runtime.block_on(async move {
            tokio::select! {
                done = work() => Some(done),
                () = watched.cancelled() => None,
            }
        })
    });
    match thread.await {
        Ok(Some(done)) => Ok(done),
        _ => Err(Error::Stopping),
    }
}

async fn receipt(session: &Session, left_out: Vec<LeftOutText>) -> Result<CatalogApplied> {
    let ledger = origin::ledger(&**session).await?;
    let tables = ledger.iter().filter(|t| t.is_complete()).map(|t| t.copied).collect();
    let chunks = origin::chunks(&**session).await?;
    let former = former::relids(&**session).await?;
    Ok(CatalogApplied { tables, chunks, former, left_out })
}

async fn finish_copy(
    shadow: &Arc<Shadow>,
    hello: &Hello,
    session: &Session,
    finish: &CopyFinish,
    sender: &FrameSender,
) -> Result<()> {
    let origin = origin::load(&**session).await?;
    match origin.as_ref().map_or(CopyState::None, |o| o.copy_state_of(hello.generation)) {
        CopyState::None => return Err(Error::protocol("a copy is finished that was not begun")),
        CopyState::Copied => {
            let left_out = origin::left_out(&**session).await?;
            return sender.send(&CopyFinished { left_out }).await;
        }
        CopyState::Copying => {}
    }
    let catalog = stored_catalog(session)
        .await?
        .map(Arc::new)
        .ok_or_else(|| Error::protocol("a copy is finished, but there is no catalog"))?;
    check_counts(&origin::ledger(&**session).await?, &finish.tables, &catalog)?;
    shadow.early.settle_before(sender).await?;
    let mut left_out = origin::left_out(&**session).await?;
    let absent = absent::relids(&**session).await?;
    let here = if absent.is_empty() { catalog.clone() } else { Arc::new(catalog.without(&absent)) };
    left_out.extend(match former::is_schema_kept(&**session).await? {
        true => former::complete(session, &here).await?,
        false => post_data(shadow, here.clone(), sender).await?,
    });
    tidy(&mut left_out);
    session.batch_execute("BEGIN").await.map_err(Error::sql("begin"))?;
    origin::store_left_out(&**session, &left_out).await?;
    origin::finish_copy(&**session, hello.generation).await?;
    session.batch_execute("COMMIT").await.map_err(Error::sql("commit the end of the copy"))?;
    shadow.refresh(session).await?;
    tracing::info!(shadow = %shadow.database, generation = hello.generation, "copy complete");
    tokio::spawn(after_copy(shadow.clone(), table_names(&here).into_values().collect()));
    sender.send(&CopyFinished { left_out }).await
}

/// Every announced table must be whole in the ledger, and none else in it.
pub(super) fn check_counts(
    ledger: &[origin::LedgerTable],
    sent: &[CopiedTable],
    catalog: &Catalog,
) -> Result<()> {
    let mut held: HashMap<u32, &origin::LedgerTable> = ledger.iter().map(|t| (t.copied.relid, t)).collect();
    let names = table_names(catalog);
    let name = |relid: u32| names.get(&relid).cloned().unwrap_or_else(|| format!("relation {relid}"));
    let mut wrong = Vec::new();
    for table in sent {
        let (chunks, rows, whole) = held
            .remove(&table.relid)
            .map_or((0, 0, true), |t| (t.chunks_done, t.copied.rows, t.is_complete()));
        if chunks != table.chunks || rows != table.rows || !whole {
            wrong.push(format!(
                "{} ({chunks} chunks and {rows} rows here, {} and {} sent)",
                name(table.relid),
                table.chunks,
                table.rows
            ));
        }
    }
    wrong.extend(held.into_keys().map(|relid| format!("{} (here, but not announced)", name(relid))));
    if wrong.is_empty() {
        return Ok(());
    }
    let more = wrong.len().saturating_sub(NAMED_MAX);
    wrong.truncate(NAMED_MAX);
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    Err(Error::protocol(format!("the copy is not complete: {}{tail}", wrong.join(", "))))
}

async fn post_data(shadow: &Shadow, catalog: Arc<Catalog>, sender: &FrameSender) -> Result<Vec<LeftOutText>> {
    let jobs = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(1, POST_DATA_JOBS_MAX));
    // Progress comes from a plain callback: the shadow never waits for the peer.
    let (newest, mut news) = mpsc::channel::<Progress>(1);
    let telling = async {
        while let Some(progress) = news.recv().await {
            sender.send(&to_message(&progress)).await?;
            tokio::time::sleep(PROGRESS_PAUSE).await;
        }
        std::future::pending::<Result<()>>().await
    };
    let owner = shadow.owner.clone();
    let making = on_own_thread(async move || {
        let helpers = Helpers { owner, cancels: Mutex::default() };
        let connect = || helpers.connect();
        let report = move |progress: &Progress| {
            let _ = newest.try_send(progress.clone());
        };
        schema::create_post_data(connect, jobs, &catalog, report).await.map_err(schema_error)
    });
    tokio::select! {
        made = making => Ok(made??.into_iter().map(to_text).collect()),
        told = telling => Err(told.err().unwrap_or(Error::Gone)),
    }
}

/// Connections that build indexes and the like side by side. Dropped in the
/// middle they are cancelled; while one still works it holds a shared lock,
/// and the next leader waits for it ([`wait_for_helpers`]).
struct Helpers {
    owner: Connector,
    cancels: Mutex<Vec<CancelToken>>,
}

impl Helpers {
    async fn connect(&self) -> std::result::Result<Client, tokio_postgres::Error> {
        let (client, _task) = self.owner.client().await?;
        client.batch_execute(&helpers_lock()).await?;
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner).push(client.cancel_token());
        Ok(client)
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        let cancels = std::mem::take(&mut *self.cancels.lock().unwrap_or_else(PoisonError::into_inner));
        let owner = self.owner.clone();
        tokio::spawn(async move {
            for token in cancels {
                owner.cancel(token).await;
            }
        });
    }
}

/// What every connection holds that works on the schema.
pub(super) fn helpers_lock() -> String {
    format!("SELECT pg_catalog.pg_advisory_lock_shared({HELPERS_LOCK})")
}

/// Waits until no helper of an earlier leader is at work.
async fn wait_for_helpers(session: &Session) -> Result<()> {
    let sql = format!(
        "SELECT pg_catalog.pg_advisory_lock({HELPERS_LOCK}); SELECT pg_catalog.pg_advisory_unlock({HELPERS_LOCK})"
    );
    session.batch_execute(&sql).await.map_err(Error::sql("wait for the work of an earlier leader"))
}

fn to_message(progress: &Progress) -> CopyProgress {
    CopyProgress {
        done: u32::try_from(progress.done).unwrap_or(u32::MAX),
        total: u32::try_from(progress.total).unwrap_or(u32::MAX),
        current: format!("{}: {}", progress.stage, progress.object),
    }
}

/// What makes the shadow quicker; nothing depends on it.
async fn after_copy(shadow: Arc<Shadow>, tables: Vec<String>) {
    warm(&shadow).await;
    analyze(shadow, tables).await;
}

/// Statistics help the shadow's users; nothing depends on them, and the stream
/// does not wait for them.
pub(super) async fn analyze(shadow: Arc<Shadow>, tables: Vec<String>) {
    let Ok(session) = shadow.owner.open(Purpose::Own).await else { return };
    // Nobody waits for these commits, and the disk may be busy with others'.
    let _ = session.batch_execute("SET synchronous_commit = off").await;
    for name in tables {
        if let Err(error) = session.batch_execute(&format!("ANALYZE {name}")).await {
            tracing::debug!(table = %name, error = %crate::error_text(&error), "could not analyze");
        }
    }
}

pub(super) async fn stored_catalog(session: &Session) -> Result<Option<Catalog>> {
    let Some(document) = origin::catalog(&**session).await? else { return Ok(None) };
    let bad = |e| Error::protocol(format!("the stored catalog document cannot be read: {e}"));
    serde_json::from_slice(&document).map(Some).map_err(bad)
}

/// Whether the two are the same table: all but what moves while it lives.
pub(super) fn is_same_table(a: &Entry, b: &Entry) -> bool {
    lasting(a) == lasting(b)
}

/// Whether two documents make the same schema out of the same objects: all but
/// what moves while a database lives.
pub(super) fn is_same_schema(a: &Catalog, b: &Catalog) -> bool {
    lasting(a) == lasting(b)
}

fn lasting(catalog: &impl serde::Serialize) -> serde_json::Value {
    let mut value = serde_json::to_value(catalog).unwrap_or_default();
    forget_state(&mut value);
    value
}

fn forget_state(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|name, _| !STATE_FIELDS.contains(&name.as_str()));
            fields.values_mut().for_each(forget_state);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(forget_state),
        _ => {}
    }
}

/// Names become SQL only through `quote`, but a schema of ours must not be hit.
pub(super) fn check_names(catalog: &Catalog) -> Result<()> {
    let reserved = catalog.objects.iter().find_map(|object| match &object.entry {
        Entry::Schema(schema) if super::relation_map::is_reserved(&schema.name) => Some(&schema.name),
        Entry::Table(table) if super::relation_map::is_reserved(&table.schema) => Some(&table.schema),
        _ => None,
    });
    match reserved {
        Some(name) => {
            Err(Error::protocol(format!("the catalog document names the reserved schema \"{name}\"")))
        }
        None => Ok(()),
    }
}

/// Tables of the document by oid, as SQL.
pub(super) fn table_names(catalog: &Catalog) -> HashMap<u32, String> {
    let tables = catalog.objects.iter().filter(|object| object.class == Class::Relation);
    tables
        .filter_map(|object| match &object.entry {
            Entry::Table(table) if !table.partitioned => {
                Some((object.oid, quote::qualified(&table.schema, &table.name)))
            }
            _ => None,
        })
        .collect()
}

fn to_text(item: scry_wire::catalog::LeftOut) -> LeftOutText {
    LeftOutText { object: item.object, reason: item.reason }
}

pub(super) fn tidy(left_out: &mut Vec<LeftOutText>) {
    left_out.sort_by(|a, b| (&a.object, &a.reason).cmp(&(&b.object, &b.reason)));
    left_out.dedup();
}

fn schema_error(error: SchemaError) -> Error {
    let hint = match &error {
        SchemaError::Table { .. } => {
            "Rename or drop what has that name on the shadow, or leave the table out of the job."
        }
        _ => "",
    };
    let message = match error {
        SchemaError::Shadow { action, source } => {
            format!("could not {action} on the shadow: {}", crate::error_text(&source))
        }
        other => other.to_string(),
    };
    Error::Shadow { message, hint: hint.to_owned(), retry: true }
}

/// Fields that move without a change of the schema.
const STATE_FIELDS: &[&str] =
    &["copy_id", "last_value", "is_called", "populated", "filenode", "missing", "roles"];
/// Advisory lock that helpers share while they live.
const HELPERS_LOCK: i64 = 7_239_850_000_000_000_003;
const NAMED_MAX: usize = 10;
/// A transaction locks each table that it empties.
const EMPTIED_AT_ONCE: usize = 256;
const POST_DATA_JOBS_MAX: usize = 8;
const PROGRESS_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_anew_what_is_not_whole_or_not_named() {
        let table = |relid, chunks, chunks_done| LedgerTable {
            copied: CopiedTable { relid, chunks, rows: 1 },
            chunks_done,
        };
        let ledger = [table(1, 2, 2), table(2, 3, 1), table(3, 1, 1), table(4, 1, 1), table(5, 2, 0)];
        assert_eq!(begun_anew(&ledger, 3), [2, 5]);
        // A receipt names the first of the whole ones.
        assert_eq!(begun_anew(&ledger, 2), [2, 5, 4]);
    }
}
