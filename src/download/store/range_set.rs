//! Set of byte ranges.

use std::ops::Range;

/// Set of the bytes of a file that are present: non-empty ranges in ascending order that neither
/// overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// Creates a set of the first `len` bytes.
    pub(crate) fn prefix(len: u64) -> Self {
        let mut set = Self::default();
        set.insert(0..len);
        set
    }

    /// Creates a set from the list of a resume state. Returns `None` if the ranges are not in
    /// order, or if the first one does not start at 0. A range of the list may be empty.
    pub(crate) fn from_list(list: &[(u64, u64)]) -> Option<Self> {
        let mut set = Self::default();
        let mut last = 0;
        for (start, end) in list.iter().copied() {
            if start < last || end < start {
                return None;
            }
            set.insert(start..end);
            last = end;
        }
        matches!(list, [(0, _), ..]).then_some(set)
    }

    /// Returns the list of a file of `total` bytes with gaps. It has at least two entries, which
    /// distinguishes it from the list of a file without gaps.
    pub(crate) fn to_list(&self, total: u64) -> Vec<(u64, u64)> {
        let first = (0, self.prefix_len());
        let others = self.0.iter().filter(|range| range.start > 0);
        let others = others.map(|range| (range.start, range.end));
        [first]
            .into_iter()
            .chain(others)
            .chain([(total, total)])
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of contiguous bytes from the first one on.
    pub(crate) fn prefix_len(&self) -> u64 {
        match self.0.first() {
            Some(range) if range.start == 0 => range.end,
            _ => 0,
        }
    }

    /// Adds the bytes of a range.
    pub(crate) fn insert(&mut self, mut new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        self.0.retain(|range| {
            let touches = range.start <= new.end && new.start <= range.end;
            if touches {
                new = new.start.min(range.start)..new.end.max(range.end);
            }
            !touches
        });
        let index = self.0.partition_point(|range| range.start < new.start);
        self.0.insert(index, new);
    }

    /// Removes the bytes from offset `len` on.
    pub(crate) fn truncate(&mut self, len: u64) {
        self.0.retain_mut(|range| {
            range.end = range.end.min(len);
            !range.is_empty()
        });
    }

    /// Returns the ranges that are missing from the first `total` bytes.
    pub(crate) fn gaps(&self, total: u64) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut position = 0;
        for range in self.0.iter().chain([&(total..total)]) {
            let gap = position..range.start.min(total);
            if !gap.is_empty() {
                gaps.push(gap);
            }
            position = range.end;
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_equals_a_bitmap_after_random_operations() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let mut set = RangeSet::default();
            let mut bytes = [false; 40];
            for _ in 0..random.usize(..8) {
                let start = random.usize(..40);
                let end = random.usize(start..=40);
                set.insert(start as u64..end as u64);
                bytes[start..end].fill(true);
            }
            if random.bool() {
                let len = random.usize(..=40);
                set.truncate(len as u64);
                bytes[len..].fill(false);
            }
            let gaps = set.gaps(40);
            let is_missing = |at: usize| gaps.iter().any(|gap| gap.contains(&(at as u64)));
            assert!(
                (0..40).all(|at| is_missing(at) != bytes[at]),
                "seed {seed}: {set:?}"
            );
            let prefix_len = bytes.iter().take_while(|present| **present).count();
            assert_eq!(set.prefix_len(), prefix_len as u64, "seed {seed}: {set:?}");
            assert_eq!(RangeSet::from_list(&set.to_list(40)), Some(set), "{seed}");
        }
    }

    #[test]
    fn list_with_gaps_has_two_entries_or_more() {
        assert_eq!(RangeSet::default().to_list(9), [(0, 0), (9, 9)]);
        assert_eq!(RangeSet::prefix(9).to_list(9), [(0, 9), (9, 9)]);
    }

    #[test]
    fn invalid_lists_are_rejected() {
        for list in [&[][..], &[(1, 2)], &[(0, 5), (4, 6)], &[(0, 2), (5, 4)]] {
            assert_eq!(RangeSet::from_list(list), None, "{list:?}");
        }
    }
}
