//! Schedule of messages.
//!
//! With a rate the schedule is an open loop: due times do not depend on replies, so that a slow
//! server cannot hide its delays (coordinated omission).

use std::time::{Duration, Instant};

/// Part of the schedule that all connections share.
#[derive(Debug)]
pub(crate) struct ScheduleConfig {
    /// Time between messages; without it, a message is due as soon as it can be sent.
    pub(crate) interval: Option<Duration>,
    /// Time after which no message is sent.
    pub(crate) end: Option<Instant>,
}

/// Schedule of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Schedule<'a> {
    pub(crate) config: &'a ScheduleConfig,
    /// Due time of the next message.
    pub(crate) next_due: Instant,
    /// Number of messages left to send.
    pub(crate) remaining: u64,
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

impl Schedule<'_> {
    /// Creates a schedule of one message, due now.
    pub(crate) fn once(now: Instant) -> Self {
        Self {
            config: &ScheduleConfig {
                interval: None,
                end: None,
            },
            next_due: now,
            remaining: 1,
        }
    }

    /// Returns the next step at the time `now`.
    pub(crate) fn next(&self, now: Instant) -> Next {
        let ScheduleConfig { interval, end } = self.config;
        let due = if interval.is_some() {
            self.next_due
        } else {
            now
        };
        if self.remaining == 0 || end.is_some_and(|end| now.max(due) >= end) {
            return Next::Done;
        }
        if due <= now {
            Next::SendNow(due)
        } else {
            Next::WaitUntil(due)
        }
    }

    /// Advances to the message after the current one.
    pub(crate) fn advance(&mut self) {
        self.remaining -= 1;
        self.next_due += self.config.interval.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn schedule_does_not_shift_when_sends_are_late() {
        let start = Instant::now();
        let config = ScheduleConfig {
            interval: Some(SECOND),
            end: None,
        };
        let mut schedule = Schedule {
            config: &config,
            next_due: start,
            remaining: 3,
        };
        assert_eq!(schedule.next(start - SECOND), Next::WaitUntil(start));
        for number in 0..3 {
            let due = start + number * SECOND;
            assert_eq!(schedule.next(start + 9 * SECOND), Next::SendNow(due));
            schedule.advance();
        }
        assert_eq!(schedule.next(start + 9 * SECOND), Next::Done);
    }

    #[test]
    fn no_message_is_sent_after_the_end() {
        let start = Instant::now();
        let config = ScheduleConfig {
            interval: Some(2 * SECOND),
            end: Some(start + 2 * SECOND),
        };
        let mut schedule = Schedule {
            config: &config,
            next_due: start,
            remaining: u64::MAX,
        };
        assert_eq!(schedule.next(start), Next::SendNow(start));
        assert_eq!(schedule.next(start + 2 * SECOND), Next::Done);
        schedule.advance();
        assert_eq!(schedule.next(start), Next::Done);
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
