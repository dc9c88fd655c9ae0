//! Buffered reader whose next bytes can be looked at.

use std::io::{self, BufRead, Read};

use crate::decompress::CHUNK_LEN;

/// A [`BufRead`] that can wait for several bytes without consuming them.
#[derive(Debug)]
pub(super) struct PeekReader<R> {
    inner: R,
    /// Allocated by the first read.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl<R: Read> PeekReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            buffer: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    /// Returns the next `len` bytes, or those before the end of the input.
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        while self.end - self.start < len {
            if self.read_more()? == 0 {
                break;
            }
        }
        let available = &self.buffer[self.start..self.end];
        Ok(&available[..len.min(available.len())])
    }

    /// Consumes zero bytes. Returns whether another byte follows them.
    pub(super) fn skip_zeros(&mut self) -> io::Result<bool> {
        loop {
            let bytes = self.fill_buf()?;
            if bytes.is_empty() {
                return Ok(false);
            }
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let has_more = zeros < bytes.len();
            self.consume(zeros);
            if has_more {
                return Ok(true);
            }
        }
    }

    /// Appends bytes to the buffer. Returns their number.
    fn read_more(&mut self) -> io::Result<usize> {
        self.buffer.resize(CHUNK_LEN, 0);
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        loop {
            match self.inner.read(&mut self.buffer[self.end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    let count = result?;
                    self.end += count;
                    return Ok(count);
                }
            }
        }
    }
}

impl<R: Read> BufRead for PeekReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.read_more()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}

impl<R: Read> Read for PeekReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}
