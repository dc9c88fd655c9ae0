//! TLS of a server: its certificate, its clients, and the handshake.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures_lite::{AsyncRead, AsyncWrite};
use futures_rustls::TlsAcceptor;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{Error, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::config::{Identity, ServerIdentity, TlsReload, TlsServerConfig};
use super::error::TlsSetupError;
use super::files::{Loaded, identity_problem, load_identity, load_roots};
use super::fingerprint::Fingerprint;
use super::plaintext_alert::PlaintextAlertWatch;
use super::session::{AlpnRecorder, SessionInfo};

/// The names in a self-signed certificate.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// TLS stream of a server.
pub(crate) type AcceptedStream<S> = futures_rustls::server::TlsStream<PlaintextAlertWatch<S>>;

/// TLS server: its certificate and resumable sessions, which clones share.
#[derive(Debug, Clone)]
pub struct TlsServer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: TlsServerConfig,
    /// The generated certificate of [`ServerIdentity::SelfSigned`].
    self_signed: Option<Loaded>,
    current: Mutex<Current>,
}

/// Configuration of the next handshakes.
#[derive(Debug, Clone)]
struct Current {
    config: Arc<ServerConfig>,
    fingerprint: Fingerprint,
    certificates: Arc<[CertificateDer<'static>]>,
    /// Roots of client certificates.
    client_roots: Option<Arc<RootCertStore>>,
}

/// Returns the stream below the TLS of a server.
pub(crate) fn transport<S>(stream: &AcceptedStream<S>) -> &S {
    stream.get_ref().0.get_ref()
}

/// Error of a handshake with a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum AcceptError {
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
    pub(crate) async fn load(config: TlsServerConfig) -> Result<Self, TlsSetupError> {
        let load = move || {
            let self_signed = match config.identity {
                ServerIdentity::Files(_) => None,
                ServerIdentity::SelfSigned => Some(make_identity()?),
            };
            let current = load_current(&config, self_signed.as_ref())?;
            Ok(Self(Arc::new(Shared {
                config,
                self_signed,
                current: Mutex::new(current),
            })))
        };
        smol::unblock(load).await
    }

    /// Loads the files again, for later handshakes of all clones; open connections stay as they
    /// are. A self-signed certificate is kept. Returns `None` if there are no files.
    ///
    /// # Errors
    ///
    /// The errors of the first load; nothing has changed then.
    ///
    /// # Cancel safety
    ///
    /// The reload continues on the blocking pool if the future is dropped.
    pub async fn reload(&self) -> Result<Option<TlsReload>, TlsSetupError> {
        let server = self.clone();
        smol::unblock(move || server.reload_blocking()).await
    }

    fn reload_blocking(&self) -> Result<Option<TlsReload>, TlsSetupError> {
        let Self(shared) = self;
        if shared.self_signed.is_some() && shared.config.client_ca.is_none() {
            return Ok(None);
        }
        let before = self.current();
        let new = load_current(&shared.config, shared.self_signed.as_ref())?;
        let roots = |current: &Current| current.client_roots.as_ref().map(|all| all.roots.clone());
        let reload = TlsReload {
            fingerprint: new.fingerprint,
            certificate_changed: new.certificates != before.certificates,
            client_ca_changed: roots(&new) != roots(&before),
        };
        *shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = new;
        Ok(Some(reload))
    }

    fn current(&self) -> Current {
        let current = self.0.current.lock();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the fingerprint of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        self.current().fingerprint
    }

    /// Returns the expiry of the certificate in seconds since the epoch; `None` if it cannot be
    /// parsed.
    pub fn certificate_not_after(&self) -> Option<i64> {
        let certificates = self.current().certificates;
        let (_, parsed) = X509Certificate::from_der(certificates.first()?).ok()?;
        Some(parsed.validity().not_after.timestamp())
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
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<AcceptedStream<S>, (AcceptError, S)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        accept(self.current().config, stream).await
    }

    /// Like [`accept`](Self::accept), but also describes the session.
    pub(crate) async fn accept_described<S>(
        &self,
        stream: S,
    ) -> Result<(AcceptedStream<S>, SessionInfo), (AcceptError, S)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut config = ServerConfig::clone(&self.current().config);
        let recorder = Arc::new(AlpnRecorder::new(config.cert_resolver));
        config.cert_resolver = recorder.clone();
        let stream = accept(Arc::new(config), stream).await?;
        let session = SessionInfo::new(stream.get_ref().1, recorder.take());
        Ok((stream, session))
    }
}

async fn accept<S>(
    config: Arc<ServerConfig>,
    stream: S,
) -> Result<AcceptedStream<S>, (AcceptError, S)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let accepted = TlsAcceptor::from(config)
        .accept(PlaintextAlertWatch::new(stream))
        .into_fallible()
        .await;
    accepted.map_err(|(error, stream)| (AcceptError::from(error), stream.into_inner()))
}

fn load_current(
    config: &TlsServerConfig,
    self_signed: Option<&Loaded>,
) -> Result<Current, TlsSetupError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsSetupError::Versions {
            source: source.into(),
        })?;
    let client_roots = match &config.client_ca {
        None => None,
        Some(path) => Some(Arc::new(load_roots(Some(path))?)),
    };
    let builder = match config.client_ca.as_ref().zip(client_roots.clone()) {
        None => builder.with_no_client_auth(),
        Some((path, roots)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let unusable = |error| TlsSetupError::Read {
                path: path.clone(),
                source: io::Error::new(io::ErrorKind::InvalidData, error),
            };
            builder.with_client_cert_verifier(verifier.map_err(unusable)?)
        }
    };
    let (certificates, key) = match (&config.identity, self_signed) {
        (_, Some((certificates, key))) => (certificates.clone(), key.clone_key()),
        (ServerIdentity::Files(identity), None) => load_identity(identity)?,
        (ServerIdentity::SelfSigned, None) => make_identity()?,
    };
    let presented = certificates.as_slice().into();
    let fingerprint = Fingerprint::of(certificates.first().map_or(&[], |first| first));
    let first = certificates.first().cloned();
    let config = builder
        .with_single_cert(certificates, key)
        .map_err(|source| match &config.identity {
            ServerIdentity::Files(Identity {
                certificates: path, ..
            }) => TlsSetupError::Identity {
                path: path.clone(),
                what: identity_problem(&source, first.as_deref().unwrap_or_default()),
            },
            ServerIdentity::SelfSigned => TlsSetupError::SelfSigned {
                source: source.into(),
            },
        })?;
    Ok(Current {
        config: Arc::new(config),
        fingerprint,
        certificates: presented,
        client_roots,
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
