//! Output of ping and load: text, JSON and HTML.

mod axis;
mod charts;
mod format;
pub(crate) mod hdr_log;
mod hints;
mod histogram;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod live;
pub(crate) mod merge_data;
pub(crate) mod ping_text;
pub(crate) mod run_info;
mod samples;
pub(crate) mod summary;
mod svg;
pub(crate) mod text;
