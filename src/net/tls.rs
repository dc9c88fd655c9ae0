//! TLS for clients: what is trusted, and the handshake.

use std::io;
use std::path::PathBuf;

/// Why there is nothing to trust.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read, or is no PEM.
    #[error("read certificates from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The system has no root certificates where they are looked for.
    #[error("the system has no root certificates")]
    None,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's time is over.
    #[error("the certificate has expired")]
    Expired,
    /// The certificate's time has not begun.
    #[error("the certificate is not valid yet")]
    NotValidYet,
    /// The certificate is for other names.
    #[error("the certificate is not for this name, but for {presented}")]
    WrongName {
        /// The names that it is for, made safe to show.
        presented: String,
    },
    /// No trusted root has issued the certificate.
    #[error("the certificate's issuer is unknown")]
    UnknownIssuer,
    /// Anything else that is wrong with the certificate, or with what the other side said.
    #[error("the handshake failed")]
    Refused {
        /// What is wrong.
        source: io::Error,
    },
    /// The connection broke before the handshake was done.
    #[error("the connection broke during the handshake")]
    Broken {
        /// What the system said.
        source: io::Error,
    },
}
