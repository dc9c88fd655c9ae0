//! `myapp cat`.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, IsTerminal as _};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{ArgAction, Args};
use futures_lite::future;
use indicatif::{ProgressBar, ProgressStyle};
use myapp::cat::{
    self, Config, Display, Ended, Error, Event, Mode, Numbers, Order, Report, Sink, Source,
};
use myapp::error_chain::ErrorChain;
use myapp::runtime;
use myapp::units::{self, Elapsed, Size};

use crate::commands::number;
use crate::exit_code::{Code, Failure};
use crate::output::log::{Log, LogOptions};
use crate::output::stderr;
use crate::signals::Ending;

const EXAMPLES: &str = "\
A file that cannot be read is named, the others come, and the exit code is 1.

Examples:
  myapp cat a.txt - b.txt           a.txt, then stdin, then b.txt
  myapp cat -n *.log                with line numbers
  myapp cat <(slow 1) <(slow 2)     both are read at the same time
  myapp cat -o all.txt *.txt        all.txt appears only whole
  myapp cat --delay 0.5 poem.txt    a line each half second";

#[derive(Debug, Default, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// What to read; `-` is stdin, as is none at all
    #[arg(value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    display: DisplayOptions,
    #[command(flatten)]
    reading: ReadingOptions,
    #[command(flatten)]
    output: OutputOptions,
    /// Tell more; twice for more still
    #[arg(long, action = ArgAction::Count, help_heading = "Logging")]
    verbose: u8,
    #[command(flatten)]
    log: LogOptions,
}

// GNU's options.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Display")]
struct DisplayOptions {
    /// As -vET
    #[arg(short = 'A', long)]
    show_all: bool,
    /// Number the lines that are not empty; wins over -n
    #[arg(short = 'b', long)]
    number_nonblank: bool,
    /// As -vE
    #[arg(short = 'e')]
    nonprinting_and_ends: bool,
    /// Show `$` at each line's end
    #[arg(short = 'E', long)]
    show_ends: bool,
    /// Number all lines
    #[arg(short = 'n', long)]
    number: bool,
    /// Of several empty lines show only the first
    #[arg(short = 's', long)]
    squeeze_blank: bool,
    /// As -vT
    #[arg(short = 't')]
    nonprinting_and_tabs: bool,
    /// Show tabs as `^I`
    #[arg(short = 'T', long)]
    show_tabs: bool,
    /// Does nothing: what has come is never held back
    #[arg(short = 'u')]
    unbuffered: bool,
    /// Show control characters as `^X` and bytes from 128 as `M-X`
    #[arg(short = 'v', long)]
    show_nonprinting: bool,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Reading")]
struct ReadingOptions {
    /// Files open at once: the one being written and those read ahead
    #[arg(short, long, value_name = "N", value_parser = number::<NonZeroUsize>, default_value = "64")]
    jobs: Option<NonZeroUsize>,
    /// Whole files in the order in which they are ready
    #[arg(long, conflicts_with = "sequential")]
    as_completed: bool,
    /// One after another, nothing read ahead, for comparing
    #[arg(long, conflicts_with = "jobs")]
    sequential: bool,
    /// Go on with what is appended to the files, also when they are cut or replaced
    #[arg(short, long)]
    follow: bool,
    /// Decompress what begins as gzip, zstd or xz; the rest comes as it is
    #[arg(short = 'z', long, conflicts_with = "follow")]
    decompress: bool,
    /// Wait after each line
    #[arg(long, value_name = "DUR", value_parser = units::parse_duration)]
    delay: Option<Duration>,
    /// Write at most this many bytes a second
    #[arg(long, value_name = "RATE", value_parser = units::parse_rate)]
    limit_rate: Option<NonZeroU64>,
    /// Tell on stderr when each file was opened and read, and the total time
    #[arg(long)]
    timing: bool,
    /// Show on stderr how much has been read; not on a terminal: a line at the end
    #[arg(long)]
    progress: bool,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output")]
struct OutputOptions {
    /// Write to FILE; a regular file is replaced in one step, at the end
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Append to FILE
    #[arg(short, long, requires = "output")]
    append: bool,
    /// Write to stdout too
    #[arg(long, requires = "output")]
    tee: bool,
    /// End only when FILE is on the disk
    #[arg(long, requires = "output")]
    fsync: bool,
}

impl DisplayOptions {
    /// Sets the option of this letter, if there is one.
    fn set(&mut self, letter: u8) -> Option<()> {
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
    fn into_sink(self) -> Result<Sink, Failure> {
        let Some(path) = self.output else {
            return stdout().map(Sink::Stream);
        };
        if path.as_os_str() == "-" {
            return Err(Failure::usage("-o -: without -o the output is stdout")
                .hint("write ./- for a file of this name"));
        }
        let mode = if self.append {
            Mode::Append
        } else {
            Mode::Replace
        };
        let tee = if self.tee { Some(stdout()?) } else { None };
        Ok(Sink::File {
            path,
            mode,
            fsync: self.fsync,
            tee,
        })
    }
}

fn stdout() -> Result<OwnedFd, Failure> {
    io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .context("open standard output")
        .map_err(|error| Failure::new(Code::Failure, error))
}

impl Options {
    /// The options of a `cat` that is given nothing but files and GNU's short options.
    pub(crate) fn of_gnu(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        if arguments.next()? != "cat" {
            return None;
        }
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_bytes() {
                [b'-', letters @ ..] if !letters.is_empty() => {
                    letters
                        .iter()
                        .try_for_each(|letter| options.display.set(*letter))?;
                }
                _ => options.files.push(argument),
            }
        }
        Some(options)
    }

    fn to_config(&self) -> Config {
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
            follow: reading.follow,
            delay: reading.delay,
            rate: reading.limit_rate,
        }
    }
}

pub(crate) fn run(options: Options) -> Result<Code, Failure> {
    let asked_for = options.log.is_customized(options.verbose);
    let _log = asked_for
        .then(|| Log::start(&options.log, options.verbose))
        .transpose()
        .map_err(ours)?;
    let config = options.to_config();
    if config.follow && options.output.output.is_some() && !options.output.append {
        return Err(
            Failure::usage("--follow never ends, so -o would never be replaced")
                .hint("append to it with -a"),
        );
    }
    let teller = Teller::new(&options);
    let sources = sources(options.files);
    // Only what waits for moments or has something to clean up needs more than this thread.
    let plain = config.delay.is_none() && config.rate.is_none() && options.output.output.is_none();
    let sink = options.output.into_sink()?;
    let ended = if plain {
        cat::run_blocking(sources, &config, sink, |event| teller.tell(event))
    } else {
        let mut ending = Ending::catch()
            .context("catch signals")
            .map_err(|error| Failure::new(Code::Failure, error))?;
        let run = async { Ok(cat::run(sources, config, sink, |event| teller.tell(event)).await) };
        match runtime::block_on(future::or(async { Err(ending.next().await) }, run)) {
            Ok(ended) => ended,
            Err(signal) => return Ok(signal),
        }
    };
    let report = ended.map_err(failure)?;
    teller.end(&report);
    Ok(if report.failed == 0 {
        Code::Success
    } else {
        Code::Failure
    })
}

fn sources(files: Vec<OsString>) -> Vec<Source> {
    if files.is_empty() {
        vec![Source::Stdin]
    } else {
        files.into_iter().map(Into::into).collect()
    }
}

/// As every cat, this one ends with 1 whatever it is that fails.
fn ours(failure: Failure) -> Failure {
    let code = if failure.code == Code::Usage {
        Code::Usage
    } else {
        Code::Failure
    };
    Failure { code, ..failure }
}

fn failure(error: Error) -> Failure {
    let code = if error.is_broken_pipe() {
        Code::BrokenPipe
    } else {
        Code::Failure
    };
    Failure::new(code, error)
}

/// Tells on stderr how it goes.
struct Teller {
    start: Instant,
    timing: bool,
    /// None where nobody would see it.
    bar: Option<ProgressBar>,
    /// Whether to tell at the end what a bar would have shown.
    total: bool,
}

impl Teller {
    fn new(options: &Options) -> Self {
        let told = !options.log.quiet;
        let progress = options.reading.progress && told;
        // On a screen that shows the bytes themselves a bar would be drawn between them.
        let seen = progress
            && io::stderr().is_terminal()
            && (options.output.output.is_some() || !io::stdout().is_terminal());
        Self {
            start: Instant::now(),
            timing: options.reading.timing && told,
            bar: seen.then(|| bar(options)),
            total: progress && !seen,
        }
    }

    fn tell(&self, event: Event) {
        match event {
            Event::Read(bytes) => {
                if let Some(bar) = &self.bar {
                    bar.set_position(bytes);
                }
            }
            Event::Failed(error) => self.line(&ErrorChain(&error).to_string()),
            Event::Ended(ended) if self.timing => self.line(&self.timing(&ended)),
            Event::Ended(_) => {}
        }
    }

    /// Writes a line above the bar.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| stderr::message(text)),
            None => stderr::message(text),
        }
    }

    fn timing(&self, ended: &Ended) -> String {
        let since = |moment: Instant| moment.saturating_duration_since(self.start).as_secs_f64();
        format!(
            "{}: opened at {:.3} s, read at {:.3} s, {}",
            ended.source,
            since(ended.opened),
            since(ended.read),
            Size(ended.bytes),
        )
    }

    fn end(&self, report: &Report) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.timing || self.total {
            let Report {
                files,
                failed,
                read: _,
                written,
                elapsed,
            } = *report;
            let failed = if failed > 0 {
                format!(", {failed} failed")
            } else {
                String::new()
            };
            let (size, elapsed) = (Size(written), Elapsed(elapsed));
            let s = if files == 1 { "" } else { "s" };
            stderr::message(&format!(
                "{files} file{s}{failed}, {size} written in {elapsed}"
            ));
        }
    }
}

/// A bar for all files together, if their sizes are known before.
fn bar(options: &Options) -> ProgressBar {
    let size = |file: &OsString| std::fs::metadata(file).ok().filter(Metadata::is_file);
    let sizes = options
        .files
        .iter()
        .map(|file| size(file).map(|file| file.len()));
    let known = sizes
        .sum::<Option<u64>>()
        .filter(|_| !options.reading.decompress);
    match known.filter(|total| *total > 0) {
        Some(total) => ProgressBar::new(total).with_style(style(
            "{bar:30} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  \
             {binary_bytes_per_sec}  {eta} left",
        )),
        None => ProgressBar::new_spinner().with_style(style(
            "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {elapsed}",
        )),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[track_caller]
    fn parsed(arguments: &[&str]) -> Options {
        Line::parse_from(["cat"].iter().chain(arguments)).options
    }

    #[test]
    fn what_is_not_given_is_the_default() {
        let (config, default) = (parsed(&[]).to_config(), Config::default());
        assert_eq!(config.display, default.display);
        assert_eq!(config.jobs, default.jobs);
        assert_eq!(config.delay, default.delay);
        assert_eq!(config.rate, default.rate);
        assert_eq!(config.order, default.order);
        assert_eq!(config.follow, default.follow);
        assert_eq!(config.decompress, default.decompress);
    }

    #[test]
    fn files_and_short_options_are_read_as_the_command_line_would_be() {
        let of_gnu = |words: &[&str]| Options::of_gnu(words.iter().map(OsString::from));
        for line in [
            &[][..],
            &["-"],
            &["a", "-", "", "help", "a b", "\u{e9}"],
            &["-n", "a"],
            &["a", "-vET", "b", "-bs"],
            &["-A", "-A", "-nn"],
            &["-b"],
            &["-e"],
            &["-E"],
            &["-s", "-"],
            &["-t"],
            &["-T"],
            &["-u"],
            &["-v"],
        ] {
            let read = of_gnu(&[&["cat"], line].concat()).unwrap();
            let told = [&read, &parsed(line)].map(|options| {
                let config = options.to_config();
                let Options {
                    files,
                    display,
                    output,
                    log,
                    ..
                } = options;
                format!("{config:?} {files:?} {display:?} {output:?} {log:?}")
            });
            assert_eq!(told[0], told[1]);
        }
        for words in [
            &[][..],
            &["serve"],
            &["cat", "--"],
            &["cat", "-nj2"],
            &["cat", "-z"],
            &["cat", "--number"],
            &["cat", "-n-"],
            &["cat", "-\u{e9}"],
        ] {
            assert!(of_gnu(words).is_none(), "{words:?}");
        }
    }

    #[test]
    fn short_options_that_stand_for_several() {
        let all = |arguments| parsed(arguments).to_config().display;
        assert_eq!(all(&["-A"]), all(&["-v", "-E", "-T"]));
        assert_eq!(all(&["-e"]), all(&["-vE"]));
        assert_eq!(all(&["-t"]), all(&["-vT"]));
        assert_eq!(all(&["-b", "-n"]), all(&["-nb"]));
        assert_eq!(all(&["-nb"]).numbers, Numbers::NonBlank);
    }
}
