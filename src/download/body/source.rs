//! Reading a body, with splice(2) where the bytes are not processed.

use std::io;
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncRead;
use futures_lite::io::Take;

use crate::download::http::Response;

/// Reader of a body that may move bytes into a pipe without copying them.
pub(crate) trait SpliceRead: AsyncRead + Unpin {
    /// Moves at most `max_len` bytes into a pipe that is not full; 0 is the end of the body. Returns
    /// `None` if the next bytes must be read instead.
    fn poll_splice(
        &mut self,
        _cx: &mut Context<'_>,
        _pipe: BorrowedFd<'_>,
        _max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        Poll::Ready(Ok(None))
    }
}

impl SpliceRead for Response {
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        Response::poll_splice(self, cx, pipe, max_len)
    }
}

impl<R: SpliceRead> SpliceRead for Take<R> {
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        let limit = self.limit();
        if limit == 0 {
            return Poll::Ready(Ok(Some(0)));
        }
        let max_len = usize::try_from(limit).map_or(max_len, |limit| max_len.min(limit));
        let moved = ready!(self.get_mut().poll_splice(cx, pipe, max_len))?;
        self.set_limit(limit - moved.unwrap_or(0) as u64);
        Poll::Ready(Ok(moved))
    }
}
