//! Faults that are made on purpose: answers that come late, get lost, or break off. Decisions and
//! bytes only: what time it is, the caller says.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::serve::config::Faults;

/// The memory in bytes that answers which wait may take before no more is read. What one read
/// brings comes on top.
const MOST: usize = 256 << 10;

/// The latest that an answer can be; a century is as good as never.
const LATEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What happens to one message after the other.
#[derive(Debug)]
pub(super) struct Fates {
    faults: Faults,
    random: Rng,
}

impl Fates {
    /// Starts for the connection, or the datagram, with this number. The same seed and the same
    /// number decide the same of the same messages.
    pub(super) fn new(faults: &Faults, number: u64) -> Self {
        // Neighbouring seeds must not give neighbouring connections the same faults.
        let seed = Rng::with_seed(faults.seed).u64(..).wrapping_add(number);
        Self {
            faults: faults.clone(),
            random: Rng::with_seed(seed),
        }
    }

    /// How late the next answer is; `None` if it gets lost.
    pub(super) fn draw(&mut self) -> Option<Duration> {
        // Both are drawn for every message: an answer that is lost must not shift the others.
        let lost = self.random.f64() < self.faults.drop_rate;
        let jitter = self.faults.jitter.mul_f64(self.random.f64());
        (!lost).then(|| self.faults.delay.saturating_add(jitter).min(LATEST))
    }
}

/// The answers of one connection that wait for their time. They keep their order.
#[derive(Debug)]
pub(super) struct LateAnswers {
    fates: Fates,
    /// Bytes that may still be sent before the connection is reset.
    left: u64,
    waiting: VecDeque<(Instant, Vec<u8>)>,
    memory: usize,
}

impl LateAnswers {
    /// Starts for the connection with this number.
    pub(super) fn new(faults: &Faults, number: u64) -> Self {
        Self {
            fates: Fates::new(faults, number),
            left: faults.reset_after.map_or(u64::MAX, Into::into),
            waiting: VecDeque::new(),
            memory: 0,
        }
    }

    /// Takes the answer to a message that has come `now`, unless it gets lost: then `false`.
    pub(super) fn put_off(&mut self, now: Instant, prefix: &[u8], message: &[u8]) -> bool {
        let Some(late) = self.fates.draw() else {
            return false;
        };
        let due = now.checked_add(late).unwrap_or(now);
        let bytes = [prefix, message].concat();
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        self.wait(due, &bytes[..bytes.len().min(most)]);
        true
    }

    /// Lets an answer wait, together with those of the same time.
    fn wait(&mut self, due: Instant, bytes: &[u8]) {
        self.left -= bytes.len() as u64;
        self.memory += bytes.len();
        match self.waiting.back_mut() {
            Some((last, all)) if *last >= due => all.extend_from_slice(bytes),
            _ => {
                self.memory += size_of::<(Instant, Vec<u8>)>();
                self.waiting.push_back((due, bytes.into()));
            }
        }
    }

    /// What is to be sent next, if its time has come.
    pub(super) fn take(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.next_due().filter(|due| *due <= now)?;
        let (_, bytes) = self.waiting.pop_front()?;
        self.memory -= bytes.len() + size_of::<(Instant, Vec<u8>)>();
        Some(bytes)
    }

    /// When the next answer is to be sent.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.front().map(|(due, _)| *due)
    }

    /// Whether so much waits that no more may be read.
    pub(super) fn is_full(&self) -> bool {
        self.memory >= MOST || self.breaks_off()
    }

    /// Whether the connection is to be reset behind the answers that wait.
    pub(super) fn breaks_off(&self) -> bool {
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    const SECOND: Duration = Duration::from_secs(1);

    /// Which of a hundred messages are answered, and how much later than they came.
    fn fate(faults: &Faults, number: u64) -> Vec<Option<Duration>> {
        let now = Instant::now();
        let fate = |answers: &mut LateAnswers| {
            let answered = answers.put_off(now, b"", b"x\n");
            answered.then(|| answers.waiting.pop_back().unwrap().0 - now)
        };
        let mut answers = LateAnswers::new(faults, number);
        (0..100).map(|_| fate(&mut answers)).collect()
    }

    #[test]
    fn the_same_seed_repeats_exactly_and_another_does_not() {
        let faults = |seed| Faults {
            jitter: SECOND,
            drop_rate: 0.3,
            seed,
            ..Faults::default()
        };
        for number in 0..10 {
            assert_eq!(fate(&faults(7), number), fate(&faults(7), number));
            assert_ne!(fate(&faults(7), number), fate(&faults(8), number));
            assert_ne!(fate(&faults(7), number), fate(&faults(7), number + 1));
            assert_ne!(fate(&faults(7), number + 1), fate(&faults(8), number));
        }
    }

    #[test]
    fn what_is_lost_does_not_shift_the_delays_of_the_others() {
        let faults = Faults {
            jitter: SECOND,
            seed: 7,
            ..Faults::default()
        };
        let all = fate(&faults, 1);
        let some = fate(
            &Faults {
                drop_rate: 0.5,
                ..faults
            },
            1,
        );
        assert!(
            all.iter()
                .zip(&some)
                .all(|(all, some)| some.is_none() || some == all)
        );
    }

    #[test]
    fn about_the_share_asked_for_gets_lost_and_delays_are_within_their_bounds() {
        let (delay, jitter) = (SECOND, SECOND * 2);
        let faults = Faults {
            delay,
            jitter,
            drop_rate: 0.25,
            ..Faults::default()
        };
        let all: Vec<_> = (0..100).flat_map(|number| fate(&faults, number)).collect();
        let answered: Vec<_> = all.iter().flatten().collect();
        assert!(
            (7_200..7_800).contains(&answered.len()),
            "{} of 10000",
            answered.len()
        );
        assert!(
            answered
                .iter()
                .all(|late| (SECOND..SECOND * 3).contains(*late))
        );
        for (drop_rate, answered) in [(0.0, 100), (1.0, 0)] {
            let faults = Faults {
                drop_rate,
                ..Faults::default()
            };
            assert_eq!(fate(&faults, 0).iter().flatten().count(), answered);
        }
    }

    #[test]
    fn answers_wait_for_their_time_in_their_order() {
        let faults = Faults {
            delay: SECOND,
            ..Faults::default()
        };
        let mut answers = LateAnswers::new(&faults, 0);
        let now = Instant::now();
        answers.put_off(now, b"> ", b"one\n");
        answers.put_off(now, b"> ", b"two\n");
        answers.put_off(now + SECOND, b"> ", b"three\n");
        // The clock of another core may be behind: the order stays.
        answers.put_off(now, b"> ", b"four\n");
        assert_eq!(answers.take(now + SECOND / 2), None);
        assert_eq!(answers.next_due(), Some(now + SECOND));
        assert_eq!(
            answers.take(now + SECOND).as_deref(),
            Some(b"> one\n> two\n".as_slice())
        );
        assert_eq!(answers.take(now + SECOND), None);
        let last = answers.take(now + SECOND * 2);
        assert_eq!(last.as_deref(), Some(b"> three\n> four\n".as_slice()));
        assert_eq!((answers.next_due(), answers.memory), (None, 0));
    }

    #[test]
    fn so_much_waits_and_no_more() {
        let faults = Faults {
            delay: SECOND,
            jitter: SECOND,
            ..Faults::default()
        };
        let mut answers = LateAnswers::new(&faults, 0);
        let now = Instant::now();
        let mut count = 0;
        while !answers.is_full() {
            answers.put_off(now + SECOND * count, b"", b"\n");
            count += 1;
        }
        assert!(
            (5_000..20_000).contains(&count),
            "small answers count with what they cost"
        );
        while answers.take(now + SECOND * (count + 2)).is_some() {}
        assert!(!answers.is_full());
    }

    #[test]
    fn the_reset_comes_behind_exactly_so_many_bytes() {
        let reset_after = NonZeroU64::new(5);
        let mut answers = LateAnswers::new(
            &Faults {
                reset_after,
                ..Faults::default()
            },
            0,
        );
        let now = Instant::now();
        for message in [b"abc\n", b"def\n", b"ghi\n"] {
            answers.put_off(now, b"", message);
        }
        assert!(answers.breaks_off() && answers.is_full());
        assert_eq!(answers.take(now).as_deref(), Some(b"abc\nd".as_slice()));
    }

    #[test]
    fn an_endless_delay_is_no_overflow() {
        let faults = Faults {
            delay: Duration::MAX,
            jitter: Duration::MAX,
            ..Faults::default()
        };
        assert!(
            fate(&faults, 0)
                .iter()
                .flatten()
                .all(|late| *late == LATEST)
        );
    }
}
