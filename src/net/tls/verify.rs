//! Verification of server certificates: by trusted roots, by pin, or not at all.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use super::error::TlsSetupError;
use super::files::load_roots;
use super::fingerprint::{Fingerprint, NotPinned, OfAuthority};
use super::unsupported::{UnsupportedProperty, unsupported_property};

/// Verifies certificate chains with webpki, and remembers the fingerprint of a rejected CA
/// certificate, which is lost after the handshake.
#[derive(Debug)]
pub(super) struct WebPki(Arc<WebPkiServerVerifier>);

impl WebPki {
    /// Trusts the roots in a file, or the system roots.
    pub(super) fn load(
        roots: Option<&Path>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsSetupError> {
        let roots = Arc::new(load_roots(roots)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        verifier.map(Self).map_err(|error| TlsSetupError::Versions {
            source: error.into(),
        })
    }
}

impl ServerCertVerifier for WebPki {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self
            .0
            .verify_server_cert(certificate, others, name, ocsp, now);
        verified.map_err(|error| match error {
            // The error type belongs to a crate that rustls does not re-export.
            Error::InvalidCertificate(CertificateError::Other(OtherError(what)))
                if what.to_string() == "CaUsedAsEndEntity" =>
            {
                let found = OfAuthority(Fingerprint::of(certificate));
                CertificateError::Other(OtherError(Arc::new(found))).into()
            }
            error => explain(error, [certificate].into_iter().chain(others)),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.0.verify_tls12_signature(message, certificate, signed);
        verified.map_err(|error| explain(error, [certificate]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.0.verify_tls13_signature(message, certificate, signed);
        verified.map_err(|error| explain(error, [certificate]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Returns the error of an unsupported property of a certificate, if there is one: webpki reports
/// it as an invalid signature or an unknown issuer.
fn explain<'a>(
    error: Error,
    certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> Error {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, Revoked,
    };
    let is_explained = match &error {
        Error::InvalidCertificate(cause) => matches!(
            cause,
            Expired
                | ExpiredContext { .. }
                | NotValidForName
                | NotValidForNameContext { .. }
                | NotValidYet
                | NotValidYetContext { .. }
                | Revoked
        ),
        _ => false,
    };
    let property = if is_explained {
        None
    } else {
        let mut certificates = certificates.into_iter();
        certificates.find_map(|certificate| unsupported_property(certificate))
    };
    property.map_or(error, |property| {
        let property = UnsupportedProperty(property);
        CertificateError::Other(OtherError(Arc::new(property))).into()
    })
}

/// Accepts one pinned certificate regardless of issuer, names and dates, or any certificate.
#[derive(Debug)]
pub(super) struct PinnedOrNone {
    pin: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl PinnedOrNone {
    pub(super) fn new(pin: Option<Fingerprint>, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider }
    }

    /// Verifies that the peer holds the private key of the certificate, if the certificate matters.
    fn checked(
        &self,
        check: impl FnOnce() -> Result<HandshakeSignatureValid, Error>,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.pin.is_some() {
            check()
        } else {
            Ok(HandshakeSignatureValid::assertion())
        }
    }
}

impl ServerCertVerifier for PinnedOrNone {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Fingerprint::of(certificate);
        if self.pin.is_none_or(|pin| pin == found) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::Other(OtherError(Arc::new(NotPinned(found)))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        self.checked(|| verify_tls12_signature(message, certificate, signed, known))
            .map_err(|error| explain(error, [certificate]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        self.checked(|| verify_tls13_signature(message, certificate, signed, known))
            .map_err(|error| explain(error, [certificate]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::tls::FingerprintError;

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn fingerprint_is_the_sha_256_in_hex() {
        assert_eq!(Fingerprint::of(b"abc").to_string(), OF_ABC);
        let pairs: Vec<_> = OF_ABC
            .as_bytes()
            .chunks(2)
            .map(String::from_utf8_lossy)
            .collect();
        for text in [OF_ABC.to_owned(), OF_ABC.to_uppercase(), pairs.join(":")] {
            assert_eq!(text.parse(), Ok(Fingerprint::of(b"abc")), "{text}");
        }
        for text in [
            "",
            "ab",
            &OF_ABC[1..],
            &OF_ABC.replace('b', "g"),
            &OF_ABC.replace('b', "+"),
        ] {
            assert_eq!(text.parse::<Fingerprint>(), Err(FingerprintError), "{text}");
        }
    }
}
