//! The command line as a whole: the commands and the options that all of them share.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::commands::{cat, download, echo, serve, start_runtime};
use crate::exit_code::{CommandError, ExitCode};
use crate::generate::{self, Generated};
use crate::output::log::{LineStyle, Log, LogOptions};
use crate::output::style;
use clap::error::ContextValue;
use clap::{Args, ColorChoice, CommandFactory, Parser, Subcommand, ValueEnum as _};
use clap_complete::Shell;

/// Echo server, echo client, parallel downloader and parallel cat.
#[derive(Debug, Parser)]
#[command(
    name = "myapp",
    version,
    propagate_version = true,
    max_term_width = 100,
    args_override_self = true
)]
#[command(
    arg_required_else_help = true,
    override_usage = "myapp <COMMAND> [OPTIONS] [ARGUMENT]...",
    after_long_help = include_str!("help.txt")
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Colors: auto (on a terminal, without NO_COLOR), always, never
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto)]
    #[arg(value_name = "WHEN", hide_possible_values = true)]
    color: ColorChoice,
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
    #[command(after_long_help = include_str!("generate/completions.txt"))]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write a manual page per command into DIR
    #[command(after_long_help = include_str!("generate/man.txt"))]
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
    /// Parses the command line. That of a plain `cat` is read without clap, which would take
    /// longer than all else at such a start, and a quarter of the time of thousands of small files.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        if let Some(options) = cat::Options::from_plain_args(env::args_os().skip(1)) {
            return Ok(Self {
                command: Some(Command::Cat(options)),
                color: ColorChoice::Auto,
                generate: None,
            });
        }
        let mut arguments: Vec<_> = env::args_os().collect();
        if let Some(position) = command_position(&arguments)
            && arguments[position] == "cat"
        {
            let options = arguments.split_off(position + 1);
            arguments.extend(cat::expand_long_options(options)?);
        }
        Self::try_parse_from(arguments)
    }

    /// Runs the command to its end.
    pub(crate) fn run(self) -> Result<ExitCode, CommandError> {
        style::set_choice(self.color);
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
                let log = Log::start(&c.log, c.verbose, LineStyle::Log)?;
                serve::run(c.options, setup, &log)
            }
            Command::Echo(c) => {
                let room = c.options.raise_fd_limit();
                start_runtime()?;
                let log = Log::start(&c.log, c.verbose, LineStyle::Message)?;
                echo::run(c.options, room, &log)
            }
            Command::Download(c) => {
                download::raise_fd_limit();
                start_runtime()?;
                download::run(
                    c.options,
                    &Log::start(&c.log, c.verbose, LineStyle::Message)?,
                )
            }
            Command::Cat(options) => cat::run(options),
            Command::Completions { shell } => generate::completions(shell, Self::command()),
            Command::Man { folder } => generate::manual_pages(&folder, Self::command()),
        }
    }
}

/// Returns the name of the command, if there is one.
pub(crate) fn command_name() -> Option<String> {
    let arguments: Vec<_> = env::args_os().collect();
    let position = command_position(&arguments)?;
    Some(arguments[position].to_string_lossy().into_owned())
}

/// Returns whether an option was typed before the command.
pub(crate) fn is_before_command(option: Option<&ContextValue>) -> bool {
    let arguments: Vec<_> = env::args_os().collect();
    let (Some(ContextValue::String(option)), Some(position)) =
        (option, command_position(&arguments))
    else {
        return false;
    };
    arguments[1..position]
        .iter()
        .any(|argument| argument.as_bytes().starts_with(option.as_bytes()))
}

/// Returns the position of the command: the first argument after the options of the program.
fn command_position(arguments: &[OsString]) -> Option<usize> {
    let mut position = 1;
    while arguments.get(position)?.as_bytes().starts_with(b"-") {
        let has_value = arguments[position] == "--color";
        position += 1 + usize::from(has_value);
    }
    Some(position)
}

/// Returns the value of `--color` in a command line that cannot be parsed.
pub(crate) fn color_of_invalid() -> ColorChoice {
    let mut arguments = env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    let mut choice = ColorChoice::Auto;
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--color") {
            Some("") => arguments.next(),
            Some(value) => value.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        let value = value.and_then(|value| ColorChoice::from_str(&value, false).ok());
        choice = value.unwrap_or(choice);
    }
    choice
}
