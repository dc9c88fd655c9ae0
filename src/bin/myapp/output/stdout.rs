//! Results on stdout, written on the blocking pool, so that a slow reader blocks no other task.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;

use crate::exit_code::{CommandError, ExitCode};

/// Writes all bytes to stdout and flushes it.
pub(crate) async fn print(bytes: Vec<u8>) -> Result<(), CommandError> {
    let write = move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&bytes)?;
        stdout.flush()
    };
    smol::unblock(write).await.map_err(write_error)
}

/// Returns unbuffered stdout, for binary data.
pub(crate) fn unbuffered() -> Result<File, CommandError> {
    let copy = io::stdout().as_fd().try_clone_to_owned();
    copy.map(File::from).map_err(write_error)
}

/// Returns the error of a failed write to stdout.
pub(crate) fn write_error(error: io::Error) -> CommandError {
    let code = match error.kind() {
        ErrorKind::BrokenPipe => ExitCode::BrokenPipe,
        _ => ExitCode::LocalFile,
    };
    CommandError::new(
        code,
        anyhow::Error::new(error).context("write standard output"),
    )
}
