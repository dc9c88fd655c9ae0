//! Exit codes, and the error that ends a command.

use std::process;

/// Exit code. The numbers are part of the interface; docs/exit-codes.md lists them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum ExitCode {
    /// Success, or skipped intentionally.
    #[default]
    Success = 0,
    /// An input failed, a reply differed, or any other error.
    Failure = 1,
    /// Invalid command line.
    Usage = 2,
    /// Local file: missing, not writable, disk full.
    LocalFile = 3,
    /// Network: name resolution, connect, reset, truncated transfer.
    Network = 4,
    /// TLS.
    Tls = 5,
    /// HTTP status 401 or 407.
    Credentials = 6,
    /// Protocol: invalid framing, redirect loop, refused redirect.
    Protocol = 7,
    /// An HTTP response that does not give the file.
    Status = 8,
    /// Checksum mismatch, or missing checksum.
    Checksum = 9,
    /// Timeout, or too slow.
    Timeout = 10,
    /// Size limit exceeded.
    TooLarge = 11,
    /// Terminated by SIGHUP.
    HungUp = 129,
    /// Terminated by SIGINT.
    Interrupted = 130,
    /// Stdout has no reader.
    BrokenPipe = 141,
    /// Terminated by SIGTERM.
    Terminated = 143,
}

impl ExitCode {
    /// Returns the exit code of several results: the lowest specific one (3 and up), so that it does
    /// not depend on timing.
    pub(crate) fn of_all(codes: impl IntoIterator<Item = Self>) -> Self {
        let weight = |code: &Self| match *code as u16 {
            common @ 0..3 => common,
            own => 1000 - own,
        };
        codes
            .into_iter()
            .max_by_key(weight)
            .unwrap_or(Self::Success)
    }
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// Error that ends a command, with its exit code and a hint.
#[derive(Debug)]
pub(crate) struct CommandError {
    pub(crate) code: ExitCode,
    pub(crate) error: anyhow::Error,
    pub(crate) hint: Option<String>,
}

impl CommandError {
    pub(crate) fn new(code: ExitCode, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, anyhow::Error::msg(text.into()))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::ExitCode::{self, Failure, LocalFile, Network, Status, Success, Usage};

    #[test]
    fn code_of_several_failures_is_independent_of_their_order() {
        for (codes, all) in [
            (vec![], Success),
            (vec![Success, Success], Success),
            (vec![Status, Network, Success], Network),
            (vec![Network, Failure, Status], Network),
            (vec![Failure, Success], Failure),
            (vec![LocalFile, Network], LocalFile),
            (vec![Usage, Status, Failure], Status),
        ] {
            assert_eq!(ExitCode::of_all(codes.iter().copied()), all, "{codes:?}");
            assert_eq!(
                ExitCode::of_all(codes.iter().rev().copied()),
                all,
                "{codes:?} reversed"
            );
        }
    }
}
