//! The threads that connections live on.
//!
//! ```text
//! accept ─► the lane with the fewest connections: a thread, a runtime of its own
//!               └─ HTTP/2, frames, journal, applier, the driver's sessions: tasks of that one thread
//! ```
//!
//! A change passes through half a dozen tasks on its way to the shadow. On one thread each of them
//! finds the next one's work in its queue; between threads each would have to wake the next, which
//! costs more than the work itself where changes come one by one (decision 28).
//! Invariant: a connection, and what it spawns, stays on its lane.
//! What it does not do: it moves no connection from a busy lane to an idle one.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// The lanes; their threads end when this is dropped.
#[must_use]
pub struct Lanes {
    lanes: Vec<Lane>,
}

struct Lane {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// The thread ends when its sender does.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A connection's place on a lane.
pub(super) struct OnLane {
    connections: Arc<AtomicUsize>,
}

impl Lanes {
    /// One for each processor, two at least: a stream beside a copy.
    ///
    /// # Errors
    /// No thread or no runtime can be made.
    pub(super) fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(LANES_MIN, NonZero::get).max(LANES_MIN);
        let lanes = (0..count).map(Lane::start).collect::<io::Result<_>>()?;
        Ok(Lanes { lanes })
    }

    /// Where the next connection goes.
    pub(super) fn take(&self) -> Option<(Handle, OnLane)> {
        let fewest = self.lanes.iter().min_by_key(|lane| lane.connections.load(Ordering::Relaxed))?;
        fewest.connections.fetch_add(1, Ordering::Relaxed);
        Some((fewest.handle.clone(), OnLane { connections: fewest.connections.clone() }))
    }
}

impl Lane {
    fn start(number: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let run = move || {
            let _ = runtime.block_on(ended);
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        };
        let thread = std::thread::Builder::new().name(format!("lane-{number}")).spawn(run)?;
        Ok(Lane { handle, connections: Arc::default(), end: Some(end), thread: Some(thread) })
    }
}

impl Drop for OnLane {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.lanes.iter_mut().for_each(|lane| drop(lane.end.take()));
        for thread in self.lanes.iter_mut().filter_map(|lane| lane.thread.take()) {
            // It has panicked at the worst; its tasks are gone either way.
            let _ = thread.join();
        }
    }
}

const LANES_MIN: usize = 2;
/// For what blocks to come to its end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
