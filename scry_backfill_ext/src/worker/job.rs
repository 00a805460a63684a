//! A job as the extension's tables keep it: what survives a restart.
//!
//! Read by all workers; written by the stream worker before it decodes and by
//! the snapshot leader after its copy, each in a short transaction of its own.
//! All functions here run inside a transaction that the caller has begun.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::Oid;
use pgrx::spi::{Spi, SpiError};
use scry_wire::Lsn;
use scry_wire::message::{CopiedTable, TableMark};

use super::pace::Limits;
use super::state::Facts;
use crate::api::options::{Alone, JobOptions};
use crate::decode::schema::{Member, Notes, Scope};
use crate::pg::read;

/// A row of `scry_backfill.job`.
#[derive(Debug, Clone)]
pub struct Job {
    /// The job's name.
    pub name: String,
    /// `hybrid`, `snapshot` or `cdc`.
    pub mode: String,
    /// `new`, `copying`, `streaming`, `finished`, `stopped`, `needs_resync`.
    pub state: String,
    /// Which full start of the job this is.
    pub generation: u64,
    /// Which snapshot of this generation is the current one.
    pub copy_id: u64,
    /// The replication slot.
    pub slot_name: String,
    /// Where the slot began: what the shadow stands at before its first change.
    pub start_lsn: Lsn,
    /// What the job was started with.
    pub scope: Scope,
    /// What the snapshot of the copied catalog saw, if it was not the slot's own.
    pub catalog_snapshot: Option<String>,
    /// Tables without a replica identity bring their inserts only, as the user wished.
    pub inserts_only: bool,
}

impl Job {
    /// What the next step is decided from.
    pub fn facts(&self) -> Facts<'_> {
        let Job { mode, state, generation, start_lsn, copy_id, .. } = self;
        Facts { mode, state, generation: *generation, start_lsn: *start_lsn, copy_id: *copy_id }
    }
}

/// A row of `scry_backfill.job_table`.
#[derive(Debug, Clone)]
pub struct JobTable {
    /// The table.
    pub relid: u32,
    /// `pending`, `copied`, `held`, `unidentified` or `excluded`.
    pub state: String,
    /// What the snapshot of its copy saw, if it was not the slot's own.
    pub seen_by: Option<String>,
}

/// Loads the job `name`.
pub fn load(name: &str) -> Job {
    const SQL: &str = "SELECT mode, state, generation, copy_id, slot_name, whole_database, \
                       (options OPERATOR(pg_catalog.->>) 'keyless') OPERATOR(pg_catalog.=) 'inserts_only', \
                       start_lsn::pg_catalog.text, tables, options, owner, search_path, catalog_snapshot, left_alone, \
                       ARRAY(SELECT t.relid FROM scry_backfill.job_table AS t \
                           WHERE t.job OPERATOR(pg_catalog.=) j.name AND t.state OPERATOR(pg_catalog.=) 'excluded') \
                       FROM scry_backfill.job AS j WHERE name OPERATOR(pg_catalog.=) $1";
    let loaded = Spi::connect(|client| -> Result<Option<Job>, SpiError> {
        let rows = client.select(SQL, Some(1), &[DatumWithOid::from(name)])?;
        if rows.is_empty() {
            return Ok(None);
        }
        let row = rows.first();
        let mut options = row
            .get::<pgrx::JsonB>(10)?
            .and_then(|json| JobOptions::from_json(&json.0).ok())
            .unwrap_or_default();
        let excluded = row.get::<Vec<Oid>>(15)?.unwrap_or_default();
        options.alone = Alone::new(
            &row.get::<Vec<String>>(14)?.unwrap_or_default(),
            excluded.into_iter().map(Oid::to_u32).collect(),
        );
        let text = |i| row.get::<String>(i).map(Option::unwrap_or_default);
        let number = |i| row.get::<i64>(i).map(|n| n.unwrap_or_default() as u64);
        Ok(Some(Job {
            name: name.to_owned(),
            mode: text(1)?,
            state: text(2)?,
            generation: number(3)?,
            copy_id: number(4)?,
            slot_name: text(5)?,
            scope: Scope {
                list: text(9)?,
                options,
                owner: row.get::<Oid>(11)?.map_or(0, Oid::to_u32),
                search_path: row.get::<Vec<String>>(12)?.unwrap_or_default(),
                whole_database: row.get::<bool>(6)?.unwrap_or_default(),
            },
            catalog_snapshot: row.get::<String>(13)?,
            inserts_only: row.get::<bool>(7)?.unwrap_or_default(),
            start_lsn: text(8)?.parse().unwrap_or(Lsn::INVALID),
        }))
    });
    match loaded {
        Ok(Some(job)) => job,
        Ok(None) => pgrx::error!("job \"{name}\" does not exist any more"),
        Err(err) => pgrx::error!("could not read job \"{name}\": {err}"),
    }
}

/// Loads the tables of the job `name`, those it was told to leave alone too.
pub fn tables(name: &str) -> Vec<JobTable> {
    const SQL: &str =
        "SELECT relid, copy_snapshot, state FROM scry_backfill.job_table WHERE job OPERATOR(pg_catalog.=) $1";
    let loaded = Spi::connect(|client| -> Result<Vec<JobTable>, SpiError> {
        client
            .select(SQL, None, &[DatumWithOid::from(name)])?
            .map(|row| {
                Ok(JobTable {
                    relid: row.get::<Oid>(1)?.map_or(0, Oid::to_u32),
                    seen_by: row.get::<String>(2)?,
                    state: row.get::<String>(3)?.unwrap_or_default(),
                })
            })
            .collect()
    });
    loaded.unwrap_or_else(|err| pgrx::error!("could not read the tables of job \"{name}\": {err}"))
}

/// The job's own limits.
pub fn limits(name: &str) -> Limits {
    const SQL: &str =
        "SELECT options::pg_catalog.text FROM scry_backfill.job WHERE name OPERATOR(pg_catalog.=) $1";
    let options = match read::one::<String>(SQL, &[DatumWithOid::from(name)]) {
        Ok(options) => options.unwrap_or_default(),
        Err(err) => pgrx::error!("could not read the options of job \"{name}\": {err}"),
    };
    // They were checked by start().
    let options = serde_json::from_str(&options).ok().and_then(|json| JobOptions::from_json(&json).ok());
    options.unwrap_or_default().limits
}

/// A new full start: another generation, nothing copied; a job that follows is
/// a `hybrid` one from here on, whatever it was started as.
pub fn start_over(name: &str, generation: u64, why: &str) {
    execute(
        "UPDATE scry_backfill.job SET generation = $2, copy_id = 0, start_lsn = NULL, state = 'copying', \
         mode = CASE WHEN mode OPERATOR(pg_catalog.=) 'snapshot' THEN mode ELSE 'hybrid' END, mode_reason = $3, \
         changed_at = pg_catalog.now() WHERE name OPERATOR(pg_catalog.=) $1",
        &[
            DatumWithOid::from(name),
            DatumWithOid::from(generation as i64),
            DatumWithOid::from(format!("copied again: {why}")),
        ],
    );
    execute(
        "UPDATE scry_backfill.job_table SET state = 'pending', copy_snapshot = NULL, rows = 0 \
         WHERE job OPERATOR(pg_catalog.=) $1 AND state OPERATOR(pg_catalog.<>) 'excluded'",
        &[DatumWithOid::from(name)],
    );
}

/// A round of the copy begins: the next snapshot.
pub fn begin_round(name: &str, copy_id: u64) {
    execute(
        "UPDATE scry_backfill.job SET copy_id = $2, state = 'copying', changed_at = pg_catalog.now() \
         WHERE name OPERATOR(pg_catalog.=) $1",
        &[DatumWithOid::from(name), DatumWithOid::from(copy_id as i64)],
    );
}

/// The slot has been created, and begins here.
pub fn set_start_lsn(name: &str, start: Lsn) {
    execute(
        "UPDATE scry_backfill.job SET start_lsn = $2::pg_catalog.pg_lsn \
         WHERE name OPERATOR(pg_catalog.=) $1",
        &[DatumWithOid::from(name), DatumWithOid::from(start.to_string())],
    );
}

/// These tables are copied under a snapshot that saw `seen_by` (`None`: the slot's own).
pub fn set_seen_by(name: &str, relids: &[u32], seen_by: Option<&str>) {
    let relids: Vec<Oid> = relids.iter().map(|relid| Oid::from(*relid)).collect();
    execute(
        "UPDATE scry_backfill.job_table SET copy_snapshot = $3 WHERE job OPERATOR(pg_catalog.=) $1 \
         AND relid OPERATOR(pg_catalog.=) ANY ($2)",
        &[DatumWithOid::from(name), DatumWithOid::from(relids), DatumWithOid::from(seen_by)],
    );
}

/// This is what the snapshot of the copied catalog saw (`None`: it was the slot's own).
pub fn set_catalog_seen_by(name: &str, seen_by: Option<&str>) {
    execute(
        "UPDATE scry_backfill.job SET catalog_snapshot = $2 WHERE name OPERATOR(pg_catalog.=) $1",
        &[DatumWithOid::from(name), DatumWithOid::from(seen_by)],
    );
}

/// Notes what a schema change made of the job's tables.
pub fn note_tables(name: &str, notes: &Notes) {
    let relids: Vec<Oid> = notes.gone.iter().map(|relid| Oid::from(*relid)).collect();
    execute(
        "DELETE FROM scry_backfill.job_table WHERE job OPERATOR(pg_catalog.=) $1 \
         AND relid OPERATOR(pg_catalog.=) ANY ($2) AND state OPERATOR(pg_catalog.<>) 'excluded'",
        &[DatumWithOid::from(name), DatumWithOid::from(relids)],
    );
    for (relid, Member { schema, name: table }, state) in notes
        .joined
        .iter()
        .map(|(relid, member)| (relid, member, "copied"))
        .chain(notes.held.iter().map(|(relid, member)| (relid, member, "held")))
        .chain(notes.unidentified.iter().map(|(relid, member)| (relid, member, "unidentified")))
    {
        execute(
            "INSERT INTO scry_backfill.job_table (job, relid, schema_name, table_name, state) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (job, relid) DO UPDATE \
             SET schema_name = excluded.schema_name, table_name = excluded.table_name, state = excluded.state, \
             holds = job_table.holds OPERATOR(pg_catalog.+) 1",
            &[
                DatumWithOid::from(name),
                DatumWithOid::from(Oid::from(*relid)),
                DatumWithOid::from(schema.as_str()),
                DatumWithOid::from(table.as_str()),
                DatumWithOid::from(state),
            ],
        );
    }
}

/// Notes which tables have changes that the shadow refused: these and no
/// others. Writes nothing where nothing has changed.
pub fn note_marks(name: &str, marks: &[TableMark]) {
    let noted = noted_marks(name);
    for mark in marks.iter().filter(|mark| !noted.contains(mark)) {
        execute(
            "UPDATE scry_backfill.job_table SET quarantined = $3, diverged = $4, quarantine_cause = $5 \
             WHERE job OPERATOR(pg_catalog.=) $1 AND relid OPERATOR(pg_catalog.=) $2",
            &[
                DatumWithOid::from(name),
                DatumWithOid::from(Oid::from(mark.relid)),
                DatumWithOid::from(i64::try_from(mark.changes).unwrap_or(i64::MAX)),
                DatumWithOid::from(mark.diverged),
                DatumWithOid::from(mark.cause.as_str()),
            ],
        );
    }
    for old in noted.iter().filter(|old| marks.iter().all(|mark| mark.relid != old.relid)) {
        execute(
            "UPDATE scry_backfill.job_table SET quarantined = 0, diverged = false, quarantine_cause = NULL \
             WHERE job OPERATOR(pg_catalog.=) $1 AND relid OPERATOR(pg_catalog.=) $2",
            &[DatumWithOid::from(name), DatumWithOid::from(Oid::from(old.relid))],
        );
    }
}

fn noted_marks(name: &str) -> Vec<TableMark> {
    const SQL: &str = "SELECT relid, quarantined, diverged, quarantine_cause FROM scry_backfill.job_table \
                       WHERE job OPERATOR(pg_catalog.=) $1 AND quarantined OPERATOR(pg_catalog.>) 0";
    let loaded = Spi::connect(|client| -> Result<Vec<TableMark>, SpiError> {
        client
            .select(SQL, None, &[DatumWithOid::from(name)])?
            .map(|row| {
                Ok(TableMark {
                    relid: row.get::<Oid>(1)?.map_or(0, Oid::to_u32),
                    changes: row.get::<i64>(2)?.unwrap_or_default() as u64,
                    diverged: row.get::<bool>(3)?.unwrap_or_default(),
                    cause: row.get::<String>(4)?.unwrap_or_default(),
                })
            })
            .collect()
    });
    loaded.unwrap_or_else(|err| pgrx::error!("could not read the tables of job \"{name}\": {err}"))
}

/// The copy is complete on the shadow.
pub fn finish_copy(name: &str, state: &str, tables: &[CopiedTable]) {
    for table in tables {
        execute(
            "UPDATE scry_backfill.job_table SET state = 'copied', rows = $3 \
             WHERE job OPERATOR(pg_catalog.=) $1 AND relid OPERATOR(pg_catalog.=) $2 \
             AND state OPERATOR(pg_catalog.=) ANY (ARRAY['pending', 'copied'])",
            &[
                DatumWithOid::from(name),
                DatumWithOid::from(Oid::from(table.relid)),
                DatumWithOid::from(table.rows as i64),
            ],
        );
    }
    set_state(name, state);
}

/// A table on hold, as a late copy finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The table.
    pub relid: u32,
    /// How often it has been put on hold: another time may follow meanwhile.
    pub holds: i64,
}

/// The tables of job `name` that are on hold.
pub fn held(name: &str) -> Vec<Held> {
    const SQL: &str = "SELECT t.relid, t.holds FROM scry_backfill.job_table AS t \
        WHERE t.job OPERATOR(pg_catalog.=) $1 AND (t.state OPERATOR(pg_catalog.=) 'held' \
            OR t.state OPERATOR(pg_catalog.=) 'unidentified' AND EXISTS ( \
                SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) t.relid AND ( \
                    c.relreplident OPERATOR(pg_catalog.=) 'f' OR EXISTS ( \
                        SELECT FROM pg_catalog.pg_index AS i \
                        WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisvalid AND i.indimmediate AND CASE c.relreplident \
                            WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END))))";
    let loaded = Spi::connect(|client| -> Result<Vec<Held>, SpiError> {
        client
            .select(SQL, None, &[DatumWithOid::from(name)])?
            .map(|row| {
                let relid = row.get::<Oid>(1)?.map_or(0, Oid::to_u32);
                Ok(Held { relid, holds: row.get::<i64>(2)?.unwrap_or_default() })
            })
            .collect()
    });
    loaded.unwrap_or_else(|err| pgrx::error!("could not read the tables of job \"{name}\": {err}"))
}

/// A round of a late copy begins: returns its number.
pub fn begin_late_round(name: &str) -> u64 {
    const SQL: &str = "UPDATE scry_backfill.job SET copy_id = copy_id OPERATOR(pg_catalog.+) 1 \
                       WHERE name OPERATOR(pg_catalog.=) $1 RETURNING copy_id";
    let number = Spi::connect_mut(|client| {
        client.update(SQL, Some(1), &[DatumWithOid::from(name)])?.first().get_one::<i64>()
    });
    match number {
        Ok(number) => number.unwrap_or_default() as u64,
        Err(err) => pgrx::error!("could not write the state of a scry_backfill job: {err}"),
    }
}

/// Tables that were on hold are live again, but for those held once more.
pub fn end_hold(name: &str, held: &[Held], copied: &[CopiedTable]) {
    for table in copied {
        let Some(hold) = held.iter().find(|hold| hold.relid == table.relid) else { continue };
        execute(
            "UPDATE scry_backfill.job_table SET state = 'copied', rows = $3 \
             WHERE job OPERATOR(pg_catalog.=) $1 AND relid OPERATOR(pg_catalog.=) $2 \
             AND state OPERATOR(pg_catalog.=) ANY (ARRAY['held', 'unidentified']) AND holds OPERATOR(pg_catalog.=) $4",
            &[
                DatumWithOid::from(name),
                DatumWithOid::from(Oid::from(table.relid)),
                DatumWithOid::from(table.rows as i64),
                DatumWithOid::from(hold.holds),
            ],
        );
    }
}

/// Writes the job's state.
pub fn set_state(name: &str, state: &str) {
    execute(
        "UPDATE scry_backfill.job SET state = $2, changed_at = pg_catalog.now() \
         WHERE name OPERATOR(pg_catalog.=) $1",
        &[DatumWithOid::from(name), DatumWithOid::from(state)],
    );
}

fn execute(sql: &str, args: &[DatumWithOid<'_>]) {
    if let Err(err) = Spi::connect_mut(|client| client.update(sql, None, args).map(drop)) {
        pgrx::error!("could not write the state of a scry_backfill job: {err}");
    }
}
