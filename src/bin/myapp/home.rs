//! Paths in the home directory that the shell has not expanded.

use std::env;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};

/// Parses a path. A leading `~/` is expanded, because shells leave it as it is in `--dir=~/x`.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().map(|path| expand(&path))
}

/// Expands a leading `~/`.
pub(crate) fn expand(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), env::home_dir()) {
        (Ok(below), Some(home)) => home.join(below),
        _ => path.to_owned(),
    }
}
