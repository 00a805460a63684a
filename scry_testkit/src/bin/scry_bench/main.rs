//! The measurements of `make bench`; each prints its figures as a table.
//!
//! ```text
//!   scry_bench latency   what a source's clients notice of a job
//!   scry_bench decode    decoding in the server beside pg_recvlogical
//!   scry_bench adaptive  pgbench beside a copy that gives way, and one that does not
//!   scry_bench verify    the hash of a table beside a count of its rows
//!   scry_bench follow    a backlog into the shadow, beside PostgreSQL's own subscription
//!   scry_bench copy      the first copy, beside the same, pgcopydb, Debezium and plain COPY
//!   scry_bench small     the first copy of thousands of small tables, beside the subscription
//!   scry_bench grow      copying and following ten times as much
//!   scry_bench lag       commit on the source to visible on the shadow, beside the subscription
//!   scry_bench throughput  pgbench at full speed while it is followed, beside the same
//!   scry_bench stall     pgbench while the platform is stopped, and the WAL that is kept
//! ```

mod adaptive;
mod clusters;
mod copy;
mod debezium;
mod decode;
mod follow;
mod lag;
mod latency;
mod measure;
mod race;
mod relay;
mod stall;
mod verify;
mod workload;

use anyhow::{Result, bail};
use clusters::{Bench, Tables};
use scry_testkit::Lab;
use std::process::ExitCode;

fn main() -> ExitCode {
    let which = std::env::args().nth(1).unwrap_or_default();
    match run(&which) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scry_bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(which: &str) -> Result<()> {
    match which {
        "latency" => latency::run(&Lab::new("latency")?),
        "decode" => decode::run(&Lab::new("decode")?),
        "adaptive" => adaptive::run(&Lab::new("adaptive")?),
        "verify" => verify::run(&Lab::new("verify")?),
        "follow" => follow::run(&Lab::new("follow")?),
        "copy" => copy::run(&Lab::new("copy")?),
        "small" => copy::small(&Lab::new("small")?),
        "grow" => copy::grow(&Lab::new("grow")?).and_then(|()| follow::grow(&Lab::new("grow")?)),
        "lag" => {
            let lab = Lab::new("lag")?;
            lag::run(&lab, &Bench::new(&lab, Tables::Spread)?)
        }
        "throughput" => lag::throughput(&Bench::new(&Lab::new("throughput")?, Tables::Spread)?),
        // A part of `lag`, in a process of its own.
        "relay" => relay::serve(std::env::args().skip(2)),
        "stall" => stall::run(&Lab::new("stall")?),
        _ => bail!("there is no such measurement; bench/README.md names them"),
    }
}

/// A number from the environment, for short trials.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(default)
}
