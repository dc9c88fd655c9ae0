//! Values of several option groups of `myapp serve`.

use std::num::{NonZeroU64, NonZeroUsize};

use clap::ValueEnum;
use myapp::units::parse_size;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ModeName {
    Line,
    Chunk,
    Discard,
    Whoami,
}

/// Whether connections of proxies begin with a PROXY protocol header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ProxyHeader {
    // A doc comment would make the help of all options longer.
    Require,
}

/// Parses a size greater than 0 that fits into memory.
pub(super) fn size(text: &str) -> Result<NonZeroUsize, String> {
    wide_size(text)?.try_into().map_err(|_| "too large".into())
}

/// Parses a size greater than 0.
pub(super) fn wide_size(text: &str) -> Result<NonZeroU64, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    NonZeroU64::new(size).ok_or_else(|| "must be greater than 0".into())
}
