//! Reading a body without copying it into a buffer, where its bytes are not processed.

use std::io;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncRead;
use futures_lite::io::Take;

use crate::download::http::{ReadTarget, Response};

/// Reader of a body that may pass its bytes on without copying them.
pub(crate) trait DirectRead: AsyncRead + Unpin {
    /// Passes at most `max_len` bytes to a target; 0 is the end of the body. Returns `None` if the
    /// next bytes require another target, or must be read.
    fn poll_read_direct(
        &mut self,
        _cx: &mut Context<'_>,
        _target: ReadTarget<'_>,
        _max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        Poll::Ready(Ok(None))
    }
}

impl DirectRead for Response {
    fn poll_read_direct(
        &mut self,
        cx: &mut Context<'_>,
        target: ReadTarget<'_>,
        max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        Response::poll_read_direct(self, cx, target, max_len)
    }
}

impl<R: DirectRead> DirectRead for Take<R> {
    fn poll_read_direct(
        &mut self,
        cx: &mut Context<'_>,
        target: ReadTarget<'_>,
        max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        let limit = self.limit();
        if limit == 0 {
            return Poll::Ready(Ok(Some(0)));
        }
        let max_len = usize::try_from(limit).map_or(max_len, |limit| max_len.min(limit));
        let moved = ready!(self.get_mut().poll_read_direct(cx, target, max_len))?;
        self.set_limit(limit - moved.unwrap_or(0) as u64);
        Poll::Ready(Ok(moved))
    }
}
