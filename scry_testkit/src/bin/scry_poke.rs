//! `scry_poke SOCKET SECONDS`: sends its standard input to a Unix socket and
//! prints what comes back until the other side closes, which it must within so
//! many seconds. A peer of the right user with anything to say: the tests run it
//! as the clusters' user.

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
    let seconds = std::env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(20);
    stream.set_read_timeout(Some(Duration::from_secs(seconds)))?;
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    // The other side may close before it has read all: that is an answer too.
    let _ = stream.write_all(&input);
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    std::io::stdout().write_all(&answer)?;
    match end {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    }
}
