//! Body reader with a rate limit and a low-speed limit.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, ready};
use smol::Timer;

use crate::download::body::source::DirectRead;
use crate::download::config::LowSpeedLimit;
use crate::download::http::ReadTarget;
use crate::limits::rate::RateLimitHandle;

/// A body was received more slowly than the low-speed limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too slow")]
pub(crate) struct TooSlow {
    pub(crate) received: u64,
    pub(crate) limit: LowSpeedLimit,
}

/// Reader that fails below a low-speed limit and stays below rate limits. Unread bytes stay in
/// the socket buffer, so TCP flow control slows the server down.
pub(crate) struct Throttled<R> {
    reader: R,
    low_speed_limit: Option<LowSpeedLimit>,
    /// End of the current window of the low-speed limit.
    window_timer: Timer,
    /// Bytes received in the current window.
    received: u64,
    /// Time spent waiting for these bytes.
    waited: Duration,
    waiting_since: Option<Instant>,
    rate_limits: Vec<RateLimitHandle>,
    /// Time of the next read, while the rate limits do not permit one.
    next_read: Option<Timer>,
}

impl<R> Throttled<R> {
    pub(crate) fn new(
        reader: R,
        low_speed_limit: Option<LowSpeedLimit>,
        rate_limits: Vec<RateLimitHandle>,
    ) -> Self {
        Self {
            reader,
            low_speed_limit,
            window_timer: low_speed_limit
                .map_or_else(Timer::never, |limit| Timer::after(limit.window)),
            received: 0,
            waited: Duration::ZERO,
            waiting_since: None,
            rate_limits,
            next_read: None,
        }
    }

    /// Checks the low-speed limit whenever the time spent waiting reaches the window. Time in
    /// which nothing was requested from the reader does not count.
    fn poll_low_speed(&mut self, cx: &mut Context<'_>) -> Result<(), TooSlow> {
        let Some(limit) = self.low_speed_limit else {
            return Ok(());
        };
        let LowSpeedLimit {
            bytes_per_sec,
            window,
        } = limit;
        let waiting_since = *self.waiting_since.get_or_insert_with(Instant::now);
        while Pin::new(&mut self.window_timer).poll(cx).is_ready() {
            let waited = self.waited + waiting_since.elapsed();
            if waited < window {
                self.window_timer.set_after(window - waited);
                continue;
            }
            let received = std::mem::take(&mut self.received);
            if (received as f64) < bytes_per_sec as f64 * window.as_secs_f64() {
                return Err(TooSlow { received, limit });
            }
            self.waited = Duration::ZERO;
            self.waiting_since = Some(Instant::now());
            self.window_timer.set_after(window);
        }
        Ok(())
    }

    /// Waits until the rate limits permit a read. Returns its maximum length.
    fn poll_max_len(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if let Some(next_read) = &mut self.next_read {
            ready!(Pin::new(next_read).poll(cx));
            self.next_read = None;
        }
        let max_bursts = self.rate_limits.iter().map(RateLimitHandle::max_burst);
        Poll::Ready(max_bursts.min().unwrap_or(usize::MAX))
    }

    fn record(&mut self, count: usize) {
        self.received += count as u64;
        if let Some(since) = self.waiting_since.take() {
            self.waited += since.elapsed();
        }
        let now = Instant::now();
        let times = self
            .rate_limits
            .iter()
            .map(|limit| limit.consume(count, now));
        self.next_read = times.max().filter(|time| *time > now).map(Timer::at);
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Throttled<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let throttled = self.get_mut();
        let max_len = ready!(throttled.poll_max_len(cx)).min(into.len());
        match Pin::new(&mut throttled.reader).poll_read(cx, &mut into[..max_len]) {
            Poll::Ready(Ok(count)) => {
                // The end of the body is exempt from the limits.
                if count > 0 {
                    throttled.record(count);
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => match throttled.poll_low_speed(cx) {
                Ok(()) => Poll::Pending,
                Err(slow) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, slow))),
            },
        }
    }
}

impl<R: DirectRead> DirectRead for Throttled<R> {
    fn poll_read_direct(
        &mut self,
        cx: &mut Context<'_>,
        target: ReadTarget<'_>,
        max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        let max_len = ready!(self.poll_max_len(cx)).min(max_len);
        match self.reader.poll_read_direct(cx, target, max_len) {
            Poll::Ready(Ok(Some(count))) => {
                if count > 0 {
                    self.record(count);
                }
                Poll::Ready(Ok(Some(count)))
            }
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => match self.poll_low_speed(cx) {
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
    fn fast_body_is_read_to_its_end() {
        let low_speed_limit = LowSpeedLimit {
            bytes_per_sec: 1000,
            window: Duration::from_millis(5),
        };
        let mut throttled =
            Throttled::new(repeat(7).take(1 << 20), Some(low_speed_limit), Vec::new());
        let mut bytes = Vec::new();
        assert_eq!(
            future::block_on(throttled.read_to_end(&mut bytes)).unwrap(),
            1 << 20
        );
    }

    #[test]
    fn slow_body_is_a_typed_error() {
        let low_speed_limit = LowSpeedLimit {
            bytes_per_sec: 1000,
            window: Duration::from_millis(50),
        };
        let drip = stream::unfold((), |()| async {
            Timer::after(Duration::from_millis(10)).await;
            Some((Ok::<_, io::Error>(b"x"), ()))
        });
        let drip = Box::pin(drip);
        let mut throttled = Throttled::new(Drip(drip), Some(low_speed_limit), Vec::new());
        let error = future::block_on(throttled.read_to_end(&mut Vec::new())).unwrap_err();
        assert!(error.downcast::<TooSlow>().is_ok());
    }

    #[test]
    fn throttled_time_does_not_count_as_slow() {
        let low_speed_limit = LowSpeedLimit {
            bytes_per_sec: 1_000_000,
            window: Duration::from_millis(400),
        };
        let limit = SharedRateLimiter::new(NonZeroU64::new(100_000).unwrap());
        let pause = stream::unfold((), |()| async {
            Timer::after(Duration::from_micros(100)).await;
            Some((Ok::<_, io::Error>(b"x"), ()))
        });
        // Most bytes are available at once, the rest after a few short waits.
        let reader = repeat(7)
            .take(60_000)
            .chain(Drip(Box::pin(pause)))
            .take(60_020);
        let mut throttled = Throttled::new(reader, Some(low_speed_limit), vec![limit.handle()]);
        let start = Instant::now();
        let mut bytes = Vec::new();
        future::block_on(throttled.read_to_end(&mut bytes)).unwrap();
        assert_eq!(bytes.len(), 60_020);
        assert!(
            start.elapsed() > Duration::from_millis(500),
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
