//! What a person sees beside the results: the log, progress and the errors.

pub(crate) mod log;
pub(crate) mod progress;
pub(crate) mod screen;
pub(crate) mod terminal;
