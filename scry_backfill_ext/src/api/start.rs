//! `start()`: checks everything that can be checked now, writes the job, and
//! returns. The launcher finds the job when the transaction commits.

use pgrx::datum::DatumWithOid;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::Oid;
use pgrx::spi::{self, Spi};
use pgrx::{JsonB, PgSqlErrorCode, name, pg_extern};

use super::control;
use super::job::{self, Job};
use super::names;
use super::options::JobOptions;
use super::preflight;
use super::refusal::{Refusal, or_raise, plural};
use super::select::{self, Caller, Selection};
use super::version;
use crate::pg::privileged::as_superuser;
use crate::pg::{read, server, slot_drop, xact};

/// The modes that can be named.
const MODES: [&str; 4] = ["auto", "hybrid", "snapshot", "cdc"];

/// Starts a job.
#[pg_extern(sql = false)]
fn start(
    tables: &str,
    mode: &str,
    job: &str,
    options: JsonB,
) -> TableIterator<'static, (name!(job, String), name!(mode, String), name!(reason, String))> {
    let (mode, reason) = or_raise(try_start(tables, mode, job, &options));
    TableIterator::once((job.to_owned(), mode, reason))
}

fn try_start(list: &str, mode: &str, name: &str, json: &JsonB) -> Result<(String, String), Refusal> {
    preflight::preloaded()?;
    version::same()?;
    check_mode(mode)?;
    let can_stream = preflight::wal_level();
    if matches!(mode, "hybrid" | "cdc") {
        can_stream.clone()?;
    }
    preflight::not_standby("a job cannot be started")?;
    preflight::endpoint()?;
    preflight::encoding()?;
    job::check_name(name)?;
    let options = JobOptions::from_json(&json.0)?;
    let caller = Caller::current()?;
    let owner = server::user();
    as_superuser(|| {
        job::lock(name)?;
        let before = Job::find(name)?;
        if let Some(before) = &before {
            not_running(before)?;
        }
        preflight::free_place()?;
        let slot = job::slot_name(server::database(), name);
        if can_stream.is_ok() && mode != "snapshot" {
            preflight::free_slot(&slot)?;
        }
        preflight::free_workers()?;
        let mut selection = select::select(list, &options, &caller)?;
        select::refuse_closed(&mut selection)?;
        if let Some(refusal) = combined(&selection) {
            return Err(refusal);
        }
        let chosen = choose(mode, can_stream, before.as_ref(), &selection, &caller, &slot)?;
        tell(&selection)?;
        write(list, name, json, owner, &caller, &selection, &chosen, &slot)?;
        control::note(name, &format!("the job was started: mode {}: {}", chosen.mode, chosen.reason))?;
        xact::jobs_changed();
        Ok((chosen.mode.to_owned(), chosen.reason))
    })
}

fn check_mode(mode: &str) -> Result<(), Refusal> {
    if MODES.contains(&mode) {
        return Ok(());
    }
    let refusal = Refusal::invalid(format!("unknown mode \"{mode}\""));
    let near = names::near(mode, MODES.into_iter());
    Err(refusal.hint(if near.is_empty() {
        format!("The modes are: {}.", MODES.join(", "))
    } else {
        format!("Perhaps you meant {}; the modes are: {}.", near.join(" or "), MODES.join(", "))
    }))
}

fn not_running(job: &Job) -> Result<(), Refusal> {
    let name = &job.name;
    let code = PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT;
    match job.desired.as_str() {
        "stop" => Ok(()),
        _ if job.state == "needs_resync" => Err(control::needs_resync(name)),
        "pause" => Err(Refusal::new(code, format!("job \"{name}\" exists and is paused")).hint(format!(
            "Go on with {}; or end it with {} first.",
            job::call("resume", name),
            job::call("stop", name)
        ))),
        // What a snapshot job made is done; it may be made anew.
        _ if job.state == "finished" => Ok(()),
        _ => Err(Refusal::new(code, format!("job \"{name}\" is already running")).hint(format!(
            "Stop it with {} first, or start another one: start(..., job => 'name').",
            job::call("stop", name)
        ))),
    }
}

/// All that is refused, as one error: the first one's, with the others beside it.
pub fn combined(selection: &Selection) -> Option<Refusal> {
    let (first, others) = selection.refused.split_first()?;
    if others.is_empty() {
        return Some(first.clone());
    }
    const SHOWN: usize = 10;
    let mut lines: Vec<String> =
        others.iter().take(SHOWN).map(|refusal| refusal.message().to_owned()).collect();
    if others.len() > SHOWN {
        lines.push(format!("{} more", others.len() - SHOWN));
    }
    Some(first.clone().also(&lines.join("\n")))
}

struct Choice {
    mode: &'static str,
    reason: String,
    /// The job goes on where it was: same generation, slot and copied tables.
    goes_on: bool,
}

/// Chooses the mode from what was asked and what is there (DESIGN.md, 7).
fn choose(
    mode: &str,
    can_stream: Result<(), Refusal>,
    before: Option<&Job>,
    selection: &Selection,
    caller: &Caller,
    slot: &str,
) -> Result<Choice, Refusal> {
    let chosen = |mode, reason: &str| Ok(Choice { mode, reason: reason.to_owned(), goes_on: false });
    if mode == "snapshot" {
        return chosen("snapshot", "asked for");
    }
    if let Err(refusal) = can_stream {
        let reason = "wal_level is not \"logical\": the tables are copied once and not followed";
        refusal.warn();
        return chosen("snapshot", reason);
    }
    let problem = resumable(before, selection, caller, slot)?;
    match (mode, problem) {
        ("cdc" | "auto", None) => Ok(Choice {
            mode: "cdc",
            reason: "the slot was kept and the shadow is complete up to it".to_owned(),
            goes_on: true,
        }),
        ("cdc", Some(problem)) => Err(Refusal::not_ready("cannot go on without a copy")
            .detail(sentence(&problem))
            .hint("Use mode 'hybrid' or 'auto': the tables are copied, then followed.")),
        ("hybrid", _) => chosen("hybrid", "asked for"),
        (_, Some(problem)) if before.is_some() => chosen("hybrid", &format!("copy, then follow: {problem}")),
        _ => chosen("hybrid", "wal_level is logical and there is no slot yet: copy, then follow"),
    }
}

/// A phrase as a sentence.
fn sentence(phrase: &str) -> String {
    let mut chars = phrase.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}

/// Why a stopped job cannot go on from its slot; `None` if it can.
fn resumable(
    before: Option<&Job>,
    selection: &Selection,
    caller: &Caller,
    slot: &str,
) -> Result<Option<String>, Refusal> {
    let Some(before) = before else { return Ok(Some("there was no such job before".to_owned())) };
    if before.mode == "snapshot" || !before.copied {
        return Ok(Some("the job's tables were not completely copied".to_owned()));
    }
    let alone = select::left_alone(&before.alone, caller)?;
    let is_left_alone = |relid: &u32| alone.contains(relid) && before.tables.binary_search(relid).is_err();
    let mut tables: Vec<u32> =
        selection.tables.iter().map(|table| table.oid).filter(|relid| !is_left_alone(relid)).collect();
    tables.sort_unstable();
    if tables != before.tables {
        return Ok(Some("the job had other tables before".to_owned()));
    }
    let usable = read::one::<bool>(
        "SELECT coalesce(bool_and(wal_status <> 'lost'), false) FROM pg_catalog.pg_replication_slots \
         WHERE slot_name = $1::name AND plugin = 'scry_backfill'",
        &[DatumWithOid::from(slot)],
    )?;
    if usable == Some(true) { Ok(None) } else { Ok(Some("the job's slot is gone".to_owned())) }
}

/// Says what the shadow will not have.
fn tell(selection: &Selection) -> Result<(), Refusal> {
    if let Some((first, reason)) = selection.left_out.first() {
        let count = selection.left_out.len();
        let list: Vec<String> =
            selection.left_out.iter().take(50).map(|(name, reason)| format!("{name}: {reason}")).collect();
        let message = if count == 1 {
            format!("{first} is left out: {reason}")
        } else {
            format!("{count} {} left out", plural(count, "relation is", "relations are"))
        };
        let refusal = Refusal::invalid(message);
        if count == 1 { refusal.notice() } else { refusal.detail(list.join("\n")).notice() }
    }
    if !selection.inserts_only.is_empty() {
        const SHOWN: usize = 20;
        let shown = selection.inserts_only.get(..SHOWN).unwrap_or(&selection.inserts_only);
        let more = selection.inserts_only.len().saturating_sub(shown.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Refusal::invalid(format!("only inserts are followed in {}{more}", shown.join(", "))).notice();
    }
    if !selection.whole_database {
        for (key, from, to) in foreign_keys_left_out(selection)? {
            Refusal::invalid(format!(
                "foreign key \"{key}\" of {from} is left out: {to} is not part of the job"
            ))
            .notice();
        }
    }
    Ok(())
}

/// Foreign keys of the selection to tables outside: name, table, target. As superuser.
pub fn foreign_keys_left_out(selection: &Selection) -> Result<Vec<(String, String, String)>, Refusal> {
    let oids: Vec<Oid> = selection.covered.iter().map(|oid| Oid::from(*oid)).collect();
    let sql = "SELECT c.conname::text, a.relname::text, an.nspname::text, b.relname::text, bn.nspname::text \
             FROM pg_catalog.pg_constraint AS c \
             JOIN pg_catalog.pg_class AS a ON a.oid = c.conrelid \
             JOIN pg_catalog.pg_namespace AS an ON an.oid = a.relnamespace \
             JOIN pg_catalog.pg_class AS b ON b.oid = c.confrelid \
             JOIN pg_catalog.pg_namespace AS bn ON bn.oid = b.relnamespace \
             WHERE c.contype = 'f' AND c.conparentid = 0 AND c.conrelid = ANY ($1) AND NOT c.confrelid = ANY ($1) \
             ORDER BY an.nspname, a.relname, c.conname";
    Ok(read::rows(sql, &[DatumWithOid::from(oids)], |rows| {
        let mut keys = Vec::new();
        for row in rows {
            let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
            keys.push((
                text(1)?,
                spi::quote_qualified_identifier(text(3)?, text(2)?),
                spi::quote_qualified_identifier(text(5)?, text(4)?),
            ));
        }
        Ok(keys)
    })?)
}

#[expect(clippy::too_many_arguments, reason = "a row's columns")]
fn write(
    list: &str,
    name: &str,
    json: &JsonB,
    owner: Oid,
    caller: &Caller,
    selection: &Selection,
    chosen: &Choice,
    slot: &str,
) -> Result<(), Refusal> {
    if chosen.goes_on {
        Spi::run_with_args(
            "UPDATE scry_backfill.job SET tables = $2, mode = 'cdc', mode_reason = $3, options = $4, desired = 'run', \
             state = 'streaming', whole_database = $5, owner = $6, search_path = $7, changed_at = now() WHERE name = $1",
            &[
                DatumWithOid::from(name),
                DatumWithOid::from(list),
                DatumWithOid::from(chosen.reason.as_str()),
                DatumWithOid::from(JsonB(json.0.clone())),
                DatumWithOid::from(selection.whole_database),
                DatumWithOid::from(owner),
                DatumWithOid::from(caller.path().to_vec()),
            ],
        )?;
        return Ok(());
    }
    Spi::run_with_args("DELETE FROM scry_backfill.job WHERE name = $1", &[DatumWithOid::from(name)])?;
    Spi::run_with_args(
        "INSERT INTO scry_backfill.job (name, tables, mode, mode_reason, options, desired, state, whole_database, \
         generation, slot_name, owner, database_oid, search_path) \
         VALUES ($1, $2, $3, $4, $5, 'run', 'new', $6, $7, $8, $9, $10, $11)",
        &[
            DatumWithOid::from(name),
            DatumWithOid::from(list),
            DatumWithOid::from(chosen.mode),
            DatumWithOid::from(chosen.reason.as_str()),
            DatumWithOid::from(JsonB(json.0.clone())),
            DatumWithOid::from(selection.whole_database),
            DatumWithOid::from(server::random_positive()),
            DatumWithOid::from(if chosen.mode == "snapshot" { "" } else { slot }),
            DatumWithOid::from(owner),
            DatumWithOid::from(Oid::from(server::database())),
            DatumWithOid::from(caller.path().to_vec()),
        ],
    )?;
    let (mut oids, mut schemas, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    for table in &selection.tables {
        oids.push(Oid::from(table.oid));
        schemas.push(table.schema.clone());
        tables.push(table.name.clone());
    }
    Spi::run_with_args(
        "INSERT INTO scry_backfill.job_table (job, relid, schema_name, table_name) \
         SELECT $1, t.* FROM unnest($2, $3, $4) AS t",
        &[
            DatumWithOid::from(name),
            DatumWithOid::from(oids),
            DatumWithOid::from(schemas),
            DatumWithOid::from(tables),
        ],
    )?;
    // A slot of this name is a leftover of the job's last life; nobody can have it acquired.
    slot_drop::drop_slot(slot);
    Ok(())
}
