//! Encoded words of mail headers (RFC 2047), which some servers send in `Content-Disposition`.
//!
//! The crates for these need a table of all charsets of mail; servers send UTF-8 or ISO 8859-1.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Base64 with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Decodes the encoded words in `text`. Blanks between two of them are dropped (RFC 2047 section
/// 6.2). Returns `None` if one of them cannot be decoded.
pub(super) fn decode_words(text: &str) -> Option<String> {
    let mut decoded = String::new();
    let mut rest = text;
    let mut is_after_word = false;
    while let Some((before, word, after)) = next_word(rest) {
        if !(is_after_word && before.trim().is_empty()) {
            decoded.push_str(before);
        }
        decoded.push_str(&word.decode()?);
        rest = after;
        is_after_word = true;
    }
    decoded.push_str(rest);
    Some(decoded)
}

/// Parts of `=?charset?encoding?text?=`.
struct EncodedWord<'a> {
    charset: &'a str,
    encoding: &'a str,
    text: &'a str,
}

/// Returns the first encoded word of `text`, and the text before and after it.
fn next_word(text: &str) -> Option<(&str, EncodedWord<'_>, &str)> {
    let (before, rest) = text.split_once("=?")?;
    let (charset, rest) = rest.split_once('?')?;
    let (encoding, rest) = rest.split_once('?')?;
    let (text, after) = rest.split_once("?=")?;
    let word = EncodedWord {
        charset,
        encoding,
        text,
    };
    Some((before, word, after))
}

impl EncodedWord<'_> {
    fn decode(&self) -> Option<String> {
        let bytes = match self.encoding {
            "B" | "b" => BASE64.decode(self.text).ok()?,
            "Q" | "q" => decode_q(self.text.as_bytes())?,
            _ => return None,
        };
        // A language may follow the charset (RFC 2231 section 5).
        let charset = self.charset.split('*').next().unwrap_or_default();
        match charset.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" | "us-ascii" => String::from_utf8(bytes).ok(),
            "iso-8859-1" | "latin1" => Some(latin_1(&bytes)),
            _ => None,
        }
    }
}

/// Decodes the Q encoding (RFC 2047 section 4.2): `_` is a space, `=E9` a byte.
fn decode_q(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    while let Some((&first, rest)) = text.split_first() {
        text = rest;
        bytes.push(match first {
            b'_' => b' ',
            b'=' => {
                let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
                if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                    return None;
                }
                text = &rest[2..];
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}

/// Decodes ISO 8859-1, whose characters are the first of Unicode.
pub(super) fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_decoded() {
        for (text, decoded) in [
            ("plain ?= =? text", Some("plain ?= =? text")),
            ("=?utf-8?B?w6k=?=", Some("é")),
            ("=?utf8?b?w6k?=", Some("é")),
            ("=?UTF-8*fr?Q?a_b=C3=a9?=", Some("a bé")),
            ("=?iso-8859-1?q?=E9?=.txt", Some("é.txt")),
            ("a =?us-ascii?q?b?= \t =?us-ascii?q?c?= d", Some("a bc d")),
            ("=?us-ascii?q??=", Some("")),
            ("=?utf-8?Q?=FF?=", None),
            ("=?utf-8?Q?=F?=", None),
            ("=?utf-8?Q?=+F?=", None),
            ("=?utf-8?B?*?=", None),
            ("=?utf-8?X?a?=", None),
            ("=?koi8-r?Q?a?=", None),
        ] {
            assert_eq!(decode_words(text).as_deref(), decoded, "{text}");
        }
    }
}
