//! A body that must not come too slowly, nor too fast.

use std::future::Future as _;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, ready};
use smol::Timer;

use crate::download::body::source::SpliceRead;
use crate::download::config::LowSpeedLimit;
use crate::limits::rate::RateLimitHandle;

/// It came more slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{came} bytes in {time:?}, fewer than {rate} a second")]
pub(crate) struct TooSlow {
    came: u64,
    rate: u64,
    time: Duration,
}

/// Reads from `reader` until that is too slow, and no faster than its shares of rates allow: what
/// is not read is held back by the kernel and then by the server.
pub(crate) struct Paced<R> {
    reader: R,
    slowest: Option<LowSpeedLimit>,
    timer: Timer,
    came: u64,
    /// How long the reader made us wait for what came.
    waited: Duration,
    since: Option<Instant>,
    shares: Vec<RateLimitHandle>,
    /// When more may be read.
    due: Option<Timer>,
}

impl<R> Paced<R> {
    pub(crate) fn new(
        reader: R,
        slowest: Option<LowSpeedLimit>,
        shares: Vec<RateLimitHandle>,
    ) -> Self {
        let timer = slowest.map_or_else(Timer::never, |slowest| Timer::after(slowest.window));
        let (came, waited, since, due) = (0, Duration::ZERO, None, None);
        Self {
            reader,
            slowest,
            timer,
            came,
            waited,
            since,
            shares,
            due,
        }
    }

    /// Looks, whenever the reader has made us wait for the span of time, whether enough has come
    /// in it. What was not even asked for is not its fault.
    fn poll_pace(&mut self, cx: &mut Context<'_>) -> Result<(), TooSlow> {
        let Some(LowSpeedLimit {
            bytes_per_sec: rate,
            window: time,
        }) = self.slowest
        else {
            return Ok(());
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        while Pin::new(&mut self.timer).poll(cx).is_ready() {
            let waited = self.waited + since.elapsed();
            if waited < time {
                self.timer.set_after(time - waited);
                continue;
            }
            let came = std::mem::take(&mut self.came);
            if (came as f64) < rate as f64 * time.as_secs_f64() {
                return Err(TooSlow { came, rate, time });
            }
            (self.waited, self.since) = (Duration::ZERO, Some(Instant::now()));
            self.timer.set_after(time);
        }
        Ok(())
    }

    /// The most that may be read now.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if let Some(due) = &mut self.due {
            ready!(Pin::new(due).poll(cx));
            self.due = None;
        }
        Poll::Ready(
            self.shares
                .iter()
                .map(RateLimitHandle::max_burst)
                .min()
                .unwrap_or(usize::MAX),
        )
    }

    fn read(&mut self, count: usize) {
        self.came += count as u64;
        self.waited += self
            .since
            .take()
            .map_or(Duration::ZERO, |since| since.elapsed());
        let now = Instant::now();
        let due = self
            .shares
            .iter()
            .map(|share| share.consume(count, now))
            .max();
        self.due = due.filter(|due| *due > now).map(Timer::at);
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Paced<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let paced = self.get_mut();
        let most = ready!(paced.poll_due(cx)).min(into.len());
        match Pin::new(&mut paced.reader).poll_read(cx, &mut into[..most]) {
            Poll::Ready(Ok(count)) => {
                // The end is never too late.
                if count > 0 {
                    paced.read(count);
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match paced.poll_pace(cx) {
                Ok(()) => Poll::Pending,
                Err(slow) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow))),
            },
        }
    }
}

impl<R: SpliceRead> SpliceRead for Paced<R> {
    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        most: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        let most = ready!(self.poll_due(cx)).min(most);
        match self.reader.poll_splice(cx, pipe, most) {
            Poll::Ready(Ok(Some(count))) => {
                if count > 0 {
                    self.read(count);
                }
                Poll::Ready(Ok(Some(count)))
            }
            Poll::Ready(ended) => Poll::Ready(ended),
            Poll::Pending => match self.poll_pace(cx) {
                Ok(()) => Poll::Pending,
                Err(slow) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::rate::SharedRateLimiter;
    use futures_lite::{AsyncReadExt as _, future, io::repeat, stream};
    use std::num::NonZeroU64;

    #[test]
    fn what_comes_fast_enough_is_read_for_as_long_as_it_comes() {
        let slowest = LowSpeedLimit {
            bytes_per_sec: 1000,
            window: Duration::from_millis(5),
        };
        let mut paced = Paced::new(repeat(7).take(1 << 20), Some(slowest), Vec::new());
        let mut bytes = Vec::new();
        assert_eq!(
            future::block_on(paced.read_to_end(&mut bytes)).unwrap(),
            1 << 20
        );
    }

    #[test]
    fn what_comes_too_slowly_is_an_error_that_says_so() {
        let slowest = LowSpeedLimit {
            bytes_per_sec: 1000,
            window: Duration::from_millis(50),
        };
        let drip = stream::unfold((), |()| async {
            Timer::after(Duration::from_millis(10)).await;
            Some((Ok::<_, io::Error>(b"x"), ()))
        });
        let drip = Box::pin(drip);
        let mut paced = Paced::new(Drip(drip), Some(slowest), Vec::new());
        let error = future::block_on(paced.read_to_end(&mut Vec::new())).unwrap_err();
        assert!(error.downcast::<TooSlow>().is_ok());
    }

    #[test]
    fn what_we_do_not_ask_for_makes_nobody_slow() {
        let slowest = LowSpeedLimit {
            bytes_per_sec: 1_000_000,
            window: Duration::from_millis(20),
        };
        let limit = SharedRateLimiter::new(NonZeroU64::new(100_000).unwrap());
        let pause = stream::unfold((), |()| async {
            Timer::after(Duration::from_micros(100)).await;
            Some((Ok::<_, io::Error>(b"x"), ()))
        });
        // Half of it is at hand, for the rest there are a few short waits.
        let reader = repeat(7)
            .take(20_000)
            .chain(Drip(Box::pin(pause)))
            .take(20_020);
        let mut paced = Paced::new(reader, Some(slowest), vec![limit.handle()]);
        let (start, mut bytes) = (Instant::now(), Vec::new());
        future::block_on(paced.read_to_end(&mut bytes)).unwrap();
        assert_eq!(bytes.len(), 20_020);
        assert!(
            start.elapsed() > Duration::from_millis(140),
            "{:?}",
            start.elapsed()
        );
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
