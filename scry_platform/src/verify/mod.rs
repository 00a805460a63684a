//! The platform's half of `verify()`: what does the shadow hold at the place
//! that a snapshot of the source means?
//!
//! ```text
//! Ask ─► conversation ─┬─ Stop, Position: halts ─► stream worker stands still ─► a transaction opens
//!                      ├─ Standing: a transaction opens in a copy, where nothing is applied yet
//!                      ├─ Table: rows (COPY out) ─► sums
//!                      ├─ Rows: diff ─► keys that differ ─► Ranges
//!                      ├─ Catalog: schema ─► differences
//!                      └─ Mend: delete and COPY in, while the stream stands still
//! ```
//!
//! Invariants: everything between two positions is read in one transaction of
//! the shadow, which was opened while the stream stood there; a table is
//! locked only while it is read. Nothing is written but by Mend, and by it only
//! while the stream stands still at the position that it is told. What a
//! session keeps (keys that differ) is bounded.
//!
//! What it does not do: decide. The source's session compares and judges.

mod canonical;
mod diff;
mod mend;
mod ranges;
mod rows;
mod schema;

use crate::accept::link::{FrameReader, FrameSender, unexpected};
use crate::apply::halt::{Asked, Reached, Wanted};
use crate::apply::{absent, former, quarantine, relation_map};
use crate::shadow::{Purpose, Session, Shadow};
use crate::{Error, Result};
pub use canonical::SCRATCH_PREFIX;
use diff::Differing;
use rows::TableRows;
use scry_wire::catalog::Catalog;
use scry_wire::frame::{Frame, Tag};
use scry_wire::hash::Sums;
use scry_wire::message::{Ask, CopyState, Hello, Level, Message, Relation, Tell};
use scry_wire::{Lsn, SeenBy};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_postgres::types::PgLsn;

/// A verifying session's connection.
pub async fn serve(shadow: &Shadow, hello: &Hello, reader: FrameReader, sender: &FrameSender) -> Result<()> {
    let session = shadow.owner.open(Purpose::Own).await?.cancelled_on_drop();
    let origin = shadow.refresh(&session).await?;
    let state = origin.as_ref().map_or(CopyState::None, |o| o.copy_state_of(hello.generation));
    sender.send(&crate::apply::welcome(shadow, hello, origin.as_ref())).await?;
    if state == CopyState::None {
        return Err(not_complete());
    }
    session.batch_execute(SETTINGS).await.map_err(Error::sql("prepare a session on the shadow"))?;
    let mut conversation = Conversation {
        shadow,
        generation: hello.generation,
        is_complete: state == CopyState::Copied,
        sender,
        reader,
        session,
        asked: None,
        place: None,
        differing: HashMap::new(),
        rows: HashMap::new(),
        keys: 0,
    };
    conversation.run().await
}

fn not_complete() -> Error {
    Error::Shadow {
        message: "the shadow cannot be compared: its copy is not complete".to_owned(),
        hint: "Wait until the job's state is \"streaming\".".to_owned(),
        retry: true,
    }
}

/// Whether the shadow's schema is that of the document, in the open transaction.
pub async fn is_same_schema(shadow: &Shadow, session: &Session, source: &Catalog) -> Result<bool> {
    mark(session).await?;
    let compared = schema::compare(shadow, session, source).await;
    back_to_mark(session).await?;
    match compared? {
        Tell::Schema { differences: 0, .. } => Ok(true),
        Tell::Schema { differences, lines, .. } => {
            tracing::info!(shadow = %shadow.database, differences, ?lines, "the schema is not the source's any more");
            Ok(false)
        }
        _ => Ok(false),
    }
}

struct Conversation<'a> {
    shadow: &'a Shadow,
    generation: u64,
    /// Its copy is complete: the stream goes on.
    is_complete: bool,
    sender: &'a FrameSender,
    reader: FrameReader,
    /// Reads the shadow; in a transaction while there is a place.
    session: Session,
    /// The stream stands still and waits for the place.
    asked: Option<Asked>,
    place: Option<Place>,
    /// What [`Ask::Rows`] found, by table.
    differing: HashMap<u32, Differing>,
    /// Rows of the tables that were hashed, in a copy.
    rows: HashMap<u32, u64>,
    keys: usize,
}

/// The position that is looked at.
struct Place {
    applied: Lsn,
    /// Tables that are being copied anew.
    on_hold: Vec<u32>,
    still: Stands,
}

/// Whether the shadow stands still at a place.
enum Stands {
    /// The stream has gone on.
    No,
    /// As long as this is kept.
    Stream { _held: oneshot::Sender<()> },
    /// By itself, until this round of its copy is complete.
    Copy { copy_id: u64 },
}

impl Conversation<'_> {
    async fn run(&mut self) -> Result<()> {
        let mut document = Vec::new();
        while let Some(frame) = self.reader.next().await? {
            if frame.tag() == Tag::Catalog {
                if let Some(catalog) = schema::append(&mut document, &frame)? {
                    self.schema(&catalog).await?;
                }
                continue;
            }
            match ask_of(&frame)? {
                Ask::Stop => self.stop().await?,
                Ask::Position { seen, lsn, hold } => self.position(&seen, lsn, hold).await?,
                Ask::Standing { copy_id } => self.standing(copy_id).await?,
                Ask::Table(relation) => self.table(&relation).await?,
                Ask::Rows { relation, buckets } => self.rows(&relation, &buckets).await?,
                Ask::Mend { hashed, relation } => self.mend(&hashed, &relation).await?,
                Ask::Ranges(relation) => self.ranges(&relation).await?,
                Ask::Settled { relid } => self.settled(relid).await?,
                Ask::Release => self.release().await?,
                Ask::End => return Err(unexpected(&frame, "a question")),
            }
        }
        self.release().await
    }

    /// Has the stream stop between two transactions; waits while it does not run.
    async fn stop(&mut self) -> Result<()> {
        self.release().await?;
        if !self.is_complete {
            return Err(not_complete());
        }
        loop {
            let mut asked = self.shadow.halts.ask().await;
            match patiently(self.sender, &mut asked.is_ready).await? {
                Some(()) => {
                    self.asked = Some(asked);
                    return self.sender.send(&Tell::Ready).await;
                }
                // The stream's connection ended: the next one hears of it.
                None => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Has the stream go on to the place, and opens the shadow's transaction there.
    async fn position(&mut self, seen: &str, lsn: Lsn, hold: bool) -> Result<()> {
        let Some(Asked { want, mut reached, .. }) = self.asked.take() else {
            return Err(Error::protocol("a position without a halt"));
        };
        let seen: SeenBy = seen.parse().map_err(Error::Protocol)?;
        let is_there = match want.send(Wanted { seen, lsn }) {
            Ok(()) => patiently(self.sender, &mut reached).await?,
            Err(_) => None,
        };
        let Some(Reached { exact: true, applied, go_on }) = is_there else {
            return self.sender.send(&Tell::At { exact: false }).await;
        };
        let opened: Option<(PgLsn, Vec<u32>)> = async {
            self.session.batch_execute(BEGIN).await?;
            let row = self.session.query_opt(POSITION, &[]).await?;
            Ok(row.map(|row| (row.get(0), row.get(1))))
        }
        .await
        .map_err(Error::sql("take a snapshot of the shadow"))?;
        let (position, on_hold) = opened.unwrap_or((PgLsn::from(0), Vec::new()));
        // Whoever moved it is not the stream that stands still for us.
        let exact = position == PgLsn::from(applied.0);
        let still = if hold && exact { Stands::Stream { _held: go_on } } else { Stands::No };
        self.place = Some(Place { applied, on_hold, still });
        self.sender.send(&Tell::At { exact }).await
    }

    /// Opens the shadow's transaction in a copy: what stands there now stands there at its end.
    async fn standing(&mut self, copy_id: u64) -> Result<()> {
        self.release().await?;
        let cannot = || Error::sql("take a snapshot of the shadow");
        self.session.batch_execute(BEGIN).await.map_err(cannot())?;
        let ids: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
            [&self.generation.cast_signed(), &copy_id.cast_signed()];
        let exact = self.session.query_opt(IN_COPY, &ids).await.map_err(cannot())?.is_some();
        let still = if exact { Stands::Copy { copy_id } } else { Stands::No };
        self.place = Some(Place { applied: Lsn::INVALID, on_hold: Vec::new(), still });
        self.sender.send(&Tell::At { exact }).await
    }

    /// The position is no longer needed.
    async fn release(&mut self) -> Result<()> {
        self.asked = None;
        if self.place.take().is_some() {
            self.session.batch_execute("ROLLBACK").await.map_err(Error::sql("leave a snapshot"))?;
        }
        Ok(())
    }

    async fn table(&mut self, relation: &Relation) -> Result<()> {
        if self.need_place()?.on_hold.contains(&relation.relid) {
            let reason = "the table is on hold: it is being copied while the stream goes on".to_owned();
            return self.sender.send(&Tell::Failed { relid: relation.relid, reason }).await;
        }
        if let Some(reason) = absent::reason(&*self.session, relation.relid).await? {
            return self.sender.send(&Tell::Failed { relid: relation.relid, reason }).await;
        }
        let mut sums = Sums::default();
        let read = read_rows(&self.session, relation, |row| {
            sums.add(row.hash);
            Ok(())
        })
        .await;
        if read.is_ok() && matches!(self.need_place()?.still, Stands::Copy { .. }) {
            self.rows.insert(relation.relid, sums.rows());
        }
        self.tell(relation, read.map(|()| Tell::Sums { relid: relation.relid, sums })).await
    }

    async fn schema(&mut self, source: &Catalog) -> Result<()> {
        self.need_place()?;
        mark(&self.session).await?;
        let compared = schema::compare(self.shadow, &self.session, source).await;
        back_to_mark(&self.session).await?;
        let answer = match compared {
            Err(error @ Error::Sql { .. }) if !self.session.is_closed() => {
                Tell::Failed { relid: 0, reason: error.to_string() }
            }
            compared => compared?,
        };
        self.sender.send(&answer).await
    }

    async fn rows(&mut self, relation: &Relation, buckets: &[u16]) -> Result<()> {
        self.need_place()?;
        let source = diff::receive(&mut self.reader).await?;
        let mut diff = diff::Diff::new(source, buckets);
        let read = read_rows(&self.session, relation, |row| diff.shadow_has(row.hash)).await;
        if let Err(error) = read {
            return self.tell(relation, Err(error)).await;
        }
        let (counts, keys) = diff.finish();
        let listed = self.keys + keys.len() <= diff::KEPT_KEYS_MAX;
        if listed {
            for part in keys.list().chunks(scry_wire::message::KEYS_MAX) {
                self.sender.send(&Tell::Keys(part.to_vec())).await?;
            }
            self.keys += keys.len();
            if let Some(old) = self.differing.insert(relation.relid, keys) {
                self.keys -= old.len();
            }
        }
        self.sender.send(&Tell::Diff { relid: relation.relid, counts, listed }).await
    }

    async fn ranges(&mut self, relation: &Relation) -> Result<()> {
        self.need_place()?;
        let relid = relation.relid;
        let Some(rows) = self.differing.get(&relid) else {
            return self.sender.send(&Tell::Ranges { relid, lines: Vec::new() }).await;
        };
        mark(&self.session).await?;
        let found = ranges::of_extra(&self.session, relation, rows).await;
        back_to_mark(&self.session).await?;
        self.tell(relation, found.map(|lines| Tell::Ranges { relid, lines })).await
    }

    async fn mend(&mut self, hashed: &Relation, relation: &Relation) -> Result<()> {
        let still = match self.need_place()? {
            Place { applied, still: Stands::Stream { .. }, .. } => mend::Still::Stream { applied: *applied },
            Place { still: Stands::Copy { copy_id }, .. } => {
                mend::Still::Copy { generation: self.generation, copy_id: *copy_id }
            }
            Place { still: Stands::No, .. } => {
                return Err(Error::protocol("rows to mend, but the stream does not stand still"));
            }
        };
        relation_map::check_name(relation)?;
        let Some(keys) = self.differing.remove(&hashed.relid) else {
            return Err(Error::protocol("rows to mend, but none were found to differ"));
        };
        self.keys -= keys.len();
        let table = mend::Table { hashed, relation, keys: &keys };
        let mended = mend::mend(self.shadow, still, &table, &mut self.reader).await?;
        self.tell(relation, mended).await
    }

    /// What was refused of the table up to this place is no difference any more.
    async fn settled(&mut self, relid: u32) -> Result<()> {
        let place = self.need_place()?;
        let at = place.applied;
        let session = self.shadow.owner.open(Purpose::Own).await?.cancelled_on_drop();
        if let Stands::Copy { copy_id } = place.still {
            let rows = self.rows.remove(&relid);
            let rows = rows.ok_or_else(|| Error::protocol("a table is settled that was not hashed"))?;
            former::settle(&session, self.generation, copy_id, relid, rows).await?;
            session.close().await;
            return Ok(());
        }
        quarantine::clear(&*session, &[relid], Some(at)).await?;
        session.close().await;
        self.shadow.marks_changed();
        Ok(())
    }

    fn need_place(&self) -> Result<&Place> {
        self.place.as_ref().ok_or_else(|| Error::protocol("a question without a position"))
    }

    /// Sends the answer. What a table's own statement failed with is an
    /// answer; what ends the session is an error.
    async fn tell(&mut self, relation: &Relation, answer: Result<Tell>) -> Result<()> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error @ Error::Sql { .. }) if !self.session.is_closed() => {
                Tell::Failed { relid: relation.relid, reason: error.to_string() }
            }
            Err(error) => return Err(error),
        };
        self.sender.send(&answer).await
    }
}

/// Reads a table inside the open transaction, and gives its lock back.
async fn read_rows(
    session: &Session,
    relation: &Relation,
    row: impl FnMut(rows::Row) -> Result<()> + Send,
) -> Result<()> {
    relation_map::check_name(relation)?;
    mark(session).await?;
    let read = TableRows::new(relation, false).read(session, row).await;
    back_to_mark(session).await?;
    read
}

async fn mark(session: &Session) -> Result<()> {
    let marked = session.batch_execute("SAVEPOINT scry_verify").await;
    marked.map_err(Error::sql("mark a place in a transaction"))
}

/// Ends what was taken since: locks, settings, an error.
async fn back_to_mark(session: &Session) -> Result<()> {
    let back = "ROLLBACK TO SAVEPOINT scry_verify; RELEASE SAVEPOINT scry_verify";
    session.batch_execute(back).await.map_err(Error::sql("go back to a place in a transaction"))
}

fn ask_of(frame: &Frame) -> Result<Ask> {
    if frame.tag() != Tag::Ask {
        return Err(unexpected(frame, "a question"));
    }
    Ok(Ask::from_frame(frame)?)
}

/// Waits for the stream worker's answer; `None` when it ended without one.
/// Tells the peer from time to time what is waited for.
async fn patiently<T>(sender: &FrameSender, answer: &mut oneshot::Receiver<T>) -> Result<Option<T>> {
    loop {
        match tokio::time::timeout(NOTICE_EVERY, &mut *answer).await {
            Ok(answer) => return Ok(answer.ok()),
            Err(_) => {
                let what = "waiting for the stream of changes to reach the place to compare";
                sender.notice(Level::Info, what).await?;
            }
        }
    }
}

const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// The first query: with it the transaction's snapshot is taken.
const POSITION: &str =
    "SELECT applied_lsn, ARRAY(SELECT relid FROM scry_shadow.hold) FROM scry_shadow.origin";
/// `$1` generation, `$2` round.
const IN_COPY: &str =
    "SELECT FROM scry_shadow.origin WHERE generation = $1 AND copy_id = $2 AND copy_state = 'copying'";
/// What text values depend on beside what every session has.
const SETTINGS: &str = "SET bytea_output = 'hex'; SET synchronize_seqscans = off";
const NOTICE_EVERY: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(100);
