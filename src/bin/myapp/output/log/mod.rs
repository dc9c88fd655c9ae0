//! Log output: text or JSON, to stderr or a file, written by a thread of its own.

mod file;
mod message;

use std::io::{self, Write};
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

use crate::exit_code::CommandError;
use crate::home;
use crate::output::draw_target::draw_target;
use crate::output::log::file::{LogFile, READER_TIMEOUT, Writer};
use crate::output::log::message::MessageFormat;
use crate::output::{stderr, style};

/// Capacity of the line queue. If the terminal or disk is slower, lines are dropped and counted.
const QUEUE_CAPACITY: usize = 8192;

/// Maximum number of lines per second about single connections and messages, unless `-v` is
/// given.
const MAX_TRAFFIC_LINES: u64 = 100;

// Not a doc comment: clap would use it as the description of the command.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogOptions {
    /// Print errors only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Log lines as text, or as one JSON object each
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "text|json")]
    #[arg(hide_possible_values = true)]
    log_format: Format,
    /// Append the log to FILE, not to stderr
    #[arg(long, value_name = "FILE", value_parser = home::path())]
    log_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

impl LogOptions {
    /// Returns whether the options, `-v` or the environment change the default log.
    pub(crate) fn is_customized(&self, verbose: u8) -> bool {
        verbose > 0
            || self.log_file.is_some()
            || self.log_format != Format::Text
            || std::env::var_os("MYAPP_LOG").is_some()
    }
}

/// Form of text lines on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LineStyle {
    /// With time and level, for a server.
    Log,
    /// Like the other messages of a command that ends.
    Message,
}

/// Running log. Dropping it writes the queued lines.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) quiet: bool,
    traffic_limit: Option<TrafficLimit>,
    /// Target of progress bars. Log lines are printed above them.
    pub(crate) draw_target: MultiProgress,
    dropped: ErrorCounter,
    /// Log file; `None` if the log goes to stderr.
    file: Option<Arc<LogFile>>,
    writer: Option<WorkerGuard>,
}

impl Log {
    /// Starts the log at the level of `-q`, `-v` or `MYAPP_LOG`.
    pub(crate) fn start(
        options: &LogOptions,
        verbose: u8,
        style: LineStyle,
    ) -> Result<Self, CommandError> {
        let draw_target = draw_target();
        let mut log_file = None;
        let (writer, colors): (Box<dyn Write + Send>, bool) = match &options.log_file {
            None => (
                Box::new(AboveBars(draw_target.clone())),
                style::is_enabled(),
            ),
            Some(path) => {
                let file = log_file.insert(Arc::new(LogFile::open(path, &draw_target)?));
                (
                    Box::new(Writer(Arc::clone(file))),
                    style::choice() == ColorChoice::Always,
                )
            }
        };
        let (queue, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(QUEUE_CAPACITY)
            .thread_name("log")
            .finish(writer);
        let dropped = queue.error_counter();
        let lines = fmt::layer()
            .with_writer(queue)
            .with_target(false)
            .with_ansi(colors);
        let lines = match options.log_format {
            Format::Text if style == LineStyle::Message && options.log_file.is_none() => {
                lines.event_format(MessageFormat::default()).boxed()
            }
            Format::Text => lines.boxed(),
            Format::Json => lines.json().flatten_event(true).boxed(),
        };
        let traffic_limit = (verbose == 0).then(TrafficLimit::default);
        tracing_subscriber::registry()
            .with(filter(options.quiet, verbose)?)
            .with(traffic_limit.clone())
            .with(lines)
            .init();
        Ok(Self {
            quiet: options.quiet,
            traffic_limit,
            draw_target,
            dropped,
            file: log_file,
            writer: Some(guard),
        })
    }
}

impl Log {
    /// Reopens the log file, such as after its rotation. Returns whether it is another file;
    /// `None` if the log goes to stderr.
    ///
    /// # Cancel safety
    ///
    /// The file is opened on the blocking pool, which continues if the future is dropped.
    pub(crate) async fn reopen(&self) -> Option<io::Result<bool>> {
        let file = Arc::clone(self.file.as_ref()?);
        Some(smol::unblock(move || file.reopen()).await)
    }
}

/// Writer to stderr above the progress bars.
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
        if let Some(limit) = &self.traffic_limit {
            limit.report_suppressed(Instant::now() + SECOND);
        }
        let dropped = self.dropped.dropped_lines();
        let is_writable = stderr::is_writable_within(READER_TIMEOUT);
        if is_writable && dropped > 0 {
            let text = format!("{dropped} log lines dropped: reader too slow");
            stderr::message(&text);
        }
        if !self
            .file
            .as_ref()
            .map_or(is_writable, |file| file.is_writable())
        {
            // Dropping it would wait for the reader, and then print a warning to stdout.
            mem::forget(self.writer.take());
        }
        // Lines in the queue may be lost as well.
        drop(self.writer.take());
        let lost = self.file.as_ref().map_or(0, |file| file.lost_lines());
        if is_writable && lost > 0 {
            stderr::message(&format!("log lines lost: {lost}"));
        }
    }
}

/// Returns the filter of `MYAPP_LOG`, or else of the events of this program at a level.
fn filter(quiet: bool, verbose: u8) -> Result<Targets, CommandError> {
    if let Ok(text) = std::env::var("MYAPP_LOG") {
        return text
            .parse()
            .map_err(|error| {
                CommandError::usage(format!("invalid log filter in MYAPP_LOG: {error}"))
            })
            .map_err(|failure| failure.hint("use LEVEL or TARGET=LEVEL,TARGET=LEVEL…"));
    }
    let level = match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    Ok(Targets::new().with_target("myapp", level))
}

/// Limit for lines about single connections and messages (the target `myapp::traffic`). The
/// number of suppressed lines is logged once per second.
#[derive(Debug, Clone, Default)]
struct TrafficLimit(Arc<Mutex<Window>>);

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
    /// Starts a new window if the last one is over. Returns the number of lines suppressed in it.
    fn advance(&mut self, now: Instant) -> u64 {
        if now.duration_since(self.start) < SECOND {
            return 0;
        }
        let suppressed = self.lines.saturating_sub(MAX_TRAFFIC_LINES);
        *self = Self {
            start: now,
            lines: 0,
        };
        suppressed
    }

    /// Counts a line. Returns whether it is logged.
    fn count(&mut self) -> bool {
        self.lines += 1;
        self.lines <= MAX_TRAFFIC_LINES
    }
}

impl TrafficLimit {
    fn report_suppressed(&self, now: Instant) {
        let suppressed = self.0.lock().map_or(0, |mut window| window.advance(now));
        // The lock is released here, because this event passes through the same layer.
        if suppressed > 0 {
            info!(lines = suppressed, "log lines suppressed (-v logs all)");
        }
    }
}

impl<S: Subscriber> Layer<S> for TrafficLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.report_suppressed(Instant::now());
        event.metadata().target() != "myapp::traffic"
            || self.0.lock().map_or(true, |mut window| window.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter;

    #[test]
    fn lines_above_the_limit_are_suppressed_and_counted() {
        let start = Instant::now();
        let mut window = Window { start, lines: 0 };
        let logged = iter::repeat_with(|| window.count()).take(107);
        assert_eq!(logged.filter(|is_logged| *is_logged).count(), 100);
        assert_eq!(window.advance(start), 0, "the second is not over");
        assert_eq!(window.advance(start + SECOND), 7);
        assert_eq!(window.advance(start + SECOND), 0, "reported once");
        assert!(window.count());
    }
}
