//! TLS: what is trusted, what is shown, and the handshake, for clients here and for servers in
//! `server`.

mod files;
mod plaintext_alert;
mod server;
mod verify;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use futures_lite::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use rustls::CertificateError::{
    BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
    NotValidYetContext, UnknownIssuer,
};
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig, HandshakeType, InvalidMessage};

use super::address::Host;
use crate::escape::Escaped;
use files::load_identity;
use verify::{NotPinned, OfAuthority, PinnedOrNone, WebPki};

pub use files::Identity;
pub use server::{AcceptError, AcceptedStream, ServerIdentity, TlsServer, TlsServerConfig};
pub use verify::{Fingerprint, FingerprintError};

/// The names of a certificate that are told when it is for none that was asked for.
const NAMES: usize = 5;

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

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The file of certificates cannot be used.
    #[error("read certificates from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The system has no root certificates where they are looked for.
    #[error("find the system's root certificates")]
    System {
        /// What is wrong with them.
        source: io::Error,
    },
    /// The file of the private key cannot be used.
    #[error("read the private key in {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The certificate and its key do not go together.
    #[error("use the certificate in {} with its key", path.display())]
    Identity {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// A certificate for one run cannot be made.
    #[error("make a certificate")]
    SelfSigned {
        /// What is wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The versions of TLS do not go with the ciphers.
    #[error("set up TLS")]
    Versions {
        /// What does not.
        source: rustls::Error,
    },
}

/// Why a handshake failed. Names from certificates are made safe to show.
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
        /// The names that it is for.
        presented: String,
    },
    /// No trusted root has issued the certificate.
    #[error("the issuer of the certificate is unknown")]
    UnknownIssuer,
    /// The certificate is another than the pinned one.
    #[error("the certificate is not the pinned one, its SHA-256 is {found}")]
    NotPinned {
        /// That of the certificate that was shown.
        found: Fingerprint,
    },
    /// The certificate is that of an authority, as a self-signed one often is.
    #[error("the certificate is that of an authority (CA:TRUE), not of a server")]
    CaUsedAsEndEntity {
        /// The SHA-256 of the certificate that was shown.
        found: Fingerprint,
    },
    /// Something else is wrong with the certificate.
    #[error("the certificate is no good: {what}")]
    InvalidCertificate {
        /// What it is.
        what: String,
    },
    /// The server wants to know who the client is.
    #[error("the server wants a certificate from the client")]
    CertificateRequired,
    /// The other side speaks something else.
    #[error("the server does not speak TLS")]
    NotTls,
    /// No certificate can be for such a name.
    #[error("not a name that a certificate can be for")]
    InvalidServerName,
    /// Anything else that is wrong with what the other side said.
    #[error("the handshake failed")]
    Refused {
        /// What is wrong.
        source: rustls::Error,
    },
    /// The connection broke before the handshake was done.
    #[error("the connection broke")]
    Io {
        /// What the system said.
        source: io::Error,
    },
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

impl TlsError {
    /// Finds what TLS itself has to say in the error of a read or write: a server may refuse a
    /// client's certificate after the handshake (RFC 8446 section 4.4.2.4).
    ///
    /// # Errors
    ///
    /// The error as it was, where it is not of TLS.
    pub fn of_stream(error: io::Error) -> Result<Self, io::Error> {
        error.downcast().map(|error| match error {
            rustls::Error::InvalidCertificate(error) => Self::from(error),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            // It is an echo server, and has sent back what we said.
            rustls::Error::InappropriateHandshakeMessage {
                got_type: HandshakeType::ClientHello,
                ..
            } => Self::NotTls,
            rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
                Self::CertificateRequired
            }
            source => Self::Refused { source },
        })
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        Self::of_stream(error).unwrap_or_else(|source| Self::Io { source })
    }
}

impl From<CertificateError> for TlsError {
    fn from(error: CertificateError) -> Self {
        match error {
            Expired | ExpiredContext { .. } => Self::Expired,
            NotValidYet | NotValidYetContext { .. } => Self::NotValidYet,
            // The signature is another's when a trusted root only has the issuer's name.
            UnknownIssuer | BadSignature => Self::UnknownIssuer,
            NotValidForName => Self::WrongName {
                presented: "others".into(),
            },
            NotValidForNameContext { presented, .. } => Self::WrongName {
                presented: list_names(&presented),
            },
            CertificateError::Other(error) => {
                if let Some(NotPinned(found)) = error.0.downcast_ref() {
                    return Self::NotPinned { found: *found };
                }
                if let Some(OfAuthority(found)) = error.0.downcast_ref() {
                    return Self::CaUsedAsEndEntity { found: *found };
                }
                Self::InvalidCertificate {
                    what: in_words(&error.to_string()),
                }
            }
            other => Self::InvalidCertificate {
                what: in_words(&format!("{other:?}")),
            },
        }
    }
}

/// The name of an error, `ApplicationVerificationFailure`, as words; what stands behind it is left
/// out.
fn in_words(name: &str) -> String {
    let mut words = String::new();
    for letter in name
        .chars()
        .take_while(|letter| letter.is_ascii_alphanumeric())
    {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(letter.to_ascii_lowercase());
    }
    words
}

/// Lists names that come as `DnsName("example.org")` and `IpAddress(127.0.0.1)`.
fn list_names(presented: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let mut names: Vec<_> = presented.iter().take(NAMES).map(plain).collect();
    if presented.len() > NAMES {
        names.push(format!("{} more", presented.len() - NAMES));
    }
    if names.is_empty() {
        "none".into()
    } else {
        Escaped(names.join(", ").as_bytes()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_told_in_words() {
        for (error, text) in [
            (
                CertificateError::BadEncoding,
                "the certificate is no good: bad encoding",
            ),
            (
                CertificateError::Revoked,
                "the certificate is no good: revoked",
            ),
            (UnknownIssuer, "the issuer of the certificate is unknown"),
        ] {
            assert_eq!(TlsError::from(error).to_string(), text);
        }
        assert_eq!(in_words("ExpiredContext { time: 3 }"), "expired context");
    }
}
