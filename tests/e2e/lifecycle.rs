//! DROP, ALTER and upgrade while jobs run, a restart without the library, a
//! hundred lives of a job: a clear word or a clean end, and nothing left over.

use super::{PATIENT, SOON, error_of, mixed_pair, require_words, says, worker_pid};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Cluster, ClusterOptions, Pair, PairOptions, Shutdown, scenario, wait};
use std::time::{Duration, Instant};

/// Requires that no slot, worker, sender, socket or temporary file is left.
fn nothing_is_left(pair: &Pair) -> Result<()> {
    let gone = |what: &str, sql: &str| {
        wait::until_true(what, SOON, || Ok(pair.source.psql("postgres", sql)? == "0"))
    };
    gone("slots to be gone", "SELECT count(*) FROM pg_replication_slots")?;
    gone(
        "workers to be gone",
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE '%scry%' AND backend_type NOT LIKE '%launcher'",
    )?;
    gone(
        "temporary files to be gone",
        "SELECT count(*) FROM pg_ls_dir('base/pgsql_tmp', true, false) UNION ALL \
         SELECT count(*) FROM pg_ls_dir('pg_replslot') ORDER BY 1 DESC LIMIT 1",
    )?;
    wait::until_true("the sender's socket to be gone", SOON, || {
        let names = std::fs::read_dir(&pair.socket_dir)?.flatten();
        Ok(!names.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".sock")))
    })?;
    wait::until_true("the sender to be gone", SOON, || Ok(senders(pair)? == 0))
}

/// Processes of the program in this pair.
fn senders(pair: &Pair) -> Result<usize> {
    let needle = pair.socket_dir.to_string_lossy().into_owned();
    let mut count = 0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        count += usize::from(line.contains("scry_sender") && line.contains(&needle));
    }
    Ok(count)
}

#[test]
fn drops_are_refused_while_a_job_runs_and_clean_afterwards() {
    scenario("drops", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE ROLE boss SUPERUSER; SET ROLE boss; CREATE EXTENSION scry_backfill; RESET ROLE;
             CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)",
        )?;
        pair.start_job("t")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.source.psql("postgres", "CREATE DATABASE other")?;
        pair.source.psql(
            "other",
            "CREATE EXTENSION scry_backfill; CREATE TABLE o(id int PRIMARY KEY); SELECT scry_backfill.start('o')",
        )?;
        ensure!(pair.source.psql("other", "SELECT scry_backfill.wait_for_shadow()")? == "t");

        // Refused before anything is locked: what somebody reads in the meantime is not waited for.
        let mut reader = pair.source.client(&pair.database)?;
        reader.batch_execute("BEGIN; TABLE scry_backfill.event_log; TABLE scry_backfill.job_table")?;
        for command in [
            "DROP EXTENSION scry_backfill",
            "DROP EXTENSION scry_backfill CASCADE",
            "DROP OWNED BY boss CASCADE",
        ] {
            let error = error_of(&pair, &format!("SET lock_timeout = '5s'; {command}"))?;
            require_words(&error, &["cannot drop extension scry_backfill", "scry_backfill.stop('default')"])
                .with_context(|| command.to_owned())?;
        }
        reader.batch_execute("COMMIT")?;
        let error = error_of(&pair, "DROP SCHEMA scry_backfill CASCADE")?;
        require_words(&error, &["because extension scry_backfill requires it"])?;
        require_words(&error_of(&pair, "ALTER EXTENSION scry_backfill SET SCHEMA public")?, &["SET SCHEMA"])?;
        for command in ["DROP DATABASE other", "DROP DATABASE other WITH (FORCE)"] {
            require_words(&error_of(&pair, command)?, &["active logical replication slot"])
                .with_context(|| command.to_owned())?;
        }
        // Refused is refused: everything goes on.
        pair.sql("INSERT INTO t SELECT generate_series(101, 200)")?;
        pair.assert_equal()?;
        ensure!(pair.source.psql("other", "SELECT scry_backfill.wait_for_shadow()")? == "t");

        // A paused job holds no slot, so its database can go, and the slot with it.
        pair.source.psql("other", "SELECT scry_backfill.pause()")?;
        wait::until_true("DROP DATABASE to succeed", SOON, || {
            pair.source.psql("postgres", "DROP DATABASE IF EXISTS other").map(|_| true)
        })?;
        wait::until_true("the job's place to be given back", PATIENT, || {
            Ok(pair.source.log_text().contains("job \"default\" has ended: its database is gone"))
        })?;
        ensure!(
            pair.sql("SELECT count(*) FROM pg_replication_slots")? == "1",
            "its slot is gone, ours is not"
        );
        pair.sql("SELECT scry_backfill.stop()")?;
        nothing_is_left(&pair)?;
        pair.sql("DROP EXTENSION scry_backfill")?;
        ensure!(pair.sql("SELECT count(*) FROM pg_event_trigger")? == "0");
        pair.sql("CREATE EXTENSION scry_backfill")?;
        pair.assert_source_unharmed()
    });
}

/// What the source's tables are, in the catalogs and as a dump says it.
fn shape_of_source(pair: &Pair) -> Result<String> {
    let sql = "
        SELECT string_agg(concat_ws(' ', c.oid::regclass, c.relfilenode, c.relpersistence, c.relreplident,
            c.relrowsecurity, c.reloptions, c.relacl, c.relowner, (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid),
            (SELECT count(*) FROM pg_rewrite WHERE ev_class = c.oid)), E'\\n' ORDER BY c.oid)
            || (SELECT count(*) FROM pg_publication) || ' ' || (SELECT count(*) FROM pg_subscription)
        FROM pg_class AS c WHERE c.relnamespace = 'public'::regnamespace";
    let dump =
        pair.source.command("pg_dump").args(["--schema-only", "--schema=public", &pair.database]).output()?;
    ensure!(dump.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8(dump.stdout)?;
    // With a word that differs each time.
    let lines = dump.lines().filter(|l| !l.starts_with("\\restrict") && !l.starts_with("\\unrestrict"));
    Ok(format!("{}\n{}", pair.sql(sql)?, lines.collect::<Vec<_>>().join("\n")))
}

#[test]
fn the_tables_of_the_source_are_not_altered() {
    scenario("unaltered", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        let before = shape_of_source(&pair)?;
        ensure!(before.contains("CREATE TABLE"), "nothing was dumped: {before}");
        let same = |when: &str| {
            let now = shape_of_source(&pair)?;
            ensure!(now == before, "{when}:\n{now}\nbefore:\n{before}");
            Ok(())
        };
        pair.start_job("*")?;
        same("while it copies")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("INSERT INTO document(title, body) SELECT i, md5(i::text) FROM generate_series(1, 1000) i")?;
        pair.assert_equal()?;
        // Nor is the session that asks: each setting is as before.
        let changed = pair.sql(
            "SET DateStyle = 'German';
             CREATE TEMP TABLE asked AS SELECT name, setting FROM pg_settings;
             \\o /dev/null
             SELECT * FROM scry_backfill.check('*');
             SELECT * FROM scry_backfill.verify(repair => true);
             SELECT * FROM scry_backfill.verify('document');
             SELECT scry_backfill.pause(), scry_backfill.resume(), scry_backfill.resync('document');
             SELECT scry_backfill.wait_for_shadow();
             SELECT * FROM scry_backfill.status, scry_backfill.progress, scry_backfill.tables;
             \\o
             SELECT string_agg(concat_ws(' ', name, now.setting), ', ')
             FROM asked FULL JOIN pg_settings AS now USING (name) WHERE now.setting IS DISTINCT FROM asked.setting",
        )?;
        ensure!(changed.is_empty(), "left changed in the session: {changed}");
        pair.assert_equal()?;
        same("while it streams")?;
        pair.sql("SELECT scry_backfill.stop(); DROP EXTENSION scry_backfill")?;
        same("after it")?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn workers_wait_for_no_lock_on_the_extensions_tables() {
    scenario("locks", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let waits = std::thread::scope(|scope| -> Result<u64> {
            // As a DROP takes them; another session has the launcher look at the jobs meanwhile.
            let holder = scope.spawn(|| {
                pair.sql("BEGIN; LOCK TABLE scry_backfill.event_log; SELECT pg_sleep(4); ROLLBACK")
            });
            wait::until_true("the lock", SOON, || {
                let held = "SELECT count(*) FROM pg_locks WHERE relation = 'scry_backfill.event_log'::regclass \
                            AND mode = 'AccessExclusiveLock' AND granted";
                Ok(pair.sql(held)? == "1")
            })?;
            pair.sql("SELECT scry_backfill.pause()")?;
            let mut long = 0;
            for _ in 0..20 {
                std::thread::sleep(Duration::from_millis(100));
                long += pair.sql("SELECT count(*) FROM pg_locks WHERE NOT granted AND waitstart < now() - interval '0.6 s'")?
                    .parse::<u64>()?;
            }
            holder.join().map_err(|_| anyhow::anyhow!("the session with the lock panicked"))??;
            Ok(long)
        })?;
        ensure!(
            waits == 0,
            "a worker waited long enough for another to be ended as a deadlock, {waits} times"
        );
        // The request is not forgotten.
        wait::until_true("the pause", SOON, || {
            Ok(pair.sql("SELECT state FROM scry_backfill.status")? == "paused")
        })?;
        pair.sql("SELECT scry_backfill.resume()")?;
        pair.assert_equal()
    });
}

/// Descriptors that the launcher has open.
fn launcher_files(pair: &Pair) -> Result<usize> {
    let pid = worker_pid(pair, "launcher")?;
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

#[test]
fn a_hundred_starts_and_stops_leave_nothing() {
    scenario("hundred_lives", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE EXTENSION scry_backfill; CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t VALUES (0)",
        )?;
        let mut rng = lab.rng();
        let begun = Instant::now();
        let mut files = 0;
        for life in 1..=100 {
            pair.sql("SELECT scry_backfill.start('t')")?;
            match rng.below(4) {
                // In the middle of whatever it is doing.
                0 => std::thread::sleep(Duration::from_millis(rng.below(300))),
                1 if life % 5 == 0 => pair.wait_for_shadow(PATIENT)?,
                2 => drop(pair.sql("SELECT scry_backfill.pause()")?),
                _ => {}
            }
            pair.sql("SELECT scry_backfill.stop(); INSERT INTO t SELECT max(id) + 1 FROM t")?;
            if life == 10 {
                nothing_is_left(&pair)?;
                files = launcher_files(&pair)?;
            }
        }
        nothing_is_left(&pair)?;
        let (now, seconds) = (launcher_files(&pair)?, begun.elapsed().as_secs());
        eprintln!("100 lives in {seconds} s; the launcher's descriptors: {files} after 10, {now} after 100");
        ensure!(now <= files + 2, "the launcher keeps descriptors: {files}, then {now}");
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let mut shadow = pair.shadow_client()?;
        wait::until_true("the shadow's sessions to be gone", SOON, || {
            Ok(shadow.query_one(sessions, &[])?.get::<_, i64>(0) <= 2)
        })?;
        pair.start_job("t")?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_restart_without_the_library_is_told_and_can_be_cleared_up() {
    scenario("no_preload_later", |lab| {
        let mut pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)")?;
        pair.start_job("t")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.source.add_conf(&["shared_preload_libraries = ''"])?;
        pair.source.restart(Shutdown::Fast)?;
        let row = pair.wait_status("the job", SOON, |_| true)?;
        ensure!(
            says(&row, "not loaded by the server")
                && says(&row, "shared_preload_libraries = 'scry_backfill'")
        );
        ensure!(row.get("sender").is_some_and(|sender| sender == "not loaded"), "{row:?}");
        for call in ["start('t', job => 'second')", "pause()", "resume()", "wait_for_shadow()"] {
            require_words(
                &error_of(&pair, &format!("SELECT scry_backfill.{call}"))?,
                &["shared_preload_libraries"],
            )?;
        }
        // The slot is there, and keeps WAL: the extension is not dropped away from it.
        let error =
            error_of(&pair, "SELECT count(*) FROM scry_backfill.status; DROP EXTENSION scry_backfill")?;
        require_words(&error, &["cannot drop extension scry_backfill"])?;
        // With the library again it goes on without a copy.
        pair.sql("INSERT INTO t SELECT generate_series(101, 200)")?;
        pair.source.add_conf(&["shared_preload_libraries = 'scry_backfill'"])?;
        pair.source.restart(Shutdown::Fast)?;
        pair.assert_equal()?;
        let over = "SELECT count(*) FROM scry_backfill.events WHERE message LIKE '%copied again%' OR level = 'warning'";
        ensure!(pair.sql(over)? == "0", "it was copied again: {}", pair.describe_status());
        // Without it for good: the slot is dropped, then the extension.
        pair.source.add_conf(&["shared_preload_libraries = ''"])?;
        pair.source.restart(Shutdown::Fast)?;
        pair.sql("SELECT scry_backfill.stop(); DROP EXTENSION scry_backfill")?;
        ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0");
        pair.assert_source_unharmed()
    });
}

/// All that an extension has made, as text.
const MEMBERS: &str = "
    SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT 'function ' || pg_get_functiondef(p.oid) || coalesce(p.proacl::text, '') AS line
        FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
            AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'scry_backfill')
        UNION ALL
        SELECT 'relation ' || c.oid::regclass || ' ' || c.relkind::text || coalesce(c.relacl::text, '')
            || coalesce((SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' '
                || a.attnotnull || ' ' || coalesce(pg_get_expr(f.adbin, f.adrelid), ''), ', ' ORDER BY a.attname)
                FROM pg_attribute a LEFT JOIN pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '')
            || coalesce((SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname)
                FROM pg_constraint k WHERE k.conrelid = c.oid), '')
            || CASE c.relkind WHEN 'v' THEN pg_get_viewdef(c.oid) ELSE '' END
        FROM pg_depend d JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
        WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
            AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'scry_backfill')
        UNION ALL
        SELECT 'event trigger ' || evtname || evtevent || evtenabled::text || evtfoid::regprocedure
            || coalesce(evttags::text, '')
        FROM pg_event_trigger
    ) AS members";

#[test]
fn an_upgrade_ends_as_a_new_installation() {
    scenario("upgrade", |lab| {
        lab.server.require_extension()?;
        let conf = ["shared_preload_libraries = 'scry_backfill'", "wal_level = logical"];
        let options = ClusterOptions { conf: conf.map(str::to_owned).to_vec(), own_identity: false };
        let cluster = Cluster::start_new(lab, "one", &options)?;
        cluster.psql("postgres", "CREATE DATABASE old; CREATE DATABASE new")?;
        cluster.psql(
            "old",
            "CREATE EXTENSION scry_backfill VERSION '0.1.0'; CREATE TABLE t(id int PRIMARY KEY);
             INSERT INTO scry_backfill.job (name, tables, mode, mode_reason, options, desired, state, whole_database,
                 search_path, generation, slot_name, owner, database_oid)
             SELECT 'kept', 't', 'hybrid', 'because', '{}', 'stop', 'stopped', false, '{public}', 7, '', 10, oid
                 FROM pg_database WHERE datname = current_database();
             INSERT INTO scry_backfill.job_table (job, relid, schema_name, table_name)
                 VALUES ('kept', 't'::regclass, 'public', 't')",
        )?;
        // Until the objects are the library's nothing is started on them.
        let error = match cluster.psql("old", "SELECT scry_backfill.start('t')") {
            Ok(said) => anyhow::bail!("started on old objects: {said}"),
            Err(error) => format!("{error:#}"),
        };
        require_words(
            &error,
            &["has version 0.1.0 in this database", "ALTER EXTENSION scry_backfill UPDATE"],
        )?;
        cluster.psql("old", "ALTER EXTENSION scry_backfill UPDATE")?;
        cluster.psql("new", "CREATE EXTENSION scry_backfill")?;
        let (old, new) = (cluster.psql("old", MEMBERS)?, cluster.psql("new", MEMBERS)?);
        ensure!(new.lines().count() > 100, "the members were read: {new}");
        for (old, new) in old.lines().zip(new.lines()) {
            ensure!(old == new, "after the upgrade: {old}\nnewly installed: {new}");
        }
        ensure!(old.len() == new.len(), "an upgrade makes other objects than an installation");
        let versions = "SELECT extversion FROM pg_extension WHERE extname = 'scry_backfill'";
        ensure!(cluster.psql("old", versions)? == cluster.psql("new", versions)?);
        let kept = "SELECT job, state, tables, mode_reason FROM scry_backfill.status";
        ensure!(cluster.psql("old", kept)? == "kept|stopped|1|because", "{}", cluster.psql("old", kept)?);
        Ok(())
    });
}

#[test]
fn objects_of_another_version_are_told_and_the_job_goes_on_after_the_update() {
    scenario("other_version", |lab| {
        let mut pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql("CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)")?;
        pair.start_job("t")?;
        pair.wait_for_shadow(PATIENT)?;
        // As if the library had been replaced by a newer one.
        let version = "UPDATE pg_extension SET extversion = '0.0.9' WHERE extname = 'scry_backfill'";
        let library = pair.sql("SELECT extversion FROM pg_extension WHERE extname = 'scry_backfill'")?;
        pair.sql(version)?;
        pair.source.restart(Shutdown::Fast)?;
        pair.wait_status("the version in the status", SOON, |row| {
            says(row, "version 0.0.9") && says(row, "alter extension scry_backfill update")
        })?;
        pair.sql("INSERT INTO t SELECT generate_series(101, 200)")?;
        pair.sql(&version.replace("0.0.9", &library))?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}
