//! Properties of a TLS session that a server can report.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConnection;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Serialize;

use super::subject::format_subject;

/// Properties of the session of a client, as in JSON.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SessionInfo {
    /// For example `TLSv1.3`.
    version: Option<String>,
    /// Name in the registry of IANA.
    cipher: Option<String>,
    /// Name that the client requests (SNI, RFC 6066 section 3).
    server_name: Option<String>,
    /// Protocols that the client offers (ALPN, RFC 7301).
    alpn: Option<Vec<String>>,
    /// Subject of the client certificate.
    client_subject: Option<String>,
}

impl SessionInfo {
    /// Describes a session after its handshake.
    pub(super) fn new(session: &ServerConnection, alpn: Option<Vec<String>>) -> Self {
        let version = session
            .protocol_version()
            .and_then(|version| version.as_str());
        let cipher = session.negotiated_cipher_suite();
        let cipher = cipher.and_then(|cipher| cipher.suite().as_str());
        let certificates = session.peer_certificates();
        Self {
            // rustls has its own spelling of both.
            version: version.map(|name| name.replace('_', ".")),
            cipher: cipher.map(|name| name.replace("TLS13_", "TLS_")),
            server_name: session.server_name().map(str::to_owned),
            alpn,
            client_subject: certificates
                .and_then(|all| all.first())
                .and_then(|certificate| format_subject(certificate)),
        }
    }
}

/// Certificate resolver that records the protocols that a client offers. rustls reports only the
/// one that was selected, and the server selects none.
#[derive(Debug)]
pub(super) struct AlpnRecorder {
    resolver: Arc<dyn ResolvesServerCert>,
    offered: Mutex<Option<Vec<String>>>,
}

impl AlpnRecorder {
    pub(super) fn new(resolver: Arc<dyn ResolvesServerCert>) -> Self {
        Self {
            resolver,
            offered: Mutex::default(),
        }
    }

    /// Returns the recorded protocols.
    pub(super) fn take(&self) -> Option<Vec<String>> {
        let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        offered.take()
    }
}

impl ResolvesServerCert for AlpnRecorder {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let protocols = hello.alpn().map(|names| names.map(text).collect());
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = protocols;
        self.resolver.resolve(hello)
    }
}
