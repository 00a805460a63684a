//! What `start()` refuses, each with the cause and the remedy.

use super::{error_of, require_words};
use anyhow::{Result, ensure};
use scry_testkit::{Cluster, ClusterOptions, Pair, PairOptions, Shutdown, scenario};

/// A cluster without any setting of ours; the extension alone is there.
fn bare(lab: &scry_testkit::Lab, conf: &[&str]) -> Result<Cluster> {
    lab.server.require_extension()?;
    let conf = conf.iter().map(|line| (*line).to_owned()).collect();
    let cluster = Cluster::start_new(lab, "bare", &ClusterOptions { conf, own_identity: false })?;
    cluster.psql("postgres", "CREATE TABLE t(id int PRIMARY KEY); CREATE EXTENSION scry_backfill")?;
    Ok(cluster)
}

fn start_error(cluster: &Cluster) -> Result<String> {
    match cluster.psql("postgres", "SELECT scry_backfill.start('t')") {
        Ok(output) => anyhow::bail!("start() should have refused, and said {output}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
fn without_shared_preload_libraries() {
    scenario("no_preload", |lab| {
        let cluster = bare(lab, &[])?;
        require_words(&start_error(&cluster)?, &["shared_preload_libraries = 'scry_backfill'"])
    });
}

#[test]
fn without_wal_level_logical() {
    scenario("no_wal_level", |lab| {
        let lines = [
            "shared_preload_libraries = 'scry_backfill'",
            "wal_level = replica",
            "scry_backfill.endpoint = 'http://127.0.0.1:9'",
        ];
        let cluster = bare(lab, &lines)?;
        let answer = cluster.psql("postgres", "SELECT scry_backfill.start('t', mode => 'hybrid')");
        let error = format!("{:#}", answer.err().unwrap_or_else(|| anyhow::anyhow!("not refused")));
        require_words(&error, &["wal_level"])?;
        require_words(&error, &["logical"])
    });
}

#[test]
fn without_a_free_slot() {
    scenario("no_slot", |lab| {
        let lines = [
            "shared_preload_libraries = 'scry_backfill'",
            "wal_level = logical",
            "max_replication_slots = 1",
            "scry_backfill.endpoint = 'http://127.0.0.1:9'",
        ];
        let cluster = bare(lab, &lines)?;
        cluster.psql("postgres", "SELECT pg_create_physical_replication_slot('taken')")?;
        require_words(&start_error(&cluster)?, &["max_replication_slots"])
    });
}

#[test]
fn without_an_endpoint() {
    scenario("no_endpoint", |lab| {
        let lines = ["shared_preload_libraries = 'scry_backfill'", "wal_level = logical"];
        require_words(&start_error(&bare(lab, &lines)?)?, &["scry_backfill.endpoint"])
    });
}

#[test]
fn tables_it_cannot_take() {
    scenario("tables_refused", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE EXTENSION scry_backfill;
             CREATE TABLE orders(id int PRIMARY KEY); CREATE TABLE users(id int PRIMARY KEY);
             CREATE TABLE keyless(a int); INSERT INTO keyless VALUES (1);
             CREATE TABLE unidentified(id int PRIMARY KEY); ALTER TABLE unidentified REPLICA IDENTITY NOTHING;
             CREATE UNLOGGED TABLE unlogged(id int PRIMARY KEY);
             CREATE VIEW a_view AS SELECT 1 AS one",
        )?;
        let start = |tables: &str| error_of(&pair, &format!("SELECT scry_backfill.start('{tables}')"));
        require_words(&start("ordres,users")?, &["ordres", "orders"])?;
        require_words(&start("nothing_like_it")?, &["nothing_like_it"])?;
        require_words(&start("users,keyless")?, &["keyless", "REPLICA IDENTITY"])?;
        require_words(&start("unidentified")?, &["unidentified", "REPLICA IDENTITY"])?;
        require_words(&start("unlogged")?, &["unlogged"])?;
        require_words(&start("a_view")?, &["a_view"])?;
        require_words(&start("pg_class")?, &["pg_class"])?;
        require_words(&start("")?, &["table"])?;
        require_words(&start("orders,\"unclosed")?, &["\""])?;
        require_words(
            &error_of(&pair, "SELECT scry_backfill.start('users', mode => 'fast')")?,
            &["fast", "hybrid"],
        )?;
        require_words(
            &error_of(&pair, "SELECT scry_backfill.start('users', options => '{\"speed\": 1}')")?,
            &["speed"],
        )?;
        require_words(&error_of(&pair, "SELECT scry_backfill.stop('nobody')")?, &["nobody"])?;
        require_words(&error_of(&pair, "SELECT scry_backfill.wait_for_shadow('nobody')")?, &["nobody"])?;
        ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0", "a refused start left a slot");

        // A key that the owner names is enough, and check() says the same as start().
        let findings = pair.sql("SELECT * FROM scry_backfill.check('*')")?;
        require_words(&findings, &["keyless", "unidentified"])?;
        pair.start_job("orders")?;
        require_words(&start("orders")?, &["default"])
    });
}

#[test]
fn tables_the_caller_may_not_read() {
    scenario("no_privilege", |lab| {
        let pair = Pair::start(lab, &PairOptions::default())?;
        pair.sql(
            "CREATE EXTENSION scry_backfill; CREATE ROLE plain LOGIN; CREATE ROLE operator LOGIN;
             CREATE TABLE open(id int PRIMARY KEY); CREATE TABLE secret(id int PRIMARY KEY);
             CREATE TABLE guarded(id int PRIMARY KEY); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
             GRANT SELECT ON open, guarded TO operator; GRANT USAGE ON SCHEMA scry_backfill TO operator, plain;
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA scry_backfill TO operator",
        )?;
        let as_role = |role: &str, tables: &str| {
            error_of(&pair, &format!("SET ROLE {role}; SELECT scry_backfill.start('{tables}')"))
        };
        require_words(&as_role("plain", "open")?, &["permission denied"])?;
        require_words(&as_role("operator", "open,secret")?, &["secret", "SELECT"])?;
        require_words(&as_role("operator", "guarded")?, &["guarded", "row"])?;
        ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0");
        Ok(())
    });
}

#[test]
fn on_a_standby_or_with_a_bad_endpoint() {
    scenario("bad_endpoint", |lab| {
        // Plain HTTP leaves the machine only to a loopback address.
        let lines = ["shared_preload_libraries = 'scry_backfill'", "wal_level = logical"];
        let mut cluster = bare(lab, &lines)?;
        for endpoint in ["http://192.0.2.1:80", "ftp://127.0.0.1:1", "https://", "not a url"] {
            let changed =
                cluster.psql("postgres", &format!("ALTER SYSTEM SET scry_backfill.endpoint = '{endpoint}'"));
            let error = match changed {
                Err(error) => format!("{error:#}"),
                Ok(_) => {
                    cluster.restart(Shutdown::Fast)?;
                    start_error(&cluster)?
                }
            };
            require_words(&error, &["endpoint"])?;
        }
        Ok(())
    });
}
