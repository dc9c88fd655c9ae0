//! The body of an answer, as it comes.

use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::AsyncRead;
use url::Url;

use super::connection::{BUFFER, Connection};
use super::error::{Failure, HttpError};
use super::framing::Framing;
use super::pool::{Pool, Way};

/// Where a connection goes when the body on it has been read to its end.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) pool: Arc<Pool<Box<Connection>>>,
    pub(super) way: Way,
}

/// A body that is read from its connection. Dropped before its end, it closes the connection.
#[derive(Debug)]
pub(super) struct Body {
    place: Place,
    framing: Framing,
    url: Url,
    length: Option<u64>,
    received: u64,
    home: Option<Home>,
}

#[derive(Debug)]
enum Place {
    Open(Box<Connection>),
    Whole,
    Broken,
}

impl Body {
    /// `home` is `None` where the connection cannot be used again.
    pub(super) fn new(
        connection: Box<Connection>,
        framing: Framing,
        url: Url,
        home: Option<Home>,
    ) -> Self {
        let length = framing.length();
        let mut body = Self {
            place: Place::Open(connection),
            framing,
            url,
            length,
            received: 0,
            home,
        };
        body.end_if_whole();
        body
    }

    /// Waits until data can come next and tells how much, or tells 0 behind the end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, Failure>> {
        loop {
            let connection = match &mut self.place {
                Place::Open(connection) => connection,
                Place::Whole => return Poll::Ready(Ok(0)),
                Place::Broken => return Poll::Ready(Err(Failure::Cut)),
            };
            connection.consume(self.framing.advance(connection.buffered())?);
            if self.framing.is_whole() {
                self.end_if_whole();
            } else if self.framing.data() > 0 {
                return Poll::Ready(Ok(self.framing.data()));
            } else if ready!(connection.poll_fill(cx))? == 0 {
                return Poll::Ready(Err(Failure::Cut));
            }
        }
    }

    /// Waits for data in the buffer of the connection and tells how much; 0 is the end.
    fn poll_buffered(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        let data = ready!(self.poll_data(cx))?;
        if let Place::Open(connection) = &mut self.place
            && connection.buffered().is_empty()
            && ready!(connection.poll_fill(cx))? == 0
        {
            self.end_of_stream()?;
        }
        Poll::Ready(Ok(at_most(data, self.buffered().len())))
    }

    fn buffered(&self) -> &[u8] {
        if let Place::Open(connection) = &self.place {
            connection.buffered()
        } else {
            &[]
        }
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<usize, Failure>> {
        let data = ready!(self.poll_data(cx))?;
        let wanted = at_most(data, into.len());
        if let Place::Open(connection) = &mut self.place
            && connection.buffered().is_empty()
            && wanted >= BUFFER
        {
            let count = ready!(connection.poll_read_past(cx, &mut into[..wanted]))?;
            if count == 0 {
                self.end_of_stream()?;
            }
            self.took(count);
            return Poll::Ready(Ok(count));
        }
        let count = ready!(self.poll_buffered(cx))?.min(wanted);
        into[..count].copy_from_slice(&self.buffered()[..count]);
        self.use_up(count);
        Poll::Ready(Ok(count))
    }

    /// As [`Response::poll_splice`](super::Response::poll_splice).
    pub(super) fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        most: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        let moved = ready!(self.poll_move(cx, pipe, most));
        Poll::Ready(moved.map_err(|failure| self.broken(failure)))
    }

    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        most: usize,
    ) -> Poll<Result<Option<usize>, Failure>> {
        let data = ready!(self.poll_data(cx))?;
        let connection = match &mut self.place {
            Place::Open(connection) if data > 0 => connection,
            _ => return Poll::Ready(Ok(Some(0))),
        };
        let moved = ready!(connection.poll_splice(cx, pipe, at_most(data, most)))?;
        match moved {
            None => {}
            Some(0) => self.end_of_stream()?,
            Some(count) => self.took(count),
        }
        Poll::Ready(Ok(moved))
    }

    fn use_up(&mut self, count: usize) {
        if let Place::Open(connection) = &mut self.place {
            connection.consume(count);
            self.took(count);
        }
    }

    fn took(&mut self, count: usize) {
        self.received += count as u64;
        self.framing.took(count as u64);
        self.end_if_whole();
    }

    fn end_of_stream(&mut self) -> Result<(), Failure> {
        if self.framing != Framing::UntilClose {
            return Err(Failure::Cut);
        }
        self.place = Place::Whole;
        Ok(())
    }

    fn end_if_whole(&mut self) {
        if !self.framing.is_whole() {
            return;
        }
        let place = std::mem::replace(&mut self.place, Place::Whole);
        // What stands behind the end was not asked for: nobody knows what the next answer is.
        if let (Place::Open(connection), Some(home)) = (place, self.home.take())
            && connection.buffered().is_empty()
        {
            home.pool.put(home.way, connection);
        }
    }

    fn broken(&mut self, failure: Failure) -> io::Error {
        self.place = Place::Broken;
        HttpError::of(&self.url, failure, self.received, self.length).into()
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
        Poll::Ready(copied.map_err(|failure| body.broken(failure)))
    }
}
