//! Debezium's PostgreSQL connector in its embedded engine, with a consumer that
//! makes each record JSON and counts it: reading only, which is its best case.
//!
//! `bench/peers` puts its jars and `bench/debezium/Count.java` below
//! `SCRY_PEERS_DIR`. The start of the JVM, about a second, counts.

use crate::clusters::Bench;
use crate::measure::Figures;
use anyhow::{Context, Result, ensure};
use scry_testkit::{Cluster, Lab};
use std::path::PathBuf;

/// Where it is installed.
pub struct Debezium {
    dir: PathBuf,
}

/// What it is to do.
pub struct Task<'a> {
    pub source: &'a Cluster,
    pub slot: &'a str,
    /// `initial` or `no_data`.
    pub snapshot_mode: &'a str,
    /// Records to wait for.
    pub records: u64,
}

impl Debezium {
    /// Says so where it is not.
    pub fn find() -> Option<Debezium> {
        let dir = PathBuf::from(std::env::var_os("SCRY_PEERS_DIR").unwrap_or_default()).join("debezium");
        let found = dir.join("classes/Count.class").is_file();
        if !found {
            println!("Debezium is not installed (bench/peers): not measured");
        }
        found.then_some(Debezium { dir })
    }

    /// Reads all tables.
    pub fn snapshot(&self, lab: &Lab, bench: &Bench) -> Result<Figures> {
        let source = &bench.pair.source;
        let task = Task { source, slot: "debezium", snapshot_mode: "initial", records: bench.rows()? };
        let figures = bench.measure(&bench.pair.platform, None, || self.run(lab, &task))?;
        drop_slot(source, task.slot)?;
        Ok(figures)
    }

    /// Runs it until it has seen the last record.
    pub fn run(&self, lab: &Lab, task: &Task<'_>) -> Result<()> {
        let properties = lab.path("debezium.properties");
        std::fs::write(&properties, settings(task)).context("write Debezium's settings")?;
        let classes = format!("{}/classes:{}/libs/*", self.dir.display(), self.dir.display());
        let done = std::process::Command::new("java")
            .args(["-Xms2g", "-Xmx2g", "-XX:+UseParallelGC", "-cp", &classes, "Count"])
            .arg(task.records.to_string())
            .arg(&properties)
            .output()
            .context("start java")?;
        let (out, log) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(
            done.status.success() && out.trim() == task.records.to_string(),
            "Debezium has seen {} of {} records: {}",
            out.trim(),
            task.records,
            log.lines().rev().take(20).collect::<Vec<_>>().join("\n")
        );
        Ok(())
    }
}

fn settings(task: &Task<'_>) -> String {
    format!(
        "name=bench
connector.class=io.debezium.connector.postgresql.PostgresConnector
offset.storage=org.apache.kafka.connect.storage.MemoryOffsetBackingStore
offset.flush.interval.ms=60000
database.hostname=127.0.0.1
database.port={}
database.user=postgres
database.password=none
database.dbname=postgres
topic.prefix=bench
plugin.name=pgoutput
publication.name=peer
publication.autocreate.mode=disabled
slot.name={}
slot.drop.on.stop=false
schema.include.list=public
message.prefix.exclude.list=.*
snapshot.mode={}
snapshot.max.threads=2
snapshot.fetch.size=10240
max.batch.size=2048
max.queue.size=16384
poll.interval.ms=10
tombstones.on.delete=false
key.converter.schemas.enable=false
value.converter.schemas.enable=false
",
        task.source.port(),
        task.slot,
        task.snapshot_mode
    )
}

/// Drops a slot, also one whose walsender has not noticed yet that its peer is gone.
pub fn drop_slot(source: &Cluster, slot: &str) -> Result<()> {
    scry_testkit::wait::until_true("a slot to be dropped", std::time::Duration::from_secs(20), || {
        let sql = format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active;
             SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}' AND NOT active;
             SELECT count(*) = 0 FROM pg_replication_slots WHERE slot_name = '{slot}'"
        );
        Ok(source.psql("postgres", &sql)?.lines().last() == Some("t"))
    })
}
