//! Reads files side by side and writes them in order.
//!
//! [`run`] is for tasks, [`run_blocking`] for a thread that has nothing else to do. Both drive
//! the same copy, which is written for neither: it goes on as long as there is something to do at
//! once, and then says what has to be waited for. So a bulk copy costs no switch between tasks
//! and threads, and an input that nobody writes to holds up no thread of the pool.
//!
//! ```no_run
//! use myapp::cat::{self, Config, Mode, Sink, Source};
//!
//! # fn main() -> Result<(), cat::Error> {
//! let sources = ["a.txt", "b.txt"].map(|name| Source::Path(name.into()));
//! let path = "both.txt".into();
//! let sink = Sink::File { path, mode: Mode::Replace, fsync: false, tee: None };
//! let report = smol::block_on(cat::run(sources, Config::default(), sink, |_event| {}))?;
//! println!("{} bytes", report.written);
//! # Ok(())
//! # }
//! ```
//!
//! # Order and time
//!
//! The first [`Config::jobs`] inputs are open at the same time. Pipes, FIFOs and sockets among
//! them are read as their bytes come, up to 256 KiB each before their turn; of a regular file the
//! system is asked to have it in memory by then, and it is read in its turn, as it is then.
//! Terminals and devices are read in their turn alone. An input that cannot be opened before its
//! turn is opened when its turn has come.
//!
//! # Bytes
//!
//! Where the bytes are to come as they are, large files and pipes go to the output inside the
//! system (`splice`, `copy_file_range`, `sendfile`). A file that is changed meanwhile can then
//! show the change even in bytes that have been passed on and not yet been read.
//!
//! An input that is also the output is refused where reading it would feed on what is written:
//! appending to itself, or written to further on than it is read, or one pipe on both sides.
//! Terminals and sockets may be both. A replaced file is none of these: its old content is read,
//! and the new one takes its place at the end.

mod config;
mod decompress;
mod engine;
mod error;
mod follow;
mod input;
mod output;
mod read_ahead;
mod report;
mod sink;
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

pub use config::{Config, Display, Numbers, Order};
pub use error::Error;
pub use input::Source;
pub use report::{Ended, Event, Report};
pub use sink::{Mode, Sink};

use engine::{Copying, Step, Wait};
use output::Output;
use sink::Target;
use throttle::Pace;

/// Copies `sources` to `sink`, in their order, and calls `told` as it goes on and for each input
/// whose turn is over.
///
/// The copying happens on the pool for blocking work, in steps of some ten milliseconds; waiting
/// for an input or a moment costs no thread.
///
/// # Errors
///
/// [`Error`] of the output, which ends the run. An input that fails is told, and the others come.
///
/// # Cancel safety
///
/// When this is dropped halfway, a step that runs goes on to its end, and what it wrote to a
/// stream stays written. A file that was to be replaced is as it was, with nothing beside it.
/// A thread that waits for a reader of an output FIFO goes on waiting.
pub async fn run<S>(
    sources: S,
    config: Config,
    sink: Sink,
    mut told: impl FnMut(Event),
) -> Result<Report, Error>
where
    S: IntoIterator<Item = Source>,
    S::IntoIter: Send + 'static,
{
    let sources = sources.into_iter();
    // A temporary file is made here and not on the pool, so that it never outlives this future.
    let opened = if sink.may_wait() {
        unblock(|| sink.open()).await
    } else {
        sink.open()
    };
    let (targets, finish) = opened?;
    let fsync = finish.fsync;
    let mut copy = Copying::new(sources, &config, open_output(targets, &config)?);
    loop {
        let step;
        (copy, step) = unblock(move || {
            let step = copy.step();
            (copy, step)
        })
        .await;
        copy.take_events().for_each(&mut told);
        match step? {
            Step::More => {}
            Step::Wait(until) => {
                wait(copy.waiting(until), until)
                    .await
                    .map_err(Error::Wait)?;
            }
            Step::Done => break,
        }
    }
    let (output, report) = copy.into_parts();
    unblock(move || output.close(fsync)).await?;
    finish.commit()?;
    Ok(report)
}

/// As [`run`], on the calling thread: no reactor, no pool, no other thread is started.
///
/// # Errors
///
/// As [`run`].
pub fn run_blocking(
    sources: impl IntoIterator<Item = Source>,
    config: &Config,
    sink: Sink,
    mut told: impl FnMut(Event),
) -> Result<Report, Error> {
    let (targets, finish) = sink.open()?;
    let mut copy = Copying::new(sources.into_iter(), config, open_output(targets, config)?);
    loop {
        let step = copy.step();
        copy.take_events().for_each(&mut told);
        match step? {
            Step::More => {}
            Step::Wait(until) => wait_here(copy.waiting(until), until).map_err(Error::Wait)?,
            Step::Done => break,
        }
    }
    let (output, report) = copy.into_parts();
    output.close(finish.fsync)?;
    finish.commit()?;
    Ok(report)
}

fn open_output(targets: Vec<Target>, config: &Config) -> Result<Output, Error> {
    Output::new(
        targets,
        Pace::new(config.delay, config.rate, Instant::now()),
    )
}

/// Waits in the reactor until one of `fds` can be read or the moment has come.
async fn wait(fds: Vec<BorrowedFd<'_>>, until: Wait) -> io::Result<()> {
    let inputs = fds
        .into_iter()
        .map(Async::new_nonblocking)
        .collect::<io::Result<Vec<_>>>()?;
    let readable = poll_fn(|context| {
        let mut ready = inputs.iter().map(|input| input.poll_readable(context));
        ready.find(Poll::is_ready).unwrap_or(Poll::Pending)
    });
    let moment = async {
        match until {
            Wait::Head | Wait::Any => pending().await,
            Wait::Until(moment) | Wait::Change(moment) => {
                Timer::at(moment).await;
                Ok(())
            }
        }
    };
    future::or(readable, moment).await
}

/// Waits on this thread until one of `fds` can be read or the moment has come.
fn wait_here(fds: Vec<BorrowedFd<'_>>, until: Wait) -> io::Result<()> {
    let timeout = match until {
        Wait::Head | Wait::Any => None,
        Wait::Until(moment) | Wait::Change(moment) => {
            let time = moment.saturating_duration_since(Instant::now());
            Some(Timespec::try_from(time).map_err(io::Error::other)?)
        }
    };
    read_ahead::poll(fds.into_iter(), timeout.as_ref()).map(drop)
}
