//! Result of a run.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use url::Url;

use crate::checksum::Checksum;
use crate::download::error::FailedItem;
use crate::serialize::{path, seconds, text};

/// Result of a run. Serialized as in the summary of the program, with a list of the failures.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Files saved.
    pub saved: u64,
    /// Files that existed and were not downloaded.
    pub skipped: u64,
    /// Files that failed.
    pub failed: u64,
    /// Downloads in flight when the run was cancelled.
    pub cancelled: u64,
    /// Total length of the saved files in bytes.
    pub bytes: u64,
    /// Duration of the run. Serialized as seconds.
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
    /// Number of concurrent downloads, if it was chosen automatically. Serialized as `auto_jobs`.
    #[serde(rename = "auto_jobs")]
    pub auto_concurrency: Option<AutoConcurrency>,
    /// The first failures, at most [`Report::MAX_FAILURES_KEPT`].
    pub failures: Vec<FailedItem>,
}

/// Automatically chosen number of concurrent downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AutoConcurrency {
    /// Current number, or that at the end.
    pub last: usize,
    /// Highest number so far.
    pub max: usize,
}

/// File that is complete.
#[derive(Debug, Serialize)]
pub struct Saved {
    /// The first URL, before redirects and mirrors.
    #[serde(serialize_with = "text")]
    pub url: Url,
    /// Final path; `None` for a writer.
    #[serde(serialize_with = "path")]
    pub path: Option<PathBuf>,
    /// Length in bytes.
    pub bytes: u64,
    /// Time from the start of the download to the final name. Serialized as seconds.
    #[serde(serialize_with = "seconds")]
    pub elapsed: Duration,
    /// Checksum that was verified, if any.
    pub checksum: Option<Checksum>,
    /// Whether the file existed and was not downloaded.
    pub skipped: bool,
}

impl Report {
    /// Maximum number of failures in a report; further ones are only counted.
    pub const MAX_FAILURES_KEPT: usize = 1000;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::download::error::Error;
    use serde_json::json;

    #[test]
    fn report_is_serialized_with_its_failures() {
        let report = Report {
            failed: 1,
            elapsed: Duration::from_millis(1500),
            failures: vec![FailedItem {
                url: "https://a/f".to_owned(),
                source: Error::TooLarge { limit: 7 },
            }],
            ..Report::default()
        };
        let object = json!(report);
        assert_eq!(object["elapsed"], 1.5);
        assert_eq!(object["auto_jobs"], json!(null));
        assert_eq!(
            object["failures"],
            json!([{ "url": "https://a/f", "error": "longer than 7 bytes" }])
        );
    }

    #[test]
    fn saved_file_is_serialized_with_its_checksum() {
        let checksum = format!("md5={}", "0".repeat(32));
        let saved = Saved {
            url: "https://a/f".parse().unwrap(),
            path: Some("dir/f".into()),
            bytes: 7,
            elapsed: Duration::from_secs(2),
            checksum: checksum.parse().ok(),
            skipped: false,
        };
        assert_eq!(
            json!(saved),
            json!({
                "url": "https://a/f",
                "path": "dir/f",
                "bytes": 7,
                "elapsed": 2.0,
                "checksum": { "algorithm": "md5", "hex": "0".repeat(32) },
                "skipped": false,
            })
        );
    }
}
