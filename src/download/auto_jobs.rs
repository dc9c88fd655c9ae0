//! Automatic choice of the number of concurrent downloads.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use smol::Timer;
use tracing::debug;

use crate::download::config::Jobs;
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::host_limits::HostLimiter;
use crate::download::http::{HttpError, ProxyError};
use crate::download::report::AutoConcurrency;
use crate::limits::concurrency::{ConcurrencyController, SAMPLE_INTERVAL, Sample};
use crate::limits::semaphore::Semaphore;
use crate::net::connect::ConnectError;

/// Measurements of a run, and the number that was chosen.
#[derive(Debug)]
pub(crate) struct AutoJobs {
    received: AtomicU64,
    current: AtomicUsize,
    highest: AtomicUsize,
}

impl AutoJobs {
    /// Creates the state for [`Jobs::Auto`], otherwise none.
    pub(crate) fn new(jobs: Jobs) -> Option<Self> {
        let initial = jobs.initial().get();
        (jobs == Jobs::Auto).then(|| Self {
            received: AtomicU64::new(0),
            current: AtomicUsize::new(initial),
            highest: AtomicUsize::new(initial),
        })
    }

    /// Returns the current and the highest number.
    pub(crate) fn concurrency(&self) -> AutoConcurrency {
        AutoConcurrency {
            last: self.current.load(Relaxed),
            max: self.highest.load(Relaxed),
        }
    }

    /// Counts the bytes of an event of a file. `position` is that of the file.
    pub(crate) fn record(&self, event: &Event<'_>, position: &AtomicU64) {
        let now = match event {
            Event::BodyStarted { offset, .. } => {
                position.store(*offset, Relaxed);
                return;
            }
            Event::Progress { downloaded } => *downloaded,
            Event::Saved(saved) if !saved.skipped => saved.bytes,
            _ => return,
        };
        let before = position.swap(now, Relaxed);
        self.received.fetch_add(now.saturating_sub(before), Relaxed);
    }

    /// Adjusts the number of permits, and those of each host, until it is dropped.
    pub(crate) async fn control(
        &self,
        permits: &Semaphore,
        max: NonZeroUsize,
        hosts: &HostLimiter,
    ) {
        let mut controller = ConcurrencyController::new(max);
        let mut start = Instant::now();
        loop {
            Timer::after(SAMPLE_INTERVAL).await;
            let received = self.received.swap(0, Relaxed);
            let before = controller.limit();
            let limit = controller.update(Sample {
                rate: received as f64 / start.elapsed().as_secs_f64(),
                overloads: hosts.adjust(before),
                is_saturated: permits.try_acquire().is_none(),
            });
            start = Instant::now();
            if limit > before {
                permits.grow(limit - before);
            } else {
                permits.shrink(before - limit);
            }
            if limit != before {
                debug!(target: "myapp::traffic", limit, "concurrency");
            }
            self.current.store(limit, Relaxed);
            self.highest.fetch_max(limit, Relaxed);
        }
    }
}

/// Returns whether a server refused a request for overload, or did not respond in time.
pub(crate) fn is_overload(error: &Error) -> bool {
    match error {
        Error::Status { status, .. } => matches!(status, 429 | 503 | 509),
        Error::TooSlow { .. } => true,
        Error::Redirected { source, .. } => is_overload(source),
        Error::Http(error) => match error {
            HttpError::TimedOut { .. }
            | HttpError::NoResponse { .. }
            | HttpError::Connect(ConnectError::TimedOut { .. }) => true,
            HttpError::Proxy { source, .. } => matches!(
                source,
                ProxyError::TimedOut { .. } | ProxyError::Connect(ConnectError::TimedOut { .. })
            ),
            _ => false,
        },
        _ => false,
    }
}
