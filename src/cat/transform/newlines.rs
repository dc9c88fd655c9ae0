//! Search for newlines.

/// Number of bytes searched at once, one for each bit of a mask.
pub(super) const BLOCK_LEN: usize = 64;

/// Returns a mask for each block of `chunk`, in which the lowest bit stands for the first byte and
/// newlines are set.
#[inline(always)]
pub(super) fn newline_masks(chunk: &[u8]) -> impl Iterator<Item = u64> {
    let (blocks, rest) = chunk.as_chunks::<BLOCK_LEN>();
    let last = newline_mask(&pad_block(rest));
    blocks.iter().map(newline_mask).chain([last])
}

/// Returns the mask of a block. It has no branches: with lines of ordinary length, those of a
/// search from newline to newline are mispredicted too often.
fn newline_mask(block: &[u8; BLOCK_LEN]) -> u64 {
    const LOW_BITS: u64 = u64::from_ne_bytes([0x7f; 8]);
    const NEWLINES: u64 = u64::from_ne_bytes([b'\n'; 8]);
    let (words, _) = block.as_chunks::<8>();
    words.iter().rev().fold(0, |mask, word| {
        let difference = u64::from_le_bytes(*word) ^ NEWLINES;
        // Only a byte that is zero has neither its highest bit set nor a carry into it.
        let equal = !((((difference & LOW_BITS) + LOW_BITS) | difference) | LOW_BITS) >> 7;
        // The product moves the eight bits into the highest byte.
        (mask << 8) | (equal.wrapping_mul(0x0102_0408_1020_4080) >> 56)
    })
}

/// Pads the rest of a chunk with bytes other than newlines.
fn pad_block(rest: &[u8]) -> [u8; BLOCK_LEN] {
    let mut block = [0; BLOCK_LEN];
    block[..rest.len()].copy_from_slice(rest);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newlines_are_found_at_every_position() {
        for at in 0..BLOCK_LEN {
            // A byte that differs in one bit is not found, even next to a newline.
            let mut block = [b'\x0b'; BLOCK_LEN];
            block[at] = b'\n';
            assert_eq!(newline_mask(&block), 1 << at, "at {at}");
        }
    }

    #[test]
    fn no_other_byte_is_a_newline() {
        for byte in 0..=u8::MAX {
            let expected = if byte == b'\n' { u64::MAX } else { 0 };
            assert_eq!(newline_mask(&[byte; BLOCK_LEN]), expected, "{byte}");
        }
    }
}
