//! The writers' threads: run a workload, count, measure, connect again.

use crate::rng::Rng;
use anyhow::{Context, Result, bail};
use postgres::error::SqlState;
use postgres::{Client, Config, NoTls};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a transaction of a workload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Committed.
    Committed,
    /// Rolled back on purpose.
    RolledBack,
}

/// One writer's work.
pub trait Workload: Send {
    /// Runs one whole transaction.
    fn transaction(&mut self, client: &mut Client, rng: &mut Rng) -> Result<Outcome, postgres::Error>;
}

/// How a load is run.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Number of writers.
    pub writers: u64,
    /// What all choices follow from.
    pub seed: u64,
    /// Pause of a writer after each transaction.
    pub pause: Duration,
    /// Whether the server may go away: then a lost connection is made anew.
    pub server_may_restart: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { writers: 2, seed: 1, pause: Duration::from_millis(1), server_may_restart: false }
    }
}

/// What a load did.
#[derive(Debug, Clone, Default)]
pub struct LoadReport {
    /// Transactions committed and confirmed.
    pub commits: u64,
    /// Rolled back on purpose or because of a conflict between writers.
    pub rollbacks: u64,
    /// Connections lost and made again.
    pub reconnects: u64,
    /// Milliseconds of the transactions' durations: median, 99th percentile, longest.
    pub p50_ms: f64,
    /// See `p50_ms`.
    pub p99_ms: f64,
    /// See `p50_ms`.
    pub max_ms: f64,
    /// How long the load ran.
    pub seconds: f64,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} commits, {} rollbacks, {} reconnects in {:.1} s ({:.0}/s); p50 {:.2} ms, p99 {:.2} ms, max {:.1} ms",
            self.commits,
            self.rollbacks,
            self.reconnects,
            self.seconds,
            self.commits as f64 / self.seconds.max(0.001),
            self.p50_ms,
            self.p99_ms,
            self.max_ms
        )
    }
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    rollbacks: AtomicU64,
    reconnects: AtomicU64,
    stop: AtomicBool,
    /// Why a writer ended, for who waits for its commits.
    failure: Mutex<String>,
}

impl Counters {
    fn failure(&self) -> String {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A running load; stops when dropped.
#[derive(Debug)]
pub struct Load {
    counters: Arc<Counters>,
    writers: Vec<JoinHandle<Result<Vec<u32>>>>,
    started: Instant,
}

impl Load {
    /// Starts the writers; `workload` makes each one's work from its number.
    pub fn start<W: Workload + 'static>(
        config: &Config,
        options: &LoadOptions,
        workload: impl Fn(u64) -> W,
    ) -> Result<Load> {
        let counters = Arc::new(Counters::default());
        let mut load = Load { counters: Arc::clone(&counters), writers: Vec::new(), started: Instant::now() };
        for number in 0..options.writers {
            let writer = Writer {
                config: config.clone(),
                options: options.clone(),
                rng: Rng::new(options.seed).fork(number + 1),
                counters: Arc::clone(&counters),
                durations_us: Vec::new(),
            };
            let work = workload(number);
            let thread = std::thread::Builder::new().name(format!("writer {number}"));
            let counters = Arc::clone(&counters);
            let run = move || {
                let result = writer.run(work);
                if let Err(error) = &result {
                    *counters.failure.lock().unwrap_or_else(PoisonError::into_inner) = format!("{error:#}");
                }
                result
            };
            load.writers.push(thread.spawn(run).context("start a writer")?);
        }
        Ok(load)
    }

    /// Commits so far.
    pub fn commits(&self) -> u64 {
        self.counters.commits.load(Ordering::Relaxed)
    }

    /// Waits until `count` more transactions are committed: that is, until the
    /// load is really under way.
    pub fn wait_commits(&self, count: u64, timeout: Duration) -> Result<()> {
        let goal = self.commits() + count;
        crate::wait::until_true("the load to commit", timeout, || {
            if self.writers.iter().any(JoinHandle::is_finished) {
                bail!("a writer ended early: {}", self.counters.failure());
            }
            Ok(self.commits() >= goal)
        })
    }

    /// Stops the writers and says what they did; fails if one of them failed.
    pub fn stop(mut self) -> Result<LoadReport> {
        self.counters.stop.store(true, Ordering::Relaxed);
        let mut durations = Vec::new();
        for writer in self.writers.drain(..) {
            match writer.join() {
                Ok(result) => durations.extend(result?),
                Err(_) => bail!("a writer panicked"),
            }
        }
        durations.sort_unstable();
        let at = |share: f64| {
            let index = ((durations.len() as f64 * share) as usize).min(durations.len().saturating_sub(1));
            durations.get(index).map_or(0.0, |us| f64::from(*us) / 1000.0)
        };
        Ok(LoadReport {
            commits: self.commits(),
            rollbacks: self.counters.rollbacks.load(Ordering::Relaxed),
            reconnects: self.counters.reconnects.load(Ordering::Relaxed),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            max_ms: at(1.0),
            seconds: self.started.elapsed().as_secs_f64(),
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.counters.stop.store(true, Ordering::Relaxed);
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
    }
}

struct Writer {
    config: Config,
    options: LoadOptions,
    rng: Rng,
    counters: Arc<Counters>,
    durations_us: Vec<u32>,
}

impl Writer {
    fn run<W: Workload>(mut self, mut work: W) -> Result<Vec<u32>> {
        let mut client = self.connect()?;
        while !self.stopped() {
            let start = Instant::now();
            match work.transaction(&mut client, &mut self.rng) {
                Ok(Outcome::Committed) => self.count(&self.counters.commits),
                Ok(Outcome::RolledBack) => self.count(&self.counters.rollbacks),
                Err(error) if is_conflict(&error) => {
                    self.count(&self.counters.rollbacks);
                    match client.batch_execute("ROLLBACK") {
                        Ok(()) => {}
                        Err(error) if self.options.server_may_restart && is_lost(&error, &client) => {
                            self.count(&self.counters.reconnects);
                            client = self.connect()?;
                        }
                        Err(error) => return Err(error).context("roll back after a conflict"),
                    }
                }
                Err(error) if self.options.server_may_restart && is_lost(&error, &client) => {
                    self.count(&self.counters.reconnects);
                    client = self.connect()?;
                    continue;
                }
                Err(error) => return Err(error).context("a statement of the load failed on the source"),
            }
            self.durations_us.push(start.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
            if !self.options.pause.is_zero() {
                std::thread::sleep(self.options.pause);
            }
        }
        Ok(self.durations_us)
    }

    /// Connects; keeps trying if the server may be away, until the stop.
    fn connect(&self) -> Result<Client> {
        loop {
            match self.config.connect(NoTls) {
                Ok(client) => return Ok(client),
                Err(error) if !self.options.server_may_restart || self.stopped() => {
                    return Err(error).context("connect a writer");
                }
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn stopped(&self) -> bool {
        self.counters.stop.load(Ordering::Relaxed)
    }

    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether two writers only got into each other's way.
fn is_conflict(error: &postgres::Error) -> bool {
    let conflicts = [
        SqlState::UNIQUE_VIOLATION,
        SqlState::FOREIGN_KEY_VIOLATION,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
    ];
    error.code().is_some_and(|code| conflicts.contains(code))
}

fn is_lost(error: &postgres::Error, client: &Client) -> bool {
    let shutdown = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW];
    client.is_closed() || error.is_closed() || error.code().is_none_or(|code| shutdown.contains(code))
}
