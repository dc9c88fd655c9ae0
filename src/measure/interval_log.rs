//! Interval log: the text format of HdrHistogram for histograms of a run over time.
//!
//! It is that of `HistogramLogWriter` of the reference implementation, version 1.3, with the tags
//! `response` and `service` and values in nanoseconds. The last line is a comment chosen by the
//! caller, so that a truncated log is detected.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};

use crate::measure::encoding::DecodeError;
use crate::measure::intervals::Interval;
use crate::measure::latency::LatencyHistogram;

/// First lines of a log.
const HEADER: &str = "[Histogram log format version 1.3]";
const ORIGIN: &str = "[Response and service times of myapp echo in nanoseconds]";

/// Title line, as the reference implementation writes it.
const TITLE: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";

/// Start of the last line.
const END: &str = "#[End of myapp echo] ";

/// Tags of the histograms.
const RESPONSE: &str = "response";
const SERVICE: &str = "service";

/// Error of reading an interval log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadLogError {
    /// The file does not start as an interval log of this program does.
    #[error("not an interval log of myapp")]
    NotALog,
    /// The last line is missing, so that intervals may be missing too.
    #[error("incomplete: the end of the log is missing")]
    Truncated,
    /// A line is invalid.
    #[error("line {0} is damaged")]
    Line(usize),
    /// A histogram is invalid.
    #[error("line {line} is damaged")]
    Histogram {
        /// Number of the line, counted from 1.
        line: usize,
        /// The cause.
        source: DecodeError,
    },
}

/// Writer of an interval log.
#[allow(missing_debug_implementations, reason = "the serializer has none")]
pub struct IntervalLogWriter<W> {
    out: W,
    serializer: V2DeflateSerializer,
    /// Time since the Unix epoch to which the times of the intervals refer, when they have begun.
    base: Option<Duration>,
}

impl<W: Write> IntervalLogWriter<W> {
    /// Creates a log.
    pub fn new(out: W) -> Self {
        Self {
            out,
            serializer: V2DeflateSerializer::new(),
            base: None,
        }
    }

    /// Writes the histograms of an interval. The log starts with the first one.
    ///
    /// # Errors
    ///
    /// The I/O error of writing, or a count of 2^63 or more.
    pub fn write(&mut self, interval: &Interval) -> io::Result<()> {
        let base = match self.base {
            Some(base) => base,
            None => self.begin(interval.start)?,
        };
        let mut writer =
            IntervalLogWriterBuilder::new().begin_log_with(&mut self.out, &mut self.serializer)?;
        for (tag, latency) in [(RESPONSE, &interval.response), (SERVICE, &interval.service)] {
            if latency.count() > 0 {
                let start = interval.start.saturating_sub(base);
                writer
                    .write_histogram(latency.as_hdr(), start, interval.length, Tag::new(tag))
                    .map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Writes the lines before the intervals and returns the base of their times.
    fn begin(&mut self, start: Duration) -> io::Result<Duration> {
        let base = Duration::from_secs(start.as_secs());
        IntervalLogWriterBuilder::new()
            .add_comment(HEADER)
            .add_comment(ORIGIN)
            .with_start_time(SystemTime::UNIX_EPOCH + start)
            .with_base_time(SystemTime::UNIX_EPOCH + base)
            .begin_log_with(&mut self.out, &mut self.serializer)?;
        self.out.write_all(TITLE.as_bytes())?;
        self.base = Some(base);
        Ok(base)
    }

    /// Writes the last line, with a text that has no line end, and returns the output.
    ///
    /// # Errors
    ///
    /// The I/O error of writing.
    pub fn finish(mut self, text: &str) -> io::Result<W> {
        if self.base.is_none() {
            self.begin(Duration::ZERO)?;
        }
        writeln!(self.out, "{END}{text}")?;
        Ok(self.out)
    }
}

/// Content of an interval log.
#[derive(Debug, Default)]
pub struct LoggedTimes {
    /// Sum of the response times of all intervals.
    pub response: LatencyHistogram,
    /// Sum of the service times of all intervals.
    pub service: LatencyHistogram,
}

impl LoggedTimes {
    /// Reads a log written by [`IntervalLogWriter`]. Returns its times and the text of its last
    /// line.
    ///
    /// # Errors
    ///
    /// [`ReadLogError`], if it is not such a log, or not complete.
    pub fn read(log: &[u8]) -> Result<(Self, &str), ReadLogError> {
        if !log.starts_with(format!("#{HEADER}\n#{ORIGIN}\n").as_bytes()) {
            return Err(ReadLogError::NotALog);
        }
        let mut times = Self::default();
        // Line by line, because the parser searches for the next dot in all that it has.
        for (line, text) in (1..).zip(log.split_inclusive(|byte| *byte == b'\n')) {
            if let Some(text) = text.strip_prefix(END.as_bytes()) {
                let text = text.strip_suffix(b"\n").ok_or(ReadLogError::Truncated)?;
                let text = str::from_utf8(text).map_err(|_| ReadLogError::Line(line))?;
                return Ok((times, text));
            }
            if !text.ends_with(b"\n") {
                return Err(ReadLogError::Truncated);
            }
            times.read_line(line, text)?;
        }
        Err(ReadLogError::Truncated)
    }

    fn read_line(&mut self, line: usize, text: &[u8]) -> Result<(), ReadLogError> {
        let interval = match IntervalLogIterator::new(text).next() {
            Some(Ok(LogEntry::Interval(interval))) => interval,
            Some(Err(_)) => return Err(ReadLogError::Line(line)),
            _ => return Ok(()),
        };
        let latency = match interval.tag().as_deref() {
            Some(RESPONSE) => &mut self.response,
            Some(SERVICE) => &mut self.service,
            _ => return Err(ReadLogError::Line(line)),
        };
        latency
            .merge_encoded(interval.encoded_histogram())
            .map_err(|source| ReadLogError::Histogram { line, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn intervals() -> Vec<Interval> {
        let interval = |second: u64, millis: u32| {
            let mut response = LatencyHistogram::default();
            (0..=second).for_each(|n| response.record(MILLI * n as u32));
            let mut service = LatencyHistogram::default();
            service.record(MILLI);
            Interval {
                start: Duration::from_secs(1_764_000_000 + second) + millis * MILLI,
                length: Duration::from_secs(1) - millis * MILLI,
                response,
                service,
            }
        };
        vec![interval(0, 250), interval(1, 0), interval(3, 0)]
    }

    fn log(intervals: &[Interval]) -> String {
        let mut writer = IntervalLogWriter::new(Vec::new());
        intervals
            .iter()
            .for_each(|interval| writer.write(interval).unwrap());
        String::from_utf8(writer.finish("the end").unwrap()).unwrap()
    }

    #[test]
    fn log_has_the_lines_of_the_reference_implementation() {
        let log = log(&intervals());
        let lines: Vec<_> = log.lines().collect();
        assert_eq!(lines[0], "#[Histogram log format version 1.3]");
        assert_eq!(
            lines[2],
            "#[StartTime: 1764000000.250 (seconds since epoch)]"
        );
        assert_eq!(
            lines[3],
            "#[BaseTime: 1764000000.000 (seconds since epoch)]"
        );
        assert_eq!(lines[4], TITLE.trim_end());
        for (line, start) in [
            (5, "Tag=response,0.250,0.750,"),
            (6, "Tag=service,0.250,0.750,1000447.000,HISTF"),
            (7, "Tag=response,1.000,1.000,"),
            (9, "Tag=response,3.000,1.000,"),
            (11, "#[End of myapp echo] the end"),
        ] {
            assert!(lines[line].starts_with(start), "{}", lines[line]);
        }
        assert_eq!(lines.len(), 12);
    }

    #[test]
    fn sum_of_a_log_equals_its_intervals() {
        let mut sum = LoggedTimes::default();
        for interval in intervals() {
            sum.response.merge(&interval.response);
            sum.service.merge(&interval.service);
        }
        let log = log(&intervals());
        let (times, text) = LoggedTimes::read(log.as_bytes()).unwrap();
        assert_eq!(text, "the end");
        assert_eq!(times.response, sum.response);
        assert_eq!(times.service, sum.service);
        let empty = self::log(&[]);
        let (times, _) = LoggedTimes::read(empty.as_bytes()).unwrap();
        assert_eq!(times.response.count(), 0);
    }

    #[test]
    fn damaged_log_is_an_error() {
        let log = log(&intervals());
        let error = |log: &str| {
            let error = LoggedTimes::read(log.as_bytes()).unwrap_err();
            error.to_string()
        };
        for end in log.match_indices('\n').map(|(end, _)| end).skip(2) {
            let message = "incomplete: the end of the log is missing";
            assert_eq!(error(&log[..end]), message, "{end}");
        }
        assert_eq!(error("1.0,2.0,3.0,abc\n"), "not an interval log of myapp");
        assert_eq!(error(""), "not an interval log of myapp");
        let damaged = log.replacen("HISTF", "HISTX", 1);
        assert_eq!(error(&damaged), "line 6 is damaged");
        let unknown = log.replace("Tag=service", "Tag=other");
        assert_eq!(error(&unknown), "line 7 is damaged");
        let garbage = log.replace("Tag=service,0.250", "garbage");
        assert_eq!(error(&garbage), "line 7 is damaged");
    }
}
