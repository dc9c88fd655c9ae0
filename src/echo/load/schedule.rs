//! When each message is due.

use std::time::{Duration, Instant};

/// What the schedules of all connections have in common.
#[derive(Debug)]
pub(crate) struct Tempo {
    /// The time from one message to the next; without it, a message is due as soon as it can go.
    pub(crate) every: Option<Duration>,
    /// When the last message may go.
    pub(crate) end: Option<Instant>,
}

/// The schedule of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Pace<'a> {
    pub(crate) tempo: &'a Tempo,
    /// When the next message is due.
    pub(crate) start: Instant,
    /// How many messages are still to go.
    pub(crate) left: u64,
}

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A message goes now; it was due then.
    Now(Instant),
    /// The next message is due then.
    At(Instant),
    /// No more messages.
    Over,
}

impl Pace<'_> {
    /// One message, now.
    pub(crate) fn once(now: Instant) -> Self {
        Self {
            tempo: &Tempo {
                every: None,
                end: None,
            },
            start: now,
            left: 1,
        }
    }

    pub(crate) fn turn(&self, now: Instant) -> Turn {
        let Tempo { every, end } = self.tempo;
        let due = if every.is_some() { self.start } else { now };
        if self.left == 0 || end.is_some_and(|end| now.max(due) >= end) {
            return Turn::Over;
        }
        if due <= now {
            Turn::Now(due)
        } else {
            Turn::At(due)
        }
    }

    /// Counts the message whose turn it is.
    pub(crate) fn take(&mut self) {
        self.left -= 1;
        self.start += self.tempo.every.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_schedule_does_not_wait_for_who_is_late() {
        let start = Instant::now();
        let tempo = Tempo {
            every: Some(SECOND),
            end: None,
        };
        let mut pace = Pace {
            tempo: &tempo,
            start,
            left: 3,
        };
        assert_eq!(pace.turn(start - SECOND), Turn::At(start));
        for number in 0..3 {
            assert_eq!(
                pace.turn(start + 9 * SECOND),
                Turn::Now(start + number * SECOND)
            );
            pace.take();
        }
        assert_eq!(pace.turn(start + 9 * SECOND), Turn::Over);
    }

    #[test]
    fn nothing_goes_after_the_end() {
        let start = Instant::now();
        let end = Some(start + 2 * SECOND);
        let tempo = Tempo {
            every: Some(2 * SECOND),
            end,
        };
        let mut pace = Pace {
            tempo: &tempo,
            start,
            left: u64::MAX,
        };
        assert_eq!(pace.turn(start), Turn::Now(start));
        assert_eq!(pace.turn(start + 2 * SECOND), Turn::Over);
        pace.take();
        assert_eq!(pace.turn(start), Turn::Over);
    }

    #[test]
    fn without_a_rate_a_message_is_due_when_it_can_go() {
        let start = Instant::now();
        let mut pace = Pace::once(start);
        assert_eq!(pace.turn(start + SECOND), Turn::Now(start + SECOND));
        pace.take();
        assert_eq!(pace.turn(start), Turn::Over);
    }
}
