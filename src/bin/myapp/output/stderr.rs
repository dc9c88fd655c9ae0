//! Errors and hints on stderr, one line each.

use std::error::Error;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::time::Duration;

use myapp::error_chain::ErrorChain;
use myapp::internals::Escaped;
use myapp::net::tls::Fingerprint;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::exit_code::{CommandError, ExitCode};
use crate::output::style::{Role, paint};

/// Prints the error that ended a command. A closed stdout pipe is not reported: its reader closed
/// it intentionally.
pub(crate) fn report(failure: &CommandError) {
    if failure.code == ExitCode::BrokenPipe {
        return;
    }
    write(&error_text(failure.error.as_ref(), failure.hint.as_deref()));
}

/// Formats an error and its hint, one line each.
pub(crate) fn error_text(error: &(dyn Error + 'static), hint: Option<&str>) -> String {
    let mut text = format!("{} {}\n", paint(Role::Error, "myapp:"), ErrorChain(error));
    if let Some(hint) = hint {
        text.push_str(&format!("{} {hint}\n", paint(Role::Hint, "hint:")));
    }
    text
}

/// Returns the hint for a certificate that no certificate authority has issued.
pub(crate) fn pin_hint(found: &Fingerprint) -> String {
    format!("--pinned-sha256 {found} trusts it, if that is your server's")
}

/// Prints a message as the line `myapp: TEXT`.
pub(crate) fn message(text: &str) {
    write(&format!("myapp: {text}\n"));
}

/// Formats a path for a message, with control characters escaped.
pub(crate) fn path(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    Escaped(path.as_os_str().as_bytes()).to_string()
}

/// Returns whether stderr becomes writable within `timeout`.
pub(crate) fn is_writable_within(timeout: Duration) -> bool {
    becomes_writable(&io::stderr(), timeout)
}

/// Returns whether an output becomes writable within `timeout`.
pub(crate) fn becomes_writable(output: &impl AsFd, timeout: Duration) -> bool {
    let timeout = Timespec::try_from(timeout).ok();
    let ready = poll(&mut [PollFd::new(output, PollFlags::OUT)], timeout.as_ref());
    ready.is_ok_and(|count| count > 0)
}

/// Writes complete lines to stderr.
pub(crate) fn write(text: &str) {
    // If stderr is closed, nothing can be reported.
    let _ = io::stderr().write_all(text.as_bytes());
}
