//! Classification of the first difference between received and sent bytes.
//!
//! An added or dropped byte shows in the bytes after it, which continue unchanged but shifted by
//! one.

use crate::echo::error::Mismatch;

/// Number of received bytes that decide the classification: random bytes match by chance once in
/// 2^128 cases.
pub(crate) const DECISIVE_LEN: usize = 17;

/// First difference between received and expected bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Divergence {
    /// Offset in all bytes of the connection.
    pub(crate) offset: u64,
    /// Bytes received from the offset on, at most [`DECISIVE_LEN`].
    received: Vec<u8>,
    /// Bytes expected from the offset on; fewer than [`EXPECTED_LEN`](Self::EXPECTED_LEN) at the
    /// end of the stream.
    expected: Vec<u8>,
}

impl Divergence {
    /// Number of expected bytes needed.
    pub(crate) const EXPECTED_LEN: usize = DECISIVE_LEN + 1;

    /// Creates a divergence from the bytes received and expected from the offset on.
    pub(crate) fn new(offset: u64, received: &[u8], expected: &[u8]) -> Self {
        let expected = expected[..expected.len().min(Self::EXPECTED_LEN)].into();
        let mut divergence = Self {
            offset,
            received: Vec::new(),
            expected,
        };
        divergence.add(received);
        divergence
    }

    /// Appends bytes received after the previous ones.
    pub(crate) fn add(&mut self, received: &[u8]) {
        let missing = DECISIVE_LEN - self.received.len();
        self.received
            .extend_from_slice(&received[..received.len().min(missing)]);
    }

    /// Returns whether the received bytes are the error line of `myapp serve` for a message that is
    /// too long. Its first bytes may equal those of the message by chance.
    pub(crate) fn is_line_rejection(&self) -> bool {
        const START: &[u8] = b"error: line longer than ";
        (0..8).any(|skipped| self.received == START[skipped..skipped + DECISIVE_LEN])
    }

    /// Returns whether further bytes cannot change the classification.
    pub(crate) fn is_decided(&self) -> bool {
        self.received.len() == DECISIVE_LEN
            || self.expected.is_empty()
            || self.candidates().count() == 0
    }

    /// Returns the kind of the difference; [`Mismatch::Changed`] if the bytes match no kind.
    pub(crate) fn classify(&self) -> Mismatch {
        if self.expected.is_empty() {
            return Mismatch::Added;
        }
        let fits: Vec<_> = self.candidates().collect();
        let complete = fits.iter().find(|(_, len)| *len == self.received.len());
        match (&fits[..], complete) {
            ([(kind, _)], _) => *kind,
            // A few bytes fit several kinds, but at the end of the stream one explains them all.
            (_, Some((kind, _))) if self.expected.len() < Self::EXPECTED_LEN => *kind,
            _ => Mismatch::Changed,
        }
    }

    /// Returns the kinds that fit, each with the total number of bytes then received.
    fn candidates(&self) -> impl Iterator<Item = (Mismatch, usize)> {
        let received = &self.received[..];
        let expected = &self.expected[..];
        let len = expected.len();
        let changed = tail(expected).starts_with(tail(received));
        let dropped = tail(expected).starts_with(received);
        let added = expected.starts_with(tail(received));
        [
            (Mismatch::Changed, len, changed),
            (Mismatch::Dropped, len.saturating_sub(1), dropped),
            (Mismatch::Added, len + 1, added),
        ]
        .into_iter()
        .filter_map(|(kind, len, fits)| fits.then_some((kind, len)))
    }
}

/// Returns all but the first byte.
fn tail(bytes: &[u8]) -> &[u8] {
    bytes.get(1..).unwrap_or_default()
}

/// Returns the offset at which `received` first differs from `expected`, which has the same length.
pub(crate) fn first_mismatch(received: &[u8], expected: &[u8]) -> Option<usize> {
    if received == expected {
        return None;
    }
    received.iter().zip(expected).position(|(a, b)| a != b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mismatch::{Added, Changed, Dropped};

    const SENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz\n";

    /// Checks the classification of bytes received for [`SENT`], at once and byte by byte.
    #[track_caller]
    fn assert_kind(received: &[u8], offset: usize, kind: Mismatch) {
        let sent = [SENT, &[0; 100]].concat();
        let found = first_mismatch(&received[..=offset], &sent[..=offset]);
        assert_eq!(found, Some(offset));
        let expected = SENT.get(offset..).unwrap_or_default();
        let at_once = Divergence::new(offset as u64, &received[offset..], expected);
        assert_eq!(at_once.classify(), kind, "{received:?}");
        let mut bytewise = Divergence::new(offset as u64, &[], expected);
        for byte in &received[offset..] {
            if bytewise.is_decided() {
                break;
            }
            bytewise.add(&[*byte]);
        }
        assert_eq!(bytewise.classify(), kind, "{received:?}, byte by byte");
    }

    /// Returns [`SENT`] with a mismatch at an offset.
    fn corrupted(offset: usize, kind: Mismatch) -> Vec<u8> {
        let mut received = SENT.to_vec();
        match kind {
            Changed => received[offset] ^= 0x80,
            Dropped => _ = received.remove(offset),
            Added => received.insert(offset, 0x80),
        }
        received
    }

    #[test]
    fn mismatch_is_classified_at_every_offset() {
        for offset in 0..SENT.len() {
            assert_kind(&corrupted(offset, Changed), offset, Changed);
            assert_kind(&corrupted(offset, Added), offset, Added);
        }
        // A missing last byte cannot be distinguished from a late one.
        for offset in 0..SENT.len() - 1 {
            assert_kind(&corrupted(offset, Dropped), offset, Dropped);
        }
        assert_kind(&[SENT, b"x"].concat(), SENT.len(), Added);
        assert_kind(&[SENT, b"and more"].concat(), SENT.len(), Added);
    }

    #[test]
    fn error_line_is_recognized() {
        for skipped in 0..3 {
            let line = &b"error: line longer than 100 bytes\n"[skipped..];
            let expected = &SENT[..Divergence::EXPECTED_LEN];
            assert!(Divergence::new(0, line, expected).is_line_rejection());
        }
        assert!(!Divergence::new(0, b"error: other things", SENT).is_line_rejection());
        assert!(!Divergence::new(0, b"error", SENT).is_line_rejection());
    }

    #[test]
    fn ambiguous_mismatch_counts_as_changed() {
        assert_kind(&[0; 37], 0, Changed);
        assert_kind(&[&SENT[..10], &[0; 5], &SENT[15..]].concat(), 10, Changed);
        // One byte and no more fits every kind.
        assert_kind(&[&SENT[..10], b"!"].concat(), 10, Changed);
        let other = [&SENT[..10], b"??????????????????????????"].concat();
        assert_kind(&other, 10, Changed);
    }

    #[test]
    fn decision_needs_a_bounded_number_of_bytes() {
        let expected = &SENT[..Divergence::EXPECTED_LEN];
        assert!(!Divergence::new(0, b"!123", expected).is_decided());
        assert!(Divergence::new(0, b"!123456789abcdefg", expected).is_decided());
        assert!(Divergence::new(0, b"!x?", expected).is_decided());
        assert!(Divergence::new(0, b"!", b"").is_decided());
    }
}
