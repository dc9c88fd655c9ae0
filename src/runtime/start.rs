//! Checks before the first thread is started.

use std::io;
use std::sync::mpsc;
use std::thread;

use crate::runtime::BLOCKING_THREADS;

/// Number of threads that a run needs beside the main thread: those of the log, of smol's reactor
/// and of the blocking pool, and one more.
const MIN_THREADS: usize = 4;

/// Number of pipes with as many descriptors as the reactor and the signal handlers need.
const MIN_PIPES: usize = 4;

/// Starts a thread for blocking file I/O, after a check that the necessary threads and descriptors
/// can be created.
///
/// smol panics where its reactor cannot be created, and spins where its pool has no thread.
pub fn start() -> Result<(), StartError> {
    check_descriptors().map_err(StartError::Descriptors)?;
    check_threads().map_err(StartError::Threads)?;
    blocking::set_max_blocking_threads(BLOCKING_THREADS);
    smol::unblock(|| ()).detach();
    Ok(())
}

/// Error of [`start`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Too few descriptors can be opened.
    #[error("open descriptors for events")]
    Descriptors(#[source] io::Error),
    /// Too few threads can be started.
    #[error("start threads")]
    Threads(#[source] io::Error),
}

fn check_descriptors() -> io::Result<()> {
    let pipes: io::Result<Vec<_>> = (0..MIN_PIPES).map(|_| io::pipe()).collect();
    pipes.map(drop)
}

fn check_threads() -> io::Result<()> {
    let mut threads = Vec::new();
    let mut senders = Vec::new();
    let mut result = Ok(());
    for _ in 0..MIN_THREADS {
        let (sender, receiver) = mpsc::channel::<()>();
        // Each thread lives until all have been started.
        let thread = thread::Builder::new().spawn(move || receiver.recv().is_ok());
        match thread {
            Ok(thread) => {
                threads.push(thread);
                senders.push(sender);
            }
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    drop(senders);
    for thread in threads {
        let _ = thread.join();
    }
    result
}
