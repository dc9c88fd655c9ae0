//! Concurrent reading of files, written in order.
//!
//! [`run`] is for async tasks, [`run_blocking`] for a thread of its own. Both drive the same copy
//! engine, which never waits: it copies until an input or a deadline has to be waited for, and
//! returns which. A bulk copy therefore switches neither tasks nor threads, and an idle input
//! does not occupy a thread of the pool.
//!
//! ```no_run
//! use myapp::cat::{self, Config, FileSink, Sink, Source, WriteMode};
//!
//! # fn main() -> Result<(), cat::Error> {
//! // The bytes of both files, in order.
//! let sources = ["a.txt", "b.txt"].map(|name| Source::Path(name.into()));
//! let sink = Sink::File(FileSink::new("both.txt", WriteMode::Replace));
//! let report = smol::block_on(cat::run(sources, Config::default(), sink, |_event| {}))?;
//! println!("{} bytes", report.written);
//! # Ok(())
//! # }
//! ```
//!
//! # Order
//!
//! The first [`Config::jobs`] inputs are open at the same time. Pipes, FIFOs and sockets among
//! them are read ahead, up to 256 KiB each. For a regular file the kernel is advised to load it;
//! its content is read in its turn, as it is then. Terminals and devices are read in their turn
//! only. An input that cannot be opened ahead is opened in its turn.
//!
//! # Bytes
//!
//! Unmodified bytes of large files and pipes are moved to the output inside the kernel (`splice`,
//! `copy_file_range`, `sendfile`). A file that is changed meanwhile can then show the change even
//! in bytes that have been passed on and not yet been read.
//!
//! An input that is also the output is refused if the copy would read its own output: a file that
//! is appended to itself or written ahead of the read position, or one pipe on both sides.
//! Terminals and sockets may be both. A file that is replaced may be an input too: its old content
//! is read, and the new file takes its place at the end.

mod aligned_buffer;
mod compression;
mod config;
mod copier;
mod decompress;
mod engine;
mod error;
mod follow;
mod input;
mod output;
mod peek_reader;
mod pump;
mod read_ahead;
mod report;
mod sink;
mod source;
mod throttle;
mod transform;
mod zero_copy;

use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::BorrowedFd;
use std::task::Poll;
use std::time::Instant;

use blocking::unblock;
use futures_lite::future;
use rustix::event::Timespec;
use smol::{Async, Timer};

pub use crate::atomic_file::{Attribute, InPlaceError, Obstacle};
pub use crate::checksum::{Algorithm, Checksum, ChecksumError};
pub use config::{Config, Display, Numbers, Order, OutputChecksum};
pub use error::Error;
pub use pump::{ReaderSource, WriterSink};
pub use report::{Event, FileChange, FileDone, Report};
pub use sink::{FileSink, Sink, WriteMode};
pub use source::Source;

use crate::checksum::hex;
use copier::Copier;
use engine::{CopyEngine, Engine, Step, Wait};
use follow::FollowEngine;
use output::Output;
use sink::{Finish, Target};
use throttle::Throttle;

/// Copies `sources` to `sink` in order, and calls `on_event` for progress and for each input that
/// is finished.
///
/// Copying runs on the pool for blocking work, in steps of some ten milliseconds; waiting for an
/// input or a deadline occupies no thread.
///
/// # Errors
///
/// [`Error`] of the output, which ends the run. Errors of inputs are reported as
/// [`Event::Failed`], and the run continues with the next input, unless all outputs need all
/// inputs: then it ends with [`Error::Incomplete`].
///
/// # Cancel safety
///
/// If the future is dropped halfway, a running step is completed, and its bytes stay written to
/// a stream. A file to be replaced is unchanged, and no temporary file is left: it is replaced at
/// the end by the thread that polls, without an interruption. A thread that waits for a reader of
/// an output FIFO continues to wait.
pub async fn run<S>(
    sources: S,
    config: Config,
    sink: Sink,
    mut on_event: impl FnMut(Event),
) -> Result<Report, Error>
where
    S: IntoIterator<Item = Source>,
    S::IntoIter: Send + 'static,
{
    let sources = sources.into_iter();
    // A temporary file is created here and not on the pool, so that it never outlives this future.
    let is_endless = config.follow;
    let opened = if sink.open_may_block() {
        // A device or FIFO has no attributes to be kept, and so no events.
        unblock(move || sink.open(is_endless, &mut |_| {})).await
    } else {
        sink.open(is_endless, &mut on_event)
    };
    let (targets, mut finish) = opened?;
    let fsync = finish.fsync;
    let copier = Copier::new(&config, open_output(targets, &finish, &config)?);
    let driven = if config.follow {
        let engine = FollowEngine::new(sources, &config, copier);
        drive(engine, &mut on_event).await
    } else {
        let engine = CopyEngine::new(sources, &config, copier);
        drive(engine, &mut on_event).await
    };
    let closed = match driven {
        Ok((output, report)) => {
            check_complete(&finish, &report)?;
            let digest = unblock(move || output.close(fsync)).await;
            digest.map(|digest| (digest, report))
        }
        Err(error) => Err(error),
    };
    let (digest, mut report) = finish.finish_writer(closed).await?;
    report.checksum = check_digest(&config, &finish, digest)?;
    finish.commit()?;
    Ok(report)
}

/// Does the same as [`run`] on the calling thread, without a reactor, a pool or other threads.
///
/// ```
/// use std::fs::File;
///
/// use myapp::cat::{self, Config, Display, Numbers, Sink, Source};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config {
///     display: Display {
///         numbers: Numbers::All,
///         ..Display::default()
///     },
///     ..Config::default()
/// };
/// let output = File::create("/dev/null")?;
/// let sink = Sink::Stream(output.into());
/// let report = cat::run_blocking([Source::Path("Cargo.toml".into())], &config, sink, |_| {})?;
/// assert!(report.written > report.read);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The errors of [`run`].
pub fn run_blocking(
    sources: impl IntoIterator<Item = Source>,
    config: &Config,
    sink: Sink,
    mut on_event: impl FnMut(Event),
) -> Result<Report, Error> {
    let (targets, mut finish) = sink.open(config.follow, &mut on_event)?;
    let copier = Copier::new(config, open_output(targets, &finish, config)?);
    let sources = sources.into_iter();
    let driven = if config.follow {
        drive_blocking(FollowEngine::new(sources, config, copier), &mut on_event)
    } else {
        drive_blocking(CopyEngine::new(sources, config, copier), &mut on_event)
    };
    let closed = driven.and_then(|(output, report)| {
        check_complete(&finish, &report)?;
        Ok((output.close(finish.fsync)?, report))
    });
    let (digest, mut report) = future::block_on(finish.finish_writer(closed))?;
    report.checksum = check_digest(config, &finish, digest)?;
    finish.commit()?;
    Ok(report)
}

/// Runs the steps of an engine on the pool, and waits in the reactor.
async fn drive<E: Engine + Send + 'static>(
    mut engine: E,
    on_event: &mut impl FnMut(Event),
) -> Result<(Output, Report), Error> {
    loop {
        let step;
        (engine, step) = unblock(move || {
            let step = engine.step();
            (engine, step)
        })
        .await;
        engine.take_events().for_each(&mut *on_event);
        match step? {
            Step::More => {}
            Step::Wait(wait) => wait_async(engine.poll_fds(wait), wait)
                .await
                .map_err(Error::Wait)?,
            Step::Done => return Ok(engine.into_parts()),
        }
    }
}

/// Runs the steps of an engine and waits on this thread.
fn drive_blocking(
    mut engine: impl Engine,
    on_event: &mut impl FnMut(Event),
) -> Result<(Output, Report), Error> {
    loop {
        let step = engine.step();
        engine.take_events().for_each(&mut *on_event);
        match step? {
            Step::More => {}
            Step::Wait(wait) => {
                wait_blocking(engine.poll_fds(wait), wait).map_err(Error::Wait)?;
            }
            Step::Done => return Ok(engine.into_parts()),
        }
    }
}

fn open_output(targets: Vec<Target>, finish: &Finish, config: &Config) -> Result<Output, Error> {
    let throttle = Throttle::new(config.delay, config.rate, Instant::now());
    let checksum = config.checksum.as_ref().map(OutputChecksum::algorithm);
    let is_all_or_nothing = finish.all_or_nothing().is_some();
    Output::new(targets, throttle, is_all_or_nothing, checksum)
}

/// Fails if an input failed and the output file needs all of them.
fn check_complete(finish: &Finish, report: &Report) -> Result<(), Error> {
    match finish.all_or_nothing() {
        Some(path) if report.failed > 0 => Err(Error::Incomplete { path: path.into() }),
        _ => Ok(()),
    }
}

/// Returns the checksum of the written bytes in hexadecimal. Fails if another one is expected.
fn check_digest(
    config: &Config,
    finish: &Finish,
    digest: Option<Vec<u8>>,
) -> Result<Option<String>, Error> {
    match (&config.checksum, &digest) {
        (Some(OutputChecksum::Verify(expected)), Some(found)) if !expected.matches(found) => {
            Err(finish.mismatch(expected, found))
        }
        _ => Ok(digest.as_deref().map(hex)),
    }
}

/// Waits in the reactor until one of `fds` is readable or the deadline of `wait` has passed.
async fn wait_async(fds: Vec<BorrowedFd<'_>>, wait: Wait) -> io::Result<()> {
    let inputs = fds
        .into_iter()
        .map(Async::new_nonblocking)
        .collect::<io::Result<Vec<_>>>()?;
    let readable = poll_fn(|context| {
        let mut ready = inputs.iter().map(|input| input.poll_readable(context));
        ready.find(Poll::is_ready).unwrap_or(Poll::Pending)
    });
    let deadline = async {
        match wait.deadline() {
            None => pending().await,
            Some(deadline) => {
                Timer::at(deadline).await;
                Ok(())
            }
        }
    };
    future::or(readable, deadline).await
}

/// Waits on this thread until one of `fds` is readable or the deadline of `wait` has passed.
fn wait_blocking(fds: Vec<BorrowedFd<'_>>, wait: Wait) -> io::Result<()> {
    let timeout = wait
        .deadline()
        .map(|deadline| deadline.saturating_duration_since(Instant::now()))
        .map(Timespec::try_from)
        .transpose()
        .map_err(io::Error::other)?;
    read_ahead::poll_readable(fds.into_iter(), timeout.as_ref()).map(drop)
}
