//! Lists of what is to be fetched, as people write them and programs make them.
//!
//! | line | means |
//! |---|---|
//! | `URL` | a file |
//! | `URL` TAB `URL` … | a file that is to be had in several places |
//! | `HEX  URL`, `HEX *URL` | a file and its sha256, 64 hexadecimal digits |
//! | ` out=PATH` | the name of the file above, inside its folder |
//! | ` dir=PATH` | its folder, inside that of the run |
//! | ` checksum=ALGORITHM=HEX` | what it adds up to |
//! | ` header=NAME: VALUE` | a field that is sent for it; there may be several |
//! | `# …`, or nothing | nothing |
//!
//! The options begin with a blank or a tab. Each line may end with `\r\n`.

use std::path::{Component, Path, PathBuf};

use crate::download::error::DownloadError;
use crate::download::input::item::{Item, Source, Target};
use crate::download::input::shard::Shard;
use crate::download::report::Failure;
use crate::download::request::headers::HeaderError;
use crate::download::store::checksum::{Checksum, ChecksumError};
use crate::escape::is_unsafe;

/// Stands for the URL of an item that has none.
const UNNAMED: &str = "?";

/// A list, read line by line; it holds one item at a time, which is complete when the next one
/// begins.
///
/// ```
/// use myapp::download::List;
///
/// let mut list = List::new("urls.txt");
/// assert!(list.line(b"https://example.com/a").is_none());
/// assert!(list.line(b" out=b").is_none());
/// let item = list.flush().unwrap().unwrap();
/// assert_eq!(item.source.url.as_str(), "https://example.com/a");
/// ```
#[derive(Debug)]
pub struct List {
    name: String,
    shard: Option<Shard>,
    line: u64,
    last: Last,
}

/// The item that was read last.
#[derive(Debug)]
enum Last {
    None,
    /// It may get options still.
    Open(Box<Result<Item, Failure>>),
    /// It has been given away; its URL.
    Given(String),
    /// It is in another part of the list.
    Elsewhere,
}

/// What is wrong with a line of a [`List`]. The text holds no value, which may be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line is longer than any that is meant.
    #[error("longer than {} bytes", List::LONGEST)]
    Length,
    /// The line is no UTF-8.
    #[error("not UTF-8")]
    Encoding,
    /// It names what cannot be fetched.
    #[error(transparent)]
    Url(Box<DownloadError>),
    /// The first item comes later.
    #[error("no URL stands above this option")]
    NoUrl,
    /// The item had been given away before.
    #[error("the option came when the download had begun")]
    Late,
    /// No option is called so.
    #[error("an indented line is an option: out=, dir=, checksum= or header=")]
    Option,
    /// A path that does not stay where it belongs, or that would mislead.
    #[error("{0}= is no plain path inside the folder")]
    Path(&'static str),
    /// No checksum.
    #[error("read checksum=")]
    Checksum(#[from] ChecksumError),
    /// No header field.
    #[error("read header=")]
    Header(#[from] HeaderError),
}

impl List {
    /// A longer line is wrong, in bytes without its end.
    pub const LONGEST: usize = 64 * 1024;

    /// A list that errors call by this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            shard: None,
            line: 0,
            last: Last::None,
        }
    }

    /// Only this part of the list: of several places of a file the first one counts.
    pub fn part(self, shard: Option<Shard>) -> Self {
        Self { shard, ..self }
    }

    /// Takes the next line, with or without its end, and returns the item that is complete with
    /// it, if one is. A line that is wrong is an item that fails, and so is the item to which a
    /// wrong option belongs; the others are not touched.
    pub fn line(&mut self, line: &[u8]) -> Option<Result<Item, Failure>> {
        self.line += 1;
        let line = match self.line {
            // Some editors mark a file so.
            1 => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            _ => line,
        };
        let line = line.trim_ascii_end();
        let is_comment = line.trim_ascii_start().starts_with(b"#");
        match line.first().filter(|_| !is_comment) {
            None => None,
            Some(b' ' | b'\t') => self.option(line),
            Some(_) => {
                let before = self.flush();
                let item = self.item(line).map(Box::new);
                self.last = item.map_or(Last::Elsewhere, Last::Open);
                before
            }
        }
    }

    /// Returns the item that was read last, if it has not been returned; options for it would
    /// come too late from now on.
    pub fn flush(&mut self) -> Option<Result<Item, Failure>> {
        match std::mem::replace(&mut self.last, Last::None) {
            Last::Open(item) => {
                let url = match &*item {
                    Ok(item) => item.source.url.to_string(),
                    Err(failure) => failure.url.clone(),
                };
                self.last = Last::Given(url);
                Some(*item)
            }
            last => {
                self.last = last;
                None
            }
        }
    }

    /// The item of a line, unless that is in another part of the list.
    fn item(&self, line: &[u8]) -> Option<Result<Item, Failure>> {
        let text = match text(line) {
            Ok(text) => text,
            Err(error) => return Some(Err(self.wrong(UNNAMED, error))),
        };
        let (checksum, urls) = split_checksum(text);
        let (first, others) = urls.split_once('\t').unwrap_or((urls, ""));
        let is_here = self.shard.is_none_or(|shard| shard.has(first.trim()));
        is_here.then(|| {
            let first = Item::from(self.source(first)?);
            let others = others.split('\t').filter(|url| !url.trim().is_empty());
            let mirrors = others
                .map(|url| self.source(url))
                .collect::<Result<_, _>>()?;
            Ok(Item {
                mirrors,
                checksum,
                ..first
            })
        })
    }

    fn source(&self, text: &str) -> Result<Source, Failure> {
        let source = Source::parse(text.trim());
        source.map_err(|Failure { url, source }| self.wrong(&url, LineError::Url(Box::new(source))))
    }

    fn option(&mut self, line: &[u8]) -> Option<Result<Item, Failure>> {
        let wrong = |list: &Self, url: &str, error| Some(Err(list.wrong(url, error)));
        match std::mem::replace(&mut self.last, Last::None) {
            Last::None => wrong(self, UNNAMED, LineError::NoUrl),
            Last::Given(url) => {
                let late = wrong(self, &url, LineError::Late);
                self.last = Last::Given(url);
                late
            }
            Last::Open(item) => {
                let item = item.and_then(|item| {
                    let url = item.source.url.to_string();
                    let item = text(line).and_then(|text| with_option(item, text.trim_start()));
                    item.map_err(|error| self.wrong(&url, error))
                });
                self.last = Last::Open(Box::new(item));
                None
            }
            Last::Elsewhere => {
                self.last = Last::Elsewhere;
                None
            }
        }
    }

    fn wrong(&self, url: &str, source: LineError) -> Failure {
        let source = DownloadError::Line {
            list: self.name.clone(),
            line: self.line,
            source,
        };
        Failure {
            url: url.to_owned(),
            source,
        }
    }
}

fn text(line: &[u8]) -> Result<&str, LineError> {
    if line.len() > List::LONGEST {
        return Err(LineError::Length);
    }
    std::str::from_utf8(line).map_err(|_| LineError::Encoding)
}

/// Takes a sha256 off a line's front, as sha256sum writes it there.
fn split_checksum(line: &str) -> (Option<Checksum>, &str) {
    let (digits, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let Ok(checksum) = format!("sha256={digits}").parse() else {
        return (None, line);
    };
    let url = rest.trim_start();
    (Some(checksum), url.strip_prefix('*').unwrap_or(url))
}

fn with_option(item: Item, text: &str) -> Result<Item, LineError> {
    let (name, value) = text.split_once('=').ok_or(LineError::Option)?;
    let value = value.trim_start();
    Ok(match name.trim_end() {
        "out" => {
            let path = inside(value).filter(|path| path.file_name().is_some());
            Item {
                target: Target::File(path.ok_or(LineError::Path("out"))?),
                ..item
            }
        }
        "dir" => Item {
            dir: inside(value).ok_or(LineError::Path("dir"))?,
            ..item
        },
        "checksum" => Item {
            checksum: Some(value.parse()?),
            ..item
        },
        "header" => {
            let mut headers = item.headers;
            headers.push(value.parse()?);
            Item { headers, ..item }
        }
        _ => return Err(LineError::Option),
    })
}

/// A path that stays in its folder. A list may come from a stranger: what leads elsewhere, what
/// programs would take for an option, and what a terminal would not show as it is, is refused.
fn inside(text: &str) -> Option<PathBuf> {
    let is_plain = |part: &Component<'_>| match part {
        Component::Normal(name) => !name.as_encoded_bytes().starts_with(b"-"),
        Component::CurDir => true,
        _ => false,
    };
    let path = Path::new(text);
    let fits = !text.is_empty()
        && !text.contains(is_unsafe)
        && path.components().all(|part| is_plain(&part));
    fits.then(|| {
        path.components()
            .filter(|part| *part != Component::CurDir)
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    /// The items of a list, the failed ones as the errors say it.
    fn read(text: &[u8]) -> Vec<Result<Item, String>> {
        let mut list = List::new("l");
        let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        let mut items: Vec<_> = lines.iter().filter_map(|line| list.line(line)).collect();
        items.extend(list.flush());
        let told = |failure: Failure| format!("{failure}: {}", failure.source.with_causes(""));
        items.into_iter().map(|item| item.map_err(told)).collect()
    }

    #[track_caller]
    fn urls(text: &str, urls: &[&[&str]]) {
        let of = |item: Item| {
            let mirrors = item.mirrors.into_iter();
            let all = std::iter::once(item.source).chain(mirrors);
            all.map(|source| source.url.to_string()).collect::<Vec<_>>()
        };
        let read: Vec<_> = read(text.as_bytes())
            .into_iter()
            .map(|item| of(item.unwrap()))
            .collect();
        assert_eq!(read, urls, "{text:?}");
    }

    #[track_caller]
    fn one(text: &str) -> Item {
        let mut items = read(text.as_bytes());
        assert_eq!(items.len(), 1, "{items:?}");
        items.remove(0).unwrap()
    }

    #[track_caller]
    fn fails(text: &[u8], says: &str) {
        let items = read(text);
        let failed: Vec<_> = items
            .iter()
            .filter_map(|item| item.as_ref().err())
            .collect();
        assert!(failed.len() == 1 && failed[0].contains(says), "{items:?}");
    }

    #[test]
    fn each_line_is_a_url_and_the_rest_is_none() {
        urls("", &[]);
        urls("\n# a\n\r\n", &[]);
        urls(
            "http://a/\nb/c\r\n#d\nhttp://e/#f",
            &[&["http://a/"], &["https://b/c"], &["http://e/#f"]],
        );
        urls("\u{feff}http://a/\n", &[&["http://a/"]]);
        urls("http://a/ \t\nhttp://b/", &[&["http://a/"], &["http://b/"]]);
    }

    #[test]
    fn tabs_stand_between_the_places_of_one_file() {
        urls(
            "http://a/\thttp://b/\t\t c/ ",
            &[&["http://a/", "http://b/", "https://c/"]],
        );
        let line = format!("{HEX}  http://a/\thttp://b/");
        urls(&line, &[&["http://a/", "http://b/"]]);
    }

    #[test]
    fn a_sha256_may_stand_before_a_url() {
        let checksum = format!("sha256={HEX}").parse().ok();
        for line in [
            "HEX  http://a/",
            "HEX *http://a/",
            "HEX http://a/",
            "HEX\thttp://a/\r",
        ] {
            let item = one(&line.replace("HEX", HEX));
            assert_eq!(
                (item.checksum, item.source.url.as_str()),
                (checksum.clone(), "http://a/")
            );
        }
        fails(
            format!("{}  http://a/", &HEX[1..]).as_bytes(),
            "line 1: not a URL",
        );
        fails(
            format!("{HEX}  ").as_bytes(),
            "line 1: not a URL: empty host",
        );
    }

    #[test]
    fn options_belong_to_the_url_above() {
        let item = one(&format!(
            "http://a/\n out=b/c\n\tdir=d\n\n# x\n  checksum=sha-256={HEX}\r\n header=A: b\n header=C: d"
        ));
        assert!(matches!(&item.target, Target::File(path) if path == Path::new("b/c")));
        assert_eq!(item.dir, Path::new("d"));
        assert_eq!(item.checksum, format!("sha256={HEX}").parse().ok());
        assert_eq!(
            item.headers,
            ["A: b".parse().unwrap(), "C: d".parse().unwrap()]
        );
        let items = read(b"http://a/\n out=b\nhttp://c/\n");
        assert!(
            matches!(
                &items[1],
                Ok(Item {
                    target: Target::Named,
                    ..
                })
            ),
            "{items:?}"
        );
    }

    #[test]
    fn a_path_stays_in_its_folder() {
        for (text, path) in [("a", "a"), ("./a/./b", "a/b"), (".a", ".a"), ("ä b", "ä b")] {
            assert_eq!(inside(text).unwrap(), Path::new(path));
        }
        assert_eq!(one("http://a/\n dir=.").dir, Path::new(""));
        for text in [
            "",
            "/a",
            "..",
            "a/../b",
            "a/..",
            "-rf",
            "a/-b",
            "a\u{1b}[m",
            "a\u{202e}b",
        ] {
            assert_eq!(inside(text), None, "{text:?}");
        }
        fails(
            b"http://a/\n out=../x",
            "line 2: out= is no plain path inside the folder",
        );
        fails(b"http://a/\n out=.", "line 2: out=");
        fails(b"http://a/\n dir=/etc", "line 2: dir=");
    }

    #[test]
    fn what_is_wrong_is_named_and_the_others_stay() {
        for (bad, says) in [
            (
                &b"not a url"[..],
                "download not a url: l, line 2: not a URL",
            ),
            (
                b"ftp://u:p@b/",
                "download ftp://***@b/: l, line 2: ftp is not supported",
            ),
            (b"http://b/\thttp://", "line 2: not a URL"),
            (b"\xff", "line 2: not UTF-8"),
            (
                b"http://b/\n out",
                "download http://b/: l, line 3: an indented line is an option",
            ),
            (
                b"http://b/\n heder=secret",
                "line 3: an indented line is an option",
            ),
            (
                b"http://b/\n checksum=sha256=00",
                "line 3: read checksum=: not 64 hex",
            ),
            (
                b"http://b/\n header=secret",
                "line 3: read header=: not of the form",
            ),
            (b"http://b/\n out=\xff", "line 3: not UTF-8"),
            (
                b"http://b/\n out\n out=b\n nor",
                "line 3: an indented line is an option",
            ),
            (
                &[b'x'; List::LONGEST + 1],
                "line 2: longer than 65536 bytes",
            ),
        ] {
            let list = [b"http://a/\n", bad, b"\nhttp://c/\n"].concat();
            fails(&list, says);
            let items = read(&list);
            assert!(
                items.len() == 3 && items[0].is_ok() && items[2].is_ok(),
                "{items:?}"
            );
            assert!(!format!("{items:?}").contains("secret"), "{items:?}");
        }
        fails(b" out=a\nhttp://a/", "line 1: no URL stands above");
    }

    #[test]
    fn an_option_for_what_was_given_away_comes_too_late() {
        let mut list = List::new("l");
        assert!(list.line(b"http://a/").is_none());
        assert!(list.flush().unwrap().is_ok() && list.flush().is_none());
        let late = list.line(b" out=b").unwrap().unwrap_err();
        assert_eq!(late.url, "http://a/");
        assert!(list.line(b"http://c/").is_none() && list.flush().unwrap().is_ok());
    }

    #[test]
    fn a_part_of_a_list_takes_its_urls_with_their_options() {
        let lines = (0..50).map(|n| format!("http://a/{n}\thttp://b/\n out={n}\n # {n}\n"));
        let lines: Vec<_> = lines.collect();
        let mut names = Vec::new();
        for part in ["0/3", "1/3", "2/3"] {
            let mut list = List::new("l").part(part.parse().ok());
            let lines = lines.iter().flat_map(|line| line.lines());
            let mut items: Vec<_> = lines
                .filter_map(|line| list.line(line.as_bytes()))
                .collect();
            items.extend(list.flush());
            for item in items {
                let Item {
                    source,
                    target: Target::File(path),
                    ..
                } = item.unwrap()
                else {
                    panic!()
                };
                assert_eq!(format!("/{}", path.display()), source.url.path());
                names.push(path);
            }
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 50);
    }

    #[test]
    fn a_list_is_read_as_it_was_written_whatever_stands_between() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..1_000 {
            let (mut text, mut wanted) = (String::new(), Vec::new());
            for number in 0..random.usize(1..6) {
                let mut line = |line: String| {
                    text += &line;
                    text +=
                        ["\n", "\r\n", " \n", "\n\n", "\n# x\n", "\n \t# y\n"][random.usize(..6)];
                };
                let url = format!("http://h/{number}");
                let has: Vec<bool> = (0..6).map(|bit| ((number * 37) >> bit) & 1 == 1).collect();
                let mirrors = if has[0] {
                    "\thttp://m/a\thttp://m/b"
                } else {
                    ""
                };
                let sum = if has[1] {
                    format!("{HEX}  ")
                } else {
                    String::new()
                };
                line(format!("{sum}{url}{mirrors}"));
                let options = [
                    ("out=a b", 2),
                    ("dir=d/e", 3),
                    ("header=A: b=c", 4),
                    ("header=A: d", 5),
                ];
                for (option, _) in options.iter().filter(|(_, bit)| has[*bit]) {
                    line(format!(" {option}"));
                }
                let headers = has[4..].iter().filter(|has| **has).count();
                wanted.push((
                    url,
                    usize::from(has[0]) * 2,
                    has[1],
                    has[2],
                    has[3],
                    headers,
                ));
            }
            let of = |item: Item| {
                let is_file = matches!(item.target, Target::File(_));
                let (sum, dir) = (item.checksum.is_some(), item.dir == Path::new("d/e"));
                let url = item.source.url.to_string();
                (
                    url,
                    item.mirrors.len(),
                    sum,
                    is_file,
                    dir,
                    item.headers.len(),
                )
            };
            let items = read(text.as_bytes());
            let items: Vec<_> = items.into_iter().map(|item| item.map(of)).collect();
            let wanted: Vec<_> = wanted.into_iter().map(Ok).collect();
            assert_eq!(items, wanted, "seed {seed}: {text:?}");
        }
    }
}
