//! Faults of one connection: its queued replies, and when they may be written. Decisions and bytes
//! only; the caller passes the time.

use std::collections::VecDeque;
use std::mem;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::limits::rate::RateLimiter;
use crate::serve::config::FaultInjection;
use crate::serve::fault::corrupt;
use crate::serve::fault::draw::{Draw, MAX_DELAY};
use crate::serve::stats::FaultCounters;

/// Memory in bytes of the queued replies of a connection above which reading pauses. One message
/// may exceed it.
const MAX_QUEUED_BYTES: usize = 256 << 10;

/// The queued replies of one connection, in order.
#[derive(Debug)]
pub(in crate::serve) struct ReplyQueue {
    faults: Rc<FaultInjection>,
    /// Number of connections accepted before this one.
    connection: u64,
    entries: VecDeque<(Instant, Vec<u8>)>,
    /// Memory of `entries` in bytes.
    memory: usize,
    /// Replies that are due, of which `written` bytes are written.
    due: Vec<u8>,
    written: usize,
    /// Bytes of replies that were queued.
    replied: u64,
    limiter: Option<RateLimiter>,
    /// Time of the next write, with a limiter.
    writable_at: Option<Instant>,
    opened: Instant,
    /// End of the connection after the queued replies.
    end: Option<FaultEnd>,
}

/// End of a connection by fault injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum FaultEnd {
    /// Reset after a number of bytes.
    Reset,
    /// Closed in place of a reply.
    Closed,
    /// Closed at its maximum age.
    ClosedAfter,
}

impl FaultEnd {
    /// Returns the counter of connections that end this way, and a text for the log.
    pub(in crate::serve) fn counter(self, counters: &FaultCounters) -> (&AtomicU64, &'static str) {
        match self {
            Self::Reset => (&counters.reset, "fault reset"),
            Self::Closed => (&counters.closed, "fault closed"),
            Self::ClosedAfter => (&counters.closed_after, "fault closed after"),
        }
    }
}

/// Next step of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::serve) enum Step {
    /// Write the next [`piece`](ReplyQueue::piece).
    Write,
    /// End the connection.
    End(FaultEnd),
    /// Wait until replies are due and may be written.
    Wait,
    /// All replies are written.
    Idle,
}

impl ReplyQueue {
    /// Creates the queue of the connection with this number, which was accepted at `opened` and
    /// has sent `replied` bytes since.
    pub(super) fn new(
        faults: Rc<FaultInjection>,
        connection: u64,
        opened: Instant,
        replied: u64,
    ) -> Self {
        let mut queue = Self {
            faults: Rc::default(),
            connection,
            entries: VecDeque::new(),
            memory: 0,
            due: Vec::new(),
            written: 0,
            replied,
            limiter: None,
            writable_at: None,
            opened,
            end: None,
        };
        queue.set_faults(faults);
        queue
    }

    /// Changes the faults of later messages. Bandwidth, slices and the maximum age apply to the
    /// queued replies as well.
    pub(super) fn set_faults(&mut self, faults: Rc<FaultInjection>) {
        if faults.bandwidth != self.faults.bandwidth {
            let limiter = |rate| RateLimiter::new(rate, Instant::now());
            self.limiter = faults.bandwidth.map(limiter);
            self.writable_at = None;
        }
        self.faults = faults;
    }

    pub(super) fn faults(&self) -> &Rc<FaultInjection> {
        &self.faults
    }

    /// Queues the reply to the message with this number on the connection, received at `now`.
    pub(in crate::serve) fn enqueue(
        &mut self,
        now: Instant,
        number: u64,
        [prefix, message]: [&[u8]; 2],
        counters: &FaultCounters,
    ) {
        if self.end.is_some() {
            return;
        }
        let draw = Draw::new(&self.faults, self.connection, number);
        if draw.is_dropped {
            counters.dropped.fetch_add(1, Relaxed);
            return;
        }
        let due = now.checked_add(draw.delay).unwrap_or(now);
        if draw.closes_connection {
            self.end = Some(FaultEnd::Closed);
            // The close is due when the reply would be.
            return self.push(due, &[]);
        }
        let mut reply = [prefix, message].concat();
        if let Some(random) = draw.corruption
            && corrupt(&mut reply, random)
        {
            counters.corrupted.fetch_add(1, Relaxed);
        }
        if let Some(reset_after) = self.faults.reset_after {
            let rest = reset_after.get().saturating_sub(self.replied);
            if rest <= reply.len() as u64 {
                reply.truncate(rest as usize);
                self.end = Some(FaultEnd::Reset);
            }
        }
        self.push(due, &reply);
    }

    /// Adds a reply, merged with the previous one if that is not due earlier.
    fn push(&mut self, due: Instant, bytes: &[u8]) {
        self.replied += bytes.len() as u64;
        self.memory += bytes.len();
        match self.entries.back_mut() {
            Some((last_due, buffer)) if *last_due >= due => buffer.extend_from_slice(bytes),
            _ => {
                self.memory += size_of::<(Instant, Vec<u8>)>();
                self.entries.push_back((due, bytes.into()));
            }
        }
    }

    /// Returns the next step at `now`.
    pub(in crate::serve) fn next_step(&mut self, now: Instant) -> Step {
        if self.close_at().is_some_and(|at| at <= now) {
            return Step::End(FaultEnd::ClosedAfter);
        }
        while self.due.is_empty() && self.entries.front().is_some_and(|(due, _)| *due <= now) {
            self.pop();
        }
        if !self.due.is_empty() {
            return match self.writable_at {
                Some(at) if at > now => Step::Wait,
                _ => Step::Write,
            };
        }
        match self.end {
            _ if !self.entries.is_empty() => Step::Wait,
            Some(end) => Step::End(end),
            None => Step::Idle,
        }
    }

    fn pop(&mut self) {
        if let Some((_, bytes)) = self.entries.pop_front() {
            self.memory -= bytes.len() + size_of::<(Instant, Vec<u8>)>();
            self.due = bytes;
        }
    }

    /// Returns the time after `now` of the next step, unless it depends on the peer alone.
    pub(in crate::serve) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let next = if self.due.is_empty() {
            self.entries.front().map(|(due, _)| *due)
        } else {
            self.writable_at
        };
        let next = next.filter(|at| *at > now);
        next.into_iter().chain(self.close_at()).min()
    }

    fn close_at(&self) -> Option<Instant> {
        let age = self.faults.close_after?;
        self.opened.checked_add(age.min(MAX_DELAY))
    }

    /// Returns the bytes of the next write.
    pub(in crate::serve) fn piece(&self) -> &[u8] {
        let rest = &self.due[self.written..];
        let slice = self.faults.slice.map_or(usize::MAX, NonZeroUsize::get);
        let burst = self
            .limiter
            .as_ref()
            .map_or(usize::MAX, RateLimiter::max_burst);
        &rest[..rest.len().min(slice).min(burst)]
    }

    /// Records that `count` bytes of the piece are written.
    pub(in crate::serve) fn record_written(&mut self, count: usize, now: Instant) {
        self.written += count;
        if self.written == self.due.len() {
            self.written = 0;
            mem::take(&mut self.due);
        }
        self.writable_at = self
            .limiter
            .as_mut()
            .map(|limiter| limiter.consume(count, now));
    }

    /// Returns whether reading has to pause.
    pub(in crate::serve) fn is_full(&self) -> bool {
        self.end.is_some() || !self.due.is_empty() || self.memory >= MAX_QUEUED_BYTES
    }

    /// Returns whether nothing is queued or pending, so that the queue can be dropped.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.due.is_empty() && self.end.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::{NonZeroU64, NonZeroUsize};
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn queue(faults: FaultInjection, opened: Instant) -> ReplyQueue {
        ReplyQueue::new(Rc::new(faults), 0, opened, 0)
    }

    /// Queues replies that are due at the same time as their messages arrive.
    fn enqueue_all(queue: &mut ReplyQueue, now: Instant, messages: &[&str]) -> FaultCounters {
        let counters = FaultCounters::default();
        for (number, message) in messages.iter().enumerate() {
            queue.enqueue(now, number as u64, [b"> ", message.as_bytes()], &counters);
        }
        counters
    }

    /// Writes pieces while the queue allows it, and returns them.
    fn write(queue: &mut ReplyQueue, now: Instant) -> Vec<String> {
        let mut pieces = Vec::new();
        while queue.next_step(now) == Step::Write {
            let piece = queue.piece();
            pieces.push(String::from_utf8(piece.into()).unwrap());
            queue.record_written(piece.len(), now);
        }
        pieces
    }

    #[test]
    fn delayed_replies_keep_their_order() {
        let now = Instant::now();
        let faults = FaultInjection {
            delay: SECOND,
            ..FaultInjection::default()
        };
        let mut queue = queue(faults, now);
        enqueue_all(&mut queue, now, &["one\n", "two\n"]);
        enqueue_all(&mut queue, now + SECOND, &["three\n"]);
        // An earlier time, such as from a core with a slower clock, must not change the order.
        enqueue_all(&mut queue, now, &["four\n"]);
        assert_eq!(queue.next_step(now + SECOND / 2), Step::Wait);
        assert_eq!(queue.wake_at(now), Some(now + SECOND));
        assert_eq!(write(&mut queue, now + SECOND), ["> one\n> two\n"]);
        assert_eq!(queue.next_step(now + SECOND), Step::Wait);
        assert!(!queue.is_idle());
        assert_eq!(write(&mut queue, now + SECOND * 2), ["> three\n> four\n"]);
        assert_eq!(queue.next_step(now + SECOND * 2), Step::Idle);
        assert!(queue.is_idle());
        assert_eq!((queue.wake_at(now), queue.memory), (None, 0));
    }

    #[test]
    fn queue_is_full_at_its_memory_limit() {
        let now = Instant::now();
        let faults = FaultInjection {
            delay: SECOND,
            jitter: SECOND,
            ..FaultInjection::default()
        };
        let mut queue = queue(faults, now);
        let mut count = 0;
        while !queue.is_full() {
            enqueue_all(&mut queue, now + SECOND * count, &["\n"]);
            count += 1;
        }
        assert!(
            (5_000..20_000).contains(&count),
            "the overhead of small replies is included"
        );
        write(&mut queue, now + SECOND * (count + 2));
        assert!(!queue.is_full());
    }

    #[test]
    fn reset_follows_exactly_the_configured_bytes() {
        let now = Instant::now();
        let faults = FaultInjection {
            reset_after: NonZeroU64::new(9),
            ..FaultInjection::default()
        };
        let mut queue = queue(faults, now);
        enqueue_all(&mut queue, now, &["abc\n", "def\n", "ghi\n"]);
        assert!(queue.is_full());
        assert_eq!(write(&mut queue, now), ["> abc\n> d"]);
        assert_eq!(queue.next_step(now), Step::End(FaultEnd::Reset));
    }

    #[test]
    fn connection_closes_in_place_of_a_reply() {
        let now = Instant::now();
        let faults = FaultInjection {
            delay: SECOND,
            ..FaultInjection::default()
        };
        let mut queue = queue(faults.clone(), now);
        enqueue_all(&mut queue, now, &["first\n"]);
        let closing = FaultInjection {
            close_rate: 1.0,
            delay: SECOND * 2,
            ..faults
        };
        queue.set_faults(Rc::new(closing));
        enqueue_all(&mut queue, now, &["second\n", "third\n"]);
        assert!(queue.is_full());
        assert_eq!(write(&mut queue, now + SECOND), ["> first\n"]);
        let due = now + SECOND * 2;
        assert_eq!(queue.next_step(now + SECOND), Step::Wait);
        assert_eq!(queue.wake_at(now + SECOND), Some(due));
        assert_eq!(queue.next_step(due), Step::End(FaultEnd::Closed));
    }

    #[test]
    fn age_limit_does_not_wait_for_replies() {
        let now = Instant::now();
        let faults = FaultInjection {
            delay: SECOND * 5,
            close_after: Some(SECOND),
            ..FaultInjection::default()
        };
        let mut queue = queue(faults, now);
        assert_eq!(queue.next_step(now), Step::Idle);
        enqueue_all(&mut queue, now, &["late\n"]);
        assert_eq!(queue.wake_at(now), Some(now + SECOND));
        let end = queue.next_step(now + SECOND);
        assert_eq!(end, Step::End(FaultEnd::ClosedAfter));
    }

    #[test]
    fn corrupt_replies_differ_in_one_bit() {
        let faults = FaultInjection {
            corrupt_rate: 1.0,
            ..FaultInjection::default()
        };
        let now = Instant::now();
        let mut queue = queue(faults, now);
        let counters = FaultCounters::default();
        let mut positions = [0; 32];
        for number in 0..1000 {
            queue.enqueue(now, number, [b"", &[0; 4]], &counters);
            queue.next_step(now);
            let piece = u32::from_be_bytes(queue.piece().try_into().unwrap());
            assert_eq!(piece.count_ones(), 1, "{piece:b}");
            positions[piece.ilog2() as usize] += 1;
            queue.record_written(4, now);
        }
        assert_eq!(counters.corrupted.load(Relaxed), 1000);
        // 31 on average; a tenth of that would be a sixth standard deviation.
        assert!(positions.iter().all(|count| *count > 3), "{positions:?}");
    }

    #[test]
    fn slices_limit_each_write() {
        let now = Instant::now();
        let faults = FaultInjection {
            slice: NonZeroUsize::new(4),
            ..FaultInjection::default()
        };
        let mut queue = queue(faults, now);
        enqueue_all(&mut queue, now, &["abcdefg\n"]);
        assert_eq!(write(&mut queue, now), ["> ab", "cdef", "g\n"]);
    }

    #[test]
    fn bandwidth_spreads_replies_evenly() {
        let start = Instant::now();
        let faults = FaultInjection {
            bandwidth: NonZeroU64::new(1000),
            ..FaultInjection::default()
        };
        let mut queue = queue(faults, start);
        enqueue_all(&mut queue, start, &["x".repeat(4998).as_str()]);
        let mut now = start;
        for second in 1..=5 {
            let mut bytes = 0;
            while now < start + SECOND * second {
                bytes += write(&mut queue, now).concat().len();
                now = queue.wake_at(now).unwrap_or(start + SECOND * 9);
            }
            assert!((950..=1050).contains(&bytes), "{bytes} in second {second}");
        }
        assert_eq!(queue.next_step(now), Step::Idle);
    }

    #[test]
    fn changed_bandwidth_applies_to_queued_replies() {
        let now = Instant::now();
        let slow = FaultInjection {
            bandwidth: NonZeroU64::MIN.into(),
            ..FaultInjection::default()
        };
        let mut queue = queue(slow, now);
        enqueue_all(&mut queue, now, &["reply\n"]);
        assert_eq!(write(&mut queue, now), [">"]);
        queue.set_faults(Rc::default());
        assert_eq!(write(&mut queue, now), [" reply\n"]);
        assert!(queue.is_idle());
    }
}
