//! The file that an earlier run has fetched, and whether the server has another by now.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{XattrFlags, fsetxattr, getxattr};

use crate::download::transfer::resume::Validators;

/// Under this name a file keeps its ETag, where the file system can.
const ETAG: &str = "user.myapp.etag";

/// A longer ETag is not kept.
const LONGEST: usize = 1024;

/// What is known of the file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Previous {
    etag: Option<String>,
    modified: SystemTime,
    length: u64,
}

impl Previous {
    /// Looks at the file at `path`; `None` if there is no plain one.
    pub(crate) fn look(path: &Path) -> Option<Self> {
        let data = fs::symlink_metadata(path)
            .ok()
            .filter(fs::Metadata::is_file)?;
        let mut value = vec![0; LONGEST];
        let read = getxattr(path, ETAG, &mut value[..]).ok();
        let etag = read.and_then(|count| String::from_utf8(value[..count].to_vec()).ok());
        Some(Self {
            etag,
            modified: data.modified().ok()?,
            length: data.len(),
        })
    }

    /// The field that asks for the file only if it is another by now (RFC 9110 sections 13.1.2
    /// and 13.1.3).
    pub(crate) fn condition(&self) -> (String, String) {
        match &self.etag {
            Some(etag) => ("If-None-Match".to_owned(), etag.clone()),
            None => (
                "If-Modified-Since".to_owned(),
                httpdate::fmt_http_date(self.modified),
            ),
        }
    }

    /// Whether what a server tells of its file fits the one that is there: not every server
    /// heeds a condition.
    pub(crate) fn is(&self, known: &Validators) -> bool {
        match (&self.etag, &known.etag) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => {
                let second = |time: SystemTime| {
                    time.duration_since(UNIX_EPOCH)
                        .map(|since| since.as_secs())
                        .ok()
                };
                let theirs = known.modified().and_then(second);
                theirs.is_some()
                    && second(self.modified) == theirs
                    && known.total == Some(self.length)
            }
        }
    }
}

/// Keeps the ETag with the file, where the file system can; else date and length must do.
pub(crate) fn keep_etag(file: impl AsFd, etag: &str) {
    if etag.len() <= LONGEST {
        let _ = fsetxattr(file, ETAG, etag.as_bytes(), XattrFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn previous(etag: Option<&str>) -> Previous {
        let modified = UNIX_EPOCH + Duration::from_secs(784_111_777);
        Previous {
            etag: etag.map(str::to_owned),
            modified,
            length: 3,
        }
    }

    fn known(etag: Option<&str>, modified: &str, total: u64) -> Validators {
        Validators {
            etag: etag.map(str::to_owned),
            last_modified: Some(modified.to_owned()),
            total: Some(total),
            ..Validators::default()
        }
    }

    #[test]
    fn an_etag_counts_before_date_and_length() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let other = "Sun, 06 Nov 1994 08:49:38 GMT";
        for (ours, theirs, same) in [
            (Some("a"), known(Some("a"), other, 9), true),
            (Some("a"), known(Some("b"), date, 3), false),
            (Some("a"), known(None, date, 3), true),
            (None, known(Some("a"), date, 3), true),
            (None, known(None, date, 4), false),
            (None, known(None, other, 3), false),
            (None, known(None, "", 3), false),
        ] {
            assert_eq!(previous(ours).is(&theirs), same, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn the_condition_is_the_etag_or_the_date() {
        let condition = |etag| previous(etag).condition().1;
        assert_eq!(condition(Some("\"a\"")), "\"a\"");
        assert_eq!(condition(None), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
