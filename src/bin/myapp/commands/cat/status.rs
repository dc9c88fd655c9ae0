//! Errors, progress and timing of a run on stderr.

use std::time::Instant;

use myapp::cat::{Event, FileDone, Report};
use myapp::error_chain::ErrorChain;
use myapp::units::{Elapsed, Size};

use super::args::Options;
use super::errors;
use super::progress::FileBars;
use crate::output::draw_target::draw_target;
use crate::output::log::Log;
use crate::output::stderr;

/// Reports the events of a run on stderr.
pub(super) struct StatusReporter {
    started_at: Instant,
    quiet: bool,
    timing: bool,
    /// `None` without `--progress`, or where it would not be visible.
    bars: Option<FileBars>,
    /// Name of the output, if its checksum is to be printed.
    checksum_of: Option<String>,
    /// Whether to print a total line in place of the bars.
    total: bool,
}

impl StatusReporter {
    /// Starts the bars, if they are requested. Lines of `log` are printed above them.
    pub(super) fn new(options: &Options, log: Option<&Log>) -> Self {
        let is_verbose = !options.log.quiet;
        let progress = options.reading.progress && is_verbose;
        let bars = || {
            let target = log.map_or_else(draw_target, |log| log.draw_target.clone());
            FileBars::start(options, &target)
        };
        let bars = if progress { bars() } else { None };
        Self {
            started_at: Instant::now(),
            quiet: options.log.quiet,
            timing: options.reading.timing && is_verbose,
            total: progress && bars.is_none(),
            bars,
            checksum_of: options.prints_checksum().then(|| {
                let path = options.output.path.as_deref();
                path.map_or_else(|| "-".to_owned(), stderr::path)
            }),
        }
    }

    /// Reports an event.
    pub(super) fn report(&self, event: Event) {
        match event {
            Event::Progress(bytes) => {
                if let Some(bars) = &self.bars {
                    bars.set_read(bytes);
                }
            }
            Event::Failed(error) => {
                let text = stderr::error_text(&error, errors::hint(&error));
                match &self.bars {
                    Some(bars) => bars.fail_input(text),
                    None => stderr::write(&text),
                }
            }
            Event::Warning(warning) => {
                self.print_line(&format!("warning: {}", ErrorChain(&warning)));
            }
            Event::FileChanged { source, change } if !self.quiet => {
                self.print_line(&format!("{source}: {}", ErrorChain(&change)));
            }
            Event::FileChanged { .. } => {}
            Event::FileDone(file) => {
                if let Some(bars) = &self.bars {
                    bars.finish_input(file.bytes);
                }
                if self.timing {
                    self.print_line(&self.timing(&file));
                }
            }
            _ => {}
        }
    }

    /// Prints a line above the bars.
    fn print_line(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.print(format!("myapp: {text}\n")),
            None => stderr::message(text),
        }
    }

    fn timing(&self, file: &FileDone) -> String {
        let seconds = |time: Instant| {
            time.saturating_duration_since(self.started_at)
                .as_secs_f64()
        };
        format!(
            "{}: opened at {:.3} s, finished at {:.3} s, {}",
            file.source,
            seconds(file.opened_at),
            seconds(file.finished_at),
            Size(file.bytes),
        )
    }

    /// Removes the bars, and prints the checksum and the total if requested.
    pub(super) fn finish(mut self, report: &Report) {
        self.bars = None;
        if let (Some(output), Some(checksum)) = (&self.checksum_of, &report.checksum) {
            stderr::write(&format!("{checksum}  {output}\n"));
        }
        if !self.timing && !self.total {
            return;
        }
        let failed = if report.failed > 0 {
            format!(", {} failed", report.failed)
        } else {
            String::new()
        };
        let files = report.files;
        let plural = if files == 1 { "" } else { "s" };
        let size = Size(report.written);
        let elapsed = Elapsed(report.elapsed);
        stderr::message(&format!(
            "{files} file{plural}{failed}, {size} written in {elapsed}"
        ));
    }
}
