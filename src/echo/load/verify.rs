//! Where replies first left what was sent, and what was done to that byte: it shows in the bytes
//! behind it, which go on as they were, one earlier or one later.

use crate::echo::error::Mismatch;

/// The bytes by which it is told: random ones are as wanted by chance once in 2^128 times.
pub(crate) const ENOUGH: usize = 17;

/// The first difference between what came and what was to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Where it is, among all bytes of its connection.
    pub(crate) offset: u64,
    /// What came from there on, as much of it as is needed.
    found: Vec<u8>,
    /// What was to come from there on; where there is no more, less than [`WANTED`](Self::WANTED).
    wanted: Vec<u8>,
}

impl Difference {
    /// The bytes that are to be known of what was to come.
    pub(crate) const WANTED: usize = ENOUGH + 1;

    /// Of what came and what was to come from the offset on.
    pub(crate) fn new(offset: u64, found: &[u8], wanted: &[u8]) -> Self {
        let wanted = wanted[..wanted.len().min(Self::WANTED)].into();
        let mut difference = Self {
            offset,
            found: Vec::new(),
            wanted,
        };
        difference.add(found);
        difference
    }

    /// Adds what came behind the bytes so far.
    pub(crate) fn add(&mut self, found: &[u8]) {
        let missing = ENOUGH - self.found.len();
        self.found
            .extend_from_slice(&found[..found.len().min(missing)]);
    }

    /// Whether what comes next would tell nothing more.
    pub(crate) fn is_told(&self) -> bool {
        self.found.len() == ENOUGH || self.wanted.is_empty() || self.possible().count() == 0
    }

    /// What was done to the byte, as far as it shows in what has come: if in nothing, it was
    /// changed.
    pub(crate) fn kind(&self) -> Mismatch {
        if self.wanted.is_empty() {
            return Mismatch::Added;
        }
        let fits: Vec<_> = self.possible().collect();
        let whole = fits.iter().find(|(_, length)| *length == self.found.len());
        match (&fits[..], whole) {
            ([(kind, _)], _) => *kind,
            // With so few bytes several are possible; but if no more come, one accounts for all.
            (_, Some((kind, _))) if self.wanted.len() < Self::WANTED => *kind,
            _ => Mismatch::Changed,
        }
    }

    /// What may have been done, each with the bytes that would then come in all.
    fn possible(&self) -> impl Iterator<Item = (Mismatch, usize)> {
        let (found, wanted) = (&self.found[..], &self.wanted[..]);
        let (later_found, later_wanted) = (tail(found), tail(wanted));
        let all = wanted.len();
        [
            (
                Mismatch::Changed,
                all,
                later_wanted.starts_with(later_found),
            ),
            (
                Mismatch::Dropped,
                all.saturating_sub(1),
                later_wanted.starts_with(found),
            ),
            (Mismatch::Added, all + 1, wanted.starts_with(later_found)),
        ]
        .into_iter()
        .filter_map(|(kind, length, fits)| fits.then_some((kind, length)))
    }
}

/// All but the first byte.
fn tail(bytes: &[u8]) -> &[u8] {
    bytes.get(1..).unwrap_or_default()
}

/// Where `found` first differs from `wanted`, which is as long.
pub(crate) fn first_difference(found: &[u8], wanted: &[u8]) -> Option<usize> {
    if found == wanted {
        return None;
    }
    found.iter().zip(wanted).position(|(a, b)| a != b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mismatch::{Added, Changed, Dropped};

    const SENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz\n";

    /// What is told where this comes for [`SENT`], in one piece or byte by byte.
    #[track_caller]
    fn tells(came: &[u8], at: usize, kind: Mismatch) {
        let sent = [SENT, &[0; 100]].concat();
        assert_eq!(first_difference(&came[..=at], &sent[..=at]), Some(at));
        let wanted = SENT.get(at..).unwrap_or_default();
        let whole = Difference::new(at as u64, &came[at..], wanted);
        assert_eq!(whole.kind(), kind, "{came:?}");
        let mut rest = came[at..].iter();
        let mut slow = Difference::new(at as u64, &[], wanted);
        while let Some(byte) = rest.next().filter(|_| !slow.is_told()) {
            slow.add(&[*byte]);
        }
        assert_eq!(slow.kind(), kind, "{came:?}, byte by byte");
    }

    /// What came when this was done to the byte at some place.
    fn done(at: usize, kind: Mismatch) -> Vec<u8> {
        let mut came = SENT.to_vec();
        match kind {
            Changed => came[at] ^= 0x80,
            Dropped => _ = came.remove(at),
            Added => came.insert(at, 0x80),
        }
        came
    }

    #[test]
    fn what_was_done_to_a_byte_is_told_wherever_it_is() {
        for at in 0..SENT.len() {
            tells(&done(at, Changed), at, Changed);
            tells(&done(at, Added), at, Added);
        }
        // Of the last byte it cannot be known that it does not come.
        (0..SENT.len() - 1).for_each(|at| tells(&done(at, Dropped), at, Dropped));
        tells(&[SENT, b"x"].concat(), SENT.len(), Added);
        tells(&[SENT, b"and more"].concat(), SENT.len(), Added);
    }

    #[test]
    fn what_cannot_be_told_was_changed() {
        tells(&[0; 37], 0, Changed);
        tells(&[&SENT[..10], &[0; 5], &SENT[15..]].concat(), 10, Changed);
        // A byte, and then nothing for a while: all is possible.
        tells(&[&SENT[..10], b"!"].concat(), 10, Changed);
        tells(
            &[&SENT[..10], b"??????????????????????????"].concat(),
            10,
            Changed,
        );
    }

    #[test]
    fn no_more_is_waited_for_than_is_needed() {
        let wanted = &SENT[..Difference::WANTED];
        assert!(!Difference::new(0, b"!123", wanted).is_told());
        assert!(Difference::new(0, b"!123456789abcdefg", wanted).is_told());
        assert!(Difference::new(0, b"!x?", wanted).is_told());
        assert!(Difference::new(0, b"!", b"").is_told());
    }
}
