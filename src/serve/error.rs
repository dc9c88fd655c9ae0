//! Why a server does not start.

use std::io;

use crate::net::address::Address;
use crate::net::listener::ListenError;

/// Why a server does not start. Once it runs, nothing ends it but its stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There is nothing yet that serves what comes that way.
    #[error("listen on {address}: not supported")]
    Unsupported {
        /// The address.
        address: Address,
    },
    /// A thread to serve on cannot be had.
    #[error("start a thread")]
    Thread(#[source] io::Error),
}
