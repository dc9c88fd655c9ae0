//! Errors of a server's start.

use std::io;

use crate::net::address::{Address, UnixPath};
use crate::net::listener::ListenError;
use crate::net::tls::TlsSetupError;
use crate::serve::fault::handle::InvalidFault;

/// An error that prevents a server from starting. A running server ends only when it is stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address cannot be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// [`Config::metrics`](crate::serve::Config::metrics) cannot be bound.
    #[error("bind metrics endpoint")]
    Metrics(#[source] ListenError),
    /// [`Config::admin`](crate::serve::Config::admin) cannot be bound.
    #[error("bind admin endpoint")]
    Admin(#[source] ListenError),
    /// [`Config::admin`](crate::serve::Config::admin) is an abstract name, which any user could
    /// connect to.
    #[error("{}: an abstract socket has no permissions", Address::Unix(.path.clone()))]
    AdminNotPrivate {
        /// The abstract name.
        path: UnixPath,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// A TLS address without a certificate ([`Config::tls`](crate::serve::Config::tls)).
    #[error("listen on {address}: missing certificate")]
    MissingCertificate {
        /// The address.
        address: Address,
    },
    /// [`Config::fault_injection`](crate::serve::Config::fault_injection) is invalid.
    #[error("fault injection")]
    Fault(#[from] InvalidFault),
    /// A worker thread cannot be started.
    #[error("start a thread")]
    Thread(#[source] io::Error),
}
