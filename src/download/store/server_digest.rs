//! Digests of a file in the header fields of a response.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::checksum::{Algorithm, Checksum, ChecksumError, hex};
use crate::download::error::Error;

/// Digest of the complete representation, with the field that contained it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct ServerDigest {
    field: DigestField,
    checksum: Checksum,
}

/// Header field with digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DigestField {
    /// RFC 9530. It is the only one that a mismatch makes an error: others are often those of a
    /// stored object that a server or a proxy has transformed since.
    ReprDigest,
    /// RFC 3230.
    Digest,
    /// Amazon S3 and compatible servers.
    AmzChecksum,
    /// Google Cloud Storage.
    GoogHash,
    /// RFC 1864.
    ContentMd5,
}

impl DigestField {
    /// By preference.
    const ALL: [Self; 5] = [
        Self::ReprDigest,
        Self::Digest,
        Self::AmzChecksum,
        Self::GoogHash,
        Self::ContentMd5,
    ];

    /// Returns the name of the field; several fields share the prefix of Amazon.
    fn name(self) -> &'static str {
        match self {
            Self::ReprDigest => "Repr-Digest",
            Self::Digest => "Digest",
            Self::AmzChecksum => "x-amz-checksum",
            Self::GoogHash => "x-goog-hash",
            Self::ContentMd5 => "Content-MD5",
        }
    }

    /// Returns the digest in a response of this status. `values` returns those of a field.
    fn read<'a, V: Iterator<Item = &'a [u8]>>(
        self,
        status: u16,
        values: &impl Fn(&'static str) -> V,
    ) -> Option<Checksum> {
        // Of a range, these have the digest of the range, or one that is undefined.
        let is_of_content = matches!(self, Self::AmzChecksum | Self::ContentMd5);
        if is_of_content && status != 200 {
            return None;
        }
        let has = |name, value: &[u8]| values(name).any(|one| one.eq_ignore_ascii_case(value));
        match self {
            Self::ReprDigest => {
                let algorithms = [
                    ("sha-256", Algorithm::Sha256),
                    ("sha-512", Algorithm::Sha512),
                ];
                find_member(values("repr-digest"), &algorithms, |value| {
                    // A byte sequence (RFC 9651 section 3.3.5), perhaps with parameters.
                    value
                        .strip_prefix(':')?
                        .split_once(':')
                        .map(|(text, _)| text)
                })
            }
            Self::Digest => {
                let algorithms = [
                    ("sha-256", Algorithm::Sha256),
                    ("sha-512", Algorithm::Sha512),
                    ("sha", Algorithm::Sha1),
                    ("md5", Algorithm::Md5),
                ];
                find_member(values("digest"), &algorithms, Some)
            }
            // The digest of the digests of parts.
            Self::AmzChecksum if has("x-amz-checksum-type", b"COMPOSITE") => None,
            Self::AmzChecksum => [
                ("x-amz-checksum-sha256", Algorithm::Sha256),
                ("x-amz-checksum-sha1", Algorithm::Sha1),
                ("x-amz-checksum-crc64nvme", Algorithm::Crc64Nvme),
                ("x-amz-checksum-crc32c", Algorithm::Crc32c),
                ("x-amz-checksum-crc32", Algorithm::Crc32),
            ]
            .into_iter()
            .find_map(|(name, algorithm)| decode(algorithm, text(values(name).next()?)?)),
            // The stored object is compressed, and was decompressed for this response.
            Self::GoogHash
                if values("content-encoding").next().is_none()
                    && values("x-goog-stored-content-encoding")
                        .any(|coding| !coding.eq_ignore_ascii_case(b"identity")) =>
            {
                None
            }
            Self::GoogHash => {
                let algorithms = [("crc32c", Algorithm::Crc32c), ("md5", Algorithm::Md5)];
                find_member(values("x-goog-hash"), &algorithms, Some)
            }
            Self::ContentMd5 => decode(Algorithm::Md5, text(values("content-md5").next()?)?),
        }
    }
}

impl ServerDigest {
    /// Returns the digest of the complete representation in a response of this status. `values`
    /// returns those of a field. Unsupported and malformed digests are ignored.
    pub(crate) fn of_response<'a, V: Iterator<Item = &'a [u8]>>(
        status: u16,
        values: impl Fn(&'static str) -> V,
    ) -> Option<Self> {
        DigestField::ALL.into_iter().find_map(|field| {
            let checksum = field.read(status, &values)?;
            Some(Self { field, checksum })
        })
    }

    /// Returns the name of the field.
    pub(crate) fn field(&self) -> &'static str {
        self.field.name()
    }

    /// Returns the expected digest.
    pub(crate) fn checksum(&self) -> &Checksum {
        &self.checksum
    }

    /// Returns the error of a file with another digest.
    pub(crate) fn mismatch(&self, found: &[u8]) -> Option<Error> {
        let is_mismatch = !self.checksum.matches(found);
        is_mismatch.then(|| Error::DigestMismatch {
            field: self.field(),
            algorithm: self.checksum.algorithm(),
            expected: self.checksum.hex(),
            found: hex(found),
        })
    }

    /// Returns whether other bytes are not the file.
    pub(crate) fn is_binding(&self) -> bool {
        self.field == DigestField::ReprDigest
    }
}

impl fmt::Display for ServerDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field(), self.checksum.to_text())
    }
}

impl From<ServerDigest> for String {
    fn from(digest: ServerDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for ServerDigest {
    type Error = ChecksumError;

    fn try_from(text: String) -> Result<Self, ChecksumError> {
        let (name, checksum) = text.split_once(' ').ok_or(ChecksumError::Form)?;
        let mut fields = DigestField::ALL.into_iter();
        let field = fields.find(|field| field.name() == name);
        Ok(Self {
            field: field.ok_or(ChecksumError::Form)?,
            checksum: Checksum::from_text(checksum)?,
        })
    }
}

/// Returns the first of the `algorithms` among the members `NAME=VALUE` of a field, separated by
/// commas.
fn find_member<'a>(
    values: impl Iterator<Item = &'a [u8]>,
    algorithms: &[(&str, Algorithm)],
    unwrap: impl Fn(&'a str) -> Option<&'a str>,
) -> Option<Checksum> {
    let members: Vec<_> = values
        .filter_map(text)
        .flat_map(|value| value.split(','))
        .filter_map(|member| member.trim().split_once('='))
        .collect();
    algorithms.iter().find_map(|(name, algorithm)| {
        let is_this = |(found, _): &&(&str, &str)| found.eq_ignore_ascii_case(name);
        let (_, value) = members.iter().find(is_this)?;
        decode(*algorithm, unwrap(value)?)
    })
}

fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok()
}

/// Decodes a digest in base64. One of a composite object ends with the number of parts, which is
/// not base64.
fn decode(algorithm: Algorithm, value: &str) -> Option<Checksum> {
    let digest = STANDARD.decode(value.trim()).ok()?;
    Checksum::from_digest(algorithm, digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";

    /// Returns the digest in a response with these fields.
    fn digest(status: u16, fields: &[(&str, &str)]) -> Option<String> {
        let digest = ServerDigest::of_response(status, |name| {
            let named = fields.iter().filter(move |(field, _)| *field == name);
            named.map(|(_, value)| value.as_bytes())
        });
        digest.map(|digest| {
            let text = digest.to_string();
            assert_eq!(ServerDigest::try_from(text.clone()), Ok(digest));
            text
        })
    }

    #[track_caller]
    fn assert_digest(fields: &[(&str, &str)], expected: Option<&str>) {
        let found = digest(200, fields);
        assert_eq!(found.as_deref(), expected, "{fields:?}");
    }

    #[test]
    fn fields_of_several_servers_are_read() {
        let sha256 = "sha256=ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let repr = format!("md5=:x:, SHA-256=:{SHA256}:;p");
        let digest = format!("SHA-256={SHA256}");
        for (field, value, found) in [
            ("repr-digest", &repr[..], format!("Repr-Digest {sha256}")),
            ("digest", &digest, format!("Digest {sha256}")),
            (
                "x-amz-checksum-sha256",
                SHA256,
                format!("x-amz-checksum {sha256}"),
            ),
            (
                "x-amz-checksum-crc32",
                "NSRBwg==",
                "x-amz-checksum crc32=352441c2".to_owned(),
            ),
            (
                "x-goog-hash",
                "crc32c=Nks/tw==",
                "x-goog-hash crc32c=364b3fb7".to_owned(),
            ),
            (
                "content-md5",
                "kAFQmDzST7DWlj99KOF/cg==",
                "Content-MD5 md5=900150983cd24fb0d6963f7d28e17f72".to_owned(),
            ),
        ] {
            assert_digest(&[(field, value)], Some(&found));
        }
        let goog = ("x-goog-hash", "md5=kAFQmDzST7DWlj99KOF/cg==");
        assert_digest(
            &[
                goog,
                ("x-goog-hash", "crc32c=Nks/tw=="),
                ("content-md5", "x"),
            ],
            Some("x-goog-hash crc32c=364b3fb7"),
        );
    }

    #[test]
    fn unusable_digests_are_ignored() {
        let composite = format!("{SHA256}-3");
        for fields in [
            &[("repr-digest", SHA256)][..],
            &[("repr-digest", "sha-256=:AAAA:, sha-512=x")],
            &[("digest", "unixsum=3")],
            &[("content-md5", "kAFQmDzST7DWlj99KOF")],
            &[("x-amz-checksum-sha256", &composite)],
            &[
                ("x-amz-checksum-sha256", SHA256),
                ("x-amz-checksum-type", "COMPOSITE"),
            ],
            &[
                ("x-goog-hash", "crc32c=Nks/tw=="),
                ("x-goog-stored-content-encoding", "gzip"),
            ],
        ] {
            assert_digest(fields, None);
        }
    }

    #[test]
    fn digest_of_a_range_is_not_that_of_the_file() {
        assert_eq!(
            digest(206, &[("content-md5", "kAFQmDzST7DWlj99KOF/cg==")]),
            None
        );
        assert_eq!(digest(206, &[("x-amz-checksum-sha256", SHA256)]), None);
        let repr = format!("sha-256=:{SHA256}:");
        assert!(digest(206, &[("repr-digest", &repr)]).is_some());
    }
}
