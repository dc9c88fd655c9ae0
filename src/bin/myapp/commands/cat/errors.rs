//! Exit codes of `myapp cat`.

use std::io;
use std::path::Path;

use myapp::cat::{Error, Obstacle, Source};

use crate::exit_code::{CommandError, ExitCode};

/// Converts an error that ends a run.
pub(super) fn to_command_error(error: Error) -> CommandError {
    let code = if error.is_broken_pipe() {
        ExitCode::BrokenPipe
    } else {
        ExitCode::Failure
    };
    let hint = hint(&error);
    let failure = CommandError::new(code, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Returns the hint for an error.
pub(super) fn hint(error: &Error) -> Option<&'static str> {
    match error {
        Error::Incomplete { .. } => Some("--partial writes what could be read"),
        Error::AttributeNotKept { .. } => {
            Some("--partial replaces FILE without it, --in-place writes into FILE")
        }
        Error::NotReplaceable { obstacle, .. } => match obstacle {
            Obstacle::ReadOnly => Some("--force replaces FILE"),
            Obstacle::MountPoint | Obstacle::StickyDirectory | Obstacle::UnwritableDirectory => {
                Some("--in-place writes into FILE")
            }
            _ => None,
        },
        Error::Open {
            input: Source::Path(path),
            source,
        } if source.kind() == io::ErrorKind::NotFound && is_url(path) => {
            Some("download -o - URL writes a URL to stdout")
        }
        Error::Read { source, .. } if source.kind() == io::ErrorKind::OutOfMemory => {
            Some("--memlimit SIZE raises the limit")
        }
        _ => None,
    }
}

fn is_url(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.starts_with(b"http://") || bytes.starts_with(b"https://")
}

/// Replaces the exit code of a failure other than a usage error with 1, the only code for failures
/// of other `cat` programs.
pub(super) fn without_special_code(failure: CommandError) -> CommandError {
    let code = if failure.code == ExitCode::Usage {
        ExitCode::Usage
    } else {
        ExitCode::Failure
    };
    CommandError { code, ..failure }
}

/// Returns the usage error of `-o` with a terminal as the only input.
pub(super) fn no_input() -> CommandError {
    CommandError::usage("no input for FILE of -o: stdin is a terminal")
        .hint("name the inputs, or give - to type the input")
}

/// Returns the usage error of `-o -`.
pub(super) fn output_is_stdout() -> CommandError {
    CommandError::usage("-o does not accept -: without -o, the output is stdout")
        .hint("write to a file of this name with -o ./-")
}

/// Returns the usage error of `--follow` with a file to be replaced.
pub(super) fn follow_replaces_file() -> CommandError {
    CommandError::usage("--follow never ends, so FILE of -o would never be replaced")
        .hint("append to FILE with -a")
}
