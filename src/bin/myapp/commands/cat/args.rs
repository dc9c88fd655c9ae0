//! Options of `myapp cat`.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args};
use myapp::cat::{
    ChecksumError, Config, Display, FileSink, Numbers, Order, OutputChecksum, Sink, Source,
    WriteMode,
};
use myapp::units;

use super::errors::{follow_replaces_file, no_input, output_is_stdout};
use crate::commands::number;
use crate::exit_code::{CommandError, ExitCode};
use crate::output::log::LogOptions;

#[derive(Debug, Default, Args)]
#[command(after_long_help = include_str!("help.txt"), infer_long_args = true)]
pub(crate) struct Options {
    /// Files to read; - for stdin, which is the default
    #[arg(value_name = "FILE")]
    pub(super) files: Vec<OsString>,
    #[command(flatten)]
    pub(super) display: DisplayOptions,
    #[command(flatten)]
    pub(super) reading: ReadingOptions,
    #[command(flatten)]
    pub(super) output: OutputOptions,
    /// Increase verbosity; repeat for more
    #[arg(long, action = ArgAction::Count, help_heading = "Logging")]
    pub(super) verbose: u8,
    #[command(flatten)]
    pub(super) log: LogOptions,
}

// The options of GNU cat.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Display")]
pub(super) struct DisplayOptions {
    /// Equivalent to -vET
    #[arg(short = 'A', long)]
    show_all: bool,
    /// Number nonempty lines, overrides -n
    #[arg(short = 'b', long)]
    number_nonblank: bool,
    /// Equivalent to -vE
    #[arg(short = 'e')]
    nonprinting_and_ends: bool,
    /// Display `$` at the end of each line
    #[arg(short = 'E', long)]
    show_ends: bool,
    /// Number all lines
    #[arg(short = 'n', long)]
    number: bool,
    /// Suppress repeated empty lines
    #[arg(short = 's', long)]
    squeeze_blank: bool,
    /// Equivalent to -vT
    #[arg(short = 't')]
    nonprinting_and_tabs: bool,
    /// Display tabs as `^I`
    #[arg(short = 'T', long)]
    show_tabs: bool,
    /// Ignored, for POSIX compatibility
    #[arg(short = 'u')]
    unbuffered: bool,
    /// Use `^` and `M-` notation, except for tabs and newlines
    #[arg(short = 'v', long)]
    show_nonprinting: bool,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Reading")]
pub(super) struct ReadingOptions {
    /// Files open at once, for read-ahead
    #[arg(short, long, value_name = "N", value_parser = number::<NonZeroUsize>, default_value = "64")]
    jobs: Option<NonZeroUsize>,
    /// Write files in the order they become ready
    #[arg(long, conflicts_with = "sequential")]
    pub(super) as_completed: bool,
    /// Read one file after another, without read-ahead
    #[arg(long, conflicts_with = "jobs")]
    sequential: bool,
    /// Follow all files as they grow or are replaced
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Begin with the last N lines of each file
    #[arg(long, value_name = "N", value_parser = number::<u64>, requires = "follow")]
    tail: Option<u64>,
    /// Print the name of a file before its lines
    #[arg(long, requires = "follow")]
    label: bool,
    /// Decompress gzip, bzip2, zstd and xz; copy other files
    #[arg(short = 'z', long, conflicts_with = "follow")]
    pub(super) decompress: bool,
    /// Memory limit for zstd and xz, each [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size, requires = "decompress")]
    memlimit: Option<u64>,
    /// Pause after each line
    #[arg(long, value_name = "DUR", value_parser = units::parse_duration)]
    delay: Option<Duration>,
    /// Maximum output rate in bytes per second
    #[arg(long, value_name = "RATE", value_parser = units::parse_rate)]
    limit_rate: Option<NonZeroU64>,
    /// Print open, finish and total times to stderr
    #[arg(long)]
    pub(super) timing: bool,
    /// Show progress on stderr; without a terminal, the total
    #[arg(long)]
    pub(super) progress: bool,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputOptions {
    /// Write to FILE, replacing it atomically at the end
    #[arg(id = "output", short, long, value_name = "FILE")]
    pub(super) path: Option<PathBuf>,
    /// Append to FILE
    #[arg(short, long, requires = "output")]
    append: bool,
    /// Replace FILE, or append to it, although an input failed
    #[arg(long, requires = "output")]
    partial: bool,
    /// Copy the complete output into the existing FILE
    #[arg(long, requires = "output", conflicts_with = "append")]
    in_place: bool,
    /// Replace a read-only FILE
    #[arg(long, requires = "output", conflicts_with_all = ["append", "in_place"])]
    force: bool,
    /// Also write to stdout
    #[arg(long, requires = "output")]
    tee: bool,
    /// Print the checksum of the output to stderr, or verify it
    #[arg(long, value_name = "ALGO[=HEX]", value_parser = parse_checksum, conflicts_with = "follow")]
    checksum: Option<OutputChecksum>,
    /// fsync FILE before exiting
    #[arg(long, requires = "output")]
    fsync: bool,
}

impl Options {
    /// Rejects combinations of options that clap cannot check.
    pub(super) fn check(&self) -> Result<(), CommandError> {
        if self.reading.follow && self.output.path.is_some() && !self.output.append {
            return Err(follow_replaces_file());
        }
        if self.files.is_empty() && self.output.path.is_some() && io::stdin().is_terminal() {
            return Err(no_input());
        }
        Ok(())
    }

    /// Returns whether the run needs timers, or cleanup after a signal. Other runs need only the
    /// main thread.
    pub(super) fn needs_runtime(&self) -> bool {
        self.reading.delay.is_some()
            || self.reading.limit_rate.is_some()
            || self.output.path.is_some()
            || self.reading.progress
    }

    /// Returns whether the checksum of the output is printed.
    pub(super) fn prints_checksum(&self) -> bool {
        matches!(self.output.checksum, Some(OutputChecksum::Compute(_)))
    }

    pub(super) fn to_config(&self) -> Config {
        let reading = &self.reading;
        let jobs = if reading.sequential {
            Some(NonZeroUsize::MIN)
        } else {
            reading.jobs
        };
        Config {
            display: self.display.to_config(),
            jobs: jobs.unwrap_or(Config::default().jobs),
            order: if reading.as_completed {
                Order::AsCompleted
            } else {
                Order::AsGiven
            },
            decompress: reading.decompress,
            decompress_memory: reading
                .memlimit
                .unwrap_or(Config::default().decompress_memory),
            follow: reading.follow,
            last_lines: reading.tail,
            label: reading.label,
            checksum: self.output.checksum.clone(),
            delay: reading.delay,
            rate: reading.limit_rate,
        }
    }

    pub(super) fn into_sources_and_sink(self) -> Result<(Vec<Source>, Sink), CommandError> {
        let sources = if self.files.is_empty() {
            vec![Source::Stdin]
        } else {
            self.files.into_iter().map(Into::into).collect()
        };
        Ok((sources, self.output.into_sink()?))
    }
}

impl DisplayOptions {
    /// Sets the option with this letter. Returns none if there is no such option.
    pub(super) fn set(&mut self, letter: u8) -> Option<()> {
        let option = match letter {
            b'A' => &mut self.show_all,
            b'b' => &mut self.number_nonblank,
            b'e' => &mut self.nonprinting_and_ends,
            b'E' => &mut self.show_ends,
            b'n' => &mut self.number,
            b's' => &mut self.squeeze_blank,
            b't' => &mut self.nonprinting_and_tabs,
            b'T' => &mut self.show_tabs,
            b'u' => &mut self.unbuffered,
            b'v' => &mut self.show_nonprinting,
            _ => return None,
        };
        *option = true;
        Some(())
    }

    fn to_config(&self) -> Display {
        Display {
            numbers: match (self.number_nonblank, self.number) {
                (true, _) => Numbers::NonBlank,
                (false, true) => Numbers::All,
                (false, false) => Numbers::None,
            },
            squeeze_blank: self.squeeze_blank,
            ends: self.show_all || self.nonprinting_and_ends || self.show_ends,
            tabs: self.show_all || self.nonprinting_and_tabs || self.show_tabs,
            nonprinting: self.show_all
                || self.nonprinting_and_ends
                || self.nonprinting_and_tabs
                || self.show_nonprinting,
        }
    }
}

impl OutputOptions {
    fn into_sink(self) -> Result<Sink, CommandError> {
        let Some(path) = self.path else {
            return stdout().map(Sink::Stream);
        };
        if path.as_os_str() == "-" {
            return Err(output_is_stdout());
        }
        let mode = if self.append {
            WriteMode::Append
        } else if self.in_place {
            let spool_dir = env::temp_dir();
            WriteMode::InPlace { spool_dir }
        } else {
            WriteMode::Replace
        };
        Ok(Sink::File(FileSink {
            partial: self.partial,
            force: self.force,
            fsync: self.fsync,
            tee: if self.tee { Some(stdout()?) } else { None },
            ..FileSink::new(path, mode)
        }))
    }
}

fn parse_checksum(text: &str) -> Result<OutputChecksum, ChecksumError> {
    match text.parse() {
        Ok(algorithm) => Ok(OutputChecksum::Compute(algorithm)),
        Err(unknown) => match text.parse() {
            Err(ChecksumError::Form) => Err(unknown),
            parsed => parsed.map(OutputChecksum::Verify),
        },
    }
}

/// Returns a duplicate of standard output.
fn stdout() -> Result<OwnedFd, CommandError> {
    io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .context("open standard output")
        .map_err(|error| CommandError::new(ExitCode::Failure, error))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct CommandLine {
        #[command(flatten)]
        options: Options,
    }

    #[track_caller]
    fn parse(arguments: &[&str]) -> Options {
        CommandLine::parse_from(["cat"].iter().chain(arguments)).options
    }

    #[test]
    fn default_options_give_the_default_config() {
        let config = parse(&[]).to_config();
        let default = Config::default();
        assert_eq!(config.display, default.display);
        assert_eq!(config.jobs, default.jobs);
        assert_eq!(config.delay, default.delay);
        assert_eq!(config.rate, default.rate);
        assert_eq!(config.order, default.order);
        assert_eq!(config.follow, default.follow);
        assert_eq!(config.decompress, default.decompress);
    }

    #[test]
    fn combined_display_options_equal_their_parts() {
        let display = |arguments| parse(arguments).to_config().display;
        assert_eq!(display(&["-A"]), display(&["-v", "-E", "-T"]));
        assert_eq!(display(&["-e"]), display(&["-vE"]));
        assert_eq!(display(&["-t"]), display(&["-vT"]));
        assert_eq!(display(&["-b", "-n"]), display(&["-nb"]));
        assert_eq!(display(&["-nb"]).numbers, Numbers::NonBlank);
    }
}
