//! What the display options make of the bytes: pure, from piece to piece.

use memchr::memchr;

use super::config::{Display, Numbers};

/// Shows bytes as [`Display`] asks, byte for byte as GNU `cat` 9 does.
///
/// Lines run on over the border between two pieces, and between two files: their number, whether
/// one is empty, and a carriage return whose newline comes later.
#[derive(Debug)]
pub(super) struct Transform {
    display: Display,
    number: LineNumber,
    at: Position,
    /// A carriage return that ended the last piece: `^M` if a newline follows.
    held_cr: bool,
    /// Where a piece is shown. It has been written to before, so that all of it may be.
    room: Vec<u8>,
}

/// The bytes that are searched for newlines at once.
const BLOCK: usize = 64;

/// The bytes that are shown at once.
const PIECE: usize = 4 << 10;

/// The most that is shown for a byte: for an empty line its number, a tab, `$` and the newline.
const MOST: usize = LineNumber::TAB + 3;

/// What was held back at the end of the last piece: `\r` or `^M`.
const HELD: usize = 2;

/// Lines up to this length are copied as if they were so long.
const LINE: usize = 128;

/// Where in the text the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    InLine,
    /// At the start of a line, after so many empty ones (two stand for all numbers above one).
    LineStart {
        blank: u8,
    },
}

impl Transform {
    pub(super) fn new(display: Display) -> Self {
        let at = Position::LineStart { blank: 0 };
        let room = vec![0; HELD + PIECE * MOST];
        Self {
            display,
            number: LineNumber::new(),
            at,
            held_cr: false,
            room,
        }
    }

    /// Appends to `out` what is shown for `input`.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut room = std::mem::take(&mut self.room);
        for piece in input.chunks(PIECE) {
            let mut shown = Shown {
                room: &mut room,
                count: 0,
            };
            self.show(piece, &mut shown);
            out.extend_from_slice(shown.bytes());
        }
        self.room = room;
    }

    fn show(&mut self, piece: &[u8], out: &mut Shown<'_>) {
        let mut start = 0;
        let (blocks, last) = piece.as_chunks::<BLOCK>();
        let ends = blocks.iter().map(newlines).chain([newlines(&padded(last))]);
        for (mut ends, at) in ends.zip((0..).step_by(BLOCK)) {
            while ends != 0 {
                let end = at + ends.trailing_zeros() as usize;
                self.text(&piece[start..], end - start, true, out);
                self.newline(out);
                (start, ends) = (end + 1, ends & (ends - 1));
            }
        }
        self.text(&piece[start..], piece.len() - start, false, out);
    }

    /// Appends to `out` what was held back for the newline that never came.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held_cr) {
            out.push(b'\r');
        }
    }

    // This and what it calls for each line is inlined, so that the place in the room is kept in a
    // register: a quarter of the time.
    /// Shows the first `count` bytes of `from`, a piece of a line; `whole` when a newline follows.
    #[inline(always)]
    fn text(&mut self, from: &[u8], count: usize, whole: bool, out: &mut Shown<'_>) {
        if count == 0 {
            return;
        }
        if std::mem::take(&mut self.held_cr) {
            out.push(b'\r');
        }
        if self.at != Position::InLine && self.display.numbers != Numbers::None {
            self.number.count_up(out);
        }
        self.at = Position::InLine;
        if self.display.nonprinting {
            show_nonprinting(&from[..count], self.display.tabs, out);
        } else if self.display.ends && from[count - 1] == b'\r' {
            self.plain(from, count - 1, out);
            if whole {
                out.put(b"^M");
            } else {
                self.held_cr = true;
            }
        } else {
            self.plain(from, count, out);
        }
    }

    #[inline(always)]
    fn plain(&self, mut from: &[u8], mut count: usize, out: &mut Shown<'_>) {
        if self.display.tabs {
            while let Some(tab) = memchr(b'\t', &from[..count]) {
                out.put(&from[..tab]);
                out.put(b"^I");
                (from, count) = (&from[tab + 1..], count - tab - 1);
            }
        }
        out.put_first::<LINE>(from, count);
    }

    #[inline(always)]
    fn newline(&mut self, out: &mut Shown<'_>) {
        let blank = match self.at {
            Position::InLine => 0,
            Position::LineStart { blank } => (blank + 1).min(2),
        };
        self.at = Position::LineStart { blank };
        if blank == 2 && self.display.squeeze_blank {
            return;
        }
        if blank > 0 && self.display.numbers == Numbers::All {
            self.number.count_up(out);
        }
        if std::mem::take(&mut self.held_cr) {
            out.put(b"^M");
        }
        if self.display.ends {
            out.push(b'$');
        }
        out.push(b'\n');
    }
}

/// A bit for each byte, the lowest for the first: whether it is a newline. Without a branch: in
/// lines of ordinary length those of a search from line to line are guessed wrong too often.
fn newlines(block: &[u8; BLOCK]) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    const NEWLINES: u64 = u64::from_ne_bytes([b'\n'; 8]);
    let (words, _) = block.as_chunks::<8>();
    words.iter().rev().fold(0, |found, word| {
        let differs = u64::from_le_bytes(*word) ^ NEWLINES;
        // Only a byte that is zero gets no carry into its highest bit from its lower ones.
        let equal = !((((differs & LOW) + LOW) | differs) | LOW) >> 7;
        // The product gathers the eight bits in the highest byte.
        (found << 8) | (equal.wrapping_mul(0x0102_0408_1020_4080) >> 56)
    })
}

/// The end of a piece, filled up with bytes that are no newlines.
fn padded(last: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..last.len()].copy_from_slice(last);
    block
}

/// What is shown of a piece, in room that is always large enough.
struct Shown<'a> {
    room: &'a mut [u8],
    count: usize,
}

impl Shown<'_> {
    fn bytes(&self) -> &[u8] {
        &self.room[..self.count]
    }

    fn push(&mut self, byte: u8) {
        self.room[self.count] = byte;
        self.count += 1;
    }

    fn put(&mut self, bytes: &[u8]) {
        self.room[self.count..][..bytes.len()].copy_from_slice(bytes);
        self.count += bytes.len();
    }

    /// Puts the first `count` bytes of `from`. Up to `N` are copied as `N`, as far as there are so
    /// many; what comes next overwrites the rest. This is faster than to copy a number of bytes
    /// that is not known before.
    #[inline(always)]
    fn put_first<const N: usize>(&mut self, from: &[u8], count: usize) {
        match (
            from.first_chunk::<N>(),
            self.room[self.count..].first_chunk_mut::<N>(),
        ) {
            (Some(from), Some(to)) if count <= N => {
                *to = *from;
                self.count += count;
            }
            _ => self.put(&from[..count]),
        }
    }
}

/// `^X` and `M-X` for what is not printable ASCII.
fn show_nonprinting(mut text: &[u8], tabs: bool, out: &mut Shown<'_>) {
    loop {
        let run = printable(text, tabs);
        out.put(&text[..run]);
        let Some(&byte) = text.get(run) else { return };
        if byte >= 0x80 {
            out.put(b"M-");
        }
        match byte & 0x7f {
            // With the high bit, a tab is no tab.
            low @ 0..0x20 => out.put(&[b'^', low + b'@']),
            0x7f => out.put(b"^?"),
            low => out.push(low),
        }
        text = &text[run + 1..];
    }
}

/// The number of bytes at the start of `text` that are shown as they are.
fn printable(text: &[u8], tabs: bool) -> usize {
    let shown = |byte: u8| (byte.wrapping_sub(b' ') < 0x5f) | ((byte == b'\t') & !tabs);
    // Without an early exit the compiler looks at many bytes at once.
    let mut blocks = text.chunks_exact(16);
    let whole = blocks.position(|block| !block.iter().fold(true, |all, byte| all & shown(*byte)));
    let start = whole.map_or(text.len() / 16 * 16, |blocks| blocks * 16);
    let rest = &text[start..];
    start
        + rest
            .iter()
            .position(|byte| !shown(*byte))
            .unwrap_or(rest.len())
}

/// A line number, kept as the text that is shown: counting up changes one digit most of the time.
#[derive(Debug)]
struct LineNumber {
    text: [u8; LineNumber::TAB + LineNumber::BLOCK],
    /// Where the first digit stands.
    first: usize,
}

impl LineNumber {
    /// Where the tab stands: after the digits of the largest `u64`.
    const TAB: usize = 20;
    /// Numbers with fewer digits are filled up with blanks on the left.
    const DIGITS_SHOWN: usize = 6;
    /// What is copied at once; what stands after the tab is there for that alone.
    const BLOCK: usize = 16;

    fn new() -> Self {
        let mut text = [b' '; Self::TAB + Self::BLOCK];
        text[Self::TAB - 1..=Self::TAB].copy_from_slice(b"0\t");
        Self {
            text,
            first: Self::TAB - 1,
        }
    }

    /// Counts up by one and shows the number.
    #[inline(always)]
    fn count_up(&mut self, out: &mut Shown<'_>) {
        let mut at = Self::TAB - 1;
        while self.text[at] == b'9' {
            self.text[at] = b'0';
            at -= 1;
        }
        self.text[at] = self.text[at].max(b'0') + 1;
        self.first = self.first.min(at);
        let start = self.first.min(Self::TAB - Self::DIGITS_SHOWN);
        out.put_first::<{ Self::BLOCK }>(&self.text[start..], Self::TAB + 1 - start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Display = Display {
        numbers: Numbers::None,
        squeeze_blank: false,
        ends: false,
        tabs: false,
        nonprinting: false,
    };

    /// Whole, and cut at each place, the same comes out.
    #[track_caller]
    fn shows(display: Display, input: &[u8], output: &[u8]) {
        for cut in 0..=input.len() {
            let mut transform = Transform::new(display);
            let mut shown = Vec::new();
            transform.push(&input[..cut], &mut shown);
            transform.push(&input[cut..], &mut shown);
            transform.finish(&mut shown);
            let texts = (
                String::from_utf8_lossy(&shown),
                String::from_utf8_lossy(output),
            );
            assert_eq!(texts.0, texts.1, "cut at {cut}");
        }
    }

    #[test]
    fn nothing_asked_changes_nothing() {
        shows(PLAIN, b"a\r\n\n\n\t\xff\0", b"a\r\n\n\n\t\xff\0");
    }

    #[test]
    fn lines_are_numbered_also_the_last_without_a_newline() {
        let all = Display {
            numbers: Numbers::All,
            ..PLAIN
        };
        shows(all, b"a\n\nb", b"     1\ta\n     2\t\n     3\tb");
        let some = Display {
            numbers: Numbers::NonBlank,
            ..PLAIN
        };
        shows(some, b"\na\n\nb\n", b"\n     1\ta\n\n     2\tb\n");
    }

    #[test]
    fn of_several_empty_lines_the_first_is_shown() {
        let squeezed = Display {
            squeeze_blank: true,
            ..PLAIN
        };
        shows(squeezed, b"\n\n\na\n\n\n\nb\n\n", b"\na\n\nb\n\n");
    }

    #[test]
    fn ends_are_shown_and_a_carriage_return_only_before_a_newline() {
        let ends = Display {
            ends: true,
            ..PLAIN
        };
        shows(ends, b"a\r\n\rb\r\r\n\r", b"a^M$\n\rb\r^M$\n\r");
        shows(ends, b"\r\n", b"^M$\n");
    }

    #[test]
    fn control_and_high_bytes_have_names() {
        let all = Display {
            ends: true,
            tabs: true,
            nonprinting: true,
            ..PLAIN
        };
        shows(
            all,
            b"\0\t\r\x1f\x7f\x80\x89\x8a\x9f\xa0\xfe\xff~\n",
            b"^@^I^M^_^?M-^@M-^IM-^JM-^_M- M-~M-^?~$\n",
        );
        let no_tabs = Display {
            nonprinting: true,
            ..PLAIN
        };
        shows(no_tabs, b"\t\x89", b"\tM-^I");
        let tabs = Display {
            tabs: true,
            ..PLAIN
        };
        shows(tabs, b"\ta\t\x01", b"^Ia^I\x01");
    }

    #[test]
    fn newlines_are_found_at_every_place_and_nothing_else_is_one() {
        for at in 0..BLOCK {
            // What differs in one bit must not be taken for one, even beside one.
            let mut block = [b'\x0b'; BLOCK];
            block[at] = b'\n';
            assert_eq!(newlines(&block), 1 << at, "at {at}");
        }
        for byte in 0..=u8::MAX {
            let found = if byte == b'\n' { u64::MAX } else { 0 };
            assert_eq!(newlines(&[byte; BLOCK]), found, "{byte}");
        }
    }

    #[test]
    fn there_is_room_for_a_piece_of_empty_lines_with_the_longest_numbers() {
        let all = Display {
            numbers: Numbers::All,
            ends: true,
            ..PLAIN
        };
        let mut transform = Transform::new(all);
        transform.number.text[..LineNumber::TAB].fill(b'1');
        transform.number.first = 0;
        let mut shown = Vec::new();
        transform.push(b"\r", &mut shown);
        shown.clear();
        transform.push(&[b'\n'; PIECE], &mut shown);
        assert_eq!(shown.len(), HELD + PIECE * MOST - (LineNumber::TAB + 1));
    }

    #[test]
    fn numbers_grow_past_six_digits() {
        let mut number = LineNumber::new();
        for n in 1..=1_000_001_u32 {
            let mut shown = Shown {
                room: &mut [0; 40],
                count: 0,
            };
            number.count_up(&mut shown);
            let shown = shown.bytes();
            if n % 9_999 == 0 || n > 999_990 {
                assert_eq!(shown, format!("{n:6}\t").as_bytes());
            }
        }
    }
}
