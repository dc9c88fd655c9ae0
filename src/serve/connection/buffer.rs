//! Data that a connection keeps between polls.

use crate::serve::framing::Framing;

/// Complete messages whose replies are not written yet, followed by an incomplete message.
#[derive(Debug, Default)]
pub(super) struct PendingBuffer {
    pub(super) bytes: Vec<u8>,
    /// Length of the complete messages at the start of `bytes`.
    pub(super) complete_len: usize,
    /// Bytes of the first reply that are written already.
    pub(super) written: usize,
}

impl PendingBuffer {
    /// Copies what is left of the messages. Returns `None` if nothing is left.
    pub(super) fn new(complete: [&[u8]; 2], partial: &[u8], written: usize) -> Option<Box<Self>> {
        let parts = [complete[0], complete[1], partial];
        if parts.iter().all(|part| part.is_empty()) {
            return None;
        }
        let bytes = parts.concat();
        let complete_len = bytes.len() - partial.len();
        Some(Box::new(Self {
            bytes,
            complete_len,
            written,
        }))
    }

    /// Returns the error reply to a line over the limit, which has no prefix.
    pub(super) fn line_too_long(framing: &Framing, limit: u32) -> Box<Self> {
        let bytes = format!("error: line longer than {limit} bytes\n").into_bytes();
        Box::new(Self {
            complete_len: bytes.len(),
            bytes,
            written: framing.prefix().len(),
        })
    }

    /// Appends to an incomplete line of at most `max_len` bytes.
    pub(super) fn grow(&mut self, input: &[u8], max_len: usize) {
        let length = self.bytes.len() + input.len();
        if self.bytes.capacity() < length {
            let capacity = (self.bytes.len() * 2).min(max_len).max(length);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(input);
    }

    /// Returns the memory of the incomplete line.
    pub(super) fn partial_len(&self) -> usize {
        if self.complete_len == 0 {
            self.bytes.capacity()
        } else {
            self.bytes.len() - self.complete_len
        }
    }
}
