//! Exit codes of `myapp cat`.

use myapp::cat::Error;

use crate::exit_code::{CommandError, ExitCode};

/// Converts an error that ends a run.
pub(super) fn to_command_error(error: Error) -> CommandError {
    let code = if error.is_broken_pipe() {
        ExitCode::BrokenPipe
    } else {
        ExitCode::Failure
    };
    CommandError::new(code, error)
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
