//! Schema changes while the shadow follows: in their place in the stream,
//! whatever is done in whatever order.

use super::{PATIENT, SOON, says};
use anyhow::{Context, Result, ensure};
use scry_testkit::history::History;
use scry_testkit::{Pair, PairOptions, Rng, content, scenario, schema_text, wait};

/// Changes of tables between rows, by themselves and inside transactions.
#[test]
fn tables_change_between_rows() {
    scenario("schema_changes", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE TABLE users(id int PRIMARY KEY, name text NOT NULL, born date);
             CREATE TABLE orders(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id int REFERENCES users, total numeric);
             CREATE VIEW big_orders AS SELECT id, total FROM orders WHERE total > 100;
             INSERT INTO users SELECT i, 'user ' || i, DATE '2000-01-01' + i FROM generate_series(1, 200) i;
             INSERT INTO orders(user_id, total) SELECT i, i * 2.5 FROM generate_series(1, 200) i",
        )?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        for step in [
            "ALTER TABLE users ADD COLUMN email text; INSERT INTO users VALUES (1000, 'new', NULL, 'a@b')",
            "ALTER TABLE users ADD COLUMN seen timestamptz DEFAULT now()",
            "BEGIN; UPDATE users SET name = 'before' WHERE id = 1; ALTER TABLE users RENAME name TO full_name;
             UPDATE users SET full_name = 'after' WHERE id = 2; COMMIT",
            "BEGIN; ALTER TABLE users DROP COLUMN full_name; UPDATE users SET born = NULL; ROLLBACK",
            "BEGIN; SAVEPOINT s; ALTER TABLE orders ADD COLUMN lost int; ROLLBACK TO s; ALTER TABLE orders ADD COLUMN kept int DEFAULT 7;
             UPDATE orders SET kept = 8 WHERE id = 3; COMMIT",
            "CREATE TABLE items(id int PRIMARY KEY, what text); INSERT INTO items SELECT i, md5(i::text) FROM generate_series(1, 50) i",
            "BEGIN; CREATE TYPE state AS ENUM ('open', 'done'); CREATE TABLE jobs(id serial PRIMARY KEY, state state DEFAULT 'open');
             INSERT INTO jobs DEFAULT VALUES; INSERT INTO jobs DEFAULT VALUES; COMMIT; ALTER TYPE state ADD VALUE 'late' BEFORE 'done'",
            "INSERT INTO jobs(state) VALUES ('late')",
            "ALTER TABLE users DROP COLUMN born; UPDATE users SET email = id::text",
            "BEGIN; ALTER TABLE items RENAME TO old_items; CREATE TABLE items(id int PRIMARY KEY, n int); INSERT INTO items SELECT id, id FROM old_items; COMMIT",
            "CREATE INDEX ON users (full_name); ALTER TABLE users ADD CONSTRAINT email_length CHECK (length(email) < 100)",
            "DROP TABLE old_items; UPDATE items SET n = n + 1",
            "ALTER TABLE items REPLICA IDENTITY FULL; UPDATE items SET n = n + 1; ALTER TABLE items DROP CONSTRAINT items_pkey1; DELETE FROM items WHERE n < 10",
            "CREATE SCHEMA archive; ALTER TABLE items SET SCHEMA archive; INSERT INTO archive.items VALUES (1000, 1)",
            // Values that only a copy can bring.
            "DROP VIEW big_orders; ALTER TABLE orders ALTER total TYPE text USING 'total ' || total",
            "UPDATE orders SET total = 'x' WHERE id < 5; ALTER TABLE users ADD COLUMN dice float8 DEFAULT random()",
        ] {
            pair.sql(step).with_context(|| step.to_owned())?;
            pair.assert_equal().with_context(|| step.to_owned())?;
            schema_text::require_equal(&pair).with_context(|| step.to_owned())?;
        }
        pair.assert_source_unharmed()
    });
}

/// A transaction whose rows were written before another one changed the schema, and which ends
/// after it: its rows do not show that change, and what they do not show is read all the same.
#[test]
fn a_change_between_a_row_and_its_commit_arrives() {
    scenario("schema_overlap", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql("CREATE TABLE rows(id int PRIMARY KEY); CREATE TABLE other(id int PRIMARY KEY, v text)")?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        // All of it is decoded in one go, so that the changes wait for one another.
        pair.sql("SELECT scry_backfill.pause('default')")?;
        pair.wait_status("the pause", SOON, |row| says(row, "paused"))?;
        pair.sql("CREATE TABLE at_once(id int PRIMARY KEY)")?;
        pair.sql("CREATE TABLE waits(id int PRIMARY KEY)")?;
        let (mut first, mut second) = (pair.source_client()?, pair.source_client()?);
        first.batch_execute("BEGIN; INSERT INTO rows VALUES (1); INSERT INTO waits VALUES (1)")?;
        second.batch_execute("CREATE VIEW seen AS SELECT v FROM other")?;
        first.batch_execute("INSERT INTO rows VALUES (2)")?;
        second.batch_execute("CREATE INDEX later ON other (v)")?;
        second.batch_execute("CREATE MATERIALIZED VIEW filled AS SELECT count(*) AS n FROM other")?;
        first.batch_execute("COMMIT")?;
        pair.sql("SELECT scry_backfill.resume('default')")?;
        pair.wait_for_shadow(PATIENT)?;
        schema_text::require_equal(&pair)?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

/// What the shadow cannot make in the stream is named where the source's owner looks, and stops nothing.
#[test]
fn what_the_shadow_cannot_make_is_told_in_events() {
    scenario("left_out_later", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql("CREATE TABLE rows(id int PRIMARY KEY)")?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql(
            "BEGIN; INSERT INTO rows VALUES (1);
             CREATE FUNCTION in_c(anyelement) RETURNS anyelement LANGUAGE internal AS 'int4_sum';
             CREATE VIEW over_in_c AS SELECT in_c(1) AS x; INSERT INTO rows VALUES (2); COMMIT",
        )?;
        let told = "SELECT count(*) FROM scry_backfill.events WHERE message ~ '(function public.in_c|view public.over_in_c).* is left out'";
        wait::until_true("both in events", SOON, || Ok(pair.sql(told)? == "2"))?;
        let row = pair.wait_status("the stream", SOON, |row| row["state"] == "streaming")?;
        ensure!(!says(&row, "left out"), "it stands in the status for ever: {row:?}");
        pair.assert_equal()
    });
}

/// A random history, as long as `SCRY_STEPS` says; `make soak` runs long ones.
#[test]
fn a_random_history_ends_equal() {
    scenario("random_history", |lab| {
        let steps: u64 = std::env::var("SCRY_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(200);
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE SCHEMA app; CREATE SCHEMA \"Od d\"; CREATE TABLE app.first(id int PRIMARY KEY, v text)",
        )?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        // The same history each time; others by SCRY_SEED.
        let rng = if std::env::var_os("SCRY_SEED").is_some() { lab.rng() } else { Rng::new(SEED) };
        let mut history = History::new(rng);
        let mut client = pair.source_client()?;
        for step in 1..=steps {
            history.step(&mut client)?;
            if step % 40 == 0 || step == steps {
                same(&pair).with_context(|| {
                    format!(
                        "seed {}, step {step}; the last statements were\n{}",
                        lab.seed,
                        history.tally.recent.join(";\n")
                    )
                })?;
            }
        }
        let tally = &history.tally;
        println!(
            "seed {}: {} steps, {} schema changes, {} statements on rows, {} refused: equal",
            lab.seed, tally.steps, tally.changes, tally.rows, tally.refused
        );
        pair.assert_source_unharmed()
    });
}

/// Of the history that is run unless `SCRY_SEED` names another.
const SEED: u64 = 311_121;

fn same(pair: &Pair) -> Result<()> {
    let equal =
        pair.assert_equal().and_then(|()| schema_text::require_equal(pair)).and_then(|()| refresh(pair));
    equal.with_context(|| {
        let tables =
            pair.sql("SELECT schema_name, table_name, state, replica_identity FROM scry_backfill.tables");
        format!("{tables:?}\n{}", pair.describe_status())
    })
}

/// Fills every materialized view: of the same rows they are the same.
fn refresh(pair: &Pair) -> Result<()> {
    let (mut source, mut shadow) = (pair.source_client()?, pair.shadow_client()?);
    let views = content::filled_views(&mut source)?;
    for view in &views {
        source.batch_execute(&format!("REFRESH MATERIALIZED VIEW {}", view.quoted()))?;
    }
    pair.wait_for_shadow(PATIENT)?;
    let report = content::compare(&mut source, &mut shadow, &views)?;
    if views.is_empty() { Ok(()) } else { report.require_equal() }
}
