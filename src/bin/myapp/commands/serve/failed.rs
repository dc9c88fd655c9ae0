//! What is said of a server that cannot start, what may help, and the exit code that it means.

use std::io::ErrorKind;

use myapp::net::address::Address;
use myapp::net::connect::ConnectError;
use myapp::net::listener::ListenError;
use myapp::net::tls::TlsSetupError;
use myapp::serve::Error;

use crate::exit_code::{Code, Failure};

/// Why it could not start.
pub(super) fn not_started(error: Error) -> Failure {
    let hint = hint(&error);
    let code = match &error {
        Error::NoCertificate { .. } => Code::Usage,
        Error::Listen(ListenError::Resolve(ConnectError::Zone { .. }))
        | Error::Metrics(ListenError::Resolve(ConnectError::Zone { .. })) => Code::Usage,
        Error::Listen(ListenError::Bind {
            address: Address::Unix(_),
            ..
        }) => Code::LocalFile,
        Error::Tls(TlsSetupError::Read { .. } | TlsSetupError::Key { .. }) => Code::LocalFile,
        Error::Tls(_) => Code::Tls,
        _ => Code::Network,
    };
    let error = match error {
        Error::Metrics(error) => anyhow::Error::new(error).context("--metrics"),
        error => error.into(),
    };
    let failure = Failure::new(code, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What helps against an address that cannot be had.
fn hint(error: &Error) -> Option<&'static str> {
    let (Error::Listen(error) | Error::Metrics(error)) = error else {
        return None;
    };
    let ListenError::Bind { address, source } = error else {
        return None;
    };
    let is_path = matches!(address, Address::Unix(_));
    match source.kind() {
        ErrorKind::AddrInUse if is_path => {
            Some("another program listens there; choose another path")
        }
        ErrorKind::AlreadyExists => Some("only a stale socket is taken over; choose another path"),
        ErrorKind::PermissionDenied if is_path => {
            Some("a socket is a new file in its folder; choose one where you may make files")
        }
        ErrorKind::NotFound if is_path => Some("the folder has to be there already"),
        _ if is_path => None,
        ErrorKind::AddrInUse => Some("choose another port, or 0 to have a free one chosen"),
        ErrorKind::PermissionDenied => {
            Some("ports below 1024 need privileges (CAP_NET_BIND_SERVICE); choose a higher one")
        }
        ErrorKind::AddrNotAvailable => {
            Some("no interface of this machine has this address; :PORT listens on all of them")
        }
        ErrorKind::InvalidInput => {
            Some("a link-local address needs its interface: [fe80::1%eth0]:PORT")
        }
        _ => None,
    }
}
