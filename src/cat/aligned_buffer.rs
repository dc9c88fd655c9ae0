//! Buffer whose first byte is aligned to a cache line.

/// Length of a cache line, to which buffers are aligned: the kernel copies faster between them and
/// the page cache.
const CACHE_LINE_LEN: usize = 64;

/// Bytes to be written.
#[derive(Debug)]
pub(super) struct AlignedBuffer {
    /// Bytes up to the first aligned one, which are never written, and then the content.
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBuffer {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        let mut bytes = Vec::<u8>::with_capacity(capacity + CACHE_LINE_LEN);
        let start = bytes.as_ptr().align_offset(CACHE_LINE_LEN);
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    /// Returns a vector to which content can be appended.
    pub(super) fn as_mut_vec(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Removes the first `len` bytes of the content.
    pub(super) fn consume(&mut self, len: usize) {
        self.bytes.drain(self.start..self.start + len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_aligned() {
        let mut buffer = AlignedBuffer::with_capacity(1 << 20);
        assert_eq!(buffer.content(), b"");
        for _ in 0..2 {
            buffer.as_mut_vec().extend_from_slice(b"some text");
            assert_eq!(buffer.content(), b"some text");
            assert_eq!(buffer.content().as_ptr().align_offset(CACHE_LINE_LEN), 0);
            buffer.consume(5);
            assert_eq!(buffer.content(), b"text");
            buffer.consume(4);
        }
    }
}
