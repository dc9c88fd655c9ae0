//! Limits of the write speed: a pause after each line, and a maximum number of bytes per second.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use memchr::memchr;

use crate::limits::rate::RateLimiter;

/// Determines when the next bytes may be written.
#[derive(Debug)]
pub(super) struct Throttle {
    delay: Option<Duration>,
    rate: Option<RateLimiter>,
    next_write: Instant,
}

impl Throttle {
    pub(super) fn new(delay: Option<Duration>, rate: Option<NonZeroU64>, now: Instant) -> Self {
        let rate = rate.map(|rate| RateLimiter::new(rate, now));
        Self {
            delay: delay.filter(|delay| !delay.is_zero()),
            rate,
            next_write: now,
        }
    }

    /// Returns whether there is no limit.
    pub(super) fn is_unlimited(&self) -> bool {
        self.delay.is_none() && self.rate.is_none()
    }

    /// Returns the time of the next write, if it is in the future.
    pub(super) fn wait_until(&self, now: Instant) -> Option<Instant> {
        (self.next_write > now).then_some(self.next_write)
    }

    /// Returns how many of these bytes may be written together: at most one line, and at most
    /// one burst of the rate limit.
    pub(super) fn chunk_len(&self, bytes: &[u8]) -> usize {
        let max = self
            .rate
            .as_ref()
            .map_or(bytes.len(), RateLimiter::max_burst);
        let bytes = &bytes[..bytes.len().min(max)];
        let newline = self.delay.and_then(|_| memchr(b'\n', bytes));
        newline.map_or(bytes.len(), |newline| newline + 1)
    }

    /// Records the write of a chunk.
    pub(super) fn record(&mut self, chunk: &[u8], now: Instant) {
        if let Some(rate) = &mut self.rate {
            self.next_write = rate.consume(chunk.len(), now);
        }
        if let (Some(delay), Some(b'\n')) = (self.delay, chunk.last()) {
            self.next_write = self.next_write.max(now + delay);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::RangeInclusive;

    use super::*;

    /// Checks the time that writing `bytes` takes on a clock whose sleeps end `late` milliseconds
    /// too late.
    #[track_caller]
    fn check(delay: u64, rate: u64, bytes: &[u8], late: u64, millis: RangeInclusive<u128>) {
        let start = Instant::now();
        let delay = Some(Duration::from_millis(delay));
        let mut throttle = Throttle::new(delay, NonZeroU64::new(rate), start);
        let mut now = start;
        let mut rest = bytes;
        while !rest.is_empty() {
            let len = throttle.chunk_len(rest);
            assert!(len > 0);
            throttle.record(&rest[..len], now);
            rest = &rest[len..];
            if let Some(next_write) = throttle.wait_until(now) {
                now = next_write + Duration::from_millis(late);
            }
        }
        let taken = (now - start).as_millis();
        assert!(millis.contains(&taken), "{taken} ms");
    }

    #[test]
    fn only_complete_lines_are_followed_by_a_pause() {
        check(100, 0, b"a\nb\n\nend", 0, 300..=300);
        check(0, 0, b"a\nb\n", 0, 0..=0);
    }

    #[test]
    fn late_sleepers_keep_the_rate() {
        let bytes = [b'x'; 10_000];
        check(0, 1000, &bytes, 0, 10_000..=10_000);
        check(0, 1000, &bytes, 20, 9_900..=10_100);
        check(0, 3, b"1234567", 0, 2_300..=2_400);
        check(0, 1 << 40, &bytes, 0, 0..=1);
    }

    #[test]
    fn longer_of_pause_and_rate_applies() {
        check(100, 10, b"a\nb\n", 0, 400..=400);
        check(500, 1000, b"a\nb\n", 0, 1000..=1000);
    }
}
