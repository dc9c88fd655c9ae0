//! Which bytes of a file are there.

/// Bytes from the first number up to but not with the second; in order, apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// The first `count` bytes.
    pub(crate) fn first(count: u64) -> Self {
        let mut ranges = Self::default();
        ranges.add(0, count);
        ranges
    }

    /// What a list says; `None` where it is not in order, or does not begin with the first byte.
    /// A range there may be empty.
    pub(crate) fn of(list: &[(u64, u64)]) -> Option<Self> {
        let mut ranges = Self::default();
        let mut last = 0;
        for (start, end) in list.iter().copied() {
            if start < last || end < start {
                return None;
            }
            ranges.add(start, end);
            last = end;
        }
        matches!(list, [(0, _), ..]).then_some(ranges)
    }

    /// The list of a file of `total` bytes that has gaps: it always has several entries, for that
    /// is what it is known by.
    pub(crate) fn to_list(&self, total: u64) -> Vec<(u64, u64)> {
        let first = (0, self.prefix());
        let others = self.0.iter().copied().filter(|(start, _)| *start > 0);
        [first]
            .into_iter()
            .chain(others)
            .chain([(total, total)])
            .collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes are there from the first one on.
    pub(crate) fn prefix(&self) -> u64 {
        match self.0.first() {
            Some((0, end)) => *end,
            _ => 0,
        }
    }

    /// The bytes from `start` up to but not with `end` are there.
    pub(crate) fn add(&mut self, mut start: u64, mut end: u64) {
        if start >= end {
            return;
        }
        self.0.retain(|&(other, its_end)| {
            let touches = other <= end && start <= its_end;
            if touches {
                (start, end) = (start.min(other), end.max(its_end));
            }
            !touches
        });
        let at = self.0.partition_point(|(other, _)| *other < start);
        self.0.insert(at, (start, end));
    }

    /// Nothing is there from `length` on.
    pub(crate) fn cut(&mut self, length: u64) {
        self.0.retain_mut(|(start, end)| {
            *end = (*end).min(length);
            start < end
        });
    }

    /// What is missing of a file of `total` bytes.
    pub(crate) fn gaps(&self, total: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = 0;
        for (start, end) in self.0.iter().copied().chain([(total, total)]) {
            if at < start.min(total) {
                gaps.push((at, start.min(total)));
            }
            at = end;
        }
        gaps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_there_and_the_rest_is_missing() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2000 {
            let (mut ranges, mut bytes) = (Ranges::default(), [false; 40]);
            for _ in 0..random.usize(..8) {
                let start = random.usize(..40);
                let end = random.usize(start..=40);
                ranges.add(start as u64, end as u64);
                bytes[start..end].fill(true);
            }
            if random.bool() {
                let length = random.usize(..=40);
                ranges.cut(length as u64);
                bytes[length..].fill(false);
            }
            let missing = ranges.gaps(40);
            let is_missing =
                |at: usize| missing.iter().any(|(s, e)| (*s..*e).contains(&(at as u64)));
            assert!(
                (0..40).all(|at| is_missing(at) != bytes[at]),
                "seed {seed}: {ranges:?}"
            );
            let prefix = bytes.iter().take_while(|there| **there).count();
            assert_eq!(ranges.prefix(), prefix as u64, "seed {seed}: {ranges:?}");
            assert_eq!(Ranges::of(&ranges.to_list(40)), Some(ranges), "seed {seed}");
        }
    }

    #[test]
    fn a_list_with_gaps_is_known_by_its_entries_and_nonsense_is_none() {
        assert_eq!(Ranges::default().to_list(9), [(0, 0), (9, 9)]);
        assert_eq!(Ranges::first(9).to_list(9), [(0, 9), (9, 9)]);
        for list in [&[][..], &[(1, 2)], &[(0, 5), (4, 6)], &[(0, 2), (5, 4)]] {
            assert_eq!(Ranges::of(list), None, "{list:?}");
        }
    }
}
