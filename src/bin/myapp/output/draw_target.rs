//! Stderr as a screen on which bars are drawn.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, TermLike};

/// Drawings a second at most.
const RATE: u8 = 10;

/// Where bars are drawn: on stderr if it is a terminal, else nowhere.
pub(crate) fn screen() -> MultiProgress {
    let terminal = Term::buffered_stderr();
    let dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    MultiProgress::with_draw_target(if terminal.is_term() && !dumb {
        let unpadded = Unpadded {
            terminal,
            held: AtomicUsize::new(0),
        };
        ProgressDrawTarget::term_like_with_hz(Box::new(unpadded), RATE)
    } else {
        ProgressDrawTarget::hidden()
    })
}

/// A terminal that leaves the cursor behind the text of the last line.
///
/// indicatif fills each line with spaces, so that the next one begins below it. Behind the last
/// one the terminal itself may write: a `^C` that does not fit would move everything up by a
/// line, and leave it there when the bars are cleared.
#[derive(Debug)]
struct Unpadded {
    terminal: Term,
    /// Spaces that are written only when something follows them.
    held: AtomicUsize,
}

impl Unpadded {
    fn write_held(&self) -> io::Result<()> {
        self.terminal
            .write_str(&" ".repeat(self.held.swap(0, Relaxed)))
    }
}

impl TermLike for Unpadded {
    fn width(&self) -> u16 {
        self.terminal.width()
    }

    fn height(&self) -> u16 {
        self.terminal.height()
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.terminal.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.terminal.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.terminal.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.terminal.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_held()?;
        self.terminal.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        if text.bytes().all(|byte| byte == b' ') {
            self.held.fetch_add(text.len(), Relaxed);
            return Ok(());
        }
        self.write_held()?;
        self.terminal.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.terminal.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.held.store(0, Relaxed);
        self.terminal.flush()
    }
}
