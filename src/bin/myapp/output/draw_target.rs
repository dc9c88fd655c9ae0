//! Terminal on stderr, on which progress bars are drawn.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use console::Term;
use indicatif::{MultiProgress, ProgressDrawTarget, TermLike};

/// Maximum number of redraws per second.
const MAX_REDRAW_RATE: u8 = 10;

/// Returns the target of progress bars: stderr if it is a terminal, else a hidden target.
pub(crate) fn draw_target() -> MultiProgress {
    let terminal = Term::buffered_stderr();
    let dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    MultiProgress::with_draw_target(if terminal.is_term() && !dumb {
        let unpadded = Unpadded {
            terminal,
            pending_spaces: AtomicUsize::new(0),
        };
        ProgressDrawTarget::term_like_with_hz(Box::new(unpadded), MAX_REDRAW_RATE)
    } else {
        ProgressDrawTarget::hidden()
    })
}

/// Terminal that does not write the trailing spaces of the last line.
///
/// indicatif pads each line with spaces to the width of the terminal. The terminal itself echoes
/// `^C` after the last line: on a padded line it does not fit, scrolls the screen by one line, and
/// leaves a line behind when the bars are cleared.
#[derive(Debug)]
struct Unpadded {
    terminal: Term,
    /// Number of spaces that are written only when other text follows.
    pending_spaces: AtomicUsize,
}

impl Unpadded {
    fn write_pending_spaces(&self) -> io::Result<()> {
        self.terminal
            .write_str(&" ".repeat(self.pending_spaces.swap(0, Relaxed)))
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
        self.write_pending_spaces()?;
        self.terminal.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        if text.bytes().all(|byte| byte == b' ') {
            self.pending_spaces.fetch_add(text.len(), Relaxed);
            return Ok(());
        }
        self.write_pending_spaces()?;
        self.terminal.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.terminal.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.pending_spaces.store(0, Relaxed);
        self.terminal.flush()
    }
}
