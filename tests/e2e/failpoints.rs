//! Every named step of the path, made to fail in every way: an error, a panic, the end of the process, a
//! wait. The end is always the same content on both sides, and the source's other sessions live.
//!
//! One pair and one job serve all cases. A case of the copy stops the job and starts it again. What a
//! step did stands in the log of its program; then the failpoint is taken back and all must go on.

use super::{PATIENT, SOON, mixed_pair};
use anyhow::{Context, Result, bail, ensure};
use scry_failpoint::step;
use scry_testkit::{Lab, Pair, PairOptions, Shutdown, scenario, wait};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Whose step it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Worker,
    Sender,
    Platform,
}

/// The steps, whether they are the copy's, and when they are hit: the time after so many are let pass. All that
/// the server calls while it decodes is among them.
const POINTS: [(Who, &str, bool, u32); 21] = [
    (Who::Worker, "slot_created", true, 1),
    (Who::Worker, "snapshot_exported", true, 1),
    (Who::Worker, "chunk_read", true, 2),
    (Who::Worker, "chunk_sent", true, 2),
    (Who::Platform, step::CHUNK_COMMITTED, true, 2),
    (Who::Worker, "copy_done", true, 1),
    (Who::Worker, "wal_awaited", false, 2),
    (Who::Worker, "begun", false, 2),
    (Who::Worker, "changed", false, 2),
    (Who::Worker, "truncated", false, 1),
    (Who::Worker, "told", false, 1),
    (Who::Worker, "piece", false, 20),
    (Who::Worker, "decoded", false, 2),
    (Who::Worker, "handed_over", false, 2),
    (Who::Sender, step::SENT, false, 2),
    (Who::Platform, step::RECEIVED, false, 2),
    (Who::Platform, step::APPLIED, false, 2),
    (Who::Platform, step::COMMITTED, false, 2),
    (Who::Platform, step::SHOWN, false, 2),
    (Who::Worker, "confirm_received", false, 2),
    (Who::Worker, "slot_confirmed", false, 2),
];

const ACTIONS: [&str; 4] = ["error", "panic", "exit", "sleep"];

/// What `make test` runs: each program, each action, the copy and the stream.
const SELECTION: [(&str, &str); 15] = [
    ("slot_created", "exit"),
    ("chunk_sent", "panic"),
    (step::CHUNK_COMMITTED, "exit"),
    (step::SENT, "error"),
    ("wal_awaited", "panic"),
    ("begun", "panic"),
    ("changed", "panic"),
    ("truncated", "panic"),
    ("told", "panic"),
    ("piece", "panic"),
    (step::APPLIED, "panic"),
    (step::COMMITTED, "exit"),
    (step::SHOWN, "exit"),
    ("confirm_received", "error"),
    ("slot_confirmed", "sleep"),
];

struct Bench<'a> {
    lab: &'a Lab,
    pair: Pair,
    file: PathBuf,
    rows: u32,
    copies: u32,
}

impl Bench<'_> {
    fn start(lab: &Lab) -> Result<Bench<'_>> {
        let source_conf = vec!["logical_decoding_work_mem = '64kB'".to_owned()];
        let mut pair = mixed_pair(lab, &PairOptions { source_conf, ..PairOptions::default() })?;
        let file = lab.path("failpoints");
        lab.user.write_file(&file, b"", 0o644)?;
        let path = file.to_string_lossy().into_owned();
        pair.platform.program.env("SCRY_FAILPOINTS", &path);
        pair.source.postmaster.env("SCRY_FAILPOINTS", &path);
        pair.platform.program.stop()?;
        pair.platform.start()?;
        pair.source.restart(Shutdown::Fast)?;
        pair.sql("CREATE TABLE hit(id int PRIMARY KEY, t text); CREATE TABLE emptied(id int PRIMARY KEY)")?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        Ok(Bench { lab, pair, file, rows: 0, copies: 0 })
    }

    /// Sets the failpoint, or takes it back.
    fn set(&mut self, point: Option<(Who, &str, &str, u32)>) -> Result<()> {
        let (mut line, mut setting) = (String::new(), String::new());
        match point {
            Some((Who::Worker, step, action, time)) => setting = format!("{step}={action}@{time}"),
            Some((_, step, action, time)) => line = format!("{step}={}*off->return({action})\n", time - 1),
            None => {}
        }
        self.lab.user.write_file(&self.file, line.as_bytes(), 0o644)?;
        self.pair
            .source
            .psql("postgres", &format!("ALTER SYSTEM SET scry_backfill.failpoint = '{setting}'"))?;
        self.pair.source.reload()?;
        // The file is looked at every 20 ms, a setting at the next interrupt.
        std::thread::sleep(Duration::from_millis(60));
        Ok(())
    }

    fn log_of(&self, who: Who) -> String {
        match who {
            Who::Worker => self.pair.source.log_text(),
            Who::Platform => self.pair.platform.program.log_text(),
            Who::Sender => std::fs::read(self.pair.socket_dir.join("scry_sender.log"))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default(),
        }
    }

    fn hits(&self, who: Who, step: &str) -> usize {
        self.log_of(who).lines().filter(|line| line.contains("failpoint") && line.contains(step)).count()
    }

    fn case(&mut self, who: Who, step: &str, of_copy: bool, time: u32, action: &str) -> Result<Duration> {
        let before = self.hits(who, step);
        if of_copy {
            self.pair.sql("SELECT scry_backfill.stop('default')")?;
            wait::until_true("the slot to be dropped", SOON, || {
                Ok(self.pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0")
            })?;
            // Of another schema all is copied; else it would be compared.
            self.copies += 1;
            self.pair.sql(&format!("CREATE TABLE copied_{}(id int PRIMARY KEY)", self.copies))?;
        }
        self.set(Some((who, step, action, time)))?;
        if of_copy {
            self.pair.start_job("*")?;
        }
        let start = Instant::now();
        while self.hits(who, step) == before {
            if start.elapsed() > SOON {
                bail!("the step is not reached; {}", self.pair.describe_status());
            }
            self.rows += 1;
            self.pair.sql(&format!(
                "INSERT INTO hit VALUES ({}, 'x'); UPDATE account SET balance = balance + 1 WHERE id < 5",
                self.rows
            ))?;
            match step {
                "truncated" => drop(self.pair.sql("INSERT INTO emptied VALUES (1); TRUNCATE emptied")?),
                "told" => drop(self.pair.sql(&format!("COMMENT ON TABLE hit IS '{}'", self.rows))?),
                // More than the decoder keeps in memory.
                "piece" => {
                    drop(self.pair.sql("UPDATE account SET owner = owner || '.'; SELECT pg_sleep(0.3)")?)
                }
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.set(None)?;
        let struck = Instant::now();
        if who == Who::Platform {
            // It may be about to end.
            std::thread::sleep(Duration::from_millis(100));
            if !self.pair.platform.program.is_running() {
                self.pair.platform.start()?;
            }
        }
        self.pair.assert_equal()?;
        Ok(struck.elapsed())
    }

    fn run(&mut self, cases: &[(&str, &str)]) -> Result<()> {
        // Neither a worker's end nor anything else may take other sessions with it.
        let mut witness = self.pair.source_client()?;
        for (step, action) in cases {
            let (who, step, of_copy, time) =
                *POINTS.iter().find(|(_, name, ..)| name == step).context("no such step")?;
            let resumed = self
                .case(who, step, of_copy, time, action)
                .with_context(|| format!("{action} at {step}; {}", self.pair.describe_status()))?;
            eprintln!("failpoint {step} {action}: equal {:.1} s after it", resumed.as_secs_f64());
        }
        witness.query_one("SELECT 1", &[]).context("a session that had nothing to do with it")?;
        let slots = self.pair.sql("SELECT count(*) FROM pg_replication_slots")?;
        ensure!(slots == "1", "{slots} slots are there");
        self.pair.assert_source_unharmed()
    }
}

#[test]
fn steps_that_fail_lose_nothing() {
    scenario("failpoints", |lab| Bench::start(lab)?.run(&SELECTION));
}

#[test]
#[ignore = "every step in every way takes minutes: make storm"]
fn every_step_fails_in_every_way() {
    scenario("failpoints_all", |lab| {
        let all: Vec<(&str, &str)> = POINTS
            .iter()
            .flat_map(|(_, step, ..)| ACTIONS.iter().map(move |action| (*step, *action)))
            .collect();
        Bench::start(lab)?.run(&all)
    });
}
