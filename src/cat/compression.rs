//! Compression formats, recognized by their first bytes.

/// Number of bytes needed to recognize a format.
pub(super) const MAX_MAGIC_LEN: usize = 13;

/// Format that can be decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Bzip2,
    Zstd,
    Xz,
}

impl Format {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        }
    }
}

/// Format of compressed data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Magic {
    Supported(Format),
    /// Name of a format that cannot be decompressed.
    Unsupported(&'static str),
}

impl Magic {
    /// Returns the format of data that starts with `head`; none for data that is not compressed.
    pub(super) fn detect(head: &[u8]) -> Option<Self> {
        Some(match head {
            // RFC 1952, section 2.3.1; 8 is the only compression method.
            [0x1f, 0x8b] | [0x1f, 0x8b, 8, ..] => Self::Supported(Format::Gzip),
            // The level, and then the start of a block or the end of an empty stream.
            [b'B', b'Z', b'h', b'1'..=b'9'] => Self::Supported(Format::Bzip2),
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..] => Self::Supported(Format::Bzip2),
            // RFC 8878, sections 3.1.1 and 3.1.2: a frame or a skippable frame.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Self::Supported(Format::Zstd)
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Supported(Format::Xz),
            [0x1f, 0x8b, ..] => Self::Unsupported("gzip with an unknown method"),
            [0x04, 0x22, 0x4d, 0x18, ..] | [0x02, 0x21, 0x4c, 0x18, ..] => Self::Unsupported("lz4"),
            [0x1f, 0x9d, ..] => Self::Unsupported("compress (.Z)"),
            [0x1f, 0x1e, ..] => Self::Unsupported("pack (.z)"),
            [0x1f, 0xa0, ..] => Self::Unsupported("SCO compress -H"),
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] | [b'P', b'K', 7, 8, ..] => {
                Self::Unsupported("zip")
            }
            [b'L', b'Z', b'I', b'P', 0 | 1, ..] => Self::Unsupported("lzip"),
            [0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a, ..] => Self::Unsupported("lzop"),
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => Self::Unsupported("7z"),
            [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => Self::Unsupported("rar"),
            [0xff, 6, 0, 0, b's', b'N', b'a', b'P', b'p', b'Y', ..] => Self::Unsupported("snappy"),
            _ if is_lzma(head) => Self::Unsupported("lzma"),
            _ => return None,
        })
    }
}

/// Returns whether data starts with a .lzma header. It has no magic number: xz, too, recognizes it by
/// the usual properties, a plausible dictionary size, and an unknown or plausible length.
fn is_lzma(head: &[u8]) -> bool {
    let [0x5d, rest @ ..] = head else {
        return false;
    };
    let Some((dictionary, rest)) = rest.split_first_chunk() else {
        return false;
    };
    let Some((length, _)) = rest.split_first_chunk() else {
        return false;
    };
    let dictionary = u32::from_le_bytes(*dictionary);
    let length = u64::from_le_bytes(*length);
    let is_round = dictionary.count_ones() == 1
        || dictionary.count_ones() == 2 && dictionary & (dictionary >> 1) != 0;
    is_round && dictionary >= 4096 && (length == u64::MAX || length < 1 << 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognized_by_their_first_bytes() {
        let lzma = [0x5d, 0, 0, 0x80, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        let unknown_length = [0x5d, 0, 0, 0x80, 0, 255, 255, 255, 255, 255, 255, 255, 255];
        for (head, name) in [
            (&b"\x1f\x8b\x08\x00"[..], "gzip"),
            (b"BZh91AY&SY", "bzip2"),
            (b"BZh9\x17rE8P\x90", "bzip2"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"\x5f\x2a\x4d\x18", "zstd"),
            (b"\xfd7zXZ\x00\x00", "xz"),
            (b"\x04\x22\x4d\x18", "lz4"),
            (b"\x1f\x9d\x90", "compress (.Z)"),
            (b"PK\x03\x04", "zip"),
            (b"LZIP\x01", "lzip"),
            (b"\x1f\x8b\x07", "gzip with an unknown method"),
            (&lzma, "lzma"),
            (&unknown_length, "lzma"),
            (b"", ""),
            (b"\x1f", ""),
            (b"BZhello", ""),
            (b"BZh9 is a name", ""),
            (b"PK and more", ""),
            (b"LZIPPER", ""),
            (b"]aaaaaaaaaaaa", ""),
            (&lzma[..12], ""),
        ] {
            let found = match Magic::detect(head) {
                None => "",
                Some(Magic::Supported(format)) => format.name(),
                Some(Magic::Unsupported(name)) => name,
            };
            assert_eq!(found, name, "{head:?}");
        }
    }
}
