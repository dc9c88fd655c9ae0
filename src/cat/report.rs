//! Events and results of a run.

use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::error::Error;
use super::source::Source;
use crate::serialize::seconds;

/// Event of a run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Number of bytes read so far, of all inputs whose turn has begun. Sent every few
    /// milliseconds.
    Progress(u64),
    /// An input could not be read to its end; the run continues with the next one.
    Failed(Error),
    /// Something that the caller should know and that does not fail the run.
    Warning(Error),
    /// An input was read to its end. A followed input, for the first time.
    FileDone(FileDone),
    /// A followed file was truncated or replaced, or its name has changed.
    FileChanged {
        /// The input.
        source: Source,
        /// The change.
        change: FileChange,
    },
}

/// Change of a followed file other than by appended data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileChange {
    /// The file has become shorter. It is read from its start.
    #[error("file truncated")]
    Truncated,
    /// The name refers to a new file, which is followed.
    #[error("replaced, following the new file")]
    Replaced,
    /// The name refers to no file that can be followed. The old file is still followed.
    #[error("has become inaccessible")]
    Inaccessible(#[source] io::Error),
    /// The name refers to a file again, which is followed.
    #[error("has appeared, following the file")]
    Appeared,
}

/// Result of an input that was read to its end.
#[derive(Debug)]
pub struct FileDone {
    /// The input.
    pub source: Source,
    /// Time at which it was opened.
    pub opened_at: Instant,
    /// Time at which its end was read.
    pub finished_at: Instant,
    /// Number of bytes read.
    pub bytes: u64,
}

/// Result of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Number of inputs that were read to their end.
    pub files: u64,
    /// Number of inputs that failed.
    pub failed: u64,
    /// Number of bytes read.
    pub read: u64,
    /// Number of bytes written to each output.
    pub written: u64,
    /// Checksum of the written bytes in hexadecimal, with [`Config::checksum`](super::Config::checksum).
    pub checksum: Option<String>,
    /// Duration of the run. Serialized as seconds.
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn report_is_serialized_with_seconds() {
        let report = Report {
            files: 2,
            elapsed: Duration::from_millis(250),
            ..Report::default()
        };
        assert_eq!(
            json!(report),
            json!({
                "files": 2,
                "failed": 0,
                "read": 0,
                "written": 0,
                "checksum": null,
                "elapsed": 0.25,
            })
        );
    }
}
