//! Limits that are reached, many subtransactions, and a shadow that somebody
//! has changed by hand: told by name, and over when the cause is.

use super::{PATIENT, SOON, mixed_pair, says};
use anyhow::{Context, Result, ensure};
use scry_testkit::{Pair, PairOptions, Shutdown, scenario, wait};

/// Rows of `t` on the shadow, by key.
fn shadow_rows(pair: &Pair) -> Result<String> {
    let sql = "SELECT coalesce(string_agg(id || '=' || v, ' ' ORDER BY id), '') FROM public.t";
    Ok(pair.shadow_client()?.query_one(sql, &[])?.get(0))
}

#[test]
fn a_hundred_thousand_subtransactions_arrive() {
    scenario("subtransactions", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.sql("CREATE TABLE t(id int PRIMARY KEY, v text)")?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        // Every third is void; some are nested, with a part or all of it void.
        pair.sql(
            "DO $$ BEGIN FOR i IN 1..100000 LOOP BEGIN
               INSERT INTO t VALUES (i, 'outer');
               IF i % 10 = 0 THEN
                 BEGIN UPDATE t SET v = 'inner' WHERE id = i; RAISE EXCEPTION 'void'; EXCEPTION WHEN raise_exception THEN NULL; END;
                 BEGIN UPDATE t SET v = v || '!' WHERE id = i; EXCEPTION WHEN raise_exception THEN NULL; END;
               END IF;
               IF i % 3 = 0 THEN RAISE EXCEPTION 'void'; END IF;
             EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$",
        )?;
        pair.assert_equal()?;
        ensure!(pair.sql("SELECT count(*) FROM t")? == "66667");
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_server_without_a_free_worker_says_so() {
    scenario("no_worker", |lab| {
        let conf = ["max_worker_processes = 2", "max_logical_replication_workers = 1"];
        let source_conf = conf.map(str::to_owned).to_vec();
        let mut pair = mixed_pair(lab, &PairOptions { source_conf, ..PairOptions::default() })?;
        let told = match pair.start_job("*") {
            Err(error) => format!("{error:#}"),
            Ok(()) => {
                let row =
                    pair.wait_status("what is missing", SOON, |row| says(row, "max_worker_processes"))?;
                format!("{row:?}")
            }
        };
        ensure!(told.contains("max_worker_processes"), "{told}");
        pair.sql("INSERT INTO staging(v) VALUES (1)")?;
        pair.sql("ALTER SYSTEM SET max_worker_processes = 12")?;
        pair.source.stop(Shutdown::Fast)?;
        pair.source.start()?;
        if pair.sql("SELECT count(*) FROM scry_backfill.status")? == "0" {
            pair.start_job("*")?;
        }
        pair.assert_equal()
    });
}

#[test]
fn a_shadow_that_was_changed_by_hand_is_told_by_table_and_key() {
    scenario("by_hand", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.sql("CREATE TABLE t(id int PRIMARY KEY, v text, w int); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 9) i")?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let by_hand = |sql: &str| -> Result<()> { Ok(pair.shadow_client()?.batch_execute(sql)?) };
        let told = |what: &str, words: &[&str]| -> Result<()> {
            let row = pair.wait_status(what, SOON, |row| words.iter().all(|word| says(row, word)))?;
            eprintln!("{what}: {} ({})", row["why"], row["hint"]);
            Ok(())
        };
        let go_on = || -> Result<()> {
            pair.sql("SELECT scry_backfill.resume()")?;
            pair.assert_equal()
        };

        // A row is missing: its key stands on the shadow, with what should be done, and of its
        // transaction there is nothing.
        by_hand("DELETE FROM public.t WHERE id = 3")?;
        pair.sql(
            "BEGIN; UPDATE t SET v = 'updated' WHERE id = 2; UPDATE t SET v = 'updated' WHERE id = 3;
             INSERT INTO t VALUES (11, 'beside'); COMMIT",
        )?;
        told("the missing row", &["\"t\""])?;
        let there = shadow_rows(&pair)?;
        ensure!(!there.contains("updated") && !there.contains("beside"), "half a transaction: {there}");
        let conflict = wait::until("the conflict's key", SOON, || {
            let rows = pair.shadow_client()?.query("SELECT c::text FROM scry_shadow.conflict AS c", &[])?;
            Ok(rows.first().map(|row| row.get::<_, String>(0)))
        })?;
        ensure!(conflict.contains('3') && conflict.contains('t'), "{conflict}");
        by_hand("INSERT INTO public.t VALUES (3, 'v')")?;
        go_on()?;

        // A row too many.
        by_hand("INSERT INTO public.t VALUES (10, 'by hand')")?;
        pair.sql("INSERT INTO t VALUES (10, 'true')")?;
        told("the row that is in the way", &["\"t\""])?;
        ensure!(shadow_rows(&pair)?.contains("10=by hand"), "somebody's row is not written over");
        by_hand("DELETE FROM public.t WHERE id = 10")?;
        go_on()?;

        // A column is gone.
        by_hand("ALTER TABLE public.t DROP COLUMN w")?;
        pair.sql("UPDATE t SET w = id WHERE id < 5")?;
        told("the missing column", &["t", "w"])?;
        by_hand("ALTER TABLE public.t ADD COLUMN w int")?;
        pair.sql("SELECT scry_backfill.resume()")?;
        pair.wait_for_shadow(PATIENT)?;
        let sum: Option<i64> = pair.shadow_client()?.query_one("SELECT sum(w) FROM public.t", &[])?.get(0);
        ensure!(sum.context("no values")? == 10);

        // What nobody noticed verify() finds, and mends.
        by_hand("UPDATE public.t SET v = 'quietly' WHERE id = 7")?;
        let verdict = pair.sql("SELECT verdict FROM scry_backfill.verify('t', repair => true)")?;
        ensure!(verdict == "repaired", "{verdict}");
        pair.assert_equal()
    });
}
