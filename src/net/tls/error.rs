//! Errors of TLS: of the set-up, and of handshakes as a client.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::CertificateError::{
    BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
    NotValidYetContext, UnknownIssuer,
};
use rustls::{
    AlertDescription, CertificateError, HandshakeType, InvalidMessage,
    PeerIncompatible as Incompatible, PeerMisbehaved as Misbehaved,
};

use crate::escape::Escaped;
use crate::net::tls::fingerprint::{Fingerprint, NotPinned, OfAuthority};
use crate::net::tls::unsupported::UnsupportedProperty;

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
    #[error("use certificate {} with its private key: {what}", path.display())]
    Identity {
        /// The file of the certificate.
        path: PathBuf,
        /// The cause.
        what: String,
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
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library was built without the feature `tls`.
    #[error("TLS is not compiled in: feature `tls`")]
    Disabled,
}

/// Error of a handshake. Its text has the names of certificates escaped.
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
    #[error(
        "certificate is not valid for this name, only for {}",
        list_names(presented)
    )]
    WrongName {
        /// The names in the certificate, not escaped.
        presented: Vec<String>,
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
    /// The certificate, or one of its issuers, has a version or key that is not supported.
    #[error("unsupported certificate: {what}")]
    UnsupportedCertificate {
        /// The property, such as `RSA key of 1024 bits`.
        what: String,
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
    /// The server and this client have no algorithm in common. The server does not say which it
    /// requires.
    #[error(
        "server accepts none of our TLS algorithms; it may require CBC cipher suites, RSA or DHE \
         key exchange, or have a P-521, Ed448, RSA-PSS or short RSA key"
    )]
    NoCommonAlgorithm,
    /// The server speaks older or unknown versions of TLS only.
    #[error("server supports neither TLS 1.2 nor TLS 1.3")]
    UnsupportedVersion,
    /// The server ended the session because a renegotiation was refused.
    #[error("server requests a TLS renegotiation, which is not supported")]
    Renegotiation,
    /// The handshake failed for another reason.
    #[error("handshake failed: {what}")]
    Refused {
        /// The cause.
        what: String,
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
    /// Returns the error unchanged if it does not come from TLS, and `InvalidData` for a record that
    /// cannot be read.
    pub(crate) fn of_stream(error: io::Error) -> Result<Self, io::Error> {
        match error.downcast()? {
            // The handshake is complete.
            error @ (rustls::Error::DecryptError
            | rustls::Error::InvalidMessage(_)
            | rustls::Error::PeerSentOversizedRecord) => {
                let text = format!("damaged TLS record: {error}");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            error => Ok(match Self::from_rustls(error) {
                // rustls refuses a renegotiation by a warning, to which servers reply so.
                Self::NoCommonAlgorithm => Self::Renegotiation,
                error => error,
            }),
        }
    }
}

impl From<io::Error> for TlsError {
    /// Converts the error of a handshake.
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::from_rustls(error),
            Err(source) => Self::Io { source },
        }
    }
}

impl TlsError {
    fn from_rustls(error: rustls::Error) -> Self {
        use AlertDescription as Alert;
        use rustls::Error::{
            AlertReceived, InappropriateHandshakeMessage, InvalidCertificate, PeerIncompatible,
            PeerMisbehaved,
        };
        match error {
            InvalidCertificate(error) => Self::from_certificate(error),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            // An echo server sent our ClientHello back.
            InappropriateHandshakeMessage {
                got_type: HandshakeType::ClientHello,
                ..
            } => Self::NotTls,
            AlertReceived(Alert::CertificateRequired) => Self::CertificateRequired,
            AlertReceived(Alert::HandshakeFailure | Alert::InsufficientSecurity) => {
                Self::NoCommonAlgorithm
            }
            AlertReceived(Alert::ProtocolVersion)
            | PeerIncompatible(
                Incompatible::ServerDoesNotSupportTls12Or13
                | Incompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::UnsupportedVersion,
            AlertReceived(Alert::NoRenegotiation)
            | PeerMisbehaved(Misbehaved::TooManyRenegotiationRequests) => Self::Renegotiation,
            AlertReceived(alert) => Self::refused("server sent the alert", &alert),
            PeerIncompatible(
                Incompatible::NoCipherSuitesInCommon
                | Incompatible::NoKxGroupsInCommon
                | Incompatible::NoSignatureSchemesInCommon,
            ) => Self::NoCommonAlgorithm,
            PeerIncompatible(what) => Self::refused("server is incompatible:", &what),
            PeerMisbehaved(what) => Self::refused("server violates TLS:", &what),
            other => Self::refused("", &other),
        }
    }

    fn refused(subject: &str, name: &dyn fmt::Debug) -> Self {
        let what = format!("{subject} {}", in_words(&format!("{name:?}")));
        Self::Refused {
            what: what.trim_start().to_owned(),
        }
    }

    fn from_certificate(error: CertificateError) -> Self {
        match error {
            Expired | ExpiredContext { .. } => Self::Expired,
            NotValidYet | NotValidYetContext { .. } => Self::NotValidYet,
            // The signature does not match if a trusted root only shares the issuer's name.
            UnknownIssuer | BadSignature => Self::UnknownIssuer,
            NotValidForName => Self::WrongName {
                presented: Vec::new(),
            },
            NotValidForNameContext { presented, .. } => Self::WrongName {
                presented: presented.iter().map(|name| plain_name(name)).collect(),
            },
            CertificateError::Other(error) => {
                if let Some(NotPinned(found)) = error.0.downcast_ref() {
                    return Self::NotPinned { found: *found };
                }
                if let Some(OfAuthority(found)) = error.0.downcast_ref() {
                    return Self::CaUsedAsEndEntity { found: *found };
                }
                if let Some(UnsupportedProperty(what)) = error.0.downcast_ref() {
                    return Self::UnsupportedCertificate { what: what.clone() };
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

/// Returns a name that rustls formats as `DnsName("example.org")` or `IpAddress(127.0.0.1)`.
fn plain_name(name: &str) -> String {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"').to_owned()
}

/// Lists the names of a certificate.
fn list_names(presented: &[String]) -> String {
    let mut names: Vec<_> = presented.iter().take(MAX_NAMES).cloned().collect();
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
            assert_eq!(TlsError::from_certificate(error).to_string(), text);
        }
        assert_eq!(in_words("ExpiredContext { time: 3 }"), "expired context");
    }

    #[test]
    fn handshake_errors_are_plain_words() {
        use rustls::Error;
        let no_common = TlsError::NoCommonAlgorithm.to_string();
        let version = TlsError::UnsupportedVersion.to_string();
        let renegotiation = TlsError::Renegotiation.to_string();
        for (error, text) in [
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                &*no_common,
            ),
            (Incompatible::NoKxGroupsInCommon.into(), &no_common),
            (
                Error::AlertReceived(AlertDescription::ProtocolVersion),
                &version,
            ),
            (Incompatible::ServerDoesNotSupportTls12Or13.into(), &version),
            (
                Error::AlertReceived(AlertDescription::NoRenegotiation),
                &renegotiation,
            ),
            (
                Misbehaved::TooManyRenegotiationRequests.into(),
                &renegotiation,
            ),
            (
                Error::AlertReceived(AlertDescription::BadCertificate),
                "handshake failed: server sent the alert bad certificate",
            ),
            (
                Misbehaved::SelectedUnofferedPsk.into(),
                "handshake failed: server violates TLS: selected unoffered psk",
            ),
            (
                InvalidMessage::MessageTooLarge.into(),
                "handshake failed: invalid message",
            ),
            (Error::DecryptError, "handshake failed: decrypt error"),
        ] {
            assert_eq!(TlsError::from_rustls(error).to_string(), text);
        }
    }

    #[test]
    fn unreadable_record_after_the_handshake_is_an_error_of_the_connection() {
        let error = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        let error = TlsError::of_stream(error).unwrap_err();
        assert_eq!(
            error.to_string(),
            "damaged TLS record: cannot decrypt peer's message"
        );
    }

    #[test]
    fn handshake_failure_after_the_handshake_is_a_renegotiation() {
        let alert = || {
            let alert = rustls::Error::AlertReceived(AlertDescription::HandshakeFailure);
            io::Error::new(io::ErrorKind::InvalidData, alert)
        };
        assert!(matches!(
            TlsError::of_stream(alert()),
            Ok(TlsError::Renegotiation)
        ));
        assert!(matches!(
            TlsError::from(alert()),
            TlsError::NoCommonAlgorithm
        ));
    }
}
