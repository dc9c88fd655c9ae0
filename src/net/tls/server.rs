//! TLS for servers: what they show, whom they let in, and the handshake.

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

/// The names in a certificate that is made for one run.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// A stream inside TLS that a client began.
pub type AcceptedStream<S> = futures_rustls::server::TlsStream<PlaintextAlertWatch<S>>;

/// What a server shows of itself, and whom it lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsServerConfig {
    /// What is shown to clients.
    pub identity: ServerIdentity,
    /// A PEM file with the roots that clients' certificates must lead to. Default: none, and
    /// clients are not asked for one.
    pub client_ca: Option<PathBuf>,
}

/// What a server shows to its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerIdentity {
    /// A certificate out of files.
    Files(Identity),
    /// A certificate that is made as the server starts, which nobody vouches for: clients know it
    /// by its [`Fingerprint`].
    SelfSigned,
}

/// What a server shows, and the sessions that its clients can resume. Clones share them.
#[derive(Debug, Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
}

/// Why a handshake with a client failed.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The other side speaks something else.
    #[error("client does not speak TLS")]
    NotTls,
    /// The client shows no certificate, though one is asked for.
    #[error("the client shows no certificate")]
    NoCertificate,
    /// The client's certificate does not lead to a root that is trusted, or is out of date.
    #[error("the client's certificate is not accepted")]
    BadCertificate {
        /// What is wrong with it.
        source: Error,
    },
    /// The client does not want to go on: mostly, it does not trust our certificate.
    #[error("the client broke the handshake off")]
    Refused {
        /// What it said.
        source: Error,
    },
    /// Anything else that is wrong with what the client says.
    #[error("handshake failed")]
    Failed {
        /// What is wrong.
        source: Error,
    },
    /// The connection failed before the handshake completed.
    #[error("connection failed")]
    Broken {
        /// What the system said.
        source: io::Error,
    },
}

impl TlsServer {
    /// Makes a server. TLS 1.3 and 1.2 are spoken.
    ///
    /// # Errors
    ///
    /// [`TlsSetupError`] where a file cannot be used, or not with another.
    ///
    /// # Cancel safety
    ///
    /// The files are read in the pool for blocking work, which goes on when this is dropped.
    pub async fn load(config: TlsServerConfig) -> Result<Self, TlsSetupError> {
        smol::unblock(move || server_config(&config)).await
    }

    /// That of the certificate that is shown.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Shakes hands with the client at the other end of `stream`.
    ///
    /// # Errors
    ///
    /// [`AcceptError`], which the client has been told of, and the stream.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, the stream is closed.
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
