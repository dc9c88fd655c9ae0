//! One file over several connections.
//!
//! The first connection has asked for the file as always. Where that has a version by which it is
//! known and enough of it is missing, others take the second half of the largest rest, and again
//! when they are done. They ask the same server and its mirrors in turn. What a connection cannot
//! bring falls to the others, and one whose server fails turns to the next; where no server sends
//! parts of this version the first one is left alone, which goes on to the end.

use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_lite::{AsyncRead, AsyncReadExt as _, future};
use smol::channel::{Sender, bounded};
use smol::{Executor, Timer};
use tracing::{debug, warn};

use crate::download::body::copy::{Body, CopyError, Filled};
use crate::download::body::throttle::{Paced, SlowestPace};
use crate::download::config::Config;
use crate::download::error::DownloadError;
use crate::download::event::Event;
use crate::download::host_limits::Place;
use crate::download::http::shown;
use crate::download::request::send::range;
use crate::download::store::sink::Store;
use crate::download::transfer::resume::{Action, Answer, Ask, Known, judge};
use crate::download::transfer::retry::{Tries, Verdict};
use crate::download::transfer::segment_queue::Spans;
use crate::download::transfer::sources::{Origin, Origins};
use crate::limits::rate::RateLimitHandle;

/// Each connection has one buffer of this size.
const PIECE: usize = 256 * 1024;

/// A file that several connections fetch.
pub(crate) struct Segments<'a, T> {
    origins: Origins<'a>,
    /// What can tell whether bytes of several origins belong together.
    checksum: Option<&'a str>,
    total: u64,
    store: &'a Arc<Store>,
    tell: &'a T,
    spans: Mutex<Spans>,
    /// Those that are begun with.
    connections: usize,
    /// Why the source, which is the first origin, was given up for good over a connection.
    lost: Mutex<Option<DownloadError>>,
}

/// One of the connections.
struct Connection {
    /// The number of who is asked over it.
    origin: usize,
    tries: Tries,
    _place: Option<Place>,
}

/// Why a span is not filled by this connection.
enum Lost {
    /// The server sends no part of this version.
    NoPart(String),
    Failed(DownloadError),
}

impl From<DownloadError> for Lost {
    fn from(error: DownloadError) -> Self {
        Self::Failed(error)
    }
}

impl<'a, T: Fn(Event<'_>) + Sync> Segments<'a, T> {
    /// Divides what is missing of the file; `None` where one connection is to do.
    pub(crate) fn new(
        origins: Origins<'a>,
        checksum: Option<&'a str>,
        known: &'a Known,
        store: &'a Arc<Store>,
        tell: &'a T,
    ) -> Option<Self> {
        let total = known.total?;
        let config = &origins.get(0).asking.shared.config;
        let spans = Spans::new(&store.gaps(total), config.min_split);
        if !spans.are_worth_it() || !store.allow_gaps() {
            return None;
        }
        let (spans, lost) = (Mutex::new(spans), Mutex::default());
        Some(Self {
            origins,
            checksum,
            total,
            store,
            tell,
            spans,
            connections: 1,
            lost,
        })
    }

    /// Fetches what is missing; `body` comes from the first missing byte on and goes as far as
    /// `reach`. Whether it is of no use to ask over several connections again.
    pub(crate) async fn run(
        mut self,
        body: impl AsyncRead + Unpin + Send,
        reach: u64,
    ) -> Result<bool, DownloadError> {
        let (room, total) = (Arc::clone(self.store), self.total);
        let reserve = smol::unblock(move || room.reserve(total)).await;
        reserve.map_err(|error| self.store.failed(error))?;
        let further = self.further();
        let connections = further.len() + 1;
        self.connections = connections;
        let (ended, results) = bounded(connections);
        let (whole, is_whole) = bounded(1);
        let executor = Executor::new();
        executor
            .spawn(async { ended.send(self.begin(body, reach, &whole).await).await })
            .detach();
        for connection in further {
            let (this, ended, whole) = (&self, &ended, &whole);
            let work = async move { ended.send(this.work(connection, whole).await).await };
            executor.spawn(work).detach();
        }
        let all = async {
            for _ in 0..connections {
                // The sender is here, so it is never closed.
                results.recv().await.unwrap_or(Ok(()))?;
            }
            Ok::<_, DownloadError>(())
        };
        // Who waits to try once more is not waited for when nothing is missing.
        let whole = async {
            let _ = is_whole.recv().await;
            Ok(())
        };
        executor.run(future::or(whole, all)).await?;
        self.outcome()
    }

    fn outcome(&self) -> Result<bool, DownloadError> {
        let lost = self
            .lost
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match lost.filter(|_| !self.store.gaps(self.total).is_empty()) {
            Some(error) => Err(error),
            None => Ok(self.spans().is_stopped()),
        }
    }

    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> &'a Config {
        &self.origins.get(0).asking.shared.config
    }

    /// The connections that help the first one, as many as there is room for.
    fn further(&self) -> Vec<Connection> {
        let mut last = 0;
        let next = || {
            let (origin, place) = self.origins.next(last)?;
            last = origin;
            Some(self.connection(origin, Some(place)))
        };
        iter::from_fn(next)
            .take(self.config().split.get() - 1)
            .collect()
    }

    fn connection(&self, origin: usize, place: Option<Place>) -> Connection {
        Connection {
            origin,
            tries: Tries::new(self.config()),
            _place: place,
        }
    }

    /// The first connection.
    async fn begin(
        &self,
        body: impl AsyncRead + Unpin,
        reach: u64,
        whole: &Sender<()>,
    ) -> Result<(), DownloadError> {
        let Some(first) = self.spans().take_first(reach) else {
            return Ok(());
        };
        let mut connection = self.connection(0, None);
        let ended = self.copy(first, body, whole).await.map_err(Lost::Failed);
        match self.settle(first.0, ended, &mut connection).await? {
            true => self.work(connection, whole).await,
            false => Ok(()),
        }
    }

    /// Fetches spans until none is worth it.
    async fn work(
        &self,
        mut connection: Connection,
        whole: &Sender<()>,
    ) -> Result<(), DownloadError> {
        loop {
            let taken = self.spans().take();
            let Some(span) = taken else { return Ok(()) };
            let ended = self.fetch(span, connection.origin, whole).await;
            if !self.settle(span.0, ended, &mut connection).await? {
                return Ok(());
            }
        }
    }

    /// Whether this connection is to go on, after a wait if it has failed. What cannot be written
    /// ends all of them.
    async fn settle(
        &self,
        span: u64,
        ended: Result<(), Lost>,
        connection: &mut Connection,
    ) -> Result<bool, DownloadError> {
        self.spans().give_back(span);
        let Origin { asking, .. } = self.origins.get(connection.origin);
        let url = shown(&asking.source.url);
        let error = match ended {
            Ok(()) => return Ok(true),
            Err(Lost::NoPart(reason)) => {
                debug!(%url, "it is asked for no more parts: {reason}");
                self.origins.drop(connection.origin);
                return Ok(self.turn(connection));
            }
            Err(Lost::Failed(error @ DownloadError::File { .. })) => return Err(error),
            Err(Lost::Failed(error)) => error,
        };
        let (tries, elapsed) = (&mut connection.tries, asking.start.elapsed());
        match tries.after_failure(error.is_transient(), error.retry_after(), elapsed) {
            Verdict::Again(wait) => {
                warn!(%url, ?wait, "trying a part again: {}", error.with_causes(&url));
                Timer::after(wait).await;
                Ok(true)
            }
            Verdict::Final | Verdict::TooLate { .. } => {
                debug!(%url, "a connection is given up: {}", error.with_causes(&url));
                match connection.origin {
                    // It may still serve the other connections.
                    0 => *self.lost.lock().unwrap_or_else(PoisonError::into_inner) = Some(error),
                    mirror => self.origins.drop(mirror),
                }
                Ok(self.turn(connection))
            }
        }
    }

    /// Turns to another origin, if one is left and has room.
    fn turn(&self, connection: &mut Connection) -> bool {
        if self.origins.are_dropped() {
            self.spans().stop();
        }
        let Some((origin, place)) = self.origins.another(connection.origin) else {
            return false;
        };
        *connection = self.connection(origin, Some(place));
        true
    }

    async fn fetch(
        &self,
        (span, at, end): (u64, u64, u64),
        number: usize,
        whole: &Sender<()>,
    ) -> Result<(), Lost> {
        let origin = self.origins.get(number);
        let known = origin.known();
        let condition = known.condition();
        let (response, route) = origin.asking.ask(&range(at, Some(end), condition)).await?;
        let answer = Answer::new(response.status(), response.length(), |name| {
            response.header(name)
        });
        let question = Ask::Rest {
            from: at,
            if_range: condition.map(str::to_owned),
        };
        match judge(Some(&known), at, &question, &answer) {
            Action::Append { count, .. } => {
                origin.learn(answer.known);
                if let Some(checksum) = self.checksum.filter(|_| number > 0) {
                    self.store.hold_to(checksum);
                }
                Ok(self.copy((span, at), response.take(count), whole).await?)
            }
            Action::Refused => Err(origin.asking.refusal(response, &route).await.into()),
            Action::StartOver(mismatch) => Err(Lost::NoPart(mismatch.to_string())),
            _ => Err(Lost::NoPart(
                "the answer to a range is a whole file".to_owned(),
            )),
        }
    }

    /// Writes a body to the place of a span, as far as nobody else has taken over the rest.
    async fn copy(
        &self,
        (span, start): (u64, u64),
        body: impl AsyncRead + Unpin,
        whole: &Sender<()>,
    ) -> Result<(), DownloadError> {
        let seen = |position| {
            self.spans().has_come(span, position);
            (self.tell)(Event::Received {
                position: self.total - self.spans().missing(),
            });
        };
        let mut body = Body::new(Paced::new(body, self.slowest(), self.shares()), start, seen);
        let (mut buffer, mut came) = (vec![0; PIECE], 0);
        loop {
            let left = usize::try_from(self.spans().left(span))
                .unwrap_or(PIECE)
                .min(PIECE);
            if left == 0 {
                return Ok(());
            }
            let Filled { count, end } = body.fill(&mut buffer[..left], left).await;
            let (at, count) = self.spans().claim(span, count as u64);
            let store = Arc::clone(self.store);
            let write = smol::unblock(move || {
                let result = store.write_at(at, &buffer[..count as usize]);
                (buffer, result)
            });
            let (empty, written) = write.await;
            written.map_err(|error| self.store.failed(error))?;
            (buffer, came) = (empty, came + count);
            if self.store.gaps(self.total).is_empty() {
                // There is room for one, and one is enough.
                let _ = whole.try_send(());
            }
            match end {
                None => {}
                Some(Ok(())) if came == 0 => return Err(DownloadError::Nothing),
                Some(Ok(())) => return Ok(()),
                Some(Err(error)) => return Err(CopyError::Read(error).into_error(self.store)),
            }
        }
    }

    /// How slow one of the connections may be: what is asked of the file is asked of all together.
    fn slowest(&self) -> Option<SlowestPace> {
        let part = |rate: u64| rate.div_ceil(self.connections as u64);
        self.config().slowest.map(|pace| SlowestPace {
            rate: part(pace.rate),
            ..pace
        })
    }

    fn shares(&self) -> Vec<RateLimitHandle> {
        self.origins.get(0).asking.shares()
    }
}
