//! TLS for clients: what is trusted, and the handshake.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_lite::{AsyncRead, AsyncWrite};
use futures_rustls::TlsConnector;
use rustls::CertificateError::{
    Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
    NotValidYetContext, UnknownIssuer,
};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, InvalidMessage, RootCertStore};

use super::address::Host;
use crate::escape::Escaped;

/// The names of a certificate that are told when it is for none that was asked for.
const NAMES: usize = 5;

/// A stream inside TLS.
pub type TlsStream<S> = futures_rustls::client::TlsStream<S>;

/// Why there is nothing to trust.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
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
    /// The other side speaks something else.
    #[error("the server does not speak TLS")]
    NotTls,
    /// No certificate can be for such a name.
    #[error("not a name that a certificate can be for")]
    Name,
    /// Anything else that is wrong with the certificate, or with what the other side said.
    #[error("the handshake failed")]
    Refused {
        /// What is wrong.
        source: rustls::Error,
    },
    /// The connection broke before the handshake was done.
    #[error("the connection broke")]
    Broken {
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
    /// Makes a client that trusts the certificates in `roots`, a PEM file, or else the system's.
    /// Those are looked for where OpenSSL does, `SSL_CERT_FILE` and `SSL_CERT_DIR` included.
    /// TLS 1.3 and 1.2 are spoken, and within them HTTP/1.1.
    ///
    /// # Errors
    ///
    /// [`RootsError`] where there is no certificate to trust.
    ///
    /// # Cancel safety
    ///
    /// The files are read in the pool for blocking work, which goes on when this is dropped.
    pub async fn load(roots: Option<PathBuf>) -> Result<Self, RootsError> {
        let roots = smol::unblock(move || match roots {
            Some(path) => read_roots(&path).map_err(|source| RootsError::Read { path, source }),
            None => system_roots().map_err(|source| RootsError::System { source }),
        });
        let config = client_config(roots.await?);
        Ok(Self { config: Arc::new(config.map_err(|source| RootsError::Versions { source })?) })
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
        connector.connect(server_name(host)?, stream).await.map_err(TlsError::from)
    }
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    // By name, because a program around this library may have chosen another one for itself.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn server_name(host: &Host) -> Result<ServerName<'static>, TlsError> {
    match host {
        Host::Any => Ok(ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST))),
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| TlsError::Name),
    }
}

fn read_roots(path: &Path) -> io::Result<RootCertStore> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidData, text);
    let read = |error| match error {
        pem::Error::Io(error) => error,
        _ => invalid("not PEM"),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
        let added = roots.add(certificate.map_err(read)?);
        added.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    }
    if roots.is_empty() { Err(invalid("no certificate in it")) } else { Ok(roots) }
}

fn system_roots() -> io::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems keep some that no longer count; one of them must not hide the others.
    roots.add_parsable_certificates(found.certs);
    match found.errors.into_iter().next() {
        _ if !roots.is_empty() => Ok(roots),
        Some(error) => Err(io::Error::other(error)),
        None => Err(io::Error::new(io::ErrorKind::NotFound, "there are none")),
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        match error.downcast() {
            Ok(rustls::Error::InvalidCertificate(error)) => Self::from(error),
            Ok(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::NotTls,
            Ok(source) => Self::Refused { source },
            Err(source) => Self::Broken { source },
        }
    }
}

impl From<CertificateError> for TlsError {
    fn from(error: CertificateError) -> Self {
        match error {
            Expired | ExpiredContext { .. } => Self::Expired,
            NotValidYet | NotValidYetContext { .. } => Self::NotValidYet,
            UnknownIssuer => Self::UnknownIssuer,
            NotValidForName => Self::WrongName { presented: "others".into() },
            NotValidForNameContext { presented, .. } => {
                Self::WrongName { presented: list_names(&presented) }
            }
            other => Self::Refused { source: other.into() },
        }
    }
}

/// Lists names that come as `DnsName("example.org")` and `IpAddress(127.0.0.1)`.
fn list_names(presented: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let mut names: Vec<_> = presented.iter().take(NAMES).map(plain).collect();
    if presented.len() > NAMES {
        names.push(format!("{} more", presented.len() - NAMES));
    }
    if names.is_empty() { "none".into() } else { Escaped(names.join(", ").as_bytes()).to_string() }
}
