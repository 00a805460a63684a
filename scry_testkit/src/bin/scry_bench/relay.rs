//! What two more processes on the way cost when they do nothing but pass bytes on.
//!
//! ```text
//!   walsender ◄─► relay ◄─► relay ◄─► apply worker      (Unix sockets)
//! ```
//!
//! On our way stand sender and platform; this is the least that such a way takes on a machine.

use anyhow::{Context, Result};
use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// A process that relays; ends with this.
pub struct Relay {
    child: Child,
}

impl Relay {
    /// From a socket that it makes to one that is there.
    pub fn start(listen: &Path, onward: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let child = command.arg("relay").args([listen, onward]).spawn().context("start a relay")?;
        Ok(Relay { child })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `scry_bench relay LISTEN ONWARD`: what the process does.
pub fn serve(mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut path = || arguments.next().map(PathBuf::from).context("relay: LISTEN and ONWARD are sockets");
    let (listen, onward) = (path()?, path()?);
    let listener = UnixListener::bind(&listen).with_context(|| format!("listen at {}", listen.display()))?;
    // The server that connects is another user's.
    std::fs::set_permissions(&listen, Permissions::from_mode(0o777))?;
    loop {
        let (here, _) = listener.accept()?;
        let there =
            UnixStream::connect(&onward).with_context(|| format!("connect to {}", onward.display()))?;
        for (from, to) in [(here.try_clone()?, there.try_clone()?), (there, here)] {
            std::thread::spawn(move || pass_on(from, to));
        }
    }
}

fn pass_on(mut from: UnixStream, mut to: UnixStream) {
    let mut bytes = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let Some(read) = bytes.get(..count) else { break };
        if to.write_all(read).is_err() {
            break;
        }
    }
    // The other direction ends as well.
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}
