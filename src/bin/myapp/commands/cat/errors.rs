//! Exit codes of `myapp cat`.

use myapp::cat::Error;

use crate::exit_code::{Code, Failure};

/// Converts an error that ends a run.
pub(super) fn to_failure(error: Error) -> Failure {
    let code = if error.is_broken_pipe() {
        Code::BrokenPipe
    } else {
        Code::Failure
    };
    Failure::new(code, error)
}

/// Replaces the exit code of a failure other than a usage error with 1, the only code for failures
/// of other `cat` programs.
pub(super) fn without_special_code(failure: Failure) -> Failure {
    let code = if failure.code == Code::Usage {
        Code::Usage
    } else {
        Code::Failure
    };
    Failure { code, ..failure }
}

/// Returns the usage error of `-o -`.
pub(super) fn output_is_stdout() -> Failure {
    Failure::usage("-o does not accept -: without -o, the output is stdout")
        .hint("write to a file of this name with -o ./-")
}

/// Returns the usage error of `--follow` with a file to be replaced.
pub(super) fn follow_replaces_file() -> Failure {
    Failure::usage("--follow never ends, so FILE of -o would never be replaced")
        .hint("append to FILE with -a")
}
