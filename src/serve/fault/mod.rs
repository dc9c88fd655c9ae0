//! Fault injection: delayed, dropped and truncated replies. Decisions and bytes only; the caller
//! passes the time.

#[cfg(test)]
mod random_tests;
pub(super) mod stream;
pub(super) mod udp;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::serve::config::FaultInjection;

/// Memory in bytes of the queued replies of a connection above which reading pauses. One read may
/// exceed it.
const MAX_QUEUED_BYTES: usize = 256 << 10;

/// Maximum delay, to prevent overflows: a century.
const MAX_DELAY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Seeded random decisions about replies.
#[derive(Debug)]
struct FaultRng {
    faults: FaultInjection,
    rng: Rng,
}

impl FaultRng {
    /// Creates the generator of the connection, or the datagram, with this number. The same seed
    /// and number give the same decisions.
    fn new(faults: &FaultInjection, number: u64) -> Self {
        // The first numbers of generators with adjacent seeds are correlated.
        let seed = mix(mix(faults.seed).wrapping_add(number.wrapping_mul(GOLDEN_RATIO)));
        Self {
            faults: faults.clone(),
            rng: Rng::with_seed(seed),
        }
    }

    /// Returns the delay of the next reply, or `None` if it is dropped.
    fn draw(&mut self) -> Option<Duration> {
        // Both are drawn for every message: a dropped reply must not shift the delays of others.
        let dropped = self.rng.f64() < self.faults.drop_rate;
        let jitter = self.faults.jitter.mul_f64(self.rng.f64());
        (!dropped).then(|| self.faults.delay.saturating_add(jitter).min(MAX_DELAY))
    }
}

/// Increment of SplitMix64: 2^64 divided by the golden ratio.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the output of SplitMix64 for a state: each bit depends on all bits of the state.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(GOLDEN_RATIO);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// The delayed replies of one connection, in order.
#[derive(Debug)]
pub(super) struct DelayQueue {
    rng: FaultRng,
    /// Bytes that may still be sent before the connection is reset.
    bytes_before_reset: u64,
    entries: VecDeque<(Instant, Vec<u8>)>,
    memory: usize,
}

impl DelayQueue {
    /// Creates the queue of the connection with this number.
    pub(super) fn new(faults: &FaultInjection, number: u64) -> Self {
        Self {
            rng: FaultRng::new(faults, number),
            bytes_before_reset: faults.reset_after.map_or(u64::MAX, Into::into),
            entries: VecDeque::new(),
            memory: 0,
        }
    }

    /// Queues the reply to a message received at `now`. Returns `false` if it is dropped.
    pub(super) fn enqueue(&mut self, now: Instant, prefix: &[u8], message: &[u8]) -> bool {
        let Some(delay) = self.rng.draw() else {
            return false;
        };
        let due = now.checked_add(delay).unwrap_or(now);
        let bytes = [prefix, message].concat();
        let max_len = usize::try_from(self.bytes_before_reset).unwrap_or(usize::MAX);
        self.push(due, &bytes[..bytes.len().min(max_len)]);
        true
    }

    /// Adds a reply, merged with the previous one if that is not due earlier.
    fn push(&mut self, due: Instant, bytes: &[u8]) {
        self.bytes_before_reset -= bytes.len() as u64;
        self.memory += bytes.len();
        match self.entries.back_mut() {
            Some((last_due, buffer)) if *last_due >= due => buffer.extend_from_slice(bytes),
            _ => {
                self.memory += size_of::<(Instant, Vec<u8>)>();
                self.entries.push_back((due, bytes.into()));
            }
        }
    }

    /// Removes and returns the next replies, if they are due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Vec<u8>> {
        if self.next_due()? > now {
            return None;
        }
        let (_, bytes) = self.entries.pop_front()?;
        self.memory -= bytes.len() + size_of::<(Instant, Vec<u8>)>();
        Some(bytes)
    }

    /// Returns when the next reply is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.entries.front().map(|(due, _)| *due)
    }

    /// Returns whether reading has to pause.
    pub(super) fn is_full(&self) -> bool {
        self.memory >= MAX_QUEUED_BYTES || self.reset_pending()
    }

    /// Returns whether the connection has to be reset after the queued replies.
    pub(super) fn reset_pending(&self) -> bool {
        self.bytes_before_reset == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the delays of a hundred replies, `None` for dropped ones.
    fn delays(faults: &FaultInjection, number: u64) -> Vec<Option<Duration>> {
        let now = Instant::now();
        let delay = |queue: &mut DelayQueue| {
            let answered = queue.enqueue(now, b"", b"x\n");
            answered.then(|| queue.entries.pop_back().unwrap().0 - now)
        };
        let mut queue = DelayQueue::new(faults, number);
        (0..100).map(|_| delay(&mut queue)).collect()
    }

    #[test]
    fn same_seed_repeats_the_same_faults() {
        let faults = |seed| FaultInjection {
            jitter: SECOND,
            drop_rate: 0.3,
            seed,
            ..FaultInjection::default()
        };
        for number in 0..10 {
            assert_eq!(delays(&faults(7), number), delays(&faults(7), number));
            assert_ne!(delays(&faults(7), number), delays(&faults(8), number));
            assert_ne!(delays(&faults(7), number), delays(&faults(7), number + 1));
            assert_ne!(delays(&faults(7), number + 1), delays(&faults(8), number));
        }
    }

    #[test]
    fn dropped_replies_do_not_shift_other_delays() {
        let faults = FaultInjection {
            jitter: SECOND,
            seed: 7,
            ..FaultInjection::default()
        };
        let all = delays(&faults, 1);
        let some = delays(
            &FaultInjection {
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
    fn drop_rate_and_delays_match_the_configuration() {
        let faults = FaultInjection {
            delay: SECOND,
            jitter: SECOND * 2,
            drop_rate: 0.25,
            ..FaultInjection::default()
        };
        let all: Vec<_> = (0..100)
            .flat_map(|number| delays(&faults, number))
            .collect();
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
            let faults = FaultInjection {
                drop_rate,
                ..FaultInjection::default()
            };
            assert_eq!(delays(&faults, 0).iter().flatten().count(), answered);
        }
    }

    #[test]
    fn delayed_replies_keep_their_order() {
        let faults = FaultInjection {
            delay: SECOND,
            ..FaultInjection::default()
        };
        let mut queue = DelayQueue::new(&faults, 0);
        let now = Instant::now();
        queue.enqueue(now, b"> ", b"one\n");
        queue.enqueue(now, b"> ", b"two\n");
        queue.enqueue(now + SECOND, b"> ", b"three\n");
        // An earlier time, such as from a core with a slower clock, must not change the order.
        queue.enqueue(now, b"> ", b"four\n");
        assert_eq!(queue.pop_due(now + SECOND / 2), None);
        assert_eq!(queue.next_due(), Some(now + SECOND));
        assert_eq!(
            queue.pop_due(now + SECOND).as_deref(),
            Some(b"> one\n> two\n".as_slice())
        );
        assert_eq!(queue.pop_due(now + SECOND), None);
        let last = queue.pop_due(now + SECOND * 2);
        assert_eq!(last.as_deref(), Some(b"> three\n> four\n".as_slice()));
        assert_eq!((queue.next_due(), queue.memory), (None, 0));
    }

    #[test]
    fn queue_is_full_at_its_memory_limit() {
        let faults = FaultInjection {
            delay: SECOND,
            jitter: SECOND,
            ..FaultInjection::default()
        };
        let mut queue = DelayQueue::new(&faults, 0);
        let now = Instant::now();
        let mut count = 0;
        while !queue.is_full() {
            queue.enqueue(now + SECOND * count, b"", b"\n");
            count += 1;
        }
        assert!(
            (5_000..20_000).contains(&count),
            "the overhead of small replies is included"
        );
        while queue.pop_due(now + SECOND * (count + 2)).is_some() {}
        assert!(!queue.is_full());
    }

    #[test]
    fn reset_follows_exactly_the_configured_bytes() {
        let reset_after = NonZeroU64::new(5);
        let mut queue = DelayQueue::new(
            &FaultInjection {
                reset_after,
                ..FaultInjection::default()
            },
            0,
        );
        let now = Instant::now();
        for message in [b"abc\n", b"def\n", b"ghi\n"] {
            queue.enqueue(now, b"", message);
        }
        assert!(queue.reset_pending() && queue.is_full());
        assert_eq!(queue.pop_due(now).as_deref(), Some(b"abc\nd".as_slice()));
    }

    #[test]
    fn maximum_delay_does_not_overflow() {
        let faults = FaultInjection {
            delay: Duration::MAX,
            jitter: Duration::MAX,
            ..FaultInjection::default()
        };
        assert!(
            delays(&faults, 0)
                .iter()
                .flatten()
                .all(|late| *late == MAX_DELAY)
        );
    }
}
