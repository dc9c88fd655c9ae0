//! Streamed response body.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncBufRead, AsyncRead};

use super::body_length::BodyLength;
use super::connection::{BUFFER_LEN, Connection, ReadTarget};
use super::error::{HttpError, RoundTripError};
use super::pool::{Pool, PoolKey};

/// Body read from its connection. Dropping it before its end closes the connection.
#[derive(Debug)]
pub(super) struct Body {
    state: BodyState,
    body_length: BodyLength,
    key: PoolKey,
    length: Option<u64>,
    received: u64,
    /// Pool to which the connection returns at the end, unless it cannot be reused.
    pool: Option<Arc<Pool<Box<Connection>>>>,
}

#[derive(Debug)]
enum BodyState {
    Open(Box<Connection>),
    Complete,
    Failed,
}

impl Body {
    /// Creates a body; `pool` is `None` if the connection cannot be reused.
    pub(super) fn new(
        connection: Box<Connection>,
        body_length: BodyLength,
        key: PoolKey,
        pool: Option<Arc<Pool<Box<Connection>>>>,
    ) -> Self {
        let length = body_length.content_length();
        let mut body = Self {
            state: BodyState::Open(connection),
            body_length,
            key,
            length,
            received: 0,
            pool,
        };
        body.finish_if_complete();
        body
    }

    /// Parses framing up to the next data and returns the length of the data; 0 is the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, RoundTripError>> {
        loop {
            let connection = match &mut self.state {
                BodyState::Open(connection) => connection,
                BodyState::Complete => return Poll::Ready(Ok(0)),
                BodyState::Failed => return Poll::Ready(Err(RoundTripError::UnexpectedEof)),
            };
            connection.consume(self.body_length.advance(connection.buffered())?);
            if self.body_length.is_complete() {
                self.finish_if_complete();
            } else if self.body_length.data_remaining() > 0 {
                return Poll::Ready(Ok(self.body_length.data_remaining()));
            } else if ready!(connection.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(RoundTripError::UnexpectedEof));
            }
        }
    }

    /// Waits for buffered data and returns its length; 0 is the end.
    fn poll_buffered(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, RoundTripError>> {
        let data = ready!(self.poll_data(cx))?;
        if let BodyState::Open(connection) = &mut self.state
            && connection.buffered().is_empty()
            && ready!(connection.poll_fill(cx))? == 0
        {
            self.handle_eof()?;
        }
        Poll::Ready(Ok(at_most(data, self.buffered().len())))
    }

    fn buffered(&self) -> &[u8] {
        if let BodyState::Open(connection) = &self.state {
            connection.buffered()
        } else {
            &[]
        }
    }

    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<Result<usize, RoundTripError>> {
        let data = ready!(self.poll_data(cx))?;
        let wanted = at_most(data, into.len());
        if let BodyState::Open(connection) = &mut self.state
            && connection.buffered().is_empty()
            && wanted >= BUFFER_LEN
        {
            let count = ready!(connection.poll_read_unbuffered(cx, &mut into[..wanted]))?;
            if count == 0 {
                self.handle_eof()?;
            }
            self.record_received(count);
            return Poll::Ready(Ok(count));
        }
        let count = ready!(self.poll_buffered(cx))?.min(wanted);
        into[..count].copy_from_slice(&self.buffered()[..count]);
        self.consume(count);
        Poll::Ready(Ok(count))
    }

    /// See [`Response::poll_read_direct`](super::Response::poll_read_direct).
    pub(super) fn poll_read_direct(
        &mut self,
        cx: &mut Context<'_>,
        target: ReadTarget<'_>,
        max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        let moved = ready!(self.poll_read_direct_inner(cx, target, max_len));
        Poll::Ready(moved.map_err(|failure| self.fail(failure)))
    }

    fn poll_read_direct_inner(
        &mut self,
        cx: &mut Context<'_>,
        target: ReadTarget<'_>,
        max_len: usize,
    ) -> Poll<Result<Option<usize>, RoundTripError>> {
        let data = ready!(self.poll_data(cx))?;
        let connection = match &mut self.state {
            BodyState::Open(connection) if data > 0 => connection,
            _ => return Poll::Ready(Ok(Some(0))),
        };
        let max_len = at_most(data, max_len);
        let moved = ready!(connection.poll_read_direct(cx, target, max_len))?;
        match moved {
            None => {}
            Some(0) => self.handle_eof()?,
            Some(count) => self.record_received(count),
        }
        Poll::Ready(Ok(moved))
    }

    fn consume(&mut self, count: usize) {
        if let BodyState::Open(connection) = &mut self.state {
            connection.consume(count);
            self.record_received(count);
        }
    }

    fn record_received(&mut self, count: usize) {
        self.received += count as u64;
        self.body_length.consume_data(count as u64);
        self.finish_if_complete();
    }

    fn handle_eof(&mut self) -> Result<(), RoundTripError> {
        if self.body_length != BodyLength::CloseDelimited {
            return Err(RoundTripError::UnexpectedEof);
        }
        self.state = BodyState::Complete;
        Ok(())
    }

    fn finish_if_complete(&mut self) {
        if !self.body_length.is_complete() {
            return;
        }
        let state = std::mem::replace(&mut self.state, BodyState::Complete);
        // Surplus bytes would be taken for the next response, so the connection is closed.
        if let (BodyState::Open(connection), Some(pool)) = (state, self.pool.take())
            && connection.buffered().is_empty()
            && self.body_length.is_strict()
        {
            pool.put(self.key.clone(), connection);
        }
    }

    fn fail(&mut self, failure: RoundTripError) -> io::Error {
        self.state = BodyState::Failed;
        HttpError::of(
            &self.key.origin.address,
            failure,
            self.received,
            self.length,
        )
        .into()
    }
}

fn at_most(data: u64, length: usize) -> usize {
    usize::try_from(data).map_or(length, |data| data.min(length))
}

impl AsyncRead for Body {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let body = self.get_mut();
        if into.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let copied = ready!(body.poll_copy(cx, into));
        Poll::Ready(copied.map_err(|failure| body.fail(failure)))
    }
}

impl AsyncBufRead for Body {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let body = self.get_mut();
        match ready!(body.poll_buffered(cx)) {
            Ok(count) => Poll::Ready(Ok(&body.buffered()[..count])),
            Err(failure) => Poll::Ready(Err(body.fail(failure))),
        }
    }

    fn consume(self: Pin<&mut Self>, count: usize) {
        self.get_mut().consume(count);
    }
}
