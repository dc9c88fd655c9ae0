//! Times of the messages of a running load, second by second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::measure::latency::LatencyHistogram;
use crate::measure::wall_clock::WallClock;

/// Time for which a second stays open after its end, for messages that are just being recorded.
const GRACE: Duration = Duration::from_millis(100);

/// Times of the messages that ended within a second.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Start since the Unix epoch: a whole second, or the start of the measurement.
    pub start: Duration,
    /// Length up to the end of the second or of the run.
    pub length: Duration,
    /// Response times.
    pub response: LatencyHistogram,
    /// Service times.
    pub service: LatencyHistogram,
}

/// Intervals of a run that are not drained yet, with a part for each thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Intervals(Arc<Mutex<Vec<Arc<Mutex<Part>>>>>);

/// Seconds of one thread. Its lock is only contended while it is drained.
#[derive(Debug, Default)]
struct Part {
    /// Start of the measurement since the Unix epoch, if it is known.
    start: Option<Duration>,
    /// The first second that is not drained.
    open_from: u64,
    seconds: BTreeMap<u64, Times>,
}

#[derive(Debug, Default)]
struct Times {
    response: LatencyHistogram,
    service: LatencyHistogram,
}

/// Recorder of one thread.
#[derive(Debug)]
pub(crate) struct IntervalRecorder {
    part: Arc<Mutex<Part>>,
    clock: WallClock,
}

impl Intervals {
    /// Adds a thread.
    pub(super) fn recorder(&self, clock: WallClock) -> IntervalRecorder {
        let part = Arc::default();
        lock(&self.0).push(Arc::clone(&part));
        IntervalRecorder { part, clock }
    }

    /// Returns and clears the intervals of the seconds that are over at `now`, a time since the
    /// Unix epoch.
    pub(super) fn drain_complete(&self, now: Duration) -> Vec<Interval> {
        self.drain(now.saturating_sub(GRACE).as_secs(), now)
    }

    /// Returns and clears all intervals.
    pub(super) fn drain_all(&self, now: Duration) -> Vec<Interval> {
        self.drain(u64::MAX, now)
    }

    /// Returns and clears the intervals before a second.
    fn drain(&self, end: u64, now: Duration) -> Vec<Interval> {
        let mut seconds = BTreeMap::<u64, Times>::new();
        let mut start: Option<Duration> = None;
        for part in lock(&self.0).iter() {
            let mut part = lock(part);
            part.open_from = end.max(part.open_from);
            let open = part.seconds.split_off(&end);
            let complete = std::mem::replace(&mut part.seconds, open);
            start = [start, part.start].into_iter().flatten().min();
            drop(part);
            for (second, times) in complete {
                let sum = seconds.entry(second).or_default();
                sum.response.merge(&times.response);
                sum.service.merge(&times.service);
            }
        }
        let interval = |(second, Times { response, service }): (u64, Times)| {
            let begin = Duration::from_secs(second);
            let start = start.map_or(begin, |start| start.max(begin));
            let end = now.min(begin + Duration::from_secs(1));
            Interval {
                start,
                length: end.saturating_sub(start),
                response,
                service,
            }
        };
        seconds.into_iter().map(interval).collect()
    }
}

impl IntervalRecorder {
    /// Sets the start of the measurement.
    pub(crate) fn start(&self, at: Instant) {
        lock(&self.part).start = Some(self.clock.since_epoch(at));
    }

    /// Records a message that ended at `now`, with its service time if it was answered.
    pub(crate) fn record(&self, now: Instant, response: Duration, service: Option<Duration>) {
        self.with_times(now, |times| {
            times.response.record(response);
            if let Some(service) = service {
                times.service.record(service);
            }
        });
    }

    /// Adds the response times of messages that were unsent at `now`.
    pub(crate) fn merge_unsent(&self, now: Instant, response: &LatencyHistogram) {
        if response.count() > 0 {
            self.with_times(now, |times| times.response.merge(response));
        }
    }

    fn with_times(&self, now: Instant, work: impl FnOnce(&mut Times)) {
        let second = self.clock.since_epoch(now).as_secs();
        let mut part = lock(&self.part);
        // A thread that was suspended for longer than the grace period.
        let second = second.max(part.open_from);
        work(part.seconds.entry(second).or_default());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn each_message_is_in_one_interval_of_its_second() {
        let clock = WallClock::default();
        let begin = Instant::now();
        // The next whole second, 5 ms later than the start of the measurement.
        let start = clock.since_epoch(begin);
        let second = start.as_secs() + 1;
        let whole = begin + (Duration::from_secs(second) - start);
        let intervals = Intervals::default();
        let threads = [(); 2].map(|()| intervals.recorder(clock));
        threads[0].start(whole - 5 * MILLI);
        threads[1].start(whole - 5 * MILLI);
        threads[0].record(whole - MILLI, 3 * MILLI, Some(2 * MILLI));
        threads[1].record(whole + MILLI, 4 * MILLI, None);
        threads[0].record(whole + 999 * MILLI, 5 * MILLI, Some(MILLI));
        threads[0].record(whole + 1001 * MILLI, 6 * MILLI, Some(MILLI));

        let at = |millis: u32| Duration::from_secs(second) + millis * MILLI;
        let shape = |interval: &Interval| {
            (
                interval.start,
                interval.length,
                interval.response.count(),
                interval.service.count(),
            )
        };
        assert!(intervals.drain_complete(at(50)).is_empty(), "grace period");
        let drained = intervals.drain_complete(at(1100));
        let shapes: Vec<_> = drained.iter().map(shape).collect();
        let before = Duration::from_secs(second) - 5 * MILLI;
        assert_eq!(shapes[0], (before, 5 * MILLI, 1, 1));
        assert_eq!(shapes[1], (at(0), 1000 * MILLI, 2, 1));
        assert_eq!(shapes.len(), 2);

        // Late: counted in the next second.
        threads[1].record(whole + 500 * MILLI, 7 * MILLI, None);
        let mut unsent = LatencyHistogram::default();
        unsent.record(MILLI);
        threads[1].merge_unsent(whole + 1200 * MILLI, &unsent);
        let rest = intervals.drain_all(at(1200));
        let shapes: Vec<_> = rest.iter().map(shape).collect();
        assert_eq!(shapes, [(at(1000), 200 * MILLI, 3, 1)]);
        assert!(intervals.drain_all(at(1200)).is_empty());
    }
}
