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
mod exit_code;
mod generate;
mod help;
mod home;
mod output;
mod redacted_arg;
mod signals;
mod stdin;
mod suggestions;
mod systemd;
mod usage_error;

use std::process;

fn main() -> process::ExitCode {
    signals::survive_file_size_limit();
    let cli = match cli::Cli::read() {
        Ok(cli) => cli,
        Err(error) => return usage_error::report(&error),
    };
    let code = match cli.run() {
        Ok(code) => code,
        Err(failure) => {
            output::stderr::report(&failure);
            failure.code
        }
    };
    signals::end_by_signal(code);
    code.into()
}
