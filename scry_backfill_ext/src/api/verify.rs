//! `verify()`: whether the shadow holds what the source holds, by content.
//!
//! Runs in the caller's session and reads every table as the copy does: the
//! caller must be allowed to read all of its rows. What is compared, and how,
//! is `crate::verify`.

use pgrx::iter::TableIterator;
use pgrx::{PgSqlErrorCode, name, pg_extern};
use scry_wire::hash::Sums;
use scry_wire::message::Role;

use super::job::{self, Job};
use super::options::{JobOptions, Keyless};
use super::preflight;
use super::refusal::{Refusal, or_raise};
use super::select::{self, Caller};
use crate::catalog::Extent;
use crate::pg::privileged::as_superuser;
use crate::pg::{server, settings, xact};
use crate::verify::run::{self, Outcome, Schema};
use crate::worker;
use crate::worker::shmem::JobRef;

/// Compares tables of a job with their twins on the shadow.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity, reason = "pgrx reads the columns from the signature")]
fn verify(
    tables: &str,
    job: &str,
    repair: bool,
) -> TableIterator<
    'static,
    (
        name!(schema_name, String),
        name!(table_name, String),
        name!(verdict, String),
        name!(source_rows, Option<i64>),
        name!(shadow_rows, Option<i64>),
        name!(source_hash, Option<String>),
        name!(shadow_hash, Option<String>),
        name!(differing_rows, Option<i64>),
        name!(repaired_rows, Option<i64>),
        name!(seconds, f64),
        name!(source_seconds, Option<f64>),
        name!(remark, String),
    ),
> {
    let Compared { tables, schema } = or_raise(try_verify(tables, job, repair));
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let tables = tables.into_iter().map(move |(table, outcome)| {
        let rows = |sums: &Option<Sums>| sums.as_ref().map(|sums| count(sums.rows()));
        let hash = |sums: &Option<Sums>| sums.as_ref().map(Sums::content);
        (
            table.schema,
            table.name,
            outcome.verdict.as_str().to_owned(),
            rows(&outcome.source),
            rows(&outcome.shadow),
            hash(&outcome.source),
            hash(&outcome.shadow),
            outcome.differing.map(|counts| count(counts.all())),
            repair.then(|| count(outcome.repaired)),
            outcome.seconds,
            Some(outcome.source_seconds),
            outcome.remark,
        )
    });
    let schema = schema.into_iter().map(|schema| {
        let verdict = schema.verdict.as_str().to_owned();
        let (name, none) = (SCHEMA_ROW.to_owned(), String::new());
        (none, name, verdict, None, None, None, None, None, None, schema.seconds, None, schema.remark)
    });
    TableIterator::new(tables.chain(schema).collect::<Vec<_>>())
}

/// What was compared.
struct Compared {
    tables: Vec<(select::Relation, Outcome)>,
    /// With `'*'` only.
    schema: Option<Schema>,
}

/// The name of the row that is about the schema: no table's, because it has no schema's name.
const SCHEMA_ROW: &str = "(schema)";

fn try_verify(list: &str, name: &str, repair: bool) -> Result<Compared, Refusal> {
    preflight::preloaded()?;
    preflight::not_standby("the shadow cannot be compared")?;
    if xact::has_written() {
        return Err(Refusal::new(
            PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "verify() cannot run in a transaction that has changed something",
        )
        .detail("Its own changes are not on the shadow before it commits.")
        .hint("Call it by itself, or first in a transaction."));
    }
    let caller = Caller::current()?;
    let Chosen { job, stored, members, tables, everything } = as_superuser(|| choose(list, name, &caller))?;
    let place = running(&job)?;
    let hello = worker::session::hello(name, stored.generation, Role::Verify, &server::database_name_here());
    let relids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    settings::within(&settings::TEXT_FORM, || {
        let outcomes = run::compare(&hello, place, &relids, repair)?;
        let compare_schema = || {
            let alone = as_superuser(|| stored.scope.alone(&members))?;
            let extent = Extent::of_job(stored.scope.whole_database, &members, &alone);
            run::compare_schema(&hello, place, extent)
        };
        let schema = everything.then(compare_schema).transpose()?;
        Ok(Compared { tables: tables.into_iter().zip(outcomes).collect(), schema })
    })
}

/// What the caller means.
struct Chosen {
    job: Job,
    stored: worker::job::Job,
    /// All tables of the job.
    members: Vec<u32>,
    /// Those that are meant.
    tables: Vec<select::Relation>,
    /// All are.
    everything: bool,
}

/// The job, and the tables of it that are meant. As superuser.
fn choose(list: &str, name: &str, caller: &Caller) -> Result<Chosen, Refusal> {
    let job = Job::get(name)?;
    let stored = worker::job::load(name);
    let mut members = worker::job::tables(name);
    members.retain(|member| member.state != "excluded");
    if members.iter().any(|member| member.state == "pending") {
        return Err(Refusal::not_ready(format!("the copy of job \"{name}\" is not complete")).hint(
            "Wait for it with wait_for_shadow(); its progress is in the view scry_backfill.progress.",
        ));
    }
    let mut members: Vec<u32> = members.into_iter().map(|member| member.relid).collect();
    members.sort_unstable();
    let options = JobOptions { keyless: Keyless::InsertsOnly, ..JobOptions::default() };
    let selection = select::select(list, &options, caller)?;
    let everything = super::names::parse(list)?.iter().any(|pattern| pattern.is_everything());
    let chosen: Vec<_> =
        selection.tables.into_iter().filter(|t| members.binary_search(&t.oid).is_ok()).collect();
    if let Some(refusal) = selection.refused.into_iter().next()
        && (!everything || chosen.len() < members.len())
    {
        return Err(refusal);
    }
    if chosen.is_empty() && !members.is_empty() {
        return Err(Refusal::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            format!("job \"{name}\" has no table that fits \"{}\"", list.trim()),
        )
        .hint("Its tables are in the view scry_backfill.tables."));
    }
    Ok(Chosen { job, stored, members, tables: chosen, everything })
}

/// The job's place in shared memory; an error in words if nothing follows.
fn running(job: &Job) -> Result<JobRef, Refusal> {
    let name = &job.name;
    match job.desired.as_str() {
        "stop" => return Err(super::control::is_stopped(name)),
        "pause" => {
            return Err(Refusal::not_ready(format!("job \"{name}\" is paused"))
                .hint(format!("Go on with {}.", job::call("resume", name))));
        }
        _ => {}
    }
    if job.mode == "snapshot" {
        return Err(Refusal::not_ready(format!(
            "job \"{name}\" has mode snapshot: its shadow does not follow"
        ))
        .detail("Both sides are compared at one position of the stream of changes.")
        .hint("Start a job of mode hybrid."));
    }
    job.place().ok_or_else(|| {
        Refusal::not_ready(format!("job \"{name}\" has not been found by the launcher yet"))
            .hint("Try again in a moment.")
    })
}
