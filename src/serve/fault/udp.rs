//! Fault injection on datagrams: each reply has its own delay, so that replies may be reordered.
//! The caller passes the time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::serve::config::FaultInjection;
use crate::serve::fault::FaultRng;

/// Memory in bytes of the queued replies above which reading pauses.
const MAX_QUEUED_BYTES: usize = 4 << 20;

/// The delayed replies of one socket, each with its destination.
#[derive(Debug)]
pub(in crate::serve) struct UdpDelayQueue<T> {
    faults: FaultInjection,
    entries: BinaryHeap<Entry<T>>,
    memory: usize,
}

#[derive(Debug)]
struct Entry<T> {
    /// Due time and number, reversed: the heap returns its maximum.
    order: Reverse<(Instant, u64)>,
    target: T,
    reply: Vec<u8>,
}

impl<T> UdpDelayQueue<T> {
    pub(in crate::serve) fn new(faults: &FaultInjection) -> Self {
        Self {
            faults: faults.clone(),
            entries: BinaryHeap::new(),
            memory: 0,
        }
    }

    /// Queues the reply to the message with this number, received at `now`. Returns `false` if it
    /// is dropped. The same seed and number give the same decision.
    pub(in crate::serve) fn enqueue(
        &mut self,
        now: Instant,
        number: u64,
        target: T,
        reply: Vec<u8>,
    ) -> bool {
        let Some(delay) = FaultRng::new(&self.faults, number).draw() else {
            return false;
        };
        let due = now.checked_add(delay).unwrap_or(now);
        let entry = Entry {
            order: Reverse((due, number)),
            target,
            reply,
        };
        self.memory += entry.memory();
        self.entries.push(entry);
        true
    }

    /// Removes and returns the next reply, if it is due.
    pub(in crate::serve) fn pop_due(&mut self, now: Instant) -> Option<(T, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        let entry = self.entries.pop()?;
        self.memory -= entry.memory();
        Some((entry.target, entry.reply))
    }

    /// Returns when the next reply is due.
    pub(in crate::serve) fn next_due(&self) -> Option<Instant> {
        self.entries.peek().map(|entry| entry.order.0.0)
    }

    /// Returns whether reading has to pause.
    pub(in crate::serve) fn is_full(&self) -> bool {
        self.memory >= MAX_QUEUED_BYTES
    }
}

impl<T> Entry<T> {
    fn memory(&self) -> usize {
        self.reply.capacity() + size_of::<Self>()
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl<T> Eq for Entry<T> {}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    /// Returns the order of the replies to messages with these numbers.
    fn order(faults: &FaultInjection, numbers: impl Iterator<Item = u64>) -> Vec<u64> {
        let now = Instant::now();
        let mut queue = UdpDelayQueue::new(faults);
        for number in numbers {
            queue.enqueue(now, number, number, Vec::new());
        }
        std::iter::from_fn(|| queue.pop_due(now + SECOND * 10))
            .map(|(number, _)| number)
            .collect()
    }

    #[test]
    fn same_seed_repeats_the_same_order() {
        let faults = |seed| FaultInjection {
            jitter: SECOND,
            drop_rate: 0.3,
            seed,
            ..FaultInjection::default()
        };
        let first = order(&faults(7), 0..100);
        assert!((50..90).contains(&first.len()), "{} of 100", first.len());
        assert!(!first.is_sorted(), "jitter reorders replies");
        assert_eq!(first, order(&faults(7), 0..100));
        assert_eq!(
            first,
            order(&faults(7), (0..100).rev()),
            "the order of arrival does not matter"
        );
        assert_ne!(first, order(&faults(8), 0..100));
    }

    #[test]
    fn replies_without_jitter_keep_their_order() {
        let faults = FaultInjection {
            delay: SECOND,
            ..FaultInjection::default()
        };
        assert!(order(&faults, 0..100).is_sorted());
        let now = Instant::now();
        let mut queue = UdpDelayQueue::new(&faults);
        assert!(queue.enqueue(now, 0, "peer", b"reply".into()));
        assert_eq!(
            (queue.next_due(), queue.pop_due(now)),
            (Some(now + SECOND), None)
        );
        assert_eq!(queue.pop_due(now + SECOND), Some(("peer", b"reply".into())));
        assert_eq!((queue.next_due(), queue.memory), (None, 0));
    }

    #[test]
    fn queue_is_full_at_its_memory_limit() {
        for (length, max_count) in [(0, 100_000), (65_507, 65)] {
            let mut queue = UdpDelayQueue::new(&FaultInjection {
                delay: SECOND,
                ..FaultInjection::default()
            });
            let count = (0..)
                .take_while(|number| {
                    queue.enqueue(Instant::now(), *number, (), vec![0; length]) && !queue.is_full()
                })
                .count();
            assert!(count < max_count, "{count} datagrams of {length} bytes");
        }
    }
}
