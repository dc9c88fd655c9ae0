//! Byte rate limits without bursts.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The deviation from a rate that is tolerated: short enough to look steady, long enough to catch
/// up after a late wake-up.
const TOLERANCE: Duration = Duration::from_millis(50);

/// Rate limiter of one reader or writer.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    per_second: NonZeroU64,
    /// The time at which the bytes so far conform to the rate.
    conforming_at: Instant,
}

impl RateLimiter {
    /// Creates a limiter of `per_second` bytes that starts at `now`. Unused bandwidth does not
    /// accumulate: there is no burst.
    pub(crate) fn new(per_second: NonZeroU64, now: Instant) -> Self {
        Self {
            per_second,
            conforming_at: now,
        }
    }

    /// Returns the maximum number of bytes that may pass at once; at least one.
    pub(crate) fn max_burst(&self) -> usize {
        let bytes = self.per_second.get() as f64 * TOLERANCE.as_secs_f64();
        (bytes as usize).max(1)
    }

    /// Records that `bytes` pass; returns the time at which the next may.
    pub(crate) fn consume(&mut self, bytes: usize, now: Instant) -> Instant {
        let start = now
            .checked_sub(TOLERANCE)
            .map_or(self.conforming_at, |early| self.conforming_at.max(early));
        // Bounded by a day, so that the addition cannot overflow.
        let takes = (bytes as f64 / self.per_second.get() as f64).min(86_400.0);
        self.conforming_at = start + Duration::from_secs_f64(takes);
        self.conforming_at
    }
}

/// Rate limiter that several readers share through [`RateLimitHandle`]s.
#[derive(Debug)]
pub(crate) struct SharedRateLimiter(Arc<Mutex<RateLimiter>>);

/// Handle of one reader of a [`SharedRateLimiter`]. Readers that want more get equal shares.
#[derive(Debug)]
pub(crate) struct RateLimitHandle(Arc<Mutex<RateLimiter>>);

impl SharedRateLimiter {
    /// Creates a limiter of `per_second` bytes for all handles together.
    pub(crate) fn new(per_second: NonZeroU64) -> Self {
        Self(Arc::new(Mutex::new(RateLimiter::new(
            per_second,
            Instant::now(),
        ))))
    }

    /// Creates a handle. The shares of the others shrink until it is dropped.
    pub(crate) fn handle(&self) -> RateLimitHandle {
        RateLimitHandle(Arc::clone(&self.0))
    }
}

impl RateLimitHandle {
    /// Returns the maximum number of bytes that may be read at once: a share of the burst, so that
    /// all handles together conform to the rate.
    pub(crate) fn max_burst(&self) -> usize {
        let shares = Arc::strong_count(&self.0).saturating_sub(1).max(1);
        (self.lock().max_burst() / shares).max(1)
    }

    /// Records that `bytes` were read; returns the time at which this reader may read again. Bytes
    /// of the other handles count first, which makes the limiter fair.
    pub(crate) fn consume(&self, bytes: usize, now: Instant) -> Instant {
        self.lock().consume(bytes, now)
    }

    fn lock(&self) -> MutexGuard<'_, RateLimiter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn per_second(bytes: u64) -> NonZeroU64 {
        NonZeroU64::new(bytes).unwrap()
    }

    #[test]
    fn late_readers_keep_the_rate() {
        let start = Instant::now();
        for (late, least, most) in [(0, 999, 1050), (20, 990, 1050), (200, 200, 400)] {
            let (mut rate, mut now, mut bytes) =
                (RateLimiter::new(per_second(1000), start), start, 0);
            while now < start + Duration::from_secs(1) {
                bytes += rate.max_burst();
                now = rate.consume(rate.max_burst(), now).max(now) + Duration::from_millis(late);
            }
            assert!(
                (least..=most).contains(&bytes),
                "{bytes} bytes, {late} ms late"
            );
        }
    }

    #[test]
    fn unused_bandwidth_does_not_accumulate() {
        let start = Instant::now();
        let mut rate = RateLimiter::new(per_second(1000), start);
        let later = start + Duration::from_secs(60);
        assert_eq!(rate.consume(50, later), later);
        assert_eq!(rate.consume(50, later), later + TOLERANCE);
        assert!(RateLimiter::new(per_second(1), start).consume(usize::MAX, start) > start);
    }

    /// The bytes that each of four readers has after so many milliseconds, if this many are at
    /// hand for it whenever it may read.
    fn shares(at_hand: [usize; 4], millis: u64) -> [usize; 4] {
        let shared = SharedRateLimiter::new(per_second(100_000));
        let start = Instant::now();
        let shares = [(); 4].map(|()| shared.handle());
        let mut due = [start; 4];
        let mut bytes = [0; 4];
        let end = start + Duration::from_millis(millis);
        while let Some(next) = (0..4).filter(|n| due[*n] < end).min_by_key(|n| due[*n]) {
            let max_burst = shares[next].max_burst().min(at_hand[next]);
            bytes[next] += max_burst;
            due[next] = shares[next].consume(max_burst, due[next]);
        }
        bytes
    }

    #[test]
    fn readers_share_the_rate_equally_from_the_start() {
        for millis in [500, 1000, 10_000] {
            let bytes = shares([usize::MAX; 4], millis);
            let all: usize = bytes.iter().sum();
            let wanted = 100 * millis as usize;
            assert!(
                (wanted..=wanted + 5000).contains(&all),
                "{all} after {millis} ms"
            );
            assert!(
                bytes.iter().all(|part| part.abs_diff(wanted / 4) <= 1250),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn unused_share_is_available_to_other_readers() {
        let bytes = shares([10, usize::MAX, usize::MAX, usize::MAX], 10_000);
        let all: usize = bytes.iter().sum();
        assert!((1_000_000..1_010_000).contains(&all), "{bytes:?}");
        assert!(bytes[0] < 20_000 && bytes[1] > 300_000, "{bytes:?}");
    }
}
