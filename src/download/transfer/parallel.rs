//! Transfer of one file over several connections.
//!
//! The first connection requests the file as usual. If its version is certain and enough is
//! missing, further connections each take the second half of the largest remaining segment, and
//! take another one when they are done. They use the current source and its mirrors round robin.
//! Segments of a failed connection are released to the others, and a connection whose source
//! fails switches to the next one. If no source serves ranges of this version, the first
//! connection continues alone to the end. A connection without work takes over the segment of
//! one that has not received a byte in time.

use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncReadExt as _, future};
use smol::channel::{Sender, bounded};
use smol::{Executor, Timer};
use tracing::{debug, warn};

use crate::download::body::copy::{BodyCopy, CopyError, ReadOutcome};
use crate::download::body::throttle::Throttled;
use crate::download::config::{Config, LowSpeedLimit};
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::host_limits::ConnectionPermit;
use crate::download::http::redact_url;
use crate::download::request::send::range_headers;
use crate::download::store::sink::FileSink;
use crate::download::transfer::changes::Changes;
use crate::download::transfer::resume::{Action, RangeRequest, ResponseMeta, Validators, classify};
use crate::download::transfer::retry::{RetryDecision, RetryState, StoredBytes, is_retryable};
use crate::download::transfer::segment_queue::{Assignment, LateSegment, SegmentQueue};
use crate::download::transfer::sources::SourceSet;
use crate::error_chain::ErrorChain;
use crate::limits::rate::RateLimitHandle;

/// Length of the buffer of each connection.
const BUFFER_LEN: usize = 256 * 1024;

/// Minimum time without a byte after which another connection may take a segment. Opening a
/// connection and reading an uncached range take longer than the first response of a fast server.
const MIN_LATE_TIMEOUT: Duration = Duration::from_secs(3);

/// The same time in units of the first response time, for slow servers.
const LATE_RESPONSE_TIMES: u32 = 4;

/// Transfer of one file over several connections.
pub(crate) struct ParallelTransfer<'a, F> {
    sources: SourceSet<'a>,
    /// Checksum of the file, which verifies that bytes of several sources belong together.
    checksum: Option<&'a str>,
    total: u64,
    sink: &'a Arc<FileSink>,
    on_event: &'a F,
    queue: Mutex<SegmentQueue>,
    /// Changes after which a connection without work may find some.
    changes: Changes,
    /// Time without a byte after which another connection may take a segment.
    late_timeout: Duration,
    /// Number of connections at the start.
    connections: usize,
    /// Final error of a connection to the current source.
    source_error: Mutex<Option<Error>>,
}

/// Whether further parallel transfers from the current source are useful.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunResult {
    Useful,
    /// No source serves ranges of this version.
    Exhausted,
}

/// State of one connection.
struct Connection {
    /// Index of its source.
    source: usize,
    retry: RetryState,
    permit: HeldPermit,
    /// Whether another connection has taken a segment from this one.
    has_lost: bool,
}

/// Permit of a connection.
enum HeldPermit {
    /// The caller holds the permit of the first connection.
    ByCaller,
    Own {
        _permit: ConnectionPermit,
    },
    /// Released while the connection has no work.
    Released,
}

/// Failure of a connection to receive its segment.
enum SegmentError {
    /// The source does not serve a range of this version.
    NoRange(String),
    /// Another connection has taken the segment.
    Taken,
    Failed(Error),
}

/// Next step of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    Stop,
}

impl HeldPermit {
    fn own(permit: ConnectionPermit) -> Self {
        Self::Own { _permit: permit }
    }

    fn release(&mut self) {
        if let Self::Own { .. } = self {
            *self = Self::Released;
        }
    }
}

impl From<Error> for SegmentError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<'a, F: Fn(Event<'_>) + Sync> ParallelTransfer<'a, F> {
    /// Splits the missing bytes of the file into segments. Returns `None` if there is too little
    /// for a second connection.
    pub(crate) fn new(
        sources: SourceSet<'a>,
        checksum: Option<&'a str>,
        validators: &'a Validators,
        sink: &'a Arc<FileSink>,
        first_response_time: Duration,
        on_event: &'a F,
    ) -> Option<Self> {
        let total = validators.total?;
        let config = &sources.get(0).request.context.config;
        let queue = SegmentQueue::new(&sink.layout().gaps(total), config.limits.min_segment_len);
        if !queue.can_split() || !sink.allow_gaps() {
            return None;
        }
        Some(Self {
            sources,
            checksum,
            total,
            sink,
            on_event,
            queue: Mutex::new(queue),
            changes: Changes::default(),
            late_timeout: MIN_LATE_TIMEOUT.max(first_response_time * LATE_RESPONSE_TIMES),
            connections: 1,
            source_error: Mutex::default(),
        })
    }

    /// Transfers the missing bytes. `body` starts at the first missing byte and ends at
    /// `body_end`.
    pub(crate) async fn run(
        mut self,
        body: impl AsyncRead + Unpin + Send,
        body_end: u64,
    ) -> Result<RunResult, Error> {
        let sink = Arc::clone(self.sink);
        let total = self.total;
        let reserved = smol::unblock(move || sink.reserve(total)).await;
        reserved.map_err(|error| self.sink.write_error(error))?;
        let further = self.open_further();
        let connections = further.len() + 1;
        self.connections = connections;
        let (finished, results) = bounded(connections);
        let (complete, is_complete) = bounded(1);
        let executor = Executor::new();
        executor
            .spawn(async {
                let result = self.run_first(body, body_end, &complete).await;
                finished.send(result).await
            })
            .detach();
        for connection in further {
            let this = &self;
            let finished = &finished;
            let complete = &complete;
            let work = async move {
                let result = this.run_connection(connection, complete).await;
                finished.send(result).await
            };
            executor.spawn(work).detach();
        }
        let all = async {
            for _ in 0..connections {
                // The channel stays open: `finished` lives until the end of this function.
                results.recv().await.unwrap_or(Ok(()))?;
            }
            Ok::<_, Error>(())
        };
        // A connection that waits for a retry is dropped once nothing is missing.
        let complete_early = async {
            let _ = is_complete.recv().await;
            Ok(())
        };
        executor.run(future::or(complete_early, all)).await?;
        self.result()
    }

    fn result(&self) -> Result<RunResult, Error> {
        if !self.sink.layout().gaps(self.total).is_empty()
            && let Some(error) = self.source_error().take()
        {
            return Err(error);
        }
        Ok(if self.queue().is_closed() {
            RunResult::Exhausted
        } else {
            RunResult::Useful
        })
    }

    fn queue(&self) -> MutexGuard<'_, SegmentQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn source_error(&self) -> MutexGuard<'_, Option<Error>> {
        self.source_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> &'a Config {
        &self.sources.get(0).request.context.config
    }

    /// Returns the further connections, as many as are configured and permitted.
    fn open_further(&self) -> Vec<Connection> {
        let mut last = 0;
        let next = || {
            let (source, permit) = self.sources.next(last)?;
            last = source;
            Some(self.connection(source, HeldPermit::own(permit)))
        };
        iter::from_fn(next)
            .take(self.config().limits.connections_per_file.get() - 1)
            .collect()
    }

    fn connection(&self, source: usize, permit: HeldPermit) -> Connection {
        Connection {
            source,
            retry: RetryState::new(&self.config().retry),
            permit,
            has_lost: false,
        }
    }

    /// Runs the first connection, which already has a body.
    async fn run_first(
        &self,
        body: impl AsyncRead + Unpin,
        body_end: u64,
        complete: &Sender<()>,
    ) -> Result<(), Error> {
        let first = self.queue().acquire_first(body_end);
        let Some(segment) = first else {
            return Ok(());
        };
        let mut connection = self.connection(0, HeldPermit::ByCaller);
        let copied = async {
            let copied = self.copy(segment, body, complete).await;
            copied.map_err(SegmentError::Failed)
        };
        let result = future::or(copied, self.taken(segment)).await;
        match self.finish(segment.id, result, &mut connection).await? {
            Next::Continue => self.run_connection(connection, complete).await,
            Next::Stop => Ok(()),
        }
    }

    /// Transfers segments over one connection until none is available.
    async fn run_connection(
        &self,
        mut connection: Connection,
        complete: &Sender<()>,
    ) -> Result<(), Error> {
        while let Some(segment) = self.next_segment(&mut connection).await {
            let fetched = self.fetch(segment, connection.source, complete);
            let result = future::or(fetched, self.taken(segment)).await;
            if self.finish(segment.id, result, &mut connection).await? == Next::Stop {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns the next segment of a connection. Waits while all segments are received by other
    /// connections. Returns `None` if there will be none for this connection.
    async fn next_segment(&self, connection: &mut Connection) -> Option<Assignment> {
        loop {
            let seen = self.changes.count();
            let acquired = self.queue().acquire();
            if acquired.is_some() || self.queue().is_exhausted() {
                return acquired;
            }
            connection.permit.release();
            self.changes.wait_after(seen).await;
            // A segment with a final error is not tried by each idle connection.
            if self.source_error().is_some() || !self.regain_permit(connection) {
                return None;
            }
        }
    }

    /// Acquires the permit again that was released while the connection had no work. Returns
    /// whether there is one.
    fn regain_permit(&self, connection: &mut Connection) -> bool {
        if matches!(connection.permit, HeldPermit::Released) {
            let Some(permit) = self.sources.try_acquire(connection.source) else {
                return false;
            };
            connection.permit = HeldPermit::own(permit);
        }
        true
    }

    /// Waits until another connection has taken a segment whose first byte is late. Never returns
    /// if a byte is received first.
    async fn taken(&self, segment: Assignment) -> Result<(), SegmentError> {
        Timer::after(self.late_timeout).await;
        let mut is_announced = false;
        loop {
            let seen = self.changes.count();
            let state = self.queue().mark_late(segment.id);
            match state {
                LateSegment::Started => return future::pending().await,
                LateSegment::Taken => return Err(SegmentError::Taken),
                LateSegment::Available if is_announced => self.changes.wait_after(seen).await,
                LateSegment::Available => self.changes.notify(),
            }
            is_announced = true;
        }
    }

    /// Releases a segment and decides whether the connection continues, after a delay if it
    /// failed. A local write error ends all connections.
    async fn finish(
        &self,
        segment: u64,
        result: Result<(), SegmentError>,
        connection: &mut Connection,
    ) -> Result<Next, Error> {
        self.queue().release(segment);
        self.changes.notify();
        let request = &self.sources.get(connection.source).request;
        let url = redact_url(&request.source.url);
        let error = match result {
            Ok(()) => return Ok(Next::Continue),
            Err(SegmentError::NoRange(reason)) => {
                debug!(%url, "source removed: {reason}");
                self.sources.remove(connection.source);
                return Ok(self.switch_source(connection));
            }
            Err(SegmentError::Taken) => {
                debug!(%url, "no response to a range request in time, segment taken over");
                return Ok(self.replace_late(connection));
            }
            Err(SegmentError::Failed(error @ Error::File { .. })) => return Err(error),
            Err(SegmentError::Failed(error)) => error,
        };
        let elapsed = request.start.elapsed();
        let is_retryable = is_retryable(&request.context.config.retry, &error);
        let decision = connection
            .retry
            .after_failure(is_retryable, error.retry_after(), elapsed);
        let cause = ErrorChain(&error).to_string();
        match decision {
            RetryDecision::Retry(wait) => {
                warn!(%url, ?wait, "retrying a segment: {cause}");
                Timer::after(wait).await;
                Ok(Next::Continue)
            }
            RetryDecision::GiveUp | RetryDecision::DeadlineExceeded { .. } => {
                debug!(%url, "connection given up: {cause}");
                match connection.source {
                    // The current source may still serve the other connections.
                    0 => *self.source_error() = Some(error),
                    mirror => self.sources.remove(mirror),
                }
                Ok(self.switch_source(connection))
            }
        }
    }

    /// Decides whether a connection continues that did not receive a byte in time. It may use
    /// another source, once: two sources without a response would take segments from each other
    /// again and again.
    fn replace_late(&self, connection: &mut Connection) -> Next {
        if connection.has_lost {
            return Next::Stop;
        }
        let next = self.switch_source(connection);
        connection.has_lost = true;
        next
    }

    /// Switches to another source, if one is left and has a permit available.
    fn switch_source(&self, connection: &mut Connection) -> Next {
        if self.sources.is_empty() {
            self.queue().close();
            self.changes.notify();
        }
        let Some((source, permit)) = self.sources.next_other(connection.source) else {
            return Next::Stop;
        };
        *connection = Connection {
            has_lost: connection.has_lost,
            ..self.connection(source, HeldPermit::own(permit))
        };
        Next::Continue
    }

    /// Requests a segment and stores it.
    async fn fetch(
        &self,
        segment: Assignment,
        index: usize,
        complete: &Sender<()>,
    ) -> Result<(), SegmentError> {
        let source = self.sources.get(index);
        let validators = source.validators();
        let if_range = validators.if_range();
        let fields = range_headers(segment.start, Some(segment.end), if_range);
        let (response, chain) = source.request.send(&fields).await?;
        let meta = ResponseMeta::new(response.status(), response.length(), |name| {
            response.header(name)
        });
        let request = RangeRequest::From {
            offset: segment.start,
            if_range: if_range.map(str::to_owned),
        };
        match classify(Some(&validators), segment.start, &request, &meta) {
            Action::Append { count, .. } => {
                source.pin_version(meta.validators);
                if index > 0
                    && let Some(checksum) = self.checksum
                {
                    self.sink.require_checksum(checksum);
                }
                let body = response.take(count);
                let copied = self.copy(segment, body, complete).await;
                Ok(copied.map_err(|error| source.request.failed(Some(chain.url()), error))?)
            }
            Action::Reject => Err(source.request.status_error(response, &chain).await.into()),
            Action::Restart(mismatch) => Err(SegmentError::NoRange(mismatch.to_string())),
            _ => Err(SegmentError::NoRange(
                "response to a range request is the complete file".to_owned(),
            )),
        }
    }

    /// Writes a body at the position of its segment, up to the point where another connection has
    /// taken over.
    async fn copy(
        &self,
        segment: Assignment,
        body: impl AsyncRead + Unpin,
        complete: &Sender<()>,
    ) -> Result<(), Error> {
        let rate_limits = self.rate_limits();
        if !rate_limits.is_empty() {
            // The first read may be delayed by the rate limit instead of the server.
            self.queue().record_start(segment.id);
        }
        let on_progress = |position| {
            self.queue().record_received(segment.id, position);
            (self.on_event)(Event::Progress {
                downloaded: self.total - self.queue().missing(),
            });
        };
        let body = Throttled::new(body, self.low_speed_limit(), rate_limits);
        let mut body = BodyCopy::new(body, segment.start, on_progress);
        let mut buffer = vec![0; BUFFER_LEN];
        let mut copied = 0;
        loop {
            let remaining = usize::try_from(self.queue().remaining(segment.id))
                .unwrap_or(BUFFER_LEN)
                .min(BUFFER_LEN);
            if remaining == 0 {
                return Ok(());
            }
            let ReadOutcome { count, end } = body.fill(&mut buffer[..remaining], remaining).await;
            let (position, count) = self.queue().commit(segment.id, count as u64);
            let sink = Arc::clone(self.sink);
            let write = smol::unblock(move || {
                let result = sink.write_at(position, &buffer[..count as usize]);
                (buffer, result)
            });
            let (returned, written) = write.await;
            written.map_err(|error| self.sink.write_error(error))?;
            buffer = returned;
            copied += count;
            if self.sink.layout().gaps(self.total).is_empty() {
                // The channel holds one message, and one is enough.
                let _ = complete.try_send(());
            }
            match end {
                None => {}
                Some(Ok(())) => return self.check_progress(segment, copied),
                Some(Err(error)) => return Err(CopyError::Read(error).into_error(self.sink)),
            }
        }
    }

    /// Returns an error if the body of a segment was too short to count as progress, which bounds
    /// the number of requests.
    fn check_progress(&self, segment: Assignment, copied: u64) -> Result<(), Error> {
        let stored = |count| StoredBytes {
            count,
            total: Some(segment.end - segment.start),
            restarts: 0,
        };
        if self.queue().remaining(segment.id) == 0 || stored(copied).is_progress_since(&stored(0)) {
            return Ok(());
        }
        Err(match copied {
            0 => Error::EmptyRangeResponse,
            count => Error::ShortRangeResponse { count },
        })
    }

    /// Returns the limit for one connection: the configured one applies to their sum.
    fn low_speed_limit(&self) -> Option<LowSpeedLimit> {
        let limit = self.config().limits.low_speed_limit?;
        Some(LowSpeedLimit {
            bytes_per_sec: limit.bytes_per_sec.div_ceil(self.connections as u64),
            ..limit
        })
    }

    fn rate_limits(&self) -> Vec<RateLimitHandle> {
        self.sources.get(0).request.rate_limits()
    }
}
