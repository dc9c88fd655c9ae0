//! File of an earlier download, and whether the server has a newer version.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::download::store::marker::{Marker, MarkerLookup};
use crate::download::transfer::resume::Validators;

/// Version of an existing file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExistingFile {
    etag: Option<String>,
    modified: SystemTime,
    len: u64,
}

impl ExistingFile {
    /// Reads the version of the file at `path`. Returns `None` if it is not a regular file,
    /// or has lost its bytes in a power cut.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok()?;
        if !metadata.is_file() {
            return None;
        }
        let etag = match MarkerLookup::of_path(path) {
            MarkerLookup::Found(Marker::Complete(marker)) if marker.is_lost(&metadata) => {
                return None;
            }
            MarkerLookup::Found(Marker::Complete(marker)) if marker.matches(&metadata) => {
                marker.into_etag()
            }
            _ => None,
        };
        Some(Self {
            etag,
            modified: metadata.modified().ok()?,
            len: metadata.len(),
        })
    }

    /// Returns the header field that requests the file only if it has changed (RFC 9110 sections
    /// 13.1.2 and 13.1.3).
    pub(crate) fn condition(&self) -> (String, String) {
        match &self.etag {
            Some(etag) => ("If-None-Match".to_owned(), etag.clone()),
            None => (
                "If-Modified-Since".to_owned(),
                httpdate::fmt_http_date(self.modified),
            ),
        }
    }

    /// Returns whether the validators of a response match this file. Not every server evaluates
    /// conditions.
    pub(crate) fn matches(&self, validators: &Validators) -> bool {
        if let (Some(ours), Some(theirs)) = (&self.etag, &validators.etag) {
            return ours == theirs;
        }
        let second = |time: SystemTime| {
            let since = time.duration_since(UNIX_EPOCH);
            since.map(|since| since.as_secs()).ok()
        };
        let theirs = validators.modified().and_then(second);
        theirs.is_some() && second(self.modified) == theirs && validators.total == Some(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn existing(etag: Option<&str>) -> ExistingFile {
        let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
        ExistingFile {
            etag: etag.map(str::to_owned),
            modified,
            len: 3,
        }
    }

    fn validators(etag: Option<&str>, modified: &str, total: u64) -> Validators {
        Validators {
            etag: etag.map(str::to_owned),
            last_modified: Some(modified.to_owned()),
            total: Some(total),
            ..Validators::default()
        }
    }

    #[test]
    fn etag_takes_precedence_over_date_and_length() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let other = "Sun, 06 Nov 1994 08:49:38 GMT";
        for (ours, theirs, same) in [
            (Some("a"), validators(Some("a"), other, 9), true),
            (Some("a"), validators(Some("b"), date, 3), false),
            (Some("a"), validators(None, date, 3), true),
            (None, validators(Some("a"), date, 3), true),
            (None, validators(None, date, 4), false),
            (None, validators(None, other, 3), false),
            (None, validators(None, "", 3), false),
        ] {
            assert_eq!(existing(ours).matches(&theirs), same, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn condition_is_the_etag_or_the_date() {
        let condition = |etag| existing(etag).condition().1;
        assert_eq!(condition(Some("\"a\"")), "\"a\"");
        assert_eq!(condition(None), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
