//! Sharing of file descriptors among the transfers of a run.

use std::error::Error as StdError;
use std::io;
use std::iter;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use rustix::io::Errno;
use smol::Timer;
use tracing::{debug, warn};

use crate::download::config::{Jobs, Limits};
use crate::download::error::Error;
use crate::error_chain::ErrorChain;
use crate::limits::nofile;

/// Descriptors of a connection: its socket and a pipe.
const FDS_PER_CONNECTION: usize = 3;

/// Time between two attempts to open a descriptor.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Transfers that hold descriptors or are about to open some.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    running: AtomicUsize,
}

/// Running transfer; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a Descriptors);

/// Transfer that waits for others to end.
struct Waiting<'a>(&'a Descriptors);

impl Descriptors {
    /// Counts a transfer as running.
    pub(crate) fn begin(&self) -> Running<'_> {
        self.running.fetch_add(1, SeqCst);
        Running(self)
    }

    /// Waits after an error of a running transfer until another attempt may succeed. Returns false
    /// at once if the cause is not a lack of descriptors, or if no other transfer could release some:
    /// all others wait as well.
    pub(crate) async fn wait_after(&self, error: &Error) -> bool {
        if !is_lack_of_descriptors(error) {
            return false;
        }
        let others = self.running.fetch_sub(1, SeqCst) - 1;
        let _waiting = Waiting(self);
        if others > 0 {
            debug!("waiting for descriptors: {}", ErrorChain(error));
            // Descriptors of other processes count as well, of which no event is received.
            Timer::after(RETRY_INTERVAL).await;
        }
        others > 0
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_add(1, SeqCst);
    }
}

/// Returns the number of concurrent downloads for which there are enough descriptors.
pub(crate) fn max_jobs(limits: &Limits) -> NonZeroUsize {
    let per_job = limits
        .connections_per_file
        .get()
        .saturating_mul(FDS_PER_CONNECTION)
        .saturating_add(1);
    let max = NonZeroUsize::new(nofile::available().get() / per_job).unwrap_or(NonZeroUsize::MIN);
    let jobs = limits.jobs.max();
    if max < jobs && limits.jobs != Jobs::Auto {
        warn!(jobs, max, "fewer concurrent files: descriptor limit");
    }
    max.min(jobs)
}

fn is_lack_of_descriptors(error: &Error) -> bool {
    let lacks = |error: &io::Error| {
        matches!(
            Errno::from_io_error(error),
            Some(Errno::MFILE | Errno::NFILE)
        )
    };
    let causes = iter::successors(Some(error as &(dyn StdError + 'static)), |&error| {
        error.source()
    });
    causes.filter_map(|cause| cause.downcast_ref()).any(lacks)
}
