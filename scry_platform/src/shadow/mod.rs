//! Which shadows there are, whose they are, and who speaks for them.
//!
//! ```text
//!   Shadows ─┬─ embedded: a cluster of our own; a database for every job
//!            └─ external: one database somewhere; one job
//!     └─ Shadow: connectors, origin as last read, leases of the roles
//! ```
//!
//! A job is found by (system_identifier, database_oid, job). What a shadow
//! holds stands in the shadow itself ([`crate::origin`]); what is here is the
//! last reading of it, and ends with the process.

pub mod embedded;
mod external;
mod files;
pub mod lease;
pub mod loader;
mod programs;
pub mod server;
mod session;
mod tls;
mod warm;

pub use external::External;
pub use files::Files;
pub use session::{Connector, Purpose, Session};
pub use warm::warm;

use crate::apply::applier::{self, Journaling, Seat};
use crate::apply::early::Early;
use crate::apply::halt::Halts;
use crate::apply::keep;
use crate::origin::{self, Origin};
use crate::{Error, Result};
use embedded::Embedded;
use lease::{Lease, Pool};
use scry_wire::message::Hello;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::watch;

/// Where shadows live.
pub enum Backend {
    /// A cluster of our own.
    Embedded(Box<Embedded>),
    /// One database somewhere.
    External(Box<External>),
}

/// Every shadow of this platform.
pub struct Shadows {
    backend: Backend,
    journaling: Option<Arc<Journaling>>,
    list: tokio::sync::Mutex<Vec<Arc<Shadow>>>,
}

/// One shadow: a database, bound to a job or still free.
pub struct Shadow {
    /// The database's name.
    pub database: String,
    /// Sessions as the role that owns the shadow and applies.
    pub owner: Connector,
    /// Sessions as a superuser, where there is one: extensions only.
    pub admin: Option<Connector>,
    /// The stream's seat.
    pub stream: Lease,
    /// The snapshot leader's seat.
    pub lead: Lease,
    /// The snapshot workers' seats.
    pub copies: Pool,
    /// Seats of sessions that compare both sides.
    pub verifiers: Pool,
    /// Where they ask the stream to stand still.
    pub halts: Halts,
    /// Where its applier sits, when there is a journal.
    pub seat: Seat,
    /// Indexes that are made while others are still copied.
    pub early: Early,
    /// Rows came as they are stored that were not taken: all are to come otherwise, also those that
    /// are refused again then, and are told.
    pub refuses_stored: AtomicBool,
    /// How journals are kept; `None` without them.
    pub journaling: Option<Arc<Journaling>>,
    /// What the API tells beside the origin.
    pub news: News,
    origin: watch::Sender<Option<Origin>>,
    holds: watch::Sender<u64>,
    marks: watch::Sender<u64>,
    stopped_at: AtomicU64,
}

/// What happened to a shadow lately.
#[derive(Debug, Default)]
pub struct News {
    last: Mutex<Last>,
    rows: AtomicU64,
}

/// The latest of each kind of event.
#[derive(Debug, Default, Clone)]
pub struct Last {
    /// When changes were committed.
    pub applied_at: Option<SystemTime>,
    /// What ended a connection with an error, and when; cleared by success.
    pub error: Option<(String, SystemTime)>,
}

impl News {
    /// Changes were committed.
    pub fn applied(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.applied_at = Some(SystemTime::now());
        last.error = None;
    }

    /// A connection ended with an error.
    pub fn failed(&self, message: String) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.error = Some((message, SystemTime::now()));
    }

    /// The latest of each kind.
    pub fn last(&self) -> Last {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Rows applied since the platform started.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

impl Shadow {
    fn new(
        owner: Connector,
        admin: Option<Connector>,
        origin: Option<Origin>,
        journaling: Option<Arc<Journaling>>,
    ) -> Self {
        Shadow {
            database: owner.database().to_owned(),
            owner,
            admin,
            stream: Lease::default(),
            lead: Lease::default(),
            copies: Pool::new(COPY_CONNECTIONS_MAX),
            verifiers: Pool::new(VERIFIERS_MAX),
            halts: Halts::default(),
            seat: Seat::default(),
            early: Early::default(),
            refuses_stored: AtomicBool::new(false),
            journaling,
            news: News::default(),
            origin: watch::Sender::new(origin),
            holds: watch::Sender::new(0),
            marks: watch::Sender::new(0),
            stopped_at: AtomicU64::new(0),
        }
    }

    /// The origin as last read.
    pub fn origin(&self) -> Option<Origin> {
        self.origin.borrow().clone()
    }

    /// Follows the origin.
    pub fn watch(&self) -> watch::Receiver<Option<Origin>> {
        self.origin.subscribe()
    }

    /// Follows the tables on hold: a number that moves when `scry_shadow.hold` does.
    pub fn watch_holds(&self) -> watch::Receiver<u64> {
        self.holds.subscribe()
    }

    /// `scry_shadow.hold` has changed.
    pub fn holds_changed(&self) {
        self.holds.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Follows `scry_shadow.quarantined` as others than the stream change it.
    pub fn watch_marks(&self) -> watch::Receiver<u64> {
        self.marks.subscribe()
    }

    /// Somebody has cleared marks in `scry_shadow.quarantined`.
    pub fn marks_changed(&self) {
        self.marks.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// The stream has met a change that the shadow refuses: in the transaction
    /// that commits at `lsn`, or before it.
    pub fn stopped_at(&self, lsn: scry_wire::Lsn) {
        self.stopped_at.store(lsn.0, Ordering::Relaxed);
    }

    /// Up to where transactions should be committed one by one, so that all
    /// before the refused change is there.
    pub fn commits_singly_to(&self) -> scry_wire::Lsn {
        scry_wire::Lsn(self.stopped_at.load(Ordering::Relaxed))
    }

    /// Reads the origin again through `client` and tells who watches.
    pub async fn refresh(&self, client: &tokio_postgres::Client) -> Result<Option<Origin>> {
        let origin = origin::load(client).await?;
        self.origin.send_replace(origin.clone());
        Ok(origin)
    }

    /// The position moved to `lsn`, on a timeline of the source, after `rows` changes.
    pub fn advanced(&self, lsn: scry_wire::Lsn, timeline: u32, rows: u64) {
        self.origin.send_modify(|origin| {
            if let Some(origin) = origin {
                origin.applied_lsn.advance(lsn);
                origin.timeline = origin.timeline.max(timeline);
                origin.rows_applied += rows;
            }
        });
        self.news.applied(rows);
    }
}

impl Shadows {
    /// Reads what the shadows of `backend` hold, and goes on with their journals.
    pub async fn open(backend: Backend, journaling: Option<Arc<Journaling>>) -> Result<Self> {
        let list = match &backend {
            Backend::Embedded(embedded) => {
                let mut list = Vec::new();
                for database in embedded.databases().await? {
                    let (owner, admin) = (embedded.owner(&database), embedded.admin(&database));
                    list.push(Arc::new(prepare(owner, Some(admin), journaling.clone()).await?));
                }
                list
            }
            Backend::External(external) => {
                vec![Arc::new(prepare(external.owner().clone(), None, journaling.clone()).await?)]
            }
        };
        if let Some(journaling) = &journaling {
            for shadow in &list {
                if let Err(error) = applier::resume(shadow, journaling).await {
                    // The next connection meets it again, and tells the source.
                    tracing::error!(shadow = %shadow.database, %error, "could not go on with the journal");
                }
            }
        }
        Ok(Shadows { backend, journaling, list: tokio::sync::Mutex::new(list) })
    }

    /// Every shadow.
    pub async fn all(&self) -> Vec<Arc<Shadow>> {
        self.list.lock().await.clone()
    }

    /// Whether the shadows' server answers.
    pub async fn is_ready(&self) -> bool {
        let first = self.list.lock().await.first().cloned();
        let Some(shadow) = first else { return false };
        match tokio::time::timeout(READY_TIMEOUT, shadow.owner.client()).await {
            Ok(Ok((client, _task))) => client.batch_execute("").await.is_ok(),
            _ => false,
        }
    }

    /// The shadow of `hello`'s job: the one bound to it, else a free one that
    /// is bound to it now, else (embedded) a new database.
    pub async fn assign(&self, hello: &Hello) -> Result<Arc<Shadow>> {
        let mut list = self.list.lock().await;
        let bound = list.iter().find(|s| s.origin.borrow().as_ref().is_some_and(|o| o.is_of(hello)));
        if let Some(shadow) = bound {
            let shadow = shadow.clone();
            check_timeline(&shadow, hello)?;
            return Ok(shadow);
        }
        let free = list.iter().find(|s| s.origin.borrow().is_none()).cloned();
        let shadow = match (free, &self.backend) {
            (Some(shadow), _) => shadow,
            (None, Backend::External(_)) => return Err(self.taken(&list, hello)),
            (None, Backend::Embedded(embedded)) => {
                let names: Vec<String> = list.iter().map(|s| s.database.clone()).collect();
                let database = embedded.create(&names, &hello.database, &hello.job).await?;
                let (owner, admin) = (embedded.owner(&database), embedded.admin(&database));
                let shadow = Arc::new(prepare(owner, Some(admin), self.journaling.clone()).await?);
                list.push(shadow.clone());
                shadow
            }
        };
        let session = shadow.owner.open(Purpose::Own).await?;
        let bound = origin::bind(&*session, hello).await;
        // Also when it failed: another platform may have bound an external shadow.
        shadow.refresh(&session).await?;
        bound?;
        session.close().await;
        tracing::info!(shadow = %shadow.database, database = %hello.database, job = %hello.job, "shadow bound");
        Ok(shadow)
    }

    fn taken(&self, list: &[Arc<Shadow>], hello: &Hello) -> Error {
        let holder = list.iter().find_map(|s| s.origin());
        let whose = holder.map_or_else(
            || "another job".to_owned(),
            |o| {
                format!(
                    "job \"{}\" of database \"{}\" (system identifier {})",
                    o.job, o.database, o.system_identifier
                )
            },
        );
        Error::Identity {
            message: format!(
                "the shadow belongs to {whose}; job \"{}\" of database \"{}\" (system identifier {}) cannot use it",
                hello.job, hello.database, hello.system_identifier
            ),
            hint: "Give each job a platform with its own --shadow-url, or use an embedded shadow, which \
                   makes a database for each job. To give this shadow up: DROP SCHEMA scry_shadow CASCADE."
                .to_owned(),
        }
    }

    /// Stops what this platform started.
    pub async fn stop(&self) {
        if let Backend::Embedded(embedded) = &self.backend {
            embedded.stop().await;
        }
    }
}

/// A source on an older timeline than one heard before was restored from a
/// backup: its WAL positions mean something else.
fn check_timeline(shadow: &Shadow, hello: &Hello) -> Result<()> {
    let known = shadow.origin.borrow().as_ref().map_or(0, |o| o.timeline);
    if hello.timeline >= known {
        return Ok(());
    }
    Err(Error::Identity {
        message: format!(
            "the source is on timeline {}, but the shadow has followed it on timeline {known}",
            hello.timeline
        ),
        hint: "The source was restored from an older backup; start the job under another name.".to_owned(),
    })
}

async fn prepare(
    owner: Connector,
    admin: Option<Connector>,
    journaling: Option<Arc<Journaling>>,
) -> Result<Shadow> {
    let mut session = owner.open(Purpose::Apply).await?;
    origin::migrate(&mut session).await?;
    let origin = origin::load(&*session).await?;
    // An earlier platform may have been killed before it did.
    keep::flush(&session).await?;
    session.close().await;
    if let Some(admin) = &admin {
        loader::install(admin, owner.role()).await;
    }
    Ok(Shadow::new(owner, admin, origin, journaling))
}

/// Snapshot workers of one shadow: each has a session on it.
const COPY_CONNECTIONS_MAX: u32 = 32;
/// Sessions that compare one shadow at a time: each has two sessions on it.
const VERIFIERS_MAX: u32 = 4;
const READY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(3);
