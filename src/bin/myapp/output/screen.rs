//! Stderr as a screen on which bars are drawn.

use std::io;

use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, TermLike};

/// Columns left free: a terminal shows `^C` behind the last line, which must not wrap there.
const MARGIN: u16 = 3;

/// Drawings a second at most.
const RATE: u8 = 10;

/// Where bars are drawn: on stderr if it is a terminal, else nowhere.
pub(crate) fn screen() -> MultiProgress {
    let terminal = Term::buffered_stderr();
    let dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    MultiProgress::with_draw_target(if terminal.is_term() && !dumb {
        ProgressDrawTarget::term_like_with_hz(Box::new(Narrowed(terminal)), RATE)
    } else {
        ProgressDrawTarget::hidden()
    })
}

/// A terminal that says it has a few columns less than it has.
#[derive(Debug)]
struct Narrowed(Term);

impl TermLike for Narrowed {
    fn width(&self) -> u16 {
        TermLike::width(&self.0).saturating_sub(MARGIN).max(1)
    }

    fn height(&self) -> u16 {
        TermLike::height(&self.0)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}
