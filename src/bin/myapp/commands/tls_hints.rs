//! Hints for TLS errors that `serve`, `echo` and `download` have in common.

use std::io;

use myapp::net::tls::{TlsError, TlsSetupError, UnsupportedFormat};

/// Returns the hint for an error of the setup. `ca` is the option that names root certificates.
pub(super) fn setup_hint(error: &TlsSetupError, ca: &str) -> Option<String> {
    match error {
        TlsSetupError::System { .. } => Some(format!(
            "install the package ca-certificates, or give the roots with {ca} FILE"
        )),
        TlsSetupError::Read { source, .. } | TlsSetupError::Key { source, .. } => {
            format_hint(source).map(str::to_owned)
        }
        _ => None,
    }
}

fn format_hint(error: &io::Error) -> Option<&'static str> {
    let hint = match error.get_ref()?.downcast_ref()? {
        UnsupportedFormat::EncryptedKey => "decrypt it: openssl pkey -in FILE -out key.pem",
        UnsupportedFormat::DerKey => "convert it: openssl pkey -inform DER -in FILE -out key.pem",
        UnsupportedFormat::DerCertificate => {
            "convert it: openssl x509 -inform DER -in FILE -out cert.pem"
        }
        UnsupportedFormat::Pkcs12 => "convert it: openssl pkcs12 -in FILE -nodes -out cert.pem",
        _ => return None,
    };
    Some(hint)
}

/// Returns the hint for a handshake with a server that requires what is not supported.
pub(super) fn handshake_hint(error: &TlsError) -> Option<&'static str> {
    match error {
        TlsError::NoCommonAlgorithm => Some(
            "supported: ECDHE with AES-GCM or ChaCha20-Poly1305; P-256, P-384, Ed25519 and RSA \
             keys from 2048 bits",
        ),
        TlsError::UnsupportedCertificate { .. } => Some(
            "supported: X.509 version 3; P-256, P-384, Ed25519 and RSA keys from 2048 to 8192 bits",
        ),
        TlsError::UnsupportedVersion => Some("older versions of TLS are insecure"),
        TlsError::Renegotiation => {
            Some("configure the server to request client certificates in the first handshake")
        }
        _ => None,
    }
}
