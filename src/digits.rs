//! Decimal numbers of protocols.

/// Parses an unsigned number of decimal digits only, as RFC grammars define it. Returns `None` for
/// an empty text, a sign, and a number that does not fit into 64 bits.
pub(crate) fn parse_digits(text: &[u8]) -> Option<u64> {
    // `u64::from_str` accepts a plus sign.
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}
