//! Which servers are trusted: for their issuer, or for something else.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    SupportedCipherSuite,
};

use super::error::TlsSetupError;
use super::files::load_roots;

/// The SHA-256 of a certificate's DER. It is written in 64 hex digits, and read with or without
/// colons between their pairs, as openssl prints them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// A text that is no [`Fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the 64 hex digits of a SHA-256")]
pub struct FingerprintError;

impl Fingerprint {
    /// That of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        // rustls brings a SHA-256 with each suite: no crate more for one hash.
        let hash = match TLS13_AES_128_GCM_SHA256 {
            SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
            SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
        };
        let mut bytes = [0; 32];
        for (to, from) in bytes.iter_mut().zip(hash.hash(certificate).as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits: Vec<_> = text.bytes().filter(|byte| *byte != b':').collect();
        let mut bytes = [0; 32];
        if digits.len() != 2 * bytes.len() {
            return Err(FingerprintError);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
            let value = high
                .zip(low)
                .map(|(high, low)| 16 * high + low)
                .ok_or(FingerprintError)?;
            *byte = u8::try_from(value).map_err(|_| FingerprintError)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The certificate is another than the pinned one. Travels inside the errors of rustls.
#[derive(Debug, thiserror::Error)]
#[error("not the pinned certificate")]
pub(super) struct NotPinned(pub(super) Fingerprint);

/// The certificate is that of an authority. Travels inside the errors of rustls.
#[derive(Debug, thiserror::Error)]
#[error("the certificate of an authority")]
pub(super) struct OfAuthority(pub(super) Fingerprint);

/// Trusts those whose certificate leads to a root, as rustls does, and remembers of an authority's
/// which one it was: it is gone when the handshake has failed.
#[derive(Debug)]
pub(super) struct WebPki(Arc<WebPkiServerVerifier>);

impl WebPki {
    /// Trusts the roots in a file, or the system's.
    pub(super) fn load(
        roots: Option<&Path>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, TlsSetupError> {
        let roots = Arc::new(load_roots(roots)?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        let other = |error| Error::Other(OtherError(Arc::new(error)));
        verifier.map(Self).map_err(|error| TlsSetupError::Versions {
            source: other(error),
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
            // The crate that says so is one that rustls keeps to itself.
            Error::InvalidCertificate(CertificateError::Other(OtherError(what)))
                if what.to_string() == "CaUsedAsEndEntity" =>
            {
                let found = OfAuthority(Fingerprint::of(certificate));
                CertificateError::Other(OtherError(Arc::new(found))).into()
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Trusts one certificate, whoever issued it and whatever names and dates it holds, or any.
#[derive(Debug)]
pub(super) struct PinnedOrNone {
    pin: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
}

impl PinnedOrNone {
    pub(super) fn new(pin: Option<Fingerprint>, provider: Arc<CryptoProvider>) -> Self {
        Self { pin, provider }
    }

    /// That the other side holds the certificate's key counts where the certificate does.
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
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        self.checked(|| verify_tls13_signature(message, certificate, signed, known))
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

    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_fingerprint_is_the_sha_256_in_hex() {
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
