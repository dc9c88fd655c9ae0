//! Extended attribute that identifies the files of this program.
//!
//! A part and its resume state share a random nonce, so that files that someone else placed under
//! their names are never resumed, replaced or removed. A complete file records its length,
//! modification time and ETag, so that a later run recognises it without a request.

use std::fs::{File, Metadata};
use std::io;
use std::num::ParseIntError;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{XattrFlags, fgetxattr, fsetxattr, getxattr};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// Name of the extended attribute.
const ATTRIBUTE: &str = "user.myapp.download";

/// Maximum length of a stored ETag in bytes.
const MAX_ETAG_LEN: usize = 1024;

/// Maximum length of the attribute value in bytes.
const MAX_VALUE_LEN: usize = MAX_ETAG_LEN + 128;

/// Random number that a part and its resume state share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Nonce(u128);

/// Content of the attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Marker {
    /// Incomplete file.
    Part(Nonce),
    /// Complete file.
    Complete(CompleteMarker),
}

/// Version of a complete file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompleteMarker {
    len: u64,
    /// Modification time in seconds and nanoseconds since 1970.
    modified: (i64, i64),
    /// Nonce of the part that the file was.
    nonce: Option<Nonce>,
    etag: Option<String>,
}

/// Result of reading the attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MarkerLookup {
    Found(Marker),
    /// The file has no attribute, or one of another version.
    Missing,
    /// The file system does not support extended attributes.
    Unsupported,
}

impl Nonce {
    /// Marks a file as a part with a new nonce. Returns `None` if the file system does not support
    /// extended attributes.
    pub(crate) fn mark(file: &File) -> Option<Self> {
        let nonce = Self(fastrand::u128(..));
        Marker::Part(nonce).write(file).ok()?;
        Some(nonce)
    }
}

impl From<Nonce> for String {
    fn from(Nonce(nonce): Nonce) -> Self {
        format!("{nonce:032x}")
    }
}

impl TryFrom<String> for Nonce {
    type Error = ParseIntError;

    fn try_from(text: String) -> Result<Self, ParseIntError> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

impl CompleteMarker {
    /// Creates the marker of a complete file with its current length and modification time.
    fn new(metadata: &Metadata, nonce: Option<Nonce>, etag: Option<&str>) -> Self {
        Self {
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            nonce,
            etag: etag
                .filter(|etag| etag.len() <= MAX_ETAG_LEN)
                .map(str::to_owned),
        }
    }

    /// Marks a file as complete. Without extended attributes, nothing happens.
    pub(crate) fn mark(file: &File, nonce: Option<Nonce>, etag: Option<&str>) -> io::Result<()> {
        let marker = Marker::Complete(Self::new(&file.metadata()?, nonce, etag));
        let _ = marker.write(file);
        Ok(())
    }

    /// Returns whether the file was not changed since it was marked.
    pub(crate) fn matches(&self, metadata: &Metadata) -> bool {
        self.len == metadata.len() && self.modified == (metadata.mtime(), metadata.mtime_nsec())
    }

    /// Returns whether the file was not changed, but lost its bytes in a power cut: the file
    /// system had written its attributes only.
    pub(crate) fn is_lost(&self, metadata: &Metadata) -> bool {
        let is_unchanged = self.modified == (metadata.mtime(), metadata.mtime_nsec());
        is_unchanged && metadata.len() == 0 && self.len > 0
    }

    pub(crate) fn nonce(&self) -> Option<Nonce> {
        self.nonce
    }

    pub(crate) fn into_etag(self) -> Option<String> {
        self.etag
    }
}

impl Marker {
    fn write(&self, file: &File) -> rustix::io::Result<()> {
        fsetxattr(
            file,
            ATTRIBUTE,
            self.to_text().as_bytes(),
            XattrFlags::empty(),
        )
    }

    fn to_text(&self) -> String {
        match self {
            Self::Part(nonce) => format!("1 part {}", String::from(*nonce)),
            Self::Complete(CompleteMarker {
                len,
                modified: (seconds, nanos),
                nonce,
                etag,
            }) => {
                let nonce = nonce.map_or_else(|| "-".to_owned(), String::from);
                let etag = etag.as_deref().unwrap_or_default();
                format!("1 complete {len} {seconds} {nanos} {nonce} {etag}")
            }
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("1 ")?;
        if let Some(nonce) = rest.strip_prefix("part ") {
            return Some(Self::Part(nonce.to_owned().try_into().ok()?));
        }
        let mut fields = rest.strip_prefix("complete ")?.splitn(5, ' ');
        let mut next = || fields.next();
        let len = next()?.parse().ok()?;
        let seconds = next()?.parse().ok()?;
        let nanos = next()?.parse().ok()?;
        let nonce = match next()? {
            "-" => None,
            nonce => Some(nonce.to_owned().try_into().ok()?),
        };
        let etag = next()?;
        Some(Self::Complete(CompleteMarker {
            len,
            modified: (seconds, nanos),
            nonce,
            etag: (!etag.is_empty()).then(|| etag.to_owned()),
        }))
    }
}

impl MarkerLookup {
    /// Reads the attribute of an open file.
    pub(crate) fn of_file(file: impl AsFd) -> Self {
        let mut value = [0; MAX_VALUE_LEN];
        let read = fgetxattr(file, ATTRIBUTE, &mut value[..]);
        Self::from_value(read.map(|len| &value[..len]))
    }

    /// Reads the attribute of the file at `path`.
    pub(crate) fn of_path(path: &Path) -> Self {
        let mut value = [0; MAX_VALUE_LEN];
        let read = getxattr(path, ATTRIBUTE, &mut value[..]);
        Self::from_value(read.map(|len| &value[..len]))
    }

    fn from_value(value: rustix::io::Result<&[u8]>) -> Self {
        let text = match value {
            Ok(value) => std::str::from_utf8(value).ok(),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Self::Unsupported,
            Err(_) => None,
        };
        text.and_then(Marker::parse)
            .map_or(Self::Missing, Self::Found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marker_is_parsed_as_written() {
        let complete = |nonce: Option<Nonce>, etag: Option<&str>| {
            Marker::Complete(CompleteMarker {
                len: 7,
                modified: (-1, 999),
                nonce,
                etag: etag.map(str::to_owned),
            })
        };
        for marker in [
            Marker::Part(Nonce(u128::MAX)),
            Marker::Part(Nonce(1)),
            complete(None, None),
            complete(Some(Nonce(7)), Some("W/\"a b\"")),
        ] {
            assert_eq!(Marker::parse(&marker.to_text()), Some(marker));
        }
        for text in ["", "2 part 1", "1 part x", "1 complete 1 2", "1 other"] {
            assert_eq!(Marker::parse(text), None, "{text}");
        }
    }

    #[test]
    fn changed_file_does_not_match_its_marker() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "abc").unwrap();
        CompleteMarker::mark(file.as_file(), None, Some("\"a\"")).unwrap();
        let MarkerLookup::Found(Marker::Complete(marker)) = MarkerLookup::of_path(file.path())
        else {
            panic!("this file system has no extended attributes")
        };
        let metadata = || file.as_file().metadata().unwrap();
        assert!(marker.matches(&metadata()));
        assert!(!marker.is_lost(&metadata()));
        let modified = metadata().modified().unwrap();
        file.as_file().set_len(0).unwrap();
        assert!(!marker.is_lost(&metadata()), "somebody truncated it");
        file.as_file().set_modified(modified).unwrap();
        assert!(marker.is_lost(&metadata()));
        let later = metadata().modified().unwrap() + std::time::Duration::from_nanos(1_000_000);
        file.as_file().set_modified(later).unwrap();
        assert!(!marker.matches(&metadata()));
        assert_eq!(marker.into_etag().as_deref(), Some("\"a\""));
    }
}
