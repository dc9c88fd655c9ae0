//! Complete downloads from a server that truncates responses, ignores headers, changes its file and
//! sends other ranges than requested, but always with a correct Content-Range. A saved file equals
//! one of its versions.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_lite::{future, stream};
use myapp::download::http::ClientConfig;
use myapp::download::{
    Config, Downloader, Item, Limits, NameSource, OutputPolicy, Report, RetryPolicy, Target,
};
use tempfile::TempDir;

use crate::server::{Reply, Server};
use crate::texts::safe_name;

/// Maximum number of faults per server.
const MAX_FAULTS: usize = 8;

/// Validator field of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Validator {
    Strong,
    Weak,
    Date,
    None,
}

/// Server of one file.
struct Origin {
    random: Rng,
    /// The versions; the last one is current.
    versions: Vec<Vec<u8>>,
    validator: Validator,
    faults: usize,
    /// Requests and responses, printed with a failure.
    log: Vec<String>,
}

/// Runs one case, which depends only on the seed.
///
/// # Errors
///
/// A description of the failed check.
pub fn check(server: &Server, random: &mut Rng) -> Result<(), String> {
    let validators = [
        Validator::Strong,
        Validator::Weak,
        Validator::Date,
        Validator::None,
    ];
    let origin = Origin {
        versions: vec![bytes(random)],
        validator: validators[random.usize(..4)],
        faults: random.usize(..MAX_FAULTS),
        log: Vec::new(),
        random: random.fork(),
    };
    let origin = Arc::new(Mutex::new(origin));
    let handler = origin.clone();
    server.set_handler(move |request| handler.lock().expect("no panic").respond(request));
    let checked = match random.u8(..4) {
        0 => check_writer(server, &origin, random),
        _ => check_file(server, &origin, random),
    };
    let origin = origin.lock().expect("no panic");
    checked.map_err(|what| {
        let lengths: Vec<_> = origin.versions.iter().map(Vec::len).collect();
        format!(
            "{what}\n{:?}, versions of {lengths:?}\n{}",
            origin.validator,
            origin.log.join("\n")
        )
    })
}

fn bytes(random: &mut Rng) -> Vec<u8> {
    let length = match random.u8(..4) {
        0 => random.usize(..10),
        1 => random.usize(..2000),
        _ => random.usize(..200_000),
    };
    (0..length).map(|_| random.u8(..)).collect()
}

fn config(random: &mut Rng, dir: &Path) -> Config {
    Config {
        output: OutputPolicy {
            dir: dir.to_owned(),
            ..OutputPolicy::default()
        },
        limits: Limits {
            connections_per_file: NonZeroUsize::new(random.usize(1..4)).expect("not zero"),
            min_segment_len: 1000,
            ..Limits::default()
        },
        retry: RetryPolicy {
            max_retries: random.u32(..12),
            base_delay: Duration::from_micros(10),
            ..RetryPolicy::default()
        },
        connect: ClientConfig {
            idle_timeout: Duration::from_secs(20),
            ..ClientConfig::default()
        },
        ..Config::default()
    }
}

pub fn run(config: Config, item: Item) -> Report {
    let downloader = Downloader::new(config).expect("the default user agent is one");
    let list = stream::once(Ok(item));
    myapp::runtime::block_on(downloader.run(list, &|_, _| {}, future::pending()))
}

fn check_file(server: &Server, origin: &Mutex<Origin>, random: &mut Rng) -> Result<(), String> {
    let folder = TempDir::new().map_err(|error| error.to_string())?;
    for resume in [false, true, true] {
        let config = Config {
            output: OutputPolicy {
                resume,
                ..config(random, folder.path()).output
            },
            ..config(random, folder.path())
        };
        let report = run(config, Item::parse(&server.url("f")).expect("a URL"));
        let names = names(folder.path());
        if report.saved == 0 {
            let is_left = |name: &String| matches!(name.as_str(), "f.part" | "f.part.json");
            if !names.iter().all(is_left) {
                return Err(format!("nothing is saved, but there is {names:?}"));
            }
            continue;
        }
        if names != ["f"] {
            return Err(format!("f is saved, and there is {names:?}"));
        }
        let saved = fs::read(folder.path().join("f")).map_err(|error| error.to_string())?;
        let origin = origin.lock().expect("no panic");
        return if origin.versions.contains(&saved) {
            Ok(())
        } else {
            Err(format!("{} bytes that are no version", saved.len()))
        };
    }
    Ok(())
}

fn check_writer(server: &Server, origin: &Mutex<Origin>, random: &mut Rng) -> Result<(), String> {
    let sink = Sink::default();
    let item = Item::parse(&server.url("f")).expect("a URL");
    let item = Item {
        target: Target::Writer(Box::new(sink.clone())),
        ..item
    };
    let report = run(config(random, Path::new("")), item);
    let written = sink.0.lock().expect("no panic");
    let origin = origin.lock().expect("no panic");
    let fits = |version: &Vec<u8>| match report.saved {
        0 => version.starts_with(&written),
        _ => *version == *written,
    };
    if origin.versions.iter().any(fits) {
        Ok(())
    } else {
        Err(format!(
            "{} bytes in the writer are of no version",
            written.len()
        ))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("our folder").flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Writer into shared memory.
#[derive(Clone, Default)]
pub struct Sink(pub Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Origin {
    fn respond(&mut self, request: &str) -> Reply {
        let is_faulty = self.faults > 0 && self.random.bool();
        self.faults -= usize::from(is_faulty);
        if is_faulty && self.versions.len() < 3 && self.random.u8(..3) == 0 {
            let length = self.now().len();
            let other = if self.random.bool() {
                (0..length).map(|_| self.random.u8(..)).collect()
            } else {
                bytes(&mut self.random)
            };
            self.versions.push(other);
        }
        let range = self.range(request);
        let now = self.now().len();
        let response = match range {
            Some(from) if from >= now => {
                self.head(416, &format!("Content-Range: bytes */{now}\r\n"))
            }
            Some(from) if is_faulty => self.odd_part(from),
            Some(from) => self.part(from, now),
            None => self.sized(200, "", 0, now),
        };
        let reply = if is_faulty {
            self.inject_fault(response)
        } else {
            keep_alive(response)
        };
        let sent: usize = reply.pieces.iter().map(Vec::len).sum();
        let head = String::from_utf8_lossy(&reply.pieces[0]).into_owned();
        let head = head
            .split("\r\n\r\n")
            .next()
            .unwrap_or_default()
            .replace("\r\n", "; ");
        let headers: Vec<_> = request
            .lines()
            .filter(|line| line.to_lowercase().contains("range"))
            .collect();
        let fault = if is_faulty { "fault: " } else { "" };
        self.log
            .push(format!("{headers:?}: {fault}{head}; {sent} bytes in all"));
        reply
    }

    fn now(&self) -> &[u8] {
        self.versions.last().expect("there is one")
    }

    /// Returns the requested offset if the condition holds. Many servers ignore the condition, so
    /// this one does so now and then.
    fn range(&mut self, request: &str) -> Option<usize> {
        let field = |name: &str| {
            let mut lines = request.lines().filter_map(|line| line.split_once(": "));
            lines
                .find(|(given, _)| given.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let range = field("range")?.strip_prefix("bytes=")?;
        let from = range.split('-').next()?.parse().ok()?;
        let holds = field("if-range").is_none_or(|version| self.version().contains(version));
        (holds || self.faults > 0 && self.random.u8(..3) == 0).then_some(from)
    }

    /// Returns the validator fields of the current version.
    fn version(&self) -> String {
        let number = self.versions.len();
        let dates = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        match self.validator {
            Validator::Strong => format!("ETag: \"v{number}\"\r\n"),
            Validator::Weak => format!("ETag: W/\"v{number}\"\r\n"),
            Validator::Date => {
                format!("{dates}Last-Modified: Sun, 06 Nov 1994 0{number}:00:00 GMT\r\n")
            }
            Validator::None => String::new(),
        }
    }

    fn head(&self, status: u16, fields: &str) -> Vec<u8> {
        let length = if status == 416 {
            "Content-Length: 0\r\n"
        } else {
            ""
        };
        let version = self.version();
        format!("HTTP/1.1 {status} x\r\n{version}{length}{fields}\r\n").into_bytes()
    }

    fn sized(&self, status: u16, fields: &str, from: usize, end: usize) -> Vec<u8> {
        let length = format!("Content-Length: {}\r\n{fields}", end - from);
        [&self.head(status, &length), &self.now()[from..end]].concat()
    }

    fn part(&self, from: usize, end: usize) -> Vec<u8> {
        let range = format!(
            "Content-Range: bytes {from}-{}/{}\r\n",
            end - 1,
            self.now().len()
        );
        self.sized(206, &range, from, end)
    }

    /// Returns a response that is not partial, or of another range.
    fn odd_part(&mut self, from: usize) -> Vec<u8> {
        let all = self.now().len();
        let elsewhere = self.random.usize(..all);
        let end = self.random.usize(from + 1..=all);
        match self.random.u8(..9) {
            0 => self.sized(200, "", 0, all),
            1 => self.part(elsewhere, all),
            2 => self.part(from, end),
            3 => self.sized(206, "", from, all),
            4 => self.sized(
                206,
                "Content-Type: multipart/byteranges; boundary=b\r\n",
                from,
                all,
            ),
            5 => self.sized(
                206,
                &format!("Content-Range: bytes {from}-{}/*\r\n", end - 1),
                from,
                end,
            ),
            6 => self.sized(
                206,
                &format!("Content-Range: lines {from}-{}/{all}\r\n", all - 1),
                from,
                all,
            ),
            7 => self.head(416, &format!("Content-Range: bytes */{elsewhere}\r\n")),
            _ => self.head(416, ""),
        }
    }

    /// Truncates a response where the client can notice it, or replaces it.
    fn inject_fault(&mut self, response: Vec<u8>) -> Reply {
        let head = response
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(0, |at| at + 4);
        let at = self.random.usize(..=response.len());
        let cut = |at: usize| Reply {
            pieces: vec![response[..at].to_vec()],
            ..Reply::default()
        };
        match self.random.u8(..8) {
            0 => cut(0),
            1 => cut(at.min(head)),
            2..5 => cut(at),
            5 => keep_alive(
                b"HTTP/1.1 503 Wait\r\nRetry-After: 0\r\nContent-Length: 4\r\n\r\nwait".to_vec(),
            ),
            6 => keep_alive([&response[..], b"surplus"].concat()),
            _ => keep_alive(response),
        }
    }
}

fn keep_alive(bytes: Vec<u8>) -> Reply {
    Reply {
        pieces: vec![bytes],
        keep_alive: true,
        ..Reply::default()
    }
}

const NAMES: [&str; 26] = [
    "attachment; ",
    "filename=",
    "filename*=",
    "UTF-8''",
    "iso-8859-1'en'",
    "\"",
    "\\",
    ";",
    "=",
    "'",
    "..",
    "/",
    "%2f",
    "%00",
    "%e2%80%ae",
    "\u{202e}",
    ".",
    " ",
    "-rf",
    "CON",
    "C:",
    ".bashrc",
    "f.txt",
    "\u{fc}",
    "%",
    "x",
];

/// Downloads a file with a name from Content-Disposition.
///
/// # Errors
///
/// A description of the failed check.
pub fn check_name(server: &Server, random: &mut Rng) -> Result<(), String> {
    let mut value = if random.bool() {
        "attachment; filename=\"".to_owned()
    } else {
        String::new()
    };
    for _ in 0..random.usize(1..9) {
        value += NAMES[random.usize(..NAMES.len())];
        value += &"y".repeat(if random.u8(..30) == 0 {
            random.usize(..400)
        } else {
            0
        });
    }
    let response =
        format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Disposition: {value}\r\n\r\nx");
    let reply = move |_: &str| keep_alive(response.clone().into_bytes());
    server.set_handler(reply);
    let around = TempDir::new().map_err(|error| error.to_string())?;
    let folder = around.path().join("folder");
    let config = Config {
        output: OutputPolicy {
            name_source: NameSource::ContentDisposition,
            ..config(random, &folder).output
        },
        ..config(random, &folder)
    };
    let report = run(
        config,
        Item::parse(&server.url("%2e%2e%2fu")).expect("a URL"),
    );
    let names = names(&folder);
    let all = self::names(around.path());
    let name = match &names[..] {
        [name] if all == ["folder"] && report.saved == 1 => name,
        _ => {
            return Err(format!(
                "{value:?}: {names:?} in {all:?}, {:?}",
                report.failures
            ));
        }
    };
    safe_name(Path::new(name)).map_err(|what| format!("{what}: {name:?} for {value:?}"))?;
    let is_odd = name.starts_with('.') || name.ends_with(['.', ' ']) || name.contains(':');
    if is_odd {
        Err(format!("{name:?} for {value:?}"))
    } else {
        Ok(())
    }
}
