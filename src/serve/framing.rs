//! Splitting of input into messages, and of messages into replies. Pure functions on bytes.

use std::io::IoSlice;

use memchr::{memchr, memchr_iter, memrchr};

use crate::serve::config::{Config, Mode};

/// Slices of one vectored write; the kernel accepts at most 1024.
const MAX_IO_SLICES: usize = 64;

/// Framing of messages and the prefix of replies.
#[derive(Debug, Clone)]
pub(super) struct Framing {
    mode: Mode,
    prefix: Vec<u8>,
    max_line: usize,
}

/// Position of the messages in input: the first `first_len` bytes complete the buffered line, more
/// complete messages follow up to `complete_len`, then an incomplete one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) first_len: usize,
    pub(super) complete_len: usize,
    /// Whether the line that starts at `complete_len` is over the limit.
    pub(super) too_long: bool,
}

impl Framing {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            mode: match config.mode {
                // Only the replies differ.
                Mode::Whoami => Mode::Line,
                mode => mode,
            },
            prefix: config.prefix.clone(),
            max_line: config.max_line,
        }
    }

    /// Returns whether messages get replies.
    pub(super) fn replies(&self) -> bool {
        self.mode != Mode::Discard
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Returns the maximum length of a line.
    pub(super) fn max_line(&self) -> usize {
        self.max_line
    }

    /// Splits input that follows `buffered` bytes of an incomplete line.
    pub(super) fn split(&self, buffered: usize, input: &[u8]) -> Split {
        if self.mode != Mode::Line {
            return Split {
                first_len: 0,
                complete_len: input.len(),
                too_long: false,
            };
        }
        if buffered + input.len() > self.max_line
            && let Some(complete_len) = self.find_too_long(buffered, input)
        {
            return Split {
                first_len: first_line_end(buffered, &input[..complete_len]),
                complete_len,
                too_long: true,
            };
        }
        // Usually the input ends with a line: a comparison is cheaper than a search.
        let complete_len = match input {
            [.., b'\n'] => input.len(),
            _ => memrchr(b'\n', input).map_or(0, |at| at + 1),
        };
        Split {
            first_len: first_line_end(buffered, input),
            complete_len,
            too_long: false,
        }
    }

    /// Returns the start of the first line over the limit; 0 means the buffered line.
    fn find_too_long(&self, buffered: usize, input: &[u8]) -> Option<usize> {
        let mut start = 0;
        let mut before = buffered;
        for end in memchr_iter(b'\n', input).chain([input.len()]) {
            if before + (end - start) > self.max_line {
                return Some(start);
            }
            start = end + 1;
            before = 0;
        }
        None
    }

    /// Iterates over the messages in `bytes`, of which only the last one may be incomplete.
    pub(super) fn messages<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        split_messages(bytes, self.mode == Mode::Line)
    }

    /// Returns the number of [`messages`](Self::messages).
    pub(super) fn count(&self, bytes: &[u8]) -> usize {
        // Usually there is one message: finding its end is cheaper than counting.
        let end = match self.mode {
            Mode::Line => memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1),
            Mode::Chunk | Mode::Discard | Mode::Whoami => bytes.len(),
        };
        let (first, more) = bytes.split_at(end);
        let has_partial = !more.is_empty() && !more.ends_with(b"\n");
        usize::from(!first.is_empty()) + memchr_iter(b'\n', more).count() + usize::from(has_partial)
    }
}

/// Splits `bytes` after each line end, or returns them as one message.
fn split_messages(mut bytes: &[u8], lines: bool) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let found = if lines { memchr(b'\n', bytes) } else { None };
        let (first, rest) = bytes.split_at(found.map_or(bytes.len(), |at| at + 1));
        bytes = rest;
        (!first.is_empty()).then_some(first)
    })
}

/// Returns the length of the input that completes a line of `buffered` bytes; 0 without one.
fn first_line_end(buffered: usize, input: &[u8]) -> usize {
    if buffered == 0 {
        0
    } else {
        memchr(b'\n', input).map_or(0, |at| at + 1)
    }
}

/// Writer of the replies to complete messages: pending ones, then those of the last read. No
/// message spans both parts.
#[derive(Debug)]
pub(super) struct ReplyWriter<'a> {
    framing: &'a Framing,
    parts: [&'a [u8]; 2],
    /// With a prefix, the bytes of the first reply that are written. Without one the input is the
    /// reply, and what is written is removed from `parts`.
    written: usize,
    /// Total number of bytes written.
    pub(super) sent: usize,
}

impl<'a> ReplyWriter<'a> {
    /// Starts with the first message, of whose reply `written` bytes are written, as returned by
    /// [`rest`](Self::rest).
    pub(super) fn new(framing: &'a Framing, parts: [&'a [u8]; 2], written: usize) -> Self {
        let parts = if framing.mode == Mode::Discard {
            [&[] as &[u8]; 2]
        } else {
            parts
        };
        Self {
            framing,
            parts,
            written,
            sent: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.parts.iter().all(|part| part.is_empty())
    }

    /// Calls `write` with the next slices, of which it may write only a part, and returns its
    /// result.
    pub(super) fn next<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        match self.parts {
            _ if self.has_prefix() => self.gather(write),
            [[], one] | [one, []] => write(&[IoSlice::new(one)]),
            [pending, input] => write(&[IoSlice::new(pending), IoSlice::new(input)]),
        }
    }

    /// Passes as many replies as fit into one write, each with its prefix.
    fn gather<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut slices = [IoSlice::new(&[]); MAX_IO_SLICES];
        let mut count = 0;
        let replies = self.reply_slices().filter(|bytes| !bytes.is_empty());
        for bytes in replies.take(MAX_IO_SLICES) {
            slices[count] = IoSlice::new(bytes);
            count += 1;
        }
        let mut slices = &mut slices[..count];
        IoSlice::advance_slices(&mut slices, self.written);
        write(slices)
    }

    fn reply_slices(&self) -> impl Iterator<Item = &[u8]> {
        let prefix = self.framing.prefix.as_slice();
        let messages = self
            .parts
            .into_iter()
            .flat_map(|part| self.framing.messages(part));
        messages.flat_map(move |message| [prefix, message])
    }

    fn has_prefix(&self) -> bool {
        !self.framing.prefix.is_empty()
    }

    /// Records that `count` more bytes are written.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.has_prefix() {
            return self.advance_prefixed(count);
        }
        let [pending, input] = &mut self.parts;
        let from_pending = count.min(pending.len());
        *pending = &pending[from_pending..];
        *input = &input[count - from_pending..];
    }

    fn advance_prefixed(&mut self, count: usize) {
        self.written += count;
        for part in &mut self.parts {
            for message in self.framing.messages(part) {
                let length = self.framing.prefix.len() + message.len();
                if self.written < length {
                    return;
                }
                self.written -= length;
                *part = &part[message.len()..];
            }
        }
    }

    /// Returns the messages without a complete reply, and the bytes of the first reply that are
    /// written.
    pub(super) fn rest(&self) -> ([&'a [u8]; 2], usize) {
        (self.parts, self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(mode: Mode, prefix: &str, max_line: usize) -> Framing {
        Framing {
            mode,
            prefix: prefix.into(),
            max_line,
        }
    }

    #[track_caller]
    fn assert_split(
        buffered: usize,
        input: &str,
        first_len: usize,
        complete_len: usize,
        too_long: bool,
    ) {
        let split = framing(Mode::Line, "", 5).split(buffered, input.as_bytes());
        assert_eq!(
            split,
            Split {
                first_len,
                complete_len,
                too_long
            },
            "{buffered} + {input:?}"
        );
    }

    #[test]
    fn line_is_complete_at_its_newline() {
        assert_split(0, "abc", 0, 0, false);
        assert_split(0, "a\nb", 0, 2, false);
        assert_split(2, "a\nb\nc", 2, 4, false);
        assert_split(2, "\n", 1, 1, false);
        assert_split(2, "abc", 0, 0, false);
        assert_split(0, "\n\n\r\n", 0, 4, false);
    }

    #[test]
    fn line_limit_is_exact() {
        assert_split(0, "12345\n", 0, 6, false);
        assert_split(0, "12345", 0, 0, false);
        assert_split(0, "123456", 0, 0, true);
        assert_split(0, "123456\n", 0, 0, true);
        assert_split(3, "45\n12345\n1", 3, 9, false);
        assert_split(3, "456\n1", 0, 0, true);
        assert_split(3, "45\n123456\n1\n", 3, 3, true);
        assert_split(0, "1\n123456", 0, 2, true);
    }

    #[test]
    fn other_modes_ignore_newlines() {
        for mode in [Mode::Chunk, Mode::Discard] {
            let split = framing(mode, "", 5).split(0, b"1234567\n8");
            assert_eq!(
                split,
                Split {
                    first_len: 0,
                    complete_len: 9,
                    too_long: false
                }
            );
        }
    }

    #[test]
    fn count_equals_the_number_of_messages() {
        for bytes in [
            "",
            "\n",
            "a",
            "a\n",
            "a\nb",
            "a\nb\n",
            "\n\n\nb",
            "a\n\nb\nc\n",
        ] {
            for mode in [Mode::Line, Mode::Chunk, Mode::Discard] {
                let framing = framing(mode, "", 5);
                let bytes = bytes.as_bytes();
                assert_eq!(
                    framing.count(bytes),
                    framing.messages(bytes).count(),
                    "{bytes:?}"
                );
            }
        }
    }

    /// Writes the replies `step` bytes at a time, with a new writer for the rest after each.
    #[track_caller]
    fn write_all(framing: &Framing, parts: [&str; 2], step: usize) -> String {
        let mut bytes = Vec::new();
        let mut rest = parts.map(str::as_bytes);
        let mut written = 0;
        loop {
            let mut replies = ReplyWriter::new(framing, rest, written);
            if replies.is_done() {
                assert_eq!(replies.rest().1, 0, "the last reply is complete");
                return String::from_utf8(bytes).unwrap();
            }
            replies.next(|slices| {
                let all = slices.iter().flat_map(|slice| slice.iter().copied());
                bytes.extend(all.take(step));
            });
            replies.advance(bytes.len() - total(framing, parts, &rest, written));
            (rest, written) = replies.rest();
        }
    }

    /// Returns the number of bytes written when `rest` and `written` remain.
    fn total(framing: &Framing, parts: [&str; 2], rest: &[&[u8]; 2], written: usize) -> usize {
        let length = |bytes: &[u8]| {
            let prefixes = framing.messages(bytes).count() * framing.prefix.len();
            bytes.len() + prefixes
        };
        let of = |parts: &[&[u8]; 2]| length(parts[0]) + length(parts[1]);
        of(&parts.map(str::as_bytes)) - of(rest) + written
    }

    #[test]
    fn replies_do_not_depend_on_write_lengths() {
        for step in 1..=20 {
            let plain = framing(Mode::Line, "", 100);
            assert_eq!(
                write_all(&plain, ["ab\ncd\n", "ef\n"], step),
                "ab\ncd\nef\n"
            );
            let prefixed = framing(Mode::Line, "<< ", 100);
            let all = "<< ab\n<< \n<< ef\n<< g";
            assert_eq!(write_all(&prefixed, ["ab\n\n", "ef\ng"], step), all);
            assert_eq!(write_all(&prefixed, ["", "ab\n\nef\ng"], step), all);
            let chunk = framing(Mode::Chunk, "You said: ", 100);
            assert_eq!(
                write_all(&chunk, ["", "ab\ncd\n"], step),
                "You said: ab\ncd\n"
            );
            assert_eq!(
                write_all(&framing(Mode::Discard, "x", 1), ["a", "b"], step),
                ""
            );
        }
    }

    #[test]
    fn more_messages_than_io_slices_get_replies() {
        let many = "x\n".repeat(1000);
        let prefixed = framing(Mode::Line, "> ", 100);
        assert_eq!(
            write_all(&prefixed, ["", &many], usize::MAX),
            "> x\n".repeat(1000)
        );
    }
}
