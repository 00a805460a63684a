//! The program: its command line and its exit status.

use clap::Parser;
use scry_platform::config::{Cli, Command};
use scry_platform::shadow::{Files, embedded, server};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => scry_platform::serve::run(&args),
        Command::ShadowUrl(args) => {
            embedded::shadow_url(&Files::new(&args.data_dir)).map(|url| println!("{url}"))
        }
        Command::ShadowExec(args) => Err(server::become_server(args.parent, &args.command)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("scry_platform: {}", line.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}
