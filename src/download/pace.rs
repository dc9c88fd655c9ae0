//! A body that must not come too slowly.

use std::future::Future as _;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_lite::AsyncRead;
use smol::Timer;

use crate::download::body::Source;

/// How slowly a body may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlowestPace {
    /// Bytes a second, on average.
    pub rate: u64,
    /// Over this time.
    pub time: Duration,
}

/// It came more slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{came} bytes in {time:?}, fewer than {rate} a second")]
pub(super) struct TooSlow {
    came: u64,
    rate: u64,
    time: Duration,
}

/// Reads from `reader` until that is too slow.
pub(super) struct Paced<R> {
    reader: R,
    slowest: Option<SlowestPace>,
    timer: Timer,
    came: u64,
}

impl<R> Paced<R> {
    pub(super) fn new(reader: R, slowest: Option<SlowestPace>) -> Self {
        let timer = slowest.map_or_else(Timer::never, |slowest| Timer::after(slowest.time));
        Self { reader, slowest, timer, came: 0 }
    }

    /// Looks at the end of each span of time whether enough has come in it. Who never has to wait
    /// is never looked at: then the server is not what is slow.
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Result<(), TooSlow> {
        let Some(SlowestPace { rate, time }) = self.slowest else { return Ok(()) };
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            let came = std::mem::take(&mut self.came);
            if (came as f64) < rate as f64 * time.as_secs_f64() {
                return Err(TooSlow { came, rate, time });
            }
            self.timer.set_after(time);
        }
        Ok(())
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Paced<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let paced = self.get_mut();
        let read = Pin::new(&mut paced.reader).poll_read(cx, into);
        match &read {
            // The end is never too late.
            Poll::Ready(Ok(0) | Err(_)) => return read,
            Poll::Ready(Ok(count)) => paced.came += *count as u64,
            Poll::Pending => {}
        }
        if read.is_ready() {
            return read;
        }
        match paced.poll_pace(cx) {
            Ok(()) => Poll::Pending,
            Err(slow) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow))),
        }
    }
}

impl<R: Source> Source for Paced<R> {
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        most: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        let moved = self.reader.poll_splice(cx, pipe, most);
        if let Poll::Ready(Ok(Some(count))) = &moved {
            self.came += *count as u64;
        }
        if moved.is_ready() {
            return moved;
        }
        match self.poll_pace(cx) {
            Ok(()) => Poll::Pending,
            Err(slow) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{AsyncReadExt as _, future, io::repeat, stream};

    #[test]
    fn what_comes_fast_enough_is_read_for_as_long_as_it_comes() {
        let slowest = SlowestPace { rate: 1000, time: Duration::from_millis(5) };
        let mut paced = Paced::new(repeat(7).take(1 << 20), Some(slowest));
        let mut bytes = Vec::new();
        assert_eq!(future::block_on(paced.read_to_end(&mut bytes)).unwrap(), 1 << 20);
    }

    #[test]
    fn what_comes_too_slowly_is_an_error_that_says_so() {
        let slowest = SlowestPace { rate: 1000, time: Duration::from_millis(50) };
        let drip = stream::unfold((), |()| async {
            Timer::after(Duration::from_millis(10)).await;
            Some((Ok::<_, io::Error>(b"x"), ()))
        });
        let drip = Box::pin(drip);
        let mut paced = Paced::new(Drip(drip), Some(slowest));
        let error = future::block_on(paced.read_to_end(&mut Vec::new())).unwrap_err();
        assert!(error.downcast::<TooSlow>().is_ok());
    }

    struct Drip<S>(S);

    impl<S> AsyncRead for Drip<S>
    where
        S: futures_lite::Stream<Item = io::Result<&'static [u8; 1]>> + Unpin,
    {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            into: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_next(cx).map(|next| {
                into[0] = next.map_or(Ok(&[0]), |byte| byte)?[0];
                Ok(1)
            })
        }
    }
}
