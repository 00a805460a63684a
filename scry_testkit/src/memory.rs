//! Private memory of a process, from /proc: what the memory bounds are
//! checked against. `RssAnon` leaves out shared buffers and mapped files,
//! which a background worker shares with the whole server.

use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Private resident bytes of process `pid` (its `RssAnon`).
pub fn private_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .with_context(|| format!("no RssAnon in {path}"))
}

/// Watches a process and keeps the largest private memory seen.
#[derive(Debug)]
pub struct PeakWatch {
    /// What is watched, for the report.
    pub name: String,
    peak: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl PeakWatch {
    /// Starts to sample; `pid` is asked anew each time, so that a restarted
    /// process stays watched.
    pub fn start(name: &str, pid: impl Fn() -> Option<u32> + Send + 'static) -> PeakWatch {
        let peak = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (peak_in, stop_in) = (Arc::clone(&peak), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stop_in.load(Ordering::Relaxed) {
                if let Some(bytes) = pid().and_then(|pid| private_bytes(pid).ok()) {
                    peak_in.fetch_max(bytes, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        PeakWatch { name: name.to_owned(), peak, stop, thread: Some(thread) }
    }

    /// The largest value so far, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for PeakWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::private_bytes;

    #[test]
    fn own_memory_is_more_than_nothing() {
        assert!(private_bytes(std::process::id()).unwrap() > 10_000);
    }
}
