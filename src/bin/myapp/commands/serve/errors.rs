//! Exit codes and hints of errors of the server.

use std::io::ErrorKind;

use myapp::net::address::Address;
use myapp::net::listener::ListenError;
use myapp::net::resolver::ResolveError;
use myapp::net::tls::TlsSetupError;
use myapp::serve::Error;

use crate::exit_code::{CommandError, ExitCode};

/// Converts an error of the start, with its exit code and hint.
pub(super) fn start_error(error: Error) -> CommandError {
    let hint = hint(&error);
    let code = match &error {
        Error::MissingCertificate { .. } | Error::AdminNotPrivate { .. } => ExitCode::Usage,
        Error::Listen(ListenError::Resolve(ResolveError::Zone { .. }))
        | Error::Metrics(ListenError::Resolve(ResolveError::Zone { .. })) => ExitCode::Usage,
        Error::Listen(ListenError::Bind {
            address: Address::Unix(_),
            ..
        })
        | Error::Admin(_) => ExitCode::LocalFile,
        Error::Tls(TlsSetupError::Read { .. } | TlsSetupError::Key { .. }) => ExitCode::LocalFile,
        Error::Tls(_) => ExitCode::Tls,
        _ => ExitCode::Network,
    };
    let error = match error {
        Error::Metrics(error) => anyhow::Error::new(error).context("--metrics"),
        Error::Admin(error) => anyhow::Error::new(error).context("--admin"),
        error @ Error::AdminNotPrivate { .. } => anyhow::Error::new(error).context("--admin"),
        error => error.into(),
    };
    let failure = CommandError::new(code, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Returns a hint for an address that cannot be bound.
fn hint(error: &Error) -> Option<&'static str> {
    if matches!(error, Error::AdminNotPrivate { .. }) {
        return Some("any program could change the faults; choose a path");
    }
    let (Error::Listen(error) | Error::Metrics(error) | Error::Admin(error)) = error else {
        return None;
    };
    let ListenError::Bind { address, source } = error else {
        return None;
    };
    let is_path = matches!(address, Address::Unix(_));
    match source.kind() {
        ErrorKind::AddrInUse if is_path => {
            Some("another program listens on this path; choose another one")
        }
        ErrorKind::AlreadyExists => Some("only stale sockets are replaced; choose another path"),
        ErrorKind::PermissionDenied if is_path => {
            Some("the socket is created as a file; choose a writable directory")
        }
        ErrorKind::NotFound if is_path => Some("create the directory first"),
        _ if is_path => None,
        ErrorKind::AddrInUse => Some("choose another port, or 0 for a free one"),
        ErrorKind::PermissionDenied => {
            Some("ports below 1024 need privileges (CAP_NET_BIND_SERVICE); choose a higher one")
        }
        ErrorKind::AddrNotAvailable => {
            Some("no local interface has this address; :PORT listens on all interfaces")
        }
        ErrorKind::InvalidInput => {
            Some("a link-local address needs its interface: [fe80::1%eth0]:PORT")
        }
        _ => None,
    }
}
