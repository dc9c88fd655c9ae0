//! Fault injection on datagrams: each reply has its own delay, so that replies may be reordered.
//! The caller passes the time.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::serve::config::FaultInjection;
use crate::serve::fault::corrupt;
use crate::serve::fault::draw::{Draw, is_burst_loss};
use crate::serve::stats::FaultCounters;

/// Memory in bytes of the queued replies above which reading pauses.
const MAX_QUEUED_BYTES: usize = 4 << 20;

/// Time after which a reply is sent that waits for the next one to the same client.
const REORDER_TIMEOUT: Duration = Duration::from_millis(100);

/// Due time of a reply; the number of its datagram, or of the one that overtakes it; whether it is
/// overtaken.
type Key = (Instant, u64, bool);

/// The queued replies of one socket, each with its destination.
#[derive(Debug)]
pub(in crate::serve) struct DatagramQueue<T> {
    entries: BTreeMap<Key, Entry<T>>,
    /// The replies that wait for the next one to the same client; at most one for each.
    waiting: HashMap<SocketAddr, Key>,
    memory: usize,
}

#[derive(Debug)]
struct Entry<T> {
    reply: Reply<T>,
    /// Number of times the reply is sent.
    copies: u8,
}

/// A reply to a datagram, and what the socket needs to send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::serve) struct Reply<T> {
    pub(in crate::serve) peer: SocketAddr,
    pub(in crate::serve) target: T,
    pub(in crate::serve) bytes: Vec<u8>,
}

impl<T: Clone> DatagramQueue<T> {
    pub(in crate::serve) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            waiting: HashMap::new(),
            memory: 0,
        }
    }

    /// Queues the reply to the datagram with this number, received at `now`, unless it is dropped.
    /// The same seed and number give the same faults.
    pub(in crate::serve) fn enqueue(
        &mut self,
        faults: &FaultInjection,
        now: Instant,
        number: u64,
        mut reply: Reply<T>,
        counters: &FaultCounters,
    ) {
        let draw = Draw::new(faults, number, 0);
        if draw.is_dropped {
            counters.dropped.fetch_add(1, Relaxed);
            return;
        }
        let is_lost = |burst| is_burst_loss(burst, faults.seed, number);
        if faults.loss_burst.as_ref().is_some_and(is_lost) {
            counters.burst_dropped.fetch_add(1, Relaxed);
            return;
        }
        if let Some(random) = draw.corruption
            && corrupt(&mut reply.bytes, random)
        {
            counters.corrupted.fetch_add(1, Relaxed);
        }
        let copies = 1 + u8::from(draw.is_duplicated);
        counters
            .duplicated
            .fetch_add(u64::from(draw.is_duplicated), Relaxed);
        let due = now.checked_add(draw.delay).unwrap_or(now);
        let peer = reply.peer;
        let entry = Entry { reply, copies };
        if let Some(overtaken) = self.waiting.remove(&peer) {
            self.insert((due, number, false), entry);
            if let Some(entry) = self.remove(&overtaken) {
                let own_due = overtaken.0 - REORDER_TIMEOUT;
                self.insert((own_due.max(due), number, true), entry);
                counters.reordered.fetch_add(1, Relaxed);
            }
        } else if draw.is_reordered {
            let key = (due + REORDER_TIMEOUT, number, false);
            self.waiting.insert(peer, key);
            self.insert(key, entry);
        } else {
            self.insert((due, number, false), entry);
        }
    }

    fn insert(&mut self, key: Key, entry: Entry<T>) {
        self.memory += entry.memory();
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) -> Option<Entry<T>> {
        let entry = self.entries.remove(key)?;
        self.memory -= entry.memory();
        Some(entry)
    }

    /// Removes and returns the next reply, if it is due.
    pub(in crate::serve) fn pop_due(&mut self, now: Instant) -> Option<Reply<T>> {
        let mut first = self.entries.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        if first.get().copies > 1 {
            first.get_mut().copies -= 1;
            return Some(first.get().reply.clone());
        }
        let key = *first.key();
        let reply = self.remove(&key)?.reply;
        if self.waiting.get(&reply.peer) == Some(&key) {
            self.waiting.remove(&reply.peer);
        }
        Some(reply)
    }

    /// Returns when the next reply is due.
    pub(in crate::serve) fn next_due(&self) -> Option<Instant> {
        self.entries.first_key_value().map(|(key, _)| key.0)
    }

    /// Returns whether reading has to pause.
    pub(in crate::serve) fn is_full(&self) -> bool {
        self.memory >= MAX_QUEUED_BYTES
    }
}

impl<T> Entry<T> {
    fn memory(&self) -> usize {
        self.reply.bytes.capacity() + size_of::<Self>() + 2 * size_of::<(SocketAddr, Key)>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    /// Queues the replies to datagrams with these numbers, each from the client that `port`
    /// returns.
    fn queued(
        faults: &FaultInjection,
        now: Instant,
        numbers: impl Iterator<Item = u64>,
        port: fn(u64) -> u16,
    ) -> (DatagramQueue<u64>, FaultCounters) {
        let counters = FaultCounters::default();
        let mut queue = DatagramQueue::new();
        for number in numbers {
            let reply = Reply {
                peer: peer(port(number)),
                target: number,
                bytes: b"reply".into(),
            };
            queue.enqueue(faults, now, number, reply, &counters);
        }
        (queue, counters)
    }

    /// Returns the numbers of the replies that are due, in order.
    fn due<T: Clone>(queue: &mut DatagramQueue<T>, now: Instant) -> Vec<T> {
        let replies = std::iter::from_fn(|| queue.pop_due(now));
        replies.map(|reply| reply.target).collect()
    }

    /// Returns the order of the replies to datagrams of one client.
    fn order(faults: &FaultInjection, numbers: impl Iterator<Item = u64>) -> Vec<u64> {
        let now = Instant::now();
        let (mut queue, _) = queued(faults, now, numbers, |_| 1);
        let all = due(&mut queue, now + SECOND * 10);
        assert_eq!((queue.memory, queue.waiting.len()), (0, 0));
        all
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
        let (mut queue, _) = queued(&faults, now, 0..1, |_| 1);
        assert_eq!(queue.next_due(), Some(now + SECOND));
        assert_eq!(queue.pop_due(now), None);
        assert_eq!(queue.pop_due(now + SECOND).unwrap().bytes, b"reply");
        assert_eq!((queue.next_due(), queue.memory), (None, 0));
    }

    #[test]
    fn reordered_replies_are_overtaken_once() {
        let always = FaultInjection {
            reorder_rate: 1.0,
            ..FaultInjection::default()
        };
        assert_eq!(order(&always, 0..7), [1, 0, 3, 2, 5, 4, 6]);
        let now = Instant::now();
        let (mut queue, counters) = queued(&always, now, 0..5, |_| 1);
        // The last one waits for a successor.
        assert_eq!(due(&mut queue, now), [1, 0, 3, 2]);
        assert_eq!(counters.reordered.load(Relaxed), 2);
        assert_eq!(due(&mut queue, now + REORDER_TIMEOUT / 2), [0; 0]);
        assert_eq!(due(&mut queue, now + REORDER_TIMEOUT), [4]);
    }

    #[test]
    fn replies_to_other_clients_do_not_overtake() {
        let always = FaultInjection {
            reorder_rate: 1.0,
            duplicate_rate: 1.0,
            ..FaultInjection::default()
        };
        let now = Instant::now();
        let by_number = |number| (number % 3) as u16;
        let (mut queue, counters) = queued(&always, now, 0..6, by_number);
        let expected = [3, 3, 0, 0, 4, 4, 1, 1, 5, 5, 2, 2];
        assert_eq!(due(&mut queue, now), expected);
        assert_eq!(counters.duplicated.load(Relaxed), 6);
    }

    #[test]
    fn waiting_replies_are_bounded() {
        let always = FaultInjection {
            reorder_rate: 1.0,
            ..FaultInjection::default()
        };
        let counters = FaultCounters::default();
        let mut queue = DatagramQueue::new();
        let mut count = 0;
        while !queue.is_full() {
            let reply = Reply {
                peer: peer(count),
                target: (),
                bytes: Vec::new(),
            };
            queue.enqueue(&always, Instant::now(), count.into(), reply, &counters);
            count += 1;
        }
        assert_eq!(queue.waiting.len(), usize::from(count));
    }

    #[test]
    fn queue_is_full_at_its_memory_limit() {
        let faults = FaultInjection {
            delay: SECOND,
            ..FaultInjection::default()
        };
        for (length, max_count) in [(0, 50_000), (65_507, 65)] {
            let mut queue = DatagramQueue::new();
            let mut count = 0;
            while !queue.is_full() {
                let reply = Reply {
                    peer: peer(1),
                    target: (),
                    bytes: vec![0; length],
                };
                let counters = FaultCounters::default();
                queue.enqueue(&faults, Instant::now(), count, reply, &counters);
                count += 1;
            }
            assert!(count < max_count, "{count} datagrams of {length} bytes");
        }
    }
}
