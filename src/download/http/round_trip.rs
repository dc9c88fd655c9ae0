//! One request and its response head on one connection.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::future;

use super::connection::Connection;
use super::error::{ProtocolError, RoundTripError};
use super::request_body::RequestBody;
use super::response_head::{MAX_HEAD_LEN, ResponseHead, check_start, find_end};
use crate::limits::timeout::timeout;

/// Maximum number of informational responses (1xx) that are skipped, other than 102 and 103, which
/// a server may send while it works. Their total length is that of a head.
const MAX_INFORMATIONAL: usize = 10;

/// Time after which a body is sent although `100 Continue` was not received, as in curl. RFC 9110
/// section 10.1.1 forbids to wait indefinitely: servers may ignore the expectation.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads and writes of a body after which the response is looked for although neither had to wait.
const MAX_UNCHECKED_STEPS: usize = 16;

/// Connection positioned after the response head.
pub(super) type ConnectionWithHead = (Box<Connection>, ResponseHead);

/// Response to a request with a body.
pub(super) struct Upload {
    pub(super) connection: Box<Connection>,
    pub(super) head: ResponseHead,
    /// Whether the request is complete. If not, the server may wait for the rest of the body, so
    /// that the connection cannot be reused.
    pub(super) is_complete: bool,
}

/// Sends a request that is complete in `request` and reads the head of the final response.
pub(super) async fn round_trip(
    mut connection: Box<Connection>,
    request: &[u8],
) -> Result<ConnectionWithHead, RoundTripError> {
    send(&mut connection, request).await?;
    let head = HeadReader::default().read(&mut connection).await?;
    Ok((connection, head))
}

/// Sends a request with a body and reads the head of the final response.
///
/// The body is not sent, or not further, if the final response is received before its end and has
/// a status of 300 or more (RFC 9112 section 9.5). With `expects_continue` it is sent after
/// `100 Continue`, or after [`CONTINUE_TIMEOUT`].
pub(super) async fn upload(
    mut connection: Box<Connection>,
    request: &[u8],
    body: &mut RequestBody,
    expects_continue: bool,
) -> Result<Upload, RoundTripError> {
    let mut reader = HeadReader::default();
    connection.write_all(request).await.map_err(closed)?;
    let mut early = None;
    if expects_continue {
        let waited = timeout(
            Some(CONTINUE_TIMEOUT),
            reader.wait_for_continue(&mut connection),
        );
        early = waited.await.unwrap_or(Ok(None))?;
    }
    let mut is_complete = false;
    if early.is_none() {
        let mut sender = BodySender {
            connection: &mut connection,
            body,
            reader: &mut reader,
            early: None,
            unchecked: 0,
        };
        is_complete = future::poll_fn(|cx| sender.poll_send(cx)).await?;
        early = sender.early;
    }
    let head = match early {
        Some(head) => head,
        None => {
            connection.flush().await?;
            reader.read(&mut connection).await?
        }
    };
    Ok(Upload {
        connection,
        head,
        is_complete,
    })
}

/// Sends a request and waits for the first bytes of the response.
async fn send(connection: &mut Connection, request: &[u8]) -> Result<(), RoundTripError> {
    let first = async {
        connection.write_all(request).await?;
        // Other tasks run first: the response may arrive meanwhile, which saves registering with
        // the reactor.
        future::yield_now().await;
        connection.fill().await
    };
    match first.await {
        Ok(0) => Err(RoundTripError::ClosedBeforeResponse),
        Ok(_) => Ok(()),
        Err(error) => Err(closed(error)),
    }
}

/// Maps an error before the first byte of the response.
fn closed(error: io::Error) -> RoundTripError {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof => {
            RoundTripError::ClosedBeforeResponse
        }
        _ => error.into(),
    }
}

/// Reader of response heads that skips informational responses.
#[derive(Default)]
struct HeadReader {
    /// Bytes of an incomplete head that were searched for its end.
    searched: usize,
    informational: usize,
    /// Total length of the informational responses.
    informational_len: usize,
    is_continued: bool,
    has_data: bool,
}

impl HeadReader {
    /// Reads the head of the final response.
    async fn read(&mut self, connection: &mut Connection) -> Result<ResponseHead, RoundTripError> {
        loop {
            if let Some(head) = self.take(connection)? {
                return Ok(head);
            }
            let count = connection.fill().await;
            self.check_eof(count)?;
        }
    }

    /// Waits for `100 Continue`, or returns the head of a final response.
    async fn wait_for_continue(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<ResponseHead>, RoundTripError> {
        loop {
            if let Some(head) = self.take(connection)? {
                return Ok(Some(head));
            }
            if self.is_continued {
                return Ok(None);
            }
            let count = future::poll_fn(|cx| connection.poll_fill_unlimited(cx)).await;
            self.check_eof(count)?;
        }
    }

    /// Takes the head of the final response from the buffer, if it is complete.
    fn take(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<ResponseHead>, RoundTripError> {
        loop {
            let buffered = connection.buffered();
            self.has_data |= !buffered.is_empty();
            let Some(end) = find_end(buffered, self.searched.saturating_sub(2)) else {
                check_start(buffered)?;
                self.searched = buffered.len();
                if self.searched >= MAX_HEAD_LEN {
                    return Err(ProtocolError::HeadTooLong.into());
                }
                return Ok(None);
            };
            let head = ResponseHead::parse(&buffered[..end])?;
            connection.consume(end);
            self.searched = 0;
            match head.status() {
                101 => return Err(ProtocolError::UnexpectedUpgrade.into()),
                status @ 100..200 => {
                    self.is_continued |= status == 100;
                    self.informational += usize::from(!matches!(status, 102 | 103));
                    self.informational_len += end;
                    if self.informational > MAX_INFORMATIONAL
                        || self.informational_len > MAX_HEAD_LEN
                    {
                        return Err(ProtocolError::TooManyInformational.into());
                    }
                }
                _ => return Ok(Some(head)),
            }
        }
    }

    /// Maps the end of the stream inside or before a head to an error.
    fn check_eof(&self, count: io::Result<usize>) -> Result<(), RoundTripError> {
        match count {
            Ok(0) if self.has_data => Err(RoundTripError::UnexpectedEof),
            Ok(0) => Err(RoundTripError::ClosedBeforeResponse),
            Ok(_) => Ok(()),
            Err(error) if self.has_data => Err(error.into()),
            Err(error) => Err(closed(error)),
        }
    }
}

/// Sends a body while it looks for an early response.
struct BodySender<'a> {
    connection: &'a mut Connection,
    body: &'a mut RequestBody,
    reader: &'a mut HeadReader,
    /// Final response that was received before the end of the body.
    early: Option<ResponseHead>,
    /// Reads and writes since the response was looked for.
    unchecked: usize,
}

impl BodySender<'_> {
    /// Returns `true` after the end of the body, and `false` if the rest is not wanted.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, RoundTripError>> {
        loop {
            let is_blocked = match self.poll_piece(cx) {
                Poll::Ready(Ok(true)) => false,
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(true)),
                Poll::Ready(Err(error)) => return Poll::Ready(self.after_failure(cx, error)),
                Poll::Pending => true,
            };
            self.unchecked += 1;
            if !is_blocked && self.unchecked < MAX_UNCHECKED_STEPS {
                continue;
            }
            self.unchecked = 0;
            match self.poll_early(cx) {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if self.is_refused() => return Poll::Ready(Ok(false)),
                Poll::Ready(Ok(())) => {}
                Poll::Pending if is_blocked => return Poll::Pending,
                Poll::Pending => {
                    // Other tasks run first: reader and socket may be ready for a long time.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes a part of the body or reads the next piece; returns `false` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, RoundTripError>> {
        if self.body.buffered().is_empty() {
            return self
                .body
                .poll_encode(cx)
                .map_err(RoundTripError::RequestBody);
        }
        self.connection
            .poll_write(cx, self.body.buffered())
            .map_ok(|count| {
                self.body.consume(count);
                true
            })
            .map_err(RoundTripError::from)
    }

    /// Reads what the server has sent, until the final response. Without a time limit: the body
    /// may be slow, and a blocked write has its own.
    fn poll_early(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RoundTripError>> {
        if self.early.is_some() {
            return Poll::Pending;
        }
        let count = ready!(self.connection.poll_fill_unlimited(cx));
        self.reader.check_eof(count)?;
        self.early = self.reader.take(self.connection)?;
        Poll::Ready(Ok(()))
    }

    fn is_refused(&self) -> bool {
        self.early.as_ref().is_some_and(|head| head.status() >= 300)
    }

    /// Returns `false` after a failed write if the server has responded, as before it closes a
    /// connection of which it does not read the rest.
    fn after_failure(
        &mut self,
        cx: &mut Context<'_>,
        error: RoundTripError,
    ) -> Result<bool, RoundTripError> {
        if matches!(error, RoundTripError::RequestBody(_)) {
            return Err(error);
        }
        while self.early.is_none() {
            if !matches!(self.poll_early(cx), Poll::Ready(Ok(()))) {
                return Err(error);
            }
        }
        Ok(false)
    }
}
