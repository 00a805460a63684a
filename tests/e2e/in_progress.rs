//! Transactions that are sent in pieces before they end: whole at their end,
//! and nothing of what was aborted.

use super::{PATIENT, mixed_load, mixed_pair};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Lab, Pair, PairOptions, scenario, wait};
use std::time::Duration;

/// A source that keeps as little of a transaction as it can be told to.
fn options() -> PairOptions {
    PairOptions {
        source_conf: vec!["logical_decoding_work_mem = '64kB'".to_owned()],
        ..PairOptions::default()
    }
}

/// A pair that follows, and whose worker has begun to send pieces.
fn following(lab: &Lab, schema: &str) -> Result<Pair> {
    let pair = mixed_pair(lab, &options())?;
    pair.sql(schema)?;
    pair.start_job("*")?;
    pair.wait_for_shadow(PATIENT)?;
    wait_for_pieces(&pair)?;
    Ok(pair)
}

/// Transactions in pieces and on disk, as the server counts them for the slot.
fn counted(pair: &Pair) -> Result<(i64, i64)> {
    let sql =
        "SELECT sum(stream_txns)::bigint || ' ' || sum(spill_txns)::bigint FROM pg_stat_replication_slots";
    let text = pair.source.psql("postgres", sql)?;
    let (streamed, spilled) = text.split_once(' ').context("two numbers")?;
    Ok((streamed.parse()?, spilled.parse()?))
}

/// The worker begins with pieces once it is idle; WAL of an open transaction may hold that up.
fn wait_for_pieces(pair: &Pair) -> Result<()> {
    pair.sql("CREATE TABLE probe(id int PRIMARY KEY, t text)")?;
    wait::until_true("a transaction in pieces", PATIENT, || {
        pair.sql("INSERT INTO probe SELECT i, md5(i::text) FROM generate_series(1, 3000) i; TRUNCATE probe")?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(counted(pair)?.0 > 0)
    })
}

#[test]
fn large_transactions_arrive_whole_and_without_what_was_aborted() {
    scenario("in_pieces", |lab| {
        let pair = following(
            lab,
            "CREATE TABLE wide(id int PRIMARY KEY, a text, big text); ALTER TABLE wide ALTER big SET STORAGE EXTERNAL;
             CREATE TABLE by_row(a int, b text); ALTER TABLE by_row REPLICA IDENTITY FULL;
             INSERT INTO wide SELECT i, 'a', repeat(md5(i::text), 200) FROM generate_series(1, 300) i",
        )?;
        let (before, spilled) = counted(&pair)?;
        for script in [
            // Savepoints: released, aborted, nested, aborted after a release within.
            "BEGIN; INSERT INTO wide SELECT 1000 + i, 'kept' FROM generate_series(1, 3000) i;
             SAVEPOINT a; INSERT INTO by_row SELECT i, 'aborted' FROM generate_series(1, 3000) i; ROLLBACK TO a;
             INSERT INTO by_row SELECT i, 'kept' FROM generate_series(1, 2000) i;
             SAVEPOINT b; UPDATE wide SET a = 'b' WHERE id < 3000;
             SAVEPOINT c; UPDATE wide SET a = 'c' WHERE id % 2 = 0; RELEASE c; UPDATE wide SET a = a || '!'; ROLLBACK TO b;
             SAVEPOINT d; DELETE FROM wide WHERE id % 7 = 0; RELEASE d;
             UPDATE by_row SET b = b || a WHERE a % 2 = 0; COMMIT",
            // All of it is void.
            "BEGIN; INSERT INTO wide SELECT 90000 + i, 'never' FROM generate_series(1, 5000) i; TRUNCATE by_row; ROLLBACK",
            // Large values, unchanged ones, keys that change, a truncation inside.
            "BEGIN; UPDATE wide SET a = 'toast stays' WHERE big IS NOT NULL;
             UPDATE wide SET big = big || 'x' WHERE id % 3 = 0; UPDATE wide SET id = -id WHERE id < 2000;
             TRUNCATE by_row; INSERT INTO by_row SELECT i, NULL FROM generate_series(1, 3000) i; COMMIT",
            // Many subtransactions, each with a row, some of them void.
            "DO $$ BEGIN FOR i IN 1..4000 LOOP BEGIN
               INSERT INTO wide VALUES (200000 + i, 'sub');
               IF i % 5 = 0 THEN RAISE EXCEPTION 'void'; END IF;
             EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
        ] {
            pair.sql(script)?;
            pair.assert_equal()?;
        }
        let (after, now_spilled) = counted(&pair)?;
        ensure!(after >= before + 4, "{} transactions came in pieces", after - before);
        // Where its memory is full between the chunks of a large value the server spills.
        ensure!(now_spilled <= spilled + 1, "{} transactions were spilled", now_spilled - spilled);
        pair.assert_source_unharmed()
    });
}

#[test]
fn pieces_of_several_transactions_mix_with_whole_ones() {
    scenario("mixed_pieces", |lab| {
        let pair = following(lab, "CREATE TABLE big(id int PRIMARY KEY, v text)")?;
        let load = mixed_load(lab, &pair, false)?;
        let (before, _) = counted(&pair)?;
        std::thread::scope(|scope| -> Result<()> {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let pair = &pair;
                    scope.spawn(move || -> Result<()> {
                        for round in 0..4 {
                            let first = writer * 1_000_000 + round * 10_000;
                            let end = if round % 2 == 0 { "COMMIT" } else { "ROLLBACK" };
                            let mut script = String::from("BEGIN;");
                            for part in 0..10 {
                                let from = first + part * 500;
                                script.push_str(&format!(
                                    "INSERT INTO big SELECT i, md5(i::text) FROM generate_series({from}, {}) i;
                                     SELECT pg_sleep(0.05);",
                                    from + 499
                                ));
                            }
                            script.push_str(&format!("UPDATE big SET v = v || '!' WHERE id / 1000000 = {writer}; {end}"));
                            pair.sql(&script)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().map_err(|_| anyhow::anyhow!("a writer panicked"))?)
        })?;
        eprintln!("{}", load.stop()?);
        pair.assert_equal()?;
        ensure!(counted(&pair)?.0 >= before + 6, "few transactions came in pieces");
        let rows: i64 = pair.shadow_client()?.query_one("SELECT count(*) FROM public.big", &[])?.get(0);
        ensure!(rows == 3 * 2 * 5000, "{rows} rows");
        Ok(())
    });
}

#[test]
fn one_that_changes_the_schema_comes_whole() {
    scenario("schema_in_pieces", |lab| {
        let pair = following(lab, "CREATE TABLE big(id int PRIMARY KEY, v text)")?;
        pair.sql(
            "BEGIN; INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
             ALTER TABLE big ADD COLUMN n int DEFAULT 7; UPDATE big SET n = id WHERE id % 2 = 0;
             CREATE TABLE born(id int PRIMARY KEY); INSERT INTO born SELECT generate_series(1, 5000);
             SAVEPOINT s; ALTER TABLE big DROP COLUMN v; UPDATE big SET n = -n; ROLLBACK TO s;
             DELETE FROM big WHERE id % 3 = 0; COMMIT",
        )?;
        pair.assert_equal()?;
        let told = pair.sql(
            "SELECT count(*) FROM scry_backfill.events WHERE message LIKE '%decoded again when it ends%'",
        )?;
        ensure!(told.trim() != "0", "no transaction in progress was sent whole instead");
        pair.sql("INSERT INTO born SELECT generate_series(5001, 20000); UPDATE big SET v = 'after'")?;
        pair.assert_equal()
    });
}

#[test]
fn a_connection_that_ends_between_pieces_loses_nothing() {
    scenario("cut_between_pieces", |lab| {
        let mut pair = following(lab, "CREATE TABLE big(id int PRIMARY KEY, v text)")?;
        for kill_worker in [true, false] {
            let (before, _) = counted(&pair)?;
            let mut client = pair.source_client()?;
            let mut open = client.transaction()?;
            open.batch_execute(
                "DELETE FROM big; INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, 20000) i",
            )?;
            if kill_worker {
                wait::until_true("a piece", PATIENT, || Ok(counted(&pair)?.0 > before))?;
                pair.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE '%scry%stream%'")?;
            } else {
                pair.platform.program.kill()?;
                pair.platform.start()?;
            }
            pair.wait_for_shadow(PATIENT)?;
            open.batch_execute(
                "UPDATE big SET v = v || '!' WHERE id % 2 = 0; SAVEPOINT s; DELETE FROM big; ROLLBACK TO s",
            )?;
            let shown: i64 = pair
                .shadow_client()?
                .query_one("SELECT count(*) FROM public.big WHERE v LIKE '%!'", &[])?
                .get(0);
            ensure!(shown == if kill_worker { 0 } else { 10_000 }, "{shown} rows of an open transaction");
            open.commit()?;
            pair.assert_equal()?;
        }
        Ok(())
    });
}

/// A prepared transaction counts when it is committed, whatever lies between.
#[test]
fn prepared_transactions_arrive_when_they_are_committed() {
    scenario("prepared", |lab| {
        let mut options = options();
        options.source_conf.push("max_prepared_transactions = 5".to_owned());
        let mut pair = mixed_pair(lab, &options)?;
        pair.sql("CREATE TABLE big(id int PRIMARY KEY, v text); INSERT INTO big VALUES (0, 'zero')")?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        wait_for_pieces(&pair)?;
        let fill = |from: u32| {
            format!("INSERT INTO big SELECT i, md5(i::text) FROM generate_series({from}, {}) i", from + 4999)
        };
        pair.sql(&format!(
            "BEGIN; {}; SAVEPOINT s; UPDATE big SET v = 'x'; ROLLBACK TO s; PREPARE TRANSACTION 'kept'",
            fill(1)
        ))?;
        pair.sql(&format!("BEGIN; {}; PREPARE TRANSACTION 'void'", fill(10_001)))?;
        pair.sql("INSERT INTO probe VALUES (1, 'meanwhile')")?;
        pair.wait_for_shadow(PATIENT)?;
        let rows: i64 = pair.shadow_client()?.query_one("SELECT count(*) FROM public.big", &[])?.get(0);
        ensure!(rows == 1, "{rows} rows before anything was committed");
        pair.source.stop(scry_testkit::Shutdown::Immediate)?;
        pair.source.start()?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("ROLLBACK PREPARED 'void'")?;
        pair.sql("COMMIT PREPARED 'kept'")?;
        pair.assert_equal()?;
        let rows: i64 = pair.shadow_client()?.query_one("SELECT count(*) FROM public.big", &[])?.get(0);
        ensure!(rows == 5001, "{rows} rows");
        pair.sql("BEGIN; ALTER TABLE big ADD COLUMN n int DEFAULT 3; UPDATE big SET n = id; PREPARE TRANSACTION 'schema'")?;
        pair.sql("COMMIT PREPARED 'schema'")?;
        pair.assert_equal()
    });
}
