//! Existing files that this program did not complete.
//!
//! Such a file may be a truncated download of another program. A download continues it only if
//! there is evidence that its bytes are those of the server, and never changes it: the bytes are
//! copied into a part, which replaces the file when it is complete.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags, open, seek};

use crate::download::store::file_version::FileVersion;
use crate::download::store::marker::CompleteMarker;
use crate::download::store::part_file::exists;
use crate::download::store::resume_state::is_own_file;

/// Length of the samples that are compared.
const SAMPLE_LEN: u64 = 64 * 1024;

/// Length of a block that has probably never been written if it contains only zeros.
const BLOCK_LEN: usize = 4096;

/// Length of the buffer in which blocks are searched.
const READ_BUFFER_LEN: usize = 64 * BLOCK_LEN;

/// Minimum time between the last change on the server and the creation of a file that has the
/// bytes of that version. The resolution of `Last-Modified` is one second; clocks differ by more.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Suffixes of the control files that aria2 and axel keep beside an incomplete file.
const CONTROL_SUFFIXES: [&str; 2] = [".aria2", ".st"];

/// Existing file that this program did not complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignFile {
    pub(crate) path: PathBuf,
    pub(crate) len: u64,
    /// Whether the file system has extended attributes, by which complete files are recognised.
    pub(crate) can_be_marked: bool,
}

/// Reason for which an existing file is not continued.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Doubt {
    #[error("it is longer than the file of the server")]
    Longer,
    #[error("it differs from the file of the server at offset {offset}")]
    Differs { offset: u64 },
    #[error("{name} beside it shows that another program has not completed it")]
    ControlFile { name: String },
    #[error("the file system has no extended attributes")]
    NoAttributes,
    #[error("the server does not state the length")]
    UnknownLength,
    #[error("the server does not send the ranges that would be compared")]
    NoRanges,
    #[error("the file of the server may be newer")]
    Newer,
    #[error("its time of creation is unknown")]
    UnknownAge,
    #[error("it has other hard links or another owner")]
    NotOwn,
    #[error("it is empty")]
    Empty,
    #[error("its bytes are too uniform to compare")]
    Uniform,
    #[error("it has a hole or a block of zeros")]
    Zeros,
    #[error("the server has no strong validator for the rest")]
    NoValidator,
    #[error("the response may be compressed")]
    Compressed,
    #[error("it has changed")]
    Changed,
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl Doubt {
    /// Returns whether the file is certainly not the complete file of the server.
    pub(crate) fn is_contradiction(&self) -> bool {
        matches!(
            self,
            Self::Longer | Self::Differs { .. } | Self::ControlFile { .. }
        )
    }
}

/// Open file that this program did not complete.
#[derive(Debug)]
pub(crate) struct OpenForeignFile {
    file: File,
    version: FileVersion,
    len: u64,
    created: Option<SystemTime>,
}

/// Bytes that are compared with those of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) offset: u64,
    pub(crate) bytes: Vec<u8>,
}

impl ForeignFile {
    /// Opens the file. A symbolic link is refused.
    pub(crate) fn open(&self) -> Result<OpenForeignFile, Doubt> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = open(&self.path, flags, Mode::empty());
        let file = File::from(opened.map_err(io::Error::from)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() != self.len {
            return Err(Doubt::Changed);
        }
        Ok(OpenForeignFile {
            version: FileVersion::new(&metadata),
            len: self.len,
            created: metadata.created().ok(),
            file,
        })
    }

    /// Returns the name of a control file of another program beside the file.
    pub(crate) fn control_file(&self) -> Option<String> {
        let name = self.path.file_name()?.to_string_lossy();
        let mut names = CONTROL_SUFFIXES
            .iter()
            .map(|suffix| format!("{name}{suffix}"));
        names.find(|name| exists(&self.path.with_file_name(name)))
    }
}

impl OpenForeignFile {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn version(&self) -> FileVersion {
        self.version
    }

    /// Returns a reason for which samples would not prove that the file has the bytes of a version
    /// that was last `modified` at this time.
    pub(crate) fn doubt(&self, modified: Option<SystemTime>) -> Option<Doubt> {
        if self.len == 0 {
            return Some(Doubt::Empty);
        }
        // In a directory that others can write to, they could plant the bytes between the samples.
        if !is_own_file(&self.file).unwrap_or(false) {
            return Some(Doubt::NotOwn);
        }
        let Some(created) = self.created else {
            return Some(Doubt::UnknownAge);
        };
        let age = modified.and_then(|modified| created.duration_since(modified).ok());
        if age.is_none_or(|age| age < MIN_AGE) {
            return Some(Doubt::Newer);
        }
        None
    }

    /// Reads the samples: the complete file if it is short.
    pub(crate) fn samples(&self) -> io::Result<Vec<Sample>> {
        let mut samples = Vec::new();
        let len = self.len.min(SAMPLE_LEN) as usize;
        for offset in sample_offsets(self.len) {
            let mut bytes = vec![0; len];
            self.file.read_exact_at(&mut bytes, offset)?;
            samples.push(Sample { offset, bytes });
        }
        Ok(samples)
    }

    /// Returns whether the samples contain the complete file.
    pub(crate) fn is_sampled_completely(&self) -> bool {
        self.len <= SAMPLE_LEN
    }

    /// Returns a reason for which bytes between the samples may never have been written: a file
    /// that was preallocated, or whose data was lost in a power cut, has holes or zeros. Reads the
    /// complete file.
    pub(crate) fn doubt_of_content(&self) -> Option<Doubt> {
        // Where holes are not supported, the first one is at the end, or the call fails.
        let hole = seek(&self.file, rustix::fs::SeekFrom::Hole(0));
        if hole.is_ok_and(|offset| offset < self.len) {
            return Some(Doubt::Zeros);
        }
        match self.has_zero_block() {
            Ok(true) => Some(Doubt::Zeros),
            Ok(false) => None,
            Err(error) => Some(error.into()),
        }
    }

    fn has_zero_block(&self) -> io::Result<bool> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut buffer = Vec::with_capacity(READ_BUFFER_LEN);
        loop {
            buffer.clear();
            file.take(READ_BUFFER_LEN as u64).read_to_end(&mut buffer)?;
            if buffer.is_empty() {
                return Ok(false);
            }
            let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
            if buffer.chunks_exact(BLOCK_LEN).any(is_zero) {
                return Ok(true);
            }
        }
    }

    /// Copies the file to the start of another one, as a reflink where the file system has them.
    pub(crate) fn copy_to(&self, part: &File) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0))?;
        let mut part = part;
        part.seek(SeekFrom::Start(0))?;
        let copied = io::copy(&mut file.take(self.len), &mut part)?;
        if copied < self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Marks the file as complete, unless it has changed since it was opened. Returns whether it
    /// has not.
    pub(crate) fn mark_complete(&self, etag: Option<&str>) -> bool {
        let metadata = self.file.metadata();
        metadata.is_ok_and(|metadata| FileVersion::new(&metadata) == self.version)
            && CompleteMarker::mark(&self.file, None, etag).is_ok()
    }
}

impl Sample {
    /// Returns whether all bytes are the same, so that another file may easily have them as well.
    pub(crate) fn is_uniform(&self) -> bool {
        self.bytes
            .iter()
            .all(|byte| Some(byte) == self.bytes.first())
    }
}

/// Returns the offsets of samples at the start, in the middle and at the end of a file.
fn sample_offsets(len: u64) -> Vec<u64> {
    if len == 0 {
        return Vec::new();
    }
    let last = len.saturating_sub(SAMPLE_LEN);
    let mut offsets = vec![0, last / 2, last];
    offsets.dedup();
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn open_with(content: &[u8]) -> (tempfile::NamedTempFile, OpenForeignFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        let foreign = ForeignFile {
            path: file.path().to_owned(),
            len: content.len() as u64,
            can_be_marked: true,
        };
        let open = foreign.open().unwrap();
        (file, open)
    }

    #[test]
    fn samples_cover_start_middle_and_end() {
        assert_eq!(sample_offsets(0), [0; 0]);
        assert_eq!(sample_offsets(1), [0]);
        assert_eq!(sample_offsets(SAMPLE_LEN), [0]);
        assert_eq!(sample_offsets(SAMPLE_LEN + 1), [0, 1]);
        assert_eq!(
            sample_offsets(10 * SAMPLE_LEN),
            [0, 9 * SAMPLE_LEN / 2, 9 * SAMPLE_LEN]
        );
    }

    #[test]
    fn aligned_block_of_zeros_is_found() {
        let mut content = vec![1; 10 * READ_BUFFER_LEN];
        let start = 7 * READ_BUFFER_LEN + BLOCK_LEN;
        content[start + 1..start + BLOCK_LEN].fill(0);
        assert!(open_with(&content).1.doubt_of_content().is_none());
        content[start] = 0;
        let doubt = open_with(&content).1.doubt_of_content();
        assert!(matches!(doubt, Some(Doubt::Zeros)), "{doubt:?}");
    }

    #[test]
    fn changed_file_is_neither_marked_nor_copied() {
        let (file, open) = open_with(b"abc");
        assert!(open.mark_complete(None));
        fs::write(file.path(), "a").unwrap();
        assert!(!open.mark_complete(None));
        assert!(!open.version().is_at(file.path()));
        assert!(open.copy_to(&tempfile::tempfile().unwrap()).is_err());
    }
}
