//! How a run went over time: a run of any length in bounded memory.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::measure::latency::{LONGEST, nanos};

/// The most slices; where there would be more, each two become one of twice the width.
const SLICES: usize = 128;

/// The width of a slice at first.
const WIDTH: Duration = Duration::from_millis(10);

/// What happened in each slice of a run. All slices have the same width, which doubles when the
/// run outgrows their number, so that there are from 64 to 128 of them after the first seconds.
#[derive(Debug, Clone)]
pub struct Timeline {
    width: Duration,
    slices: Vec<Slice>,
}

/// What happened in some span of time. The durations are kept with one digit.
#[derive(Debug, Clone)]
pub struct Slice {
    /// What was not answered but failed.
    pub failed: u64,
    /// What was lost on the way.
    pub lost: u64,
    times: Histogram<u32>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            width: WIDTH,
            slices: Vec::new(),
        }
    }
}

impl Timeline {
    /// The slice of a moment, counted from the start of the run.
    pub fn at(&mut self, moment: Duration) -> &mut Slice {
        while moment.as_nanos() / self.width.as_nanos() >= SLICES as u128 {
            self.widen();
        }
        // Less than the number of slices, as the loop has seen to.
        let index = (moment.as_nanos() / self.width.as_nanos()) as usize;
        if self.slices.len() <= index {
            self.slices.resize_with(index + 1, Slice::default);
        }
        &mut self.slices[index]
    }

    /// Adds what another part of the same run has counted from the same start.
    pub fn merge(&mut self, mut other: Self) {
        while self.width < other.width {
            self.widen();
        }
        while other.width < self.width {
            other.widen();
        }
        for (index, slice) in other.slices.iter().enumerate() {
            match self.slices.get_mut(index) {
                Some(own) => own.merge(slice),
                None => self.slices.push(slice.clone()),
            }
        }
    }

    /// Makes one slice of each two.
    pub fn widen(&mut self) {
        let mut old = std::mem::take(&mut self.slices).into_iter();
        while let Some(mut slice) = old.next() {
            if let Some(next) = old.next() {
                slice.merge(&next);
            }
            self.slices.push(slice);
        }
        self.width *= 2;
    }

    /// How long each slice is.
    pub fn width(&self) -> Duration {
        self.width
    }

    /// The slices from the start on, up to the last in which something happened.
    pub fn slices(&self) -> &[Slice] {
        &self.slices
    }
}

impl Default for Slice {
    #[expect(
        clippy::expect_used,
        reason = "the crate takes 1 to 5 digits and any such bounds"
    )]
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1_000, nanos(LONGEST), 1);
        Self {
            failed: 0,
            lost: 0,
            times: times.expect("one digit"),
        }
    }
}

impl Slice {
    /// Counts an answer that took so long.
    pub fn answered(&mut self, time: Duration) {
        self.times.saturating_record(nanos(time));
    }

    /// The number of answers.
    pub fn count(&self) -> u64 {
        self.times.len()
    }

    /// The duration that this share of the answers, from 0 to 1, did not exceed; nothing if there
    /// is no answer.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let nanos = self.times.value_at_quantile(share);
        (!self.times.is_empty()).then(|| Duration::from_nanos(self.times.median_equivalent(nanos)))
    }

    /// Adds what happened in another span.
    pub fn merge(&mut self, other: &Self) {
        self.failed += other.failed;
        self.lost += other.lost;
        // Both have the same bounds, so that there is nothing that would not fit.
        let _ = self.times.add(&other.times);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        (self.failed, self.lost) = (0, 0);
        self.times.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn counts(timeline: &Timeline) -> Vec<u64> {
        timeline.slices().iter().map(Slice::count).collect()
    }

    #[test]
    fn a_run_of_any_length_has_a_bounded_number_of_slices() {
        let mut timeline = Timeline::default();
        for (seconds, slices, width) in [(1, 100, 10), (2, 100, 20), (60, 94, 640), (86400, 66, 0)]
        {
            timeline
                .at(Duration::from_secs(seconds) - MILLI)
                .answered(MILLI);
            assert_eq!(timeline.slices().len(), slices, "{seconds} s");
            assert!(
                width == 0 || timeline.width() == width * MILLI,
                "{:?}",
                timeline.width()
            );
        }
        assert_eq!(counts(&timeline).iter().sum::<u64>(), 4);
        timeline.at(Duration::MAX).failed += 1;
        assert!(timeline.slices().len() <= SLICES);
    }

    #[test]
    fn what_is_widened_keeps_its_place_and_its_count() {
        let mut timeline = Timeline::default();
        for slice in 0..5 {
            (0..=slice).for_each(|_| timeline.at(slice * WIDTH).answered(MILLI));
            timeline.at(slice * WIDTH).failed += 1;
        }
        timeline.widen();
        assert_eq!(counts(&timeline), [3, 7, 5]);
        let failed: Vec<_> = timeline.slices().iter().map(|slice| slice.failed).collect();
        assert_eq!(failed, [2, 2, 1]);
    }

    #[test]
    fn parts_of_a_run_come_to_what_the_whole_would() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut whole = Timeline::default();
        let mut parts: [Timeline; 3] = Default::default();
        for number in 0..10_000 {
            // The parts end at different times, and so have slices of different widths.
            let part = number % 3;
            let moment = Duration::from_micros(random.u64(..1_000_000 << (4 * part)));
            let time = Duration::from_micros(random.u64(1..1_000_000));
            whole.at(moment).answered(time);
            parts[part].at(moment).answered(time);
        }
        let [mut merged, second, third] = parts;
        merged.merge(third);
        merged.merge(second);
        assert_eq!(
            (merged.width(), counts(&merged)),
            (whole.width(), counts(&whole)),
            "seed {seed}"
        );
        for (merged, whole) in merged.slices().iter().zip(whole.slices()) {
            assert_eq!(merged.quantile(0.99), whole.quantile(0.99), "seed {seed}");
        }
    }

    #[test]
    fn a_slice_tells_its_durations_with_one_digit() {
        let mut slice = Slice::default();
        assert_eq!(slice.quantile(0.5), None);
        (1..=1000).for_each(|millis| slice.answered(millis * MILLI));
        for (share, millis) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1000)] {
            let found = slice.quantile(share).unwrap();
            assert!(
                found.abs_diff(millis * MILLI) <= millis * MILLI / 16,
                "{share}: {found:?}"
            );
        }
        slice.clear();
        assert_eq!((slice.count(), slice.quantile(0.5)), (0, None));
    }
}
