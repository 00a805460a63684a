//! Chunks of tables, each in one transaction with its line in the ledger.
//!
//! ```text
//! ChunkStart ─► BEGIN, claim the ledger line ─► COPY … FROM STDIN
//! Rows…      ─► into the COPY, as they come
//! ChunkEnd   ─► counts agree? ─► ledger line, COMMIT ─► ChunkDone
//! ```
//!
//! The line is claimed before the rows are loaded: the same chunk on two
//! connections waits here instead of being loaded twice. Memory: one frame and
//! its text form; the shadow that reads slowly holds the peer back.
//!
//! A table of the first copy that is one chunk is loaded into new storage, so that its rows need
//! no WAL of the embedded shadow and never a later freeze.
//!
//! Rows that the shadow refuses end the connection, or, in a job that keeps refused changes
//! aside, mark the table as diverged; the rest of the copy goes on.
//!
//! What it does not do: check values. The shadow's COPY does.

use super::chunk::{Chunk, Rows};
use super::copy_rows::{BINARY_HEADER, BINARY_TRAILER, TextRows};
use super::early;
use super::former;
use super::quarantine::{self, Policy};
use super::relation_map;
use super::schema::quote;
use crate::accept::link::{FrameReader, FrameSender, unexpected};
use crate::origin;
use crate::shadow::{Purpose, Session, Shadow, loader};
use crate::{Error, Result, metrics};
use bytes::{Bytes, BytesMut};
use futures_util::SinkExt;
use scry_wire::frame::Tag;
use scry_wire::message::{
    ChunkDone, ChunkEnd, ChunkStart, CopyState, Format, Hello, Message, Relation, Welcome,
};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_postgres::CopyInSink;

/// A snapshot worker's connection.
pub async fn serve(
    shadow: &Arc<Shadow>,
    hello: &Hello,
    mut reader: FrameReader,
    sender: &FrameSender,
) -> Result<()> {
    let mut session = shadow.owner.open(Purpose::Apply).await?.cancelled_on_drop();
    let origin = shadow.refresh(&session).await?;
    let state = origin.as_ref().map_or(CopyState::None, |o| o.copy_state_of(hello.generation));
    // Rows of a late copy go by COPY: the tables have all that they will have.
    let loads = state == CopyState::Copying && loader::is_there(&session).await?;
    let takes_stored = loads && !shadow.refuses_stored.load(Ordering::Relaxed);
    let welcome = Welcome { takes_stored, ..super::welcome(shadow, hello, origin.as_ref()) };
    sender.send(&welcome).await?;
    // A complete shadow takes chunks of tables on hold; each chunk is asked below.
    if state == CopyState::None {
        return Err(Error::Busy("no copy of this generation is under way on the shadow".to_owned()));
    }
    set_up(&session, state).await?;
    while let Some(frame) = reader.next().await? {
        if frame.tag() != Tag::ChunkStart {
            return Err(unexpected(&frame, "chunk start"));
        }
        let start = ChunkStart::from_frame(&frame)?;
        let done = load(shadow, hello, &mut session, &start, loads, &mut reader).await?;
        sender.send(&done).await?;
    }
    session.close().await;
    Ok(())
}

async fn set_up(session: &Session, state: CopyState) -> Result<()> {
    if state == CopyState::Copying {
        // A crash takes lines with their rows; the ledger is held against what was sent at the end.
        let sql = "SET synchronous_commit = off";
        session.batch_execute(sql).await.map_err(Error::sql("set up a session for a copy"))?;
    }
    Ok(())
}

async fn load(
    shadow: &Arc<Shadow>,
    hello: &Hello,
    session: &mut Session,
    start: &ChunkStart,
    loads: bool,
    reader: &mut FrameReader,
) -> Result<ChunkDone> {
    relation_map::check_name(&start.relation)?;
    let name = relation_map::full_name(&start.relation);
    run(session, "BEGIN", "begin a chunk of", &name).await?;
    let which = check_copy(session, hello, start).await?;
    if which == Which::Late {
        run(session, "SET LOCAL synchronous_commit = on", "set up a chunk of", &name).await?;
    }
    let mut chunk = Chunk::new(start);
    if chunk.claimed(claim(session, start, &name).await?) == Rows::PassOver {
        run(session, "ROLLBACK", "leave a chunk of", &name).await?;
        let rows = pass_over(session, start, reader).await?;
        ::metrics::counter!(metrics::CHUNKS_REPEATED, "shadow" => shadow.database.clone()).increment(1);
        return chunk.repeated(rows);
    }
    if which == Which::First(Before::Kept) {
        former::make_room(session, &start.relation).await?;
    }
    let mut left = Left::Rows;
    let loads = loads && which != Which::Late;
    let copied = copy_rows(shadow, session, start, Way { which, loads }, reader, &mut left).await;
    let Copied { rows, announced, bytes } = match copied {
        Err(error) if start.relation.format == Format::Stored && matches!(error, Error::Sql { .. }) => {
            tracing::debug!(shadow = %shadow.database, table = name, %error, "stored rows are refused");
            return Err(if error.is_refusal() { not_taken(shadow, &name) } else { error });
        }
        Err(error) if left != Left::Unknown && may_go_on(shadow, session, &error).await? => {
            skip(reader, left).await?;
            put_aside(shadow, hello, session, start, &error).await?;
            return Ok(ChunkDone {
                relid: start.relation.relid,
                chunk: start.chunk,
                rows: 0,
                repeated: false,
            });
        }
        copied => copied?,
    };
    chunk.loaded(rows, announced)?;
    let sql = "UPDATE scry_shadow.chunk SET rows = $3 WHERE relid = $1 AND chunk = $2";
    session
        .execute(sql, &[&start.relation.relid, &start.chunk.cast_signed(), &rows.cast_signed()])
        .await
        .map_err(Error::sql(format!("write the ledger line of {name}")))?;
    run(session, "COMMIT", "commit a chunk of", &name).await?;
    scry_failpoint::hit(scry_failpoint::step::CHUNK_COMMITTED).await?;
    ::metrics::counter!(metrics::ROWS_COPIED, "shadow" => shadow.database.clone()).increment(rows);
    ::metrics::counter!(metrics::CHUNKS_COPIED, "shadow" => shadow.database.clone()).increment(1);
    if which == Which::First(Before::New)
        && let Err(error) = early::chunk_committed(shadow, start, bytes).await
    {
        tracing::debug!(table = name, %error, "indexes are left to the end of the copy");
    }
    chunk.committed()
}

async fn run(session: &Session, sql: &str, what: &str, name: &str) -> Result<()> {
    session.batch_execute(sql).await.map_err(Error::sql(format!("{what} {name}")))
}

/// The chunk must be of the copy that is under way: the first one, or that of
/// its table on hold. The row is locked against whoever would begin another
/// one meanwhile.
async fn check_copy(session: &Session, hello: &Hello, start: &ChunkStart) -> Result<Which> {
    let sql = "SELECT generation, copy_id, copy_state, schema_kept FROM scry_shadow.origin FOR SHARE";
    let row = session.query_opt(sql, &[]).await.map_err(Error::sql("read scry_shadow.origin"))?;
    let Some(row) = row.filter(|r| r.get::<_, i64>("generation").cast_unsigned() == hello.generation) else {
        return Err(not_under_way(start));
    };
    let copy_id = row.get::<_, i64>("copy_id").cast_unsigned();
    match row.get("copy_state") {
        "copying" if copy_id == start.copy_id && row.get("schema_kept") => Ok(Which::First(Before::Kept)),
        "copying" if copy_id == start.copy_id => Ok(Which::First(Before::New)),
        "copied" if is_late(session, start).await? => Ok(Which::Late),
        _ => Err(not_under_way(start)),
    }
}

/// Which copy a chunk belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The generation's first: nobody reads there yet.
    First(Before),
    /// That of a table on hold.
    Late,
}

/// What the tables of a first copy were before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// They were made for it.
    New,
    /// Those of a former history: they may have rows.
    Kept,
}

async fn is_late(session: &Session, start: &ChunkStart) -> Result<bool> {
    let sql = "SELECT FROM scry_shadow.hold WHERE relid = $1 AND copy_id = $2 \
               AND state IN ('copying', 'copied') FOR SHARE";
    let row = session.query_opt(sql, &[&start.relation.relid, &start.copy_id.cast_signed()]).await;
    row.map(|row| row.is_some()).map_err(Error::sql("read scry_shadow.hold"))
}

fn not_under_way(start: &ChunkStart) -> Error {
    Error::Busy(format!("the copy with id {} is not the one under way on the shadow", start.copy_id))
}

/// Claims the chunk's line; false when the chunk is there already.
async fn claim(session: &Session, start: &ChunkStart, name: &str) -> Result<bool> {
    let sql = "INSERT INTO scry_shadow.chunk (relid, chunk, chunks, copy_id, rows) \
               VALUES ($1, $2, $3, $4, 0) ON CONFLICT DO NOTHING";
    let claimed = session
        .execute(
            sql,
            &[
                &start.relation.relid,
                &start.chunk.cast_signed(),
                &start.chunks.cast_signed(),
                &start.copy_id.cast_signed(),
            ],
        )
        .await
        .map_err(Error::sql(format!("claim a chunk of {name}")))?;
    Ok(claimed == 1)
}

/// Drops the rows of a chunk that is there, and counts them by the ledger.
async fn pass_over(session: &Session, start: &ChunkStart, reader: &mut FrameReader) -> Result<u64> {
    loop {
        let frame = reader.expect().await?;
        match frame.tag() {
            Tag::Rows => {}
            Tag::ChunkEnd => break,
            _ => return Err(unexpected(&frame, "rows or chunk end")),
        }
    }
    let sql = "SELECT rows FROM scry_shadow.chunk WHERE relid = $1 AND chunk = $2";
    let row = session
        .query_one(sql, &[&start.relation.relid, &start.chunk.cast_signed()])
        .await
        .map_err(Error::sql("read scry_shadow.chunk"))?;
    Ok(row.get::<_, i64>(0).cast_unsigned())
}

/// What of a chunk's frames has not been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Rows,
    Nothing,
    /// The connection or the peer is to blame.
    Unknown,
}

/// Whether a refused chunk ends nothing: of the first copy, in a job that keeps refused changes
/// aside. The transaction that failed is rolled back then.
async fn may_go_on(shadow: &Shadow, session: &mut Session, error: &Error) -> Result<bool> {
    if !matches!(error, Error::Sql { .. }) || !error.is_refusal() {
        return Ok(false);
    }
    if session.batch_execute("ROLLBACK").await.is_err() {
        // A COPY that is refused before it begins leaves the driver out of step with the server.
        *session = shadow.owner.open(Purpose::Apply).await?.cancelled_on_drop();
        set_up(session, CopyState::Copying).await?;
    }
    let first = origin::load(&**session).await?.is_some_and(|o| o.copy_state == CopyState::Copying);
    let document = origin::catalog(&**session).await?.unwrap_or_default();
    Ok(first && Policy::of_document(&document) == Policy::Quarantine)
}

/// Reads to the chunk's end.
async fn skip(reader: &mut FrameReader, left: Left) -> Result<()> {
    if left != Left::Rows {
        return Ok(());
    }
    loop {
        let frame = reader.expect().await?;
        match frame.tag() {
            Tag::Rows => {}
            Tag::ChunkEnd => return Ok(()),
            _ => return Err(unexpected(&frame, "rows or chunk end")),
        }
    }
}

/// The shadow refuses rows of the chunk: it counts as loaded, with none, and its table as
/// diverged. Which row it is the shadow does not say; a copy mends it.
async fn put_aside(
    shadow: &Shadow,
    hello: &Hello,
    session: &Session,
    start: &ChunkStart,
    error: &Error,
) -> Result<()> {
    let name = relation_map::full_name(&start.relation);
    let run = async |sql: &str| session.batch_execute(sql).await.map_err(Error::sql("put a chunk aside"));
    run("BEGIN").await?;
    let which = check_copy(session, hello, start).await?;
    if claim(session, start, &name).await? {
        let relation = &start.relation;
        if which == Which::First(Before::Kept) {
            former::make_room(session, relation).await?;
        }
        quarantine::diverge(&**session, relation, &error.to_string()).await?;
    }
    run("COMMIT").await?;
    shadow.marks_changed();
    tracing::warn!(shadow = %shadow.database, table = name, %error, "rows of a chunk are refused: quarantine");
    Ok(())
}

/// What a chunk's COPY has come to.
struct Copied {
    rows: u64,
    announced: u64,
    bytes: u64,
}

/// How rows get into their table.
#[derive(Debug, Clone, Copy)]
struct Way {
    which: Which,
    /// By the loader, where that takes them.
    loads: bool,
}

/// Streams the chunk's rows into the loader or COPY.
async fn copy_rows(
    shadow: &Shadow,
    session: &Session,
    start: &ChunkStart,
    way: Way,
    reader: &mut FrameReader,
    left: &mut Left,
) -> Result<Copied> {
    let name = relation_map::full_name(&start.relation);
    let what = || Error::sql(format!("copy into {name}"));
    let mut bytes = 0;
    let relation = &start.relation;
    *left = Left::Unknown;
    let mut next = Some(reader.expect().await?);
    *left = Left::Rows;
    let is_large = next.as_ref().is_some_and(|frame| frame.payload().len() >= ANEW_FROM);
    let anew =
        way.which != Which::Late && start.chunks == 1 && is_large && begin_anew(session, relation).await?;
    // A few rows are quicker by COPY than by asking first.
    let is_worth_asking = is_large || relation.format == Format::Stored;
    let loads = way.loads
        && is_worth_asking
        && relation.format != Format::Text
        && scry_failpoint::hit(scry_failpoint::step::LOADING).await.is_ok()
        && loader::takes(session, relation).await?;
    if relation.format == Format::Stored && !loads {
        return Err(not_taken(shadow, &name));
    }
    let statement = if loads { loader::statement(relation) } else { copy_statement(relation, anew) };
    let sink = session.copy_in(&statement).await.map_err(what())?;
    let mut sink = if loads { Sink::bare(sink) } else { Sink::new(sink, relation.format) };
    let announced = loop {
        *left = Left::Unknown;
        let frame = match next.take() {
            Some(frame) => frame,
            None => reader.expect().await?,
        };
        let sent = match frame.tag() {
            Tag::Rows => {
                bytes += frame.payload().len() as u64;
                let sent = sink.send(frame.payload()).await?;
                *left = Left::Rows;
                sent
            }
            Tag::ChunkEnd => {
                let rows = ChunkEnd::from_frame(&frame)?.rows;
                *left = Left::Nothing;
                break rows;
            }
            _ => return Err(unexpected(&frame, "rows or chunk end")),
        };
        if sent.is_err() {
            // The statement has failed; its answer says why.
            break 0;
        }
    };
    let finished = sink.finish().await;
    if finished.is_err() {
        *left = Left::Unknown;
    }
    let mut rows = finished?.map_err(what())?;
    if loads {
        rows = loader::loaded(session).await?;
    }
    Ok(Copied { rows, announced, bytes })
}

/// The next welcome says that rows are to come in another form.
fn not_taken(shadow: &Shadow, name: &str) -> Error {
    shadow.refuses_stored.store(true, Ordering::Relaxed);
    tracing::info!(shadow = %shadow.database, table = name, "stored rows are not taken: they are asked for in another form");
    Error::Shadow {
        message: format!(
            "rows of {name} came as the source stores them, and the shadow does not take them so"
        ),
        hint: "They are asked for again in another form.".to_owned(),
        retry: true,
    }
}

/// Gives a table that one chunk holds new storage in this transaction: what is loaded into that
/// needs no WAL where the server writes no more of it than it must (`wal_level = minimal`), and is
/// frozen at once. Not where other tables refer to it.
async fn begin_anew(session: &Session, relation: &Relation) -> Result<bool> {
    let what = || Error::sql(format!("begin anew with {}", relation_map::full_name(relation)));
    let table = relation_map::qualified(relation);
    let sql =
        "SELECT FROM pg_catalog.pg_constraint WHERE contype = 'f' AND confrelid = $1::text::regclass LIMIT 1";
    if session.query_opt(sql, &[&table]).await.map_err(what())?.is_some() {
        return Ok(false);
    }
    session.batch_execute(&format!("TRUNCATE ONLY {table}")).await.map_err(what())?;
    Ok(true)
}

/// `COPY … FROM STDIN` for a relation's columns and format; `anew`: its storage is new in this
/// transaction.
pub(crate) fn copy_statement(relation: &Relation, anew: bool) -> String {
    let columns: Vec<&str> = relation.columns.iter().map(|c| c.name.as_str()).collect();
    let list = match columns.is_empty() {
        true => String::new(),
        false => format!(" ({})", quote::ident_list(columns)),
    };
    let format = match relation.format {
        Format::Binary | Format::Stored => "binary",
        Format::Text => "text",
    };
    let freeze = if anew { ", FREEZE" } else { "" };
    format!("COPY {}{list} FROM STDIN (FORMAT {format}{freeze})", relation_map::qualified(relation))
}

/// A COPY that takes tuples as they stand on the wire.
pub(crate) struct Sink {
    copy: Pin<Box<CopyInSink<Bytes>>>,
    text: Option<TextRows>,
    /// COPY's binary header and trailer stand around the rows.
    framed: bool,
    out: BytesMut,
    begun: bool,
}

/// What the driver says of a COPY.
type Sent = std::result::Result<(), tokio_postgres::Error>;

impl Sink {
    pub(crate) fn new(copy: CopyInSink<Bytes>, format: Format) -> Self {
        let text = (format == Format::Text).then(TextRows::new);
        Sink { copy: Box::pin(copy), framed: text.is_none(), text, out: BytesMut::new(), begun: false }
    }

    /// For the loader, which wants nothing but rows.
    fn bare(copy: CopyInSink<Bytes>) -> Self {
        Sink { framed: false, ..Sink::new(copy, Format::Binary) }
    }

    /// Sends the next piece of tuples; waits while the shadow does not read.
    pub(crate) async fn send(&mut self, piece: Bytes) -> Result<Sent> {
        if let Err(error) = self.begin().await {
            return Ok(Err(error));
        }
        // In parts: the driver copies each into its own buffer, and escaping may double it.
        let mut rest = piece;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(PART));
            let sent = match &mut self.text {
                Some(text) => {
                    text.push(part, &mut self.out)?;
                    self.flush_above(PART).await
                }
                None if part.len() < SMALL => {
                    self.out.extend_from_slice(&part);
                    self.flush_above(PART).await
                }
                None => match self.flush_above(1).await {
                    Ok(()) => self.copy.send(part).await,
                    failed => failed,
                },
            };
            if sent.is_err() {
                return Ok(sent);
            }
        }
        Ok(Ok(()))
    }

    async fn flush_above(&mut self, len: usize) -> Sent {
        if self.out.len() < len {
            return Ok(());
        }
        self.copy.send(self.out.split().freeze()).await
    }

    async fn begin(&mut self) -> Sent {
        if std::mem::replace(&mut self.begun, true) || !self.framed {
            return Ok(());
        }
        self.copy.send(Bytes::from_static(BINARY_HEADER)).await
    }

    /// Ends the COPY and returns how many rows it has loaded. The inner error
    /// is the shadow's answer.
    pub(crate) async fn finish(&mut self) -> Result<std::result::Result<u64, tokio_postgres::Error>> {
        if let Some(text) = &self.text
            && !text.is_complete()
        {
            return Err(Error::protocol("rows end inside a row"));
        }
        // A COPY that has failed refuses these; finish tells why.
        let _ = self.begin().await;
        if self.framed {
            self.out.extend_from_slice(BINARY_TRAILER);
        }
        let _ = self.flush_above(1).await;
        Ok(self.copy.as_mut().finish().await)
    }
}

/// From a first piece of so many bytes on a table is worth new storage.
const ANEW_FROM: usize = 64 << 10;
/// Bytes given to the driver at once.
const PART: usize = 64 << 10;
/// Shorter pieces are gathered first.
const SMALL: usize = 16 << 10;
