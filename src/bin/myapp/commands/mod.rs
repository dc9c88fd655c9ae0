//! A file a command: its options, how they become the tool's configuration, and its run.

pub(crate) mod cat;
pub(crate) mod download;
pub(crate) mod echo;
pub(crate) mod serve;
mod tls_hints;

use std::num::{IntErrorKind, NonZeroUsize, ParseIntError};
use std::str::FromStr;
use std::thread::available_parallelism;

use myapp::internals::start;

use crate::exit_code::{CommandError, ExitCode};

/// Starts the runtime, or fails if it would lack threads or descriptors.
pub(crate) fn start_runtime() -> Result<(), CommandError> {
    start().map_err(|error| CommandError::new(ExitCode::Failure, error))
}

/// A whole number, told what is wrong with it in the words of who typed it.
fn number<N: FromStr<Err = ParseIntError>>(text: &str) -> Result<N, &'static str> {
    text.parse()
        .map_err(|error: ParseIntError| match error.kind() {
            IntErrorKind::Zero => "must be greater than 0",
            IntErrorKind::PosOverflow => "too large",
            _ => "not a whole number",
        })
}

/// Maximum number of threads.
const MAX_THREADS: u16 = 1024;

/// Parses a number of threads.
fn thread_count(text: &str) -> Result<u16, String> {
    let count = number(text)?;
    if count > MAX_THREADS {
        return Err(format!("must be at most {MAX_THREADS}"));
    }
    Ok(count)
}

/// A number of threads; for 0, one a core.
fn threads(count: u16) -> NonZeroUsize {
    let one_a_core = || available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(count.into()).unwrap_or_else(one_a_core)
}
