//! Parts of one line of a list.

use crate::checksum::Checksum;
use crate::download::error::LineError;
use crate::download::input::item::mask_authority;

/// Maximum length of a line in bytes, without its end.
pub(super) const MAX_LINE_LEN: usize = 64 * 1024;

/// Maximum number of characters of an invalid line that its error contains.
const MAX_SHOWN_CHARS: usize = 300;

/// Number of bytes at the start of a list that reveal UTF-16.
const MAX_ENCODING_SAMPLE_LEN: usize = 64;

/// Returns the text of a line.
pub(super) fn text(line: &[u8]) -> Result<&str, LineError> {
    if line.len() > MAX_LINE_LEN {
        return Err(LineError::TooLong {
            limit: MAX_LINE_LEN,
        });
    }
    std::str::from_utf8(line).map_err(|_| LineError::InvalidUtf8)
}

/// Returns the line without a comment at its end, which a blank separates from the URL.
pub(super) fn without_comment(line: &str) -> &str {
    let comments = line.match_indices('#');
    let mut starts = comments.filter(|(at, _)| line[..*at].ends_with([' ', '\t']));
    let end = starts.next().map_or(line.len(), |(at, _)| at);
    line[..end].trim_end()
}

/// Splits off a checksum at the start of a line, in the format of sha256sum and its relatives. Its
/// length determines its algorithm.
pub(super) fn split_checksum(line: &str) -> (Option<Checksum>, &str) {
    let (digits, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let Some(checksum) = Checksum::from_hex(digits) else {
        return (None, line);
    };
    let url = rest.trim_start();
    (Some(checksum), url.strip_prefix('*').unwrap_or(url))
}

/// Rejects the URLs of a line, separated by tabs, if the line has another format. Its text would
/// otherwise be one wrong URL.
pub(super) fn check_urls(urls: &str) -> Result<(), LineError> {
    // Valid in a URL only behind its start.
    const OPENING_QUOTES: [char; 8] = ['\'', '`', '“', '”', '„', '‘', '’', '«'];
    let unexpected = |found| Err(LineError::UnexpectedText { found });
    if urls.contains('\0') {
        return unexpected("NUL byte");
    }
    if urls.contains('\r') {
        return unexpected("carriage return");
    }
    for url in urls.split('\t').map(str::trim) {
        if url.contains('"') || url.starts_with(OPENING_QUOTES) {
            return unexpected("quotation mark");
        }
        if has_second_url(url) {
            return unexpected("comma between URLs");
        }
        if url.contains(char::is_whitespace) {
            return unexpected("blank");
        }
    }
    Ok(())
}

/// Returns whether another URL follows a comma. After a further `://` it is part of a value.
fn has_second_url(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let starts = [",http://", ",https://"].map(|start| lower.find(start));
    let comma = starts.into_iter().flatten().min();
    comma.is_some_and(|comma| lower[..comma].matches("://").count() < 2)
}

/// Returns whether the first line of a list is UTF-16, with a byte order mark or without one.
pub(super) fn is_utf16(line: &[u8]) -> bool {
    let sample = &line[..line.len().min(MAX_ENCODING_SAMPLE_LEN)];
    let has_only_nuls =
        |offset| sample.len() >= 4 && sample.iter().skip(offset).step_by(2).all(|byte| *byte == 0);
    line.starts_with(b"\xff\xfe")
        || line.starts_with(b"\xfe\xff")
        || has_only_nuls(0)
        || has_only_nuls(1)
}

/// Returns an invalid line for its error, without passwords and shortened.
pub(super) fn for_error(line: &[u8]) -> String {
    let head = &line[..line.len().min(MAX_LINE_LEN)];
    let text = String::from_utf8_lossy(head);
    let masked: Vec<_> = text.split("://").map(mask_authority).collect();
    let masked = masked.join("://");
    match masked.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &masked[..end]),
        None => masked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_other_formats_are_rejected() {
        for (line, found) in [
            ("\"http://a/\"", "quotation mark"),
            ("http://a/\t'http://b/'", "quotation mark"),
            ("“http://a/”", "quotation mark"),
            ("http://a/,http://b/", "comma between URLs"),
            ("http://a/?b,HTTPS://c/", "comma between URLs"),
            ("a/b,http://c", "comma between URLs"),
            ("http://a/ b", "blank"),
            ("http://a/\u{a0}b", "blank"),
            ("http://a/, http://b/", "blank"),
            ("http://a/\0", "NUL byte"),
            ("http://a/\rhttp://b/", "carriage return"),
        ] {
            let error = check_urls(line).unwrap_err().to_string();
            assert!(error.starts_with(found), "{line:?}: {error}");
        }
        for line in [
            "http://a/it's",
            "http://a/b,c",
            "http://a/?u=http://b,http://c",
            "http://a/\t http://b/ ",
        ] {
            assert!(check_urls(line).is_ok(), "{line:?}");
        }
    }

    #[test]
    fn comments_may_follow_a_url() {
        for (line, url) in [
            ("http://a/#b", "http://a/#b"),
            ("http://a/ # b # c", "http://a/"),
            ("http://a/\t#", "http://a/"),
            ("http://a/#b #c", "http://a/#b"),
        ] {
            assert_eq!(without_comment(line), url, "{line:?}");
        }
    }

    #[test]
    fn utf16_is_recognised() {
        let encoded = |text: &str, is_big: bool| -> Vec<u8> {
            let units = text.encode_utf16();
            let bytes = |unit: u16| {
                if is_big {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            };
            units.flat_map(bytes).collect()
        };
        for is_big in [false, true] {
            assert!(is_utf16(&encoded("http://a/", is_big)));
            assert!(is_utf16(&encoded("\u{feff}é", is_big)));
        }
        for line in ["http://a/", "\u{feff}http://a/", "ab", "a\0b"] {
            assert!(!is_utf16(line.as_bytes()), "{line:?}");
        }
    }

    #[test]
    fn shown_lines_have_no_passwords_and_are_shortened() {
        let shown = |line: &str| for_error(line.as_bytes());
        assert_eq!(
            shown("\"http://u:p@a/\",http://v:q@b/@c"),
            "\"http://***@a/\",http://***@b/@c"
        );
        assert_eq!(shown("u:p@a b"), "***@a b");
        assert_eq!(for_error(b"a\xff"), "a\u{fffd}");
        assert_eq!(shown(&"é".repeat(1000)).chars().count(), 301);
    }
}
