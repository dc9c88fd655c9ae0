//! Errors and hints on stderr, one line each.

use std::env;
use std::error::Error;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use myapp::error_chain::ErrorChain;
use myapp::escape::Escaped;
use myapp::net::tls::Fingerprint;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::exit_code::{Code, Failure};
use crate::suggestions;

/// Says on stderr why a command ended. When nobody reads stdout any more, nothing: who closed
/// the pipe knows.
pub(crate) fn report(failure: &Failure) {
    if failure.code == Code::BrokenPipe {
        return;
    }
    say(&problem(failure.error.as_ref(), failure.hint.as_deref()));
}

/// An error and what may help, a line each.
pub(crate) fn problem(error: &(dyn Error + 'static), hint: Option<&str>) -> String {
    let mut text = format!("myapp: {}\n", ErrorChain(error));
    if let Some(hint) = hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    text
}

/// What may help with a certificate that only its SHA-256 can be trusted for.
pub(crate) fn pin_hint(found: &Fingerprint) -> String {
    format!("--pinned-sha256 {found} trusts it, if that is your server's")
}

/// Says what is wrong with a command line, in the form of all other errors; or prints the help or
/// the version that it asked for.
pub(crate) fn report_usage(error: &clap::Error) -> ExitCode {
    let command = env::args_os().nth(1).unwrap_or_default();
    if let Some((text, hint)) = suggestions::meant(&command.to_string_lossy(), error) {
        report(&Failure::usage(text).hint(hint));
        return Code::Usage.into();
    }
    let text = error.render().to_string();
    match text.strip_prefix("error: ") {
        Some(text) => say(&format!("myapp: {text}")),
        // With stdout gone there is nobody left to tell.
        None => drop(error.print()),
    }
    if error.use_stderr() {
        Code::Usage.into()
    } else {
        Code::Success.into()
    }
}

/// Writes `myapp: TEXT` as one line to stderr.
pub(crate) fn line(text: &str) {
    say(&format!("myapp: {text}\n"));
}

/// A path as it may be shown in a message.
pub(crate) fn path(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    Escaped(path.as_os_str().as_bytes()).to_string()
}

/// Whether stderr takes a line within `patience`.
pub(crate) fn is_read(patience: Duration) -> bool {
    takes(&io::stderr(), patience)
}

/// Whether an output takes bytes within `patience`.
pub(crate) fn takes(output: &impl AsFd, patience: Duration) -> bool {
    let patience = Timespec::try_from(patience).ok();
    let ready = poll(
        &mut [PollFd::new(output, PollFlags::OUT)],
        patience.as_ref(),
    );
    ready.is_ok_and(|count| count > 0)
}

/// Writes whole lines to stderr.
pub(crate) fn say(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}
