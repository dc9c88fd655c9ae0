//! What stands beside a part (`f.part.json`), so that a later run can go on with it.

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

use crate::download::http::redact_url;
use crate::download::store::checksum::hex;
use crate::download::store::range_set::Ranges;
use crate::download::transfer::resume::Validators;

/// Other versions of this format are not read.
const VERSION: u32 = 1;

/// A longer file is none of ours.
const LONGEST: u64 = 256 * 1024;

/// What is known of a part, and which of its bytes are written.
#[derive(Debug, Clone)]
pub(crate) struct State {
    url: Url,
    /// Where the redirects led.
    final_url: Url,
    pub(crate) known: Validators,
    /// The bytes that are written: from the first, up to but not with the second number. A
    /// single range is that of a file written in its order; of one with gaps there are several.
    ranges: Vec<(u64, u64)>,
    /// The checksum that alone can tell whether the bytes belong together, where they came from
    /// several sources.
    pub(crate) held_to: Option<String>,
}

/// The same as it stands in the file, made only when it is saved: most files need none. Secrets
/// are left out: a URL is told without its user, password and query, and known again by its
/// digest.
#[derive(Serialize, Deserialize)]
struct Record<'a> {
    version: u32,
    url: String,
    url_sha256: String,
    final_url: String,
    #[serde(flatten)]
    known: Cow<'a, Validators>,
    ranges: Cow<'a, [(u64, u64)]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held_to: Option<Cow<'a, str>>,
}

/// Why there is no state to go on with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("nothing is known about it")]
    Missing,
    #[error("it belongs to another URL")]
    Other,
    #[error("what is known about it is damaged")]
    Damaged,
    #[error("another version of this program wrote it")]
    Version,
}

impl State {
    pub(crate) fn new(url: &Url, final_url: &Url, known: Validators) -> Self {
        let (url, final_url) = (url.clone(), final_url.clone());
        Self {
            url,
            final_url,
            known,
            ranges: vec![(0, 0)],
            held_to: None,
        }
    }

    /// Notes that the first `count` bytes are written, or, of a file with gaps, these `ranges`.
    pub(crate) fn wrote(&mut self, count: u64, ranges: Option<&Ranges>) {
        self.ranges = match ranges {
            None => vec![(0, count)],
            Some(ranges) => ranges.to_list(self.known.total.unwrap_or(u64::MAX)),
        };
    }

    /// Which bytes are written of a file with gaps.
    pub(crate) fn ranges(&self) -> Option<Ranges> {
        Ranges::of(&self.ranges).filter(|_| self.ranges.len() > 1)
    }

    /// Reads the state of the part at `path`, which is to be one of `url`.
    pub(crate) fn load(part: &Path, url: &Url) -> Result<Self, StateError> {
        let text = read(&beside(part, ".json")).map_err(|_| StateError::Damaged)?;
        let text = text.ok_or(StateError::Missing)?;
        let record: Record<'_> = serde_json::from_slice(&text).map_err(|_| StateError::Damaged)?;
        match (Url::parse(&record.final_url), Ranges::of(&record.ranges)) {
            _ if record.version != VERSION => Err(StateError::Version),
            _ if record.url_sha256 != digest(url) => Err(StateError::Other),
            (Ok(final_url), Some(_)) => {
                let (known, ranges) = (record.known.into_owned(), record.ranges.into_owned());
                let held_to = record.held_to.map(Cow::into_owned);
                Ok(Self {
                    url: url.clone(),
                    final_url,
                    known,
                    ranges,
                    held_to,
                })
            }
            _ => Err(StateError::Damaged),
        }
    }

    /// Whether anything is known about the part at `path`, true or not.
    pub(crate) fn is_there(part: &Path) -> bool {
        fs::symlink_metadata(beside(part, ".json")).is_ok()
    }

    fn to_record(&self) -> Record<'_> {
        Record {
            version: VERSION,
            url: redact_url(&self.url),
            url_sha256: digest(&self.url),
            final_url: redact_url(&self.final_url),
            known: Cow::Borrowed(&self.known),
            ranges: Cow::Borrowed(&self.ranges),
            held_to: self.held_to.as_deref().map(Cow::Borrowed),
        }
    }

    /// Writes the state of the part at `path`: the old one stays until the new one is whole.
    pub(crate) fn save(&self, part: &Path) -> io::Result<()> {
        let text = serde_json::to_vec(&self.to_record())?;
        let (new, path) = (beside(part, ".new"), beside(part, ".json"));
        // Whoever holds the part holds these names too; what a dead run left is overwritten.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        let file = open(&new, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600))?;
        let saved = File::from(file)
            .write_all(&text)
            .and_then(|()| fs::rename(&new, path));
        // On a full disk half a state would only take room.
        saved.inspect_err(|_| drop(fs::remove_file(&new)))
    }

    /// Removes the state of the part at `path`, if there is one.
    pub(crate) fn remove(part: &Path) {
        Self::remove_saved(part);
        Self::remove_unsaved(part);
    }

    /// Removes the state itself: alone where nobody was killed while saving one.
    pub(crate) fn remove_saved(part: &Path) {
        // A state that stays is found out: it fits no part.
        let _ = fs::remove_file(beside(part, ".json"));
    }

    /// Removes what is left of a state by who was killed while saving it.
    pub(crate) fn remove_unsaved(part: &Path) {
        let _ = fs::remove_file(beside(part, ".new"));
    }
}

/// `f.part.json` for `f.part`.
fn beside(part: &Path, ending: &str) -> PathBuf {
    let mut path = part.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Reads a file that this user wrote; `None` if there is none.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !is_ours(&file)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// Whether a file is a plain one that this user owns, with no other name: in a folder that others
/// can write to, they could put bytes of their own at the start of a file.
pub(crate) fn is_ours(file: &File) -> io::Result<bool> {
    let data = file.metadata()?;
    Ok(data.is_file() && data.nlink() == 1 && data.uid() == geteuid().as_raw())
}

fn digest(url: &Url) -> String {
    let mut url = url.clone();
    // A short password could be guessed from a digest. (Neither call fails on an http URL.)
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    hex(&Sha256::digest(url.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    fn state(at: &str) -> State {
        let known = Validators {
            total: Some(9),
            etag: Some("\"a\"".into()),
            ..Validators::default()
        };
        let mut state = State::new(&url(at), &url("http://b/g?token=secret"), known);
        state.wrote(7, None);
        state
    }

    #[test]
    fn what_is_saved_is_loaded_for_the_same_url_alone() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("f.part");
        let first = url("http://user:secret@a/f?x=secret#y");
        let saved = state(first.as_str());
        saved.save(&part).unwrap();
        let loaded = State::load(&part, &url("http://a/f?x=secret")).unwrap();
        assert_eq!(
            (&loaded.known, &loaded.ranges),
            (&saved.known, &saved.ranges)
        );
        let other = State::load(&part, &url("http://a/f?x=other"));
        assert!(matches!(other, Err(StateError::Other)), "{other:?}");
        let path = folder.path().join("f.part.json");
        assert!(!fs::read_to_string(&path).unwrap().contains("secret"));
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        State::remove(&part);
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
    }

    #[test]
    fn what_is_no_state_is_told_from_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("f.part");
        let load = || State::load(&part, &url("http://a/f")).unwrap_err();
        assert!(matches!(load(), StateError::Missing));
        state("http://a/f").save(&part).unwrap();
        let path = folder.path().join("f.part.json");
        let good = fs::read_to_string(&path).unwrap();
        for (text, damaged) in [
            (String::new(), true),
            (good[..good.len() / 2].to_owned(), true),
            ("{}".to_owned(), true),
            (good.replace("[[0,7]]", "[[0,5],[3,7]]"), true),
            (good.replace("[[0,7]]", "[[1,7]]"), true),
            (good.replace("\"version\":1", "\"version\":2"), false),
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
