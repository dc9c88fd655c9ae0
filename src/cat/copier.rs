//! Copying of one chunk of an input to the output, and the results of the run.

use std::time::Instant;

use super::config::Config;
use super::error::Error;
use super::input::{Input, ReadResult};
use super::output::Output;
use super::report::{Event, Report};
use super::source::Source;
use super::transform::Transform;

/// Number of bytes read at once for a transform.
const READ_CHUNK_LEN: usize = 64 << 10;

/// Output of a run, and what is done with the bytes before they are written.
#[derive(Debug)]
pub(super) struct Copier {
    pub(super) output: Output,
    transform: Option<Transform>,
    labels: Option<Labels>,
    /// Bytes that were read and are not transformed yet.
    chunk: Vec<u8>,
    /// Whether the output can be longer than the input.
    can_grow: bool,
    started_at: Instant,
    pub(super) report: Report,
    /// Events that have not been taken yet.
    events: Vec<Event>,
}

/// Headers before the bytes of another input than the last one.
#[derive(Debug, Default)]
struct Labels {
    last: Option<Source>,
}

/// Error of the current input, which is skipped, or of the output, which ends the run.
pub(super) enum CopyError {
    Input(Error),
    Output(Error),
}

impl From<Error> for CopyError {
    fn from(error: Error) -> Self {
        Self::Output(error)
    }
}

impl Copier {
    pub(super) fn new(config: &Config, output: Output) -> Self {
        let transform = (!config.display.is_plain()).then(|| Transform::new(config.display));
        let labels = config.label.then(Labels::default);
        let has_chunk = transform.is_some() || labels.is_some();
        let chunk_len = if has_chunk { READ_CHUNK_LEN } else { 0 };
        Self {
            output,
            transform,
            labels,
            chunk: Vec::with_capacity(chunk_len),
            can_grow: config.display.can_grow(),
            started_at: Instant::now(),
            report: Report::default(),
            events: Vec::new(),
        }
    }

    /// Fails if reading this input would read the copy's own output in an endless loop.
    pub(super) fn check_loop(&mut self, source: &Source, input: &Input) -> Result<(), CopyError> {
        if self.output.would_loop(input, self.can_grow)? {
            let input = source.clone();
            return Err(CopyError::Input(Error::InputIsOutput { input }));
        }
        Ok(())
    }

    /// Copies a chunk. The output buffer is written if it is due.
    pub(super) fn copy_chunk(
        &mut self,
        source: &Source,
        input: &mut Input,
    ) -> Result<ReadResult, CopyError> {
        let result = if self.chunk.capacity() > 0 {
            input.read(&mut self.chunk)
        } else {
            match self.output.transfer_from(input)? {
                Some(result) => result,
                None => input.read(self.output.buffer()),
            }
        };
        let result = result.map_err(|error| {
            CopyError::Input(Error::Read {
                input: source.clone(),
                source: error,
            })
        })?;
        if let ReadResult::Bytes(count) = result {
            self.report.read += count as u64;
            self.write_label(source);
            if let Some(transform) = &mut self.transform {
                transform.push(&self.chunk, self.output.buffer());
            } else {
                self.output.buffer().extend_from_slice(&self.chunk);
            }
            self.chunk.clear();
            self.output.write_buffered(input.may_block())?;
        }
        Ok(result)
    }

    /// Appends the header of an input, unless the last bytes are also of this input.
    fn write_label(&mut self, source: &Source) {
        let Some(labels) = &mut self.labels else {
            return;
        };
        if labels.last.as_ref() == Some(source) {
            return;
        }
        let out = self.output.buffer();
        if let Some(transform) = &mut self.transform {
            transform.break_line(out);
        }
        // Ends an incomplete line, or makes an empty one.
        let newline = if labels.last.is_some() { "\n" } else { "" };
        out.extend_from_slice(format!("{newline}==> {source} <==\n").as_bytes());
        labels.last = Some(source.clone());
    }

    pub(super) fn push_event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Records the failure of an input. The buffered output is written first, so that output and
    /// errors appear in order.
    pub(super) fn push_failure(&mut self, error: Error) -> Result<(), Error> {
        self.output.flush()?;
        self.report.failed += 1;
        self.events.push(Event::Failed(error));
        Ok(())
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// Removes and returns the events.
    pub(super) fn take_events(&mut self) -> impl Iterator<Item = Event> + use<> {
        let events = std::mem::take(&mut self.events);
        std::iter::once(Event::Progress(self.report.read)).chain(events)
    }

    /// Writes what is left after the last input.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        if let Some(mut transform) = self.transform.take() {
            transform.finish(self.output.buffer());
        }
        self.output.flush()
    }

    /// Returns the output, which is still open, and the report of the run.
    pub(super) fn into_parts(self) -> (Output, Report) {
        let report = Report {
            written: self.output.bytes_written(),
            elapsed: self.started_at.elapsed(),
            ..self.report
        };
        (self.output, report)
    }
}
