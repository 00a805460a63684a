//! `drop_table` on a job for the whole database: an exclusion that lasts.

use super::{PATIENT, require_words};
use anyhow::{Context, Result, ensure};
use scry_testkit::content::TableName;
use scry_testkit::pair::rows;
use scry_testkit::{Pair, PairOptions, Shutdown, scenario, schema_text};

fn pair_with_tables(lab: &scry_testkit::Lab) -> Result<Pair> {
    let pair = Pair::start(lab, &PairOptions::default())?;
    pair.sql(
        "CREATE TABLE account(id int PRIMARY KEY, v text);
         CREATE SCHEMA audit;
         CREATE TABLE audit.entry(id serial PRIMARY KEY, account int REFERENCES account, what text);
         CREATE TABLE audit.note(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, entry int REFERENCES audit.entry);
         CREATE VIEW latest AS SELECT max(id) AS id FROM audit.entry;
         CREATE FUNCTION entries() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM audit.entry';
         CREATE TABLE measure(id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
         CREATE TABLE measure_old PARTITION OF measure FOR VALUES FROM (MINVALUE) TO ('2020-01-01');
         INSERT INTO account SELECT i, 'v' FROM generate_series(1, 50) i;
         INSERT INTO audit.entry(account, what) SELECT i, 'made' FROM generate_series(1, 50) i;
         INSERT INTO audit.note(entry) SELECT i FROM generate_series(1, 50) i;
         INSERT INTO measure VALUES (1, '2019-01-01')",
    )?;
    pair.start_job("*")?;
    pair.wait_for_shadow(PATIENT)?;
    Ok(pair)
}

/// Requires the shadow to have these tables, as the source has them, and no others.
fn only(pair: &Pair, tables: &[&str]) -> Result<()> {
    pair.wait_for_shadow(PATIENT)?;
    let there = scry_testkit::content::user_tables(&mut pair.shadow_client()?)?;
    let there: Vec<String> = there.iter().map(ToString::to_string).collect();
    let mut wanted: Vec<String> = tables.iter().map(|name| TableName::new(name).to_string()).collect();
    wanted.sort();
    ensure!(there == wanted, "on the shadow: {there:?}, expected: {wanted:?}");
    pair.assert_equal_tables(&tables.iter().map(|name| TableName::new(name)).collect::<Vec<_>>())?;
    let schema = rows(
        &mut pair.source_client()?,
        "SELECT verdict, remark FROM scry_backfill.verify() WHERE table_name = '(schema)'",
    )?;
    ensure!(schema.iter().all(|row| row["verdict"] == "equal"), "{schema:?}");
    Ok(())
}

fn states(pair: &Pair) -> Result<Vec<String>> {
    let sql = "SELECT schema_name || '.' || table_name AS name FROM scry_backfill.tables WHERE state = 'excluded' ORDER BY 1";
    let found = rows(&mut pair.source_client()?, sql)?;
    Ok(found.into_iter().map(|mut row| row.remove("name").unwrap_or_default()).collect())
}

#[test]
fn a_table_leaves_a_whole_database_and_comes_back() {
    scenario("left_alone", |lab| {
        let mut pair = pair_with_tables(lab)?;
        pair.sql("SELECT scry_backfill.drop_table('audit.entry')")?;
        only(&pair, &["account", "audit.note", "measure_old"]).context("taken out")?;
        ensure!(states(&pair)? == ["audit.entry"]);
        // Its sequence, what reads it and what refers to it go with it; what only names it stays.
        let left = "SELECT to_regclass('latest')::text AS view, to_regclass('audit.entry_id_seq')::text AS seq, \
                    to_regproc('entries')::text AS function, (SELECT count(*)::text FROM pg_constraint WHERE contype = 'f') AS keys";
        let left = rows(&mut pair.shadow_client()?, left)?;
        let row = &left[0];
        ensure!(row["view"].is_empty() && row["seq"].is_empty() && row["function"] == "entries", "{row:?}");
        ensure!(row["keys"] == "0", "{row:?}");
        // Over a restart, under another name, and what comes under its name.
        pair.source.restart(Shutdown::Fast)?;
        pair.sql(
            "INSERT INTO audit.entry(account) VALUES (1); ALTER TABLE audit.entry RENAME TO entry_2020;
             CREATE TABLE audit.entry(id int PRIMARY KEY); INSERT INTO audit.entry VALUES (1);
             ALTER TABLE audit.entry_2020 ADD more text DEFAULT 'x'; UPDATE audit.entry_2020 SET what = 'w';
             CREATE TABLE audit.other(id int PRIMARY KEY); INSERT INTO audit.other VALUES (1)",
        )?;
        only(&pair, &["account", "audit.note", "audit.other", "measure_old"]).context("renamed")?;
        pair.sql("SELECT scry_backfill.add_table('audit.entry, audit.entry_2020')")?;
        only(
            &pair,
            &["account", "audit.entry", "audit.entry_2020", "audit.note", "audit.other", "measure_old"],
        )
        .context("taken back")?;
        ensure!(states(&pair)?.is_empty());
        pair.sql("DROP TABLE audit.entry; CREATE TABLE audit.entry(id int PRIMARY KEY)")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.assert_equal()?;
        schema_text::require_equal(&pair)?;
        pair.assert_source_unharmed()
    });
}

/// A glob and a partitioned table: what is made later below them stays out as well.
#[test]
fn what_is_made_later_stays_out_too() {
    scenario("left_alone_later", |lab| {
        let pair = pair_with_tables(lab)?;
        pair.sql("SELECT scry_backfill.drop_table('audit.*, measure')")?;
        pair.sql(
            "CREATE TABLE audit.late(id serial PRIMARY KEY); INSERT INTO audit.late VALUES (1);
             CREATE TABLE measure_new PARTITION OF measure FOR VALUES FROM ('2020-01-01') TO (MAXVALUE);
             INSERT INTO measure VALUES (1, '2021-01-01'); UPDATE account SET v = 'w'",
        )?;
        only(&pair, &["account"])?;
        let root = rows(&mut pair.shadow_client()?, "SELECT to_regclass('measure')::text AS name")?;
        ensure!(root[0]["name"].is_empty(), "{root:?}");
        ensure!(states(&pair)? == ["audit.entry", "audit.note", "public.measure", "public.measure_old"]);

        // A job that goes on from its slot goes on without them.
        pair.sql("SELECT scry_backfill.stop(drop_slot => false); UPDATE account SET v = 'x'; CREATE TABLE audit.later(id int PRIMARY KEY)")?;
        let mode = "SELECT mode FROM scry_backfill.start('*')";
        ensure!(pair.sql(mode)? == "cdc", "it goes on without a copy");
        only(&pair, &["account"])?;

        pair.sql("SELECT scry_backfill.add_table('measure'); INSERT INTO measure VALUES (2, '2021-01-01')")?;
        only(&pair, &["account", "measure_new", "measure_old"])?;
        pair.sql("SELECT scry_backfill.add_table('audit.*'); CREATE TABLE audit.last(id int PRIMARY KEY)")?;
        pair.assert_equal()?;
        schema_text::require_equal(&pair)?;
        let refused = super::error_of(&pair, "SELECT scry_backfill.add_table('measure')")?;
        require_words(&refused, &["is part of job"])?;
        pair.assert_source_unharmed()
    });
}
