//! The `myapp` program: parses the command line, starts the log, runs a command, exits.

mod cli;
mod commands;
mod exit;
mod input;
mod output;
mod signals;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(code) => code.into(),
        Err(failure) => {
            output::terminal::report(&failure);
            failure.code.into()
        }
    }
}
