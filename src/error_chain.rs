//! Display of an error with its causes.

use std::error::Error;
use std::fmt;

/// Displays an error and its sources on one line, without the error numbers that the standard
/// library appends.
///
/// ```
/// use myapp::error_chain::ErrorChain;
/// use myapp::net::resolver::ResolveError;
///
/// let source = std::io::Error::from_raw_os_error(111);
/// let error = ResolveError::Name { host: "example.org".into(), source };
/// assert_eq!(ErrorChain(&error).to_string(), "resolve example.org: Connection refused");
/// ```
#[derive(Clone, Copy)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = without_number(self.0.to_string());
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let more = without_number(error.to_string());
            // A transparent wrapper would repeat its cause.
            if !text.ends_with(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn without_number(mut text: String) -> String {
    if text.ends_with(')')
        && let Some(at) = text.rfind(" (os error ")
    {
        text.truncate(at);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Wrapper {
        text: &'static str,
        source: io::Error,
    }

    #[track_caller]
    fn told(text: &'static str, source: io::Error, line: &str) {
        assert_eq!(ErrorChain(&Wrapper { text, source }).to_string(), line);
    }

    #[test]
    fn causes_are_joined_without_errno_and_repetition() {
        let refused = || io::Error::from_raw_os_error(111);
        told(
            "connect to [::1]:1",
            refused(),
            "connect to [::1]:1: Connection refused",
        );
        told("x: refused", io::Error::other("refused"), "x: refused");
        told(
            "x (os error 5)",
            io::Error::other(refused()),
            "x: Connection refused",
        );
        told(
            "x",
            io::Error::other("(os error 5) y (z)"),
            "x: (os error 5) y (z)",
        );
    }
}
