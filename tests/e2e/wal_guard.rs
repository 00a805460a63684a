//! The guard of the WAL (delivery contract, rule 12): warning, critical and
//! hard bound in order, the slot given up before production is harmed, and the
//! way back.

use super::{PATIENT, SOON, error_of, mixed_load, mixed_pair, require_words};
use anyhow::{Context, Result, bail, ensure};
use scry_testkit::{Lab, Pair, PairOptions, Shutdown, scenario, wait};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// Small bounds, looked at often.
fn guarded(warning: u32, critical: u32, hard: i32) -> PairOptions {
    let source_conf = [
        "scry_backfill.wal_check_interval = '1s'".to_owned(),
        format!("scry_backfill.max_wal_warning = '{warning}MB'"),
        format!("scry_backfill.max_wal_critical = '{critical}MB'"),
        format!("scry_backfill.max_wal_hard = '{hard}MB'").replace("-1MB", "-1"),
        "max_wal_size = '128MB'".to_owned(),
        "min_wal_size = '32MB'".to_owned(),
    ];
    PairOptions { source_conf: source_conf.to_vec(), ..PairOptions::default() }
}

/// Writes some megabytes of WAL.
fn write_wal(pair: &Pair) -> Result<()> {
    pair.sql("INSERT INTO document(title, body) SELECT 'full', repeat(md5(i::text), 20) FROM generate_series(1, 5000) i")
        .map(|_| ())
}

/// Bytes of WAL that the slots keep.
fn kept(pair: &Pair) -> Result<u64> {
    let sql = "SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)), 0)::int8 FROM pg_replication_slots";
    pair.sql(sql)?.parse().context("read the size of the WAL kept")
}

fn column(pair: &Pair, name: &str) -> Result<String> {
    pair.sql(&format!("SELECT {name} FROM scry_backfill.status WHERE job = 'default'"))
}

/// When an event with these words happened, as seconds since 1970.
fn event_time(pair: &Pair, words: &str) -> Result<f64> {
    let sql = format!(
        "SELECT extract(epoch FROM min(at)) FROM scry_backfill.events WHERE message LIKE '%{words}%' AND level <> 'info'"
    );
    pair.sql(&sql)?.parse().with_context(|| format!("no event says \"{words}\"; {}", pair.describe_status()))
}

/// Writes WAL, not too fast for a second's look, until the slot has been given
/// up; returns the states seen and the most WAL that was kept.
fn write_until_given_up(pair: &Pair) -> Result<(Vec<String>, u64)> {
    let (mut seen, mut most, begun) = (Vec::new(), 0, Instant::now());
    loop {
        write_wal(pair)?;
        most = most.max(kept(pair)?);
        let state = column(pair, "wal_state")?;
        if seen.last() != Some(&state) {
            seen.push(state);
        }
        if column(pair, "state")? == "needs_resync" {
            return Ok((seen, most));
        }
        if begun.elapsed() > PATIENT {
            bail!("the slot is not given up; {}", pair.describe_status());
        }
        std::thread::sleep(Duration::from_millis(60));
    }
}

/// What must be so once the slot is gone: it is said, and `resume()` leads back.
fn comes_back(pair: &Pair) -> Result<()> {
    ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0", "the slot is still there");
    ensure!(column(pair, "wal_state")? == "given_up");
    require_words(&column(pair, "why")?, &["given up"])?;
    require_words(&column(pair, "hint")?, &["scry_backfill.resume"])?;
    let waited = error_of(pair, "SELECT scry_backfill.wait_for_shadow('default', '2s')")?;
    require_words(&waited, &["given up", "scry_backfill.resume"])?;
    // It stays so, also over a restart's scans.
    std::thread::sleep(Duration::from_secs(2));
    ensure!(column(pair, "state")? == "needs_resync", "{}", pair.describe_status());
    pair.sql("SELECT scry_backfill.resume('default')")?;
    pair.wait_for_shadow(PATIENT)
}

#[test]
fn the_bounds_are_reached_in_order_and_the_slot_is_given_up() {
    scenario("wal_bounds", |lab| {
        let mut pair = mixed_pair(lab, &guarded(32, 96, 224))?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let load = mixed_load(lab, &pair, false)?;
        ensure!(column(&pair, "wal_state")? == "ok");

        let rate = |load: &scry_testkit::load::Load| {
            let before = load.commits();
            std::thread::sleep(Duration::from_secs(2));
            (load.commits() - before) / 2
        };
        let free = rate(&load);
        pair.platform.program.freeze()?;
        let frozen = rate(&load);
        eprintln!("the source commits {free} a second with a shadow, {frozen} with a frozen one");
        ensure!(frozen * 3 > free, "production suffers: {frozen} commits a second after {free}");

        let (seen, most) = write_until_given_up(&pair)?;
        eprintln!("states {seen:?}, at most {} MiB of WAL kept", most / MIB);
        let order: Vec<&str> = seen.iter().map(String::as_str).filter(|state| *state != "ok").collect();
        ensure!(order.starts_with(&["warning", "critical"]), "{seen:?}");
        ensure!(most < (224 + 64) * MIB, "{most} bytes were kept");
        let times = ["more than max_wal_warning", "more than max_wal_critical", "more than max_wal_hard"]
            .map(|words| event_time(&pair, words));
        let [warning, critical, hard] = times;
        ensure!(warning? < critical.as_ref().copied().unwrap_or(0.0) && critical? < hard?);

        load.wait_commits(50, SOON)?;
        pair.platform.program.thaw()?;
        comes_back(&pair)?;
        eprintln!("{}", load.stop()?);
        pair.assert_equal()?;
        ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "1");
        pair.assert_source_unharmed()
    });
}

#[test]
fn copies_hold_and_streams_are_free_while_a_slot_is_critical() {
    scenario("wal_critical", |lab| {
        let mut options = guarded(8, 32, -1);
        options.source_conf.push("scry_backfill.max_stream_rows_per_second = 2000".into());
        let pair = mixed_pair(lab, &options)?;
        pair.sql("CREATE TABLE later(id int PRIMARY KEY, t text); INSERT INTO later SELECT i, md5(i::text) FROM generate_series(1, 50000) i")?;
        pair.start_job("document, account")?;
        pair.wait_for_shadow(PATIENT)?;
        let told = |wanted: &str| {
            wait::until_true(&format!("the sender's file to say {wanted}"), SOON, || {
                let text = std::fs::read_to_string(pair.socket_dir.join("scry_sender.toml"))?;
                let limited = text.contains("[rate_limit.stream]\nmax_rows_per_second = 2000");
                Ok(limited == (wanted == "limits"))
            })
        };
        told("limits")?;
        // A paused job keeps WAL.
        pair.sql("SELECT scry_backfill.pause('default')")?;
        while kept(&pair)? < 40 * MIB {
            write_wal(&pair)?;
        }

        // The guard looks once in its interval; a copy that begins before that need not hold.
        pair.wait_status("the slot to be critical", SOON, |row| {
            row.get("wal_state").is_some_and(|state| state == "critical")
        })?;

        // The sender runs while any job does.
        pair.start_job_with("later", "job => 'second'")?;
        told("no limits")?;
        let second = "SELECT state || ' ' || coalesce(limiter, '') || ' ' || rows_copied FROM scry_backfill.status WHERE job = 'second'";
        wait::until_true("the copy to hold", SOON, || Ok(pair.sql(second)? == "copying max_wal_critical 0"))
            .with_context(|| pair.describe_status())?;

        // 50,000 rows and more in the stream: at 2,000 a second they would take half a minute.
        let begun = Instant::now();
        pair.sql("SELECT scry_backfill.resume('default')")?;
        pair.wait_for_shadow(PATIENT)?;
        eprintln!("the stream took {:?}", begun.elapsed());
        pair.wait_for_shadow_of("second", PATIENT)?;
        told("limits")?;
        let again = "SELECT count(*) FROM scry_backfill.events WHERE message LIKE '%of WAL again%'";
        wait::until_true("the event that it is well again", SOON, || Ok(pair.sql(again)? != "0"))?;
        pair.assert_source_unharmed()
    });
}

/// A small disk; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None`: this user may not mount.
    fn mount(lab: &Lab, dir: &Path, megabytes: u64) -> Result<Option<SmallDisk>> {
        lab.user.make_dir(dir)?;
        let size = format!("size={megabytes}m,mode=700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).output()?;
        if !output.status.success() {
            return Ok(None);
        }
        let disk = SmallDisk(dir.to_owned());
        lab.user.own(dir)?;
        Ok(Some(disk))
    }
}

impl SmallDisk {
    /// Moves a directory of the source here.
    fn take(&self, pair: &mut Pair, name: &str) -> Result<()> {
        pair.source.stop(Shutdown::Fast)?;
        let (from, moved) = (pair.source.data_dir.join(name), self.0.join(name));
        ensure!(Command::new("cp").arg("-a").args([&from, &moved]).status()?.success(), "move {name}");
        std::fs::remove_dir_all(&from)?;
        std::os::unix::fs::symlink(&moved, &from)?;
        pair.source.start()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_nearly_full_wal_disk_costs_the_slot_and_not_the_server() {
    const SIZE_MB: u64 = 640;
    scenario("wal_disk", |lab| {
        let Some(disk) = SmallDisk::mount(lab, &lab.path("waldisk"), SIZE_MB)? else {
            eprintln!("skipped: cannot mount a tmpfs here");
            return Ok(());
        };
        // The bounds are far away: only the disk is small.
        let mut pair = mixed_pair(lab, &guarded(8192, 16384, 32768))?;
        disk.take(&mut pair, "pg_wal")?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.platform.program.freeze()?;

        let begin = pair.sql("SELECT pg_current_wal_lsn()")?;
        let written = format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{begin}')::int8");
        let (_, most) = write_until_given_up(&pair)?;
        eprintln!("given up with {} MiB of WAL kept on a disk of {SIZE_MB} MiB", most / MIB);
        ensure!(most < SIZE_MB * MIB * 95 / 100);
        event_time(&pair, "of the WAL")?;
        // Production goes on, for longer than the disk could hold.
        while pair.sql(&written)?.parse::<u64>()? < 2 * SIZE_MB * MIB {
            write_wal(&pair)?;
            std::thread::sleep(Duration::from_millis(60));
        }
        let log = pair.source.log_text();
        ensure!(!log.contains("PANIC") && !log.contains("No space left"), "the disk was full");
        pair.platform.program.thaw()?;
        comes_back(&pair)?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()?;
        pair.source.stop(Shutdown::Fast)
    });
}

#[test]
fn the_slot_that_a_stopped_job_left_behind_is_guarded_too() {
    scenario("wal_orphan", |lab| {
        let pair = mixed_pair(lab, &guarded(8, 16, 48))?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        pair.sql("SELECT scry_backfill.stop('default', drop_slot => false)")?;
        ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "1");
        wait::until_true("the slot to be given up", PATIENT, || {
            write_wal(&pair)?;
            Ok(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "0")
        })?;
        event_time(&pair, "is given up")?;
        ensure!(column(&pair, "state")? == "stopped");
        pair.start_job("*")?;
        pair.assert_equal()
    });
}

/// What decoding spills finds no room: an attempt ends, the server does not, and pieces need no room.
#[test]
fn a_full_disk_for_what_is_spilled_ends_an_attempt_and_not_the_server() {
    scenario("spill_disk", |lab| {
        let Some(disk) = SmallDisk::mount(lab, &lab.path("spilldisk"), 16)? else {
            eprintln!("skipped: cannot mount a tmpfs here");
            return Ok(());
        };
        let conf = ["logical_decoding_work_mem = '64kB'", "scry_backfill.stream_in_progress = off"];
        let source_conf = conf.map(str::to_owned).to_vec();
        let mut pair = mixed_pair(lab, &PairOptions { source_conf, ..PairOptions::default() })?;
        disk.take(&mut pair, "pg_replslot")?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let begun = pair.sql("SELECT pg_postmaster_start_time()")?;
        for _ in 0..3 {
            pair.sql("INSERT INTO document(title, body) SELECT 'full', repeat(md5(i::text), 20) FROM generate_series(1, 60000) i")?;
        }
        pair.wait_status("the full disk", SOON, |row| row["why"].contains("No space left"))?;
        ensure!(!pair.source.log_text().contains("PANIC"), "the server panicked");
        pair.sql("ALTER SYSTEM SET scry_backfill.stream_in_progress = on; SELECT pg_reload_conf()")?;
        pair.assert_equal()?;
        ensure!(pair.sql("SELECT pg_postmaster_start_time()")? == begun, "the server was restarted");
        pair.assert_source_unharmed()?;
        pair.source.stop(Shutdown::Fast)
    });
}
