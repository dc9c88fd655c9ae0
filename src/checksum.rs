//! Checksums of files.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::str::FromStr;

use crc_fast::CrcAlgorithm;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use sha2::Digest as _;

/// Length of the buffer for files that are read.
const READ_BUFFER_LEN: usize = 256 * 1024;

/// Algorithm of a checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
    /// SHA-1. It detects accidental changes only.
    Sha1,
    /// MD5. It detects accidental changes only.
    Md5,
    /// BLAKE3.
    Blake3,
    /// CRC-32 of zip and Ethernet. This and the other CRCs occur in digests of servers only.
    Crc32,
    /// CRC-32C.
    Crc32c,
    /// CRC-64/NVME.
    Crc64Nvme,
}

/// Expected digest of a file, parsed from `sha256=HEX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    algorithm: Algorithm,
    digest: Vec<u8>,
}

/// Error of parsing a [`Checksum`] or a list of checksums.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChecksumError {
    /// The text has no algorithm and not the length of a digest.
    #[error("not of the form ALGORITHM=HEX, or a digest of 32, 40, 64 or 128 hexadecimal digits")]
    Form,
    /// The algorithm is not supported.
    #[error("not one of sha256, sha512, sha1, md5, blake3")]
    Algorithm,
    /// The digest does not have this number of hexadecimal digits.
    #[error("not {0} hexadecimal digits")]
    Digits(usize),
    /// The list contains no checksum.
    #[error("no line contains a checksum and a file name")]
    Empty,
}

impl Algorithm {
    /// Algorithms of given checksums.
    pub(crate) const ALL: [Self; 5] = [
        Self::Sha256,
        Self::Sha512,
        Self::Sha1,
        Self::Md5,
        Self::Blake3,
    ];

    /// Returns the length of a digest in bytes.
    pub(crate) fn digest_len(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 32,
            Self::Sha512 => 64,
            Self::Sha1 => 20,
            Self::Md5 => 16,
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
        }
    }

    /// Returns the usual algorithm of digests with this number of hexadecimal digits.
    pub(crate) fn from_hex_len(len: usize) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| 2 * algorithm.digest_len() == len)
    }

    /// Returns the algorithm of a name such as `sha256`, `SHA-256` or `SHA2-256`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let plain = name
            .to_ascii_lowercase()
            .replace("sha2-", "sha")
            .replace('-', "");
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.to_string() == plain)
    }
}

impl FromStr for Algorithm {
    type Err = ChecksumError;

    fn from_str(text: &str) -> Result<Self, ChecksumError> {
        Self::from_name(text.trim()).ok_or(ChecksumError::Algorithm)
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Sha1 => "sha1",
            Self::Md5 => "md5",
            Self::Blake3 => "blake3",
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
            Self::Crc64Nvme => "crc64nvme",
        })
    }
}

/// Serialized as the fields `algorithm` and `hex`.
impl Serialize for Checksum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Checksum", 2)?;
        fields.serialize_field("algorithm", &self.algorithm.to_string())?;
        fields.serialize_field("hex", &self.hex())?;
        fields.end()
    }
}

impl Checksum {
    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Parses a digest whose algorithm is known by its length: MD5, SHA-1, SHA-256 or SHA-512.
    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        Self::new(Algorithm::from_hex_len(digits.len())?, digits).ok()
    }

    /// Returns whether the digest is the expected one.
    pub(crate) fn matches(&self, digest: &[u8]) -> bool {
        self.digest == digest
    }

    /// Returns the checksum as `ALGORITHM=HEX`.
    pub(crate) fn to_text(&self) -> String {
        format!("{}={}", self.algorithm, self.hex())
    }

    /// Returns the digest in hexadecimal digits.
    pub fn hex(&self) -> String {
        hex(&self.digest)
    }

    pub(crate) fn new(algorithm: Algorithm, digits: &str) -> Result<Self, ChecksumError> {
        let checksum = parse_hex(digits).and_then(|digest| Self::from_digest(algorithm, digest));
        checksum.ok_or(ChecksumError::Digits(2 * algorithm.digest_len()))
    }

    /// Creates the checksum of a digest, unless that has another length.
    pub(crate) fn from_digest(algorithm: Algorithm, digest: Vec<u8>) -> Option<Self> {
        (digest.len() == algorithm.digest_len()).then_some(Self { algorithm, digest })
    }

    /// Parses the text of [`Checksum::to_text`], also of a CRC.
    pub(crate) fn from_text(text: &str) -> Result<Self, ChecksumError> {
        const CRCS: [Algorithm; 3] = [Algorithm::Crc32, Algorithm::Crc32c, Algorithm::Crc64Nvme];
        let (name, digits) = text.split_once('=').ok_or(ChecksumError::Form)?;
        let crc = CRCS.into_iter().find(|crc| crc.to_string() == name);
        crc.map_or_else(|| text.parse(), |crc| Self::new(crc, digits))
    }
}

impl FromStr for Checksum {
    type Err = ChecksumError;

    /// Parses `ALGORITHM=HEX`, `ALGORITHM:HEX`, or a digest whose length shows the algorithm: MD5,
    /// SHA-1, SHA-256 or SHA-512.
    fn from_str(text: &str) -> Result<Self, ChecksumError> {
        let Some((name, digits)) = text.split_once(['=', ':']) else {
            let digits = text.trim();
            let algorithm = Algorithm::from_hex_len(digits.len()).ok_or(ChecksumError::Form)?;
            return Self::new(algorithm, digits);
        };
        let algorithm = Algorithm::from_name(name.trim()).ok_or(ChecksumError::Algorithm)?;
        Self::new(algorithm, digits.trim())
    }
}

fn parse_hex(digits: &str) -> Option<Vec<u8>> {
    if !digits.is_ascii() {
        return None;
    }
    let pairs = (0..digits.len())
        .step_by(2)
        .map(|at| digits.get(at..at + 2));
    pairs
        .map(|pair| u8::from_str_radix(pair.filter(|pair| !pair.contains('+'))?, 16).ok())
        .collect()
}

/// Returns lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Computes the digest of the file at `path`.
pub(crate) fn digest_file(path: &Path, algorithm: Algorithm) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; READ_BUFFER_LEN];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// State of a digest computation.
pub(crate) enum Hasher {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
    Sha1(sha1::Sha1),
    Md5(md5::Md5),
    Blake3(Box<blake3::Hasher>),
    /// CRC, and the number of bytes of its value.
    Crc(crc_fast::Digest, usize),
}

impl Hasher {
    pub(crate) fn new(algorithm: Algorithm) -> Self {
        let crc = |crc| Self::Crc(crc_fast::Digest::new(crc), algorithm.digest_len());
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Box::new(sha2::Sha512::new())),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            Algorithm::Md5 => Self::Md5(md5::Md5::new()),
            Algorithm::Blake3 => Self::Blake3(Box::new(blake3::Hasher::new())),
            Algorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => drop(hasher.update(bytes)),
            Self::Crc(hasher, _) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        match self {
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Sha512(hasher) => hasher.finalize().to_vec(),
            Self::Sha1(hasher) => hasher.finalize().to_vec(),
            Self::Md5(hasher) => hasher.finalize().to_vec(),
            Self::Blake3(hasher) => hasher.finalize().as_bytes().to_vec(),
            Self::Crc(hasher, len) => {
                let value = hasher.finalize().to_be_bytes();
                value[value.len() - len..].to_vec()
            }
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of `abc` from the specifications.
    const ABC: [(&str, &str); 5] = [
        (
            "sha256",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        (
            "sha512",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("md5", "900150983cd24fb0d6963f7d28e17f72"),
        (
            "blake3",
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        ),
    ];

    #[test]
    fn digests_match_the_specifications() {
        for (name, digits) in ABC {
            let checksum: Checksum = format!("{name}={digits}").parse().unwrap();
            let mut hasher = Hasher::new(checksum.algorithm());
            hasher.update(b"a");
            hasher.update(b"bc");
            let digest = hasher.finish();
            assert!(checksum.matches(&digest), "{name}: {}", hex(&digest));
            assert_eq!(checksum.hex(), digits);
        }
    }

    /// The check values of the catalogue of CRCs.
    #[test]
    fn crcs_match_the_catalogue() {
        for (algorithm, check) in [
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32c, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
        ] {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"1234");
            hasher.update(b"56789");
            assert_eq!(hex(&hasher.finish()), check);
            let text = format!("{algorithm}={check}");
            assert_eq!(Checksum::from_text(&text).unwrap().to_text(), text);
            assert!(text.parse::<Checksum>().is_err());
        }
    }

    #[test]
    fn algorithm_names_have_several_spellings() {
        let digits = ABC[0].1;
        for name in ["sha256", "SHA256", "sha-256", "SHA2-256", " sha256 "] {
            assert!(
                format!("{name}={}", digits.to_uppercase())
                    .parse::<Checksum>()
                    .is_ok(),
                "{name}"
            );
        }
        assert!(format!("SHA-512={}", ABC[1].1).parse::<Checksum>().is_ok());
        assert!(format!("sha-1={}", ABC[2].1).parse::<Checksum>().is_ok());
    }

    #[test]
    fn invalid_checksums_are_rejected() {
        let digits = ABC[0].1;
        for (text, error) in [
            (digits[1..].to_owned(), ChecksumError::Form),
            (format!("sha3={digits}"), ChecksumError::Algorithm),
            (
                format!("sha256={}", &digits[1..]),
                ChecksumError::Digits(64),
            ),
            (format!("sha256={digits}0"), ChecksumError::Digits(64)),
            (
                format!("sha256=g{}", &digits[1..]),
                ChecksumError::Digits(64),
            ),
            (
                format!("sha256=+{}", &digits[1..]),
                ChecksumError::Digits(64),
            ),
            (
                format!("sha256=é{}", &digits[2..]),
                ChecksumError::Digits(64),
            ),
            ("md5=".to_owned(), ChecksumError::Digits(32)),
        ] {
            assert_eq!(text.parse::<Checksum>(), Err(error), "{text}");
        }
    }
}
