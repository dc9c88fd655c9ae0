//! Where the bytes of one file are put, and what is noted about them.
//!
//! They come in their order, unless several connections fetch one file: then each is written at
//! its place, and from the first on that could leave a gap, what counts is what was noted, not
//! the file's length.
//!
//! It is shared between the task that reads a body and the thread that writes it, and it outlives
//! both when they are cut off: what has been written is known at any time.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tracing::debug;

use crate::download::body::pipe::Pipe;
use crate::download::error::Error;
use crate::download::store::checksum::{Algorithm, Hasher};
use crate::download::store::existing::keep_etag;
use crate::download::store::range_set::Ranges;
use crate::download::store::resume_state::State;
use crate::download::store::tmpfile::Unnamed;
use crate::download::transfer::resume::Validators;
use crate::error_chain::ErrorChain;

/// How often it is noted how far a part is.
const NOTED: Duration = Duration::from_secs(1);

/// What an earlier run has written is read in pieces of this size.
const READ: usize = 256 * 1024;

/// The bytes of one file so far.
#[derive(Debug)]
pub(crate) struct Store(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    /// Where the next byte goes.
    position: u64,
    /// The bytes that are there from the first on: more than `position` while they are written
    /// once more.
    length: u64,
    /// Which bytes are there, in a file with gaps.
    ranges: Option<Ranges>,
    state: Option<State>,
    noted: Option<Instant>,
    /// Whether a state stands beside the file, or may.
    is_noted: bool,
    sum: Option<Sum>,
}

/// The digest of the first `count` bytes.
#[derive(Debug)]
struct Sum {
    algorithm: Algorithm,
    hasher: Hasher,
    count: u64,
}

enum Place {
    /// `path` is that of the part, which is yet to be made of an `unnamed` file.
    File {
        file: File,
        path: PathBuf,
        unnamed: Option<Unnamed>,
    },
    Writer(Box<dyn Write + Send>),
}

impl Store {
    /// A part that holds `length` bytes already; `state` is what is known of them.
    pub(crate) fn file(file: File, path: PathBuf, length: u64, state: Option<State>) -> Self {
        let mut ranges = state.as_ref().and_then(State::ranges);
        if let Some(ranges) = &mut ranges {
            ranges.cut(length);
        }
        let length = ranges.as_ref().map_or(length, Ranges::prefix);
        let store = Self::new(
            Place::File {
                file,
                path,
                unnamed: None,
            },
            length,
            state,
        );
        store.lock().ranges = ranges;
        store
    }

    /// An empty file that becomes a part with the first note of how far it is.
    pub(crate) fn unnamed(file: File, unnamed: Unnamed) -> Self {
        let path = unnamed.part();
        Self::new(
            Place::File {
                file,
                path,
                unnamed: Some(unnamed),
            },
            0,
            None,
        )
    }

    /// The part, if it has a name.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match &self.lock().place {
            Place::File {
                path,
                unnamed: None,
                ..
            } => Some(path.clone()),
            Place::File { .. } | Place::Writer(_) => None,
        }
    }

    /// Gives a file that has no name this one, in its folder.
    pub(crate) fn name_whole(&self, name: &OsStr) -> rustix::io::Result<()> {
        match &self.lock().place {
            Place::File {
                file,
                unnamed: Some(unnamed),
                ..
            } => unnamed.name_whole(file, name),
            Place::File { .. } | Place::Writer(_) => Err(Errno::INVAL),
        }
    }

    /// A writer, from which nothing can be taken back.
    pub(crate) fn writer(writer: Box<dyn Write + Send>) -> Self {
        Self::new(Place::Writer(writer), 0, None)
    }

    fn new(place: Place, length: u64, state: Option<State>) -> Self {
        let (position, ranges, noted, sum) = (length, None, None, None);
        let is_noted = state.is_some();
        Self(Mutex::new(Inner {
            place,
            position,
            length,
            ranges,
            state,
            noted,
            is_noted,
            sum,
        }))
    }

    /// Computes the digest of what is written, as it is written.
    pub(crate) fn add_up(&self, algorithm: Algorithm) {
        self.lock().sum = Some(Sum::new(algorithm));
    }

    /// The digest of all bytes; `None` where none was asked for. What was there before is read.
    pub(crate) fn digest(&self) -> io::Result<Option<Vec<u8>>> {
        let mut inner = self.lock();
        let Some(mut sum) = inner.sum.take() else {
            return Ok(None);
        };
        if let Place::File { file, .. } = &inner.place {
            let mut buffer = vec![0; READ];
            while sum.count < inner.length {
                match file.read_at(&mut buffer, sum.count)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    count => sum.update(sum.count, &buffer[..count]),
                }
            }
        }
        Ok(Some(sum.hasher.finish()))
    }

    /// Gives the file this time of its last change.
    pub(crate) fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        match &self.lock().place {
            Place::File { file, .. } => file.set_modified(time),
            Place::Writer(_) => Ok(()),
        }
    }

    /// Keeps the version that the server tells with the file.
    pub(crate) fn keep_etag(&self, etag: &str) {
        if let Place::File { file, .. } = &self.lock().place {
            keep_etag(file, etag);
        }
    }

    /// Returns when what is written is on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match &self.lock().place {
            Place::File { file, .. } => file.sync_all(),
            Place::Writer(_) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a state stands beside the file.
    pub(crate) fn is_noted(&self) -> bool {
        self.lock().is_noted
    }

    /// Whether this is a file: it can be written anew, and read.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.lock().place, Place::File { .. })
    }

    /// How many bytes are there from the first on.
    pub(crate) fn length(&self) -> u64 {
        self.lock().length
    }

    /// Where the next byte goes.
    pub(crate) fn position(&self) -> u64 {
        self.lock().position
    }

    /// What is known of what is there.
    pub(crate) fn state(&self) -> Option<State> {
        self.lock().state.clone()
    }

    /// What is there is known otherwise from now on, also to a later run.
    pub(crate) fn learn(&self, known: Validators) {
        let mut inner = self.lock();
        if let Some(state) = inner.state.as_mut().filter(|state| state.known != known) {
            state.known = known;
            inner.note();
        }
    }

    /// What is there comes from several sources, and only this checksum can tell whether it
    /// belongs together: also in a later run.
    pub(crate) fn hold_to(&self, checksum: &str) {
        let mut inner = self.lock();
        let is_any = inner.length > 0 || inner.ranges.is_some();
        if let Some(state) = inner
            .state
            .as_mut()
            .filter(|state| is_any && state.held_to.is_none())
        {
            state.held_to = Some(checksum.to_owned());
            inner.note();
        }
    }

    /// Whether what is there comes from several sources.
    pub(crate) fn is_mixed(&self) -> bool {
        self.lock()
            .state
            .as_ref()
            .is_some_and(|state| state.held_to.is_some())
    }

    /// Throws away what is there; what comes next belongs to `state`.
    pub(crate) fn begin(&self, state: State) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.length > 0 || inner.ranges.is_some() {
            let Place::File { file, path, .. } = &inner.place else {
                return Err(Error::CannotRestartOutput);
            };
            // In this order: at no time may the new state stand beside old bytes, nor bytes alone.
            file.set_len(0).map_err(|error| inner.place.failed(error))?;
            if inner.is_noted {
                State::remove(path);
            }
        }
        (inner.position, inner.length, inner.ranges) = (0, 0, None);
        (inner.state, inner.noted) = (Some(state), None);
        inner.sum = inner.sum.take().map(|sum| Sum::new(sum.algorithm));
        Ok(())
    }

    /// What comes next are the bytes that are there already, and then more.
    pub(crate) fn overtake(&self) -> Result<(), Error> {
        let mut inner = self.lock();
        if !matches!(inner.place, Place::File { .. }) {
            return Err(Error::CannotRestartOutput);
        }
        inner.position = 0;
        inner.sum = inner.sum.take().map(|sum| Sum::new(sum.algorithm));
        Ok(())
    }

    /// What comes next goes behind what is there.
    pub(crate) fn append(&self) {
        let mut inner = self.lock();
        inner.position = inner.length;
    }

    /// What is missing of a file of `total` bytes.
    pub(crate) fn gaps(&self, total: u64) -> Vec<(u64, u64)> {
        let inner = self.lock();
        match &inner.ranges {
            Some(ranges) => ranges.gaps(total),
            None => Ranges::first(inner.length).gaps(total),
        }
    }

    /// Whether bytes can be written at their places: not while what is here is overtaken.
    pub(crate) fn takes_parts(&self) -> bool {
        let inner = self.lock();
        matches!(inner.place, Place::File { .. }) && inner.position == inner.length
    }

    /// Whether anything is missing between bytes that are there.
    pub(crate) fn has_gaps(&self, total: Option<u64>) -> bool {
        let inner = self.lock();
        let gaps = inner
            .ranges
            .as_ref()
            .zip(total)
            .map(|(ranges, total)| ranges.gaps(total));
        gaps.is_some_and(|gaps| !gaps.is_empty())
    }

    /// How many bytes are missing where the next one goes, before others that are there.
    pub(crate) fn gap(&self, total: Option<u64>) -> u64 {
        let inner = self.lock();
        let gaps = inner
            .ranges
            .as_ref()
            .zip(total)
            .map(|(ranges, total)| ranges.gaps(total));
        let first = gaps.and_then(|gaps| gaps.first().copied());
        match first {
            Some((start, end)) if start == inner.position => end - start,
            _ => u64::MAX,
        }
    }

    /// How many bytes are there behind the next one, beyond gaps.
    pub(crate) fn beyond(&self, total: Option<u64>) -> u64 {
        let inner = self.lock();
        let Some((ranges, total)) = inner.ranges.as_ref().zip(total) else {
            return 0;
        };
        // What is overtaken counts as it comes.
        if inner.position < inner.length {
            return 0;
        }
        let missing: u64 = ranges
            .gaps(total)
            .iter()
            .map(|(start, end)| end - start)
            .sum();
        total.saturating_sub(missing + inner.position)
    }

    /// Lets bytes be written at their places. Whether a later run can be told which: otherwise it
    /// would take a gap for bytes.
    pub(crate) fn allow_gaps(&self) -> bool {
        let mut inner = self.lock();
        if inner.ranges.is_none() {
            inner.ranges = Some(Ranges::first(inner.length));
            if !inner.note() {
                inner.ranges = None;
            }
        }
        inner.ranges.is_some()
    }

    /// Writes bytes at their place, and notes now and then which are there.
    pub(crate) fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.note_if_due();
        inner.write_at(at, bytes)
    }

    /// Sets room aside for a file of `length` bytes: a disk that is too full fails now, and what
    /// is written later lies together.
    pub(crate) fn reserve(&self, length: u64) -> io::Result<()> {
        let inner = self.lock();
        let Place::File { file, .. } = &inner.place else {
            return Ok(());
        };
        match fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(errno.into()),
            // Not every file system can.
            _ => Ok(()),
        }
    }

    /// Whether nothing is computed over what is written, into a file.
    pub(crate) fn wants_no_bytes(&self) -> bool {
        let inner = self.lock();
        inner.sum.is_none() && matches!(inner.place, Place::File { .. })
    }

    /// Writes the next `count` bytes, which are in a pipe.
    pub(crate) fn pour(&self, pipe: &Pipe, count: usize) -> io::Result<()> {
        let mut inner = self.lock();
        inner.note_if_due();
        let (at, end) = (inner.position, inner.position + count as u64);
        let Place::File { file, .. } = &inner.place else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        pipe.pour(file, at, count)?;
        inner.has_written(at, end);
        inner.position = end;
        Ok(())
    }

    /// Writes the next bytes.
    pub(crate) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.lock().write(bytes)
    }

    /// Writes the next bytes, and notes now and then how far it is.
    pub(crate) fn write_and_note(&self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.note_if_due();
        inner.write(bytes)
    }

    /// The last bytes that are there, at most `count`; none of a writer.
    pub(crate) fn tail(&self, count: u64) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        let Place::File { file, .. } = &inner.place else {
            return Ok(Vec::new());
        };
        let count = count.min(inner.length);
        let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
        file.read_exact_at(&mut bytes, inner.length - count)?;
        Ok(bytes)
    }

    /// Ends with the last byte that was written: nothing old stays behind it.
    pub(crate) fn end(&self) -> Result<u64, Error> {
        let mut inner = self.lock();
        if let Some(ranges) = &inner.ranges {
            inner.position = ranges.prefix();
        }
        if inner.length > inner.position
            && let Place::File { file, .. } = &inner.place
        {
            file.set_len(inner.position)
                .map_err(|error| inner.place.failed(error))?;
        }
        inner.length = inner.position;
        Ok(inner.length)
    }

    /// Notes for a later run how far it is; whether there is anything to go on with.
    pub(crate) fn leave(&self) -> bool {
        // If something is being written this very moment, its last note must do.
        let Ok(mut inner) = self.0.try_lock() else {
            return true;
        };
        let is_any = inner.length > 0 || inner.ranges.as_ref().is_some_and(|all| !all.is_empty());
        if is_any {
            inner.note();
        }
        is_any
    }

    /// The error of what could not be written.
    pub(crate) fn failed(&self, error: io::Error) -> Error {
        self.lock().place.failed(error)
    }
}

impl Inner {
    /// Writes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_at(self.position, bytes)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        // A part that holds bytes is known to be one by what is noted of it.
        if !self.is_noted && matches!(self.place, Place::File { unnamed: None, .. }) {
            self.note();
        }
        match &mut self.place {
            Place::File { file, .. } => file.write_all_at(bytes, at)?,
            Place::Writer(writer) => writer.write_all(bytes).and_then(|()| writer.flush())?,
        }
        if let Some(sum) = &mut self.sum {
            sum.update(at, bytes);
        }
        self.has_written(at, at + bytes.len() as u64);
        Ok(())
    }

    fn has_written(&mut self, at: u64, end: u64) {
        self.length = match &mut self.ranges {
            None => self.length.max(end),
            Some(ranges) => {
                ranges.add(at, end);
                ranges.prefix()
            }
        };
    }

    fn note_if_due(&mut self) {
        if self.noted.is_none_or(|noted| noted.elapsed() >= NOTED) {
            self.note();
            self.noted = Some(Instant::now());
        }
    }

    /// Whether it has been noted what is there.
    fn note(&mut self) -> bool {
        let (
            Place::File {
                file,
                path,
                unnamed,
            },
            Some(state),
        ) = (&mut self.place, &mut self.state)
        else {
            return false;
        };
        if let Some(nameless) = unnamed.take() {
            match nameless.name_part(file) {
                Ok(named) => *path = named,
                Err(error) => {
                    debug!(error = %ErrorChain(&error), "a part cannot be named");
                    *unnamed = Some(nameless);
                    return false;
                }
            }
        }
        state.wrote(self.length, self.ranges.as_ref());
        self.is_noted = true;
        let saved = state.save(path);
        // Without it only a later run is worse off.
        saved
            .inspect_err(
                |error| debug!(error = %ErrorChain(error), "the state of a part cannot be written"),
            )
            .is_ok()
    }
}

impl Sum {
    fn new(algorithm: Algorithm) -> Self {
        Self {
            algorithm,
            hasher: Hasher::new(algorithm),
            count: 0,
        }
    }

    /// Takes in the bytes at `position`, if they are the next.
    fn update(&mut self, position: u64, bytes: &[u8]) {
        if position == self.count {
            self.hasher.update(bytes);
            self.count += bytes.len() as u64;
        }
    }
}

impl Place {
    fn failed(&self, source: io::Error) -> Error {
        match self {
            Self::File { path, .. } => Error::File {
                action: "write",
                path: path.clone(),
                source,
            },
            Self::Writer(_) => Error::WriteOutput { source },
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => f.debug_tuple("File").field(path).finish(),
            Self::Writer(_) => f.write_str("Writer"),
        }
    }
}
