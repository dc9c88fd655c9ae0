//! Results on stdout, written off the executor: a slow reader must not hold up anything else.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;

use crate::exit_code::{Code, Failure};

/// Writes to stdout, all of it, at once.
pub(crate) async fn print(bytes: Vec<u8>) -> Result<(), Failure> {
    let write = move || {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&bytes)?;
        stdout.flush()
    };
    smol::unblock(write).await.map_err(failed)
}

/// Stdout without a buffer, for bytes that are no lines.
pub(crate) fn unbuffered() -> Result<File, Failure> {
    let copy = io::stdout().as_fd().try_clone_to_owned();
    copy.map(File::from).map_err(failed)
}

/// Why stdout takes nothing more.
pub(crate) fn failed(error: io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::BrokenPipe => Code::BrokenPipe,
        _ => Code::LocalFile,
    };
    Failure::new(
        code,
        anyhow::Error::new(error).context("write standard output"),
    )
}
