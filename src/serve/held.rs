//! What a connection keeps because it could not be finished at once.

use crate::serve::modes::Framing;

/// What could not be finished at once.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Whole messages that wait for their answers to be written, then the begin of another one.
    pub(super) bytes: Vec<u8>,
    pub(super) whole: usize,
    /// Bytes of the first answer that are written already.
    pub(super) written: usize,
}

impl Held {
    /// Keeps what is left, if anything is.
    pub(super) fn new(whole: [&[u8]; 2], begin: &[u8], written: usize) -> Option<Box<Self>> {
        let parts = [whole[0], whole[1], begin];
        if parts.iter().all(|part| part.is_empty()) {
            return None;
        }
        let bytes = parts.concat();
        let whole = bytes.len() - begin.len();
        Some(Box::new(Self {
            bytes,
            whole,
            written,
        }))
    }

    /// What the client is told when a line is too long. No prefix stands before it.
    pub(super) fn refusal(framing: &Framing, limit: u32) -> Box<Self> {
        let bytes = format!("error: line longer than {limit} bytes\n").into_bytes();
        Box::new(Self {
            whole: bytes.len(),
            bytes,
            written: framing.prefix().len(),
        })
    }

    /// Takes more of a line in, of which `longest` bytes will be kept at most.
    pub(super) fn grow(&mut self, fresh: &[u8], longest: usize) {
        let length = self.bytes.len() + fresh.len();
        if self.bytes.capacity() < length {
            let capacity = (self.bytes.len() * 2).min(longest).max(length);
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(fresh);
    }

    /// The memory that an unfinished line takes.
    pub(super) fn partial(&self) -> usize {
        if self.whole == 0 {
            self.bytes.capacity()
        } else {
            self.bytes.len() - self.whole
        }
    }
}
