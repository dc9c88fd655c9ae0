//! File names out of URLs, made safe.

use std::ffi::{OsStr, OsString};

use percent_encoding::percent_decode_str;
use url::Url;

use crate::escape::is_unsafe;

/// What stands behind a name while its file is written.
pub(crate) const PART: &str = ".part";

/// The longest name: what file systems take (255 bytes), less the longest that is put behind a
/// name (`.part.json`).
const LONGEST: usize = 255 - ".part.json".len();

/// A name with more than this behind its last dot has no extension worth keeping.
const LONGEST_EXTENSION: usize = 32;

/// The name of a file whose URL has none.
const NAMELESS: &str = "index.html";

/// The file name of what `url` names: the last segment of its path, percent-decoded, then made
/// safe: one segment, no control or bidirectional character, never `.` or `..`, not so long that
/// file systems refuse it, and no `-` in front, which programs would take for an option.
pub(crate) fn from_url(url: &Url) -> String {
    let segment = url.path().rsplit('/').next().unwrap_or_default();
    // What does not decode to text keeps its percent signs: no two such names become one.
    let decoded = percent_decode_str(segment).decode_utf8();
    make_safe(decoded.as_deref().unwrap_or(segment))
}

/// The file name out of what a server says, made safe as [`from_url`] does, and more: strangers
/// choose neither hidden files nor names that other systems take for devices or streams. `None`
/// if nothing is left.
pub(crate) fn from_server(said: &str) -> Option<String> {
    let last = said.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = last.replace(|c| c == ':' || is_unsafe(c), "_");
    let name = name.trim_start_matches(' ').trim_end_matches(['.', ' ']);
    let stem = name
        .split('.')
        .next()
        .unwrap_or_default()
        .trim_end_matches(' ');
    let guard = if name.starts_with(['.', '-']) || is_device(stem) {
        "_"
    } else {
        ""
    };
    let short = shorten(&format!("{guard}{name}"), LONGEST);
    // The cut may have come behind one of those again.
    (!name.is_empty()).then(|| short.trim_end_matches(['.', ' ']).to_owned())
}

/// Whether Windows takes a name for a device.
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
        name = NAMELESS.to_owned();
    }
    if name.starts_with('-') {
        name.insert(0, '_');
    }
    shorten(&name, LONGEST)
}

/// The n-th choice for a name that is taken: `f`, `f.1`, `f.2` …
pub(crate) fn numbered(name: &OsStr, number: u32) -> OsString {
    if number == 0 {
        return name.to_owned();
    }
    let suffix = format!(".{number}");
    let mut numbered = match name.to_str() {
        Some(text) => shorten(text, LONGEST.saturating_sub(suffix.len())).into(),
        None => name.to_owned(),
    };
    numbered.push(suffix);
    numbered
}

/// Cuts `name` to `longest` bytes, between two characters and in front of its extension.
fn shorten(name: &str, longest: usize) -> String {
    if name.len() <= longest {
        return name.to_owned();
    }
    let dot = name
        .rfind('.')
        .filter(|dot| name.len() - dot <= LONGEST_EXTENSION);
    let (stem, extension) = name.split_at(dot.unwrap_or(name.len()));
    let mut room = longest.saturating_sub(extension.len());
    while !stem.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}{extension}", &stem[..room])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn names(path: &str, name: &str) {
        let url = Url::parse(&format!("http://host/{path}")).unwrap();
        assert_eq!(from_url(&url), name, "{path}");
    }

    #[test]
    fn the_last_segment_is_the_name() {
        names("a.txt", "a.txt");
        names("a/b/c.tar.gz", "c.tar.gz");
        names("a.txt?version=1#top", "a.txt");
        names("a%20b%C3%A9.txt", "a bé.txt");
        names(".bashrc", ".bashrc");
        names("a:b. ", "a:b.");
        names("CON", "CON");
    }

    #[test]
    fn a_url_without_a_name_gets_one() {
        for path in ["", "a/", "a/..", "a/%2e", "..%2f", "a/x%5c..", "?q"] {
            names(path, "index.html");
        }
    }

    #[test]
    fn no_name_leaves_its_folder_or_misleads() {
        names("..%2F..%2Fetc%2Fpasswd", "passwd");
        names("..%5C..%5Cx", "x");
        names("C:%5Cx", "x");
        names("a%00b", "a_b");
        names("a%1B%5D0;x%07", "a_]0;x_");
        names("a%0Ab", "a_b");
        names("gpj.%E2%80%AEexe", "gpj._exe");
        names("-rf", "_-rf");
        names("%2Drf", "_-rf");
    }

    #[test]
    fn what_is_no_text_keeps_its_percent_signs() {
        names("a%FFb", "a%FFb");
        names("100%", "100%");
    }

    #[test]
    fn a_long_name_is_cut_between_characters_and_keeps_its_extension() {
        let x = |count| "x".repeat(count);
        names(&x(245), &x(245));
        names(&x(246), &x(245));
        names(&format!("{}.tar", x(400)), &format!("{}.tar", x(241)));
        names(
            &format!("{}.jpg", "é".repeat(200)),
            &format!("{}.jpg", "é".repeat(120)),
        );
        names(&format!("a.{}", x(400)), &format!("a.{}", x(243)));
    }

    #[test]
    fn a_name_that_a_server_chose_is_no_danger() {
        for (said, name) in [
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
            (".", None),
            ("..", None),
            ("", None),
            ("a/", None),
            (" ", None),
        ] {
            assert_eq!(from_server(said).as_deref(), name, "{said:?}");
        }
        assert_eq!(from_server(&"x".repeat(400)).unwrap().len(), LONGEST);
        let spaced = format!("{}. {}", "x".repeat(LONGEST - 2), "y".repeat(100));
        assert_eq!(from_server(&spaced).unwrap(), "x".repeat(LONGEST - 2));
    }

    #[test]
    fn whatever_is_said_a_name_stays_in_its_folder() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let letters: Vec<char> = "ab./\\:-_ \0\n\u{1b}\u{202e}é%€".chars().collect();
        for _ in 0..20_000 {
            let length = random.usize(..300);
            let said: String = (0..length)
                .map(|_| letters[random.usize(..letters.len())])
                .collect();
            let url = Url::parse("http://h/").unwrap().join(&said).ok();
            for name in from_server(&said)
                .into_iter()
                .chain(url.as_ref().map(from_url))
            {
                let is_safe = !name.is_empty()
                    && name.len() <= LONGEST
                    && !matches!(name.as_str(), "." | "..")
                    && !name.starts_with('-')
                    && !name.contains(['/', '\\'])
                    && !name.contains(is_unsafe);
                assert!(is_safe, "seed {seed}: {said:?} becomes {name:?}");
            }
        }
    }

    #[test]
    fn taken_names_are_numbered_and_stay_short_enough() {
        let number = |name: &str, n| numbered(OsStr::new(name), n).into_string().unwrap();
        assert_eq!(number("f.txt", 0), "f.txt");
        assert_eq!(number("f.txt", 12), "f.txt.12");
        let long = format!("{}.txt", "x".repeat(241));
        assert_eq!(number(&long, 1), format!("{}.txt.1", "x".repeat(239)));
    }
}
