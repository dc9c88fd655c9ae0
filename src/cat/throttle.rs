//! How fast to write: a pause after each line, a number of bytes a second.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use memchr::memchr;

use crate::limits::rate::RateLimiter;

/// When the next bytes may be written.
#[derive(Debug)]
pub(super) struct Pace {
    delay: Option<Duration>,
    rate: Option<RateLimiter>,
    due: Instant,
}

impl Pace {
    pub(super) fn new(delay: Option<Duration>, rate: Option<NonZeroU64>, now: Instant) -> Self {
        let rate = rate.map(|rate| RateLimiter::new(rate, now));
        Self {
            delay: delay.filter(|delay| !delay.is_zero()),
            rate,
            due: now,
        }
    }

    /// Whether everything may be written at once.
    pub(super) fn is_free(&self) -> bool {
        self.delay.is_none() && self.rate.is_none()
    }

    /// The moment to wait for, if it has not come.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        (self.due > now).then_some(self.due)
    }

    /// The number of these bytes that may be written together: at most a line, at most what the
    /// rate gives in a moment.
    pub(super) fn piece(&self, bytes: &[u8]) -> usize {
        let most = self
            .rate
            .as_ref()
            .map_or(bytes.len(), RateLimiter::max_burst);
        let bytes = &bytes[..bytes.len().min(most)];
        let line = self.delay.and_then(|_| memchr(b'\n', bytes));
        line.map_or(bytes.len(), |end| end + 1)
    }

    /// Notes that such a piece was written.
    pub(super) fn wrote(&mut self, piece: &[u8], now: Instant) {
        if let Some(rate) = &mut self.rate {
            self.due = rate.consume(piece.len(), now);
        }
        if let (Some(delay), Some(b'\n')) = (self.delay, piece.last()) {
            self.due = self.due.max(now + delay);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time that writing these bytes takes, on a clock that sleeps exactly, or late.
    #[track_caller]
    fn takes(
        delay: u64,
        rate: u64,
        bytes: &[u8],
        late: u64,
        millis: std::ops::RangeInclusive<u128>,
    ) {
        let start = Instant::now();
        let delay = Some(Duration::from_millis(delay));
        let mut pace = Pace::new(delay, NonZeroU64::new(rate), start);
        let (mut now, mut rest) = (start, bytes);
        while !rest.is_empty() {
            let piece = pace.piece(rest);
            assert!(piece > 0);
            pace.wrote(&rest[..piece], now);
            rest = &rest[piece..];
            if let Some(due) = pace.due(now) {
                now = due + Duration::from_millis(late);
            }
        }
        let taken = (now - start).as_millis();
        assert!(millis.contains(&taken), "{taken} ms");
    }

    #[test]
    fn after_each_line_comes_a_pause_and_after_a_part_none() {
        takes(100, 0, b"a\nb\n\nend", 0, 300..=300);
        takes(0, 0, b"a\nb\n", 0, 0..=0);
    }

    #[test]
    fn a_rate_is_kept_also_by_one_who_sleeps_late() {
        let bytes = [b'x'; 10_000];
        takes(0, 1000, &bytes, 0, 10_000..=10_000);
        takes(0, 1000, &bytes, 20, 9_900..=10_100);
        takes(0, 3, b"1234567", 0, 2_300..=2_400);
        takes(0, 1 << 40, &bytes, 0, 0..=1);
    }

    #[test]
    fn of_a_pause_and_a_rate_the_longer_counts() {
        takes(100, 10, b"a\nb\n", 0, 400..=400);
        takes(500, 1000, b"a\nb\n", 0, 1000..=1000);
    }
}
