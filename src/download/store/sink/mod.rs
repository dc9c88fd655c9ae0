//! Destination of the bytes of one file, with its resume state.
//!
//! The bytes are written sequentially, unless several connections receive one file: then each
//! segment is written at its offset. From the first write that may leave a gap on, the saved
//! ranges are authoritative, not the length of the file.
//!
//! A sink is shared by the task that reads a body and the thread that writes it, and it outlives
//! both when they are cancelled: the written bytes are known at any time.

mod checkpoint;
mod destination;
mod layout;
mod reservation;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::checksum::{Algorithm, Hasher};
use crate::download::body::pipe::Pipe;
use crate::download::error::Error;
use crate::download::store::part_file::OpenPart;
use crate::download::store::resume_state::ResumeState;
use crate::download::store::tmpfile::AnonymousFile;
use crate::download::transfer::resume::Validators;
use checkpoint::Checkpoint;
use destination::Destination;
use reservation::Reservation;

pub(crate) use layout::Layout;

/// Length of the buffer for bytes that are read again.
const READ_BUFFER_LEN: usize = 256 * 1024;

/// Destination of the bytes of one file, with its resume state.
#[derive(Debug)]
pub(crate) struct FileSink(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    destination: Destination,
    layout: Layout,
    checkpoint: Checkpoint,
    digest: Option<RunningDigest>,
    reservation: Option<Reservation>,
}

/// Digest of the first `count` bytes.
#[derive(Debug)]
struct RunningDigest {
    algorithm: Algorithm,
    hasher: Hasher,
    count: u64,
}

/// Construction and final name.
impl FileSink {
    /// Creates a sink for a part of `len` bytes, with its state if it was loaded.
    pub(crate) fn part(
        part: OpenPart,
        path: PathBuf,
        len: u64,
        state: Option<ResumeState>,
    ) -> Self {
        let layout = Layout::new(len, state.as_ref().and_then(ResumeState::ranges));
        let destination = Destination::File {
            file: Arc::new(part.file),
            path,
            anonymous: None,
            nonce: part.nonce,
        };
        Self::new(destination, layout, state)
    }

    /// Creates a sink for an empty anonymous file. It becomes a part at the first checkpoint.
    pub(crate) fn anonymous(file: File, anonymous: AnonymousFile) -> Self {
        let destination = Destination::File {
            file: Arc::new(file),
            path: anonymous.part_path(),
            anonymous: Some(anonymous),
            nonce: None,
        };
        Self::new(destination, Layout::default(), None)
    }

    /// Creates a sink for a writer, whose bytes cannot be undone. `path` is that of a FIFO or device.
    pub(crate) fn writer(writer: Box<dyn Write + Send>, path: Option<PathBuf>) -> Self {
        Self::new(
            Destination::Writer { writer, path },
            Layout::default(),
            None,
        )
    }

    fn new(destination: Destination, layout: Layout, state: Option<ResumeState>) -> Self {
        Self(Mutex::new(Inner {
            destination,
            layout,
            checkpoint: Checkpoint::new(state),
            digest: None,
            reservation: None,
        }))
    }

    /// Returns the path of the part, unless the file is anonymous.
    pub(crate) fn part_path(&self) -> Option<PathBuf> {
        self.lock().destination.part_path().map(Path::to_owned)
    }

    /// Links an anonymous file under its final name, in its directory.
    pub(crate) fn link_final(&self, name: &OsStr) -> rustix::io::Result<()> {
        self.lock().destination.link_final(name)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Content and resume state.
impl FileSink {
    /// Returns the file; `None` of a writer.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        self.lock().destination.file().cloned()
    }

    /// Returns whether the destination is a file, which can be restarted and read.
    pub(crate) fn is_file(&self) -> bool {
        self.lock().destination.file().is_some()
    }

    /// Returns the positions of the written bytes.
    pub(crate) fn layout(&self) -> Layout {
        self.lock().layout.clone()
    }

    /// Returns the number of contiguous bytes from the first one on.
    pub(crate) fn prefix_len(&self) -> u64 {
        self.lock().layout.prefix_len()
    }

    /// Returns the resume state.
    pub(crate) fn state(&self) -> Option<ResumeState> {
        self.lock().checkpoint.state().cloned()
    }

    /// Returns whether a state file exists.
    pub(crate) fn has_saved_state(&self) -> bool {
        self.lock().checkpoint.is_saved()
    }

    /// Returns whether the bytes come from several sources.
    pub(crate) fn has_multiple_sources(&self) -> bool {
        let inner = self.lock();
        let state = inner.checkpoint.state();
        state.is_some_and(|state| state.required_checksum.is_some())
    }

    /// Returns whether the file continues an existing one that is still at `path`.
    pub(crate) fn continues_file_at(&self, path: &Path) -> bool {
        let inner = self.lock();
        let continued = inner.checkpoint.state().and_then(|state| state.continued);
        continued.is_some_and(|version| version.is_at(path))
    }

    /// Replaces the validators of the file. The state is saved before the next write.
    pub(crate) fn update_validators(&self, validators: Validators) {
        let mut inner = self.lock();
        if let Some(state) = inner.checkpoint.state_mut()
            && state.validators != validators
        {
            state.validators = validators;
            inner.checkpoint.set_due();
        }
    }

    /// Records that the bytes come from several sources, so that only this checksum can verify
    /// them, also in a later run. The state is saved before the next write.
    pub(crate) fn require_checksum(&self, checksum: &str) {
        let mut inner = self.lock();
        let has_bytes = inner.layout.prefix_len() > 0 || inner.layout.allows_gaps();
        if let Some(state) = inner.checkpoint.state_mut()
            && has_bytes
            && state.required_checksum.is_none()
        {
            state.required_checksum = Some(checksum.to_owned());
            inner.checkpoint.set_due();
        }
    }

    /// Saves the state for a later run, unless it is saved. Returns whether there are bytes to
    /// resume from. Waits for the disk if the file has gaps.
    pub(crate) fn save_for_resume(&self) -> bool {
        // During a write, the last checkpoint has to suffice.
        let Ok(mut inner) = self.0.try_lock() else {
            return true;
        };
        inner.release_reservation();
        let has_bytes = !inner.layout.is_empty();
        if has_bytes {
            let Inner {
                destination,
                layout,
                checkpoint,
                ..
            } = &mut *inner;
            checkpoint.save_if_changed(destination, layout);
        }
        has_bytes
    }

    /// Enables the digest of the written bytes, or disables it.
    pub(crate) fn set_digest(&self, algorithm: Option<Algorithm>) {
        self.lock().digest = algorithm.map(RunningDigest::new);
    }

    /// Returns whether the digest is enabled.
    pub(crate) fn has_digest(&self) -> bool {
        self.lock().digest.is_some()
    }

    /// Returns the digest of all bytes, if enabled. Bytes that were present before are read.
    pub(crate) fn take_digest(&self) -> io::Result<Option<Vec<u8>>> {
        let mut inner = self.lock();
        let Some(mut digest) = inner.digest.take() else {
            return Ok(None);
        };
        if let Some(file) = inner.destination.file() {
            let mut buffer = vec![0; READ_BUFFER_LEN];
            while digest.count < inner.layout.prefix_len() {
                match file.read_at(&mut buffer, digest.count)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => digest.update(digest.count, &buffer[..count]),
                }
            }
        }
        Ok(Some(digest.hasher.finish()))
    }

    /// Reads the last contiguous bytes, at most `count`; none of a writer.
    pub(crate) fn read_tail(&self, count: u64) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        let Some(file) = inner.destination.file() else {
            return Ok(Vec::new());
        };
        let len = inner.layout.prefix_len();
        let count = count.min(len);
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        file.read_exact_at(&mut bytes, len - count)?;
        Ok(bytes)
    }
}

/// Writes.
impl FileSink {
    /// Discards the bytes that are present; the next ones belong to `state`.
    pub(crate) fn restart(&self, state: ResumeState) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.layout.prefix_len() > 0 || inner.layout.allows_gaps() {
            let Destination::File { file, path, .. } = &inner.destination else {
                return Err(Error::CannotRestartOutput);
            };
            // In this order: the new state must never be beside old bytes, nor bytes without a
            // state.
            file.set_len(0)
                .map_err(|error| inner.destination.write_error(error))?;
            if inner.checkpoint.is_saved() {
                ResumeState::remove(path);
            }
        }
        inner.layout = Layout::default();
        inner.checkpoint.set_state(state);
        inner.restart_digest();
        Ok(())
    }

    /// Discards the bytes of a file.
    pub(crate) fn discard(&self) {
        let mut inner = self.lock();
        if let Destination::File { file, path, .. } = &inner.destination {
            // The part is removed if it has no bytes, also if they cannot be truncated.
            let _ = file.set_len(0);
            if inner.checkpoint.is_saved() {
                ResumeState::remove(path);
            }
            inner.layout = Layout::default();
        }
    }

    /// Continues the part of `other` in place of the own file, which is empty and is removed.
    pub(crate) fn adopt(&self, other: Self) {
        let mut inner = self.lock();
        if let Some(path) = inner.destination.part_path() {
            // It would be an empty file of no use.
            let _ = fs::remove_file(path);
        }
        let digest = inner.digest.take();
        *inner = other.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.digest = digest;
        inner.save_state();
    }

    /// Records the bytes of an existing file, which were copied to the start of this one. They
    /// belong to `state`.
    pub(crate) fn record_copied(&self, len: u64, state: ResumeState) {
        let mut inner = self.lock();
        inner.layout = Layout::new(len, None);
        inner.checkpoint.set_state(state);
        inner.save_state();
    }

    /// Moves the position to the first byte: the bytes that are present are written again.
    pub(crate) fn rewind(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.destination.file().is_none() {
            return Err(Error::CannotRestartOutput);
        }
        inner.layout.rewind();
        inner.restart_digest();
        Ok(())
    }

    /// Moves the position behind the bytes that are present.
    pub(crate) fn seek_to_end(&self) {
        self.lock().layout.seek_to_end();
    }

    /// Allows writes that leave gaps. Returns whether the state could be saved: without it, a
    /// later run would take a gap for bytes.
    pub(crate) fn allow_gaps(&self) -> bool {
        let mut inner = self.lock();
        if !inner.layout.allows_gaps() {
            inner.layout.allow_gaps();
            if !inner.save_state() {
                inner.layout.disallow_gaps();
            }
        }
        inner.layout.allows_gaps()
    }

    /// Checks that the disk has space for a file of `len` bytes, so that a full disk fails at
    /// once, and allocates it in windows ahead of the position.
    pub(crate) fn reserve(&self, len: u64) -> io::Result<()> {
        let mut inner = self.lock();
        let position = inner.layout.position();
        if let Some(file) = inner.destination.file() {
            inner.reservation = Some(Reservation::new(file, position, len)?);
        }
        Ok(())
    }

    /// Returns whether the next bytes may be moved into the file without being read.
    pub(crate) fn can_splice(&self) -> bool {
        let inner = self.lock();
        inner.digest.is_none() && inner.destination.file().is_some()
    }

    /// Moves the next `count` bytes from a pipe into the file.
    pub(crate) fn splice_from(&self, pipe: &Pipe, count: usize) -> io::Result<()> {
        let mut inner = self.lock();
        inner.save_state_if_due();
        inner.extend_reservation()?;
        let Some(file) = inner.destination.file() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        pipe.splice_out(file, inner.layout.position(), count)?;
        inner.layout.record_next(count as u64);
        Ok(())
    }

    /// Writes the next bytes.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.lock().write(bytes)
    }

    /// Writes the next bytes, after a checkpoint if one is due.
    pub(crate) fn write_with_checkpoint(&self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.save_state_if_due();
        inner.write(bytes)
    }

    /// Writes bytes at `position`, after a checkpoint if one is due.
    pub(crate) fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.save_state_if_due();
        inner.write_at(position, bytes)?;
        let end = position + bytes.len() as u64;
        inner.layout.record(position..end);
        Ok(())
    }

    /// Truncates the file behind the last written byte. Returns its length.
    pub(crate) fn finish(&self) -> Result<u64, Error> {
        let mut inner = self.lock();
        let is_longer = inner.layout.finish();
        let len = inner.layout.prefix_len();
        if is_longer && let Some(file) = inner.destination.file() {
            file.set_len(len)
                .map_err(|error| inner.destination.write_error(error))?;
        }
        Ok(len)
    }

    /// Writes the file to the disk. If that fails, or has failed at a checkpoint, the bytes are
    /// discarded: the kernel reports a failed write once, so that a later sync would succeed
    /// although they are lost. Waits for the disk.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        let (file, is_sync_failed) = {
            let inner = self.lock();
            let file = inner.destination.file().cloned();
            (file, inner.checkpoint.is_sync_failed())
        };
        let Some(file) = file else {
            return Ok(());
        };
        let synced = if is_sync_failed {
            Err(io::Error::other("an earlier sync has failed"))
        } else {
            file.sync_all()
        };
        synced.map_err(|error| {
            self.discard();
            self.lock().destination.error("sync", error)
        })
    }

    /// Marks the file as complete, with its current length and modification time.
    pub(crate) fn mark_complete(&self, etag: Option<&str>) -> io::Result<()> {
        self.lock().destination.mark_complete(etag)
    }

    /// Returns the error of a failed write.
    pub(crate) fn write_error(&self, error: io::Error) -> Error {
        self.lock().destination.write_error(error)
    }
}

impl Inner {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend_reservation()?;
        self.write_at(self.layout.position(), bytes)?;
        self.layout.record_next(bytes.len() as u64);
        Ok(())
    }

    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        // A part with bytes and without a state is taken for a file of another program.
        if !self.checkpoint.is_saved() && self.destination.part_path().is_some() {
            self.save_state();
        }
        self.destination.write_at(position, bytes)?;
        if let Some(digest) = &mut self.digest {
            digest.update(position, bytes);
        }
        Ok(())
    }

    fn extend_reservation(&mut self) -> io::Result<()> {
        if let (Some(reservation), Some(file)) = (&mut self.reservation, self.destination.file()) {
            reservation.extend(file, self.layout.position())?;
        }
        Ok(())
    }

    /// Frees the space that is allocated behind the last byte.
    fn release_reservation(&mut self) {
        if self.reservation.take().is_some()
            && let Some(file) = self.destination.file()
            && let Ok(metadata) = file.metadata()
        {
            // Truncating to the same length frees the blocks behind it. Nothing is lost if it
            // fails.
            let _ = file.set_len(metadata.len());
        }
    }

    fn save_state(&mut self) -> bool {
        self.checkpoint.save(&mut self.destination, &self.layout)
    }

    fn save_state_if_due(&mut self) {
        self.checkpoint
            .save_if_due(&mut self.destination, &self.layout);
    }

    fn restart_digest(&mut self) {
        if let Some(digest) = &mut self.digest {
            *digest = RunningDigest::new(digest.algorithm);
        }
    }
}

impl RunningDigest {
    fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            hasher: Hasher::new(algorithm),
            count: 0,
        }
    }

    /// Adds the bytes at `position` if they follow the ones that were added.
    fn update(&mut self, position: u64, bytes: &[u8]) {
        if position == self.count {
            self.hasher.update(bytes);
            self.count += bytes.len() as u64;
        }
    }
}
