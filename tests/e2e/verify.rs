//! `verify()`: equal is equal and different is different, while traffic goes on.

use super::{PATIENT, error_of, mixed_load, mixed_pair, require_words};
use anyhow::{Context, Result, ensure};
use scry_testkit::pair::rows;
use scry_testkit::{Pair, PairOptions, scenario};
use std::collections::BTreeMap;

type Row = BTreeMap<String, String>;

/// The rows of `verify(arguments)`, by table.
fn verify(pair: &Pair, arguments: &str) -> Result<BTreeMap<String, Row>> {
    let sql = format!("SELECT * FROM scry_backfill.verify({arguments})");
    let rows = rows(&mut pair.source_client()?, &sql).with_context(|| pair.describe_status())?;
    for row in &rows {
        eprintln!("{row:?}");
    }
    Ok(rows.into_iter().map(|row| (row["table_name"].clone(), row)).collect())
}

fn require(found: &BTreeMap<String, Row>, table: &str, wanted: &[(&str, &str)]) -> Result<()> {
    let row = found.get(table).with_context(|| format!("verify() has no row for {table}"))?;
    for (column, value) in wanted {
        ensure!(row[*column] == *value, "{table}: {column} is not {value}: {row:?}");
    }
    Ok(())
}

fn require_all_equal(found: &BTreeMap<String, Row>) -> Result<()> {
    for (table, row) in found {
        ensure!(row["verdict"] == "equal", "{table} is not equal: {row:?}");
        ensure!(table == "(schema)" || !row["source_hash"].is_empty(), "{table} has no hash: {row:?}");
        ensure!(row["source_rows"] == row["shadow_rows"] && row["source_hash"] == row["shadow_hash"]);
    }
    Ok(())
}

#[test]
fn verify_says_equal_while_writers_run() {
    scenario("verify_equal", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job_with("*", "options => '{\"keyless\": \"inserts_only\"}'")?;
        pair.wait_for_shadow(PATIENT)?;
        for _ in 0..4 {
            let before = load.commits();
            let found = verify(&pair, "")?;
            ensure!(found.len() >= 5, "too few tables: {found:?}");
            require_all_equal(&found)?;
            load.wait_commits(before + 10, PATIENT)?;
        }
        load.stop()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn verify_finds_what_was_changed_on_the_shadow() {
    scenario("verify_differs", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE many(id int PRIMARY KEY, v text, double_id int GENERATED ALWAYS AS (id * 2) STORED);
             INSERT INTO many(id, v) SELECT i, md5(i::text) FROM generate_series(1, 100000) i;
             CREATE TABLE other(id int PRIMARY KEY, v text);
             INSERT INTO other SELECT i, 'x' FROM generate_series(1, 1000) i;",
        )?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.shadow_client()?.batch_execute(
            "UPDATE many SET v = 'changed' WHERE id = 77777;
             DELETE FROM many WHERE id IN (5, 6);
             INSERT INTO many(id, v) VALUES (-1, 'extra'), (-2, NULL), (-3, '');",
        )?;
        let found = verify(&pair, "'*'")?;
        let wanted = [("verdict", "differs"), ("differing_rows", "6")];
        require(&found, "many", &wanted)?;
        require(&found, "many", &[("source_rows", "100000"), ("shadow_rows", "100001")])?;
        let remark = &found["many"]["remark"];
        require_words(remark, &["1 with other values", "2 missing", "3 only"])?;
        require_words(remark, &["; keys (5)..(6), (77777);", "; keys only on the shadow (-3)..(-1)"])?;
        require(&found, "other", &[("verdict", "equal")])?;
        require(&found, "account", &[("verdict", "equal")])?;
        load.stop()?;
        Ok(())
    });
}

#[test]
fn repair_mends_exactly_what_differs_under_load() {
    scenario("verify_repair", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE many(id int PRIMARY KEY, v text, double_id int GENERATED ALWAYS AS (id * 2) STORED,
                 always int GENERATED ALWAYS AS IDENTITY);
             INSERT INTO many(id, v) SELECT i, md5(i::text) FROM generate_series(1, 100000) i;
             CREATE TYPE pairs AS (a int, b text);
             CREATE TABLE told(id int PRIMARY KEY, p pairs UNIQUE);
             INSERT INTO told SELECT i, (i, E'a\\tb')::pairs FROM generate_series(1, 100) i;
             CREATE TABLE full_row(a int, b text);
             ALTER TABLE full_row REPLICA IDENTITY FULL;
             INSERT INTO full_row SELECT n / 3, 'dup' FROM generate_series(1, 60) n;
             CREATE TABLE keyless(a int, b text);
             INSERT INTO keyless SELECT n / 3, 'dup' FROM generate_series(1, 60) n",
        )?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job_with("*", "options => '{\"keyless\": \"inserts_only\"}'")?;
        pair.wait_for_shadow(PATIENT)?;
        let mut shadow = pair.shadow_client()?;
        shadow.batch_execute(
            "SET session_replication_role = replica;
             UPDATE many SET v = 'changed' WHERE id % 1000 = 7;
             DELETE FROM many WHERE id % 1000 = 8;
             INSERT INTO many(id, v) SELECT -i, 'extra' FROM generate_series(1, 50) i;
             UPDATE told SET p = NULL WHERE id = 3; DELETE FROM told WHERE id = 4;
             DELETE FROM full_row WHERE ctid = (SELECT min(ctid) FROM full_row WHERE a = 5);
             INSERT INTO full_row SELECT 6, 'dup';
             INSERT INTO keyless VALUES (1, 'dup'), (-1, NULL);
             DELETE FROM keyless WHERE ctid = (SELECT min(ctid) FROM keyless WHERE a = 2)",
        )?;
        let wanted = [("many", "250"), ("told", "2"), ("full_row", "2"), ("keyless", "3")];
        let found = verify(&pair, "")?;
        for (table, rows) in wanted {
            require(
                &found,
                table,
                &[("verdict", "differs"), ("differing_rows", rows), ("repaired_rows", "")],
            )?;
        }
        let found = verify(&pair, "repair => true")?;
        for (table, rows) in wanted {
            require(
                &found,
                table,
                &[("verdict", "repaired"), ("differing_rows", rows), ("repaired_rows", rows)],
            )?;
        }
        require(&found, "account", &[("verdict", "equal"), ("repaired_rows", "0")])?;
        require_all_equal(&verify(&pair, "")?)?;
        // The stream goes on over what was mended.
        pair.sql(
            "UPDATE many SET v = 'again' WHERE id % 1000 IN (7, 8); UPDATE told SET p = (0, 'x') WHERE id = 4;
             DELETE FROM full_row WHERE a = 5",
        )?;
        let after = load.commits();
        load.wait_commits(after + 10, PATIENT)?;
        require_all_equal(&verify(&pair, "")?)?;
        load.stop()?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn verify_names_what_differs_in_the_schema() {
    scenario("verify_schema", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 2';
             CREATE TABLE shaped(id int PRIMARY KEY, a int DEFAULT twice(1), CHECK (a > 0));
             CREATE INDEX shaped_a ON shaped (twice(a)); CREATE VIEW seen AS SELECT a FROM shaped",
        )?;
        pair.start_job_with("*", "options => '{\"keyless\": \"inserts_only\"}'")?;
        pair.wait_for_shadow(PATIENT)?;
        let found = verify(&pair, "")?;
        require(&found, "(schema)", &[("verdict", "equal")])?;
        pair.shadow_client()?.batch_execute(
            "DROP INDEX shaped_a; ALTER TABLE shaped ALTER a SET DEFAULT 5; CREATE TABLE public.planted(a int)",
        )?;
        let found = verify(&pair, "")?;
        require(&found, "(schema)", &[("verdict", "differs")])?;
        let wanted =
            ["index public.shaped_a: missing", "table public.shaped: columns", "table public.planted: extra"];
        require_words(&found["(schema)"]["remark"], &wanted)?;
        require(&found, "shaped", &[("verdict", "equal")])?;
        // Of some tables the schema is not compared; one that is gone there is told.
        pair.shadow_client()?.batch_execute("DROP TABLE shaped CASCADE")?;
        let found = verify(&pair, "'shaped, account'")?;
        ensure!(found.len() == 2, "rows for other tables: {found:?}");
        require(&found, "shaped", &[("verdict", "unreadable")])?;
        require_words(&found["shaped"]["remark"], &["shaped", "does not exist"])?;
        require(&found, "account", &[("verdict", "equal")])
    });
}

/// What the server prints of a definition need not be what it prints of that print.
#[test]
fn verify_takes_other_words_for_the_same() {
    scenario("verify_words", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE worded(id int PRIMARY KEY, v varchar(9) CHECK (v IN ('a', 'b')), w varchar(9));
             CREATE INDEX worded_part ON worded (id) WHERE v IN ('a', 'b');
             CREATE VIEW worded_view AS SELECT id, NULL::int AS n FROM worded UNION SELECT 1, NULL;
             CREATE VIEW worded_over AS SELECT id FROM worded_view;
             CREATE MATERIALIZED VIEW worded_kept AS SELECT count(*) AS n FROM worded WHERE v IN ('a', 'c');
             CREATE RULE worded_rule AS ON UPDATE TO worded WHERE NEW.v IN ('c', 'd') DO NOTHING;
             CREATE POLICY worded_policy ON worded USING (v IN ('a', 'b'));
             CREATE DOMAIN worded_domain AS varchar(9) CHECK (VALUE IN ('x', 'y'))",
        )?;
        pair.start_job_with("*", "options => '{\"keyless\": \"inserts_only\"}'")?;
        pair.wait_for_shadow(PATIENT)?;
        // In the stream too.
        pair.sql(
            "ALTER TABLE worded ADD CHECK (w IN ('c', 'd')); CREATE INDEX ON worded (w) WHERE w IN ('c', 'd')",
        )?;
        pair.wait_for_shadow(PATIENT)?;
        let found = verify(&pair, "")?;
        require(&found, "(schema)", &[("verdict", "equal")])?;
        let mut shadow = pair.shadow_client()?;
        shadow.batch_execute(
            "ALTER TABLE public.worded DROP CONSTRAINT worded_v_check;
             ALTER TABLE public.worded ADD CONSTRAINT worded_v_check CHECK (v IN ('a', 'c'));
             CREATE OR REPLACE VIEW public.worded_view AS SELECT id, 5 AS n FROM public.worded",
        )?;
        let found = verify(&pair, "")?;
        require(&found, "(schema)", &[("verdict", "differs")])?;
        let remark = &found["(schema)"]["remark"];
        require_words(
            remark,
            &["constraint worded_v_check on table public.worded", "view public.worded_view"],
        )?;
        ensure!(remark.matches(';').count() == 1, "{remark}");
        // Nothing stays of what it was found out in.
        let left = "SELECT datname::text FROM pg_database WHERE datname LIKE 'scry_compare%'";
        scry_testkit::wait::until_true("the databases to go", PATIENT, || {
            Ok(shadow.query(left, &[])?.is_empty())
        })?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn verify_refuses_what_it_cannot_compare() {
    scenario("verify_refuses", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.sql("CREATE TABLE elsewhere(id int PRIMARY KEY)")?;
        pair.sql("CREATE EXTENSION scry_backfill")?;
        require_words(&error_of(&pair, "SELECT scry_backfill.verify()")?, &["does not exist"])?;
        pair.start_job("account")?;
        pair.wait_for_shadow(PATIENT)?;
        let written = error_of(&pair, "BEGIN; CREATE TABLE x(); SELECT scry_backfill.verify(); COMMIT")?;
        require_words(&written, &["in a transaction that has changed something"])?;
        let unknown = error_of(&pair, "SELECT scry_backfill.verify('acount')")?;
        require_words(&unknown, &["does not exist", "account"])?;
        let not_ours = error_of(&pair, "SELECT scry_backfill.verify('elsewhere')")?;
        require_words(&not_ours, &["no table that fits", "scry_backfill.tables"])?;
        let denied = error_of(
            &pair,
            "CREATE ROLE nosy; GRANT USAGE ON SCHEMA scry_backfill TO nosy;
             GRANT EXECUTE ON FUNCTION scry_backfill.verify TO nosy; SET ROLE nosy;
             SELECT scry_backfill.verify('account')",
        )?;
        require_words(&denied, &["permission denied for table public.account"])?;
        pair.sql("SELECT scry_backfill.pause()")?;
        require_words(&error_of(&pair, "SELECT scry_backfill.verify()")?, &["is paused", "resume"])
    });
}

#[test]
fn verify_does_not_depend_on_settings_or_order() {
    scenario("verify_settings", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        // Column orders that differ on both sides, text rows, values that settings print in many ways.
        pair.sql(
            "CREATE TYPE pairs AS (a int, b timestamptz);
             CREATE TABLE told(id int PRIMARY KEY, p pairs, at timestamptz, f float8, i interval, b bytea, t text);
             INSERT INTO told SELECT n, (n, now())::pairs, now(), n / 3.0, n * interval '1 day 2 hours',
                 decode(md5(n::text), 'hex'), E'a\\tb\\\\n\\n' || n FROM generate_series(1, 500) n;
             CREATE TABLE parent(id int PRIMARY KEY, b text);
             CREATE TABLE child(z int, b text, id int PRIMARY KEY);
             ALTER TABLE child INHERIT parent;
             ALTER TABLE parent ADD COLUMN late text DEFAULT 'l';
             INSERT INTO child SELECT n, n::text, n FROM generate_series(1, 100) n;
             CREATE TABLE full_row(a int, b text);
             ALTER TABLE full_row REPLICA IDENTITY FULL;
             INSERT INTO full_row SELECT n / 2, 'dup' FROM generate_series(1, 50) n;
             CREATE TABLE nothing();
             INSERT INTO nothing SELECT FROM generate_series(1, 3);
             ALTER TABLE nothing REPLICA IDENTITY FULL;
             ALTER DATABASE postgres SET bytea_output = 'escape';
             ALTER DATABASE postgres SET DateStyle = 'German';
             ALTER DATABASE postgres SET extra_float_digits = 0;
             ALTER DATABASE postgres SET TimeZone = 'Asia/Tokyo';",
        )?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let mut shadow = pair.shadow_client()?;
        let name: String = shadow.query_one("SELECT current_database()::text", &[])?.get(0);
        shadow.batch_execute(&format!(
            "ALTER DATABASE \"{name}\" SET bytea_output = 'escape'; ALTER DATABASE \"{name}\" SET IntervalStyle = 'iso_8601'"
        ))?;
        let found = verify(&pair, "")?;
        require_all_equal(&found)?;
        for (table, rows) in [("told", "500"), ("child", "100"), ("full_row", "50"), ("nothing", "3")] {
            require(&found, table, &[("source_rows", rows)])?;
        }
        shadow.batch_execute(
            "UPDATE told SET b = '\\x00' WHERE id = 3;
             DELETE FROM full_row WHERE ctid = (SELECT min(ctid) FROM full_row);
             UPDATE child SET late = NULL WHERE id = 7",
        )?;
        let found = verify(&pair, "'told, child, full_row'")?;
        for (table, remark) in [
            ("told", "1 with other values"),
            ("child", "1 with other values"),
            ("full_row", "1 missing on the shadow"),
        ] {
            require(&found, table, &[("verdict", "differs")])?;
            require_words(&found[table]["remark"], &[remark])?;
        }
        // The settings of the session are as before.
        let mut client = pair.source_client()?;
        client.batch_execute("SET DateStyle = 'SQL, DMY'; SELECT scry_backfill.verify('nothing')")?;
        let style: String = client.query_one("SHOW DateStyle", &[])?.get(0);
        ensure!(style == "SQL, DMY", "DateStyle is {style}");
        Ok(())
    });
}
