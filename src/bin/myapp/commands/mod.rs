//! A file a command: its options, how they become the tool's configuration, and its run.

pub(crate) mod cat;
pub(crate) mod download;
pub(crate) mod echo;
pub(crate) mod serve;

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

/// A number of threads; for 0, one a core.
fn threads(count: u16) -> NonZeroUsize {
    let one_a_core = || available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(count.into()).unwrap_or_else(one_a_core)
}
