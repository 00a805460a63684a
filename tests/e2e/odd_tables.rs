//! Tables as they are not in textbooks: very wide, without columns, with dropped ones, with
//! types of extensions, between servers whose settings differ; and tables that the shadow
//! cannot have.

use super::PATIENT;
use anyhow::{Result, ensure};
use scry_testkit::content::TableName;
use scry_testkit::{Pair, PairOptions, ShadowKind, scenario, schema_text, wait};

/// 1,600 columns is what a table can have; of `worn` half are gone.
const SHAPES: &str = "
DO $$ BEGIN
    EXECUTE 'CREATE TABLE wide (id int PRIMARY KEY, '
        || (SELECT string_agg(format('c%s %s', i, CASE WHEN i = 3 THEN 'date' WHEN i = 5 THEN 'numeric' WHEN i % 16 = 1 THEN 'text' ELSE 'int' END), ', ')
            FROM generate_series(1, 1599) AS i) || ')';
    EXECUTE 'CREATE TABLE worn (id int PRIMARY KEY, '
        || (SELECT string_agg(format('c%s int', i), ', ') FROM generate_series(1, 800) AS i) || ')';
    EXECUTE (SELECT 'ALTER TABLE worn ' || string_agg(format('DROP c%s', i), ', ') FROM generate_series(1, 800, 2) AS i);
    EXECUTE (SELECT 'ALTER TABLE worn ' || string_agg(format('ADD d%s text DEFAULT %L', i, 'd' || i), ', ')
             FROM generate_series(1, 700) AS i);
END $$;
CREATE TABLE nothing (); ALTER TABLE nothing REPLICA IDENTITY FULL;
CREATE TABLE emptied (a int, b text); ALTER TABLE emptied DROP a, DROP b; ALTER TABLE emptied REPLICA IDENTITY FULL;
CREATE TABLE fast (id int PRIMARY KEY); INSERT INTO fast SELECT generate_series(1, 50);
ALTER TABLE fast ADD at timestamptz DEFAULT now(), ADD span interval DEFAULT '1 mon 2 days 03:04:05.6', ADD b bytea,
    ADD money_ money DEFAULT 1234.56, ADD arr text[] DEFAULT ARRAY['a,\"b', NULL, '{}'], ADD j jsonb DEFAULT '{\"a\": [1]}';
CREATE TABLE worth (id int PRIMARY KEY, h hstore DEFAULT 'a=>1', c citext UNIQUE, l ltree, q lquery, k cube, hs hstore[],
    u uuid DEFAULT uuid_generate_v4(), t text);
CREATE INDEX ON worth USING gin (t gin_trgm_ops); CREATE INDEX ON worth USING gist (l); CREATE INDEX ON worth USING gist (k);
CREATE TABLE by_citext (c citext PRIMARY KEY, v int);
";

const ROWS: &str = "
INSERT INTO wide (id, c1, c2, c3, c5, c1599) VALUES (:k, 'x', 1, '4713-01-01 BC', 1.50, -1);
DO $$ BEGIN EXECUTE 'INSERT INTO wide VALUES (:k + 1, '
    || (SELECT string_agg(format('%L', CASE WHEN i = 3 THEN '2020-01-01' WHEN i % 16 = 1 THEN 'x' || i ELSE i::text END), ', ')
        FROM generate_series(1, 1599) AS i) || ')'; END $$;
UPDATE wide SET c4 = 5, c800 = NULL WHERE id = :k + 1;
INSERT INTO worn (id, c2, d700) VALUES (:k, 3, 'own'); UPDATE worn SET d1 = NULL, c4 = 4;
INSERT INTO nothing DEFAULT VALUES; INSERT INTO emptied DEFAULT VALUES;
INSERT INTO fast (id) VALUES (1000 + :k); UPDATE fast SET arr = arr || 'more'::text WHERE id % 7 = :k % 7;
INSERT INTO worth (id, c, l, q, k, hs, t) VALUES (:k, 'MiXed :k', 'Top.Science', 'Top.*{1,2}.a|b', '(1,2),(3,4)', ARRAY['x=>NULL'::hstore, NULL],
    'a text');
UPDATE worth SET h = h || 'b=>NULL, \"q\\\"\"=>\"\\\\\"', l = 'a.b' WHERE id = :k;
INSERT INTO by_citext VALUES ('Key :k', 1); UPDATE by_citext SET v = v + 1; UPDATE by_citext SET c = upper(c::text) WHERE v = 2;
";

#[test]
fn odd_shapes_between_servers_that_speak_otherwise() {
    scenario("odd_tables", |lab| {
        let settings = |list: [&str; 7]| list.map(str::to_owned).to_vec();
        let options = PairOptions {
            shadow: ShadowKind::External,
            source_conf: settings([
                "DateStyle = 'German, DMY'",
                "IntervalStyle = 'iso_8601'",
                "TimeZone = 'America/St_Johns'",
                "bytea_output = 'escape'",
                "extra_float_digits = -5",
                "xmloption = document",
                "array_nulls = off",
            ]),
            shadow_conf: settings([
                "DateStyle = 'SQL, MDY'",
                "IntervalStyle = 'postgres_verbose'",
                "TimeZone = 'Asia/Kathmandu'",
                "bytea_output = 'hex'",
                "backslash_quote = off",
                "standard_conforming_strings = off",
                "search_path = 'nowhere'",
            ]),
            ..PairOptions::default()
        };
        let pair = Pair::start(lab, &options)?;
        pair.sql(
            "CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION citext; CREATE EXTENSION ltree SCHEMA ext;
             CREATE EXTENSION cube; CREATE EXTENSION pg_trgm SCHEMA ext; CREATE EXTENSION \"uuid-ossp\" SCHEMA ext;
             ALTER DATABASE postgres SET search_path = public, ext; ALTER DATABASE postgres SET lc_monetary = 'C'",
        )?;
        iso(&pair, SHAPES)?;
        rows(&pair, 1)?;
        pair.start_job_with("*", r#"options => '{"keyless": "inserts_only"}'"#)?;
        equal(&pair)?;
        rows(&pair, 100)?;
        equal(&pair)?;
        // The same again, made while the stream goes on.
        let tables = "wide, worn, nothing, emptied, fast, worth, by_citext";
        pair.sql(&format!("DROP TABLE {tables}"))?;
        iso(&pair, SHAPES)?;
        rows(&pair, 200)?;
        equal(&pair)?;
        pair.assert_source_unharmed()
    });
}

/// A type of an extension that the platform does not make: the table stays away, then another one
/// because of a new column; all else goes on, and says so.
#[test]
fn tables_that_the_shadow_cannot_have() {
    scenario("absent_tables", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE EXTENSION dblink; CREATE TABLE away (id int PRIMARY KEY, k dblink_pkey_results);
             CREATE TABLE here (id int PRIMARY KEY, v text); CREATE TABLE other (id int PRIMARY KEY REFERENCES away, v text);
             INSERT INTO away VALUES (1, '(1,id)'); INSERT INTO here VALUES (1, 'a'); INSERT INTO other VALUES (1, 'a')",
        )?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("INSERT INTO away VALUES (2); INSERT INTO here VALUES (2); INSERT INTO other VALUES (2)")?;
        pair.wait_for_shadow(PATIENT)?;
        only(&pair, &["here", "other"])?;
        states(&pair, "away=diverged,here=following,other=following")?;
        pair.sql(
            "BEGIN; UPDATE here SET v = 'b'; ALTER TABLE here ADD k dblink_pkey_results; UPDATE here SET k = '(1,id)';
             INSERT INTO other SELECT id + 10, v FROM other WHERE false; UPDATE other SET v = 'b'; COMMIT;
             CREATE TABLE late (id int PRIMARY KEY, k dblink_pkey_results); INSERT INTO late VALUES (1);
             ALTER TABLE away RENAME TO gone; INSERT INTO gone VALUES (3); ALTER TABLE other ADD w int DEFAULT 7; TRUNCATE late",
        )?;
        pair.wait_for_shadow(PATIENT)?;
        only(&pair, &["other"])?;
        states(&pair, "gone=diverged,here=diverged,late=diverged,other=following")?;
        let found = pair.sql(
            "SELECT count(*) FROM scry_backfill.check() WHERE object = 'public.here' AND level = 'warning' AND finding LIKE '%dblink_pkey_results%'",
        )?;
        ensure!(found == "1", "check() names it: {found}");
        let found =
            pair.sql("SELECT level, finding FROM scry_backfill.check() WHERE object = 'extension dblink'")?;
        ensure!(found == "info|its files are not copied", "check() names the extension: {found}");
        let told = pair.sql(
            "SELECT count(*) > 0 FROM scry_backfill.events WHERE message LIKE '%public.away%left out%'",
        )?;
        ensure!(told == "t", "an event names it");
        // What cannot be there goes, and the tables come back when they are asked for.
        pair.sql(
            "ALTER TABLE here DROP k; ALTER TABLE gone DROP k; SELECT scry_backfill.resync('here');
             SELECT scry_backfill.resync('gone'); INSERT INTO here VALUES (3); DROP TABLE late",
        )?;
        let back =
            || Ok(states(&pair, "gone=following,here=following,other=following").is_ok().then_some(()));
        wait::until("the tables follow again", PATIENT, back)?;
        only(&pair, &["gone", "here", "other"])?;
        pair.assert_source_unharmed()
    });
}

/// Statement after statement, each a transaction: what follows without a row between is read once,
/// and comes to the same.
#[test]
fn a_burst_of_schema_changes() {
    scenario("burst", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept SELECT generate_series(1, 20);
             CREATE TYPE mood AS ENUM ('well'); CREATE TABLE felt (id serial PRIMARY KEY, m mood)",
        )?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let many: String = (0..60)
            .map(|n| {
                format!(
                    "CREATE TABLE made{n} (id serial PRIMARY KEY, v text); CREATE INDEX ON made{n} (v);\n"
                )
            })
            .collect();
        pair.sql(&many)?;
        // What the catalog forgets on the way, names that come with what waits, labels used at once.
        pair.sql(
            "ALTER TABLE kept ADD a int DEFAULT 7;
             VACUUM FULL kept;
             ALTER TABLE kept ALTER a DROP DEFAULT;
             CREATE SEQUENCE counted START 5;
             SELECT nextval('counted') FROM generate_series(1, 50);
             ALTER SEQUENCE counted RENAME TO counted_on;
             ALTER TABLE kept ADD b float8 DEFAULT random();
             ALTER TABLE kept RENAME a TO aa;
             ALTER TYPE mood ADD VALUE 'better';
             INSERT INTO felt (m) VALUES ('better');
             ALTER TABLE felt SET UNLOGGED;
             INSERT INTO felt (m) VALUES ('well');
             ALTER TABLE felt SET LOGGED;
             CREATE TABLE asked AS SELECT 1 AS id, 'x'::text AS v;
             ALTER TABLE asked ADD PRIMARY KEY (id);
             ALTER TABLE made1 RENAME TO swapped; ALTER TABLE made2 RENAME TO made1; ALTER TABLE swapped RENAME TO made2;
             INSERT INTO made1 (v) VALUES ('was 2'); INSERT INTO made2 (v) VALUES ('was 1'); DROP TABLE made3, made4;
             CREATE VIEW last AS SELECT * FROM kept",
        )?;
        equal(&pair)?;
        let above = pair.sql("SELECT last_value FROM counted_on")?.parse::<i64>()?;
        let there = "SELECT last_value FROM public.counted_on";
        let shadow: i64 = pair.shadow_client()?.query_one(there, &[])?.get(0);
        ensure!(shadow >= above, "the shadow's sequence is at {shadow}, the source's at {above}");
        pair.assert_source_unharmed()
    });
}

fn only(pair: &Pair, tables: &[&str]) -> Result<()> {
    let tables: Vec<_> = tables.iter().map(|name| scry_testkit::content::TableName::new(name)).collect();
    pair.assert_equal_tables(&tables)
}

fn states(pair: &Pair, wanted: &str) -> Result<()> {
    let sql =
        "SELECT string_agg(table_name || '=' || state, ',' ORDER BY table_name) FROM scry_backfill.tables";
    let found = wait::until("the states of the tables", std::time::Duration::from_secs(20), || {
        Ok(Some(pair.sql(sql)?).filter(|found| found == wanted))
    });
    found.map(drop).map_err(|error| error.context(format!("{:?}", pair.sql(sql))))
}

fn equal(pair: &Pair) -> Result<()> {
    pair.wait_for_shadow(PATIENT)?;
    pair.assert_equal()?;
    schema_text::require_equal(pair)
}

/// Runs a script that is written for the usual settings.
fn iso(pair: &Pair, script: &str) -> Result<()> {
    pair.sql(&format!(
        "SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET array_nulls = on; {script}"
    ))
    .map(drop)
}

/// The rows under keys from `first` on.
fn rows(pair: &Pair, first: u32) -> Result<()> {
    iso(pair, &ROWS.replace(":k", &first.to_string()))
}

/// Of a table without a key only inserts are followed. What that leaves behind on the shadow is in
/// the way of nothing, and is over when the table gets its key.
#[test]
fn rows_that_were_not_followed_hold_up_no_change() {
    scenario("inserts_only_change", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE loose(a int); INSERT INTO loose SELECT generate_series(1, 20); CREATE TABLE tight(id int PRIMARY KEY)",
        )?;
        pair.start_job_with("*", "options => '{\"keyless\": \"inserts_only\"}'")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql(
            "ALTER TABLE loose ADD id uuid; UPDATE loose SET id = gen_random_uuid(); ALTER TABLE loose ALTER id SET NOT NULL;
             INSERT INTO tight VALUES (1); ALTER TABLE tight ADD v text",
        )?;
        pair.assert_equal_tables(&[TableName::new("tight")])?;
        let told = "SELECT state FROM scry_backfill.tables WHERE table_name = 'loose'";
        wait::until_true("its mark", PATIENT, || Ok(pair.sql(told)? == "diverged"))?;
        pair.sql("ALTER TABLE loose ADD PRIMARY KEY (id); UPDATE loose SET a = -a")?;
        pair.wait_for_shadow(PATIENT)?;
        wait::until_true("the end of its mark", PATIENT, || Ok(pair.sql(told)? == "following"))?;
        pair.assert_equal()?;
        schema_text::require_equal(&pair)?;
        pair.assert_source_unharmed()
    });
}
