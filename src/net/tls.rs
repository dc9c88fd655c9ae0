//! TLS clients and servers, by rustls. In a build without the feature `tls`, each setup is an error.

#[cfg(feature = "tls")]
mod client;
#[cfg(feature = "tls")]
mod client_stream;
mod config;
#[cfg(not(feature = "tls"))]
mod disabled;
#[cfg(feature = "tls")]
mod error;
#[cfg(feature = "tls")]
mod files;
mod fingerprint;
#[cfg(feature = "tls")]
mod plaintext_alert;
#[cfg(feature = "tls")]
mod server;
#[cfg(feature = "tls")]
mod session;
#[cfg(feature = "tls")]
mod subject;
#[cfg(feature = "tls")]
mod unsupported;
#[cfg(feature = "tls")]
mod verify;

#[cfg(feature = "tls")]
pub(crate) use client::TlsClient;
#[cfg(feature = "tls")]
pub(crate) use client_stream::TlsStream;
pub use config::{Identity, ServerIdentity, TlsConfig, TlsReload, TlsServerConfig, Trust};
#[cfg(not(feature = "tls"))]
pub(crate) use disabled::{
    AcceptError, AcceptedStream, SessionInfo, TlsClient, TlsStream, transport,
};
#[cfg(not(feature = "tls"))]
pub use disabled::{TlsError, TlsServer, TlsSetupError};
#[cfg(feature = "tls")]
pub use error::{TlsError, TlsSetupError};
pub use fingerprint::{Fingerprint, FingerprintError};
#[cfg(feature = "tls")]
pub use server::TlsServer;
#[cfg(feature = "tls")]
pub(crate) use server::{AcceptError, AcceptedStream, transport};
#[cfg(feature = "tls")]
pub(crate) use session::SessionInfo;
#[cfg(feature = "tls")]
pub use unsupported::UnsupportedFormat;
