//! What the program says: results on stdout; the log, progress and the errors on stderr.

pub(crate) mod atomic_file;
pub(crate) mod download;
pub(crate) mod draw_target;
pub(crate) mod echo;
pub(crate) mod log;
mod pace;
pub(crate) mod progress;
pub(crate) mod serve;
pub(crate) mod stderr;
pub(crate) mod stdout;
