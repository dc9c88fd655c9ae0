//! Bars of `--progress`: a row for the file that is being written, and one for all of them.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::os::unix::ffi::OsStrExt as _;

use indicatif::MultiProgress;
use myapp::cat::Source;

use super::args::Options;
use crate::output::progress::Progress;

/// Bars of a run.
pub(super) struct FileBars {
    progress: Progress,
    /// Inputs in the order in which they are written; empty if it is not known.
    inputs: Vec<Input>,
    /// Whether bytes are written of an input that is not known.
    has_unknown: bool,
    /// Number of inputs that have ended.
    ended: Cell<u64>,
    /// Number of bytes read of the inputs that have ended.
    ended_bytes: Cell<u64>,
    /// Number of bytes read of all inputs.
    read: Cell<u64>,
}

/// Input with its length, if it is a regular file that is copied as it is.
struct Input {
    name: Vec<u8>,
    length: Option<u64>,
}

impl FileBars {
    /// Starts the bars. Returns none where they would not be visible: without a terminal, or with
    /// the output on the same terminal, between whose lines they would be drawn.
    pub(super) fn start(options: &Options, draw_target: &MultiProgress) -> Option<Self> {
        let has_output = options.output.path.is_none() && io::stdout().is_terminal();
        if draw_target.is_hidden() || has_output {
            return None;
        }
        let is_copied = !options.reading.decompress && !options.reading.follow;
        let inputs: Vec<_> = match &options.files[..] {
            [] => vec![Input::new(&OsString::from("-"), is_copied)],
            files => files
                .iter()
                .map(|file| Input::new(file, is_copied))
                .collect(),
        };
        let progress = Progress::start(draw_target, false);
        progress.set_expected(inputs.len() as u64);
        progress.set_expected_bytes(inputs.iter().map(|input| input.length).sum());
        let bars = Self {
            progress,
            inputs: if options.reading.as_completed {
                Vec::new()
            } else {
                inputs
            },
            has_unknown: options.reading.as_completed || options.reading.follow,
            ended: Cell::new(0),
            ended_bytes: Cell::new(0),
            read: Cell::new(0),
        };
        bars.start_next();
        Some(bars)
    }

    /// Records the number of bytes read of all inputs.
    pub(super) fn set_read(&self, bytes: u64) {
        self.read.set(bytes);
        let position = bytes.saturating_sub(self.ended_bytes.get());
        self.progress.set_position(self.ended.get(), position);
    }

    /// Records the end of an input with its number of bytes.
    pub(super) fn finish_input(&self, bytes: u64) {
        self.progress.finish_file(self.ended.get(), bytes, || None);
        self.ended_bytes.set(self.ended_bytes.get() + bytes);
        self.next();
    }

    /// Records the end of an input that could not be read, and prints its error.
    pub(super) fn fail_input(&self, error: String) {
        self.progress.fail_file(self.ended.get(), error);
        self.ended_bytes.set(self.read.get());
        self.next();
    }

    /// Prints a line above the bars.
    pub(super) fn print(&self, line: String) {
        self.progress.print(line);
    }

    fn next(&self) {
        self.ended.set(self.ended.get() + 1);
        self.start_next();
    }

    /// Adds the row of the next input.
    fn start_next(&self) {
        let number = self.ended.get();
        let (name, length) = match self.inputs.get(number as usize) {
            Some(input) => (&input.name[..], input.length),
            None if self.has_unknown => (&b"(any file)"[..], None),
            None => return,
        };
        self.progress.start_file(number, name);
        self.progress.start_body(number, 0, length);
    }
}

impl Input {
    fn new(file: &OsString, is_copied: bool) -> Self {
        let source = Source::from(file.clone());
        let length = match &source {
            Source::Path(path) if is_copied => match fs::metadata(path) {
                Ok(metadata) => metadata.is_file().then_some(metadata.len()),
                // It will fail, and adds nothing to the total.
                Err(_) => Some(0),
            },
            _ => None,
        };
        Self {
            name: match source {
                Source::Path(path) => path.as_os_str().as_bytes().to_vec(),
                source => source.to_string().into_bytes(),
            },
            length,
        }
    }
}
