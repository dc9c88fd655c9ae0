//! TLS clients.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures_lite::{AsyncRead, AsyncWrite};
use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;

use super::client_stream::TlsStream;
use super::config::{TlsConfig, Trust};
use super::error::{TlsError, TlsSetupError};
use super::files::{identity_problem, load_identity};
use super::verify::{PinnedOrNone, WebPki};
use crate::net::address::Host;

/// TLS client: trust and resumable sessions, which clones share.
#[derive(Debug, Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Creates a client for TLS 1.3 and 1.2 with one of `protocols` (ALPN, RFC 7301), such as
    /// `http/1.1`.
    ///
    /// # Errors
    ///
    /// [`TlsSetupError`] if a certificate or a root cannot be loaded.
    ///
    /// # Cancel safety
    ///
    /// The files are read on the blocking pool, which continues if the future is dropped.
    pub(crate) async fn load(config: TlsConfig, protocols: &[&str]) -> Result<Self, TlsSetupError> {
        let mut config = smol::unblock(move || client_config(&config)).await?;
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Performs the handshake over `stream` with a server that proves to be `host`.
    ///
    /// # Errors
    ///
    /// [`TlsError`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the stream is closed.
    pub(crate) async fn connect<S>(&self, host: &Host, stream: S) -> Result<TlsStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsStream::connect(self.config.clone(), server_name(host)?, stream)
            .await
            .map_err(TlsError::from)
    }
}

fn client_config(config: &TlsConfig) -> Result<ClientConfig, TlsSetupError> {
    // Explicit, because the program that uses this library may have installed another provider.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsSetupError::Versions {
            source: source.into(),
        })?;
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
            let first = certificates.first().cloned();
            builder
                .with_client_auth_cert(certificates, key)
                .map_err(|error| TlsSetupError::Identity {
                    path: identity.certificates.clone(),
                    what: identity_problem(&error, first.as_deref().unwrap_or_default()),
                })
        }
    }
}

fn server_name(host: &Host) -> Result<ServerName<'static>, TlsError> {
    match host {
        Host::Any => Ok(ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST))),
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        // A zone is meaningful on this machine only.
        Host::Zoned { ip, .. } => Ok(ServerName::from(IpAddr::from(*ip))),
        Host::Name(name) => {
            ServerName::try_from(name.clone()).map_err(|_| TlsError::InvalidServerName)
        }
    }
}
