//! The command line as a whole: the commands and the options that all of them share.

use std::env;
use std::path::PathBuf;

use crate::commands::{cat, download, echo, serve, start_runtime};
use crate::exit_code::{CommandError, ExitCode};
use crate::generate::{self, Generated};
use crate::output::log::{Log, LogOptions};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

/// Echo server, echo client, parallel downloader and parallel cat.
#[derive(Debug, Parser)]
#[command(
    name = "myapp",
    version,
    max_term_width = 100,
    args_override_self = true
)]
#[command(
    arg_required_else_help = true,
    override_usage = "myapp <COMMAND> [OPTIONS] [ARGUMENT]..."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Write the manual page or the completions of a shell to stdout
    #[arg(long, value_enum, hide = true, value_name = "WHAT")]
    generate: Option<Generated>,
}

#[derive(Debug, Subcommand)]
// Only the options of the requested command are built: all of them would be a sixth of the
// instructions of a start. They are built last, so a doc comment on a flattened struct of options
// would take the place of the command's own help.
#[command(defer = true)]
#[allow(clippy::large_enum_variant, reason = "there is one of them in a run")]
enum Command {
    /// Run an echo server
    Serve(WithVerbose<serve::Options>),
    /// Send messages to an echo server and print its replies
    Echo(WithVerbose<echo::Options>),
    /// Download many files with limited concurrency
    Download(WithVerbose<download::Options>),
    /// Read files concurrently and write them in order
    Cat(cat::Options),
    /// Write the completions of a shell to stdout
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a manual page per command into DIR
    Man {
        /// The folder, which is created if it is missing
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

// A command's options and `-v`, which in `cat` means what it means everywhere. (No doc comment:
// clap would show it as the command's help.)
#[derive(Debug, Args)]
struct WithVerbose<T: Args> {
    #[command(flatten)]
    options: T,
    /// Increase verbosity; repeat for more
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Logging")]
    verbose: u8,
    #[command(flatten)]
    log: LogOptions,
}

impl Cli {
    /// Reads the command line. That of a plain `cat` is read without clap, which would take
    /// longer than all else at such a start, and a quarter of the time of thousands of small files.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        if let Some(options) = cat::Options::from_plain_args(env::args_os().skip(1)) {
            return Ok(Self {
                command: Some(Command::Cat(options)),
                generate: None,
            });
        }
        if env::args_os()
            .nth(1)
            .is_some_and(|command| command == "cat")
        {
            return Self::try_parse_from(cat::expand_long_options(env::args_os())?);
        }
        Self::try_parse()
    }

    /// Runs the command to its end.
    pub(crate) fn run(self) -> Result<ExitCode, CommandError> {
        if let Some(what) = self.generate {
            return what.write(Self::command());
        }
        match self
            .command
            .ok_or_else(|| CommandError::usage("no command is given"))?
        {
            // Before the log starts its thread: preallocation is faster in a single-threaded process.
            Command::Serve(c) => {
                let setup = serve::set_up(&c.options);
                start_runtime()?;
                serve::run(c.options, setup, &Log::start(&c.log, c.verbose)?)
            }
            Command::Echo(c) => {
                let room = c.options.raise_fd_limit();
                start_runtime()?;
                echo::run(c.options, room, &Log::start(&c.log, c.verbose)?)
            }
            Command::Download(c) => {
                download::raise_fd_limit();
                start_runtime()?;
                download::run(c.options, &Log::start(&c.log, c.verbose)?)
            }
            Command::Cat(options) => cat::run(options),
            Command::Completions { shell } => generate::completions(shell, Self::command()),
            Command::Man { folder } => generate::manual_pages(&folder, Self::command()),
        }
    }
}
