//! TLS of a server: its certificate, its clients, and the handshake.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_lite::{AsyncRead, AsyncWrite};
use futures_rustls::TlsAcceptor;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{Error, ServerConfig};

use super::error::TlsSetupError;
use super::files::{Identity, Loaded, load_identity, load_roots};
use super::fingerprint::Fingerprint;
use super::plaintext_alert::PlaintextAlertWatch;

/// The names in a self-signed certificate.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// TLS stream of a server.
pub type AcceptedStream<S> = futures_rustls::server::TlsStream<PlaintextAlertWatch<S>>;

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
pub enum ServerIdentity {
    /// A certificate from files.
    Files(Identity),
    /// A self-signed certificate that is generated at the start; clients identify it by its
    /// [`Fingerprint`].
    SelfSigned,
}

/// TLS server: its certificate and resumable sessions, which clones share.
#[derive(Debug, Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
}

/// Error of a handshake with a client.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client does not speak TLS.
    #[error("client does not speak TLS")]
    NotTls,
    /// The client presents no certificate, though one is required.
    #[error("client presented no certificate")]
    NoCertificate,
    /// The certificate of the client is not issued by a trusted root, or not valid now.
    #[error("client certificate rejected")]
    BadCertificate {
        /// The cause.
        source: Error,
    },
    /// The client aborted the handshake, mostly because it does not trust the certificate.
    #[error("client aborted the handshake")]
    Refused {
        /// The alert of the client.
        source: Error,
    },
    /// The handshake failed for another reason.
    #[error("handshake failed")]
    Failed {
        /// The cause.
        source: Error,
    },
    /// The connection failed before the handshake completed.
    #[error("connection failed")]
    Broken {
        /// The cause.
        source: io::Error,
    },
}

impl TlsServer {
    /// Creates a server for TLS 1.3 and 1.2.
    ///
    /// # Errors
    ///
    /// [`TlsSetupError`] if a file cannot be used, or certificate and key do not match.
    ///
    /// # Cancel safety
    ///
    /// The files are read on the blocking pool, which continues if the future is dropped.
    pub async fn load(config: TlsServerConfig) -> Result<Self, TlsSetupError> {
        smol::unblock(move || server_config(&config)).await
    }

    /// Returns the fingerprint of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Performs the handshake with a client.
    ///
    /// # Errors
    ///
    /// [`AcceptError`], which was sent to the client as an alert, and the stream.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is closed.
    pub async fn accept<S>(&self, stream: S) -> Result<AcceptedStream<S>, (AcceptError, S)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = TlsAcceptor::from(self.config.clone());
        let accepted = acceptor
            .accept(PlaintextAlertWatch::new(stream))
            .into_fallible()
            .await;
        accepted.map_err(|(error, stream)| (AcceptError::from(error), stream.into_inner()))
    }
}

fn server_config(config: &TlsServerConfig) -> Result<TlsServer, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsSetupError::Versions { source })?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(load_roots(Some(path))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let unusable = |error| TlsSetupError::Read {
                path: path.clone(),
                source: io::Error::new(io::ErrorKind::InvalidData, error),
            };
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        }
    };
    let (certificates, key) = match &config.identity {
        ServerIdentity::Files(identity) => load_identity(identity)?,
        ServerIdentity::SelfSigned => make_identity()?,
    };
    let fingerprint = Fingerprint::of(certificates.first().map_or(&[], |first| first));
    let config = builder
        .with_single_cert(certificates, key)
        .map_err(|source| match &config.identity {
            ServerIdentity::Files(Identity {
                certificates: path, ..
            }) => TlsSetupError::Identity {
                path: path.clone(),
                source,
            },
            ServerIdentity::SelfSigned => TlsSetupError::SelfSigned {
                source: source.into(),
            },
        })?;
    Ok(TlsServer {
        config: Arc::new(config),
        fingerprint,
    })
}

fn make_identity() -> Result<Loaded, TlsSetupError> {
    let made = generate_simple_self_signed(NAMES.map(String::from));
    let CertifiedKey { cert, signing_key } = made.map_err(|error| TlsSetupError::SelfSigned {
        source: error.into(),
    })?;
    let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
    Ok((vec![cert.into()], key.into()))
}

impl From<io::Error> for AcceptError {
    fn from(error: io::Error) -> Self {
        match error.downcast() {
            Ok(Error::InvalidMessage(_)) => Self::NotTls,
            Ok(Error::NoCertificatesPresented) => Self::NoCertificate,
            Ok(source @ Error::InvalidCertificate(_)) => Self::BadCertificate { source },
            Ok(source @ Error::AlertReceived(_)) => Self::Refused { source },
            Ok(source) => Self::Failed { source },
            Err(source) => Self::Broken { source },
        }
    }
}
