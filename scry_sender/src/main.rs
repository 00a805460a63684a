//! `scry_sender --config FILE`: reads the command line, starts the log, runs.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use scry_sender::config::{Config, LogConfig, LogFormat};
use scry_sender::serve;
use tokio::runtime::Builder;
use tracing_subscriber::EnvFilter;

/// Threads for copies; streams have one of their own. More would take processors from the database
/// beside it.
const COPY_THREADS: usize = 2;
/// Threads that resolve names.
const BLOCKING_THREADS: usize = 4;

/// The sidecar of scry-backfill: takes frames from the workers inside
/// PostgreSQL on a Unix socket and streams them over HTTP/2 to scry_platform.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Every key of the file can be set by the environment: SCRY_BACKFILL_SECTION__KEY,
as SCRY_BACKFILL_PLATFORM__ENDPOINT. SIGHUP rereads the file, SIGTERM stops."
)]
struct Args {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scry_sender: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    // Whatever is created is ours alone, from its first moment.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let streams = Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let copies = Builder::new_multi_thread()
        .worker_threads(COPY_THREADS)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("could not start the runtime of copies")?;
    let signals = {
        let _inside = streams.enter();
        serve::Signals::watch()?
    };
    let config = Config::load(&args.config)?;
    start_log(&config.log)?;
    for section in Config::unknown_sections(&args.config) {
        tracing::warn!(section, "section of the configuration file is not for scry_sender");
    }
    let result = streams.block_on(serve::run(&args.config, config, signals, copies.handle().clone()));
    copies.shutdown_background();
    streams.shutdown_background();
    result
}

fn start_log(log: &LogConfig) -> Result<()> {
    let filter = EnvFilter::try_new(&log.level).with_context(|| {
        format!("[log] level \"{}\" is not a filter: write a level as \"info\"", log.level)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
    Ok(())
}
