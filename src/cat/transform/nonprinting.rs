//! Escapes of bytes that are not printable ASCII.

use super::buffer::FixedBuffer;

/// Writes `text` with control characters as `^X` and bytes from 128 as `M-X`; tabs only if `tabs`.
pub(super) fn write_escaped(mut text: &[u8], tabs: bool, out: &mut FixedBuffer<'_>) {
    loop {
        let len = printable_len(text, tabs);
        out.extend(&text[..len]);
        let Some(&byte) = text.get(len) else { return };
        if byte >= 0x80 {
            out.extend(b"M-");
        }
        match byte & 0x7f {
            // This includes a tab with the high bit set.
            low @ 0..0x20 => out.extend(&[b'^', low + b'@']),
            0x7f => out.extend(b"^?"),
            low => out.push(low),
        }
        text = &text[len + 1..];
    }
}

/// Returns the number of bytes at the start of `text` that need no escape.
fn printable_len(text: &[u8], tabs: bool) -> usize {
    let is_printable = |byte: u8| (byte.wrapping_sub(b' ') < 0x5f) | ((byte == b'\t') & !tabs);
    // Without an early exit within a block, the compiler vectorizes the comparison.
    let mut blocks = text.chunks_exact(16);
    let is_all_printable = |block: &[u8]| {
        block
            .iter()
            .fold(true, |all, byte| all & is_printable(*byte))
    };
    let full_blocks = blocks
        .position(|block| !is_all_printable(block))
        .unwrap_or(text.len() / 16);
    let start = full_blocks * 16;
    let rest = &text[start..];
    let rest_len = rest.iter().position(|byte| !is_printable(*byte));
    start + rest_len.unwrap_or(rest.len())
}
