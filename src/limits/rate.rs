//! How fast: a number of bytes a second, spent evenly.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far one may be ahead of or behind a rate: short enough to look steady, long enough for a
/// sleep that came late to be caught up.
const SLACK: Duration = Duration::from_millis(50);

/// A rate, and how much of it is spent.
#[derive(Debug)]
pub struct RateLimiter {
    per_second: NonZeroU64,
    /// When the bytes so far are due to have passed.
    paid: Instant,
}

impl RateLimiter {
    /// So many bytes a second, from `now` on. Nothing is saved up: there is no burst.
    pub fn new(per_second: NonZeroU64, now: Instant) -> Self {
        Self {
            per_second,
            paid: now,
        }
    }

    /// The most bytes that may pass together; at least one.
    pub fn max_burst(&self) -> usize {
        let bytes = self.per_second.get() as f64 * SLACK.as_secs_f64();
        (bytes as usize).max(1)
    }

    /// Notes that so many bytes pass; returns when the next may.
    pub fn consume(&mut self, bytes: usize, now: Instant) -> Instant {
        let start = now
            .checked_sub(SLACK)
            .map_or(self.paid, |early| self.paid.max(early));
        // A day for one max_burst is as good as for ever, and an addition that cannot fail.
        let takes = (bytes as f64 / self.per_second.get() as f64).min(86_400.0);
        self.paid = start + Duration::from_secs_f64(takes);
        self.paid
    }
}

/// A rate for several readers together; each takes a [`RateLimitHandle`].
#[derive(Debug)]
pub struct SharedRateLimiter(Arc<Mutex<RateLimiter>>);

/// A reader's part of a [`SharedRateLimiter`]: as much as any other has, as long as all want more.
#[derive(Debug)]
pub struct RateLimitHandle(Arc<Mutex<RateLimiter>>);

impl SharedRateLimiter {
    /// So many bytes a second in all.
    pub fn new(per_second: NonZeroU64) -> Self {
        Self(Arc::new(Mutex::new(RateLimiter::new(
            per_second,
            Instant::now(),
        ))))
    }

    /// A share for one more; the others' become smaller until it is dropped.
    pub fn handle(&self) -> RateLimitHandle {
        RateLimitHandle(Arc::clone(&self.0))
    }
}

impl RateLimitHandle {
    /// The most bytes that may be taken together: the more there are who share, the fewer, so
    /// that all of them at once are not too fast.
    pub fn max_burst(&self) -> usize {
        let shares = Arc::strong_count(&self.0).saturating_sub(1).max(1);
        (self.lock().max_burst() / shares).max(1)
    }

    /// Notes that so many bytes were taken; returns when this reader may take the next. What the
    /// others took before is paid first, which gives each its turn.
    pub fn consume(&self, bytes: usize, now: Instant) -> Instant {
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
    fn a_rate_is_even_also_for_one_who_comes_late() {
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
    fn a_pause_is_not_made_up_for() {
        let start = Instant::now();
        let mut rate = RateLimiter::new(per_second(1000), start);
        let later = start + Duration::from_secs(60);
        assert_eq!(rate.consume(50, later), later);
        assert_eq!(rate.consume(50, later), later + SLACK);
        assert!(RateLimiter::new(per_second(1), start).consume(usize::MAX, start) > start);
    }

    /// The bytes that each of four readers has after so many milliseconds, if this many are at
    /// hand for it whenever it may read.
    fn shares(at_hand: [usize; 4], millis: u64) -> [usize; 4] {
        let shared = SharedRateLimiter::new(per_second(100_000));
        let start = Instant::now();
        let shares = [(); 4].map(|()| shared.handle());
        let (mut due, mut bytes) = ([start; 4], [0; 4]);
        let end = start + Duration::from_millis(millis);
        while let Some(next) = (0..4).filter(|n| due[*n] < end).min_by_key(|n| due[*n]) {
            let max_burst = shares[next].max_burst().min(at_hand[next]);
            bytes[next] += max_burst;
            due[next] = shares[next].consume(max_burst, due[next]);
        }
        bytes
    }

    #[test]
    fn readers_share_evenly_and_together_keep_the_rate_from_the_start() {
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
    fn what_one_does_not_take_is_for_the_others() {
        let bytes = shares([10, usize::MAX, usize::MAX, usize::MAX], 10_000);
        let all: usize = bytes.iter().sum();
        assert!((1_000_000..1_010_000).contains(&all), "{bytes:?}");
        assert!(bytes[0] < 20_000 && bytes[1] > 300_000, "{bytes:?}");
    }
}
