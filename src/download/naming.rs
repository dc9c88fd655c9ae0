//! File names out of URLs, made safe.

use std::ffi::{OsStr, OsString};

use percent_encoding::percent_decode_str;
use url::Url;

use crate::escape::is_unsafe;

/// What stands behind a name while its file is written.
pub(super) const PART: &str = ".part";

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
pub(super) fn from_url(url: &Url) -> String {
    let segment = url.path().rsplit('/').next().unwrap_or_default();
    // What does not decode to text keeps its percent signs: no two such names become one.
    let decoded = percent_decode_str(segment).decode_utf8();
    make_safe(decoded.as_deref().unwrap_or(segment))
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
pub(super) fn numbered(name: &OsStr, number: u32) -> OsString {
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
    let dot = name.rfind('.').filter(|dot| name.len() - dot <= LONGEST_EXTENSION);
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
        names(&format!("{}.jpg", "é".repeat(200)), &format!("{}.jpg", "é".repeat(120)));
        names(&format!("a.{}", x(400)), &format!("a.{}", x(243)));
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
