//! Each part killed, stopped and restarted, in mid-copy and in mid-stream, with
//! writers on: the end is always the same content on both sides.

use super::{PATIENT, SOON, mixed_load, mixed_pair, worker_pid};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use scry_testkit::program::{descendants_named, signal_pid};
use scry_testkit::proxy::{Behaviour, Proxy};
use scry_testkit::{Lab, Pair, PairOptions, SenderMode, ShadowKind, Shutdown, scenario, wait};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

/// When the fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Copying,
    Streaming,
}

/// What is done to which part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    SenderKilled,
    SenderFrozen,
    PlatformKilled,
    PlatformStopped,
    PlatformFrozen,
    ShadowKilled,
    EmbeddedShadowKilled,
    SourceRestarted,
    SourceCrashed,
    WorkersTerminated,
    Starved,
    /// The platform's files, for three seconds.
    WritesFail,
    SyncsAreSlow,
}

/// Rows of the table that makes the copy last.
const BULK_ROWS: u32 = 60_000;

macro_rules! fault_tests {
    ($($name:ident: $fault:ident while $phase:ident;)*) => {
        $(#[test]
        fn $name() {
            scenario(stringify!($name), |lab| survives(lab, Fault::$fault, Phase::$phase));
        })*
    };
}

fault_tests! {
    sender_killed_while_copying: SenderKilled while Copying;
    sender_killed_while_streaming: SenderKilled while Streaming;
    sender_frozen_while_streaming: SenderFrozen while Streaming;
    platform_killed_while_copying: PlatformKilled while Copying;
    platform_killed_while_streaming: PlatformKilled while Streaming;
    platform_stopped_while_copying: PlatformStopped while Copying;
    platform_frozen_while_streaming: PlatformFrozen while Streaming;
    shadow_killed_while_copying: ShadowKilled while Copying;
    shadow_killed_while_streaming: ShadowKilled while Streaming;
    embedded_shadow_killed_while_streaming: EmbeddedShadowKilled while Streaming;
    source_restarted_while_copying: SourceRestarted while Copying;
    source_restarted_while_streaming: SourceRestarted while Streaming;
    source_crashed_while_copying: SourceCrashed while Copying;
    source_crashed_while_streaming: SourceCrashed while Streaming;
    workers_terminated_while_copying: WorkersTerminated while Copying;
    workers_terminated_while_streaming: WorkersTerminated while Streaming;
    starved_while_streaming: Starved while Streaming;
    writes_fail_while_copying: WritesFail while Copying;
    writes_fail_while_streaming: WritesFail while Streaming;
    syncs_are_slow_while_streaming: SyncsAreSlow while Streaming;
}

/// The scenario of all of them.
fn survives(lab: &Lab, fault: Fault, phase: Phase) -> Result<()> {
    // One that does not flush by itself: nothing may be confirmed that it can lose.
    let (shadow, shadow_conf) = match fault {
        Fault::ShadowKilled => (ShadowKind::External, vec!["synchronous_commit = off".to_owned()]),
        _ => (ShadowKind::Embedded, Vec::new()),
    };
    let mut pair = mixed_pair(lab, &PairOptions { shadow, shadow_conf, ..PairOptions::default() })?;
    pair.sql(&format!(
        "CREATE TABLE bulk(id int PRIMARY KEY, t text);
         INSERT INTO bulk SELECT i, md5(i::text) FROM generate_series(1, {BULK_ROWS}) i"
    ))?;
    let load = mixed_load(lab, &pair, true)?;
    if phase == Phase::Copying {
        throttle(&mut pair, BULK_ROWS / 6)?;
    }
    pair.start_job("*")?;
    match phase {
        Phase::Copying => wait_until_copying(&pair)?,
        Phase::Streaming => pair.wait_for_shadow(PATIENT)?,
    }
    for _ in 0..2 {
        inject(&mut pair, fault)?;
        load.wait_commits(30, SOON).context("the source stood still")?;
        std::thread::sleep(Duration::from_millis(300));
    }
    throttle(&mut pair, 0)?;
    load.wait_commits(30, SOON)?;
    eprintln!("{}", load.stop()?);
    pair.assert_equal()?;
    let told = pair.platform.program.log_text().contains("Input/output error");
    ensure!(
        fault != Fault::WritesFail || told,
        "the platform was not told of the failing disk, or says nothing"
    );
    ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "1", "a slot was left behind");
    pair.assert_source_unharmed()
}

/// A crash of the shadow takes back chunks whose receipts did not wait for its disk. Here a hand does
/// what the crash does: the rows and their line in the ledger are gone, at one moment.
#[test]
fn chunks_that_the_shadow_loses_are_copied_again() {
    scenario("lost_chunks", |lab| {
        let options = PairOptions { shadow: ShadowKind::External, ..PairOptions::default() };
        let mut pair = Pair::start(lab, &options)?;
        // The larger one comes first, and has few rows.
        pair.sql(&format!(
            "CREATE TABLE wide(id int PRIMARY KEY, t text); ALTER TABLE wide ALTER t SET STORAGE PLAIN;
             INSERT INTO wide SELECT i, repeat('x', 7000) FROM generate_series(1, 1000) i;
             CREATE TABLE bulk(id int PRIMARY KEY); INSERT INTO bulk SELECT generate_series(1, {BULK_ROWS})"
        ))?;
        throttle(&mut pair, BULK_ROWS / 6)?;
        pair.start_job("*")?;
        wait_until_copying(&pair)?;
        let mut shadow = pair.shadow_client()?;
        wait::until_true("the first table to be there", SOON, || {
            let held = "SELECT count(*) FROM (SELECT FROM scry_shadow.chunk GROUP BY relid HAVING sum(rows) = 1000) t";
            Ok(shadow.query_one(held, &[])?.get::<_, i64>(0) == 1)
        })?;
        let lose =
            "WITH line AS (DELETE FROM scry_shadow.chunk WHERE relid = (SELECT relid FROM scry_shadow.chunk
                        GROUP BY relid HAVING sum(rows) = 1000) RETURNING 1),
                    rows AS (DELETE FROM public.wide RETURNING 1)
                    SELECT (SELECT count(*) FROM line) > 0 AND (SELECT count(*) FROM rows) = 1000";
        ensure!(shadow.query_one(lose, &[])?.get::<_, bool>(0), "there was nothing to lose");
        let copying = "SELECT copy_state = 'copying' FROM scry_shadow.origin";
        ensure!(shadow.query_one(copying, &[])?.get::<_, bool>(0), "the copy was over too soon");
        throttle(&mut pair, 0)?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

fn throttle(pair: &mut Pair, rows_per_second: u32) -> Result<()> {
    pair.source.add_conf(&[format!("scry_backfill.max_rows_per_second = {rows_per_second}")])?;
    pair.source.reload()?;
    // The launcher hears of it by a signal, and tells the sender.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// Waits until rows are on their way and more are to come. A table that the
/// load truncates under the copy's hands makes it begin another round: then
/// the job says `retrying` for a moment, which is no end of the copy.
fn wait_until_copying(pair: &Pair) -> Result<()> {
    pair.wait_status("the copy to begin", SOON, |row| {
        row["state"] == "copying" && row["bytes_copied"] != "0"
    })?;
    std::thread::sleep(Duration::from_millis(700));
    let over = ["finishing", "streaming", "finished"];
    let goes_on = |row: &BTreeMap<String, String>| !over.contains(&row["state"].as_str());
    ensure!(pair.status()?.iter().any(goes_on), "the copy was over too soon; {}", pair.describe_status());
    Ok(())
}

fn inject(pair: &mut Pair, fault: Fault) -> Result<()> {
    let frozen = Duration::from_secs(4);
    match fault {
        Fault::SenderKilled => signal_pid(managed_sender(pair)?, Signal::SIGKILL),
        Fault::SenderFrozen => {
            let pid = managed_sender(pair)?;
            signal_pid(pid, Signal::SIGSTOP)?;
            std::thread::sleep(frozen);
            signal_pid(pid, Signal::SIGCONT)
        }
        Fault::PlatformKilled => {
            pair.platform.program.kill()?;
            pair.platform.start()
        }
        Fault::PlatformStopped => {
            pair.platform.program.stop()?;
            pair.platform.start()
        }
        Fault::PlatformFrozen => {
            pair.platform.program.freeze()?;
            std::thread::sleep(frozen);
            pair.platform.program.thaw()
        }
        Fault::ShadowKilled => {
            pair.shadow.as_mut().context("no external shadow")?.restart(Shutdown::Immediate)
        }
        Fault::EmbeddedShadowKilled => {
            let old = pair.platform.shadow_postmaster()?;
            signal_pid(old, Signal::SIGKILL)?;
            wait::until_true("the shadow to be started again", SOON, || {
                pair.platform.shadow_client(None)?;
                Ok(pair.platform.shadow_postmaster()? != old)
            })
        }
        Fault::Starved => {
            let platform = pair.platform.program.pid().context("the platform does not run")?;
            starve(&[managed_sender(pair)?, worker_pid(pair, "stream")?, platform], frozen)
        }
        // Its sockets are written to by other calls.
        Fault::WritesFail => {
            let platform = pair.platform.program.pid().context("the platform does not run")?;
            tamper(platform, "pwrite64,fdatasync,fsync:error=EIO", &[])?;
            let sender = managed_sender(pair)?;
            let log = pair.socket_dir.join("scry_sender.log");
            tamper(sender, "write:error=EIO", &[OsStr::new("-P"), log.as_os_str()])
        }
        Fault::SyncsAreSlow => {
            let platform = pair.platform.program.pid().context("the platform does not run")?;
            tamper(platform, "fdatasync,fsync:delay_enter=300000", &[])
        }
        Fault::SourceRestarted => pair.source.restart(Shutdown::Fast),
        Fault::SourceCrashed => pair.source.restart(Shutdown::Immediate),
        Fault::WorkersTerminated => {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type LIKE '%scry%'";
            // After the first time they have to be started again.
            wait::until_true("a worker to terminate", SOON, || Ok(pair.source.psql("postgres", sql)? != "0"))
        }
    }
}

/// Lets processes have a tenth of the time.
fn starve(pids: &[u32], time: Duration) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < time {
        for (signal, lasts) in [(Signal::SIGSTOP, 90), (Signal::SIGCONT, 10)] {
            pids.iter().try_for_each(|pid| signal_pid(*pid, signal))?;
            std::thread::sleep(Duration::from_millis(lasts));
        }
    }
    Ok(())
}

/// Has the kernel's answers to a running program's calls changed for some seconds (strace's `inject`).
fn tamper(pid: u32, inject: &str, more: &[&OsStr]) -> Result<()> {
    let calls = inject.split(':').next().unwrap_or_default();
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string(), "-e"])
        .arg(format!("trace={calls}"))
        .args(["-e", &format!("inject={inject}")])
        .args(more)
        .stderr(Stdio::piped())
        .spawn()
        .context("start strace, which `.ci/deps` installs")?;
    std::thread::sleep(Duration::from_secs(3));
    if tracer.try_wait()?.is_none() {
        signal_pid(tracer.id(), Signal::SIGINT)?;
    }
    let output = tracer.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.trim().is_empty(), "strace: {said}");
    Ok(())
}

/// The sender that the launcher started.
pub(super) fn managed_sender(pair: &Pair) -> Result<u32> {
    let postmaster = pair.source.postmaster.pid().context("the source does not run")?;
    wait::until("the sender to run", SOON, || {
        Ok(descendants_named(postmaster, "scry_sender").first().copied())
    })
}

/// A pair whose sender reaches the platform through a proxy.
fn proxied(lab: &Lab) -> Result<(Pair, Proxy)> {
    proxied_with(lab, &PairOptions::default())
}

/// `proxied`, of other parts.
pub(super) fn proxied_with(lab: &Lab, options: &PairOptions) -> Result<(Pair, Proxy)> {
    // The platform's port is known only when it is there: a detour, then the
    // real address by reload.
    let mut pair = mixed_pair(lab, options)?;
    let target = SocketAddr::from(([127, 0, 0, 1], pair.platform.port()));
    let proxy = Proxy::start(target, lab.seed)?;
    pair.source.add_conf(&[format!("scry_backfill.endpoint = '{}'", proxy.url())])?;
    pair.source.restart(Shutdown::Fast)?;
    Ok((pair, proxy))
}

#[test]
fn network_cut_reset_and_slow() {
    scenario("network", |lab| {
        let (pair, proxy) = proxied(lab)?;
        let load = mixed_load(lab, &pair, false)?;
        pair.start_job("*")?;
        for behaviour in [
            Behaviour::Reset,
            Behaviour::Delay(Duration::from_millis(40)),
            Behaviour::Throttle(100 << 10),
            Behaviour::Blackhole,
            Behaviour::HalfOpen,
        ] {
            proxy.behave(behaviour);
            load.wait_commits(50, SOON)?;
            std::thread::sleep(Duration::from_secs(2));
            proxy.behave(Behaviour::Pass);
            let freed = Instant::now();
            // What was swallowed silence must be found out by the sender.
            pair.wait_for_shadow(PATIENT).with_context(|| format!("after {behaviour:?}"))?;
            let resumed = freed.elapsed().as_secs_f64();
            eprintln!("seed {}: {behaviour:?}: caught up {resumed:.1} s after it", lab.seed);
        }
        load.stop()?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn flipped_bits_are_never_applied() {
    scenario("bit_flips", |lab| {
        let (pair, proxy) = proxied(lab)?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let load = mixed_load(lab, &pair, false)?;
        proxy.behave(Behaviour::Corrupt(20));
        std::thread::sleep(Duration::from_secs(6));
        proxy.behave(Behaviour::Pass);
        proxy.drop_connections();
        load.stop()?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

#[test]
fn a_terminated_stream_worker_alone_is_started_again() {
    scenario("stream_worker_terminated", |lab| {
        let pair = mixed_pair(lab, &PairOptions::default())?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        let mut session = pair.source_client()?;
        for kind in ["stream", "launcher"] {
            let old = worker_pid(&pair, kind)?;
            pair.sql(&format!("SELECT pg_terminate_backend({old})"))?;
            wait::until_true("a new worker", SOON, || Ok(worker_pid(&pair, kind)? != old))?;
        }
        // Nobody else was touched.
        session.query_one("SELECT 1", &[])?;
        pair.sql("UPDATE account SET balance = balance * 2")?;
        pair.assert_equal()
    });
}

/// The clock of sender, platform and shadow jumps, as after a correction by hand: the limiter neither stands
/// still nor opens, and nothing waits for an hour.
#[test]
fn a_clock_that_jumps_stops_nothing() {
    scenario("clock_jumps", |lab| {
        let options = PairOptions { sender: SenderMode::External, ..PairOptions::default() };
        let mut pair = mixed_pair(lab, &options)?;
        let clock = lab.path("clock");
        let set = |offset: &str| lab.user.write_file(&clock, offset.as_bytes(), 0o644);
        set("+0")?;
        let sender = pair.sender.as_mut().context("no external sender")?;
        let mut config = File::options().append(true).open(&sender.config_file)?;
        config.write_all(b"\n[rate_limit.stream]\nmax_rows_per_second = 2000\n")?;
        for program in [&mut sender.program, &mut pair.platform.program] {
            program.stop()?;
            program
                .env("LD_PRELOAD", &faketime()?)
                .env("FAKETIME_TIMESTAMP_FILE", &clock.to_string_lossy())
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
            program.start()?;
        }
        pair.sql("CREATE TABLE paced(id int PRIMARY KEY)")?;
        pair.start_job("*")?;
        pair.wait_for_shadow(PATIENT)?;
        for (turn, offset) in ["+3600", "-3600", "+3600"].iter().enumerate() {
            set(offset)?;
            let begun = Instant::now();
            let first = turn * 10_000;
            pair.sql(&format!("INSERT INTO paced SELECT generate_series({first}, {})", first + 9_999))?;
            pair.wait_for_shadow(SOON)?;
            let took = begun.elapsed();
            eprintln!("10000 rows at 2000 a second, the clock at {offset} s: {took:?}");
            // What may pass at once is 1.5 seconds' worth.
            ensure!(took > Duration::from_secs(2), "the limit did not hold after a jump to {offset}");
            let shown = pair.shadow_client()?.query_one("SELECT extract(epoch FROM now())::bigint", &[])?;
            let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
            let apart = shown.get::<_, i64>(0).abs_diff(i64::try_from(real)?);
            ensure!(apart > 3000, "the clock did not jump: {apart} s apart");
        }
        set("+0")?;
        pair.assert_equal()?;
        pair.assert_source_unharmed()
    });
}

/// The library that moves a program's clock; `.ci/deps` installs it.
fn faketime() -> Result<String> {
    for entry in std::fs::read_dir("/usr/lib")?.flatten() {
        let library = entry.path().join("faketime/libfaketimeMT.so.1");
        if library.exists() {
            return Ok(library.to_string_lossy().into_owned());
        }
    }
    anyhow::bail!("libfaketime is not installed: run .ci/deps")
}
