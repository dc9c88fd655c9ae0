//! Why a server does not start.

use std::io;

use crate::net::address::Address;
use crate::net::listener::ListenError;
use crate::net::tls::TlsSetupError;

/// Why a server does not start. Once it runs, nothing ends it but its stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// [`Config::metrics`](crate::serve::Config::metrics) cannot be listened on.
    #[error("answer for figures")]
    Metrics(#[source] ListenError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// There is nothing to show to those who come that way
    /// ([`Config::tls`](crate::serve::Config::tls)).
    #[error("listen on {address}: a certificate is missing")]
    NoCertificate {
        /// The address.
        address: Address,
    },
    /// A thread to serve on cannot be had.
    #[error("start a thread")]
    Thread(#[source] io::Error),
}
