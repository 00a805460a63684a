//! `check()`: what stands in the way of a job, without starting one.
//!
//! Levels: `error` (start() would refuse), `warning` (it would start, and
//! something is slower, later or missing), `info` (good to know).

use pgrx::datum::DatumWithOid;
use pgrx::iter::TableIterator;
use pgrx::pg_sys::Oid;
use pgrx::{name, pg_extern};

use super::options::JobOptions;
use super::preflight;
use super::refusal::{Refusal, or_raise};
use super::select::{self, Caller, Selection};
use super::start::foreign_keys_left_out;
use crate::catalog::{self, Extent};
use crate::guc::{self, SenderKind};
use crate::pg::privileged::as_superuser;
use crate::pg::read;
use crate::worker::sender_child;

struct Finding {
    level: &'static str,
    object: String,
    finding: String,
    remedy: String,
}

impl Finding {
    fn new(
        level: &'static str,
        object: &str,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { level, object: object.to_owned(), finding: finding.into(), remedy: remedy.into() }
    }
}

/// Lists what stands in the way; no row means nothing does.
#[pg_extern(sql = false)]
fn check(
    tables: &str,
) -> TableIterator<
    'static,
    (name!(level, String), name!(object, String), name!(finding, String), name!(remedy, String)),
> {
    let mut findings = or_raise(try_check(tables));
    let rank = |level: &str| match level {
        "error" => 0,
        "warning" => 1,
        _ => 2,
    };
    findings.sort_by_key(|finding| rank(finding.level));
    TableIterator::new(findings.into_iter().map(|f| (f.level.to_owned(), f.object, f.finding, f.remedy)))
}

fn try_check(list: &str) -> Result<Vec<Finding>, Refusal> {
    let mut findings = Vec::new();
    let caller = Caller::current()?;
    note(&mut findings, "error", "server", preflight::preloaded());
    // start() falls back to mode snapshot.
    note(&mut findings, "warning", "server", preflight::wal_level());
    note(&mut findings, "error", "server", preflight::not_standby("a job cannot be started"));
    note(&mut findings, "error", "server", preflight::endpoint());
    note(&mut findings, "error", "database", preflight::encoding());
    as_superuser(|| {
        if preflight::wal_level().is_ok() {
            note(&mut findings, "error", "server", preflight::free_slot(""));
        }
        note(&mut findings, "error", "server", preflight::free_workers());
        if crate::pg::shared::available() {
            note(&mut findings, "error", "server", preflight::free_place());
        }
        sender(&mut findings);
        delays(&mut findings)?;
        let mut selection = select::select(list, &JobOptions::default(), &caller)?;
        select::refuse_closed(&mut selection)?;
        tables(&mut findings, selection)?;
        Ok(findings)
    })
}

fn note(findings: &mut Vec<Finding>, level: &'static str, object: &str, result: Result<(), Refusal>) {
    if let Err(refusal) = result {
        findings.push(Finding::new(level, object, refusal.finding(), refusal.remedy()));
    }
}

fn sender(findings: &mut Vec<Finding>) {
    if guc::sender() == SenderKind::Managed
        && let Err((message, hint)) = sender_child::check_program(&guc::sender_path())
    {
        findings.push(Finding::new("error", "sender", message, hint));
    }
}

/// Transactions that the slot's creation would wait for, once they are old.
fn delays(findings: &mut Vec<Finding>) -> Result<(), Refusal> {
    const SQL: &str = "
        SELECT format('process %s (%s, database %s)', a.pid, a.usename, a.datname),
            format('runs a transaction since %s', date_trunc('second', a.xact_start)),
            format('End it, or cancel it: SELECT pg_terminate_backend(%s);', a.pid)
        FROM pg_catalog.pg_stat_activity AS a
        WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid()
            AND a.xact_start < pg_catalog.clock_timestamp() - interval '10 seconds'
        UNION ALL
        SELECT format('prepared transaction %L (%s, database %s)', p.gid, p.owner, p.database),
            format('is left since %s', date_trunc('second', p.prepared)),
            format('COMMIT PREPARED or ROLLBACK PREPARED %L.', p.gid)
        FROM pg_catalog.pg_prepared_xacts AS p";
    for (object, finding, remedy) in triples(SQL, &[])? {
        let finding = format!("{finding}; the creation of a slot waits for it");
        findings.push(Finding::new("warning", &object, finding, remedy));
    }
    Ok(())
}

fn tables(findings: &mut Vec<Finding>, selection: Selection) -> Result<(), Refusal> {
    for refusal in &selection.refused {
        findings.push(Finding::new("error", "tables", refusal.finding(), refusal.remedy()));
    }
    for (relation, reason) in &selection.left_out {
        findings.push(Finding::new("warning", relation, format!("left out: {reason}"), ""));
    }
    if !selection.whole_database {
        for (key, from, to) in foreign_keys_left_out(&selection)? {
            findings.push(Finding::new(
                "warning",
                &from,
                format!("foreign key \"{key}\" is left out: {to} is not selected"),
                format!("Select {to} too."),
            ));
        }
    }
    text_types(findings, &selection)?;
    named_objects(findings, &selection)?;
    not_on_the_shadow(findings)?;
    if selection.whole_database {
        privileged_code(findings)?;
    }
    catalog_left_out(findings, &selection)?;
    large_objects(findings)
}

/// Tables of running jobs that the shadow could not make or keep.
fn not_on_the_shadow(findings: &mut Vec<Finding>) -> Result<(), Refusal> {
    const SQL: &str = "
        SELECT format('%I.%I', t.schema_name, t.table_name),
            format('not as on the source on the shadow of job %s: %s', quote_ident(t.job), t.quarantine_cause),
            format('Mend the cause on the shadow, then: SELECT scry_backfill.resync(%L, %L);',
                format('%I.%I', t.schema_name, t.table_name), t.job)
        FROM scry_backfill.job_table AS t
        WHERE t.quarantined > 0
        ORDER BY t.job, t.schema_name, t.table_name
        LIMIT 100";
    for (object, finding, remedy) in triples(SQL, &[])? {
        findings.push(Finding::new("warning", &object, finding, remedy));
    }
    Ok(())
}

/// Extensions, and code that only a superuser may bring to a server: the shadow makes them if what
/// they need was put there by hand, and leaves them out otherwise, with all that needs them.
fn privileged_code(findings: &mut Vec<Finding>) -> Result<(), Refusal> {
    const SQL: &str = "
        SELECT CASE WHEN p.prokind = 'p' THEN 'procedure ' ELSE 'function ' END || p.oid::regprocedure::text,
            format('written in language %s, in which only superusers write', quote_ident(l.lanname)),
            'The shadow has it only if the language, or for C the extension, is there; see its left_out.'
        FROM pg_catalog.pg_proc AS p
        JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang AND NOT l.lanpltrusted
        JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
        WHERE p.oid >= 16384 AND NOT n.nspname ^@ 'pg_' AND n.nspname <> 'scry_backfill'
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = ANY ('{e,i}'))
        UNION ALL
        SELECT 'type ' || format_type(t.oid, NULL), 'a base type, which only superusers make',
            'The shadow has it only if its functions are there; see its left_out.'
        FROM pg_catalog.pg_type AS t
        JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
        WHERE t.oid >= 16384 AND t.typtype = 'b' AND t.typelem = 0 AND NOT n.nspname ^@ 'pg_'
            AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
        UNION ALL
        SELECT 'extension ' || quote_ident(x.extname), 'its files are not copied',
            'The shadow has it only if it is installed there, and trusted or on the platform''s list; see its left_out.'
        FROM pg_catalog.pg_extension AS x
        WHERE x.oid >= 16384 AND x.extname <> 'scry_backfill'
        ORDER BY 1
        LIMIT 100";
    for (object, finding, remedy) in triples(SQL, &[])? {
        findings.push(Finding::new("info", &object, finding, remedy));
    }
    Ok(())
}

/// What the catalog document leaves out, apart from the tables themselves.
fn catalog_left_out(findings: &mut Vec<Finding>, selection: &Selection) -> Result<(), Refusal> {
    let tables: Vec<u32> = selection.tables.iter().map(|table| table.oid).collect();
    let list = catalog::left_out(Extent::of_job(selection.whole_database, &tables, &[]))?;
    // Large objects and foreign keys to tables outside are told by themselves.
    let is_told = |object: &str, reason: &str| {
        object.ends_with(" large objects")
            || !selection.whole_database
                && object.starts_with("constraint ")
                && reason.starts_with("it refers to ")
    };
    let others = list.into_iter().filter(|(object, reason)| !is_told(object, reason));
    for (object, reason) in others.take(LEFT_OUT_SHOWN) {
        findings.push(Finding::new("warning", &object, format!("left out: {reason}"), ""));
    }
    Ok(())
}

/// Objects that are left out, named one by one.
const LEFT_OUT_SHOWN: usize = 200;

/// Columns whose values name objects of this server: what the shadow does not
/// have it cannot store. `oid` stands for itself, and roles for all of a cluster.
fn named_objects(findings: &mut Vec<Finding>, selection: &Selection) -> Result<(), Refusal> {
    const SQL: &str = "
        SELECT format('%I.%I', n.nspname, c.relname),
            format('column %I of type %s names objects: a value whose object the shadow does not have stops the job',
                a.attname, format_type(a.atttypid, NULL)),
            'Create the objects (roles, say) on the shadow as well, or leave the table out.'
        FROM pg_catalog.pg_attribute AS a
        JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem AND t.typlen = -1
        WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
            AND coalesce(nullif(t.typbasetype, 0), e.oid, t.oid) = ANY ('{regproc,regprocedure,regoper,regoperator,
                regclass,regrole,regnamespace,regconfig,regdictionary,regcollation,regtype,aclitem}'
                ::pg_catalog.regtype[]::pg_catalog.oid[])
        ORDER BY n.nspname, c.relname, a.attnum
        LIMIT 100";
    let oids: Vec<Oid> = selection.tables.iter().map(|table| Oid::from(table.oid)).collect();
    for (object, finding, remedy) in triples(SQL, &[DatumWithOid::from(oids)])? {
        findings.push(Finding::new("warning", &object, finding, remedy));
    }
    Ok(())
}

/// Tables whose rows go as text, which is slower, because of a column's type.
fn text_types(findings: &mut Vec<Finding>, selection: &Selection) -> Result<(), Refusal> {
    const SQL: &str = "
        SELECT format('%I.%I', n.nspname, c.relname),
            format('column %s of type %s', quote_ident(min(a.attname)), min(format_type(a.atttypid, NULL))), ''
        FROM pg_catalog.pg_attribute AS a
        JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
        WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped
            AND t.oid >= 16384 AND t.typtype <> 'e' AND NOT (t.typtype = 'd' AND t.typbasetype < 16384)
        GROUP BY n.nspname, c.relname
        ORDER BY n.nspname, c.relname
        LIMIT 100";
    let oids: Vec<Oid> = selection.tables.iter().map(|table| Oid::from(table.oid)).collect();
    for (object, column, _) in triples(SQL, &[DatumWithOid::from(oids)])? {
        findings.push(Finding::new(
            "info",
            &object,
            format!("rows are sent as text because of {column}"),
            "",
        ));
    }
    Ok(())
}

fn large_objects(findings: &mut Vec<Finding>) -> Result<(), Refusal> {
    let any = read::one::<bool>("SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)", &[])?;
    if any == Some(true) {
        findings.push(Finding::new(
            "warning",
            "large objects",
            "large objects are not sent",
            "Store them in bytea columns if the shadow needs them.",
        ));
    }
    Ok(())
}

fn triples(sql: &str, args: &[DatumWithOid<'_>]) -> Result<Vec<(String, String, String)>, Refusal> {
    Ok(read::rows(sql, args, |found| {
        let mut rows = Vec::new();
        for row in found {
            let text = |column| row.get::<String>(column).map(Option::unwrap_or_default);
            rows.push((text(1)?, text(2)?, text(3)?));
        }
        Ok(rows)
    })?)
}
