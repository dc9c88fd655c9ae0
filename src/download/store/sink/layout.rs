//! Positions of the written bytes of a file.

use std::ops::Range;

use crate::download::store::range_set::RangeSet;

/// Written bytes of a file, and the position of the next byte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    position: u64,
    /// Number of contiguous bytes from the first one on. It is larger than `position` while they
    /// are written again.
    prefix_len: u64,
    /// Ranges that are present, in a file with gaps.
    ranges: Option<RangeSet>,
}

impl Layout {
    /// Creates the layout of a file of `len` bytes, of which only `ranges` are written if given.
    pub(super) fn new(len: u64, ranges: Option<RangeSet>) -> Self {
        let mut ranges = ranges;
        if let Some(ranges) = &mut ranges {
            ranges.truncate(len);
        }
        let prefix_len = ranges.as_ref().map_or(len, RangeSet::prefix_len);
        Self {
            position: prefix_len,
            prefix_len,
            ranges,
        }
    }

    /// Returns the offset of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the number of contiguous bytes from the first one on.
    pub(crate) fn prefix_len(&self) -> u64 {
        self.prefix_len
    }

    /// Returns whether no byte is written.
    pub(super) fn is_empty(&self) -> bool {
        self.prefix_len == 0 && self.ranges.as_ref().is_none_or(RangeSet::is_empty)
    }

    /// Returns whether bytes that are present are being written again.
    pub(crate) fn is_rewound(&self) -> bool {
        self.position < self.prefix_len
    }

    /// Returns whether the file may have gaps.
    pub(super) fn allows_gaps(&self) -> bool {
        self.ranges.is_some()
    }

    /// Returns the ranges of a file that may have gaps.
    pub(super) fn ranges(&self) -> Option<&RangeSet> {
        self.ranges.as_ref()
    }

    /// Returns the missing ranges of a file of `total` bytes.
    pub(crate) fn gaps(&self, total: u64) -> Vec<Range<u64>> {
        match &self.ranges {
            Some(ranges) => ranges.gaps(total),
            None => RangeSet::prefix(self.prefix_len).gaps(total),
        }
    }

    /// Returns the gaps between written bytes and up to the end, of a file with gaps whose
    /// length is known.
    fn known_gaps(&self, total: Option<u64>) -> Vec<Range<u64>> {
        match (&self.ranges, total) {
            (Some(ranges), Some(total)) => ranges.gaps(total),
            _ => Vec::new(),
        }
    }

    /// Returns whether bytes are missing from a file with gaps.
    pub(crate) fn has_gaps(&self, total: Option<u64>) -> bool {
        !self.known_gaps(total).is_empty()
    }

    /// Returns the length of the gap at the position, `u64::MAX` if no written byte follows.
    pub(crate) fn gap_at_position(&self, total: Option<u64>) -> u64 {
        match self.known_gaps(total).first() {
            Some(gap) if gap.start == self.position => gap.end - gap.start,
            _ => u64::MAX,
        }
    }

    /// Returns the number of bytes that are present behind the gap at the position.
    pub(crate) fn bytes_after_gap(&self, total: Option<u64>) -> u64 {
        let (Some(ranges), Some(total)) = (&self.ranges, total) else {
            return 0;
        };
        // Bytes that are written again count when they are written.
        if self.is_rewound() {
            return 0;
        }
        let gaps = ranges.gaps(total);
        let missing: u64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
        total.saturating_sub(missing + self.position)
    }

    /// Allows gaps from now on.
    pub(super) fn allow_gaps(&mut self) {
        if self.ranges.is_none() {
            self.ranges = Some(RangeSet::prefix(self.prefix_len));
        }
    }

    /// Undoes [`Layout::allow_gaps`] before a gap exists.
    pub(super) fn disallow_gaps(&mut self) {
        self.ranges = None;
    }

    /// Moves the position to the first byte.
    pub(super) fn rewind(&mut self) {
        self.position = 0;
    }

    /// Moves the position behind the contiguous bytes.
    pub(super) fn seek_to_end(&mut self) {
        self.position = self.prefix_len;
    }

    /// Records bytes that were written at the position, and moves it.
    pub(super) fn record_next(&mut self, count: u64) {
        let start = self.position;
        self.position += count;
        self.record(start..self.position);
    }

    /// Records written bytes.
    pub(super) fn record(&mut self, written: Range<u64>) {
        self.prefix_len = match &mut self.ranges {
            None => self.prefix_len.max(written.end),
            Some(ranges) => {
                ranges.insert(written);
                ranges.prefix_len()
            }
        };
    }

    /// Ends the file at the position, or behind the contiguous bytes of a file with gaps. Returns
    /// whether the file is longer.
    pub(super) fn finish(&mut self) -> bool {
        if let Some(ranges) = &self.ranges {
            self.position = ranges.prefix_len();
        }
        let is_longer = self.prefix_len > self.position;
        self.prefix_len = self.position;
        is_longer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice;

    fn with_gap() -> Layout {
        let mut layout = Layout::new(10, None);
        layout.allow_gaps();
        layout.record(20..30);
        layout
    }

    #[test]
    fn sequential_file_has_no_gaps() {
        let mut layout = Layout::new(10, None);
        layout.record_next(5);
        assert_eq!((layout.position(), layout.prefix_len()), (15, 15));
        assert_eq!(layout.gaps(40), slice::from_ref(&(15..40)));
        assert!(!layout.has_gaps(Some(40)));
        assert_eq!(layout.gap_at_position(Some(40)), u64::MAX);
        assert_eq!(layout.bytes_after_gap(Some(40)), 0);
    }

    #[test]
    fn gap_ends_at_the_next_written_byte() {
        let mut layout = with_gap();
        assert_eq!(layout.gaps(40), [10..20, 30..40]);
        assert_eq!(layout.gap_at_position(Some(40)), 10);
        assert_eq!(layout.bytes_after_gap(Some(40)), 10);
        layout.record_next(10);
        assert_eq!(layout.prefix_len(), 30);
        layout.seek_to_end();
        assert_eq!(layout.gap_at_position(Some(40)), 10);
        assert!(layout.has_gaps(Some(40)) && !layout.has_gaps(Some(30)));
    }

    #[test]
    fn rewound_bytes_stay_until_the_end() {
        let mut layout = with_gap();
        layout.rewind();
        assert!(layout.is_rewound());
        assert_eq!(layout.bytes_after_gap(Some(40)), 0);
        let mut layout = Layout::new(10, None);
        layout.rewind();
        layout.record_next(4);
        assert_eq!(layout.prefix_len(), 10);
        assert!(layout.finish(), "six old bytes are behind the new ones");
        assert_eq!(layout.prefix_len(), 4);
    }

    #[test]
    fn saved_ranges_end_with_the_file() {
        let ranges = RangeSet::from_list(&[(0, 5), (8, 12)]);
        let layout = Layout::new(10, ranges);
        assert_eq!(layout.position(), 5);
        assert_eq!(layout.gaps(12), [5..8, 10..12]);
    }
}
