//! How fast something comes, as a person wants to know it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The mean over this time: it neither flickers nor remembers for long.
const SPAN: Duration = Duration::from_secs(5);

/// How many bytes there were, and when, over the last seconds.
#[derive(Debug, Default)]
pub(super) struct Pace(VecDeque<(Instant, u64)>);

impl Pace {
    /// There are so many bytes by now.
    pub(super) fn note(&mut self, bytes: u64, now: Instant) {
        // What begins anew has come at no rate.
        if self.0.back().is_some_and(|(_, before)| *before > bytes) {
            self.0.clear();
        }
        self.0.push_back((now, bytes));
        let is_old = |then: &Instant| now.saturating_duration_since(*then) >= SPAN;
        while self.0.get(1).is_some_and(|(then, _)| is_old(then)) {
            self.0.pop_front();
        }
    }

    /// Bytes a second.
    pub(super) fn rate(&self) -> f64 {
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

    /// How long `bytes` more take; nobody knows it while nothing comes.
    pub(super) fn left(&self, bytes: u64) -> Option<Duration> {
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

    fn pace(notes: &[(u64, u64)]) -> Pace {
        let (start, mut pace) = (Instant::now(), Pace::default());
        for (millis, bytes) in notes {
            pace.note(*bytes, start + Duration::from_millis(*millis));
        }
        pace
    }

    #[track_caller]
    fn is(notes: &[(u64, u64)], rate: f64, left: Option<u64>) {
        let pace = pace(notes);
        assert!(
            (pace.rate() - rate).abs() < 0.01,
            "{notes:?}: {}",
            pace.rate()
        );
        assert_eq!(pace.left(1000), left.map(Duration::from_secs), "{notes:?}");
    }

    #[test]
    fn a_pace_is_the_mean_of_the_last_seconds() {
        is(&[], 0.0, None);
        is(&[(0, 700)], 0.0, None);
        is(&[(0, 700), (0, 900)], 0.0, None);
        is(&[(0, 700), (2000, 900)], 100.0, Some(10));
        is(
            &[(0, 0), (1000, 9000), (3000, 9000), (8000, 9500)],
            100.0,
            Some(10),
        );
        is(
            &[(0, 0), (1000, 9000), (20_000, 9000), (25_000, 9000)],
            0.0,
            None,
        );
        is(&[(0, 9000), (1000, 0), (2000, 500)], 500.0, Some(2));
        assert_eq!(pace(&[]).left(0), Some(Duration::ZERO));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let notes: Vec<_> = (0..1000).map(|tenth| (tenth * 100, tenth)).collect();
        assert!(pace(&notes).0.len() < 60);
    }
}
