//! `make demo`: a shop under load gets a live shadow, and both are compared.
//!
//! ```text
//!   1 source cluster with the shop, platform with its embedded shadow cluster
//!   2 the load starts            (and goes on through all that follows)
//!   3 CREATE EXTENSION, start()  the two lines of the README
//!   4 copying                    progress, once a second
//!   5 following, DEMO_SECONDS    lag, once a second
//!   6 the load stops, wait_for_shadow, every table compared
//! ```
//!
//! Everything happens in a directory of its own and is gone at the end. The
//! exit status is 0 only if every table is equal.

mod shop;

use anyhow::{Context, Result, ensure};
use postgres::Client;
use scry_testkit::content::{self, Report, TableName};
use scry_testkit::load::{Load, LoadOptions};
use scry_testkit::pair::rows;
use scry_testkit::{Lab, Pair, PairOptions};
use shop::{Shop, Size};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// 60,000 + 5,000 + 180,000 + 360,000 rows.
const SIZE: Size = Size { users: 60_000, products: 5_000, orders: 180_000 };

const DATABASE: &str = "shop";

/// Jobs and their tables.
const JOBS: [(&str, &[&str]); 2] =
    [("default", &["orders", "users"]), ("warehouse", &["order_items", "products"])];

/// How long the copy may take on a slow machine.
const COPY_TIMEOUT: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    let lab = match Lab::new("demo") {
        Ok(lab) => lab,
        Err(error) => {
            eprintln!("demo: could not set up: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match run(&lab) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lab.print_logs();
            eprintln!("\ndemo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(lab: &Lab) -> Result<()> {
    let demo = Demo { started: Instant::now() };
    let seconds = demo_seconds()?;

    demo.say("starting the source's cluster, and the platform with its shadow's cluster");
    let mut pair = Pair::start(lab, &PairOptions::default())?;
    pair.source.psql("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
    pair.database = DATABASE.to_owned();
    demo.say("filling the shop: users, products, orders, order_items");
    let (users, products, orders) =
        (SIZE.users.to_string(), SIZE.products.to_string(), SIZE.orders.to_string());
    let variables = [("users", &*users), ("products", &*products), ("orders", &*orders)];
    pair.source.psql_with(DATABASE, shop::SCHEMA, &variables)?;
    let mut source = pair.source_client()?;
    demo.say(&format!("{} rows; the load starts", count_rows(&mut source)?));
    let options = LoadOptions {
        writers: 2,
        seed: lab.seed,
        pause: Duration::from_millis(2),
        server_may_restart: false,
    };
    let load = Load::start(&pair.source.config(DATABASE), &options, |writer| Shop::new(SIZE, writer))?;
    load.wait_commits(100, Duration::from_secs(30))?;

    demo.start_jobs(&mut source)?;
    demo.watch_copy(&mut source, &load)?;
    demo.show_shadow_row(&pair)?;
    demo.watch_lag(&pair, &load, seconds)?;

    let report = load.stop()?;
    demo.say(&format!("the load stopped: {report}"));
    for (job, _) in JOBS {
        pair.wait_for_shadow_of(job, Duration::from_secs(300))?;
    }
    demo.say("the shadow holds everything; comparing the content of every table");
    let report = demo.compare(&pair)?;
    println!("\n{report}");
    pair.assert_source_unharmed()?;
    report.require_equal()?;
    println!("source and shadow are equal\n");
    Ok(())
}

/// The demo's clock and its steps.
struct Demo {
    started: Instant,
}

impl Demo {
    fn say(&self, text: &str) {
        println!("[{:6.1} s] {text}", self.started.elapsed().as_secs_f64());
    }

    /// Runs the SQL that a user would type, and shows it with its result.
    fn start_jobs(&self, source: &mut Client) -> Result<()> {
        println!();
        self.show(source, "CREATE EXTENSION scry_backfill")?;
        for (job, tables) in JOBS {
            let tables = tables.join(",");
            // A job of its own shows that several run at once.
            let more = if job == "default" { String::new() } else { format!(", job => '{job}'") };
            self.show(source, &format!("SELECT * FROM scry_backfill.start('{tables}'{more})"))?;
        }
        println!();
        Ok(())
    }

    fn show(&self, source: &mut Client, sql: &str) -> Result<()> {
        println!("{DATABASE}=# {sql};");
        for row in rows(source, sql)? {
            for (name, value) in row {
                println!("    {name}: {value}");
            }
        }
        Ok(())
    }

    /// Shows the progress until every job follows.
    fn watch_copy(&self, source: &mut Client, load: &Load) -> Result<()> {
        let start = Instant::now();
        for (job, _) in JOBS {
            loop {
                let sql = format!("SELECT scry_backfill.wait_for_shadow('{job}', '1s')");
                let there: bool = source.query_one(&sql, &[]).context("wait for the shadow")?.get(0);
                if there {
                    break;
                }
                for row in rows(source, "SELECT * FROM scry_backfill.progress")? {
                    let fields: Vec<String> =
                        row.iter().map(|(name, value)| format!("{name} {value}")).collect();
                    self.say(&fields.join(", "));
                }
                ensure!(start.elapsed() < COPY_TIMEOUT, "the copy did not end within {COPY_TIMEOUT:?}");
            }
        }
        self.say(&format!(
            "copied and caught up in {:.1} s, {} commits of the load so far",
            start.elapsed().as_secs_f64(),
            load.commits()
        ));
        Ok(())
    }

    /// The newest order, as the shadow has it.
    fn show_shadow_row(&self, pair: &Pair) -> Result<()> {
        println!(
            "\nshadow=> SELECT id, user_id, state, total, placed_at FROM orders ORDER BY id DESC LIMIT 1;"
        );
        let sql = "SELECT concat_ws(' | ', id, user_id, state, total, placed_at) FROM public.orders ORDER BY id DESC LIMIT 1";
        let row = pair
            .shadow_client_of("default")?
            .query_one(sql, &[])
            .context("read the shadow's newest order")?;
        println!("    {}\n", row.get::<_, String>(0));
        Ok(())
    }

    /// Shows once a second how far behind the shadow is.
    fn watch_lag(&self, pair: &Pair, load: &Load, seconds: u64) -> Result<()> {
        let mut source = pair.source_client()?;
        let mut shadow = pair.shadow_client_of("default")?;
        let mut latencies = Vec::new();
        for second in 0..seconds {
            let next = Instant::now() + Duration::from_secs(1);
            let mut newest = 0.0;
            while Instant::now() < next {
                newest = probe(&mut source, &mut shadow)?;
                latencies.push(newest);
                std::thread::sleep(Duration::from_millis(100));
            }
            let sql = "SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)), 0)::int8 \
                       FROM pg_replication_slots";
            let behind: i64 = source.query_one(sql, &[]).context("read the slots")?.get(0);
            self.say(&format!(
                "following {:2}/{seconds}: {} commits, {} kB of WAL not confirmed, commit to shadow {newest:.1} ms",
                second + 1,
                load.commits(),
                behind / 1024
            ));
        }
        latencies.sort_by(f64::total_cmp);
        let at =
            |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or(0.0);
        self.say(&format!(
            "commit to shadow, {} probes: median {:.1} ms, 99th percentile {:.1} ms",
            latencies.len(),
            at(0.5),
            at(0.99)
        ));
        Ok(())
    }

    /// Compares every table of every job with its shadow.
    fn compare(&self, pair: &Pair) -> Result<Report> {
        let mut source = pair.source_client()?;
        let mut all = Vec::new();
        for (job, tables) in JOBS {
            let names: Vec<TableName> = tables.iter().map(|name| TableName::new(name)).collect();
            let mut shadow = pair.shadow_client_of(job)?;
            all.extend(content::compare(&mut source, &mut shadow, &names)?.0);
        }
        ensure!(all.len() == content::user_tables(&mut source)?.len(), "a table of the shop is in no job");
        Ok(Report(all))
    }
}

/// Milliseconds from the commit of a change on the source until the shadow
/// shows it.
fn probe(source: &mut Client, shadow: &mut Client) -> Result<f64> {
    let sql = "UPDATE public.users SET credit = credit + 0.01 WHERE id = 1 RETURNING credit::text";
    let wanted: String = source.query_one(sql, &[]).context("change a row")?.get(0);
    let start = Instant::now();
    let sql = "SELECT credit >= $1::text::numeric FROM public.users WHERE id = 1";
    while !shadow.query_one(sql, &[&wanted]).context("look at the shadow")?.get::<_, bool>(0) {
        ensure!(
            start.elapsed() < Duration::from_secs(60),
            "a change did not reach the shadow within a minute"
        );
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

fn count_rows(source: &mut Client) -> Result<i64> {
    let mut total = 0;
    for table in content::user_tables(source)? {
        let sql = format!("SELECT count(*) FROM {}", table.quoted());
        total += source.query_one(&sql, &[]).context("count the rows")?.get::<_, i64>(0);
    }
    Ok(total)
}

fn demo_seconds() -> Result<u64> {
    match std::env::var("DEMO_SECONDS") {
        Ok(text) => text.trim().parse().with_context(|| format!("DEMO_SECONDS is not a number: {text}")),
        Err(_) => Ok(30),
    }
}
