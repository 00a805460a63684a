//! Who may speak for a shadow: one stream, one leader, many copiers.
//!
//! ```text
//! old holder ── cancelled ──► ends its session ──► guard dropped ──┐
//! new holder ── take() ─────────── waits ──────────────────────────┴► holds
//! ```
//!
//! Invariant: a guard is handed out only after every guard before it is gone,
//! so two streams never write to one shadow at the same time.

use crate::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// A role that one connection holds at a time; the newest wins.
#[derive(Debug)]
pub struct Lease {
    seat: Arc<Semaphore>,
    holder: Mutex<CancellationToken>,
}

/// Holds a lease or one of a pool's seats.
#[derive(Debug)]
pub struct Guard {
    /// Cancelled when somebody else wants the seat.
    pub replaced: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Default for Lease {
    fn default() -> Self {
        Lease { seat: Arc::new(Semaphore::new(1)), holder: Mutex::new(CancellationToken::new()) }
    }
}

impl Lease {
    /// Tells the holder to go, waits until it has, and takes its place.
    ///
    /// # Errors
    /// Someone newer came while this one waited.
    pub async fn take(&self) -> Result<Guard> {
        let token = CancellationToken::new();
        replace(&self.holder, token.clone());
        let permit = self.seat.clone().acquire_owned().await.map_err(|_| Error::Stopping)?;
        if token.is_cancelled() {
            return Err(Error::Busy("another connection of this job has taken over".to_owned()));
        }
        Ok(Guard { replaced: token, _permit: permit })
    }
}

/// A role that a bounded number of connections hold together.
#[derive(Debug)]
pub struct Pool {
    seats: Arc<Semaphore>,
    size: u32,
    epoch: Mutex<CancellationToken>,
}

impl Pool {
    /// A pool of `size` seats.
    #[must_use]
    pub fn new(size: u32) -> Self {
        Pool {
            seats: Arc::new(Semaphore::new(size as usize)),
            size,
            epoch: Mutex::new(CancellationToken::new()),
        }
    }

    /// Takes a seat; waits while all are taken or held back.
    pub async fn join(&self) -> Result<Guard> {
        let permit = self.seats.clone().acquire_owned().await.map_err(|_| Error::Stopping)?;
        let replaced = self.epoch.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Guard { replaced, _permit: permit })
    }

    /// Tells everybody to go, waits until they have, and holds all seats.
    pub async fn clear(&self) -> Result<Guard> {
        let all = self.seats.clone().acquire_many_owned(self.size);
        tokio::pin!(all);
        loop {
            replace(&self.epoch, CancellationToken::new());
            // Again and again: who stood in the queue before us joins after we called.
            if let Ok(permit) = tokio::time::timeout(CALL_AGAIN, &mut all).await {
                let permit = permit.map_err(|_| Error::Stopping)?;
                return Ok(Guard { replaced: CancellationToken::new(), _permit: permit });
            }
        }
    }
}

const CALL_AGAIN: Duration = Duration::from_millis(200);

fn replace(place: &Mutex<CancellationToken>, token: CancellationToken) {
    let mut held = place.lock().unwrap_or_else(PoisonError::into_inner);
    std::mem::replace(&mut *held, token).cancel();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn newest_holder_waits_for_the_old_one_to_go() {
        let lease = Arc::new(Lease::default());
        let old = lease.take().await.unwrap();
        let waiting = tokio::spawn({
            let lease = lease.clone();
            async move { lease.take().await }
        });
        old.replaced.cancelled().await;
        assert!(!waiting.is_finished());
        drop(old);
        assert!(waiting.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn clearing_a_pool_tells_everybody() {
        let pool = Arc::new(Pool::new(2));
        let (a, b) = (pool.join().await.unwrap(), pool.join().await.unwrap());
        let clearing = tokio::spawn({
            let pool = pool.clone();
            async move { pool.clear().await.map(drop) }
        });
        a.replaced.cancelled().await;
        b.replaced.cancelled().await;
        drop((a, b));
        clearing.await.unwrap().unwrap();
        assert!(!pool.join().await.unwrap().replaced.is_cancelled());
    }
}
