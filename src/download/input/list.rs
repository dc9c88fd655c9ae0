//! Parser of lists of items.
//!
//! | line | meaning |
//! |---|---|
//! | `URL` | an item |
//! | `URL` TAB `URL` … | an item and its mirrors |
//! | `HEX  URL`, `HEX *URL` | an item and its MD5, SHA-1, SHA-256 or SHA-512, by length |
//! | ` out=PATH` | file name of the item above, inside its directory |
//! | ` dir=PATH` | its directory, inside that of the run |
//! | ` checksum=ALGORITHM=HEX` | its checksum |
//! | ` header=NAME: VALUE` | a header field of its requests; repeatable |
//! | `# …`, or empty | ignored, also `# …` after a URL and a blank |
//!
//! Options start with a space or a tab. Each line may end with `\r\n`.

use std::path::{Component, Path, PathBuf};

use crate::download::error::{Error, FailedItem, LineError};
use crate::download::input::item::{Item, Source, Target};
use crate::download::input::line::{
    MAX_LINE_LEN, check_urls, for_error, is_utf16, split_checksum, text, without_comment,
};
use crate::download::input::shard::Shard;
use crate::escape::is_unsafe;

/// URL of a failed item that has none.
const NO_URL: &str = "(no URL)";

/// List of items, parsed line by line. It buffers one item, which is complete when the next one
/// starts.
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
    encoding: Encoding,
    last: Last,
    options: OptionsSize,
}

/// Encoding of a list, known by its first line that is not empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Unknown,
    Utf8,
    /// Reported once; no line can be read.
    Utf16,
}

/// Size of the options of one item.
#[derive(Debug, Default)]
struct OptionsSize {
    count: usize,
    len: usize,
}

/// Last parsed item.
#[derive(Debug)]
enum Last {
    None,
    /// It may still get options.
    Open(Box<Result<Item, FailedItem>>),
    /// It was returned; its URL.
    Returned(String),
    /// It belongs to another shard.
    OtherShard,
}

impl List {
    /// Maximum length of a line in bytes, without its end.
    pub const MAX_LINE_LEN: usize = MAX_LINE_LEN;

    /// Maximum number of options of one item.
    pub const MAX_OPTIONS: usize = 1000;

    /// Maximum length of the options of one item in bytes, together. No common server accepts a
    /// head of that length.
    pub const MAX_OPTIONS_LEN: usize = 256 * 1024;

    /// Creates an empty list. Errors contain its name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            shard: None,
            line: 0,
            encoding: Encoding::Unknown,
            last: Last::None,
            options: OptionsSize::default(),
        }
    }

    /// Restricts the list to a shard. Items are assigned by their first URL.
    pub fn part(self, shard: Option<Shard>) -> Self {
        Self { shard, ..self }
    }

    /// Parses the next line, with or without its end, and returns the item that it completes, if
    /// any. An invalid line is a failed item; an invalid option fails its item. Other items are
    /// not affected.
    pub fn line(&mut self, line: &[u8]) -> Option<Result<Item, FailedItem>> {
        self.line += 1;
        if self.encoding == Encoding::Unknown && !line.trim_ascii().is_empty() {
            if is_utf16(line) {
                self.encoding = Encoding::Utf16;
                return Some(Err(self.wrong(NO_URL, LineError::Utf16)));
            }
            self.encoding = Encoding::Utf8;
        }
        if self.encoding == Encoding::Utf16 {
            return None;
        }
        let line = match self.line {
            // Byte order mark.
            1 => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            _ => line,
        };
        let line = line.trim_ascii_end();
        let is_comment = line.trim_ascii_start().starts_with(b"#");
        match line.first() {
            None => None,
            Some(_) if is_comment => None,
            Some(b' ' | b'\t') => self.option(line),
            Some(_) => {
                let before = self.flush();
                self.options = OptionsSize::default();
                let item = self.item(line).map(Box::new);
                self.last = item.map_or(Last::OtherShard, Last::Open);
                before
            }
        }
    }

    /// Returns the last item, if it was not returned. Later options for it are errors.
    pub fn flush(&mut self) -> Option<Result<Item, FailedItem>> {
        match std::mem::replace(&mut self.last, Last::None) {
            Last::Open(item) => {
                let url = match &*item {
                    Ok(item) => item.source.url.to_string(),
                    Err(failure) => failure.url.clone(),
                };
                self.last = Last::Returned(url);
                Some(*item)
            }
            last => {
                self.last = last;
                None
            }
        }
    }

    /// Parses the item of a line. Returns `None` if it belongs to another shard.
    fn item(&self, line: &[u8]) -> Option<Result<Item, FailedItem>> {
        let text = match text(line) {
            Ok(text) => without_comment(text),
            Err(error) => return Some(Err(self.wrong(&for_error(line), error))),
        };
        let (checksum, urls) = split_checksum(text);
        let (first, others) = urls.split_once('\t').unwrap_or((urls, ""));
        let is_here = self.shard.is_none_or(|shard| shard.has(first.trim()));
        is_here.then(|| {
            check_urls(urls).map_err(|error| self.wrong(&for_error(line), error))?;
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

    fn source(&self, text: &str) -> Result<Source, FailedItem> {
        Source::parse(text.trim()).map_err(|FailedItem { url, source }| match source {
            Error::Url(source) => self.wrong(&url, LineError::Url(source)),
            source => FailedItem { url, source },
        })
    }

    fn option(&mut self, line: &[u8]) -> Option<Result<Item, FailedItem>> {
        let wrong = |list: &Self, url: &str, error| Some(Err(list.wrong(url, error)));
        match std::mem::replace(&mut self.last, Last::None) {
            Last::None => wrong(self, NO_URL, LineError::OptionWithoutUrl),
            Last::Returned(url) => {
                let late = wrong(self, &url, LineError::LateOption);
                self.last = Last::Returned(url);
                late
            }
            Last::Open(item) => {
                let fits = self.options.add(line.len());
                let item = item.and_then(|item| {
                    let url = item.source.url.to_string();
                    let text = fits.and_then(|()| text(line));
                    let item = text.and_then(|text| with_option(item, text.trim_start()));
                    item.map_err(|error| self.wrong(&url, error))
                });
                self.last = Last::Open(Box::new(item));
                None
            }
            Last::OtherShard => {
                self.last = Last::OtherShard;
                None
            }
        }
    }

    fn wrong(&self, url: &str, source: LineError) -> FailedItem {
        let source = Error::Line {
            list: self.name.clone(),
            line: self.line,
            source,
        };
        FailedItem {
            url: url.to_owned(),
            source,
        }
    }
}

impl OptionsSize {
    /// Adds an option. Each one is kept in memory until the item is complete.
    fn add(&mut self, len: usize) -> Result<(), LineError> {
        self.count += 1;
        self.len += len;
        if self.count > List::MAX_OPTIONS {
            return Err(LineError::TooManyOptions {
                limit: List::MAX_OPTIONS,
            });
        }
        if self.len > List::MAX_OPTIONS_LEN {
            return Err(LineError::OptionsTooLong {
                limit: List::MAX_OPTIONS_LEN,
            });
        }
        Ok(())
    }
}

fn with_option(item: Item, text: &str) -> Result<Item, LineError> {
    let (name, value) = text.split_once('=').ok_or(LineError::UnknownOption)?;
    let value = value.trim_start();
    Ok(match name.trim_end() {
        "out" => {
            let path = relative_path(value).filter(|path| path.file_name().is_some());
            Item {
                target: Target::File(path.ok_or(LineError::InvalidPath("out"))?),
                ..item
            }
        }
        "dir" => Item {
            dir: relative_path(value).ok_or(LineError::InvalidPath("dir"))?,
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
        _ => return Err(LineError::UnknownOption),
    })
}

/// Parses a path inside the output directory. A list may be untrusted, so paths that leave the
/// directory, start with a hyphen or contain unprintable characters are rejected.
fn relative_path(text: &str) -> Option<PathBuf> {
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

    /// Returns the items of a list, failed ones as the text of their error.
    fn read(text: &[u8]) -> Vec<Result<Item, String>> {
        let mut list = List::new("l");
        let lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
        let mut items: Vec<_> = lines.iter().filter_map(|line| list.line(line)).collect();
        items.extend(list.flush());
        let text = |failed: FailedItem| format!("{failed}: {}", failed.cause());
        items.into_iter().map(|item| item.map_err(text)).collect()
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
    fn lines_are_urls_comments_or_empty() {
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
    fn tabs_separate_mirrors() {
        urls(
            "http://a/\thttp://b/\t\t c/ ",
            &[&["http://a/", "http://b/", "https://c/"]],
        );
        let line = format!("{HEX}  http://a/\thttp://b/");
        urls(&line, &[&["http://a/", "http://b/"]]);
    }

    #[test]
    fn sha256_may_precede_a_url() {
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
            "line 1: blank in the line",
        );
        fails(
            format!("{HEX}  ").as_bytes(),
            "line 1: not a URL: empty host",
        );
    }

    #[test]
    fn options_apply_to_the_url_above() {
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
    fn paths_stay_in_the_output_directory() {
        for (text, path) in [("a", "a"), ("./a/./b", "a/b"), (".a", ".a"), ("ä b", "ä b")] {
            assert_eq!(relative_path(text).unwrap(), Path::new(path));
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
            assert_eq!(relative_path(text), None, "{text:?}");
        }
        fails(
            b"http://a/\n out=../x",
            "line 2: out= is not a plain path inside the output directory",
        );
        fails(b"http://a/\n out=.", "line 2: out=");
        fails(b"http://a/\n dir=/etc", "line 2: dir=");
    }

    #[test]
    fn invalid_lines_do_not_affect_other_items() {
        for (bad, says) in [
            (
                &b"not a url"[..],
                "download not a url: l, line 2: blank in the line",
            ),
            (
                b"ftp://u:p@b/",
                "download ftp://***@b/: l, line 2: ftp is not supported",
            ),
            (b"http://b/\thttp://", "line 2: not a URL"),
            (b"\xff", "line 2: not UTF-8"),
            (
                b"http://b/\n out",
                "download http://b/: l, line 3: unknown option",
            ),
            (b"http://b/\n heder=secret", "line 3: unknown option"),
            (
                b"http://b/\n checksum=sha256=00",
                "line 3: parse checksum=: not 64 hex",
            ),
            (
                b"http://b/\n header=secret",
                "line 3: parse header=: not of the form",
            ),
            (b"http://b/\n out=\xff", "line 3: not UTF-8"),
            (b"http://b/\n out\n out=b\n nor", "line 3: unknown option"),
            (
                &[b'x'; List::MAX_LINE_LEN + 1],
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
        fails(
            b" out=a\nhttp://a/",
            "line 1: option without a preceding URL",
        );
    }

    #[test]
    fn options_of_one_item_are_bounded() {
        let option = b" header=A: b\n";
        let most = [&b"http://a/\n"[..], &option.repeat(List::MAX_OPTIONS)].concat();
        assert!(read(&most)[0].is_ok());
        // The limits apply to each item, and a failed item does not keep its options.
        let twice = [&most[..], &most, option, option, b" out\nhttp://c/"].concat();
        fails(
            &twice,
            "download http://a/: l, line 2003: more than 1000 options",
        );
        let items = read(&twice);
        assert!(items.len() == 3 && items[0].is_ok() && items[2].is_ok());
        let long = format!(
            "http://a/\n{}",
            format!(" header=A: {}\n", "b".repeat(60_000)).repeat(5)
        );
        fails(long.as_bytes(), "line 6: more than 262144 bytes of options");
    }

    #[test]
    fn option_for_a_returned_item_is_an_error() {
        let mut list = List::new("l");
        assert!(list.line(b"http://a/").is_none());
        assert!(list.flush().unwrap().is_ok() && list.flush().is_none());
        let late = list.line(b" out=b").unwrap().unwrap_err();
        assert_eq!(late.url, "http://a/");
        assert!(list.line(b"http://c/").is_none() && list.flush().unwrap().is_ok());
    }

    #[test]
    fn shard_keeps_options_with_their_urls() {
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

    /// Properties of an item that a random list determines.
    #[derive(Debug, Default, PartialEq)]
    struct Expected {
        url: String,
        mirrors: usize,
        has_checksum: bool,
        is_file: bool,
        has_dir: bool,
        headers: usize,
    }

    impl From<Item> for Expected {
        fn from(item: Item) -> Self {
            Self {
                url: item.source.url.to_string(),
                mirrors: item.mirrors.len(),
                has_checksum: item.checksum.is_some(),
                is_file: matches!(item.target, Target::File(_)),
                has_dir: item.dir == Path::new("d/e"),
                headers: item.headers.len(),
            }
        }
    }

    /// Returns the lines of an item with a mix of options that depends on `number`.
    fn random_item(number: usize) -> (Vec<String>, Expected) {
        let has = |bit: usize| ((number * 37) >> bit) & 1 == 1;
        let mut expected = Expected {
            url: format!("http://h/{number}"),
            mirrors: if has(0) { 2 } else { 0 },
            has_checksum: has(1),
            is_file: has(2),
            has_dir: has(3),
            headers: 0,
        };
        let checksum = if has(1) {
            format!("{HEX}  ")
        } else {
            String::new()
        };
        let mirrors = if has(0) {
            "\thttp://m/a\thttp://m/b"
        } else {
            ""
        };
        let mut lines = vec![format!("{checksum}{}{mirrors}", expected.url)];
        for (bit, option) in [
            (2, " out=a b"),
            (3, " dir=d/e"),
            (4, " header=A: b=c"),
            (5, " header=A: d"),
        ] {
            if has(bit) {
                lines.push(option.to_owned());
                expected.headers += usize::from(bit > 3);
            }
        }
        (lines, expected)
    }

    #[test]
    fn random_lists_are_parsed_as_written() {
        const LINE_ENDS: [&str; 6] = ["\n", "\r\n", " \n", "\n\n", "\n# x\n", "\n \t# y\n"];
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..1_000 {
            let mut text = String::new();
            let mut expected = Vec::new();
            for number in 0..random.usize(1..6) {
                let (lines, item) = random_item(number);
                for line in lines {
                    text += &line;
                    text += random.choice(LINE_ENDS).unwrap();
                }
                expected.push(Ok(item));
            }
            let items = read(text.as_bytes()).into_iter();
            let items: Vec<_> = items.map(|item| item.map(Expected::from)).collect();
            assert_eq!(items, expected, "seed {seed}: {text:?}");
        }
    }
}
