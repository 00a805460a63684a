//! Polling with a deadline: tests wait for states, never for a fixed time.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a state is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Calls `probe` until it gives a value; an error of `probe` counts as "not
/// yet" and stands in the message when time is up.
pub fn until<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= timeout {
            match last {
                Some(error) => bail!("gave up waiting for {what} after {timeout:?}: {error:#}"),
                None => bail!("gave up waiting for {what} after {timeout:?}"),
            }
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Calls `probe` until it says true.
pub fn until_true(what: &str, timeout: Duration, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, timeout, || Ok(probe()?.then_some(())))
}
