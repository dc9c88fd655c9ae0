//! Exit codes and hints of `myapp echo`.

use std::cell::Cell;
use std::io::{self, ErrorKind};

use myapp::echo::{Error, Failures, Target};
use myapp::error_chain::ErrorChain;
use myapp::net::address::{Address, Endpoint};
use myapp::net::connect::ConnectError;
use myapp::net::resolver::ResolveError;

use super::tls;
use crate::commands::tls_hints;
use crate::exit_code::{CommandError, ExitCode};
use crate::output::stderr;

/// Reports the failures of a run as they occur and determines its exit code.
#[derive(Default)]
pub(super) struct ErrorReporter {
    /// Whether failures name the number of their message.
    numbered: bool,
    refused_hint: Option<&'static str>,
    hinted: Cell<bool>,
    code: Cell<ExitCode>,
    failures: Cell<u64>,
}

impl ErrorReporter {
    pub(super) fn new(numbered: bool, refused_hint: Option<&'static str>) -> Self {
        Self {
            numbered,
            refused_hint,
            ..Self::default()
        }
    }

    /// Returns the exit code of the failures so far.
    pub(super) fn code(&self) -> ExitCode {
        self.code.get()
    }

    /// Returns the number of failures so far.
    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Reports the error of a message with this number.
    pub(super) fn report_message(&self, number: u64, error: Error) {
        let mut failure = to_command_error(error, self.refused_hint);
        if self.numbered {
            failure.error = failure.error.context(format!("message {number}"));
        }
        self.report(failure, 1);
    }

    /// Reports the errors of one phase of a load.
    pub(super) fn report_phase(&self, failures: Failures) {
        let failure = to_command_error(failures.first, self.refused_hint);
        self.report(failure, failures.count);
    }

    /// Reports a timeout if datagrams were lost and none was answered. Some loss is no error.
    pub(super) fn report_total_loss(&self, answered: u64, lost: u64, target: &Target) {
        if answered == 0 && lost > 0 {
            let error = Error::ReplyTimeout {
                address: target.address.clone(),
                limit: target.timeout,
                received: 0,
            };
            self.report(to_command_error(error, None), 1);
        }
    }

    /// Reports a failure that occurred `count` times.
    pub(super) fn report(&self, mut failure: CommandError, count: u64) {
        self.failures.set(self.failures.get() + 1);
        self.code
            .set(ExitCode::of_all([self.code.get(), failure.code]));
        // One hint is enough for a thousand refused messages.
        if failure.hint.is_some() && self.hinted.replace(true) {
            failure.hint = None;
        }
        if count > 1 {
            failure = with_count(failure, count);
        }
        stderr::report(&failure);
    }
}

/// Appends the number of occurrences to the error of a failure.
fn with_count(failure: CommandError, count: u64) -> CommandError {
    let text = format!("{} ({count} times)", ErrorChain(failure.error.as_ref()));
    CommandError {
        error: anyhow::Error::msg(text),
        ..failure
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        to_command_error(error, None)
    }
}

/// Returns the hint for a refused connection to the address of `-c`.
pub(super) fn refused_hint(address: Option<&Address>) -> Option<&'static str> {
    match address {
        None => Some("specify the server with -c HOST:PORT; 'myapp serve' starts one here"),
        // `-c 50` is the number of connections in load generators, and of messages in ping.
        Some(Address::Tcp(Endpoint { port: ..1024, .. })) => Some(
            "-c is the address of the server; --connections N are those of a load, -n N messages",
        ),
        Some(_) => None,
    }
}

/// Converts an error; a refused connection has a hint of its own.
pub(super) fn to_command_error(error: Error, refused_hint: Option<&'static str>) -> CommandError {
    let code = match &error {
        Error::ReplyMismatch { .. }
        | Error::StreamCorruption { .. }
        | Error::SpawnThread { .. } => ExitCode::Failure,
        Error::Connect(ConnectError::Resolve(ResolveError::Zone { .. })) => ExitCode::Usage,
        Error::ReplyTooLong { .. } | Error::LineRejected { .. } => ExitCode::TooLarge,
        Error::TlsSetup(_) => ExitCode::LocalFile,
        Error::Tls { .. } => ExitCode::Tls,
        error if error.is_timeout() => ExitCode::Timeout,
        _ => ExitCode::Network,
    };
    let hint = match &error {
        Error::Tls { source, .. } => tls::hint(source),
        Error::TlsSetup(source) => tls_hints::setup_hint(source, "--tls-ca"),
        Error::LineRejected { .. } => {
            Some("send shorter messages, or raise --max-line of the server".into())
        }
        error if error.is_without_port() => Some(
            "all local ports are in use: keep connections open, or use several addresses with --bind"
                .into(),
        ),
        error if error.is_local_address() => {
            Some("use an address of this machine with --bind; 'ip address' lists them".into())
        }
        error if error.is_refused() => refused_hint.map(str::to_owned),
        _ => None,
    };
    CommandError {
        hint,
        ..CommandError::new(code, error)
    }
}

/// Converts an error of standard input.
pub(super) fn stdin_error(error: io::Error) -> CommandError {
    let code = match error.kind() {
        ErrorKind::InvalidData => ExitCode::TooLarge,
        _ => ExitCode::LocalFile,
    };
    let error = anyhow::Error::new(error).context("read standard input");
    CommandError::new(code, error)
}
