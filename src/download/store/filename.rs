//! Safe file names from URLs and servers.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use url::Url;

use crate::escape::is_unsafe;

/// Suffix of the name of an incomplete file.
pub(crate) const PART_SUFFIX: &str = ".part";

/// Endings of the names of partial files, which no download may get.
const RESERVED_SUFFIXES: [&str; 3] = [PART_SUFFIX, ".part.json", ".part.new"];

/// Maximum length of a name in bytes: the limit of file systems (255) less the longest suffix
/// (`.part.json`).
const MAX_NAME_LEN: usize = 255 - ".part.json".len();

/// Maximum length of an extension, with its dot, that is kept when a name is shortened.
const MAX_EXTENSION_LEN: usize = 32;

/// Name of a file whose URL contains none.
const DEFAULT_NAME: &str = "index.html";

/// Returns whether a name ends like that of a partial file, its state, or the temporary state of
/// an earlier version, in any case. A server that could choose such names could plant a part.
pub(crate) fn is_reserved(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes().to_ascii_lowercase();
    RESERVED_SUFFIXES
        .iter()
        .any(|suffix| name.ends_with(suffix.as_bytes()))
}

/// Returns a safe file name for `url`: the last segment of its path, percent-decoded. The name is
/// one path segment without control or bidirectional characters, neither `.` nor `..`, not longer
/// than file systems permit, and does not start with `-`, which programs take for an option.
pub(crate) fn from_url(url: &Url) -> String {
    let segment = last_segment(url);
    // A segment that is not UTF-8 stays encoded, so that distinct names stay distinct.
    let decoded = percent_decode_str(segment).decode_utf8();
    make_safe(decoded.as_deref().unwrap_or(segment))
}

/// Returns a safe file name for a URL that a server chose, by the rules of [`from_server`]. Returns
/// `None` if the URL contains none.
pub(crate) fn from_server_url(url: &Url) -> Option<String> {
    let segment = last_segment(url);
    let decoded = percent_decode_str(segment).decode_utf8();
    from_server(decoded.as_deref().unwrap_or(segment))
}

/// Returns a safe file name for a name that a server sent. In addition to the rules of
/// [`from_url`], a server cannot choose a hidden file or a name of a Windows device or stream.
/// Returns `None` if no character is left.
pub(crate) fn from_server(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = last.replace(|c| c == ':' || is_unsafe(c), "_");
    let name = name.trim_start_matches(' ').trim_end_matches(['.', ' ']);
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .trim_end_matches(' ');
    let prefix = if name.starts_with(['.', '-']) || is_device(stem) {
        "_"
    } else {
        ""
    };
    if name.is_empty() {
        return None;
    }
    let short = shorten(&format!("{prefix}{name}"), MAX_NAME_LEN);
    // Shortening may have left a dot or a space at the end.
    Some(unreserved(short.trim_end_matches(['.', ' ']).to_owned()))
}

fn last_segment(url: &Url) -> &str {
    url.path().rsplit('/').next().unwrap_or_default()
}

/// Returns whether the name is reserved for a device on Windows.
fn is_device(stem: &str) -> bool {
    let stem = stem.to_ascii_uppercase();
    let numbered = |kind| {
        let number = stem.strip_prefix(kind);
        number.is_some_and(|number| matches!(number.as_bytes(), [b'1'..=b'9']))
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL") || numbered("COM") || numbered("LPT")
}

fn make_safe(text: &str) -> String {
    let last = text.rsplit(['/', '\\']).next().unwrap_or_default();
    let mut name = last.replace(is_unsafe, "_");
    if matches!(name.as_str(), "" | "." | "..") {
        name = DEFAULT_NAME.to_owned();
    }
    if name.starts_with('-') {
        name.insert(0, '_');
    }
    unreserved(shorten(&name, MAX_NAME_LEN))
}

/// Appends `_` to a reserved name.
fn unreserved(name: String) -> String {
    if is_reserved(name.as_ref()) {
        shorten(&name, MAX_NAME_LEN - 1) + "_"
    } else {
        name
    }
}

/// Returns the name with a number, for a name that is taken: `f`, `f.1`, `f.2` …
pub(crate) fn numbered(name: &OsStr, number: u32) -> OsString {
    if number == 0 {
        return name.to_owned();
    }
    let suffix = format!(".{number}");
    let mut numbered = match name.to_str() {
        Some(text) => shorten(text, MAX_NAME_LEN.saturating_sub(suffix.len())).into(),
        None => name.to_owned(),
    };
    numbered.push(suffix);
    numbered
}

/// Returns the path with a number, as [`numbered`] does.
pub(crate) fn numbered_path(path: &Path, number: u32) -> PathBuf {
    path.with_file_name(numbered(path.file_name().unwrap_or_default(), number))
}

/// Returns the path of the part of a download with this final path.
pub(crate) fn part_path(target: &Path) -> PathBuf {
    let mut path = target.as_os_str().to_owned();
    path.push(PART_SUFFIX);
    path.into()
}

/// Shortens `name` to `max_len` bytes, between two characters, and keeps its extension.
fn shorten(name: &str, max_len: usize) -> String {
    if name.len() <= max_len {
        return name.to_owned();
    }
    let dot = name
        .rfind('.')
        .filter(|dot| name.len() - dot <= MAX_EXTENSION_LEN);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let mut end = max_len.saturating_sub(extension.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", &stem[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_name(path: &str, name: &str) {
        let url = Url::parse(&format!("http://host/{path}")).unwrap();
        assert_eq!(from_url(&url), name, "{path}");
    }

    #[test]
    fn last_segment_is_the_name() {
        assert_name("a.txt", "a.txt");
        assert_name("a/b/c.tar.gz", "c.tar.gz");
        assert_name("a.txt?version=1#top", "a.txt");
        assert_name("a%20b%C3%A9.txt", "a bé.txt");
        assert_name(".bashrc", ".bashrc");
        assert_name("a:b. ", "a:b.");
        assert_name("CON", "CON");
        assert_name("f.part", "f.part_");
        assert_name("f.PART.New", "f.PART.New_");
        assert_name("f.part%2Ejson", "f.part.json_");
        assert_name("f.part.gz", "f.part.gz");
    }

    #[test]
    fn url_without_a_name_gets_the_default() {
        for path in ["", "a/", "a/..", "a/%2e", "..%2f", "a/x%5c..", "?q"] {
            assert_name(path, "index.html");
        }
    }

    #[test]
    fn unsafe_names_are_replaced() {
        assert_name("..%2F..%2Fetc%2Fpasswd", "passwd");
        assert_name("..%5C..%5Cx", "x");
        assert_name("C:%5Cx", "x");
        assert_name("a%00b", "a_b");
        assert_name("a%1B%5D0;x%07", "a_]0;x_");
        assert_name("a%0Ab", "a_b");
        assert_name("gpj.%E2%80%AEexe", "gpj._exe");
        assert_name("-rf", "_-rf");
        assert_name("%2Drf", "_-rf");
    }

    #[test]
    fn invalid_utf8_stays_percent_encoded() {
        assert_name("a%FFb", "a%FFb");
        assert_name("100%", "100%");
    }

    #[test]
    fn long_name_is_cut_and_keeps_its_extension() {
        let x = |count| "x".repeat(count);
        assert_name(&x(245), &x(245));
        assert_name(&x(246), &x(245));
        assert_name(&format!("{}.tar", x(400)), &format!("{}.tar", x(241)));
        assert_name(
            &format!("{}.jpg", "é".repeat(200)),
            &format!("{}.jpg", "é".repeat(120)),
        );
        assert_name(&format!("a.{}", x(400)), &format!("a.{}", x(243)));
    }

    #[test]
    fn unsafe_server_names_are_replaced() {
        for (input, name) in [
            ("f.txt", Some("f.txt")),
            ("../../etc/passwd", Some("passwd")),
            ("..\\x", Some("x")),
            ("/abs", Some("abs")),
            ("C:\\x", Some("x")),
            ("C:x", Some("C_x")),
            ("a\0b", Some("a_b")),
            ("\u{1b}[31m", Some("_[31m")),
            ("gpj.\u{202e}exe", Some("gpj._exe")),
            ("CON", Some("_CON")),
            ("nul.txt", Some("_nul.txt")),
            ("COM1 .x", Some("_COM1 .x")),
            ("COM0", Some("COM0")),
            ("console", Some("console")),
            (".bashrc", Some("_.bashrc")),
            (" .bashrc", Some("_.bashrc")),
            ("-rf", Some("_-rf")),
            ("f. . ", Some("f")),
            ("100%25", Some("100%25")),
            ("f.part", Some("f.part_")),
            ("f.Part.JSON. ", Some("f.Part.JSON_")),
            (".part", Some("_.part_")),
            (".", None),
            ("..", None),
            ("", None),
            ("a/", None),
            (" ", None),
        ] {
            assert_eq!(from_server(input).as_deref(), name, "{input:?}");
        }
        assert_eq!(from_server(&"x".repeat(400)).unwrap().len(), MAX_NAME_LEN);
        let spaced = format!("{}. {}", "x".repeat(MAX_NAME_LEN - 2), "y".repeat(100));
        assert_eq!(from_server(&spaced).unwrap(), "x".repeat(MAX_NAME_LEN - 2));
    }

    #[test]
    fn names_of_redirect_targets_are_those_of_servers() {
        for (path, name) in [
            ("a/f%20g.txt?x", Some("f g.txt")),
            (".bashrc", Some("_.bashrc")),
            ("CON", Some("_CON")),
            ("a%FFb", Some("a%FFb")),
            ("a/", None),
            ("..%2f", None),
        ] {
            let url = Url::parse(&format!("http://host/{path}")).unwrap();
            assert_eq!(from_server_url(&url).as_deref(), name, "{path}");
        }
    }

    #[test]
    fn random_names_are_safe() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let letters: Vec<char> = "ab./\\:-_ \0\n\u{1b}\u{202e}é%€".chars().collect();
        for _ in 0..20_000 {
            let length = random.usize(..300);
            let input: String = (0..length)
                .map(|_| letters[random.usize(..letters.len())])
                .collect();
            let url = Url::parse("http://h/").unwrap().join(&input).ok();
            for name in from_server(&input)
                .into_iter()
                .chain(url.as_ref().map(from_url))
                .chain(url.as_ref().and_then(from_server_url))
            {
                let is_safe = !name.is_empty()
                    && name.len() <= MAX_NAME_LEN
                    && !matches!(name.as_str(), "." | "..")
                    && !is_reserved(name.as_ref())
                    && !name.starts_with('-')
                    && !name.contains(['/', '\\'])
                    && !name.contains(is_unsafe);
                assert!(is_safe, "seed {seed}: {input:?} becomes {name:?}");
            }
        }
    }

    #[test]
    fn numbered_names_respect_the_length_limit() {
        let number = |name: &str, n| numbered(OsStr::new(name), n).into_string().unwrap();
        assert_eq!(number("f.txt", 0), "f.txt");
        assert_eq!(number("f.txt", 12), "f.txt.12");
        let long = format!("{}.txt", "x".repeat(241));
        assert_eq!(number(&long, 1), format!("{}.txt.1", "x".repeat(239)));
    }
}
