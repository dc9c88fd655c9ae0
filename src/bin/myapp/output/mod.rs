//! What the program says: results on stdout; the log, progress and the errors on stderr.

pub(crate) mod download;
pub(crate) mod file;
pub(crate) mod load_report;
pub(crate) mod log;
mod pace;
pub(crate) mod progress;
pub(crate) mod results;
pub(crate) mod screen;
pub(crate) mod serve_events;
pub(crate) mod terminal;
