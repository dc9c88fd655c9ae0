//! Transfer rate over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Averaging time of the rate.
const WINDOW: Duration = Duration::from_secs(5);

/// Minimum time between two counts that are kept, which bounds their number.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// Byte counts of the last seconds with their times.
#[derive(Debug, Default)]
pub struct Speed(VecDeque<(Instant, u64)>);

impl Speed {
    /// Records the number of bytes at this time.
    pub fn record(&mut self, bytes: u64, now: Instant) {
        // A smaller number is the restart of a transfer.
        if self.0.back().is_some_and(|(_, before)| *before > bytes) {
            self.0.clear();
        }
        let kept = self.0.len();
        if kept >= 2
            && self.0[kept - 1]
                .0
                .saturating_duration_since(self.0[kept - 2].0)
                < MIN_INTERVAL
        {
            self.0.pop_back();
        }
        self.0.push_back((now, bytes));
        let is_old = |then: &Instant| now.saturating_duration_since(*then) >= WINDOW;
        while self.0.get(1).is_some_and(|(then, _)| is_old(then)) {
            self.0.pop_front();
        }
    }

    /// Returns the rate in bytes per second.
    pub fn rate(&self) -> f64 {
        let (Some(first), Some(last)) = (self.0.front(), self.0.back()) else {
            return 0.0;
        };
        let seconds = last.0.saturating_duration_since(first.0).as_secs_f64();
        if seconds > 0.0 {
            (last.1 - first.1) as f64 / seconds
        } else {
            0.0
        }
    }

    /// Returns the time that `bytes` more will take, if the rate is not zero.
    pub fn time_left(&self, bytes: u64) -> Option<Duration> {
        match self.rate() {
            _ if bytes == 0 => Some(Duration::ZERO),
            rate if rate < 1.0 => None,
            rate => Some(Duration::from_secs_f64(bytes as f64 / rate)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(samples: &[(u64, u64)]) -> Speed {
        let start = Instant::now();
        let mut speed = Speed::default();
        for (millis, bytes) in samples {
            speed.record(*bytes, start + Duration::from_millis(*millis));
        }
        speed
    }

    #[track_caller]
    fn assert_speed(samples: &[(u64, u64)], rate: f64, left: Option<u64>) {
        let speed = speed(samples);
        assert!(
            (speed.rate() - rate).abs() < 0.01,
            "{samples:?}: {}",
            speed.rate()
        );
        assert_eq!(
            speed.time_left(1000),
            left.map(Duration::from_secs),
            "{samples:?}"
        );
    }

    #[test]
    fn speed_is_the_mean_of_the_last_seconds() {
        assert_speed(&[], 0.0, None);
        assert_speed(&[(0, 700)], 0.0, None);
        assert_speed(&[(0, 700), (0, 900)], 0.0, None);
        assert_speed(&[(0, 700), (2000, 900)], 100.0, Some(10));
        assert_speed(
            &[(0, 0), (1000, 9000), (3000, 9000), (8000, 9500)],
            100.0,
            Some(10),
        );
        assert_speed(
            &[(0, 0), (1000, 9000), (20_000, 9000), (25_000, 9000)],
            0.0,
            None,
        );
        assert_speed(&[(0, 9000), (1000, 0), (2000, 500)], 500.0, Some(2));
        assert_eq!(speed(&[]).time_left(0), Some(Duration::ZERO));
    }

    #[test]
    fn number_of_samples_is_bounded() {
        let samples: Vec<_> = (0..1000).map(|tenth| (tenth * 100, tenth)).collect();
        assert!(speed(&samples).0.len() < 60);
        let samples: Vec<_> = (0..4000).map(|milli| (milli, milli)).collect();
        let fast = speed(&samples);
        assert!(fast.0.len() < 100);
        assert!((fast.rate() - 1000.0).abs() < 0.01);
    }
}
