//! Queue of the missing segments of a file.

use std::ops::Range;

/// Missing segments of a file. Each is received over one connection at a time.
#[derive(Debug)]
pub(crate) struct SegmentQueue {
    segments: Vec<Segment>,
    /// Minimum length of a segment that results from a split.
    min_len: u64,
    next_id: u64,
    is_closed: bool,
}

/// Missing bytes from `start` up to but not including `end`.
#[derive(Debug)]
struct Segment {
    id: u64,
    start: u64,
    end: u64,
    /// End of the received bytes, committed or not.
    received: u64,
    /// End of the body that fills the segment, while there is one.
    body_end: Option<u64>,
    response: ResponseState,
}

/// State of the response that fills a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResponseState {
    Awaited,
    /// Late: another connection may take the segment.
    Late,
    Started,
}

/// Result of marking a segment as late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LateSegment {
    /// The first byte has been received: it is not late.
    Started,
    /// Another connection may take it.
    Available,
    /// Another connection has taken it.
    Taken,
}

/// Segment assigned to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Assignment {
    pub(crate) id: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Segment {
    fn len(&self) -> u64 {
        self.end - self.start
    }

    fn assignment(&self) -> Assignment {
        Assignment {
            id: self.id,
            start: self.start,
            end: self.end,
        }
    }
}

impl SegmentQueue {
    /// Creates a queue of the `gaps` of a file.
    pub(crate) fn new(gaps: &[Range<u64>], min_len: u64) -> Self {
        let segment = |(id, gap): (u64, &Range<u64>)| Segment {
            id,
            start: gap.start,
            end: gap.end,
            received: gap.start,
            body_end: None,
            response: ResponseState::Awaited,
        };
        Self {
            segments: (0..).zip(gaps).map(segment).collect(),
            min_len: min_len.max(1),
            next_id: gaps.len() as u64,
            is_closed: false,
        }
    }

    /// Returns whether there is work for more than one connection.
    pub(crate) fn can_split(&self) -> bool {
        let is_large = |segment: &Segment| segment.len() >= self.min_len.saturating_mul(2);
        self.segments.len() > 1 || self.segments.iter().any(is_large)
    }

    /// Acquires the first segment, for a body that ends at `body_end`.
    pub(crate) fn acquire_first(&mut self, body_end: u64) -> Option<Assignment> {
        let segment = self.segments.first_mut()?;
        segment.body_end = Some(body_end);
        Some(segment.assignment())
    }

    /// Acquires an available segment, or else a late one, or else the second half of the largest
    /// one. Returns `None` if the halves would be too small, or if the queue is closed.
    pub(crate) fn acquire(&mut self) -> Option<Assignment> {
        if self.is_closed {
            return None;
        }
        let is_available = |segment: &Segment| segment.body_end.is_none();
        let index = match self.segments.iter().position(is_available) {
            Some(index) => index,
            None => match self.take_late() {
                Some(index) => index,
                None => self.split_largest()?,
            },
        };
        let segment = &mut self.segments[index];
        segment.body_end = Some(segment.end);
        segment.response = ResponseState::Awaited;
        Some(segment.assignment())
    }

    /// Takes a late segment from its connection, which no longer finds it under the old ID.
    fn take_late(&mut self) -> Option<usize> {
        let is_late = |segment: &Segment| segment.response == ResponseState::Late;
        let index = self.segments.iter().position(is_late)?;
        self.segments[index].id = self.next_id;
        self.next_id += 1;
        Some(index)
    }

    /// Marks a segment as late, unless its response has started.
    pub(crate) fn mark_late(&mut self, id: u64) -> LateSegment {
        match self.segments.iter_mut().find(|segment| segment.id == id) {
            None => LateSegment::Taken,
            Some(segment) if segment.response == ResponseState::Started => LateSegment::Started,
            Some(segment) => {
                segment.response = ResponseState::Late;
                LateSegment::Available
            }
        }
    }

    /// Records that the response of a segment has started.
    pub(crate) fn record_start(&mut self, id: u64) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.id == id) {
            segment.response = ResponseState::Started;
        }
    }

    fn split_largest(&mut self) -> Option<usize> {
        let (largest, _) = self
            .segments
            .iter()
            .enumerate()
            .max_by_key(|(_, segment)| segment.len())?;
        let segment = &mut self.segments[largest];
        let middle = segment.start + segment.len() / 2;
        let start = middle.max(segment.received);
        let end = segment.end;
        if end - start < self.min_len || start - segment.start < self.min_len {
            return None;
        }
        segment.end = start;
        let second = Segment {
            id: self.next_id,
            start,
            end,
            received: start,
            body_end: None,
            response: ResponseState::Awaited,
        };
        self.next_id += 1;
        self.segments.insert(largest + 1, second);
        Some(largest + 1)
    }

    /// Returns the number of uncommitted bytes of a segment.
    pub(crate) fn remaining(&self, id: u64) -> u64 {
        self.segments
            .iter()
            .find(|segment| segment.id == id)
            .map_or(0, Segment::len)
    }

    /// Records that the body of a segment was received up to `position`.
    pub(crate) fn record_received(&mut self, id: u64, position: u64) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.id == id) {
            segment.received = position.clamp(segment.received, segment.end);
            segment.response = ResponseState::Started;
        }
    }

    /// Commits up to `count` received bytes of a segment. Returns the position and the number of
    /// bytes to write: another connection may have taken over the rest.
    pub(crate) fn commit(&mut self, id: u64, count: u64) -> (u64, u64) {
        let Some(segment) = self.segments.iter_mut().find(|segment| segment.id == id) else {
            return (0, 0);
        };
        let position = segment.start;
        let committed = count.min(segment.len());
        segment.start += committed;
        segment.received = segment.received.max(segment.start);
        if committed < count {
            // The body is already behind the end: it cannot continue there if the next segment is
            // released.
            segment.body_end = Some(segment.end);
        }
        (position, committed)
    }

    /// Releases a segment. Its remainder is merged into the preceding segment if that body
    /// reaches far enough, else it becomes available.
    pub(crate) fn release(&mut self, id: u64) {
        if let Some(segment) = self.segments.iter_mut().find(|segment| segment.id == id) {
            segment.body_end = None;
            segment.received = segment.start;
            segment.response = ResponseState::Awaited;
        }
        self.segments
            .retain(|segment| segment.start < segment.end || segment.body_end.is_some());
        self.segments.dedup_by(|segment, before| {
            let is_adjacent = before.end == segment.start && segment.body_end.is_none();
            let is_merged = is_adjacent && before.body_end.is_none_or(|end| end >= segment.end);
            if is_merged {
                before.end = segment.end;
            }
            is_merged
        });
    }

    /// Closes the queue: no further segment is acquired, assigned ones continue.
    pub(crate) fn close(&mut self) {
        self.is_closed = true;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Returns whether no segment will ever be available.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.is_closed || self.segments.is_empty()
    }

    /// Returns the number of bytes that were not received.
    pub(crate) fn missing(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.end - segment.received)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice;

    fn queue(min_len: u64) -> SegmentQueue {
        let mut queue = SegmentQueue::new(slice::from_ref(&(0..800)), min_len);
        queue.acquire_first(800);
        queue
    }

    fn assignment(id: u64, start: u64, end: u64) -> Option<Assignment> {
        Some(Assignment { id, start, end })
    }

    #[test]
    fn acquire_splits_the_largest_segment() {
        let mut queue = SegmentQueue::new(slice::from_ref(&(0..800)), 100);
        assert_eq!(queue.acquire_first(800), assignment(0, 0, 800));
        let ranges: Vec<_> = std::iter::from_fn(|| queue.acquire())
            .map(|segment| (segment.start, segment.end))
            .collect();
        let expected = [
            (400, 800),
            (600, 800),
            (200, 400),
            (700, 800),
            (500, 600),
            (300, 400),
            (100, 200),
        ];
        assert_eq!(ranges, expected);
        assert_eq!(queue.remaining(0), 100);
        assert_eq!(queue.missing(), 800);
    }

    #[test]
    fn commit_ends_at_the_next_segment() {
        let mut queue = queue(1);
        assert_eq!(queue.commit(0, 300), (0, 300));
        let other = queue.acquire().unwrap();
        assert_eq!((other.start, other.end), (550, 800));
        assert_eq!(queue.commit(0, 300), (300, 250));
        assert_eq!(queue.commit(0, 1), (550, 0));
        queue.release(0);
        assert_eq!((queue.missing(), queue.remaining(other.id)), (250, 250));
    }

    #[test]
    fn received_bytes_are_not_assigned_again() {
        let mut queue = queue(100);
        queue.record_received(0, 500);
        assert_eq!((queue.missing(), queue.remaining(0)), (300, 800));
        assert_eq!(queue.acquire(), assignment(1, 500, 800));
        queue.record_received(0, 600);
        assert_eq!((queue.missing(), queue.commit(0, 600)), (300, (0, 500)));
        let last = queue.acquire().unwrap();
        queue.record_received(last.id, 700);
        assert_eq!(queue.missing(), 250);
        queue.release(last.id);
        assert_eq!(queue.missing(), 300, "uncommitted bytes are missing again");
    }

    /// Regression: the body once continued at the end of its segment with bytes from behind it.
    #[test]
    fn body_behind_its_segment_does_not_continue() {
        let mut queue = queue(1);
        let other = queue.acquire().unwrap();
        assert_eq!(queue.commit(0, 450), (0, 400));
        queue.release(other.id);
        assert_eq!((queue.remaining(0), queue.missing()), (0, 400));
        assert_eq!(queue.acquire(), assignment(1, 400, 800));
    }

    #[test]
    fn released_segment_merges_into_a_body_that_reaches_it() {
        let mut queue = queue(1);
        let second = queue.acquire().unwrap().id;
        queue.commit(second, 10);
        queue.release(second);
        // Ten bytes in between are present: the first body would send them again.
        assert_eq!((queue.remaining(0), queue.missing()), (400, 790));
        assert_eq!(queue.acquire(), assignment(1, 410, 800));
        let third = queue.acquire().unwrap();
        assert_eq!((third.start, third.end), (200, 400));
        queue.release(third.id);
        assert_eq!(queue.remaining(0), 400);
        queue.close();
        assert_eq!(queue.acquire(), None);
    }

    #[test]
    fn late_segment_is_taken_completely() {
        let mut queue = queue(100);
        queue.record_received(0, 50);
        let late = queue.acquire().unwrap();
        assert_eq!(
            late,
            Assignment {
                id: 1,
                start: 400,
                end: 800
            }
        );
        assert_eq!(queue.mark_late(0), LateSegment::Started);
        assert_eq!(queue.mark_late(late.id), LateSegment::Available);
        assert_eq!(queue.acquire(), assignment(2, 400, 800));
        assert_eq!(queue.mark_late(late.id), LateSegment::Taken);
        assert_eq!(
            (queue.remaining(late.id), queue.commit(late.id, 9)),
            (0, (0, 0))
        );
        // The late connection changes nothing for the new one.
        queue.record_received(late.id, 500);
        queue.release(late.id);
        assert_eq!((queue.remaining(2), queue.missing()), (400, 750));
    }

    #[test]
    fn late_segment_that_starts_is_kept() {
        let mut queue = queue(400);
        let late = queue.acquire().unwrap();
        queue.mark_late(late.id);
        queue.record_start(late.id);
        assert_eq!(queue.mark_late(late.id), LateSegment::Started);
        assert_eq!(queue.acquire(), None);
    }

    #[test]
    fn released_segments_merge_in_any_order() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 1, 3]] {
            let mut queue = queue(100);
            for _ in 0..3 {
                queue.acquire().unwrap();
            }
            order.into_iter().for_each(|id| queue.release(id));
            assert_eq!(
                (queue.remaining(0), queue.missing()),
                (800, 800),
                "{order:?}"
            );
        }
    }

    #[test]
    fn each_missing_byte_is_committed_once_at_its_position() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..500 {
            let mut queue = SegmentQueue::new(&[3..50, 60..99], random.u64(1..20));
            let mut committed = [0; 100];
            // Each with the position of its body.
            let mut active = vec![];
            let first = queue.acquire_first(99);
            active.extend(first.map(|segment| (segment.id, segment.start)));
            while queue.missing() > 0 {
                if let Some(&(id, _)) = random.choice(&active)
                    && random.u8(..8) == 0
                {
                    queue.mark_late(id);
                }
                if active.is_empty() || random.u8(..4) == 0 {
                    let segment = queue.acquire();
                    active.extend(segment.map(|segment| (segment.id, segment.start)));
                }
                let Some((id, body_position)) = random.choice(active.iter_mut()) else {
                    continue;
                };
                let id = *id;
                let received = if random.bool() { random.u64(..20) } else { 0 };
                let (position, count) = queue.commit(id, received);
                assert!(
                    count == 0 || position == *body_position,
                    "seed {seed}: bytes of {body_position} committed at {position}"
                );
                *body_position += received;
                committed[position as usize..(position + count) as usize]
                    .iter_mut()
                    .for_each(|byte| *byte += 1);
                if (queue.remaining(id) == 0 && random.bool()) || random.u8(..4) == 0 {
                    queue.release(id);
                    active.retain(|(other, _)| *other != id);
                }
            }
            let is_missing = |at: &usize| (3..50).contains(at) || (60..99).contains(at);
            let is_correct = (0..100).all(|at| committed[at] == i32::from(is_missing(&at)));
            assert!(is_correct, "seed {seed}: {committed:?}");
        }
    }
}
