//! Errors of TLS: of the set-up, and of handshakes as a client.

use std::io;
use std::path::PathBuf;

use rustls::CertificateError::{
    BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
    NotValidYetContext, UnknownIssuer,
};
use rustls::{AlertDescription, CertificateError, HandshakeType, InvalidMessage};

use crate::escape::Escaped;
use crate::net::tls::fingerprint::{Fingerprint, NotPinned, OfAuthority};

/// The maximum number of certificate names in an error.
const MAX_NAMES: usize = 5;

/// Error of setting up TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// A file of certificates cannot be read.
    #[error("read certificates from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The system root certificates cannot be found.
    #[error("find system root certificates")]
    System {
        /// The cause.
        source: io::Error,
    },
    /// A private key cannot be read.
    #[error("read private key from {}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A certificate does not match its private key.
    #[error("use certificate {} with its private key", path.display())]
    Identity {
        /// The file of the certificate.
        path: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// A self-signed certificate cannot be generated.
    #[error("generate certificate")]
    SelfSigned {
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The TLS versions do not match the cipher suites.
    #[error("set up TLS")]
    Versions {
        /// The cause.
        source: rustls::Error,
    },
}

/// Error of a handshake. Names from certificates are escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The certificate has expired.
    #[error("certificate has expired")]
    Expired,
    /// The certificate is not valid yet.
    #[error("certificate is not valid yet")]
    NotValidYet,
    /// The certificate is for other names.
    #[error("certificate is not valid for this name, only for {presented}")]
    WrongName {
        /// The names in the certificate.
        presented: String,
    },
    /// The certificate was not issued by a trusted root.
    #[error("unknown certificate issuer")]
    UnknownIssuer,
    /// The certificate is not the pinned one.
    #[error("certificate is not the pinned one, its SHA-256 is {found}")]
    NotPinned {
        /// The SHA-256 of the presented certificate.
        found: Fingerprint,
    },
    /// The certificate is a CA certificate, as a self-signed one often is.
    #[error("certificate is a CA certificate (CA:TRUE), not a server certificate")]
    CaUsedAsEndEntity {
        /// The SHA-256 of the presented certificate.
        found: Fingerprint,
    },
    /// The certificate is invalid for another reason.
    #[error("invalid certificate: {what}")]
    InvalidCertificate {
        /// The cause.
        what: String,
    },
    /// The server requires a client certificate.
    #[error("server requires a client certificate")]
    CertificateRequired,
    /// The peer does not speak TLS.
    #[error("server does not speak TLS")]
    NotTls,
    /// The name cannot appear in a certificate.
    #[error("invalid server name")]
    InvalidServerName,
    /// The handshake failed for another reason.
    #[error("handshake failed")]
    Refused {
        /// The cause.
        source: rustls::Error,
    },
    /// The connection failed before the handshake completed.
    #[error("connection failed")]
    Io {
        /// The cause.
        source: io::Error,
    },
}

impl TlsError {
    /// Extracts the TLS error from an error of a read or write: a server may reject a client's
    /// certificate after the handshake (RFC 8446 section 4.4.2.4).
    ///
    /// # Errors
    ///
    /// Returns the error unchanged if it does not come from TLS.
    pub fn of_stream(error: io::Error) -> Result<Self, io::Error> {
        error.downcast().map(|error| match error {
            rustls::Error::InvalidCertificate(error) => Self::from(error),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            // An echo server sent our ClientHello back.
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
            // The signature does not match if a trusted root only shares the issuer's name.
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

/// Returns the words of a variant name such as `ApplicationVerificationFailure`, without its
/// fields.
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

/// Lists names that rustls formats as `DnsName("example.org")` and `IpAddress(127.0.0.1)`.
fn list_names(presented: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    let mut names: Vec<_> = presented.iter().take(MAX_NAMES).map(plain).collect();
    if presented.len() > MAX_NAMES {
        names.push(format!("{} more", presented.len() - MAX_NAMES));
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
    fn certificate_errors_are_plain_words() {
        for (error, text) in [
            (
                CertificateError::BadEncoding,
                "invalid certificate: bad encoding",
            ),
            (CertificateError::Revoked, "invalid certificate: revoked"),
            (UnknownIssuer, "unknown certificate issuer"),
        ] {
            assert_eq!(TlsError::from(error).to_string(), text);
        }
        assert_eq!(in_words("ExpiredContext { time: 3 }"), "expired context");
    }
}
