//! The table `job`, as the SQL functions read and change it.
//!
//! A transaction that changes a job takes the job's advisory lock first and
//! keeps it to its end: the scout passes over such a job, so that nothing
//! starts what a `stop()` is ending. Row locks would not do: the stream worker
//! updates the row too, and must not wait for a user's transaction.

use std::hash::{DefaultHasher, Hash, Hasher};

use pgrx::PgSqlErrorCode;
use pgrx::datum::DatumWithOid;
use pgrx::spi::{self, Spi};

use super::names;
use super::options::Alone;
use super::refusal::{Refusal, literal};
use crate::pg::{read, server, shared};
use crate::worker::shmem::{Desired, JobRef};

/// First key of the advisory locks: "scry".
const LOCK_CLASS: i32 = 0x7363_7279;

/// A job's row, as far as the functions need it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// `run`, `pause` or `stop`.
    pub desired: String,
    /// `new`, `copying`, `streaming`, ...
    pub state: String,
    /// `hybrid`, `snapshot` or `cdc`.
    pub mode: String,
    /// Its slot; empty for mode snapshot.
    pub slot_name: String,
    /// OIDs of its tables, sorted.
    pub tables: Vec<u32>,
    /// What `drop_table()` has taken out.
    pub alone: Alone,
    /// All of them are copied.
    pub copied: bool,
}

impl Job {
    /// The job `name` of this database, if there is one. As superuser.
    pub fn find(name: &str) -> Result<Option<Job>, Refusal> {
        const SQL: &str = "
            SELECT j.desired, j.state, j.mode, j.slot_name,
                coalesce(array_agg(t.relid ORDER BY t.relid) FILTER (WHERE t.state <> 'excluded'), '{}'),
                coalesce(bool_and(t.state = 'copied') FILTER (WHERE t.state <> 'excluded'), true),
                coalesce(array_agg(t.relid) FILTER (WHERE t.state = 'excluded'), '{}'), j.left_alone
            FROM scry_backfill.job AS j
            LEFT JOIN scry_backfill.job_table AS t ON t.job = j.name
            WHERE j.name = $1
            GROUP BY j.name";
        Ok(read::rows(SQL, &[DatumWithOid::from(name)], |rows| {
            if rows.is_empty() {
                return Ok(None);
            }
            let row = rows.first();
            let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
            let oids = |column| row.get::<Vec<pgrx::pg_sys::Oid>>(column).map(Option::unwrap_or_default);
            let excluded = oids(7)?.into_iter().map(|oid| oid.to_u32()).collect();
            Ok(Some(Job {
                name: name.to_owned(),
                desired: text(1)?,
                state: text(2)?,
                mode: text(3)?,
                slot_name: text(4)?,
                tables: oids(5)?.into_iter().map(|oid| oid.to_u32()).collect(),
                alone: Alone::new(&row.get::<Vec<String>>(8)?.unwrap_or_default(), excluded),
                copied: row.get::<bool>(6)?.unwrap_or(false),
            }))
        })?)
    }

    /// The job `name`, or an error that names those there are. As superuser.
    pub fn get(name: &str) -> Result<Job, Refusal> {
        if let Some(job) = Job::find(name)? {
            return Ok(job);
        }
        let known =
            read::one::<Vec<String>>("SELECT array_agg(name ORDER BY name) FROM scry_backfill.job", &[])?
                .unwrap_or_default();
        let refusal = Refusal::new(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("job \"{name}\" does not exist in this database"),
        );
        let near = names::near(name, known.iter().map(String::as_str));
        Err(if !near.is_empty() {
            refusal.hint(format!("Perhaps you meant {}.", near.join(" or ")))
        } else if known.is_empty() {
            refusal.hint("No job has been started: SELECT * FROM scry_backfill.start('*');")
        } else {
            refusal.hint(format!("The jobs are: {}.", known.join(", ")))
        })
    }

    /// Its place in shared memory, if it has one.
    pub fn place(&self) -> Option<JobRef> {
        if shared::available() { JobRef::find(server::database(), &self.name) } else { None }
    }

    /// Writes what the user wants. As superuser, under [`lock`].
    pub fn set_desired(&self, desired: Desired) -> Result<(), Refusal> {
        Spi::run_with_args(
            "UPDATE scry_backfill.job SET desired = $2, changed_at = now() WHERE name = $1",
            &[DatumWithOid::from(self.name.as_str()), DatumWithOid::from(desired.as_str())],
        )?;
        Ok(())
    }

    /// Writes the state. As superuser, under [`lock`], when no worker runs.
    pub fn set_state(&self, state: &str) -> Result<(), Refusal> {
        Spi::run_with_args(
            "UPDATE scry_backfill.job SET state = $2, state_reason = '', changed_at = now() WHERE name = $1",
            &[DatumWithOid::from(self.name.as_str()), DatumWithOid::from(state)],
        )?;
        Ok(())
    }
}

/// Takes the job's lock for the rest of the transaction; waits for another
/// transaction that changes the same job. As superuser.
pub fn lock(name: &str) -> Result<(), Refusal> {
    let args = [DatumWithOid::from(LOCK_CLASS), DatumWithOid::from(lock_key(name))];
    Ok(read::rows("SELECT pg_catalog.pg_advisory_xact_lock($1, $2)", &args, |_| Ok(()))?)
}

/// As [`lock`], without waiting. Returns whether it was got.
pub fn try_lock(name: &str) -> Result<bool, spi::Error> {
    let args = [DatumWithOid::from(LOCK_CLASS), DatumWithOid::from(lock_key(name))];
    let got = read::one::<bool>("SELECT pg_catalog.pg_try_advisory_xact_lock($1, $2)", &args)?;
    Ok(got == Some(true))
}

fn lock_key(name: &str) -> i32 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    // Any 32 bits of it do.
    i32::from_ne_bytes((hasher.finish() as u32).to_ne_bytes())
}

/// Checks a job's name.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    // As long as the server's own names, so that it fits the views and the slot.
    const BYTES_MAX: usize = 63;
    if name.is_empty() || name.len() > BYTES_MAX || name.chars().any(char::is_control) {
        return Err(Refusal::new(PgSqlErrorCode::ERRCODE_INVALID_NAME, "invalid job name")
            .detail(format!("A job's name has 1 to {BYTES_MAX} bytes and no control characters.")));
    }
    Ok(())
}

/// The slot of a job: `scry_<database>_<job>` in the characters a slot may
/// have, with a hash where that changes the name.
pub fn slot_name(database: u32, job: &str) -> String {
    const BYTES_MAX: usize = 63;
    let plain: String =
        job.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' }).collect();
    let name = format!("scry_{database}_{plain}");
    if plain == job && name.len() <= BYTES_MAX {
        return name;
    }
    let mut hasher = DefaultHasher::new();
    job.hash(&mut hasher);
    let hash = format!("_{:08x}", hasher.finish() as u32);
    let kept: String = name.chars().take(BYTES_MAX - hash.len()).collect();
    kept + &hash
}

/// A call of one of our functions for this job, for hints.
pub fn call(function: &str, job: &str) -> String {
    format!("SELECT scry_backfill.{function}({})", literal(job))
}

#[cfg(test)]
mod tests {
    use super::slot_name;

    #[test]
    fn makes_slot_names() {
        assert_eq!(slot_name(5, "default"), "scry_5_default");
        let long = slot_name(4_294_967_295, &"x".repeat(63));
        assert_eq!(long.len(), 63);
        assert_ne!(slot_name(5, "A"), slot_name(5, "_"));
        assert!(
            slot_name(5, "Ä b").chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        );
    }
}
