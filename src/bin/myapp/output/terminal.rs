//! Errors and hints on stderr, one line each.

use std::env;
use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use myapp::escape::Escaped;
use myapp::net::tls::Fingerprint;

use crate::exit::{Code, Failure};
use crate::habits;

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
    let mut text = format!("myapp: {}\n", describe(error));
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
    if let Some((text, hint)) = habits::meant(&command.to_string_lossy(), error) {
        report(&Failure::usage(text).hint(hint));
        return Code::Usage.into();
    }
    let text = error.render().to_string();
    match text.strip_prefix("error: ") {
        Some(text) => say(&format!("myapp: {text}")),
        // With stdout gone there is nobody left to tell.
        None => drop(error.print()),
    }
    if error.use_stderr() { Code::Usage.into() } else { Code::Success.into() }
}

/// Writes `myapp: TEXT` as one line to stderr.
pub(crate) fn line(text: &str) {
    say(&format!("myapp: {text}\n"));
}

/// An error and its causes in one line: `connect to [::1]:1: Connection refused`.
pub(crate) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut text = without_number(&error.to_string());
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = without_number(&error.to_string());
        // A wrapper that only hands on its cause would say it twice.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The system's own words without the number that the standard library puts behind them.
fn without_number(text: &str) -> String {
    match text.rfind(" (os error ") {
        Some(at) if text.ends_with(')') => text[..at].to_owned(),
        _ => text.to_owned(),
    }
}

/// A path as it may be shown in a message.
pub(crate) fn path(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    Escaped(path.as_os_str().as_bytes()).to_string()
}

/// Writes whole lines to stderr.
pub(crate) fn say(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_in_one_line_without_numbers_and_repetition() {
        let cause = io::Error::from_raw_os_error(111);
        let error = anyhow::Error::new(cause).context("connect to [::1]:1");
        assert_eq!(describe(error.as_ref()), "connect to [::1]:1: Connection refused");
        let twice = anyhow::Error::msg("refused").context("x: refused");
        assert_eq!(describe(twice.as_ref()), "x: refused");
    }
}
