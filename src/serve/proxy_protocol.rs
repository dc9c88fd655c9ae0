//! PROXY protocol header at the start of a connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::AsyncRead as _;

use crate::limits::shutdown::Shutdown;
use crate::limits::timeout::race;
use crate::net::proxy_protocol::{Announced, HeaderError, MAX_HEADER_LEN, parse};
use crate::net::stream::Stream;
use crate::serve::handshake_timeout::handshake_timeout;

/// Time limit of the whole header. Section 2 of the specification: at least 3 s, to cover a TCP
/// retransmission.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Reason why a connection that must begin with a header is closed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The header is malformed or not supported.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The header was not complete within the time limit.
    #[error("timeout before the end of the header")]
    Timeout,
    /// The peer closed the connection first.
    #[error("connection closed before the end of the header")]
    Closed,
    /// The connection failed first.
    #[error("connection failed before the end of the header")]
    Failed(#[from] io::Error),
}

/// Reads the header, and no byte after it. Returns the announced client; `None` if the real
/// endpoints count.
///
/// # Cancel safety
///
/// If the future is dropped, a part of the header may have been read.
pub(super) async fn receive(
    stream: &mut Stream,
    draining: &Shutdown,
) -> Result<Option<Announced>, ReceiveError> {
    let mut received = Vec::new();
    let header = poll_fn(|cx| poll_header(stream, cx, &mut received));
    let timeout = handshake_timeout(HEADER_TIMEOUT, draining);
    race(timeout, header)
        .await
        .unwrap_or(Err(ReceiveError::Timeout))
}

fn poll_header(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    received: &mut Vec<u8>,
) -> Poll<Result<Option<Announced>, ReceiveError>> {
    let mut buffer = [0; MAX_HEADER_LEN];
    loop {
        let before = received.len();
        // Not read, as TLS or a message may follow. The parser rejects longer headers.
        let count = ready!(stream.poll_peek(cx, &mut buffer[before..]))?;
        if count == 0 {
            return Poll::Ready(Err(ReceiveError::Closed));
        }
        received.extend_from_slice(&buffer[before..before + count]);
        let header = parse(received)?;
        let end = header.as_ref().map_or(received.len(), |header| header.len);
        // These bytes are there, so this read is complete.
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer[before..end]))?;
        if let Some(header) = header {
            return Poll::Ready(Ok(header.announced));
        }
    }
}
