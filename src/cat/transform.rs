//! What the display options make of the bytes: pure, from piece to piece.

use memchr::{memchr, memchr_iter};

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
}

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
        Self { display, number: LineNumber::new(), at, held_cr: false }
    }

    /// Appends to `out` what is shown for `input`.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut start = 0;
        for end in memchr_iter(b'\n', input) {
            self.text(&input[start..end], true, out);
            self.newline(out);
            start = end + 1;
        }
        self.text(&input[start..], false, out);
    }

    /// Appends to `out` what was held back for the newline that never came.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held_cr) {
            out.push(b'\r');
        }
    }

    /// Shows a piece of a line; `whole` when a newline follows it.
    fn text(&mut self, text: &[u8], whole: bool, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.held_cr) {
            out.push(b'\r');
        }
        if self.at != Position::InLine && self.display.numbers != Numbers::None {
            out.extend_from_slice(self.number.advance());
        }
        self.at = Position::InLine;
        if self.display.nonprinting {
            return show_nonprinting(text, self.display.tabs, out);
        }
        match text {
            [before @ .., b'\r'] if self.display.ends => {
                self.plain(before, out);
                if whole {
                    out.extend_from_slice(b"^M");
                } else {
                    self.held_cr = true;
                }
            }
            _ => self.plain(text, out),
        }
    }

    fn plain(&self, mut text: &[u8], out: &mut Vec<u8>) {
        if self.display.tabs {
            while let Some(tab) = memchr(b'\t', text) {
                out.extend_from_slice(&text[..tab]);
                out.extend_from_slice(b"^I");
                text = &text[tab + 1..];
            }
        }
        out.extend_from_slice(text);
    }

    fn newline(&mut self, out: &mut Vec<u8>) {
        let blank = match self.at {
            Position::InLine => 0,
            Position::LineStart { blank } => (blank + 1).min(2),
        };
        self.at = Position::LineStart { blank };
        if blank == 2 && self.display.squeeze_blank {
            return;
        }
        if blank > 0 && self.display.numbers == Numbers::All {
            out.extend_from_slice(self.number.advance());
        }
        if std::mem::take(&mut self.held_cr) {
            out.extend_from_slice(b"^M");
        }
        if self.display.ends {
            out.push(b'$');
        }
        out.push(b'\n');
    }
}

/// `^X` and `M-X` for what is not printable ASCII.
fn show_nonprinting(mut text: &[u8], tabs: bool, out: &mut Vec<u8>) {
    loop {
        let run = printable(text, tabs);
        out.extend_from_slice(&text[..run]);
        let Some(&byte) = text.get(run) else { return };
        if byte >= 0x80 {
            out.extend_from_slice(b"M-");
        }
        match byte & 0x7f {
            // With the high bit, a tab is no tab.
            low @ 0..0x20 => out.extend_from_slice(&[b'^', low + b'@']),
            0x7f => out.extend_from_slice(b"^?"),
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
    start + rest.iter().position(|byte| !shown(*byte)).unwrap_or(rest.len())
}

/// A line number, kept as the text that is shown: counting up changes one digit most of the time.
#[derive(Debug)]
struct LineNumber {
    text: [u8; LineNumber::WIDTH],
    /// Where the first digit stands.
    first: usize,
}

impl LineNumber {
    /// The digits of the largest `u64`, and a tab.
    const WIDTH: usize = 21;
    /// Numbers with fewer digits are filled up with blanks on the left.
    const DIGITS_SHOWN: usize = 6;

    fn new() -> Self {
        let mut text = [b' '; Self::WIDTH];
        text[Self::WIDTH - 2..].copy_from_slice(b"0\t");
        Self { text, first: Self::WIDTH - 2 }
    }

    /// Counts up by one and returns what is shown.
    fn advance(&mut self) -> &[u8] {
        let mut at = Self::WIDTH - 2;
        while self.text[at] == b'9' {
            self.text[at] = b'0';
            at -= 1;
        }
        self.text[at] = self.text[at].max(b'0') + 1;
        self.first = self.first.min(at);
        &self.text[self.first.min(Self::WIDTH - 1 - Self::DIGITS_SHOWN)..]
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
            let texts = (String::from_utf8_lossy(&shown), String::from_utf8_lossy(output));
            assert_eq!(texts.0, texts.1, "cut at {cut}");
        }
    }

    #[test]
    fn nothing_asked_changes_nothing() {
        shows(PLAIN, b"a\r\n\n\n\t\xff\0", b"a\r\n\n\n\t\xff\0");
    }

    #[test]
    fn lines_are_numbered_also_the_last_without_a_newline() {
        let all = Display { numbers: Numbers::All, ..PLAIN };
        shows(all, b"a\n\nb", b"     1\ta\n     2\t\n     3\tb");
        let some = Display { numbers: Numbers::NonBlank, ..PLAIN };
        shows(some, b"\na\n\nb\n", b"\n     1\ta\n\n     2\tb\n");
    }

    #[test]
    fn of_several_empty_lines_the_first_is_shown() {
        let squeezed = Display { squeeze_blank: true, ..PLAIN };
        shows(squeezed, b"\n\n\na\n\n\n\nb\n\n", b"\na\n\nb\n\n");
    }

    #[test]
    fn ends_are_shown_and_a_carriage_return_only_before_a_newline() {
        let ends = Display { ends: true, ..PLAIN };
        shows(ends, b"a\r\n\rb\r\r\n\r", b"a^M$\n\rb\r^M$\n\r");
        shows(ends, b"\r\n", b"^M$\n");
    }

    #[test]
    fn control_and_high_bytes_have_names() {
        let all = Display { ends: true, tabs: true, nonprinting: true, ..PLAIN };
        shows(
            all,
            b"\0\t\r\x1f\x7f\x80\x89\x8a\x9f\xa0\xfe\xff~\n",
            b"^@^I^M^_^?M-^@M-^IM-^JM-^_M- M-~M-^?~$\n",
        );
        let no_tabs = Display { nonprinting: true, ..PLAIN };
        shows(no_tabs, b"\t\x89", b"\tM-^I");
        let tabs = Display { tabs: true, ..PLAIN };
        shows(tabs, b"\ta\t\x01", b"^Ia^I\x01");
    }

    #[test]
    fn numbers_grow_past_six_digits() {
        let mut number = LineNumber::new();
        for n in 1..=1_000_001_u32 {
            let shown = number.advance();
            if n % 9_999 == 0 || n > 999_990 {
                assert_eq!(shown, format!("{n:6}\t").as_bytes());
            }
        }
    }
}
