//! Datagrams that come late on purpose: as on a long way, each by itself, so that one may overtake
//! another. What time it is, the caller says.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::serve::config::Faults;
use crate::serve::faults::Fates;

/// The memory in bytes that answers which wait may take before no more is read.
const MOST: usize = 4 << 20;

/// The answers of one socket that wait for their time, each with what says where it goes.
#[derive(Debug)]
pub(super) struct LateDatagrams<T> {
    faults: Faults,
    waiting: BinaryHeap<Waiting<T>>,
    memory: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    /// When it is due, and which it is: first what sorts first.
    order: Reverse<(Instant, u64)>,
    target: T,
    answer: Vec<u8>,
}

impl<T> LateDatagrams<T> {
    pub(super) fn new(faults: &Faults) -> Self {
        Self {
            faults: faults.clone(),
            waiting: BinaryHeap::new(),
            memory: 0,
        }
    }

    /// Takes the answer to the message with this number, which has come `now`, unless it gets
    /// lost: then `false`. The same seed and the same number decide the same.
    pub(super) fn put_off(
        &mut self,
        now: Instant,
        number: u64,
        target: T,
        answer: Vec<u8>,
    ) -> bool {
        let Some(late) = Fates::new(&self.faults, number).draw() else {
            return false;
        };
        let due = now.checked_add(late).unwrap_or(now);
        let waiting = Waiting {
            order: Reverse((due, number)),
            target,
            answer,
        };
        self.memory += waiting.memory();
        self.waiting.push(waiting);
        true
    }

    /// What is to be sent next, if its time has come.
    pub(super) fn take(&mut self, now: Instant) -> Option<(T, Vec<u8>)> {
        self.next_due().filter(|due| *due <= now)?;
        let waiting = self.waiting.pop()?;
        self.memory -= waiting.memory();
        Some((waiting.target, waiting.answer))
    }

    /// When the next answer is to be sent.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.peek().map(
            |Waiting {
                 order: Reverse((due, _)),
                 ..
             }| *due,
        )
    }

    /// Whether so much waits that no more may be read.
    pub(super) fn is_full(&self) -> bool {
        self.memory >= MOST
    }
}

impl<T> Waiting<T> {
    fn memory(&self) -> usize {
        self.answer.capacity() + size_of::<Self>()
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// In which order a hundred messages are answered, whatever the order in which they come.
    fn order(faults: &Faults, numbers: impl Iterator<Item = u64>) -> Vec<u64> {
        let now = Instant::now();
        let mut late = LateDatagrams::new(faults);
        for number in numbers {
            late.put_off(now, number, number, Vec::new());
        }
        std::iter::from_fn(|| late.take(now + SECOND * 10))
            .map(|(number, _)| number)
            .collect()
    }

    #[test]
    fn the_same_seed_repeats_exactly_and_another_does_not() {
        let faults = |seed| Faults {
            jitter: SECOND,
            drop_rate: 0.3,
            seed,
            ..Faults::default()
        };
        let first = order(&faults(7), 0..100);
        assert!((50..90).contains(&first.len()), "{} of 100", first.len());
        assert!(!first.is_sorted(), "some overtake others");
        assert_eq!(first, order(&faults(7), 0..100));
        assert_eq!(
            first,
            order(&faults(7), (0..100).rev()),
            "whichever thread takes them first"
        );
        assert_ne!(first, order(&faults(8), 0..100));
    }

    #[test]
    fn without_jitter_answers_keep_their_order_and_wait_for_their_time() {
        let faults = Faults {
            delay: SECOND,
            ..Faults::default()
        };
        assert!(order(&faults, 0..100).is_sorted());
        let now = Instant::now();
        let mut late = LateDatagrams::new(&faults);
        assert!(late.put_off(now, 0, "peer", b"answer".into()));
        assert_eq!(
            (late.next_due(), late.take(now)),
            (Some(now + SECOND), None)
        );
        assert_eq!(late.take(now + SECOND), Some(("peer", b"answer".into())));
        assert_eq!((late.next_due(), late.memory), (None, 0));
    }

    #[test]
    fn so_much_waits_and_no_more() {
        for (length, most) in [(0, 100_000), (65_507, 65)] {
            let mut late = LateDatagrams::new(&Faults {
                delay: SECOND,
                ..Faults::default()
            });
            let count = (0..)
                .take_while(|number| {
                    late.put_off(Instant::now(), *number, (), vec![0; length]) && !late.is_full()
                })
                .count();
            assert!(count < most, "{count} datagrams of {length} bytes");
        }
    }
}
