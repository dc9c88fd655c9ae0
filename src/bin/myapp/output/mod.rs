//! What a person sees beside the results: the log and the errors.

pub(crate) mod log;
pub(crate) mod terminal;
