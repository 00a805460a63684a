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
    /// Its tables.
    tables: BTreeSet<u32>,
    /// Those that it was told to leave alone, partitioned ones too.
    excluded: BTreeSet<u32>,
    /// The names and globs that it was told to leave alone.
    left_alone: Vec<String>,
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
        let mut selection = select::select(name, &following.options, &caller)?;
        if change == Change::Add {
            select::refuse_closed(&mut selection)?;
        }
        if let Some(refusal) = combined(&selection) {
            return Err(refusal);
        }
        let relids = chosen(name, &following, &selection, change)?;
        let mut order = following.order();
        match change {
            Change::Add => {
                order.hold = relids.clone();
                order.take_back = following.take_back(&selection)?;
                order.left_alone = Some(following.leave_no_longer(&selection)?);
            }
            Change::Resync => order.hold = relids.clone(),
            Change::Drop => {
                order.drop = following.leave_alone(&selection, &relids)?;
                order.left_alone = Some(following.leave_alone_from_now_on(&selection)?);
            }
        }
        emit(&order)?;
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
    let takes_back = change == Change::Add && following.takes_back(selection).next().is_some();
    if relids.is_empty() && !takes_back {
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
    let is_all = relids.len() == following.tables.len() && !following.whole_database;
    if change == Change::Drop && is_all {
        let refusal = Refusal::not_ready(format!("job \"{job}\" would be left without tables"));
        return Err(refusal.hint(format!("End it with {}.", job::call("stop", job))));
    }
    Ok(relids)
}

impl Following {
    fn get(name: &str) -> Result<Following, Refusal> {
        const SQL: &str = "
            SELECT j.generation, j.options, j.whole_database, j.left_alone,
                coalesce(array_agg(t.relid) FILTER (WHERE t.state <> 'excluded'), '{}'),
                coalesce(array_agg(t.relid) FILTER (WHERE t.state = 'excluded'), '{}')
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
        let (json, mut following) = read::rows(SQL, &[DatumWithOid::from(name)], |rows| {
            let row = rows.first();
            let oids = |column| row.get::<Vec<Oid>>(column).map(Option::unwrap_or_default);
            let following = Following {
                job,
                generation: row.get::<i64>(1)?.unwrap_or_default() as u64,
                options: JobOptions::default(),
                whole_database: row.get::<bool>(3)?.unwrap_or_default(),
                left_alone: row.get::<Vec<String>>(4)?.unwrap_or_default(),
                tables: oids(5)?.into_iter().map(Oid::to_u32).collect(),
                excluded: oids(6)?.into_iter().map(Oid::to_u32).collect(),
            };
            Ok((row.get::<JsonB>(2)?.map_or(serde_json::Value::Null, |json| json.0), following))
        })?;
        following.options = JobOptions::from_json(&json)?;
        Ok(following)
    }

    /// An order to the job that asks for nothing yet.
    fn order(&self) -> Order {
        Order { job: self.job.name.clone(), generation: self.generation, ..Order::default() }
    }

    /// Writes down that the job's globs do not mean these tables, nor the partitioned ones of the
    /// selection; returns all of them.
    fn leave_alone(&self, selection: &Selection, relids: &BTreeSet<u32>) -> Result<BTreeSet<u32>, Refusal> {
        const SQL: &str = "
            INSERT INTO scry_backfill.job_table (job, relid, schema_name, table_name, state)
            SELECT $1, t.*, 'excluded' FROM unnest($2, $3, $4) AS t
            ON CONFLICT (job, relid) DO UPDATE SET state = 'excluded'";
        let tables = selection.tables.iter().filter(|table| relids.contains(&table.oid));
        let (mut oids, mut schemas, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for table in tables.chain(&selection.parents) {
            oids.push(Oid::from(table.oid));
            schemas.push(table.schema.clone());
            names.push(table.name.clone());
        }
        let all = oids.iter().map(|oid| oid.to_u32()).collect();
        Spi::run_with_args(
            SQL,
            &[
                DatumWithOid::from(self.job.name.as_str()),
                DatumWithOid::from(oids),
                DatumWithOid::from(schemas),
                DatumWithOid::from(names),
            ],
        )?;
        Ok(all)
    }

    /// Writes down that what is made under these names and globs stays out; returns all of them.
    fn leave_alone_from_now_on(&self, selection: &Selection) -> Result<Vec<String>, Refusal> {
        let mut list = self.left_alone.clone();
        list.extend(selection.qualified.iter().filter(|text| !self.left_alone.contains(text)).cloned());
        self.write_left_alone(list)
    }

    /// Writes down that these names and globs are not left alone any more; returns what is left.
    fn leave_no_longer(&self, selection: &Selection) -> Result<Vec<String>, Refusal> {
        let names: BTreeSet<String> =
            selection.tables.iter().chain(&selection.parents).map(select::Relation::quoted).collect();
        let stays = |text: &&String| !selection.qualified.contains(text) && !names.contains(*text);
        let list = self.left_alone.iter().filter(stays).cloned().collect();
        self.write_left_alone(list)
    }

    fn write_left_alone(&self, list: Vec<String>) -> Result<Vec<String>, Refusal> {
        if list != self.left_alone {
            Spi::run_with_args(
                "UPDATE scry_backfill.job SET left_alone = $2 WHERE name = $1",
                &[DatumWithOid::from(self.job.name.as_str()), DatumWithOid::from(list.clone())],
            )?;
        }
        Ok(list)
    }

    /// Partitioned tables of the selection that the job leaves alone.
    fn takes_back<'a>(&'a self, selection: &'a Selection) -> impl Iterator<Item = u32> + 'a {
        selection.parents.iter().map(|table| table.oid).filter(|relid| self.excluded.contains(relid))
    }

    /// Writes down that it does not any more; returns them.
    fn take_back(&self, selection: &Selection) -> Result<BTreeSet<u32>, Refusal> {
        let parents: BTreeSet<u32> = self.takes_back(selection).collect();
        let oids: Vec<Oid> = parents.iter().map(|relid| Oid::from(*relid)).collect();
        Spi::run_with_args(
            "DELETE FROM scry_backfill.job_table WHERE job = $1 AND relid = ANY ($2) AND state = 'excluded'",
            &[DatumWithOid::from(self.job.name.as_str()), DatumWithOid::from(oids)],
        )?;
        Ok(parents)
    }
}

/// Leaves the order in the WAL, in this transaction.
fn emit(order: &Order) -> Result<(), Refusal> {
    let content = serde_json::to_vec(order)
        .map_err(|err| Refusal::invalid(format!("could not write the order to the job: {err}")))?;
    message::emit(&content);
    Ok(())
}

/// An event, and word of what else the caller should know.
fn tell(job: &Job, selection: &Selection, relids: &BTreeSet<u32>, change: Change) -> Result<(), Refusal> {
    let partitioned = if relids.is_empty() { selection.parents.as_slice() } else { &[] };
    let names: Vec<String> = selection
        .tables
        .iter()
        .filter(|table| relids.contains(&table.oid))
        .chain(partitioned)
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
