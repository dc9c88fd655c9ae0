//! Line numbers as text.

use super::buffer::FixedBuffer;

/// A line number, stored as its text: incrementing it changes one digit most of the time.
#[derive(Debug)]
pub(super) struct LineNumber {
    text: [u8; LineNumber::TAB_INDEX + LineNumber::COPY_LEN],
    first_digit: usize,
}

impl LineNumber {
    /// Maximum length of the text: the digits of the largest `u64`, and a tab.
    pub(super) const MAX_LEN: usize = Self::TAB_INDEX + 1;
    /// Index of the tab.
    const TAB_INDEX: usize = 20;
    /// Shorter numbers are padded with spaces on the left.
    const MIN_WIDTH: usize = 6;
    /// Number of bytes copied at once. The bytes after the tab exist only for this copy.
    const COPY_LEN: usize = 16;

    pub(super) fn new() -> Self {
        let mut text = [b' '; Self::TAB_INDEX + Self::COPY_LEN];
        text[Self::TAB_INDEX - 1..=Self::TAB_INDEX].copy_from_slice(b"0\t");
        Self {
            text,
            first_digit: Self::TAB_INDEX - 1,
        }
    }

    /// Increments the number and writes it.
    #[inline(always)]
    pub(super) fn write_next(&mut self, out: &mut FixedBuffer<'_>) {
        let mut at = Self::TAB_INDEX - 1;
        while self.text[at] == b'9' {
            self.text[at] = b'0';
            at -= 1;
        }
        self.text[at] = self.text[at].max(b'0') + 1;
        self.first_digit = self.first_digit.min(at);
        let start = self.first_digit.min(Self::TAB_INDEX - Self::MIN_WIDTH);
        out.extend_prefix::<{ Self::COPY_LEN }>(&self.text[start..], Self::MAX_LEN - start);
    }

    /// Returns a number of the maximum length.
    #[cfg(test)]
    pub(super) fn longest() -> Self {
        let mut number = Self::new();
        number.text[..Self::TAB_INDEX].fill(b'1');
        number.first_digit = 0;
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_grow_past_six_digits() {
        let mut number = LineNumber::new();
        for n in 1..=1_000_001_u32 {
            let mut buffer = [0; 40];
            let mut out = FixedBuffer::new(&mut buffer);
            number.write_next(&mut out);
            if n % 9_999 == 0 || n > 999_990 {
                assert_eq!(out.bytes(), format!("{n:6}\t").as_bytes());
            }
        }
    }
}
