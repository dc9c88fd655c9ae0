//! Fingerprints of certificates.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "tls")]
use rustls::{SupportedCipherSuite, crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256};

/// SHA-256 of a certificate in DER. Displayed as 64 hex digits; parsed with or without colons
/// between the pairs, as openssl prints them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// Error of parsing a [`Fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the 64 hex digits of a SHA-256")]
pub struct FingerprintError;

#[cfg(feature = "tls")]
impl Fingerprint {
    /// Returns the fingerprint of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        // Each cipher suite of rustls contains the hash; no other crate is required.
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

/// The certificate is not the pinned one. Carried inside errors of rustls.
#[derive(Debug, thiserror::Error)]
#[error("not the pinned certificate")]
pub(super) struct NotPinned(pub(super) Fingerprint);

/// The certificate is a CA certificate. Carried inside errors of rustls.
#[derive(Debug, thiserror::Error)]
#[error("CA certificate")]
pub(super) struct OfAuthority(pub(super) Fingerprint);
