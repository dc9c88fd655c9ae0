//! Configuration of clients and servers.

use std::path::PathBuf;

use super::fingerprint::Fingerprint;

/// TLS configuration of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Trusted servers. Default: servers with a certificate of a system root.
    pub trust: Trust,
    /// The client certificate, presented on request. Default: none.
    pub identity: Option<Identity>,
}

/// Trusted servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trust {
    /// Servers with a certificate for their name that chains to a system root. The roots are found
    /// like by OpenSSL, including `SSL_CERT_FILE` and `SSL_CERT_DIR`.
    #[default]
    SystemRoots,
    /// Servers with a certificate for their name that chains to a root in this PEM file.
    RootCertificates(PathBuf),
    /// Servers with this certificate. Issuer, names and dates are ignored.
    PinnedSha256(Fingerprint),
    /// All servers: anyone on the path can read and change everything.
    DangerouslyAcceptAny,
}

/// Certificate and private key, in PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate chain.
    pub certificates: PathBuf,
    /// The private key of the certificate, not encrypted.
    pub key: PathBuf,
}

/// TLS configuration of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsServerConfig {
    /// The certificate that is presented.
    pub identity: ServerIdentity,
    /// A PEM file with the roots of client certificates. Default: `None`, client certificates are
    /// not requested.
    pub client_ca: Option<PathBuf>,
}

/// Certificate of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerIdentity {
    /// A certificate from files.
    Files(Identity),
    /// A self-signed certificate that is generated at the start; clients identify it by its
    /// [`Fingerprint`].
    SelfSigned,
}

/// Effect of [`TlsServer::reload`](super::TlsServer::reload).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsReload {
    /// Fingerprint of the certificate that is presented now.
    pub fingerprint: Fingerprint,
    /// Whether the certificate or its chain is another one than before.
    pub certificate_changed: bool,
    /// Whether the roots of client certificates are others than before.
    pub client_ca_changed: bool,
}
