//! The log: text or JSON, on stderr or in a file, never waited for.

mod file;

use std::io::{self, IsTerminal, Write};
use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Args, ColorChoice, ValueEnum};
use indicatif::MultiProgress;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber, info};
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::exit_code::Failure;
use crate::output::draw_target::screen;
use crate::output::log::file::{LogFile, STDERR_TIMEOUT, Writer};
use crate::output::stderr;

/// Lines that wait for a slow terminal or disk; further ones are counted and dropped.
const QUEUE: usize = 8192;

/// Lines a second about single connections and messages, unless `-v` asks for all.
const TRAFFIC_PER_SECOND: u64 = 100;

// How the log looks and where it goes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogOptions {
    /// Only errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Log lines as text, or as one JSON object each
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "text|json")]
    #[arg(hide_possible_values = true)]
    log_format: Format,
    /// Append the log to FILE, not to stderr
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Colors: auto (on a terminal, without NO_COLOR), always, never
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    #[arg(hide_possible_values = true)]
    color: ColorChoice,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

impl LogOptions {
    /// Whether anything but the usual is asked for, by these options, `-v` or the environment.
    pub(crate) fn is_asked_for(&self, verbose: u8) -> bool {
        verbose > 0
            || self.log_file.is_some()
            || self.log_format != Format::Text
            || std::env::var_os("MYAPP_LOG").is_some()
    }

    /// Whether stderr takes colors.
    pub(crate) fn colors(&self) -> bool {
        match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                !refused && io::stderr().is_terminal()
            }
        }
    }
}

/// The running log. When dropped, what is in the queue is written out.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) quiet: bool,
    pace: Option<Pace>,
    /// Where progress is drawn; the lines of the log come above it.
    pub(crate) screen: MultiProgress,
    dropped: ErrorCounter,
    /// Where it is, if not on stderr.
    file: Option<Arc<LogFile>>,
    writer: Option<WorkerGuard>,
}

impl Log {
    /// Starts the log, at the level that `-q` and `-v` ask for, or as `MYAPP_LOG` says.
    pub(crate) fn start(options: &LogOptions, verbose: u8) -> Result<Self, Failure> {
        let (screen, mut opened) = (screen(), None);
        let (writer, colors): (Box<dyn Write + Send>, bool) = match &options.log_file {
            None => (Box::new(AboveBars(screen.clone())), options.colors()),
            Some(path) => {
                let file = opened.insert(Arc::new(LogFile::open(path, &screen)?));
                (
                    Box::new(Writer(Arc::clone(file))),
                    options.color == ColorChoice::Always,
                )
            }
        };
        let (queue, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(QUEUE)
            .thread_name("log")
            .finish(writer);
        let dropped = queue.error_counter();
        let lines = fmt::layer()
            .with_writer(queue)
            .with_target(false)
            .with_ansi(colors);
        let lines = match options.log_format {
            Format::Text => lines.boxed(),
            Format::Json => lines.json().flatten_event(true).boxed(),
        };
        let pace = (verbose == 0).then(Pace::default);
        tracing_subscriber::registry()
            .with(filter(options.quiet, verbose)?)
            .with(pace.clone())
            .with(lines)
            .init();
        let (file, writer) = (opened, Some(guard));
        Ok(Self {
            quiet: options.quiet,
            pace,
            screen,
            dropped,
            file,
            writer,
        })
    }
}

/// Stderr, while bars may be drawn on it.
struct AboveBars(MultiProgress);

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(pace) = &self.pace {
            pace.tell_left_out(Instant::now() + SECOND);
        }
        let dropped = self.dropped.dropped_lines();
        let is_read = stderr::is_read(STDERR_TIMEOUT);
        if is_read && dropped > 0 {
            let text = format!("{dropped} log lines were left out: their reader is too slow");
            stderr::line(&text);
        }
        if !self.file.as_ref().map_or(is_read, |file| file.is_read()) {
            // It would wait for a reader that reads nothing, and then complain on stdout.
            mem::forget(self.writer.take());
        }
        // Lines in the queue may be lost as well.
        drop(self.writer.take());
        let lost = self.file.as_ref().map_or(0, |file| file.lost());
        if is_read && lost > 0 {
            stderr::line(&format!("log lines lost: {lost}"));
        }
    }
}

/// What is logged at all: our own events, down to a level; or what `MYAPP_LOG` says.
fn filter(quiet: bool, verbose: u8) -> Result<Targets, Failure> {
    if let Ok(text) = std::env::var("MYAPP_LOG") {
        return text
            .parse()
            .map_err(|error| Failure::usage(format!("MYAPP_LOG is no log filter: {error}")))
            .map_err(|failure| failure.hint("write a level, or TARGET=LEVEL,TARGET=LEVEL…"));
    }
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    Ok(Targets::new().with_target("myapp", level))
}

/// Lets through so many lines about single connections and messages (the target
/// `myapp::traffic`) a second, and then says how many it left out.
#[derive(Debug, Clone, Default)]
struct Pace(Arc<Mutex<Window>>);

const SECOND: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Window {
    start: Instant,
    lines: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            lines: 0,
        }
    }
}

impl Window {
    /// Starts a new second if the last is over: the lines that it left out.
    fn turn(&mut self, now: Instant) -> u64 {
        if now.duration_since(self.start) < SECOND {
            return 0;
        }
        let left_out = self.lines.saturating_sub(TRAFFIC_PER_SECOND);
        *self = Self {
            start: now,
            lines: 0,
        };
        left_out
    }

    /// Counts a line: whether it is let through.
    fn count(&mut self) -> bool {
        self.lines += 1;
        self.lines <= TRAFFIC_PER_SECOND
    }
}

impl Pace {
    fn tell_left_out(&self, now: Instant) {
        let left_out = self.0.lock().map_or(0, |mut window| window.turn(now));
        // The lock is free again here: this line comes through this very layer.
        if left_out > 0 {
            info!(lines = left_out, "left out (-v shows all)");
        }
    }
}

impl<S: Subscriber> Layer<S> for Pace {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.tell_left_out(Instant::now());
        event.metadata().target() != "myapp::traffic"
            || self.0.lock().map_or(true, |mut window| window.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_hundred_lines_a_second_the_rest_is_counted() {
        let start = Instant::now();
        let mut window = Window { start, lines: 0 };
        let shown = (0..107).filter(|_| window.count()).count();
        assert_eq!(shown, 100);
        assert_eq!(window.turn(start), 0, "the second is not over");
        assert_eq!(window.turn(start + SECOND), 7);
        assert_eq!(window.turn(start + SECOND), 0, "it is told once");
        assert!(window.count());
    }
}
