//! Materialized views: filled anew in the stream's place.

use super::{PATIENT, SOON, says};
use anyhow::{Context, Result, ensure};
use scry_testkit::pair::rows;
use scry_testkit::{Pair, PairOptions, content, scenario, wait};

fn pair_with_views(lab: &scry_testkit::Lab) -> Result<Pair> {
    let pair = Pair::start(lab, &PairOptions::default())?;
    pair.sql(
        "CREATE TABLE sales(id int PRIMARY KEY, shop int NOT NULL, amount numeric NOT NULL);
         INSERT INTO sales SELECT i, i % 7, i * 1.5 FROM generate_series(1, 500) i;
         CREATE VIEW big AS SELECT * FROM sales WHERE amount > 10;
         CREATE MATERIALIZED VIEW per_shop AS SELECT shop, sum(amount) AS total, count(*) AS n FROM big GROUP BY shop;
         CREATE UNIQUE INDEX ON per_shop(shop);
         CREATE MATERIALIZED VIEW best AS SELECT max(total) AS total FROM per_shop;
         CREATE MATERIALIZED VIEW later AS SELECT shop FROM sales WITH NO DATA",
    )?;
    pair.start_job("*")?;
    pair.wait_for_shadow(PATIENT)?;
    Ok(pair)
}

/// Requires all materialized views of the source to be on the shadow with the same rows, and
/// those without rows to be without rows there.
fn views_equal(pair: &Pair) -> Result<()> {
    pair.wait_for_shadow(PATIENT)?;
    let empty = "SELECT c.oid::regclass::text AS name FROM pg_class c WHERE relkind = 'm' AND NOT relispopulated ORDER BY 1";
    let (mut source, mut shadow) = (pair.source_client()?, pair.shadow_client()?);
    let (here, there) = (rows(&mut source, empty)?, rows(&mut shadow, empty)?);
    ensure!(here == there, "without rows on the source: {here:?}, on the shadow: {there:?}");
    let views = content::filled_views(&mut source)?;
    content::compare(&mut source, &mut shadow, &views)?.require_equal()
}

#[test]
fn refreshes_take_their_place() {
    scenario("refreshes", |lab| {
        let pair = pair_with_views(lab)?;
        views_equal(&pair).context("after the copy")?;
        for step in [
            // Nothing is refreshed by itself, on either side.
            "INSERT INTO sales VALUES (1001, 3, 1000)",
            "REFRESH MATERIALIZED VIEW per_shop",
            // Between rows of one transaction.
            "BEGIN; INSERT INTO sales VALUES (1002, 3, 2000); REFRESH MATERIALIZED VIEW per_shop;
             UPDATE sales SET amount = amount + 1; COMMIT",
            "BEGIN; DELETE FROM sales WHERE id < 50; REFRESH MATERIALIZED VIEW per_shop; ROLLBACK",
            "UPDATE sales SET amount = 7 WHERE id < 100; REFRESH MATERIALIZED VIEW CONCURRENTLY per_shop",
            // One that reads another, with and without its rows of today.
            "UPDATE sales SET amount = 70 WHERE id < 100; REFRESH MATERIALIZED VIEW best; REFRESH MATERIALIZED VIEW per_shop",
            "REFRESH MATERIALIZED VIEW best",
            "UPDATE sales SET amount = 700 WHERE id < 100; REFRESH MATERIALIZED VIEW per_shop;
             REFRESH MATERIALIZED VIEW best; DELETE FROM sales WHERE id < 100",
            "REFRESH MATERIALIZED VIEW later",
            "REFRESH MATERIALIZED VIEW later WITH NO DATA; INSERT INTO sales VALUES (1003, 4, 1)",
            "REFRESH MATERIALIZED VIEW per_shop WITH NO DATA; REFRESH MATERIALIZED VIEW per_shop; REFRESH MATERIALIZED VIEW later",
            "ALTER MATERIALIZED VIEW later RENAME TO late; REFRESH MATERIALIZED VIEW late",
            "DROP MATERIALIZED VIEW best; REFRESH MATERIALIZED VIEW per_shop; CREATE MATERIALIZED VIEW best AS SELECT * FROM per_shop",
        ] {
            pair.sql(step).with_context(|| step.to_owned())?;
            views_equal(&pair).with_context(|| step.to_owned())?;
        }
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

/// A table that is copied again has no rows for a while; what was filled meanwhile is filled again.
#[test]
fn a_refresh_over_a_table_on_hold_is_made_good() {
    scenario("refresh_on_hold", |lab| {
        let pair = pair_with_views(lab)?;
        // The values come by a copy only.
        pair.sql(
            "BEGIN; ALTER TABLE sales ADD COLUMN dice float8 DEFAULT random();
             CREATE MATERIALIZED VIEW thrown AS SELECT id, dice FROM sales; REFRESH MATERIALIZED VIEW per_shop; COMMIT",
        )?;
        wait::until("the views to be filled", PATIENT, || views_equal(&pair).map(Some))?;
        pair.assert_equal()?;
        let mut shadow = pair.shadow_client()?;
        let noted = rows(&mut shadow, "SELECT * FROM scry_shadow.refill")?;
        ensure!(noted.is_empty(), "{noted:?}");
        pair.assert_source_unharmed()
    });
}

/// What the shadow cannot compute keeps its rows, is named, and stops nothing.
#[test]
fn a_refresh_that_fails_stops_nothing() {
    scenario("refresh_fails", |lab| {
        let pair = pair_with_views(lab)?;
        pair.sql(
            "CREATE FUNCTION picky(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
                 IF NOT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = CURRENT_USER)
                     AND $1 = 777 THEN RAISE 'not here'; END IF; RETURN $1; END $$;
             CREATE MATERIALIZED VIEW picked AS SELECT picky(shop) FROM sales",
        )?;
        views_equal(&pair)?;
        pair.sql("INSERT INTO sales VALUES (2000, 777, 1); REFRESH MATERIALIZED VIEW picked; REFRESH MATERIALIZED VIEW per_shop")?;
        pair.assert_equal()?;
        let mut shadow = pair.shadow_client()?;
        let left_out = |shadow: &mut postgres::Client| rows(shadow, "SELECT * FROM scry_shadow.left_out");
        let told = left_out(&mut shadow)?;
        ensure!(told.iter().any(|row| says(row, "picked (refresh)") && says(row, "not here")), "{told:?}");
        let kept = rows(&mut shadow, "SELECT count(*)::text AS n FROM picked")?;
        ensure!(kept[0]["n"] == "500", "{kept:?}");
        // Mended, and refreshed: nothing is left to say.
        pair.sql("DELETE FROM sales WHERE id = 2000; REFRESH MATERIALIZED VIEW picked")?;
        views_equal(&pair)?;
        let told = left_out(&mut shadow)?;
        ensure!(told.is_empty(), "{told:?}");
        pair.wait_status("streaming", SOON, |row| row["state"] == "streaming")?;
        pair.assert_source_unharmed()
    });
}
