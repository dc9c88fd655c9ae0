//! Digest of a body while it is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncRead;

use crate::checksum::{Algorithm, Hasher};

/// Body of which the digest is computed, if there is an algorithm.
pub(crate) struct HashedBody<R> {
    body: R,
    hasher: Option<Hasher>,
}

impl<R> HashedBody<R> {
    pub(crate) fn new(body: R, algorithm: Option<Algorithm>) -> Self {
        let hasher = algorithm.map(Hasher::new);
        Self { body, hasher }
    }

    /// Returns the digest of the bytes that were read.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        Some(self.hasher?.finish())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for HashedBody<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.body).poll_read(cx, into))?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&into[..count]);
        }
        Poll::Ready(Ok(count))
    }
}
