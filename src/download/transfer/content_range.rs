//! Parser of `Content-Range` (RFC 9110 section 14.4).

use crate::digits::parse_digits;

/// `Content-Range` in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentRange {
    /// The bytes from `first` to `last` inclusive, of `total` if known.
    Part {
        first: u64,
        last: u64,
        total: Option<u64>,
    },
    /// Unsatisfied range; the file has `total` bytes.
    None { total: u64 },
}

impl ContentRange {
    /// Parses a value. Returns `None` for other units and for inconsistent values.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        let (unit, rest) = text.split_once(' ')?;
        let (range, total) = rest.trim_start_matches(' ').split_once('/')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        if range == "*" {
            return Some(Self::None {
                total: parse_digits(total.as_bytes())?,
            });
        }
        let total = if total == "*" {
            None
        } else {
            Some(parse_digits(total.as_bytes())?)
        };
        let (first, last) = range.split_once('-')?;
        let first = parse_digits(first.as_bytes())?;
        let last = parse_digits(last.as_bytes())?;
        let is_sound = first <= last && last < total.unwrap_or(u64::MAX);
        is_sound.then_some(Self::Part { first, last, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(value: &str, range: Option<ContentRange>) {
        assert_eq!(ContentRange::parse(value.as_bytes()), range, "{value:?}");
    }

    fn part(first: u64, last: u64, total: Option<u64>) -> Option<ContentRange> {
        Some(ContentRange::Part { first, last, total })
    }

    #[test]
    fn valid_ranges_are_parsed() {
        reads("bytes 0-0/1", part(0, 0, Some(1)));
        reads("bytes 42-1233/1234", part(42, 1233, Some(1234)));
        reads("bytes 42-1233/*", part(42, 1233, None));
        reads("Bytes  5-6/7 ", part(5, 6, Some(7)));
        reads("bytes */1234", Some(ContentRange::None { total: 1234 }));
    }

    #[test]
    fn inconsistent_ranges_are_rejected() {
        for value in [
            "",
            "bytes",
            "bytes 0-1",
            "bytes=0-1/2",
            "lines 0-1/2",
            "bytes 2-1/5",
            "bytes 0-5/5",
            "bytes */*",
            "bytes -1/5",
            "bytes 1-/5",
            "bytes +1-2/5",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "bytes a-b/c",
        ] {
            reads(value, None);
        }
    }

    #[test]
    fn random_ranges_are_consistent() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..10_000 {
            let first = random.u64(..1 << 40);
            let last = first + random.u64(..1 << 40);
            let total = last + 1 + random.u64(..1 << 40);
            reads(
                &format!("bytes {first}-{last}/{total}"),
                part(first, last, Some(total)),
            );
            let length = random.usize(..24);
            let noise: Vec<u8> = (0..length)
                .map(|_| b"bytes 0123456789-/*"[random.usize(..19)])
                .collect();
            let noise = [b"bytes ", &noise[..]].concat();
            if let Some(ContentRange::Part { first, last, total }) = ContentRange::parse(&noise) {
                let sound = first <= last && last < total.unwrap_or(u64::MAX);
                assert!(sound, "seed {seed}: {:?}", String::from_utf8_lossy(&noise));
            }
        }
    }
}
