//! The copy: what comes along, what is said to be left out, and that nobody
//! notices where it ends and the stream begins.

use super::{PATIENT, SOON, mixed_load, mixed_pair, says};
use anyhow::ensure;
use scry_testkit::content::TableName;
use scry_testkit::{Pair, PairOptions, ShadowKind, scenario, wait};

#[test]
fn copies_two_tables_and_follows_them() {
    scenario("copies_two_tables", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE users(id int PRIMARY KEY, name text NOT NULL);
             CREATE TABLE orders(id int PRIMARY KEY, user_id int REFERENCES users, total numeric);
             CREATE TABLE other(id int PRIMARY KEY);
             INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, 1000) i;
             INSERT INTO orders SELECT i, 1 + i % 1000, i / 3.0 FROM generate_series(1, 5000) i",
        )?;
        pair.start_job("orders,users")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("UPDATE users SET name = upper(name) WHERE id < 10; DELETE FROM orders WHERE id = 7")?;
        pair.assert_equal_tables(&[TableName::new("users"), TableName::new("orders")])?;
        let other = pair.compare(&[TableName::new("other")])?;
        ensure!(other.0[0].shadow.is_none(), "a table that was not selected came along");
        pair.assert_source_unharmed()
    });
}

#[test]
fn copy_with_concurrent_writers_ends_equal() {
    scenario("copy_with_writers", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE bulk(id int PRIMARY KEY, t text);
             INSERT INTO bulk SELECT i, md5(i::text) FROM generate_series(1, 200000) i",
        )?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        load.wait_commits(200, SOON)?;
        eprintln!("{}", load.stop()?);
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn copies_to_a_shadow_given_by_url() {
    scenario("shadow_url", |lab| {
        let options = PairOptions { shadow: ShadowKind::External, ..PairOptions::default() };
        let pair = mixed_pair(lab, &options)?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        load.stop()?;
        pair.assert_equal()
    });
}

#[test]
fn brings_what_the_tables_need_and_names_what_it_left_out() {
    scenario("catalog", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE SCHEMA \"Odd Schema\";
             CREATE TYPE \"Odd Schema\".colour AS ENUM ('red', 'gr''een');
             CREATE DOMAIN positive AS int CHECK (VALUE > 0);
             CREATE TYPE pair AS (a int, b text);
             CREATE FUNCTION double(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i * 2';
             CREATE TABLE parent(id bigserial PRIMARY KEY);
             CREATE TABLE child(
                 id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                 parent bigint REFERENCES parent, colour \"Odd Schema\".colour DEFAULT 'red', p positive, c pair,
                 doubled int GENERATED ALWAYS AS (double(p)) STORED, \"Weird \"\"Name\" text COLLATE \"C\",
                 EXCLUDE USING btree (p WITH =), CHECK (p < 1000000));
             CREATE INDEX child_expr ON child (lower(\"Weird \"\"Name\") text_pattern_ops) WHERE p > 5;
             CREATE STATISTICS child_stat ON p, colour FROM child;
             CREATE VIEW child_view AS SELECT id, p FROM child;
             COMMENT ON COLUMN child.p IS 'it''s positive';
             INSERT INTO parent DEFAULT VALUES;
             INSERT INTO child(parent, p, c, \"Weird \"\"Name\") SELECT 1, i, ROW(i, 'x')::pair, 'w' || i FROM generate_series(1, 100) i",
        )?;
        pair.start_job("child")?;
        pair.assert_equal_tables(&[TableName::new("child")])?;
        let mut shadow = pair.shadow_client()?;
        let indexes: i64 = shadow
            .query_one(
                "SELECT count(*) FROM pg_index WHERE indrelid = 'public.child'::regclass AND indisvalid",
                &[],
            )?
            .get(0);
        ensure!(indexes == 3, "the shadow has {indexes} valid indexes of child");
        // The referenced table was not selected: the key is left out, and said so.
        let foreign: i64 = shadow
            .query_one("SELECT count(*) FROM pg_constraint WHERE conrelid = 'public.child'::regclass AND contype = 'f'", &[])?
            .get(0);
        ensure!(foreign == 0);
        let events = pair.describe_status();
        ensure!(events.contains("child_parent_fkey"), "the foreign key left out is not named: {events}");
        Ok(())
    });
}

#[test]
fn sequences_go_on_where_the_source_is() {
    scenario("sequences", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE t(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n serial);
             INSERT INTO t SELECT FROM generate_series(1, 500)",
        )?;
        pair.start_job("t")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("INSERT INTO t SELECT FROM generate_series(1, 500)")?;
        pair.wait_for_shadow(SOON)?;
        let next: i64 = pair.shadow_client()?.query_one("SELECT nextval('public.t_id_seq')", &[])?.get(0);
        ensure!(next > 1000, "the shadow's next id is {next}, 1000 are used");
        Ok(())
    });
}

#[test]
fn copies_partitions_and_children() {
    scenario("partitions", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE p(id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
             CREATE TABLE p_north PARTITION OF p FOR VALUES IN ('north') PARTITION BY HASH (id);
             CREATE TABLE p_north_0 PARTITION OF p_north FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE p_north_1 PARTITION OF p_north FOR VALUES WITH (MODULUS 2, REMAINDER 1);
             CREATE TABLE p_rest PARTITION OF p DEFAULT;
             CREATE TABLE base(id int PRIMARY KEY, a text);
             CREATE TABLE derived(b int, PRIMARY KEY (id)) INHERITS (base);
             INSERT INTO p SELECT i, CASE i % 3 WHEN 0 THEN 'north' ELSE 'r' || i % 5 END, i FROM generate_series(1, 3000) i;
             INSERT INTO base SELECT i, 'base' FROM generate_series(1, 100) i;
             INSERT INTO derived SELECT i, 'derived', i FROM generate_series(101, 300) i",
        )?;
        pair.start_job("p,base,derived")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql(
            "UPDATE p SET region = 'north' WHERE id % 7 = 0; UPDATE p SET region = 'r1' WHERE id % 12 = 0;
             UPDATE base SET a = a || '!'; DELETE FROM base WHERE id % 10 = 0; TRUNCATE p_north_1",
        )?;
        pair.assert_equal()
    });
}

#[test]
fn several_workers_copy_one_table() {
    scenario("parallel_copy", |lab| {
        let options = PairOptions {
            source_conf: vec!["scry_backfill.snapshot_workers = 4".to_owned()],
            ..PairOptions::default()
        };
        let pair = Pair::start(lab, &options)?;
        pair.sql(
            "CREATE TABLE wide(id int PRIMARY KEY, t text);
             INSERT INTO wide SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 300000) i",
        )?;
        pair.start_job("wide")?;
        let mut most = 0;
        wait::until_true("several snapshot workers", PATIENT, || {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE '%scry%' AND backend_type LIKE '%snapshot%'";
            most = most.max(pair.source.psql("postgres", sql)?.parse::<i64>()?);
            let following = pair.status()?.iter().any(|row| says(row, "streaming"));
            Ok(most > 1 || following)
        })?;
        ensure!(most > 1, "never more than {most} snapshot workers at a time");
        pair.assert_equal()
    });
}
