//! Output of the program: results on stdout; the log, progress and errors on stderr.

pub(crate) mod download_events;
pub(crate) mod draw_target;
pub(crate) mod load_report;
pub(crate) mod log;
pub(crate) mod progress;
pub(crate) mod report_file;
pub(crate) mod serve_events;
pub(crate) mod stderr;
pub(crate) mod stdout;
pub(crate) mod style;
