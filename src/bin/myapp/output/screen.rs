//! Stderr with lines at its end that are drawn again and again, and what is written above them.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::sync::{Arc, Mutex, PoisonError};

use crate::output::terminal::say;

/// Stderr and the lines drawn at its end. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Screen {
    drawn: Arc<Mutex<String>>,
}

impl Screen {
    /// Whether lines can be drawn: on a terminal that knows how to move its cursor.
    pub(crate) fn can_draw() -> bool {
        io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// Draws `lines` in place of those that were drawn before; an empty text takes them away.
    pub(crate) fn draw(&self, lines: String) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        say(&over(&drawn, &lines));
        *drawn = lines;
    }

    /// Writes whole lines, above those that are drawn.
    pub(crate) fn write(&self, text: &str) {
        let drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        say(&over(&drawn, &format!("{text}{drawn}")));
    }
}

/// What a terminal must be sent to show `text` where `drawn` stands, with the cursor behind its
/// last line. It is one write, and overwrites before it clears, so that nothing flickers.
fn over(drawn: &str, text: &str) -> String {
    if drawn.is_empty() {
        return text.to_owned();
    }
    let mut output = "\r".to_owned();
    let up = drawn.matches('\n').count();
    if up > 0 {
        let _ = write!(output, "\x1b[{up}A");
    }
    output + &text.replace('\n', "\x1b[K\n") + "\x1b[J"
}

impl io::Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Screen::write(self, &String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_nothing_drawn_a_text_is_written_as_it_is() {
        assert_eq!(over("", "a line\n"), "a line\n");
        assert_eq!(over("", ""), "");
    }

    #[test]
    fn what_is_drawn_is_overwritten_from_its_first_line_on() {
        assert_eq!(over("a", "b"), "\rb\x1b[J");
        assert_eq!(over("a\nb\nc", "d\ne"), "\r\x1b[2Ad\x1b[K\ne\x1b[J");
        assert_eq!(over("a\nb", ""), "\r\x1b[1A\x1b[J");
    }
}
