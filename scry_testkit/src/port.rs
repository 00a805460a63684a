//! TCP ports on 127.0.0.1 that stay reserved while a test runs, also while the
//! server that uses them is down.
//!
//! A port is reserved by a lock on a file named after it, so two test
//! processes never choose the same one; the kernel drops the lock when the
//! owner ends, however it ends. The range lies below the kernel's ephemeral
//! ports, so no outgoing connection takes a port in between. Whoever else
//! listens there is found by a trial bind.

use crate::lab;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::net::TcpListener;

const FIRST: u16 = 20_011;
const LAST: u16 = 29_999;

/// A reserved port; free again when dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves a port nobody listens on.
    pub fn reserve() -> Result<Port> {
        let dir = lab::base_dir()?.join("ports");
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        // Start at a place of one's own: two processes starting together
        // would otherwise walk over the same locks.
        let span = LAST - FIRST;
        let start = (std::process::id() % u32::from(span)) as u16;
        for step in 0..span {
            let number = FIRST + (start + step) % span;
            let path = dir.join(number.to_string());
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
                .with_context(|| format!("open {}", path.display()))?;
            if lock.try_lock().is_err() || TcpListener::bind(("127.0.0.1", number)).is_err() {
                continue;
            }
            return Ok(Port { number, _lock: lock });
        }
        bail!("no free port between {FIRST} and {LAST}")
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::Port;

    #[test]
    fn a_reserved_port_is_not_given_twice() {
        let ports: Vec<Port> = (0..20).map(|_| Port::reserve().unwrap()).collect();
        let mut numbers: Vec<u16> = ports.iter().map(Port::number).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
    }
}
