//! TLS clients and servers on rustls.

mod error;
mod files;
mod fingerprint;
mod plaintext_alert;
mod server;
mod verify;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use futures_lite::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;

use super::address::Host;
use files::load_identity;
use verify::{PinnedOrNone, WebPki};

pub use error::{TlsError, TlsSetupError};
pub use files::Identity;
pub use fingerprint::{Fingerprint, FingerprintError};
pub use server::{AcceptError, AcceptedStream, ServerIdentity, TlsServer, TlsServerConfig};

/// A stream inside TLS.
pub type TlsStream<S> = futures_rustls::client::TlsStream<S>;

/// How a client meets servers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Which servers are trusted. Default: those whose certificates the system's roots vouch for.
    pub trust: Trust,
    /// What is shown to servers that ask who the client is. Default: nothing.
    pub identity: Option<Identity>,
}

/// Which servers are trusted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Trust {
    /// Those with a certificate for their name that leads to one of the system's roots. They are
    /// looked for where OpenSSL does, `SSL_CERT_FILE` and `SSL_CERT_DIR` included.
    #[default]
    SystemRoots,
    /// Those with a certificate for their name that leads to a root in this PEM file.
    RootCertificates(PathBuf),
    /// Those with this certificate. Its issuer, names and dates do not count.
    PinnedSha256(Fingerprint),
    /// All: whoever sits in between can read and change everything.
    DangerouslyAcceptAny,
}

/// What a client trusts, and the sessions that it can resume. Clones share them.
#[derive(Debug, Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Makes a client. TLS 1.3 and 1.2 are spoken, and within them one of `protocols` (RFC 7301),
    /// such as `http/1.1`; without any, whatever both sides mean.
    ///
    /// # Errors
    ///
    /// [`TlsSetupError`] where there is no certificate to trust, or none to show.
    ///
    /// # Cancel safety
    ///
    /// The files are read in the pool for blocking work, which goes on when this is dropped.
    pub async fn load(config: TlsConfig, protocols: &[&str]) -> Result<Self, TlsSetupError> {
        let mut config = smol::unblock(move || client_config(&config)).await?;
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Shakes hands over `stream` with a server that proves to be `host`.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, the stream is closed.
    pub async fn connect<S>(&self, host: &Host, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.config.clone());
        connector
            .connect(server_name(host)?, stream)
            .await
            .map_err(TlsError::from)
    }
}

fn client_config(config: &TlsConfig) -> Result<ClientConfig, TlsSetupError> {
    // By name, because a program around this library may have chosen another one for itself.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsSetupError::Versions { source })?;
    let verifier: Arc<dyn ServerCertVerifier> = match &config.trust {
        Trust::SystemRoots => Arc::new(WebPki::load(None, provider)?),
        Trust::RootCertificates(path) => Arc::new(WebPki::load(Some(path), provider)?),
        Trust::PinnedSha256(pin) => Arc::new(PinnedOrNone::new(Some(*pin), provider)),
        Trust::DangerouslyAcceptAny => Arc::new(PinnedOrNone::new(None, provider)),
    };
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match &config.identity {
        None => Ok(builder.with_no_client_auth()),
        Some(identity) => {
            let (certificates, key) = load_identity(identity)?;
            let path = || identity.certificates.clone();
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(|source| TlsSetupError::Identity {
                    path: path(),
                    source,
                })
        }
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, TlsError> {
    match host {
        Host::Any => Ok(ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST))),
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        // A zone means something on this machine alone.
        Host::Zoned { ip, .. } => Ok(ServerName::from(IpAddr::from(*ip))),
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| TlsError::InvalidServerName)
        }
    }
}
