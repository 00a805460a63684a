//! The storm: every part killed, stopped and frozen at random, the network doing what networks do, while
//! writers are on. It ends drained and equal, and the invariants I1 to I7 hold on the way.
//!
//! `make storm SEEDS=n MINUTES=m` runs long ones, `make kills N=1000` only kills the platform, again and
//! again; each seed prints one line of figures. A short storm runs with the other tests.

use super::faults::{managed_sender, proxied_with};
use super::{PATIENT, SOON, worker_pid};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use scry_testkit::load::{Load, LoadOptions, Mixed, Outcome, Workload};
use scry_testkit::memory::PeakWatch;
use scry_testkit::program::signal_pid;
use scry_testkit::proxy::{Behaviour, Proxy};
use scry_testkit::{Client, Lab, Pair, PairOptions, Rng, ShadowKind, Shutdown, scenario, wait};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// I3: what the slot may keep of WAL while parts are down for seconds.
const WAL_MAX: u64 = 1 << 30;

/// I6: private memory of stream worker, sender and platform.
const MEMORY_MAX: [u64; 3] = [128 * MIB, 64 * MIB, 256 * MIB];

/// A writer of numbered rows into a table without a key: what is lost is not there, what is doubled is
/// there twice.
struct Counting {
    next: i64,
}

impl Workload for Counting {
    fn transaction(&mut self, client: &mut Client, rng: &mut Rng) -> Result<Outcome, postgres::Error> {
        let rows = 1 + rng.below(5) as i64;
        client.execute(
            "INSERT INTO heard SELECT generate_series($1::int8, $2::int8)",
            &[&self.next, &(self.next + rows - 1)],
        )?;
        self.next += rows;
        Ok(Outcome::Committed)
    }
}

/// What a run came to.
struct Figures {
    strikes: u32,
    commits: u64,
    lost: i64,
    doubled: i64,
    resume: Duration,
    peak_wal: u64,
    memory: [u64; 3],
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [worker, sender, platform] = self.memory.map(|bytes| bytes / MIB);
        write!(
            f,
            "{} strikes, {} commits, lost {}, doubled {}, resumed in {:.1} s, peak WAL {} MiB, private memory: worker \
             {worker} MiB, sender {sender} MiB, platform {platform} MiB",
            self.strikes,
            self.commits,
            self.lost,
            self.doubled,
            self.resume.as_secs_f64(),
            self.peak_wal / MIB,
        )
    }
}

/// Looks at source and shadow all the time: peak WAL, pids, and that the position never goes back.
struct Watch {
    stop: Arc<AtomicBool>,
    peak_wal: Arc<AtomicU64>,
    pids: [Arc<AtomicU32>; 3],
    broken: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(pair: &Pair) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let peak_wal = Arc::new(AtomicU64::new(0));
        let pids: [Arc<AtomicU32>; 3] = std::array::from_fn(|_| Arc::new(AtomicU32::new(0)));
        let broken = Arc::new(Mutex::new(None));
        let (source, shadow) = (
            pair.source.config(&pair.database),
            pair.shadow.as_ref().map(|cluster| cluster.config("shadow")),
        );
        let (stop_in, peak_in, worker, broken_in) =
            (Arc::clone(&stop), Arc::clone(&peak_wal), Arc::clone(&pids[0]), Arc::clone(&broken));
        let thread = std::thread::spawn(move || {
            let mut position = (0_i64, 0_i64);
            while !stop_in.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(200));
                if let Ok(mut client) = source.connect(postgres::NoTls)
                    && let Ok(row) = client.query_one(LOOK_AT_SOURCE, &[])
                {
                    peak_in.fetch_max(row.get::<_, i64>(0).unsigned_abs(), Ordering::Relaxed);
                    worker.store(row.get::<_, i32>(1).unsigned_abs(), Ordering::Relaxed);
                }
                if let Some(shadow) = &shadow
                    && let Ok(mut client) = shadow.connect(postgres::NoTls)
                    && let Ok(Some(row)) = client.query_opt(LOOK_AT_SHADOW, &[])
                {
                    let now: (i64, i64) = (row.get(0), row.get(1));
                    if now.0 == position.0 && now.1 < position.1 {
                        let line = format!("the position went back from {} to {}", position.1, now.1);
                        *broken_in.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
                    }
                    position = now;
                }
            }
        });
        Watch { stop, peak_wal, pids, broken, thread: Some(thread) }
    }

    fn memory(&self) -> [PeakWatch; 3] {
        ["stream worker", "scry_sender", "scry_platform"].map(|name| {
            let number = match name {
                "stream worker" => 0,
                "scry_sender" => 1,
                _ => 2,
            };
            let pid = Arc::clone(&self.pids[number]);
            PeakWatch::start(name, move || Some(pid.load(Ordering::Relaxed)).filter(|pid| *pid > 0))
        })
    }

    fn tell_pids(&self, pair: &Pair) {
        if let Ok(sender) = managed_sender(pair) {
            self.pids[1].store(sender, Ordering::Relaxed);
        }
        self.pids[2].store(pair.platform.program.pid().unwrap_or(0), Ordering::Relaxed);
    }

    fn require_whole(&self) -> Result<()> {
        match self.broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(line) => anyhow::bail!(line),
            None => Ok(()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const LOOK_AT_SOURCE: &str = "SELECT coalesce((SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))::int8 \
    FROM pg_replication_slots), 0), coalesce((SELECT max(pid) FROM pg_stat_activity WHERE backend_type LIKE '%scry%' \
    AND backend_type LIKE '%stream%'), 0)";
const LOOK_AT_SHADOW: &str = "SELECT generation, (applied_lsn - '0/0'::pg_lsn)::int8 FROM scry_shadow.origin WHERE copy_state = 'copied'";

/// A storm of so many seconds.
fn storm(lab: &Lab, duration: Duration) -> Result<Figures> {
    let (mut pair, proxy) = stormy_pair(lab)?;
    let mut rng = lab.rng();
    let (load, count) = writers(lab, &pair)?;
    let watch = Watch::start(&pair);
    let memory = watch.memory();
    let until = Instant::now() + duration;
    let mut strikes = 0;
    while Instant::now() < until {
        watch.tell_pids(&pair);
        std::thread::sleep(Duration::from_millis(1000 + rng.below(4000)));
        strike(&mut pair, &proxy, &mut rng)?;
        strikes += 1;
        load.wait_commits(5, SOON).context("the source stood still")?;
        watch.require_whole()?;
    }
    let figures = end(&mut pair, Some(&proxy), load, count, &watch, &memory)?;
    Ok(Figures { strikes, ..figures })
}

/// A pair whose every part can be struck by itself.
fn stormy_pair(lab: &Lab) -> Result<(Pair, Proxy)> {
    // An external shadow that does not flush by itself: whoever needs it must ask for it.
    let options = PairOptions {
        shadow: ShadowKind::External,
        // Transactions in pieces among the others.
        source_conf: vec!["logical_decoding_work_mem = '64kB'".to_owned()],
        shadow_conf: vec!["synchronous_commit = off".to_owned()],
        ..PairOptions::default()
    };
    let (pair, proxy) = proxied_with(lab, &options)?;
    pair.sql("CREATE TABLE heard(n bigint)")?;
    pair.start_job_with("*", "options => '{\"keyless\": \"inserts_only\"}'")?;
    pair.wait_for_shadow(PATIENT)?;
    Ok((pair, proxy))
}

fn writers(lab: &Lab, pair: &Pair) -> Result<(Load, Load)> {
    let options = LoadOptions { seed: lab.seed, server_may_restart: true, ..LoadOptions::default() };
    let config = pair.source.config(&pair.database);
    let load = Load::start(&config, &options, Mixed::without_truncate)?;
    let one = LoadOptions { writers: 1, pause: Duration::from_millis(3), ..options };
    let count = Load::start(&config, &one, |_| Counting { next: 1 })?;
    load.wait_commits(20, SOON)?;
    Ok((load, count))
}

/// One fault.
fn strike(pair: &mut Pair, proxy: &Proxy, rng: &mut Rng) -> Result<()> {
    let moment = Duration::from_millis(200 + rng.below(1500));
    let number = rng.below(100);
    eprintln!("  strike {number}, moment {moment:?}");
    match number {
        0..=13 => {
            pair.platform.program.kill()?;
            std::thread::sleep(moment / 4);
            pair.platform.start()
        }
        14..=19 => {
            pair.platform.program.stop()?;
            pair.platform.start()
        }
        20..=25 => {
            pair.platform.program.freeze()?;
            std::thread::sleep(moment);
            pair.platform.program.thaw()
        }
        26..=37 => signal_pid(managed_sender(pair)?, Signal::SIGKILL),
        38..=43 => {
            let sender = managed_sender(pair)?;
            signal_pid(sender, Signal::SIGSTOP)?;
            std::thread::sleep(moment);
            signal_pid(sender, Signal::SIGCONT)
        }
        44..=53 => pair.shadow.as_mut().context("no external shadow")?.restart(Shutdown::Immediate),
        54..=65 => {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type LIKE '%scry%'";
            pair.source.psql("postgres", sql).map(drop)
        }
        66..=69 => pair.source.restart(Shutdown::Immediate),
        70..=75 => during(proxy, Behaviour::Reset, moment),
        76..=81 => during(proxy, Behaviour::HalfOpen, moment),
        82..=87 => during(proxy, Behaviour::Blackhole, moment),
        88..=91 => during(proxy, Behaviour::Delay(Duration::from_millis(30)), moment),
        92..=95 => during(proxy, Behaviour::Throttle(64 << 10), moment),
        _ => {
            during(proxy, Behaviour::Corrupt(10), moment)?;
            // A length that has grown is waited for until the connection ends.
            proxy.drop_connections();
            Ok(())
        }
    }
}

fn during(proxy: &Proxy, behaviour: Behaviour, moment: Duration) -> Result<()> {
    proxy.behave(behaviour);
    std::thread::sleep(moment);
    proxy.behave(Behaviour::Pass);
    Ok(())
}

/// The writers stop, all arrives, and is looked at.
fn end(
    pair: &mut Pair,
    proxy: Option<&Proxy>,
    load: Load,
    count: Load,
    watch: &Watch,
    memory: &[PeakWatch; 3],
) -> Result<Figures> {
    if let Some(proxy) = proxy {
        proxy.behave(Behaviour::Pass);
    }
    let start = Instant::now();
    let report = load.stop()?;
    let counted = count.stop()?;
    pair.wait_for_shadow(Duration::from_secs(180))?;
    let resume = start.elapsed();
    watch.require_whole()?;
    let sql = "SELECT count(*), count(DISTINCT n) FROM public.heard";
    let numbers = |client: &mut Client| -> Result<(i64, i64)> {
        let row = client.query_one(sql, &[]).context("count what was heard")?;
        Ok((row.get(0), row.get(1)))
    };
    let (source_rows, source_numbers) = numbers(&mut pair.source_client()?)?;
    let (shadow_rows, shadow_numbers) = numbers(&mut pair.shadow_client()?)?;
    let figures = Figures {
        strikes: 0,
        commits: report.commits + counted.commits,
        lost: source_numbers - shadow_numbers,
        doubled: (shadow_rows - shadow_numbers) - (source_rows - source_numbers),
        resume,
        peak_wal: watch.peak_wal.load(Ordering::Relaxed),
        memory: [0, 1, 2].map(|number| memory[number].peak_bytes()),
    };
    pair.assert_equal().with_context(|| figures.to_string())?;
    ensure!(figures.lost == 0 && figures.doubled == 0, "{figures}");
    ensure!(figures.peak_wal < WAL_MAX, "too much WAL was kept: {figures}");
    for (peak, most) in figures.memory.iter().zip(MEMORY_MAX) {
        ensure!(*peak < most, "too much memory: {figures}");
    }
    ensure!(pair.sql("SELECT count(*) FROM pg_replication_slots")? == "1", "a slot was left behind");
    pair.assert_source_unharmed()?;
    Ok(figures)
}

/// Waits until the platform has confirmed something new: the stream is alive.
fn wait_until_live(pair: &Pair) -> Result<()> {
    let mut client = pair.source_client()?;
    let sql = "SELECT confirmed_flush_lsn::text FROM scry_backfill.status";
    let mut confirmed = move || -> Result<String> { Ok(client.query_one(sql, &[])?.get(0)) };
    let before = confirmed()?;
    wait::until_true("the stream to go on", SOON, || Ok(confirmed()? != before))
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.trim().parse().ok()).unwrap_or(default)
}

#[test]
fn a_short_storm_passes() {
    scenario("short_storm", |lab| {
        let figures = storm(lab, Duration::from_secs(12))?;
        eprintln!("seed {}: {figures}", lab.seed);
        Ok(())
    });
}

#[test]
#[ignore = "a storm of minutes: make storm SEEDS=n MINUTES=m"]
fn a_storm_passes() {
    let minutes: f64 = std::env::var("SCRY_STORM_MINUTES").ok().and_then(|m| m.parse().ok()).unwrap_or(1.0);
    let (first, count) = (Rng::seed_from_env(), setting("SCRY_STORM_SEEDS", 3));
    let mut failed = Vec::new();
    for seed in first..first + count {
        let run = || -> Result<Figures> {
            let mut lab = Lab::new(&format!("storm_{seed}"))?;
            lab.seed = seed;
            storm(&lab, Duration::from_secs_f64(minutes * 60.0)).inspect_err(|_| lab.print_logs())
        };
        match run() {
            Ok(figures) => println!("seed {seed}: {figures}"),
            Err(error) => {
                println!("seed {seed}: FAILED: {error:#}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "seeds that failed: {failed:?}; SCRY_SEED=N SCRY_STORM_SEEDS=1 replays one");
}

#[test]
#[ignore = "a thousand kills take half an hour: make kills N=1000"]
fn kills_of_the_platform_lose_and_double_nothing() {
    scenario("kills", |lab| {
        let kills = setting("SCRY_KILLS", 1000);
        let (mut pair, proxy) = stormy_pair(lab)?;
        let mut rng = lab.rng();
        let (load, count) = writers(lab, &pair)?;
        let watch = Watch::start(&pair);
        let memory = watch.memory();
        let start = Instant::now();
        for kill in 1..=kills {
            watch.tell_pids(&pair);
            wait_until_live(&pair)?;
            std::thread::sleep(Duration::from_millis(rng.below(600)));
            pair.platform.program.kill()?;
            pair.platform.start()?;
            watch.require_whole()?;
            if kill % 50 == 0 {
                eprintln!("{kill} kills in {:.0} s", start.elapsed().as_secs_f64());
            }
        }
        let figures = end(&mut pair, Some(&proxy), load, count, &watch, &memory)?;
        println!("seed {}: {kills} kills: {figures}", lab.seed);
        wait::until_true("the stream to go on", SOON, || Ok(worker_pid(&pair, "stream").is_ok()))
    });
}
