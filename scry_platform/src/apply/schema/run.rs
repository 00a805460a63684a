//! Running the plan.
//!
//! ```text
//! step ──ok──> ledger
//!   └──failed──> again after the others, until a round brings nothing ──> left out
//! ```
//!
//! Before the data steps run one by one. After it, steps of a parallel stage run on
//! several connections; what fails there (two at once can deadlock) is tried again alone
//! at the end.

use super::extensions;
use super::ledger;
use super::plan::{ExtensionNeed, Need, Privileged, Stage, StageName, Step, plan};
use super::quote::ident;
use super::refusal::{Absent, ends_everything, is_taken};
use super::session::{Mark, Session};
use futures_util::future::{join_all, try_join_all};
use scry_wire::catalog::{Catalog, Class, Entry, LeftOut, ObjectId};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Display;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// Why creation stops.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The place of a selected table is taken by something that is not the source's.
    #[error("could not create {object} on the shadow: {message} (SQLSTATE {sqlstate})")]
    Table {
        /// Kind and name.
        object: String,
        /// The shadow's error code.
        sqlstate: String,
        /// The shadow's message.
        message: String,
    },
    /// The shadow could not be spoken to.
    #[error("could not {action} on the shadow: {source}")]
    Shadow {
        /// What was to be done.
        action: &'static str,
        /// What the driver says.
        source: tokio_postgres::Error,
    },
    /// A connection for post-data could not be made.
    #[error("could not connect to the shadow: {0}")]
    Connect(String),
}

/// Where post-data stands.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The stage.
    pub stage: &'static str,
    /// Steps done in all stages.
    pub done: usize,
    /// Steps in all stages.
    pub total: usize,
    /// The step just done: kind and name.
    pub object: String,
}

fn shadow(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> SchemaError {
    move |source| SchemaError::Shadow { action, source }
}

/// Makes everything that rows need.
///
/// `client` must not be in a transaction; its session is left as it was. Extensions that the
/// role of `client` may not create are created through `admin`, a superuser's connection to
/// the same database, if they are on the platform's list. Steps already done by an earlier call with the same catalog
/// are passed over; leftovers of another must be removed by [`drop_all`] first.
///
/// A selected table that cannot be made is [`Absent`]: what is made is what a document without
/// it says.
pub async fn create_pre_data(
    client: &Client,
    admin: Option<&Client>,
    catalog: &Catalog,
) -> Result<PreData, SchemaError> {
    let session = Session::new(client).await.map_err(shadow("ask for privileges"))?;
    let admin = match admin {
        Some(admin) => Some(Session::new(admin).await.map_err(shadow("ask for privileges"))?),
        None => None,
    };
    let mut runner = Runner { session: &session, admin: admin.as_ref(), left_out: Vec::new() };
    let mut absent: BTreeMap<u32, Absent> = BTreeMap::new();
    loop {
        let catalog = without(catalog, &absent);
        let plan = plan(&catalog);
        let done = ledger::open(&session).await.map_err(shadow("read the schema ledger"))?;
        let open: Vec<&Step> = plan.pre_data.iter().filter(|step| !done.contains(&step.key())).collect();
        let failed = blameless(runner.until_no_progress(open).await?)?;
        let found = find_absent(&catalog, &failed)?;
        if found.is_empty() {
            let mut left_out = plan.notes;
            left_out.extend(runner.left_out);
            left_out.extend(failed.iter().map(|(step, error)| refused(step, error)));
            left_out.extend(absent.values().map(|table| LeftOut {
                object: format!("table {}.{}", table.schema, table.name),
                reason: table.reason.clone(),
                sqlstate: None,
            }));
            return Ok(PreData { left_out, absent: absent.into_values().collect() });
        }
        absent.extend(found.into_iter().map(|table| (table.relid, table)));
    }
}

/// What comes of making everything that rows need.
#[derive(Debug, Default)]
pub struct PreData {
    /// What the shadow does not have, or has otherwise; also the tables of `absent`.
    pub left_out: Vec<LeftOut>,
    /// Selected tables that could not be made.
    pub absent: Vec<Absent>,
}

fn without<'c>(catalog: &'c Catalog, absent: &BTreeMap<u32, Absent>) -> Cow<'c, Catalog> {
    if absent.is_empty() {
        return Cow::Borrowed(catalog);
    }
    Cow::Owned(catalog.without(&absent.keys().copied().collect()))
}

/// What failed for a reason that is no word about the statement ends everything.
fn blameless<'p>(mut failed: Failed<'p>) -> Result<Failed<'p>, SchemaError> {
    let ends = |(_, error): &(&Step, tokio_postgres::Error)| error.code().is_some_and(ends_everything);
    match failed.iter().position(ends) {
        Some(place) => Err(shadow("run a statement")(failed.swap_remove(place).1)),
        None => Ok(failed),
    }
}

/// Selected tables that could not be made. Of a tree only the top: those below it may have
/// failed for its sake, and can stand alone.
fn find_absent(catalog: &Catalog, failed: &Failed<'_>) -> Result<Vec<Absent>, SchemaError> {
    let mut found = Vec::new();
    let needed: HashSet<ObjectId> =
        failed.iter().filter(|(step, _)| step.need == Need::Success).map(|(step, _)| step.object).collect();
    for object in catalog.objects.iter().filter(|object| needed.contains(&object.id())) {
        let Entry::Table(table) = &object.entry else { continue };
        let above = |oid: u32| needed.contains(&ObjectId { class: Class::Relation, oid });
        if table.parents.iter().any(|parent| above(parent.oid)) {
            continue;
        }
        let ours = failed.iter().find(|(s, _)| s.object == object.id() && s.need == Need::Success);
        let Some((step, error)) = ours else { continue };
        let LeftOut { object: title, reason, sqlstate } = refused(step, error);
        let sqlstate = sqlstate.unwrap_or_default();
        if is_taken(&sqlstate) {
            return Err(SchemaError::Table { object: title, message: reason, sqlstate });
        }
        found.extend(Absent::of(object, reason));
    }
    Ok(found)
}

/// Makes the rest, once the rows are there: `jobs` connections work side by side.
///
/// `connect` gives connections of the role that ran [`create_pre_data`]. Steps done by an
/// earlier call with the same catalog are passed over.
pub async fn create_post_data<C, F, E>(
    connect: C,
    jobs: usize,
    catalog: &Catalog,
    progress: impl Fn(&Progress),
) -> Result<Vec<LeftOut>, SchemaError>
where
    C: Fn() -> F,
    F: Future<Output = Result<Client, E>>,
    E: Display,
{
    let plan = plan(catalog);
    let clients: Vec<Client> = try_join_all((0..jobs.max(1)).map(|_| connect()))
        .await
        .map_err(|error| SchemaError::Connect(error.to_string()))?;
    let mut sessions = Vec::with_capacity(clients.len());
    for client in &clients {
        sessions.push(Session::new(client).await.map_err(shadow("ask for privileges"))?);
    }
    let Some(first) = sessions.first() else { return Ok(Vec::new()) };
    let done = ledger::open(first).await.map_err(shadow("read the schema ledger"))?;
    let report = Report {
        total: plan.post_data.iter().map(|stage| stage.steps.len()).sum(),
        done: AtomicUsize::new(0),
        progress: &progress,
    };
    let mut left_out = Vec::new();
    let mut failed: Vec<(StageName, &Step)> = Vec::new();
    for stage in &plan.post_data {
        let mut open = open_steps(stage, &done, first, &report, &mut left_out);
        if stage.name.parallel() {
            largest_first(first, &mut open).await.map_err(shadow("ask for the size of tables"))?;
        }
        let width = if stage.name.parallel() { sessions.len() } else { 1 };
        let not_done = run_stage(sessions.iter().take(width), stage.name, open, &report).await?;
        failed.extend(not_done.into_iter().map(|step| (stage.name, step)));
    }
    let mut runner = Runner { session: first, admin: None, left_out };
    // In the order of stages, so that a key is there before the foreign key that needs it.
    let again = failed.iter().map(|(_, step)| *step).collect();
    let failed = blameless(runner.until_no_progress(again).await?)?;
    runner.left_out.extend(failed.iter().map(|(step, error)| refused(step, error)));
    Ok(runner.left_out)
}

/// The steps of [`create_post_data`] that make indexes, by the table that they read: each needs nothing
/// but that table's rows.
#[must_use]
pub fn index_steps(catalog: &Catalog) -> HashMap<u32, Vec<Step>> {
    let tables = catalog.objects.iter().filter_map(|object| match &object.entry {
        Entry::Table(table) => Some(((table.schema.clone(), table.name.clone()), object.oid)),
        _ => None,
    });
    let relids: HashMap<(String, String), u32> = tables.collect();
    let mut steps: HashMap<u32, Vec<Step>> = HashMap::new();
    for stage in plan(catalog).post_data.into_iter().filter(|stage| stage.name == StageName::Indexes) {
        for step in stage.steps.into_iter().filter(|step| step.need == Need::Nothing) {
            let table = step.reads.as_ref().map(|table| (table.schema.clone(), table.name.clone()));
            if let Some(relid) = table.and_then(|table| relids.get(&table)) {
                steps.entry(*relid).or_default().push(step);
            }
        }
    }
    steps
}

/// Runs steps that are not done yet, until one fails.
pub async fn run_steps(client: &Client, steps: &[Step]) -> Result<(), tokio_postgres::Error> {
    let session = Session::new(client).await?;
    let done = ledger::open(&session).await?;
    for step in steps.iter().filter(|step| !done.contains(&step.key())) {
        ledger::run(&session, step).await?;
    }
    Ok(())
}

/// Removes what [`create_pre_data`] and [`create_post_data`] made, the last first.
///
/// What others have built on it since goes with it. What cannot be dropped is named; `admin`
/// is needed for extensions that it made.
pub async fn drop_all(client: &Client, admin: Option<&Client>) -> Result<Vec<LeftOut>, SchemaError> {
    let session = Session::new(client).await.map_err(shadow("ask for privileges"))?;
    let admin = match admin {
        Some(admin) => Some(Session::new(admin).await.map_err(shadow("ask for privileges"))?),
        None => None,
    };
    let undo = ledger::undo_list(&session).await.map_err(shadow("read the schema ledger"))?;
    let mut kept = Vec::new();
    for (seq, sql) in undo {
        let unmark = "DELETE FROM scry_shadow.schema_step WHERE seq >= $1";
        let mut dropped =
            session.transaction([sql.as_str()], Some(Mark { sql: unmark, values: &[&seq] })).await;
        if let (Err(error), Some(admin)) = (&dropped, &admin)
            && error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE)
            && is_a_superusers(&sql)
        {
            dropped = admin.transaction([sql.as_str()], None).await;
        }
        match dropped {
            Err(error) if error.as_db_error().is_none() => return Err(shadow("drop an object")(error)),
            Err(error) => kept.push(LeftOut {
                object: sql,
                reason: message(&error),
                sqlstate: error.code().map(|code| code.code().to_owned()),
            }),
            Ok(()) => {}
        }
    }
    let forget = ["DELETE FROM scry_shadow.schema_step"];
    session.transaction(forget, None).await.map_err(shadow("clear the schema ledger"))?;
    Ok(kept)
}

/// It drops something that only a superuser can own; such statements hold names alone.
fn is_a_superusers(undo: &str) -> bool {
    const KINDS: &[&str] = &[
        "DROP ACCESS METHOD ",
        "DROP CAST ",
        "DROP EVENT TRIGGER ",
        "DROP EXTENSION ",
        "DROP FOREIGN DATA WRAPPER ",
        "DROP TEXT SEARCH PARSER ",
        "DROP TEXT SEARCH TEMPLATE ",
        "DROP TRANSFORM ",
        "DROP TYPE ",
    ];
    KINDS.iter().any(|kind| undo.starts_with(kind))
}

struct Report<'a, P: Fn(&Progress)> {
    total: usize,
    done: AtomicUsize,
    progress: &'a P,
}

impl<P: Fn(&Progress)> Report<'_, P> {
    fn step(&self, stage: StageName, object: String) {
        let done = self.done.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        (self.progress)(&Progress { stage: stage.as_str(), done, total: self.total, object });
    }
}

fn open_steps<'p, P: Fn(&Progress)>(
    stage: &'p Stage,
    done: &HashSet<String>,
    session: &Session<'_>,
    report: &Report<'_, P>,
    left_out: &mut Vec<LeftOut>,
) -> Vec<&'p Step> {
    let mut open = Vec::new();
    for step in &stage.steps {
        if step.need == Need::BypassRowSecurity && !session.bypasses_row_security {
            left_out.push(LeftOut {
                object: step.title(),
                reason: "the shadow's role would be bound by it; give that role BYPASSRLS to have it"
                    .to_owned(),
                sqlstate: None,
            });
            report.step(stage.name, step.title());
        } else if done.contains(&step.key()) {
            report.step(stage.name, step.title());
        } else {
            open.push(step);
        }
    }
    open
}

/// The longest work first, so that it does not end alone.
async fn largest_first(session: &Session<'_>, open: &mut [&Step]) -> Result<(), tokio_postgres::Error> {
    if open.len() < 2 {
        return Ok(());
    }
    let sql = "SELECT n.nspname::text, c.relname::text, pg_catalog.pg_relation_size(c.oid) \
         FROM pg_catalog.pg_class AS c \
         JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
         WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,m}'::\"char\"[]) \
           AND c.oid OPERATOR(pg_catalog.>=) 16384::oid";
    let rows = session.client().query(sql, &[]).await?;
    let sizes: HashMap<(String, String), i64> = rows
        .iter()
        .map(|row| ((row.get(0), row.get(1)), row.get::<_, Option<i64>>(2).unwrap_or(0)))
        .collect();
    let size = |step: &Step| {
        let table = step.reads.as_ref().map(|table| (table.schema.clone(), table.name.clone()));
        table.and_then(|table| sizes.get(&table).copied()).unwrap_or(0)
    };
    open.sort_by_cached_key(|step| std::cmp::Reverse(size(step)));
    Ok(())
}

/// Runs a stage on the sessions given, and returns what failed, in its order.
async fn run_stage<'p, 's, P: Fn(&Progress)>(
    sessions: impl Iterator<Item = &'s Session<'s>>,
    name: StageName,
    open: Vec<&'p Step>,
    report: &Report<'_, P>,
) -> Result<Vec<&'p Step>, SchemaError> {
    let queue: Mutex<VecDeque<(usize, &Step)>> = Mutex::new(open.into_iter().enumerate().collect());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let workers = sessions.map(|session| async {
        let mut failed = Vec::new();
        while let Some((place, step)) = next() {
            match ledger::run(session, step).await {
                Err(error) if error.as_db_error().is_none() => {
                    return Err(shadow("run a statement")(error));
                }
                Err(_) => failed.push((place, step)),
                Ok(()) => {}
            }
            report.step(name, step.title());
        }
        Ok(failed)
    });
    let mut failed = Vec::new();
    for result in join_all(workers).await {
        failed.extend(result?);
    }
    failed.sort_by_key(|(place, _)| *place);
    Ok(failed.into_iter().map(|(_, step)| step).collect())
}

type Failed<'p> = Vec<(&'p Step, tokio_postgres::Error)>;

struct Runner<'a> {
    session: &'a Session<'a>,
    admin: Option<&'a Session<'a>>,
    left_out: Vec<LeftOut>,
}

impl Runner<'_> {
    async fn until_no_progress<'p>(&mut self, steps: Vec<&'p Step>) -> Result<Failed<'p>, SchemaError> {
        let mut open = steps;
        loop {
            let tried = open.len();
            let mut failed: Failed<'p> = Vec::new();
            for step in open {
                match self.step(step).await {
                    Err(error) if error.as_db_error().is_none() => {
                        return Err(shadow("run a statement")(error));
                    }
                    Err(error) => failed.push((step, error)),
                    Ok(()) => {}
                }
            }
            if failed.is_empty() || failed.len() == tried {
                return Ok(failed);
            }
            open = failed.into_iter().map(|(step, _)| step).collect();
        }
    }

    async fn step(&mut self, step: &Step) -> Result<(), tokio_postgres::Error> {
        match &step.need {
            Need::Extension(extension) => self.extension(step, extension).await,
            Need::Superuser(privileged) => match self.superuser(step, privileged).await {
                Err(error) if privileged.optional && error.as_db_error().is_some() => Ok(()),
                other => other,
            },
            Need::MayExist => match ledger::run(self.session, step).await {
                Err(error) if error.code() == Some(&SqlState::DUPLICATE_SCHEMA) => Ok(()),
                other => other,
            },
            Need::Nothing | Need::Success | Need::BypassRowSecurity => ledger::run(self.session, step).await,
        }
    }

    /// By the role itself if it may, else by the superuser if that does no harm.
    async fn superuser(&self, step: &Step, privileged: &Privileged) -> Result<(), tokio_postgres::Error> {
        let Some(admin) = self.admin else { return ledger::run(self.session, step).await };
        if !privileged.first {
            match ledger::run(self.session, step).await {
                Err(error) if error.as_db_error().is_some() => {
                    let harmless = match &privileged.guard {
                        Some(guard) => admin.asks(guard).await?,
                        None => true,
                    };
                    if !harmless {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
        let own = ident(&self.session.role);
        let owner = privileged.owner.as_ref().map(|alter| format!("{alter} OWNER TO {own}"));
        let statements = if privileged.instead.is_empty() { &step.sql } else { &privileged.instead };
        ledger::mark(admin, step, statements.iter().chain(&owner).map(String::as_str)).await
    }

    async fn extension(
        &mut self,
        step: &Step,
        extension: &ExtensionNeed,
    ) -> Result<(), tokio_postgres::Error> {
        let allowed = extensions::superuser_may_create(&extension.name);
        let exact = step.sql.first().map_or("", String::as_str);
        if let Err(error) = self.privileged(exact, allowed).await {
            // An update script or the version is missing on the shadow.
            if error.code() != Some(&SqlState::INVALID_PARAMETER_VALUE) {
                return Err(error);
            }
            self.privileged(&extension.any_version, allowed).await?;
            self.left_out.push(LeftOut {
                object: step.describe.clone(),
                reason: format!(
                    "version {} is not available on the shadow; its default version is there",
                    extension.version
                ),
                sqlstate: None,
            });
        }
        ledger::mark(self.session, step, []).await?;
        if let Some((sql, text)) = &extension.comment {
            self.extension_comment(step, sql, text, allowed).await?;
        }
        Ok(())
    }

    /// By the role itself if it may, else by the superuser if that is allowed.
    async fn privileged(&self, sql: &str, allowed: bool) -> Result<(), tokio_postgres::Error> {
        let own = self.session.transaction([sql], None).await;
        match (own, self.admin) {
            (Err(error), Some(admin))
                if allowed && error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) =>
            {
                admin.transaction([sql], None).await
            }
            (own, _) => own,
        }
    }

    async fn extension_comment(
        &mut self,
        step: &Step,
        sql: &str,
        text: &str,
        allowed: bool,
    ) -> Result<(), tokio_postgres::Error> {
        let found = "SELECT FROM pg_catalog.pg_description AS d \
             WHERE d.classoid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass \
               AND d.description OPERATOR(pg_catalog.=) $1";
        if !self.session.client().query(found, &[&text]).await?.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.privileged(sql, allowed).await {
            let refused = refused(step, &error);
            self.left_out.push(LeftOut { object: format!("comment on {}", step.describe), ..refused });
        }
        Ok(())
    }
}

fn refused(step: &Step, error: &tokio_postgres::Error) -> LeftOut {
    let mut reason = message(error);
    if let (Need::Extension(extension), Some(&SqlState::INSUFFICIENT_PRIVILEGE)) = (&step.need, error.code())
        && !extensions::superuser_may_create(&extension.name)
    {
        reason.push_str("; it is not among those that the platform creates: create it on the shadow by hand");
    }
    if let Need::Superuser(privileged) = &step.need
        && !privileged.otherwise.is_empty()
    {
        reason.push_str("; ");
        reason.push_str(privileged.otherwise);
    }
    LeftOut { object: step.title(), reason, sqlstate: error.code().map(|code| code.code().to_owned()) }
}

/// The primary message only: details can hold keys of rows.
fn message(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}
