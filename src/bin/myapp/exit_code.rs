//! Exit codes, and the error that ends a command.

use std::process::ExitCode;

/// How the program ends. The numbers are part of the interface and stand in the README.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Code {
    /// All done, or skipped on purpose.
    #[default]
    Success = 0,
    /// Some input failed, a reply differed, anything without a number of its own.
    Failure = 1,
    /// The command line cannot be meant.
    Usage = 2,
    /// A local file: missing, not writable, disk full.
    LocalFile = 3,
    /// Name, connect, reset, cut short.
    Network = 4,
    /// TLS.
    Tls = 5,
    /// 401, 407.
    Credentials = 6,
    /// Bad framing, redirect loop, refused redirect.
    Protocol = 7,
    /// HTTP status 400 or above.
    Status = 8,
    /// A checksum that is not the one asked for, or not to be had.
    Checksum = 9,
    /// A timeout, or too slow.
    Timeout = 10,
    /// Over the size limit.
    TooLarge = 11,
    /// Ended by SIGINT.
    Interrupted = 130,
    /// Nobody reads stdout any more.
    BrokenPipe = 141,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Code {
    /// The code of a run in which several things ended, each with its own: the lowest of those
    /// with a meaning of their own (3 and up), so that it does not depend on timing.
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

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// An error that ends a command: its code, what to say, and what may help.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) error: anyhow::Error,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Self {
            code,
            error: error.into(),
            hint: None,
        }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Code::Usage, anyhow::Error::msg(text.into()))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Code::{self, Failure, LocalFile, Network, Status, Success, Usage};

    #[test]
    fn with_several_failures_the_lowest_meaning_wins_in_any_order() {
        for (codes, all) in [
            (vec![], Success),
            (vec![Success, Success], Success),
            (vec![Status, Network, Success], Network),
            (vec![Network, Failure, Status], Network),
            (vec![Failure, Success], Failure),
            (vec![LocalFile, Network], LocalFile),
            (vec![Usage, Status, Failure], Status),
        ] {
            assert_eq!(Code::of_all(codes.iter().copied()), all, "{codes:?}");
            assert_eq!(
                Code::of_all(codes.iter().rev().copied()),
                all,
                "{codes:?} reversed"
            );
        }
    }
}
