//! `scry_poke SOCKET`: sends its standard input to a Unix socket and prints
//! what comes back. A peer of the right user with anything to say: the tests
//! run it as the clusters' user.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scry_poke: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> std::io::Result<()> {
    let path = std::env::args_os().nth(1).unwrap_or_default();
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    // The other side may close before it has read all: that is an answer too.
    let _ = stream.write_all(&input);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    std::io::stdout().write_all(&answer)?;
    match end {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}
