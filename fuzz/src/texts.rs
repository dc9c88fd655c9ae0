//! Parsers of text from users and servers: no panics, and invariants of the results.

use std::path::{Component, Path};

use fastrand::Rng;
use myapp::download::http::ResponseHead;
use myapp::download::http::{BasicAuth, NoProxy, Proxies, Proxy, ProxySetting};
use myapp::download::{
    Checksum, ChecksumList, Config, Cookie, Downloader, Header, Item, List, Netrc, OutputPolicy,
    Shard, Target, Token,
};
use myapp::internals::http::{ChunkedDecoder, find_end};
use url::Url;

use crate::grammar;

/// Secret that must not be in any output.
const SECRET: &str = "hunter2";

const TOKENS: [&str; 52] = [
    "\n",
    "\r\n",
    "\t",
    " ",
    "\"",
    "\\",
    "#",
    "=",
    ",",
    "/",
    ":",
    "*",
    "@",
    "%",
    "..",
    "-",
    ".",
    "\0",
    "\u{1b}[",
    "\u{202e}",
    "\u{fc}",
    "\u{feff}",
    "http://",
    "https://",
    "ftp://",
    "h.example",
    "a/b.txt",
    "?q#f",
    "%2f..%2f",
    "%00",
    "127.0.0.1",
    "10.0.0.0/8",
    "[::1]",
    "fe80::/10",
    ".example",
    "machine ",
    "default",
    "login ",
    "password ",
    "hunter2",
    "macdef ",
    "account ",
    "out=",
    "dir=",
    "header=",
    "checksum=",
    "SHA256 (",
    ") = ",
    "sha256=",
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "socks5://",
    "65536",
];

/// Parses one text with each parser.
///
/// # Errors
///
/// A description of the failed check, and the text.
pub fn check(random: &mut Rng) -> Result<(), String> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..14) {
        bytes.extend(TOKENS[random.usize(..TOKENS.len())].bytes());
    }
    if random.u8(..3) == 0 {
        grammar::mutate(&mut bytes, random);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let wrong = |what: &str| format!("{what}: b\"{}\"", bytes.escape_ascii());
    list(&bytes).map_err(|what| wrong(&what))?;
    netrc(&text).map_err(|what| wrong(&what))?;
    no_proxy(&text).map_err(|what| wrong(&what))?;
    values(&text).map_err(|what| wrong(&what))?;
    let response = grammar::response(random);
    pieces(&response, random).map_err(|what| format!("{what}: b\"{}\"", response.escape_ascii()))
}

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// Checks that the items of a list stay inside the folder, and are not more than its lines.
fn list(bytes: &[u8]) -> Result<(), String> {
    let mut list = List::new("l");
    let mut count = 0;
    let lines = bytes.split(|&byte| byte == b'\n');
    let mut items: Vec<_> = lines.clone().filter_map(|line| list.line(line)).collect();
    items.extend(list.flush());
    for item in items {
        count += 1;
        match item {
            Ok(item) => inside(item)?,
            Err(failure) => {
                let shown = format!("{failure} {}", failure.source);
                ensure(
                    !shown.contains(char::is_control),
                    "a raw control character in an error",
                )?;
            }
        }
    }
    ensure(count <= lines.count(), "more items than lines")
}

fn inside(item: Item) -> Result<(), String> {
    let is_plain = |path: &Path| {
        path.components()
            .all(|it| matches!(it, Component::Normal(_)))
    };
    let url = &item.source.url;
    ensure(matches!(url.scheme(), "http" | "https"), "another scheme")?;
    ensure(
        url.username().is_empty() && url.password().is_none(),
        "a password in a URL",
    )?;
    ensure(is_plain(&item.dir), "a folder elsewhere")?;
    if let Target::File(path) = &item.target {
        ensure(
            is_plain(path) && path.file_name().is_some(),
            "a file elsewhere",
        )?;
    }
    let named = matches!(item.target, Target::Named);
    let folder = Path::new("/nowhere").join(&item.dir);
    let config = Config {
        output: OutputPolicy {
            dir: "/nowhere".into(),
            ..OutputPolicy::default()
        },
        ..Config::default()
    };
    let downloader = Downloader::new(config).expect("the default user agent is one");
    let path = downloader.plan(item).path.ok_or("no path")?;
    ensure(path.starts_with(&folder), "outside its folder")?;
    if named {
        safe_name(path.strip_prefix(folder).expect("it begins so"))
    } else {
        Ok(())
    }
}

/// Checks a file name that comes from a URL or a server.
pub fn safe_name(path: &Path) -> Result<(), String> {
    let name = path.to_str().ok_or("a name that is not UTF-8")?;
    let is_plain = path
        .components()
        .all(|it| matches!(it, Component::Normal(_)));
    ensure(
        is_plain && path.components().count() == 1,
        "a name that is a path",
    )?;
    ensure(!name.contains(['/', '\\', '\0']), "a name with separators")?;
    ensure(
        !name.contains(char::is_control),
        "a name with control characters",
    )?;
    ensure(!name.contains('\u{202e}'), "a name that misleads")?;
    ensure(name.len() + ".part.json".len() <= 255, "a long name")?;
    ensure(!name.starts_with('-'), "a name that is an option")
}

/// Checks that a netrc file is never printed.
fn netrc(text: &str) -> Result<(), String> {
    let shown = format!("{:?}", Netrc::from_bytes(text.as_bytes()));
    ensure(!shown.contains(SECRET), "a netrc file is printed")
}

/// Checks that a listed host and its subdomains use no proxy, whatever else the list contains.
fn no_proxy(text: &str) -> Result<(), String> {
    let url = |text: &str| text.parse::<Url>().expect("a URL");
    let urls = [
        "http://h.example/",
        "http://a.h.example:8080/",
        "http://10.1.2.3/",
        "http://[::1]/",
    ];
    let through = |list: &str| {
        let proxy = "proxy".parse().expect("a proxy");
        let proxies = Proxies {
            http: ProxySetting::Proxy(proxy),
            https: ProxySetting::Direct,
            no_proxy: NoProxy::from(list),
        };
        urls.map(|at| matches!(proxies.for_url(&url(at)), Ok(Some(_))))
    };
    let listed = through(&format!("{text},H.example, 10.0.0.0/8,[::1]"));
    ensure(listed == [false; 4], "a listed host uses the proxy")?;
    let before = through(text);
    let after = through(&format!("{text},other.invalid"));
    ensure(before == after, "another host changes the result")
}

/// Checks that the printed form of a parsed value parses to the same value.
fn values(text: &str) -> Result<(), String> {
    for line in text.lines().chain([text]) {
        if let Ok(checksum) = line.parse::<Checksum>() {
            let again = format!("{}={}", checksum.algorithm(), checksum.hex()).parse();
            ensure(again == Ok(checksum), "a checksum does not round-trip")?;
        }
        if let Ok(header) = line.parse::<Header>() {
            ensure(
                !header.value().contains(['\r', '\n', '\0']),
                "a header with a line end",
            )?;
            ensure(
                !header.name().contains([' ', ':']),
                "an invalid header name",
            )?;
        }
        if let Ok(proxy) = line.parse::<Proxy>() {
            let again = proxy
                .to_string()
                .parse::<Proxy>()
                .map(|proxy| proxy.to_string());
            ensure(
                again == Ok(proxy.to_string()),
                "a proxy does not round-trip",
            )?;
            ensure(
                !format!("{proxy:?}").contains('@'),
                "the login of a proxy is printed",
            )?;
        }
        let shown = format!(
            "{:?} {:?} {:?} {:?}",
            line.parse::<Token>(),
            line.parse::<Cookie>(),
            line.parse::<BasicAuth>(),
            line.parse::<Shard>()
        );
        ensure(!shown.contains(SECRET), "a secret is printed")?;
        let failed = Item::parse(line)
            .err()
            .map(|failure| failure.url)
            .unwrap_or_default();
        let once = line.matches(SECRET).count() == 1;
        let user = line
            .find(SECRET)
            .zip(line.find('@'))
            .filter(|(secret, at)| once && secret < at);
        let is_user = user.is_some_and(|(_, at)| !line[..at].contains(['/', '?', '#']));
        ensure(
            !(is_user && failed.contains(SECRET)),
            "a password is printed",
        )?;
    }
    let list = text.parse::<ChecksumList>();
    let again = text.replace('\n', "\r\n").parse::<ChecksumList>();
    ensure(
        list == again || text.contains('\r'),
        "line ends change a list of checksums",
    )
}

/// Checks that the end of a head and the chunks do not depend on how a response is split.
fn pieces(bytes: &[u8], random: &mut Rng) -> Result<(), String> {
    let end = find_end(bytes, 0);
    let mut seen: usize = 0;
    let mut found = None;
    while found.is_none() && seen < bytes.len() {
        let more = (seen + random.usize(1..60)).min(bytes.len());
        found = find_end(&bytes[..more], seen.saturating_sub(2));
        seen = more;
    }
    ensure(found == end, "the end of a head depends on the pieces")?;
    let Some(end) = end else { return Ok(()) };
    let _ = ResponseHead::parse(&bytes[..end]);
    let body = &bytes[end..];
    let whole = chunks(body, body.len().max(1));
    let split = chunks(body, random.usize(1..60));
    ensure(whole == split, "the chunks depend on the pieces")
}

/// Returns the data of a chunked body that is decoded in pieces of `size` bytes, and its end.
fn chunks(bytes: &[u8], size: usize) -> (Vec<u8>, Result<bool, String>) {
    let mut chunks = ChunkedDecoder::default();
    let mut buffer = Vec::new();
    let mut data = Vec::new();
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            match chunks.advance(&buffer) {
                Ok(used) => drop(buffer.drain(..used)),
                Err(error) => return (data, Err(error.to_string())),
            }
            let count = buffer
                .len()
                .min(usize::try_from(chunks.data_remaining()).unwrap_or(usize::MAX));
            if count == 0 {
                break;
            }
            data.extend(buffer.drain(..count));
            chunks.consume_data(count as u64);
        }
    }
    (data, Ok(chunks.is_complete()))
}
