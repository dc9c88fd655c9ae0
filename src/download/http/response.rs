//! Response: status, headers and the body as a stream.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::AsyncRead;

use super::body::Body;
use super::connection::ReadTarget;
use super::response_head::ResponseHead;

/// Response whose head has been received and whose body is read from it.
///
/// The body is complete only when a read into a non-empty buffer returns 0. The error of a read
/// wraps an [`HttpError`](super::HttpError), which
/// [`HttpError::from_io`](super::HttpError::from_io) returns. A body that was read to its end
/// releases its connection for the next request; dropping the response earlier closes it.
#[derive(Debug)]
pub struct Response {
    pub(super) head: ResponseHead,
    pub(super) length: Option<u64>,
    pub(super) body: Body,
    /// Time from the start of the request to the end of the response head.
    pub(super) response_time: Duration,
}

impl Response {
    /// Returns the status code, 200 to 999.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// Returns the raw value of the first header of that name, without surrounding whitespace.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers(name).next()
    }

    /// Returns the raw values of all headers of that name, in order.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.head.values(name)
    }

    /// Returns the length of the complete body in bytes, if `Content-Length` gives it.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the time that the server took to respond, including that of a new connection.
    pub(in crate::download) fn response_time(&self) -> Duration {
        self.response_time
    }

    /// Passes at most `max_len` bytes of the body to a target. Returns 0 at the end, and `None` where
    /// the target does not fit: bytes that were received together with the head or a chunk's size,
    /// and those of TLS, are passed as slices, other ones into a pipe.
    pub(in crate::download) fn poll_read_direct(
        &mut self,
        cx: &mut Context<'_>,
        target: ReadTarget<'_>,
        max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        self.body.poll_read_direct(cx, target, max_len)
    }
}

impl AsyncRead for Response {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.body).poll_read(cx, buf)
    }
}
