//! Indexes of tables that are complete while others are still copied.
//!
//! ```text
//! lead: the schema is made ─► begin (which steps read which table)
//! copy: a table's last chunk is committed ─► complete ─► its indexes, on a session of their own
//! lead: CopyFinish ─► settle (none is under way any more) ─► post-data: what is not made yet
//! ```
//!
//! A copy waits for rows on their way, and at its end for the largest table alone; building an index
//! is processor work that fills that time. Invariants: only tables whose ledger is complete are
//! touched; each step writes itself into `scry_shadow.schema_step` in its transaction, so that
//! post-data passes over it; whatever fails here is tried again there, where it is told. A helper holds
//! the helpers' lock: a leader that comes after a crash waits for it.
//! What it does not do: anything but indexes. Keys over them, constraints and the rest cost little or
//! need other tables.

use super::lead::{helpers_lock, on_own_thread};
use super::schema::{self, Step};
use crate::accept::link::FrameSender;
use crate::shadow::{Purpose, Shadow};
use crate::{Error, Result};
use scry_wire::catalog::Catalog;
use scry_wire::message::{ChunkStart, CopyProgress};
use std::collections::HashMap;
use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::task::JoinSet;

/// The indexes of one shadow's copy that are made before its end.
pub struct Early {
    plan: Mutex<Plan>,
    helpers: AsyncMutex<JoinSet<()>>,
    places: Arc<Semaphore>,
}

/// The steps that are not begun, by the table that they read.
#[derive(Default)]
struct Plan {
    copy_id: u64,
    steps: HashMap<u32, Vec<Step>>,
}

impl Default for Early {
    fn default() -> Self {
        let places = std::thread::available_parallelism().map_or(1, NonZero::get);
        Early {
            plan: Mutex::default(),
            helpers: AsyncMutex::default(),
            places: Arc::new(Semaphore::new(places.min(HELPERS_MAX))),
        }
    }
}

impl Early {
    /// Another copy begins: of this document, whose tables have no indexes yet.
    pub fn begin(&self, copy_id: u64, catalog: &Catalog) {
        *self.lock() = Plan { copy_id, steps: schema::index_steps(catalog) };
    }

    /// The copy has no schema of its own to complete.
    pub fn forget(&self) {
        *self.lock() = Plan::default();
    }

    fn take(&self, start: &ChunkStart) -> Option<Vec<Step>> {
        let mut plan = self.lock();
        let steps = (plan.copy_id == start.copy_id).then(|| plan.steps.remove(&start.relation.relid));
        steps.flatten().filter(|steps| !steps.is_empty())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`settle`](Self::settle), before a copy ends: the source sees what that waits for.
    pub async fn settle_before(&self, sender: &FrameSender) -> Result<()> {
        let under_way = {
            let mut helpers = self.helpers.lock().await;
            while helpers.try_join_next().is_some() {}
            helpers.len()
        };
        if under_way > 0 {
            let current = format!("indexes of {under_way} tables whose rows were complete early");
            let total = u32::try_from(under_way).unwrap_or(u32::MAX);
            sender.send(&CopyProgress { done: 0, total, current }).await?;
        }
        self.settle().await;
        Ok(())
    }

    /// Waits until no index is being made any more; none is begun after that.
    pub async fn settle(&self) {
        self.forget();
        let mut helpers = self.helpers.lock().await;
        while helpers.join_next().await.is_some() {}
    }
}

/// A chunk of `bytes` is committed: if its table is complete by that, its indexes are begun.
pub async fn chunk_committed(shadow: &Arc<Shadow>, start: &ChunkStart, bytes: u64) -> Result<()> {
    // Many small tables are quicker done together, at the end.
    if start.chunks == 1 && bytes < WORTH_BYTES {
        return Ok(());
    }
    if start.chunks > 1 && !is_complete(shadow, start).await? {
        return Ok(());
    }
    let Some(steps) = shadow.early.take(start) else { return Ok(()) };
    let (of, start) = (shadow.clone(), start.clone());
    let places = shadow.early.places.clone();
    let mut helpers = shadow.early.helpers.lock().await;
    helpers.spawn(async move {
        let Ok(_place) = places.acquire().await else { return };
        let table = super::relation_map::full_name(&start.relation);
        if let Err(error) = make(of, start, steps).await {
            tracing::debug!(table, %error, "indexes are left to the end of the copy");
        }
    });
    Ok(())
}

async fn is_complete(shadow: &Shadow, start: &ChunkStart) -> Result<bool> {
    let session = shadow.owner.open(Purpose::Own).await?.cancelled_on_drop();
    let complete = is_complete_by(&session, start).await;
    session.close().await;
    complete
}

/// By the ledger, of the copy that is under way.
async fn is_complete_by(session: &tokio_postgres::Client, start: &ChunkStart) -> Result<bool> {
    let sql = "SELECT FROM scry_shadow.origin WHERE copy_id = $2 AND copy_state = 'copying' \
               AND (SELECT count(*) FROM scry_shadow.chunk WHERE relid = $1) = $3";
    let (copy_id, chunks) = (start.copy_id.cast_signed(), i64::from(start.chunks));
    let row = session.query_opt(sql, &[&start.relation.relid, &copy_id, &chunks]).await;
    row.map(|row| row.is_some()).map_err(Error::sql("read scry_shadow.chunk"))
}

async fn make(shadow: Arc<Shadow>, start: ChunkStart, steps: Vec<Step>) -> Result<()> {
    on_own_thread(async move || {
        let session = shadow.owner.open(Purpose::Own).await?.cancelled_on_drop();
        session.batch_execute(&helpers_lock()).await.map_err(Error::sql("begin work on the schema"))?;
        let parallel = format!("SET max_parallel_maintenance_workers = {}", parallel_workers());
        session.batch_execute(&parallel).await.map_err(Error::sql("begin work on the schema"))?;
        // Whoever would empty the table again waits for the lock, or has been there before.
        if is_complete_by(&session, &start).await? {
            schema::run_steps(&session, &steps).await.map_err(Error::sql("make the indexes of a table"))?;
        }
        session.close().await;
        Ok(())
    })
    .await?
}

/// Processors that the copy leaves, one of them the helper's own. A sort by several processes goes
/// through files, which costs more than it gains where there are none to spare.
fn parallel_workers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors / 2).saturating_sub(1).min(PARALLEL_MAX)
}

/// The server's own default.
const PARALLEL_MAX: usize = 2;
/// A chunk that holds a whole table is worth a session for its indexes from so many bytes on.
const WORTH_BYTES: u64 = 8 << 20;
/// Each of them may have parallel workers of the server's own.
const HELPERS_MAX: usize = 4;
