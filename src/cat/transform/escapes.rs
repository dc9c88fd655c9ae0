//! Escapes of bytes that are not displayed as they are.

use super::buffer::FixedBuffer;
use crate::cat::config::Display;

/// Number of bytes that are checked at once, without branches.
const BLOCK_LEN: usize = 16;

/// Maximum length of the output for a byte: `M-^X`.
pub(super) const MAX_ESCAPE_LEN: usize = 4;

/// Output for each byte.
#[derive(Debug)]
pub(super) struct Escapes {
    table: [Escape; 256],
    plain: PlainBytes,
}

/// Output for a byte: the first `len` bytes of `text`.
#[derive(Debug, Clone, Copy)]
// Eight bytes, so that the address of an entry needs no multiplication.
#[repr(align(8))]
struct Escape {
    text: [u8; MAX_ESCAPE_LEN],
    len: u8,
}

/// Set of the bytes that are displayed as they are: a range, and two more. Unlike a table, it can
/// be compared with several bytes at once.
#[derive(Debug)]
struct PlainBytes {
    first: u8,
    count: u8,
    others: [u8; 2],
}

impl Escapes {
    pub(super) fn new(display: Display) -> Self {
        Self {
            table: std::array::from_fn(|byte| Escape::new(byte as u8, display)),
            plain: PlainBytes::new(display),
        }
    }

    /// Writes the output for `text`.
    pub(super) fn write(&self, text: &[u8], out: &mut FixedBuffer<'_>) {
        let (blocks, rest) = text.as_chunks::<BLOCK_LEN>();
        out.extend_with(|to| {
            let mut at = 0;
            for block in blocks {
                if self.plain.contains(block) {
                    write_array(*block, &mut to[at..]);
                    at += BLOCK_LEN;
                } else {
                    at = self.write_bytes(block, to, at);
                }
            }
            self.write_bytes(rest, to, at)
        });
    }

    /// Writes the output for `bytes` to `to[at..]`, and returns its end. Each byte is handled in the
    /// same way: in text of two-byte characters, a branch would often be mispredicted.
    fn write_bytes(&self, bytes: &[u8], to: &mut [u8], mut at: usize) -> usize {
        for byte in bytes {
            let escape = &self.table[usize::from(*byte)];
            // The surplus is overwritten by the next write.
            write_array(escape.text, &mut to[at..]);
            at += usize::from(escape.len);
        }
        at
    }
}

/// Writes bytes to the start of `to`, as one store: copying slices may be a call.
#[inline(always)]
fn write_array<const N: usize>(bytes: [u8; N], to: &mut [u8]) {
    to.as_chunks_mut().0[0] = bytes;
}

impl Escape {
    fn new(byte: u8, display: Display) -> Self {
        let mut text = [0; MAX_ESCAPE_LEN];
        let mut out = FixedBuffer::new(&mut text);
        match byte {
            b'\n' if display.ends => out.extend(b"$\n"),
            b'\t' if display.tabs => out.extend(b"^I"),
            b'\n' | b'\t' => out.push(byte),
            _ if display.nonprinting => {
                if byte >= 0x80 {
                    out.extend(b"M-");
                }
                match byte & 0x7f {
                    // This includes tabs and newlines with the high bit set.
                    low @ 0..0x20 => out.extend(&[b'^', low + b'@']),
                    0x7f => out.extend(b"^?"),
                    low => out.push(low),
                }
            }
            _ => out.push(byte),
        }
        let len = out.bytes().len() as u8;
        Self { text, len }
    }
}

impl PlainBytes {
    fn new(display: Display) -> Self {
        if display.nonprinting {
            let tab = if display.tabs { b' ' } else { b'\t' };
            let newline = if display.ends { b' ' } else { b'\n' };
            Self {
                first: b' ',
                count: 0x7f - b' ',
                others: [tab, newline],
            }
        } else {
            // All bytes but tabs.
            Self {
                first: b'\t' + 1,
                count: 255,
                others: [b' '; 2],
            }
        }
    }

    /// Returns whether all bytes of the block are in the set.
    fn contains(&self, block: &[u8; BLOCK_LEN]) -> bool {
        // Without an early exit, the compiler vectorizes the comparison.
        block.iter().fold(true, |all, byte| {
            let in_range = byte.wrapping_sub(self.first) < self.count;
            all & (in_range | (*byte == self.others[0]) | (*byte == self.others[1]))
        })
    }
}
