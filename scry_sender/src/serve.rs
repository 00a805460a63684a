//! The program: accepts workers, rereads its configuration, stops.
//!
//! Invariants: signals are watched before the configuration is read, so that a
//! reload is never missed; on SIGHUP a configuration that is not valid changes
//! nothing; on SIGTERM every worker is told, and the program ends within
//! [`STOP_MAX`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Config, PlatformConfig};
use crate::intake::Listener;
use crate::metrics;
use crate::queue::Budget;
use crate::relay::{Shared, serve};
use crate::stream::Pool;
use crate::throttle::Throttle;

/// For all workers to take their refusal.
const STOP_MAX: Duration = Duration::from_secs(5);

/// The signals that the program listens to.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Watches from here on: before the configuration is read, or a reload of
    /// what has just been read would be missed. Call inside the runtime.
    pub fn watch() -> Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate()).context("could not watch for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("could not watch for SIGINT")?,
            hang_up: signal(SignalKind::hangup()).context("could not watch for SIGHUP")?,
        })
    }
}

/// The program's parts while it runs.
struct Running {
    file: PathBuf,
    config: Config,
    platform: watch::Sender<Arc<PlatformConfig>>,
    shared: Arc<Shared>,
}

/// Serves until a signal asks to stop.
///
/// Streams run on this runtime, `copies` on theirs.
pub async fn run(file: &Path, config: Config, mut signals: Signals, copies: Handle) -> Result<()> {
    scry_failpoint::watch();
    if let Some(listen) = config.metrics_listen {
        metrics::serve(listen)?;
    }
    let listener = Listener::bind(&config.socket)?;
    let (stop, stop_seen) = watch::channel(false);
    let mut running = Running::new(file, config, stop_seen, copies);
    let places = Arc::new(Semaphore::new(running.config.limits.max_connections));
    let mut connections = JoinSet::new();
    tracing::info!(
        socket = %running.config.socket.path.display(),
        endpoint = %running.config.platform.endpoint,
        version = env!("CARGO_PKG_VERSION"),
        "scry_sender is ready"
    );
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hang_up.recv() => running.reload(),
            socket = listener.accept() => {
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    metrics::turned_away("connections");
                    tracing::warn!(
                        max_connections = running.config.limits.max_connections,
                        "connection refused: too many connections"
                    );
                    continue;
                };
                let shared = Arc::clone(&running.shared);
                connections.spawn(async move {
                    serve(socket, shared).await;
                    drop(place);
                });
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "connection ended by an error of the program");
                }
            }
        }
    }
    tracing::info!("stopping");
    drop(listener);
    stop.send_replace(true);
    let all_told = timeout(STOP_MAX, async { while connections.join_next().await.is_some() {} }).await;
    if all_told.is_err() {
        tracing::warn!(left = connections.len(), "stopped before all workers took notice");
    }
    Ok(())
}

impl Running {
    fn new(file: &Path, config: Config, stop: watch::Receiver<bool>, copies: Handle) -> Self {
        let (platform, platform_seen) = watch::channel(Arc::new(config.platform.clone()));
        let limits = &config.limits;
        let shared = Arc::new(Shared {
            pool: Pool::new(platform_seen, limits.copy_connections),
            throttle: Throttle::new(&config.rate_limit),
            budget: Budget::new(limits.queue_bytes, limits.max_connections, limits.connection_queue_bytes),
            stop,
            copies,
        });
        Running { file: file.to_owned(), config, platform, shared }
    }

    /// Rereads the configuration. Rates change at once, the endpoint and its
    /// files for new connections; the rest needs a restart, which is said.
    fn reload(&mut self) {
        let new = match Config::load(&self.file) {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "configuration not changed: the file is not valid"
                );
                return;
            }
        };
        for section in self.config.needs_restart(&new) {
            tracing::warn!(section, "changed setting needs a restart of scry_sender");
        }
        self.shared.throttle.set(&new.rate_limit);
        self.platform.send_replace(Arc::new(new.platform.clone()));
        self.shared.pool.retire();
        self.config.rate_limit = new.rate_limit;
        self.config.platform = new.platform;
        tracing::info!("configuration reread");
    }
}
