//! `add_table()`, `drop_table()`, `resync()`: what a running job follows is
//! changed while its stream goes on.
//!
//! Each checks what the caller may do, and leaves an order in the WAL: a
//! transactional message that takes effect where it stands among the changes,
//! and not at all when the caller's transaction is rolled back. The decoder
//! brings the schema as it is from there on; tables to be copied go on hold
//! ([`crate::worker::late`]).

use std::collections::BTreeSet;

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::Oid;
use pgrx::spi::Spi;
use pgrx::{JsonB, PgSqlErrorCode, pg_extern};

use super::control::{is_finished, is_stopped, note};
use super::job::{self, Job};
use super::options::{JobOptions, Keyless};
use super::preflight;
use super::refusal::{Refusal, or_raise, plural};
use super::select::{self, Caller, Selection};
use super::start::combined;
use crate::decode::schema::Order;
use crate::pg::privileged::as_superuser;
use crate::pg::{message, read};

/// Adds a table, or all partitions of one, to a job.
#[pg_extern(sql = false)]
fn add_table(name: &str, job: &str) {
    or_raise(change(name, job, Change::Add));
}

/// Takes a table out of a job and off its shadow.
#[pg_extern(sql = false)]
fn drop_table(name: &str, job: &str) {
    or_raise(change(name, job, Change::Drop));
}

/// Copies a table of a job again.
#[pg_extern(sql = false)]
fn resync(name: &str, job: &str) {
    or_raise(change(name, job, Change::Resync));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Drop,
    Resync,
}

/// A job that follows, as far as its tables go.
struct Following {
    job: Job,
    generation: u64,
    options: JobOptions,
    /// Its catalog document holds every table, whatever is copied.
    whole_database: bool,
    /// Its tables: not those that it was told to leave alone.
    tables: BTreeSet<u32>,
}

fn change(name: &str, job: &str, change: Change) -> Result<(), Refusal> {
    preflight::preloaded()?;
    preflight::not_standby("a job's tables cannot be changed")?;
    preflight::wal_level()?;
    let caller = Caller::current()?;
    as_superuser(|| {
        job::lock(job)?;
        let mut following = Following::get(job)?;
        if change == Change::Drop {
            // What a table has become is no reason to keep it.
            following.options.keyless = Keyless::InsertsOnly;
        }
        let selection = select::select(name, &following.options, &caller)?;
        if let Some(refusal) = combined(&selection) {
            return Err(refusal);
        }
        let relids = chosen(name, &following, &selection, change)?;
        match change {
            Change::Add | Change::Resync => order(&following, relids.clone(), BTreeSet::new())?,
            Change::Drop => {
                leave_alone(job, &relids)?;
                order(&following, BTreeSet::new(), relids.clone())?;
            }
        }
        tell(&following.job, &selection, &relids, change)
    })
}

/// Which tables are meant; an error when there are none.
fn chosen(
    name: &str,
    following: &Following,
    selection: &Selection,
    change: Change,
) -> Result<BTreeSet<u32>, Refusal> {
    let job = &following.job.name;
    let meant: BTreeSet<u32> = selection.tables.iter().map(|table| table.oid).collect();
    let is_part = |relid: &&u32| following.tables.contains(relid);
    let relids: BTreeSet<u32> = match change {
        Change::Add => meant.iter().filter(|relid| !is_part(relid)).copied().collect(),
        Change::Drop | Change::Resync => meant.iter().filter(is_part).copied().collect(),
    };
    if relids.is_empty() {
        let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
        return Err(match change {
            Change::Add => {
                Refusal::new(code, format!("{name} is part of job \"{job}\" already")).hint(format!(
                    "To have it copied again: SELECT scry_backfill.resync({}, {});",
                    super::refusal::literal(name),
                    super::refusal::literal(job)
                ))
            }
            Change::Drop | Change::Resync => {
                Refusal::new(code, format!("{name} is not part of job \"{job}\""))
                    .hint("The view scry_backfill.tables shows the tables of every job.")
            }
        });
    }
    if change == Change::Drop && following.whole_database {
        let refusal = Refusal::not_ready(format!("job \"{job}\" brings the whole database"));
        return Err(refusal.hint(
            "Start it anew without the table: start(..., options => '{\"exclude\": [\"schema.table\"]}').",
        ));
    }
    if change == Change::Drop && relids.len() == following.tables.len() {
        let refusal = Refusal::not_ready(format!("job \"{job}\" would be left without tables"));
        return Err(refusal.hint(format!("End it with {}.", job::call("stop", job))));
    }
    Ok(relids)
}

impl Following {
    fn get(name: &str) -> Result<Following, Refusal> {
        const SQL: &str = "
            SELECT j.generation, j.options, j.whole_database,
                coalesce(array_agg(t.relid) FILTER (WHERE t.state <> 'excluded'), '{}')
            FROM scry_backfill.job AS j
            LEFT JOIN scry_backfill.job_table AS t ON t.job = j.name
            WHERE j.name = $1
            GROUP BY j.name";
        let job = Job::get(name)?;
        match job.desired.as_str() {
            "stop" => return Err(is_stopped(name)),
            _ if job.mode == "snapshot" => return Err(is_finished(name)),
            _ => {}
        }
        let (generation, options, whole_database, tables) =
            read::rows(SQL, &[DatumWithOid::from(name)], |rows| {
                let row = rows.first();
                let options = row.get::<JsonB>(2)?.map_or(serde_json::Value::Null, |json| json.0);
                let whole_database = row.get::<bool>(3)?.unwrap_or_default();
                let tables = row.get::<Vec<Oid>>(4)?.unwrap_or_default();
                Ok((row.get::<i64>(1)?.unwrap_or_default() as u64, options, whole_database, tables))
            })?;
        let options = JobOptions::from_json(&options)?;
        Ok(Following {
            job,
            generation,
            options,
            whole_database,
            tables: tables.into_iter().map(Oid::to_u32).collect(),
        })
    }
}

/// Leaves the order in the WAL, in this transaction.
fn order(following: &Following, hold: BTreeSet<u32>, drop: BTreeSet<u32>) -> Result<(), Refusal> {
    let order = Order { job: following.job.name.clone(), generation: following.generation, hold, drop };
    let content = serde_json::to_vec(&order)
        .map_err(|err| Refusal::invalid(format!("could not write the order to the job: {err}")))?;
    message::emit(&content);
    Ok(())
}

/// Writes down that the job's globs do not mean these tables.
fn leave_alone(job: &str, relids: &BTreeSet<u32>) -> Result<(), Refusal> {
    let relids: Vec<Oid> = relids.iter().map(|relid| Oid::from(*relid)).collect();
    Spi::run_with_args(
        "UPDATE scry_backfill.job_table SET state = 'excluded' WHERE job = $1 AND relid = ANY ($2)",
        &[DatumWithOid::from(job), DatumWithOid::from(relids)],
    )?;
    Ok(())
}

/// An event, and word of what else the caller should know.
fn tell(job: &Job, selection: &Selection, relids: &BTreeSet<u32>, change: Change) -> Result<(), Refusal> {
    let names: Vec<String> = selection
        .tables
        .iter()
        .filter(|table| relids.contains(&table.oid))
        .map(select::Relation::quoted)
        .take(NAMED_MAX)
        .collect();
    let more = relids.len().saturating_sub(names.len());
    let tail = if more > 0 {
        format!(" and {more} {} more", plural(more, "table", "tables"))
    } else {
        String::new()
    };
    let list = format!("{}{tail}", names.join(", "));
    let message = match change {
        Change::Add => format!("added: {list}"),
        Change::Drop => format!("taken out: {list}"),
        Change::Resync => format!("to be copied again: {list}"),
    };
    note(&job.name, &message)
}

/// Tables named in an event.
const NAMED_MAX: usize = 10;
