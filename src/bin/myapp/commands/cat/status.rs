//! Errors, progress and timing of a run on stderr.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::{self, IsTerminal as _};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use myapp::cat::{Event, FileDone, Report};
use myapp::error_chain::ErrorChain;
use myapp::units::{Elapsed, Size};

use super::args::Options;
use super::errors;
use crate::output::stderr;

/// Reports the events of a run on stderr.
pub(super) struct StatusReporter {
    started_at: Instant,
    quiet: bool,
    timing: bool,
    /// `None` without `--progress`, or where it would not be visible.
    bar: Option<ProgressBar>,
    /// Name of the output, if its checksum is to be printed.
    checksum_of: Option<String>,
    /// Whether to print a total line in place of the bar.
    total: bool,
}

impl StatusReporter {
    pub(super) fn new(options: &Options) -> Self {
        let is_verbose = !options.log.quiet;
        let progress = options.reading.progress && is_verbose;
        // With the output on the same terminal, the bar would be drawn between its lines.
        let is_visible = progress
            && io::stderr().is_terminal()
            && (options.output.path.is_some() || !io::stdout().is_terminal());
        Self {
            started_at: Instant::now(),
            quiet: options.log.quiet,
            timing: options.reading.timing && is_verbose,
            bar: is_visible.then(|| progress_bar(options)),
            checksum_of: options.prints_checksum().then(|| {
                let path = options.output.path.as_deref();
                path.map_or_else(|| "-".to_owned(), stderr::path)
            }),
            total: progress && !is_visible,
        }
    }

    /// Reports an event.
    pub(super) fn report(&self, event: Event) {
        match event {
            Event::Progress(bytes) => {
                if let Some(bar) = &self.bar {
                    bar.set_position(bytes);
                }
            }
            Event::Failed(error) => {
                let text = stderr::error_text(&error, errors::hint(&error));
                match &self.bar {
                    Some(bar) => bar.suspend(|| stderr::write(&text)),
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
            Event::FileDone(file) if self.timing => self.print_line(&self.timing(&file)),
            _ => {}
        }
    }

    /// Prints a line above the bar.
    fn print_line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| stderr::message(text)),
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

    /// Removes the bar, and prints the checksum and the total if requested.
    pub(super) fn finish(&self, report: &Report) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
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

/// Returns a bar for all files together, or a spinner if their total size is not known.
fn progress_bar(options: &Options) -> ProgressBar {
    match total_size(options) {
        Some(total) if total > 0 => ProgressBar::new(total).with_style(style(
            "{bar:30} {percent:>3} %  {binary_bytes} of {binary_total_bytes}  \
             {binary_bytes_per_sec}  {eta} left",
        )),
        _ => ProgressBar::new_spinner().with_style(style(
            "{spinner} {binary_bytes}  {binary_bytes_per_sec}  {elapsed}",
        )),
    }
}

/// Returns the size of all inputs, if all are regular files and copied without decompression.
fn total_size(options: &Options) -> Option<u64> {
    if options.reading.decompress {
        return None;
    }
    let size = |file: &OsString| {
        let file = std::fs::metadata(file).ok().filter(Metadata::is_file)?;
        Some(file.len())
    };
    options.files.iter().map(size).sum()
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
