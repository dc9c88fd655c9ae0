//! A load over time, in samples that each hold enough to be drawn.

use myapp::echo::LoadReport;
use myapp::measure::timeline::{Bucket, Timeline};

/// The answers that a sample should hold on average, so that chance does not show more than what
/// happened.
const ENOUGH: u64 = 20;

/// The fewest samples for the sake of that, and the most in any case.
const FEWEST: usize = 20;
const MOST: usize = 100;

/// What happened from one moment to another. Times are in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    /// Median, 99th percentile and longest of the response times, if there is one.
    pub(crate) times: Option<[f64; 3]>,
}

impl Sample {
    /// So many, as a rate a second.
    pub(crate) fn rate(&self, count: u64) -> f64 {
        count as f64 / (self.to - self.from)
    }
}

/// The samples of a run, without gaps from its start to its end.
pub(crate) fn samples(report: &LoadReport) -> Vec<Sample> {
    let elapsed = report.elapsed.as_secs_f64();
    let mut timeline = report.timeline.clone();
    // What came after the end of the time belongs to its last moment.
    let count = |timeline: &Timeline| (elapsed / timeline.width().as_secs_f64()).ceil() as usize;
    let sparse = |count: usize| report.answered() < ENOUGH * count as u64;
    while count(&timeline) > MOST || (sparse(count(&timeline)) && count(&timeline) >= 2 * FEWEST) {
        timeline.coarsen();
    }
    let (width, count) = (timeline.width().as_secs_f64(), count(&timeline));
    let mut slices = timeline.buckets().to_vec();
    slices.resize_with(slices.len().max(count), Bucket::default);
    // A last one that was cut short says little: it goes with the one before.
    let short = count >= 2 && elapsed < (count as f64 - 0.5) * width;
    let count = if short { count - 1 } else { count };
    let rest = slices.split_off(count.min(slices.len()));
    if let Some(last) = slices.last_mut() {
        rest.iter().for_each(|slice| last.merge(slice));
    }
    let sample = |(index, slice): (usize, Bucket)| {
        let to = if index + 1 == count {
            elapsed
        } else {
            (index + 1) as f64 * width
        };
        let time = |share| slice.quantile(share).map(|time| time.as_secs_f64());
        let times = [time(0.5), time(0.99), time(1.0)];
        let times = if let [Some(a), Some(b), Some(c)] = times {
            Some([a, b, c])
        } else {
            None
        };
        let (answered, failed, lost) = (slice.count(), slice.failed, slice.lost);
        Sample {
            from: index as f64 * width,
            to,
            answered,
            failed,
            lost,
            times,
        }
    };
    slices.into_iter().enumerate().map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// The samples of a run of so long, with an answer every so often.
    fn of(elapsed: u64, every: u64) -> Vec<Sample> {
        let elapsed = Duration::from_millis(elapsed);
        let mut report = LoadReport::default();
        report.elapsed = elapsed;
        for moment in (0..elapsed.as_micros() as u64).step_by(every as usize) {
            let time = Duration::from_millis(1);
            report.response.record(time);
            report
                .timeline
                .at(Duration::from_micros(moment))
                .answered(time);
        }
        let last = report.timeline.at(elapsed + Duration::from_millis(700));
        (last.failed, last.lost) = (1, 1);
        samples(&report)
    }

    #[test]
    fn samples_follow_each_other_to_the_end_and_lose_nothing() {
        for (elapsed, every) in [
            (10_000, 100),
            (10_000, 100_000),
            (1, 10),
            (333, 50),
            (7777, 7),
        ] {
            let samples = of(elapsed, every);
            let end = elapsed as f64 / 1000.0;
            assert!(samples.len() <= MOST, "{}", samples.len());
            assert_eq!((samples[0].from, samples.last().unwrap().to), (0.0, end));
            assert!(samples.windows(2).all(|pair| pair[0].to == pair[1].from));
            let answered: u64 = samples.iter().map(|sample| sample.answered).sum();
            assert_eq!(
                answered,
                (elapsed * 1000).div_ceil(every),
                "{elapsed}, {every}"
            );
            let sum = |count: fn(&Sample) -> u64| samples.iter().map(count).sum::<u64>();
            assert_eq!(
                (sum(|sample| sample.failed), sum(|sample| sample.lost)),
                (1, 1)
            );
        }
    }

    #[test]
    fn few_answers_make_few_samples() {
        assert!(of(10_000, 100).len() >= 60);
        assert!((FEWEST..2 * FEWEST).contains(&of(10_000, 500_000).len()));
        assert_eq!(samples(&LoadReport::default()), []);
    }

    #[test]
    fn an_even_load_has_an_even_rate_to_its_end() {
        for elapsed in [9_990, 10_000, 10_010, 10_100, 10_500] {
            let samples = of(elapsed, 1000);
            let rates = samples.iter().map(|sample| sample.rate(sample.answered));
            let even = rates.clone().all(|rate| (950.0..1050.0).contains(&rate));
            assert!(even, "{elapsed}: {:?}", rates.collect::<Vec<_>>());
        }
    }
}
