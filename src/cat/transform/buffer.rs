//! Output buffer of fixed length.

/// Writer into a buffer that is always long enough: writing does not allocate.
pub(super) struct FixedBuffer<'a> {
    buffer: &'a mut [u8],
    len: usize,
}

impl<'a> FixedBuffer<'a> {
    pub(super) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    /// Returns the bytes written so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.buffer[self.len] = byte;
        self.len += 1;
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.buffer[self.len..][..bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends what `write` puts at the start of the free part. It returns the number of bytes.
    #[inline(always)]
    pub(super) fn extend_with(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        self.len += write(&mut self.buffer[self.len..]);
    }

    /// Appends the first `len` bytes of `from`. If possible, `N` bytes are copied for a `len` of
    /// at most `N`, and the surplus is overwritten by the next write: a copy of constant length is
    /// faster than one of variable length.
    #[inline(always)]
    pub(super) fn extend_prefix<const N: usize>(&mut self, from: &[u8], len: usize) {
        match (
            from.first_chunk::<N>(),
            self.buffer[self.len..].first_chunk_mut::<N>(),
        ) {
            (Some(from), Some(to)) if len <= N => {
                *to = *from;
                self.len += len;
            }
            _ => self.extend(&from[..len]),
        }
    }
}
