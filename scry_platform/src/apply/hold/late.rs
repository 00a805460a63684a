//! The leader's side of a late copy.
//!
//! ```text
//! LateCopy ─► on hold, and before the snapshot? ─► old copiers out, tables emptied ─► CatalogApplied
//! CopyFinish ─► counts agree with the ledger? ─► 'copied' ─► the stream drains ─► CopyFinished
//! ```
//!
//! A table that is not on hold is whole: the worker begins a round only after
//! the shadow has confirmed the transaction that put its tables on hold. So a
//! leader that was away when its round ended learns it here.
//!
//! Invariants: rows of two snapshots never meet in a table (another round
//! empties it first, when no chunk of the old one is under way); a snapshot
//! that may not have seen what came before the hold is refused.

use super::{Hold, State, all, empty};
use crate::accept::link::FrameSender;
use crate::apply::lead;
use crate::origin;
use crate::shadow::{Purpose, Session, Shadow};
use crate::{Error, Result};
use scry_wire::catalog::Catalog;
use scry_wire::message::{
    CatalogApplied, CopiedTable, CopyFinish, CopyFinished, CopyProgress, CopyState, Hello, LateCopy,
};
use scry_wire::{Lsn, SeenBy};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::types::PgLsn;

/// The late copy that a leader's connection has begun.
#[derive(Debug)]
pub struct Round {
    copy_id: u64,
    relids: Vec<u32>,
    catalog: Catalog,
}

/// Begins a round, or finds it begun. The receipt names these tables only.
pub async fn begin(
    shadow: &Shadow,
    hello: &Hello,
    session: &Session,
    late: &LateCopy,
) -> Result<(Round, CatalogApplied)> {
    let origin = shadow.refresh(session).await?;
    let applied = origin.as_ref().map_or(Lsn::INVALID, |o| o.applied_lsn_of(hello.generation));
    let state = origin.map_or(CopyState::None, |o| o.copy_state_of(hello.generation));
    if state != CopyState::Copied {
        return Err(Error::Busy("tables are copied late, but the first copy is not complete".to_owned()));
    }
    if applied < late.from_lsn {
        // A hold may be on its way here, and its table is not whole.
        return Err(Error::Busy(format!("the stream has not brought all before {} yet", late.from_lsn)));
    }
    late.snapshot.parse::<SeenBy>().map_err(Error::protocol)?;
    let catalog = lead::stored_catalog(session)
        .await?
        .ok_or_else(|| Error::protocol("tables are copied late, but there is no catalog"))?;
    let held = held(session, &late.relids).await?;
    let is_begun = |hold: &Hold| hold.state != State::Waiting && hold.copy_id == late.copy_id;
    if !held.values().all(is_begun) {
        let everybody_out = shadow.copies.clear().await?;
        begin_anew(shadow, late, &catalog).await?;
        drop(everybody_out);
        shadow.holds_changed();
    }
    let receipt = receipt(session, &late.relids, &held).await?;
    Ok((Round { copy_id: late.copy_id, relids: late.relids.clone(), catalog }, receipt))
}

async fn held(session: &Session, relids: &[u32]) -> Result<HashMap<u32, Hold>> {
    let holds = all(&**session).await?.into_iter();
    Ok(holds.filter(|hold| relids.contains(&hold.relid)).map(|hold| (hold.relid, hold)).collect())
}

async fn begin_anew(shadow: &Shadow, late: &LateCopy, catalog: &Catalog) -> Result<()> {
    // Foreign keys are silent in a session for changes.
    let session = shadow.owner.open(Purpose::Apply).await?.cancelled_on_drop();
    session.batch_execute("BEGIN").await.map_err(Error::sql("begin"))?;
    let rows = session.query(LOCK_HOLDS, &[&late.relids]).await.map_err(Error::sql("lock the hold"))?;
    let held: Vec<(u32, PgLsn)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let names = lead::table_names(catalog);
    let name = |relid: &u32| names.get(relid).cloned().unwrap_or_else(|| format!("relation {relid}"));
    if let Some((relid, _)) = held.iter().find(|(_, since)| u64::from(*since) >= late.from_lsn.0) {
        return Err(Error::Busy(format!("the snapshot is older than the hold of {}", name(relid))));
    }
    let relids: Vec<u32> = held.into_iter().map(|(relid, _)| relid).collect();
    let list: Vec<&str> = relids.iter().filter_map(|relid| names.get(relid)).map(String::as_str).collect();
    if !list.is_empty() {
        empty(&session, &list).await?;
    }
    let sql = "DELETE FROM scry_shadow.chunk WHERE relid = ANY ($1)";
    session.execute(sql, &[&relids]).await.map_err(Error::sql("clear the ledger of late tables"))?;
    let until = PgLsn::from(late.until_lsn.0);
    session
        .execute(BEGIN_ROUND, &[&relids, &late.copy_id.cast_signed(), &late.snapshot, &until])
        .await
        .map_err(Error::sql("write scry_shadow.hold"))?;
    session.batch_execute("COMMIT").await.map_err(Error::sql("commit the late copy's begin"))?;
    session.close().await;
    tracing::info!(shadow = %shadow.database, copy_id = late.copy_id, tables = relids.len(), "late copy begins");
    Ok(())
}

async fn receipt(session: &Session, relids: &[u32], held: &HashMap<u32, Hold>) -> Result<CatalogApplied> {
    let ledger = origin::ledger(&**session).await?;
    let mut tables = Vec::new();
    for relid in relids {
        let line = ledger.iter().find(|line| line.copied.relid == *relid);
        match (line, held.contains_key(relid)) {
            (Some(line), true) if line.is_complete() => tables.push(line.copied),
            (_, true) => {}
            (line, false) => {
                let none = CopiedTable { relid: *relid, chunks: 0, rows: 0 };
                tables.push(line.map_or(none, |line| line.copied));
            }
        }
    }
    let mut chunks = origin::chunks(&**session).await?;
    chunks.retain(|chunk| relids.contains(&chunk.relid));
    Ok(CatalogApplied { tables, chunks, ..CatalogApplied::default() })
}

/// Waits until the round can no longer come to anything, and says why: a table
/// of it was put on hold once more. Without a round it waits for ever.
pub async fn over(shadow: &Shadow, session: &Session, round: Option<&Round>) -> Result<Error> {
    let Some(round) = round else { return std::future::pending().await };
    let mut watch = shadow.watch_holds();
    loop {
        watch.mark_unchanged();
        if let Some(hold) = held(session, &round.relids).await?.values().find(|h| h.copy_id != round.copy_id)
        {
            return Ok(begun_anew(hold));
        }
        watch.changed().await.map_err(|_| Error::Stopping)?;
    }
}

fn begun_anew(hold: &Hold) -> Error {
    Error::Busy(match hold.why.as_str() {
        "" => "a table of the late copy was put on hold again".to_owned(),
        why => format!("a table that was copied late must be copied again: {why}"),
    })
}

/// Completes the round: when the answer goes out, its tables are live.
pub async fn finish(
    shadow: &Arc<Shadow>,
    session: &Session,
    round: &Round,
    finish: &CopyFinish,
    sender: &FrameSender,
) -> Result<()> {
    let mut watch = shadow.watch_holds();
    let held = held(session, &round.relids).await?;
    let is_held = |relid: u32| held.contains_key(&relid);
    let sent: Vec<CopiedTable> = finish.tables.iter().copied().filter(|t| is_held(t.relid)).collect();
    let relids: Vec<u32> = sent.iter().map(|table| table.relid).collect();
    let mut ledger = origin::ledger(&**session).await?;
    ledger.retain(|line| relids.contains(&line.copied.relid));
    lead::check_counts(&ledger, &sent, &round.catalog)?;
    session
        .execute(END_ROUND, &[&relids, &round.copy_id.cast_signed()])
        .await
        .map_err(Error::sql("write scry_shadow.hold"))?;
    shadow.holds_changed();
    loop {
        watch.mark_unchanged();
        let waiting = self::held(session, &relids).await?;
        if let Some(hold) = waiting.values().find(|hold| hold.copy_id != round.copy_id) {
            return Err(begun_anew(hold));
        }
        let Some(until) = waiting.values().map(|hold| hold.until).max() else { break };
        let done = u32::try_from(relids.len() - waiting.len()).unwrap_or(u32::MAX);
        let total = u32::try_from(relids.len()).unwrap_or(u32::MAX);
        // Also finds out that the leader is gone.
        sender.send(&CopyProgress { done, total, current: format!("the stream must reach {until}") }).await?;
        let _ = tokio::time::timeout(FINISH_TICK, watch.changed()).await;
    }
    let names: Vec<String> = lead::table_names(&round.catalog)
        .into_iter()
        .filter(|(relid, _)| relids.contains(relid))
        .map(|(_, name)| name)
        .collect();
    tokio::spawn(lead::analyze(shadow.clone(), names));
    sender.send(&CopyFinished::default()).await
}

const LOCK_HOLDS: &str =
    "SELECT relid, since_lsn FROM scry_shadow.hold WHERE relid = ANY ($1) ORDER BY relid FOR UPDATE";

const BEGIN_ROUND: &str = "UPDATE scry_shadow.hold SET state = 'copying', copy_id = $2, snapshot = $3, \
    until_lsn = $4, why = '' WHERE relid = ANY ($1)";

const END_ROUND: &str = "UPDATE scry_shadow.hold SET state = 'copied' \
    WHERE relid = ANY ($1) AND copy_id = $2 AND state = 'copying'";

const FINISH_TICK: Duration = Duration::from_secs(1);
