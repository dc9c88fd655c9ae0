//! The `myapp` program: parses the command line, starts the log, runs a command, exits.

#![warn(unreachable_pub)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod cli;
mod commands;
mod exit;
mod generate;
mod habits;
mod input;
mod output;
mod secret;
mod signals;
mod systemd;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::Cli::read() {
        Ok(cli) => cli,
        Err(error) => return output::terminal::report_usage(&error),
    };
    match cli.run() {
        Ok(code) => code.into(),
        Err(failure) => {
            output::terminal::report(&failure);
            failure.code.into()
        }
    }
}
