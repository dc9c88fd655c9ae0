//! How input becomes messages, and messages become answers. Bytes and numbers only.

use std::io::IoSlice;

use memchr::{memchr, memchr_iter, memrchr};

use crate::serve::config::{Config, Mode};

/// Pieces that go into one gathered write; the system takes at most 1024.
const PIECES: usize = 64;

/// What counts as a message, and what stands before its answer.
#[derive(Debug, Clone)]
pub(super) struct Framing {
    mode: Mode,
    prefix: Vec<u8>,
    max_line: usize,
}

/// Where what was read falls apart: `completing` bytes end the message that was begun before,
/// up to `whole` follow more whole messages, and behind them the begin of the next one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) completing: usize,
    pub(super) whole: usize,
    /// The message that begins at `whole` is longer than a line may be.
    pub(super) too_long: bool,
}

impl Framing {
    pub(super) fn new(config: &Config) -> Self {
        let Config { mode, max_line, .. } = *config;
        Self {
            mode,
            prefix: config.prefix.clone(),
            max_line,
        }
    }

    /// Whether messages are answered at all.
    pub(super) fn answers(&self) -> bool {
        self.mode != Mode::Discard
    }

    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Leaves no prefix for answers that have theirs already.
    pub(super) fn take_prefix(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.prefix)
    }

    /// The longest that an unfinished message becomes.
    pub(super) fn max_line(&self) -> usize {
        self.max_line
    }

    /// Cuts what was read after `begun` bytes of an unfinished line.
    pub(super) fn cut(&self, begun: usize, fresh: &[u8]) -> Cut {
        if self.mode != Mode::Line {
            return Cut {
                completing: 0,
                whole: fresh.len(),
                too_long: false,
            };
        }
        if begun + fresh.len() > self.max_line
            && let Some(whole) = self.find_too_long(begun, fresh)
        {
            return Cut {
                completing: end_of_first(begun, &fresh[..whole]),
                whole,
                too_long: true,
            };
        }
        // Mostly a line ends where the input does: to look takes less than to search.
        let whole = match fresh {
            [.., b'\n'] => fresh.len(),
            _ => memrchr(b'\n', fresh).map_or(0, |at| at + 1),
        };
        Cut {
            completing: end_of_first(begun, fresh),
            whole,
            too_long: false,
        }
    }

    /// Where the first line begins that is too long; 0 stands for the one that was begun before.
    fn find_too_long(&self, begun: usize, fresh: &[u8]) -> Option<usize> {
        let mut start = 0;
        let mut before = begun;
        for end in memchr_iter(b'\n', fresh).chain([fresh.len()]) {
            if before + (end - start) > self.max_line {
                return Some(start);
            }
            (start, before) = (end + 1, 0);
        }
        None
    }

    /// The messages in `bytes`, of which each but the last of all is whole.
    pub(super) fn messages<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        split(bytes, self.mode == Mode::Line)
    }

    /// How many [`messages`](Self::messages) there are.
    pub(super) fn count(&self, bytes: &[u8]) -> usize {
        // Mostly there is one: to find its end costs less than to count.
        let end = match self.mode {
            Mode::Line => memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1),
            Mode::Chunk | Mode::Discard => bytes.len(),
        };
        let (first, more) = bytes.split_at(end);
        let begun = !more.is_empty() && !more.ends_with(b"\n");
        usize::from(!first.is_empty()) + memchr_iter(b'\n', more).count() + usize::from(begun)
    }
}

/// Splits `bytes` after each line's end, or not at all.
fn split(mut bytes: &[u8], lines: bool) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let found = if lines { memchr(b'\n', bytes) } else { None };
        let (first, rest) = bytes.split_at(found.map_or(bytes.len(), |at| at + 1));
        bytes = rest;
        (!first.is_empty()).then_some(first)
    })
}

/// The bytes that end the line of which `begun` bytes were there before; 0 without one.
fn end_of_first(begun: usize, fresh: &[u8]) -> usize {
    if begun == 0 {
        0
    } else {
        memchr(b'\n', fresh).map_or(0, |at| at + 1)
    }
}

/// Whole messages whose answers are being written: those that waited, then those of the last
/// read. No message lies across both.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    framing: &'a Framing,
    parts: [&'a [u8]; 2],
    /// With a prefix, bytes of the first message's answer that are written already. Without one
    /// the input is the answer, and what is written is gone from `parts`.
    written: usize,
    /// Bytes that were written in all.
    pub(super) sent: usize,
}

impl<'a> Answers<'a> {
    /// Starts in the answer to the first message, of which `written` bytes are written: with a
    /// prefix, as [`rest`](Self::rest) has told.
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

    /// Hands what is to be written next to `write`, which may take only some of it; returns what
    /// it returned.
    pub(super) fn next<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        match self.parts {
            _ if self.has_prefix() => self.gather(write),
            [[], one] | [one, []] => write(&[IoSlice::new(one)]),
            [held, fresh] => write(&[IoSlice::new(held), IoSlice::new(fresh)]),
        }
    }

    /// Hands over as many answers as one write takes, each with its prefix.
    fn gather<T>(&self, write: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let mut pieces = [IoSlice::new(&[]); PIECES];
        let mut count = 0;
        for bytes in self.pieces().filter(|bytes| !bytes.is_empty()).take(PIECES) {
            pieces[count] = IoSlice::new(bytes);
            count += 1;
        }
        let mut pieces = &mut pieces[..count];
        IoSlice::advance_slices(&mut pieces, self.written);
        write(pieces)
    }

    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
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

    /// Takes note that `count` more bytes are written.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.has_prefix() {
            return self.advance_answers(count);
        }
        let [held, fresh] = &mut self.parts;
        let of_held = count.min(held.len());
        *held = &held[of_held..];
        *fresh = &fresh[count - of_held..];
    }

    fn advance_answers(&mut self, count: usize) {
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

    /// The messages that are not answered in full, and how much of the first answer is written.
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
    fn cuts(begun: usize, fresh: &str, completing: usize, whole: usize, too_long: bool) {
        let cut = framing(Mode::Line, "", 5).cut(begun, fresh.as_bytes());
        assert_eq!(
            cut,
            Cut {
                completing,
                whole,
                too_long
            },
            "{begun} + {fresh:?}"
        );
    }

    #[test]
    fn a_line_is_whole_when_its_end_has_come() {
        cuts(0, "abc", 0, 0, false);
        cuts(0, "a\nb", 0, 2, false);
        cuts(2, "a\nb\nc", 2, 4, false);
        cuts(2, "\n", 1, 1, false);
        cuts(2, "abc", 0, 0, false);
        cuts(0, "\n\n\r\n", 0, 4, false);
    }

    #[test]
    fn a_line_of_the_limit_passes_and_one_byte_more_does_not() {
        cuts(0, "12345\n", 0, 6, false);
        cuts(0, "12345", 0, 0, false);
        cuts(0, "123456", 0, 0, true);
        cuts(0, "123456\n", 0, 0, true);
        cuts(3, "45\n12345\n1", 3, 9, false);
        cuts(3, "456\n1", 0, 0, true);
        cuts(3, "45\n123456\n1\n", 3, 3, true);
        cuts(0, "1\n123456", 0, 2, true);
    }

    #[test]
    fn other_modes_know_no_lines() {
        for mode in [Mode::Chunk, Mode::Discard] {
            let cut = framing(mode, "", 5).cut(0, b"1234567\n8");
            assert_eq!(
                cut,
                Cut {
                    completing: 0,
                    whole: 9,
                    too_long: false
                }
            );
        }
    }

    #[test]
    fn as_many_messages_are_counted_as_there_are() {
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
                let (framing, bytes) = (framing(mode, "", 5), bytes.as_bytes());
                assert_eq!(
                    framing.count(bytes),
                    framing.messages(bytes).count(),
                    "{bytes:?}"
                );
            }
        }
    }

    /// Writes the answers `step` bytes at a time, starting anew from the rest after each.
    #[track_caller]
    fn answers(framing: &Framing, parts: [&str; 2], step: usize) -> String {
        let mut bytes = Vec::new();
        let (mut rest, mut written) = (parts.map(str::as_bytes), 0);
        loop {
            let mut answers = Answers::new(framing, rest, written);
            if answers.is_done() {
                assert_eq!(answers.rest().1, 0, "nothing is left of the last answer");
                return String::from_utf8(bytes).unwrap();
            }
            answers.next(|pieces| {
                let all = pieces.iter().flat_map(|piece| piece.iter().copied());
                bytes.extend(all.take(step));
            });
            answers.advance(bytes.len() - total(framing, parts, &rest, written));
            (rest, written) = answers.rest();
        }
    }

    /// The bytes that had been written when `rest` and `written` were what was left.
    fn total(framing: &Framing, parts: [&str; 2], rest: &[&[u8]; 2], written: usize) -> usize {
        let length = |bytes: &[u8]| {
            let prefixes = framing.messages(bytes).count() * framing.prefix.len();
            bytes.len() + prefixes
        };
        let of = |parts: &[&[u8]; 2]| length(parts[0]) + length(parts[1]);
        of(&parts.map(str::as_bytes)) - of(rest) + written
    }

    #[test]
    fn answers_are_the_same_however_the_writes_come_out() {
        for step in 1..=20 {
            let plain = framing(Mode::Line, "", 100);
            assert_eq!(answers(&plain, ["ab\ncd\n", "ef\n"], step), "ab\ncd\nef\n");
            let prefixed = framing(Mode::Line, "<< ", 100);
            let all = "<< ab\n<< \n<< ef\n<< g";
            assert_eq!(answers(&prefixed, ["ab\n\n", "ef\ng"], step), all);
            assert_eq!(answers(&prefixed, ["", "ab\n\nef\ng"], step), all);
            let chunk = framing(Mode::Chunk, "You said: ", 100);
            assert_eq!(
                answers(&chunk, ["", "ab\ncd\n"], step),
                "You said: ab\ncd\n"
            );
            assert_eq!(
                answers(&framing(Mode::Discard, "x", 1), ["a", "b"], step),
                ""
            );
        }
    }

    #[test]
    fn more_messages_than_one_write_takes_are_all_answered() {
        let many = "x\n".repeat(1000);
        let prefixed = framing(Mode::Line, "> ", 100);
        assert_eq!(
            answers(&prefixed, ["", &many], usize::MAX),
            "> x\n".repeat(1000)
        );
    }
}
