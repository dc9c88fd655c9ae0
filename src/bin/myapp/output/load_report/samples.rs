//! Samples of a load over time, each with enough replies to be drawn.

use myapp::echo::LoadReport;
use myapp::measure::timeline::{Bucket, Timeline};

/// Average number of replies per sample, below which noise would dominate.
const MIN_REPLIES: u64 = 20;

/// Number of samples below which they are not merged to reach [`MIN_REPLIES`].
const MIN_SAMPLES: usize = 20;

/// Maximum number of samples.
const MAX_SAMPLES: usize = 100;

/// Counts of a time span. Times are in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) answered: u64,
    pub(crate) failed: u64,
    pub(crate) lost: u64,
    pub(crate) unsent: u64,
    pub(crate) reconnects: u64,
    /// Mean number of connections that were down.
    pub(crate) connections_down: f64,
    /// Median, 99th percentile and maximum of the response times.
    pub(crate) times: Option<[f64; 3]>,
}

impl Sample {
    fn new(from: f64, to: f64, bucket: &Bucket) -> Self {
        let time = |share| bucket.quantile(share).map(|time| time.as_secs_f64());
        let times = [time(0.5), time(0.99), time(1.0)];
        let times = if let [Some(a), Some(b), Some(c)] = times {
            Some([a, b, c])
        } else {
            None
        };
        Self {
            from,
            to,
            answered: bucket.count(),
            failed: bucket.failed,
            lost: bucket.lost,
            unsent: bucket.unsent,
            reconnects: bucket.reconnects,
            connections_down: bucket.downtime.as_secs_f64() / (to - from),
            times,
        }
    }

    /// Converts a count to a rate per second.
    pub(crate) fn rate(&self, count: u64) -> f64 {
        count as f64 / (self.to - self.from)
    }
}

/// Returns the samples of a run, without gaps from start to end.
pub(crate) fn samples(report: &LoadReport) -> Vec<Sample> {
    if report.elapsed.is_zero() {
        return Vec::new();
    }
    let elapsed = report.elapsed.as_secs_f64();
    let mut timeline = report.timeline.clone();
    let count = |timeline: &Timeline| {
        let time = elapsed + timeline.lead().as_secs_f64();
        (time / timeline.width().as_secs_f64()).ceil() as usize
    };
    let sparse = |count: usize| report.answered < MIN_REPLIES * count as u64;
    while count(&timeline) > MAX_SAMPLES
        || (sparse(count(&timeline)) && count(&timeline) >= 2 * MIN_SAMPLES)
    {
        timeline.coarsen();
    }
    let count = count(&timeline);
    let width = timeline.width().as_secs_f64();
    let lead = timeline.lead().as_secs_f64();
    let start = |bucket: usize| (bucket as f64 * width - lead).clamp(0.0, elapsed);
    // Each sample starts with a bucket. Short first and last ones are merged with their neighbor.
    let mut starts: Vec<_> = (0..=count).collect();
    if starts.len() > 2 && start(count) - start(count - 1) < width / 2.0 {
        starts.remove(count - 1);
    }
    if starts.len() > 2 && start(1) < width / 2.0 {
        starts.remove(1);
    }
    let sample = |bounds: &[usize]| {
        let [from, to] = [bounds[0], bounds[1]];
        let buckets = timeline.buckets().iter().skip(from);
        // Replies received after the end belong to the last sample.
        let number = if to == count { usize::MAX } else { to - from };
        let mut sum = Bucket::default();
        buckets.take(number).for_each(|bucket| sum.merge(bucket));
        Sample::new(start(from), start(to), &sum)
    };
    starts.windows(2).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Returns the samples of a run, with one reply per interval.
    fn of(elapsed: u64, every: u64) -> Vec<Sample> {
        let elapsed = Duration::from_millis(elapsed);
        let mut report = LoadReport::default();
        report.elapsed = elapsed;
        let start = fastrand::u64(1 << 60..1 << 61);
        report.timeline.set_start(Duration::from_nanos(start));
        for moment in (0..elapsed.as_micros() as u64).step_by(every as usize) {
            let time = Duration::from_millis(1);
            report.response.record(time);
            report.answered += 1;
            report
                .timeline
                .at(Duration::from_micros(moment))
                .answered(time);
        }
        let last = report.timeline.at(elapsed + Duration::from_millis(700));
        last.failed = 1;
        last.lost = 1;
        samples(&report)
    }

    #[test]
    fn samples_are_contiguous_and_complete() {
        for (elapsed, every) in [
            (10_000, 100),
            (10_000, 100_000),
            (1, 10),
            (333, 50),
            (7777, 7),
        ] {
            let samples = of(elapsed, every);
            let end = elapsed as f64 / 1000.0;
            assert!(samples.len() <= MAX_SAMPLES, "{}", samples.len());
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
    fn few_replies_make_few_samples() {
        assert!(of(10_000, 100).len() >= 60);
        assert!((MIN_SAMPLES..2 * MIN_SAMPLES).contains(&of(10_000, 500_000).len()));
        assert_eq!(samples(&LoadReport::default()), []);
    }

    #[test]
    fn constant_load_has_a_constant_rate() {
        for elapsed in [9_990, 10_000, 10_010, 10_100, 10_500] {
            let samples = of(elapsed, 1000);
            let rates = samples.iter().map(|sample| sample.rate(sample.answered));
            let even = rates.clone().all(|rate| (950.0..1050.0).contains(&rate));
            assert!(even, "{elapsed}: {:?}", rates.collect::<Vec<_>>());
        }
    }
}
