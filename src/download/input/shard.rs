//! Deterministic shards of a list.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// Shard of a list. Membership depends only on the text of the URL.
///
/// A URL belongs to the shard whose index is the first four bytes of the SHA-256 of its text, as a
/// big-endian number, modulo the number of shards:
/// `$((16#$(printf %s "$URL" | sha256sum | head -c 8) % N))`.
///
/// ```
/// use myapp::download::Shard;
///
/// let shard: Shard = "1/3".parse().unwrap();
/// assert!(shard.has("https://example.com/a"));
/// assert!(!shard.has("https://example.com/d"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    count: NonZeroU32,
}

/// Text that is not a [`Shard`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form I/N with I from 0 to N - 1")]
pub struct ShardError;

impl Shard {
    /// Returns whether the URL, as written in the list, is in this shard.
    pub fn has(self, url: &str) -> bool {
        let digest = Sha256::digest(url);
        let start = digest
            .iter()
            .take(4)
            .fold(0, |start, byte| start << 8 | u32::from(*byte));
        start % self.count == self.index
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let (index, count) = text.split_once('/').ok_or(ShardError)?;
        let index = index.parse().map_err(|_| ShardError)?;
        let count: NonZeroU32 = count.parse().map_err(|_| ShardError)?;
        if index < count.get() {
            Ok(Self { index, count })
        } else {
            Err(ShardError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(text: &str) -> Shard {
        text.parse().unwrap()
    }

    #[test]
    fn each_url_is_in_one_shard_of_about_equal_size() {
        for count in [1, 2, 3, 7, 100] {
            let mut sizes = vec![0; count];
            for number in 0..10_000 {
                let url = format!("https://example.com/{number}");
                let parts = (0..count).map(|index| shard(&format!("{index}/{count}")));
                let holders: Vec<_> = parts
                    .enumerate()
                    .filter(|(_, part)| part.has(&url))
                    .collect();
                assert_eq!(holders.len(), 1, "{url} of {count}");
                sizes[holders[0].0] += 1;
            }
            let mean = 10_000 / count;
            assert!(
                sizes
                    .iter()
                    .all(|size| (mean / 2..=mean * 2).contains(size)),
                "{sizes:?}"
            );
        }
    }

    #[test]
    fn shards_match_sha256sum() {
        // printf %s https://example.com/a | sha256sum
        for (url, start) in [
            ("https://example.com/a", 0x2dce_0a4c_u32),
            ("", 0xe3b0_c442),
        ] {
            let count = 1_000_003;
            assert!(
                shard(&format!("{}/{count}", start % count)).has(url),
                "{url}"
            );
        }
    }

    #[test]
    fn invalid_shards_are_rejected() {
        for text in [
            "",
            "1",
            "/",
            "3/3",
            "0/0",
            "-1/2",
            "1/2/3",
            "1.0/2",
            "0/4294967296",
        ] {
            assert_eq!(text.parse::<Shard>(), Err(ShardError), "{text}");
        }
    }
}
