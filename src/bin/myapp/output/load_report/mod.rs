//! Output of ping and load: text, JSON and HTML.

mod axis;
mod charts;
mod format;
mod hints;
mod histogram;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod live;
pub(crate) mod ping_text;
pub(crate) mod run_info;
mod samples;
mod svg;
pub(crate) mod text;
