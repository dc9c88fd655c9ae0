//! Lists of checksums.

use std::str::FromStr;

use percent_encoding::percent_decode_str;
use url::Url;

use crate::checksum::{Algorithm, Checksum, ChecksumError};

/// Checksums of several files by name, as `sha256sum` and similar programs print them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChecksumList(Vec<(String, Checksum)>);

impl FromStr for ChecksumList {
    type Err = ChecksumError;

    /// Parses lines of the forms `HEX  NAME`, `HEX *NAME` and `SHA256 (NAME) = HEX`. Other lines,
    /// such as those of a signature, are ignored.
    fn from_str(text: &str) -> Result<Self, ChecksumError> {
        let lines = text.lines().map(|line| line.trim_end_matches('\r'));
        let list: Vec<_> = lines
            .filter_map(|line| parse_bsd(line).or_else(|| parse_gnu(line)))
            .collect();
        if list.is_empty() {
            Err(ChecksumError::Empty)
        } else {
            Ok(Self(list))
        }
    }
}

impl ChecksumList {
    /// Returns the checksum of `url`, or else of the local `name`. If the path of the URL ends
    /// with several entries, the longest is used.
    pub(crate) fn find(&self, url: &Url, name: &str) -> Option<&Checksum> {
        let path = percent_decode_str(url.path()).decode_utf8_lossy();
        let is_suffix = |listed: &str| {
            let rest = path.strip_suffix(listed);
            rest.is_some_and(|rest| rest.ends_with('/'))
        };
        let by_path = self.0.iter().filter(|(listed, _)| is_suffix(listed));
        let found = by_path.max_by_key(|(listed, _)| listed.len());
        let found = found.or_else(|| self.0.iter().find(|(listed, _)| listed == name));
        found.map(|(_, checksum)| checksum)
    }
}

/// Parses `SHA256 (NAME) = HEX`, the BSD format.
fn parse_bsd(line: &str) -> Option<(String, Checksum)> {
    let (tag, rest) = line.split_once(" (")?;
    let (name, digits) = rest.rsplit_once(") = ")?;
    Some((
        without_dot(name),
        Checksum::new(Algorithm::from_name(tag)?, digits.trim()).ok()?,
    ))
}

/// Parses `HEX  NAME` or `HEX *NAME`, the GNU format. The length determines the algorithm.
fn parse_gnu(line: &str) -> Option<(String, Checksum)> {
    let (digits, rest) = line.split_once(' ')?;
    let name = rest.strip_prefix([' ', '*']).unwrap_or(rest);
    let checksum = Checksum::from_hex(digits)?;
    if name.is_empty() {
        return None;
    }
    Some((without_dot(name), checksum))
}

/// Removes the `./` with which `find` starts a name.
fn without_dot(name: &str) -> String {
    name.trim_start_matches("./").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::hex;

    /// SHA-256 of `abc`.
    const DIGITS: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[track_caller]
    fn assert_found(line: &str, url: &str, name: &str, found: bool) {
        let list = line.parse::<ChecksumList>().unwrap();
        assert_eq!(
            list.find(&url.parse().unwrap(), name).is_some(),
            found,
            "{line:?}"
        );
    }

    #[test]
    fn list_formats_are_recognised() {
        let digits = DIGITS;
        for line in [
            format!("{digits}  f.txt"),
            format!("{digits} *f.txt"),
            format!("{digits}  ./f.txt\r\n"),
            format!("{digits}  a/f.txt"),
            format!("SHA256 (f.txt) = {digits}\r\n"),
            format!("# sums\n\n{digits}  other\n{digits}  f.txt\n"),
            format!("-----BEGIN PGP SIGNED MESSAGE-----\n\n{digits}  f.txt\n"),
        ] {
            assert_found(&line, "http://h/a/f.txt?x", "", true);
        }
        assert_found(
            &format!("{digits}  two words"),
            "http://h/two%20words",
            "",
            true,
        );
        assert_found(&format!("{digits}  renamed"), "http://h/f", "renamed", true);
        assert_found(
            &format!("{digits}  xf.txt"),
            "http://h/f.txt",
            "f.txt",
            false,
        );
        assert_found(
            &format!("{digits}  b/f.txt"),
            "http://h/a/f.txt",
            "f.txt",
            false,
        );
        assert_found(&format!("{digits}  txt"), "http://h/f.txt", "f.txt", false);
        assert_eq!("<html>".parse::<ChecksumList>(), Err(ChecksumError::Empty));
    }

    #[test]
    fn longest_matching_path_is_used() {
        let one = "1".repeat(64);
        let two = "2".repeat(64);
        let list = format!("{one}  f\n{two}  a/f\n")
            .parse::<ChecksumList>()
            .unwrap();
        let found = |url: &str| list.find(&url.parse().unwrap(), "f").unwrap().hex();
        assert_eq!((found("http://h/a/f"), found("http://h/b/f")), (two, one));
    }

    #[test]
    fn each_listed_name_is_found() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let mut text = String::new();
            let mut expected = Vec::new();
            for number in 0..random.usize(1..6) {
                let letters = (0..random.usize(..9)).map(|_| random.char('!'..='\u{ff}'));
                let letters: String = letters.filter(|c| !"\\/.\u{7f}".contains(*c)).collect();
                let name = format!("f{letters} {number}x");
                if name.contains(char::is_control) {
                    continue;
                }
                let algorithm = *random.choice(&Algorithm::ALL[..3]).unwrap();
                let bytes: Vec<u8> = (0..algorithm.digest_len()).map(|_| random.u8(..)).collect();
                let digits = hex(&bytes);
                let line = match random.u8(..4) {
                    0 => format!("{digits}  {name}"),
                    1 => format!("{digits} *./{name}"),
                    2 => format!("{}  {name}", digits.to_uppercase()),
                    _ => format!(
                        "{} ({name}) = {digits}",
                        algorithm.to_string().to_uppercase()
                    ),
                };
                text += &line;
                text += ["\n", "\r\n", "\n\n# SHA256 (x) = y\n"][random.usize(..3)];
                expected.push((name, Checksum::new(algorithm, &digits).unwrap()));
            }
            let Ok(list) = text.parse::<ChecksumList>() else {
                continue;
            };
            for (name, checksum) in expected {
                let mut url: Url = "http://h/a/".parse().unwrap();
                url.path_segments_mut().unwrap().pop_if_empty().push(&name);
                let found = [
                    list.find(&url, ""),
                    list.find(&"http://h/".parse().unwrap(), &name),
                ];
                assert_eq!(
                    found,
                    [Some(&checksum); 2],
                    "seed {seed}: {name:?} in {text:?}"
                );
            }
        }
    }
}
