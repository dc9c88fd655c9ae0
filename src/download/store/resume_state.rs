//! Resume state of a part (`f.part.json`), from which a later run resumes.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::atomic_file::{TemporaryFile, write_options};
use crate::checksum::hex;
use crate::download::http::redact_url;
use crate::download::store::file_version::FileVersion;
use crate::download::store::marker::Nonce;
use crate::download::store::range_set::RangeSet;
use crate::download::transfer::resume::Validators;

/// Version of the format. Other versions are not read.
const VERSION: u32 = 2;

/// Maximum length of a state file that is read.
const MAX_STATE_LEN: u64 = 256 * 1024;

/// Origin, version and written ranges of a part.
#[derive(Debug, Clone)]
pub(crate) struct ResumeState {
    url: Url,
    /// URL of the response, after redirects.
    final_url: Url,
    pub(crate) validators: Validators,
    /// Written ranges: start and end (exclusive). A file that is written sequentially has one, a
    /// file with gaps at least two.
    ranges: Vec<(u64, u64)>,
    /// Checksum, as `ALGORITHM=HEX`, that must verify bytes of several sources.
    pub(crate) required_checksum: Option<String>,
    /// Nonce of the part; `None` without extended attributes.
    pub(crate) nonce: Option<Nonce>,
    /// Existing file whose bytes the part starts with, and which it replaces when it is complete.
    pub(crate) continued: Option<FileVersion>,
}

/// Format of the state file. Only created when a state is saved: most downloads need none. It
/// contains no secrets: URLs are saved without user, password and query, and digests of the
/// first URL identify it.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    version: u32,
    url: String,
    url_sha256: String,
    /// Digest of the first URL without its query; missing in states of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path_sha256: Option<String>,
    final_url: String,
    #[serde(flatten)]
    validators: Cow<'a, Validators>,
    ranges: Cow<'a, [(u64, u64)]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    required_checksum: Option<Cow<'a, str>>,
    nonce: Option<Nonce>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    continued: Option<FileVersion>,
}

/// Failure to load a resume state.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("it has no resume state")]
    Missing,
    #[error("it belongs to another URL")]
    OtherUrl,
    /// Only the query of the URL is another one, as that of a signed link that was renewed.
    #[error("it belongs to a URL with another query")]
    OtherQuery,
    #[error("its resume state belongs to another file")]
    OtherPart,
    #[error("its resume state is damaged")]
    Damaged,
    /// The file is empty or reads as zeros, as after a power cut.
    #[error("its resume state was lost")]
    Lost,
    #[error("its resume state has an unsupported version")]
    UnsupportedVersion,
}

impl ResumeState {
    /// Creates the state of an empty part.
    pub(crate) fn new(url: &Url, final_url: &Url, validators: Validators) -> Self {
        Self {
            url: url.clone(),
            final_url: final_url.clone(),
            validators,
            ranges: vec![(0, 0)],
            required_checksum: None,
            nonce: None,
            continued: None,
        }
    }

    /// Sets the written bytes: `ranges` of a file with gaps, else the first `prefix_len` bytes.
    pub(crate) fn set_written(&mut self, prefix_len: u64, ranges: Option<&RangeSet>) {
        self.ranges = match ranges {
            None => vec![(0, prefix_len)],
            Some(ranges) => ranges.to_list(self.validators.total.unwrap_or(u64::MAX)),
        };
    }

    /// Returns the written ranges of a file with gaps.
    pub(crate) fn ranges(&self) -> Option<RangeSet> {
        if self.ranges.len() > 1 {
            RangeSet::from_list(&self.ranges)
        } else {
            None
        }
    }

    /// Returns whether bytes of a file with gaps are written.
    fn claims_gaps(&self) -> bool {
        self.ranges.len() > 1 && self.ranges.iter().any(|(start, end)| start < end)
    }

    /// Loads the state of the part at the path `part`, which must belong to `url`. The caller
    /// compares the nonce with that of the part.
    pub(crate) fn load(part: &Path, url: &Url) -> Result<Self, StateError> {
        Record::read_version(part)?.into_state(url)
    }

    /// Loads the state of a part of another query as [`ResumeState::load`] does, and makes it one of
    /// `url`.
    pub(crate) fn load_other_query(part: &Path, url: &Url) -> Result<Self, StateError> {
        let record = Record::read_version(part)?;
        if !record.is_of_other_query(url) {
            return Err(StateError::OtherUrl);
        }
        let url_sha256 = digest(url);
        Record {
            url_sha256,
            ..record
        }
        .into_state(url)
    }

    /// Returns whether the part at the path `part` belongs to a URL that differs from `url` in its
    /// query.
    pub(crate) fn is_of_other_query(part: &Path, url: &Url) -> bool {
        Record::read_version(part).is_ok_and(|record| record.is_of_other_query(url))
    }

    /// Returns whether a state can be saved for a part at the path `part`: no file has its name,
    /// or only a state of this program.
    pub(crate) fn is_name_available(part: &Path) -> bool {
        let path = state_path(part);
        fs::symlink_metadata(&path).is_err() || Record::read(&path).is_ok()
    }

    /// Returns whether the part at the path `part` has a state of this program.
    pub(crate) fn exists(part: &Path) -> bool {
        Record::read(&state_path(part)).is_ok()
    }

    /// Returns the nonce in the state of the part at the path `part`.
    pub(crate) fn nonce_of(part: &Path) -> Option<Nonce> {
        Record::read(&state_path(part)).ok()?.nonce
    }

    /// Returns whether the state of the part at the path `part` was lost in a power cut.
    pub(crate) fn is_lost(part: &Path) -> bool {
        matches!(Record::read(&state_path(part)), Err(StateError::Lost))
    }

    fn to_record(&self) -> Record<'_> {
        Record {
            version: VERSION,
            url: redact_url(&self.url),
            url_sha256: digest(&self.url),
            path_sha256: Some(path_digest(&self.url)),
            final_url: redact_url(&self.final_url),
            validators: Cow::Borrowed(&self.validators),
            ranges: Cow::Borrowed(&self.ranges),
            required_checksum: self.required_checksum.as_deref().map(Cow::Borrowed),
            nonce: self.nonce,
            continued: self.continued,
        }
    }

    /// Saves the state of the part at the path `part`. With `replace`, the saved state is replaced
    /// atomically; without, a file of the same name is an error.
    pub(crate) fn save(&self, part: &Path, replace: bool) -> io::Result<()> {
        let text = serde_json::to_vec(&self.to_record())?;
        let path = state_path(part);
        let options = write_options(false);
        let (mut file, temporary) = TemporaryFile::create_beside(&path, &options)?;
        file.write_all(&text)?;
        // After a power cut, the name would else lead to an empty file.
        if self.claims_gaps() {
            file.sync_data()?;
        }
        if replace {
            temporary.rename_to(&path)
        } else {
            temporary.rename_to_free(&path)
        }
    }

    /// Removes the state of the part at the path `part`, if it is a state of this program.
    pub(crate) fn remove(part: &Path) {
        Self::remove_or_lost(part, || false);
    }

    /// Removes the state as [`ResumeState::remove`] does. If its bytes were lost in a power cut,
    /// it is removed if `is_own` returns true.
    pub(crate) fn remove_or_lost(part: &Path, is_own: impl FnOnce() -> bool) {
        let path = state_path(part);
        let is_removed = match Record::read(&path) {
            Ok(_) => true,
            Err(StateError::Lost) => is_own(),
            Err(_) => false,
        };
        if is_removed {
            // A state that cannot be removed fits no later part, so it is ignored.
            let _ = fs::remove_file(path);
        }
    }
}

impl Record<'_> {
    /// Reads the file at `path`.
    fn read(path: &Path) -> Result<Self, StateError> {
        let text = read(path).map_err(|_| StateError::Damaged)?;
        let text = text.ok_or(StateError::Missing)?;
        if text.iter().all(|&byte| byte == 0) {
            return Err(StateError::Lost);
        }
        serde_json::from_slice(&text).map_err(|_| StateError::Damaged)
    }

    /// Reads the state of the part at the path `part`, of the current version.
    fn read_version(part: &Path) -> Result<Self, StateError> {
        let record = Self::read(&state_path(part))?;
        if record.version == VERSION {
            Ok(record)
        } else {
            Err(StateError::UnsupportedVersion)
        }
    }

    fn is_of_other_query(&self, url: &Url) -> bool {
        let has_path = |path: &String| *path == path_digest(url);
        self.url_sha256 != digest(url) && self.path_sha256.as_ref().is_some_and(has_path)
    }

    fn into_state(self, url: &Url) -> Result<ResumeState, StateError> {
        if self.is_of_other_query(url) {
            return Err(StateError::OtherQuery);
        }
        if self.url_sha256 != digest(url) {
            return Err(StateError::OtherUrl);
        }
        if RangeSet::from_list(&self.ranges).is_none() {
            return Err(StateError::Damaged);
        }
        Ok(ResumeState {
            url: url.clone(),
            final_url: Url::parse(&self.final_url).map_err(|_| StateError::Damaged)?,
            validators: self.validators.into_owned(),
            ranges: self.ranges.into_owned(),
            required_checksum: self.required_checksum.map(Cow::into_owned),
            nonce: self.nonce,
            continued: self.continued,
        })
    }
}

/// Returns the path of the state: `f.part.json` of `f.part`.
fn state_path(part: &Path) -> PathBuf {
    let mut path = part.as_os_str().to_owned();
    path.push(".json");
    path.into()
}

/// Reads a file that belongs to this user. Returns `None` if it does not exist.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !is_own_file(&file)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut text = Vec::new();
    file.take(MAX_STATE_LEN).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// Returns whether a file is a regular file of this user without further hard links. In a
/// directory that others can write to, they could otherwise plant the first bytes of a download.
pub(crate) fn is_own_file(file: &File) -> io::Result<bool> {
    let data = file.metadata()?;
    Ok(data.is_file() && data.nlink() == 1 && data.uid() == geteuid().as_raw())
}

fn digest(url: &Url) -> String {
    let mut url = url.clone();
    // A short password could be guessed from the digest. Neither call fails for an http URL.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    hex(&Sha256::digest(url.as_str()))
}

/// Returns the digest of a URL without its query.
fn path_digest(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    digest(&url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn state(at: &str) -> ResumeState {
        let validators = Validators {
            total: Some(9),
            etag: Some("\"a\"".into()),
            ..Validators::default()
        };
        let mut state = ResumeState::new(&url(at), &url("http://b/g?token=secret"), validators);
        state.set_written(7, None);
        state
    }

    #[test]
    fn saved_state_is_loaded_for_the_same_url_only() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("f.part");
        let first = url("http://user:secret@a/f?x=secret#y");
        let saved = state(first.as_str());
        saved.save(&part, true).unwrap();
        let loaded = ResumeState::load(&part, &url("http://a/f?x=secret")).unwrap();
        assert_eq!(
            (&loaded.validators, &loaded.ranges),
            (&saved.validators, &saved.ranges)
        );
        for (other, has_same_path) in [
            ("http://a/f?x=other", true),
            ("http://a/f", true),
            ("http://a/g?x=secret", false),
            ("https://a/f?x=secret", false),
        ] {
            let other = url(other);
            let error = ResumeState::load(&part, &other).unwrap_err();
            let is_other_query = matches!(error, StateError::OtherQuery);
            assert_eq!(is_other_query, has_same_path, "{other}");
            let adopted = ResumeState::load_other_query(&part, &other);
            assert_eq!(adopted.is_ok(), has_same_path, "{other}");
        }
        let path = dir.path().join("f.part.json");
        assert!(!fs::read_to_string(&path).unwrap().contains("secret"));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        ResumeState::remove(&part);
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    }

    #[test]
    fn damaged_state_differs_from_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let part = dir.path().join("f.part");
        let load = || ResumeState::load(&part, &url("http://a/f")).unwrap_err();
        assert!(matches!(load(), StateError::Missing));
        state("http://a/f").save(&part, true).unwrap();
        let path = dir.path().join("f.part.json");
        let good = fs::read_to_string(&path).unwrap();
        for (text, damaged) in [
            (good[..good.len() / 2].to_owned(), true),
            ("{}".to_owned(), true),
            (good.replace("[[0,7]]", "[[0,5],[3,7]]"), true),
            (good.replace("[[0,7]]", "[[1,7]]"), true),
            (good.replace("\"version\":2", "\"version\":1"), false),
        ] {
            assert_ne!(text, good);
            fs::write(&path, &text).unwrap();
            assert_eq!(matches!(load(), StateError::Damaged), damaged, "{text}");
        }
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(load(), StateError::Damaged));
    }
}
