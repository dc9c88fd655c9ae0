//! Certificates and files that cannot be used, by cause.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// RSA key lengths that ring verifies, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Length of a file that is examined.
const MAX_EXAMINED_LEN: u64 = 64 * 1024;

/// Property of a certificate that is not supported.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UnsupportedProperty(pub(super) String);

/// Returns the property of a DER certificate that is not supported: its version or its key.
pub(super) fn unsupported_property(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    if certificate.version() == X509Version::V1 {
        return Some("X.509 version 1".into());
    }
    unsupported_key(certificate.public_key())
}

fn unsupported_key(key: &SubjectPublicKeyInfo<'_>) -> Option<String> {
    let curve = key.algorithm.parameters.as_ref();
    let curve = curve.and_then(|curve| curve.as_oid().ok());
    let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
    let name = match (
        key.algorithm.algorithm.to_id_string().as_str(),
        curve.as_str(),
    ) {
        ("1.2.840.113549.1.1.1", _) => match key.parsed() {
            Ok(PublicKey::RSA(rsa)) if !RSA_BITS.contains(&rsa.key_size()) => {
                return Some(format!("RSA key of {} bits", rsa.key_size()));
            }
            _ => return None,
        },
        // RFC 4055 section 1.2.
        ("1.2.840.113549.1.1.10", _) => "RSA-PSS key",
        // RFC 5480 section 2.1.1.1: P-256 and P-384 are supported.
        ("1.2.840.10045.2.1", "1.2.840.10045.3.1.7" | "1.3.132.0.34") => return None,
        ("1.2.840.10045.2.1", "1.3.132.0.35") => "P-521 key",
        ("1.2.840.10045.2.1", _) => "key on an unusual elliptic curve",
        // RFC 8410 section 3.
        ("1.3.101.112", _) => return None,
        ("1.3.101.113", _) => "Ed448 key",
        _ => "key of an unknown algorithm",
    };
    Some(name.into())
}

/// Format of a file that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsupportedFormat {
    /// PEM private key that is encrypted with a password.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// DER private key.
    #[error("a DER private key instead of PEM")]
    DerKey,
    /// DER certificate.
    #[error("a DER certificate instead of PEM")]
    DerCertificate,
    /// PKCS#12 archive (`.p12`, `.pfx`).
    #[error("PKCS#12 instead of PEM")]
    Pkcs12,
}

impl UnsupportedFormat {
    /// Recognises the format of a file.
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        let mut bytes = Vec::new();
        let file = File::open(path).ok()?;
        file.take(MAX_EXAMINED_LEN).read_to_end(&mut bytes).ok()?;
        Self::of_bytes(&bytes)
    }

    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        // RFC 7468 section 11 and RFC 1421 section 4.6.1.1.
        let marks = [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----",
            "Proc-Type: 4,ENCRYPTED",
        ];
        if marks.iter().any(|mark| text.contains(mark)) {
            return Some(Self::EncryptedKey);
        }
        let content = sequence_content(bytes)?;
        match content {
            // The version of PFX (RFC 7292 section 4).
            [2, 1, 3, ..] => Some(Self::Pkcs12),
            // The versions of PKCS#8, PKCS#1 and SEC 1.
            [2, 1, 0 | 1, ..] => Some(Self::DerKey),
            [0x30, ..] => Some(Self::DerCertificate),
            _ => None,
        }
    }
}

/// Returns what follows the header of a DER sequence.
fn sequence_content(bytes: &[u8]) -> Option<&[u8]> {
    let (&[tag, length], rest) = bytes.split_first_chunk()?;
    if tag != 0x30 {
        return None;
    }
    match length {
        0..0x80 => Some(rest),
        length => rest.get(usize::from(length & 0x7f)..),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn supported_certificates_have_no_unsupported_property() {
        for algorithm in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ED25519,
        ] {
            assert_eq!(unsupported_property(&certificate(algorithm)), None);
        }
        assert_eq!(unsupported_property(b"not a certificate"), None);
    }

    #[test]
    fn unusual_key_is_named() {
        // The last byte of the curve, or of the algorithm, makes another one of the same length.
        for (algorithm, from, to, name) in [
            (
                &rcgen::PKCS_ECDSA_P384_SHA384,
                &[0x2b, 0x81, 4, 0, 0x22][..],
                &[0x2b, 0x81, 4, 0, 0x23][..],
                "P-521 key",
            ),
            (
                &rcgen::PKCS_ED25519,
                &[0x2b, 0x65, 0x70, 3, 0x21],
                &[0x2b, 0x65, 0x71, 3, 0x21],
                "Ed448 key",
            ),
        ] {
            let mut der = certificate(algorithm);
            let at = der.windows(from.len()).position(|window| window == from);
            let at = at.unwrap();
            der[at..at + to.len()].copy_from_slice(to);
            assert_eq!(unsupported_property(&der).as_deref(), Some(name));
        }
    }

    #[test]
    fn file_formats_are_recognised() {
        use UnsupportedFormat::{DerCertificate, DerKey, EncryptedKey, Pkcs12};
        let key = KeyPair::generate().unwrap();
        for (bytes, format) in [
            (
                b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA".to_vec(),
                Some(EncryptedKey),
            ),
            (
                b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n".to_vec(),
                Some(EncryptedKey),
            ),
            (certificate(&rcgen::PKCS_ED25519), Some(DerCertificate)),
            (key.serialize_der(), Some(DerKey)),
            (vec![0x30, 0x82, 4, 0, 2, 1, 3, 0x30], Some(Pkcs12)),
            (key.serialize_pem().into_bytes(), None),
            (vec![0x30], None),
            (vec![0x30, 0xff, 2], None),
            (Vec::new(), None),
        ] {
            assert_eq!(UnsupportedFormat::of_bytes(&bytes), format, "{bytes:?}");
        }
    }
}
