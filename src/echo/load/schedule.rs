//! Schedule of messages.
//!
//! With a rate there is one schedule per run, an open loop: due times do not depend on replies, so
//! that a slow server cannot hide its delays (coordinated omission). Message `i` of the run belongs
//! to connection `i mod C`, whatever happens to that connection.

use std::time::{Duration, Instant};

use crate::echo::config::{LoadConfig, RunLimit};

/// Maximum duration; an [`Instant`] cannot represent any time in the future.
pub(crate) const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// Start and end of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunTimes {
    /// Due time of the first message.
    pub(crate) start: Instant,
    /// End of the warm-up.
    pub(crate) measured_from: Instant,
    /// Time from which no message is due.
    pub(crate) end: Option<Instant>,
    /// Time from which no message is sent. With a rate, messages due before the end are sent for
    /// another timeout.
    pub(crate) send_until: Option<Instant>,
}

impl RunTimes {
    pub(crate) fn new(config: &LoadConfig, start: Instant) -> Self {
        let measured_from = start + config.warmup.min(MAX_DURATION);
        let end = match config.limit {
            RunLimit::Duration(duration) => Some(measured_from + duration.min(MAX_DURATION)),
            RunLimit::Messages(_) => None,
        };
        let grace = match config.rate {
            Some(_) => config.target.timeout.min(MAX_DURATION),
            None => Duration::ZERO,
        };
        Self {
            start,
            measured_from,
            end,
            send_until: end.map(|end| end + grace),
        }
    }
}

/// Due times of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pacing {
    /// A message is due as soon as it can be sent.
    Immediate,
    /// The owner of the schedule sets each due time.
    OnRequest,
    /// A message is due at a fixed time.
    Rate {
        start: Instant,
        /// Time between two messages of the run, in nanoseconds.
        interval: f64,
        /// Number of connections, which is the distance between two messages of one connection.
        connections: u64,
    },
}

/// Part of the schedule that all connections share.
#[derive(Debug)]
pub(crate) struct ScheduleConfig {
    pub(crate) pacing: Pacing,
    /// Time from which no message is sent.
    pub(crate) send_until: Option<Instant>,
}

impl ScheduleConfig {
    pub(crate) fn new(config: &LoadConfig, times: &RunTimes) -> Self {
        let pacing = match config.rate {
            Some(rate) => Pacing::Rate {
                start: times.start,
                interval: 1e9 / rate,
                connections: config.connections.get().into(),
            },
            None if config.new_connections => Pacing::OnRequest,
            None => Pacing::Immediate,
        };
        Self {
            pacing,
            send_until: times.send_until,
        }
    }
}

/// Returns the number of messages of a run; unlimited if it depends on the replies.
fn total_messages(config: &LoadConfig) -> u64 {
    match (config.limit, config.rate) {
        (RunLimit::Messages(count), _) => count,
        (RunLimit::Duration(duration), Some(rate)) => {
            let seconds =
                (config.warmup.min(MAX_DURATION) + duration.min(MAX_DURATION)).as_secs_f64();
            // A message due at the very end does not count, and rounding must not make it count.
            ((seconds * rate - 1e-6).ceil() as u64).max(1)
        }
        (RunLimit::Duration(_), None) => u64::MAX,
    }
}

/// Schedule of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Schedule<'a> {
    config: &'a ScheduleConfig,
    /// Due time of the next message.
    pub(crate) next_due: Instant,
    /// Number of the next message in the run, counted from 0.
    number: u64,
    /// Number of messages left to send.
    remaining: u64,
}

/// Next step of a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send a message now; it was due at this time.
    SendNow(Instant),
    /// Wait until the next message is due.
    WaitUntil(Instant),
    /// Send no more messages.
    Done,
}

impl<'a> Schedule<'a> {
    /// Creates the schedule of a connection, with its share of the messages.
    pub(crate) fn new(
        schedule: &'a ScheduleConfig,
        config: &LoadConfig,
        index: u32,
        now: Instant,
    ) -> Self {
        let total = total_messages(config);
        let connections = u64::from(config.connections.get());
        let number = u64::from(index);
        let remaining = if total == u64::MAX {
            total
        } else {
            total / connections + u64::from(number < total % connections)
        };
        Self {
            config: schedule,
            next_due: due_time(&schedule.pacing, number).unwrap_or(now),
            number,
            remaining,
        }
    }

    /// Creates a schedule of one message, due now.
    pub(crate) fn once(now: Instant) -> Self {
        Self {
            config: &ScheduleConfig {
                pacing: Pacing::Immediate,
                send_until: None,
            },
            next_due: now,
            number: 0,
            remaining: 1,
        }
    }

    /// Returns the next step at the time `now`.
    pub(crate) fn next(&self, now: Instant) -> Next {
        let ScheduleConfig { pacing, send_until } = self.config;
        if self.remaining == 0 || send_until.is_some_and(|until| now >= until) {
            return Next::Done;
        }
        let due = if let Pacing::Immediate = pacing {
            now
        } else {
            self.next_due
        };
        if due <= now {
            Next::SendNow(due)
        } else {
            Next::WaitUntil(due)
        }
    }

    /// Advances to the message after the current one.
    pub(crate) fn advance(&mut self) {
        self.remaining -= 1;
        if let Pacing::Rate { connections, .. } = self.config.pacing {
            self.number = self.number.saturating_add(connections);
            // From the number, because a sum of rounded intervals would drift.
            if let Some(due) = due_time(&self.config.pacing, self.number) {
                self.next_due = due;
            }
        }
    }

    /// Returns the messages that were not sent.
    pub(crate) fn into_unsent(self) -> Unsent {
        let interval = if let Pacing::Rate {
            interval,
            connections,
            ..
        } = self.config.pacing
        {
            Some(interval * connections as f64)
        } else {
            None
        };
        Unsent {
            first_due: self.next_due,
            interval,
            count: self.remaining,
        }
    }
}

/// Returns the due time of a message, if it is fixed.
fn due_time(pacing: &Pacing, number: u64) -> Option<Instant> {
    let Pacing::Rate {
        start, interval, ..
    } = pacing
    else {
        return None;
    };
    let nanos = (number as f64).mul_add(*interval, 0.5) as u64;
    Some(*start + Duration::from_nanos(nanos).min(MAX_DURATION))
}

/// Messages of one connection that were not sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Unsent {
    /// Due time of the first of them.
    pub(crate) first_due: Instant,
    /// Time between two of them, in nanoseconds, if their due times are fixed.
    pub(crate) interval: Option<f64>,
    /// Number of messages.
    pub(crate) count: u64,
}

impl Unsent {
    /// Returns those that are due from `from` on and before `until`.
    pub(crate) fn due_within(self, from: Instant, until: Instant) -> Option<DueMessages> {
        let interval = self.interval?.max(f64::MIN_POSITIVE);
        let before = |at: Instant| {
            let nanos = at.saturating_duration_since(self.first_due).as_nanos() as f64;
            // Half a nanosecond less, because due times are rounded.
            (((nanos - 0.5) / interval).ceil() as u64).min(self.count)
        };
        let skipped = before(from);
        let count = before(until).saturating_sub(skipped);
        let offset = Duration::from_nanos((skipped as f64 * interval) as u64);
        (count > 0).then(|| DueMessages {
            first: self.first_due + offset.min(MAX_DURATION),
            interval,
            count,
        })
    }
}

/// Messages that were due at a fixed interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DueMessages {
    pub(crate) first: Instant,
    /// Time between two messages, in nanoseconds.
    pub(crate) interval: f64,
    pub(crate) count: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    const SECOND: Duration = Duration::from_secs(1);

    fn config(rate: f64, connections: u32, seconds: f64) -> LoadConfig {
        LoadConfig {
            rate: Some(rate),
            connections: NonZeroU32::new(connections).unwrap(),
            limit: RunLimit::Duration(Duration::from_secs_f64(seconds)),
            ..LoadConfig::default()
        }
    }

    /// Returns the due times of all connections, in seconds since the start, in order.
    fn due_times(config: &LoadConfig) -> Vec<f64> {
        let start = Instant::now();
        let times = RunTimes::new(config, start);
        let shared = ScheduleConfig::new(config, &times);
        let later = times.end.unwrap();
        let mut due_times = Vec::new();
        for index in 0..config.connections.get() {
            let mut schedule = Schedule::new(&shared, config, index, start);
            while let Next::SendNow(due) = schedule.next(later) {
                due_times.push((due - start).as_secs_f64());
                schedule.advance();
            }
        }
        due_times.sort_by(f64::total_cmp);
        due_times
    }

    #[test]
    fn number_of_messages_is_exact() {
        for (rate, connections, seconds, count) in [
            (1000.0, 1, 10.0, 10_000),
            (1000.0, 7, 10.0, 10_000),
            (5000.0, 5000, 2.0, 10_000),
            (333.0, 10, 1.0, 333),
            (0.5, 3, 1.0, 1),
            (3.0, 2, 100.0, 300),
            (0.1, 1, 0.001, 1),
        ] {
            let config = config(rate, connections, seconds);
            let due_times = due_times(&config);
            assert_eq!(due_times.len(), count, "{rate}, {connections}, {seconds}");
            for (number, due) in due_times.iter().enumerate() {
                let expected = number as f64 / rate;
                assert!((due - expected).abs() < 2e-9, "{due} for {expected}");
                assert!(*due < seconds);
            }
        }
    }

    #[test]
    fn schedule_does_not_shift_when_sends_are_late() {
        let start = Instant::now();
        let config = config(1.0, 1, 3.0);
        let times = RunTimes::new(&config, start);
        let shared = ScheduleConfig::new(&config, &times);
        let mut schedule = Schedule::new(&shared, &config, 0, start);
        assert_eq!(schedule.next(start - SECOND), Next::WaitUntil(start));
        for number in 0..3 {
            let due = start + number * SECOND;
            assert_eq!(schedule.next(start + 7 * SECOND), Next::SendNow(due));
            schedule.advance();
        }
        assert_eq!(schedule.next(start + 7 * SECOND), Next::Done);
    }

    #[test]
    fn due_messages_are_sent_for_a_timeout_after_the_end() {
        let start = Instant::now();
        let config = config(1.0, 2, 10.0);
        let times = RunTimes::new(&config, start);
        let shared = ScheduleConfig::new(&config, &times);
        let mut schedule = Schedule::new(&shared, &config, 1, start);
        schedule.advance();
        let due = start + 3 * SECOND;
        assert_eq!(schedule.next(start + 14 * SECOND), Next::SendNow(due));
        assert_eq!(schedule.next(start + 15 * SECOND), Next::Done);
        let unsent = schedule.into_unsent();
        let after = |seconds| start + seconds * SECOND;
        for (from, until, expected) in [
            (0, 15, Some((3, 4))),
            (0, 4, Some((3, 1))),
            (0, 3, None),
            (4, 9, Some((5, 2))),
            (5, 10, Some((5, 3))),
            (9, 10, Some((9, 1))),
        ] {
            let due = unsent.due_within(after(from), after(until));
            let due = due.map(|due| (due.first, due.count));
            let expected = expected.map(|(first, count)| (after(first), count));
            assert_eq!(due, expected, "{from} to {until}");
        }
    }

    #[test]
    fn closed_loop_ends_at_the_end() {
        let start = Instant::now();
        let config = LoadConfig {
            limit: RunLimit::Duration(SECOND),
            ..LoadConfig::default()
        };
        let times = RunTimes::new(&config, start);
        let shared = ScheduleConfig::new(&config, &times);
        let schedule = Schedule::new(&shared, &config, 0, start);
        assert_eq!(schedule.next(start), Next::SendNow(start));
        assert_eq!(schedule.next(start + SECOND), Next::Done);
        assert_eq!(
            schedule.into_unsent().due_within(start, start + SECOND),
            None
        );
    }

    #[test]
    fn absurd_rates_do_not_overflow() {
        let start = Instant::now();
        for (rate, seconds) in [(1e300, 1e9), (1e-300, 1.0), (1e18, 3600.0)] {
            let config = config(rate, 3, seconds);
            let times = RunTimes::new(&config, start);
            let shared = ScheduleConfig::new(&config, &times);
            let mut schedule = Schedule::new(&shared, &config, 0, start);
            for _ in 0..1000 {
                let _ = schedule.next(start + SECOND);
                if schedule.remaining > 0 {
                    schedule.advance();
                }
            }
            let _ = schedule.into_unsent().due_within(start, start + SECOND);
        }
    }

    #[test]
    fn without_a_rate_messages_are_due_immediately() {
        let start = Instant::now();
        let mut schedule = Schedule::once(start);
        let later = start + SECOND;
        assert_eq!(schedule.next(later), Next::SendNow(later));
        schedule.advance();
        assert_eq!(schedule.next(start), Next::Done);
    }
}
