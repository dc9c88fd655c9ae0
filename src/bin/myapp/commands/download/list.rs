//! Sources of URLs: arguments, list files, stdin.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use clap::Args;
use futures_lite::stream::Boxed;
use futures_lite::{Stream, StreamExt as _, stream};
use myapp::download::{Error as DownloadError, FailedItem, Item, List, Shard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use smol::channel::{Sender, bounded};

use crate::exit_code::{CommandError, ExitCode};
use crate::home;
use crate::output::stderr;
use crate::stdin::{self, next_line};

/// Items of one read of a list. They are sent together, because waking the other thread per line
/// would cost more than a small download.
type Block = Vec<Result<Item, FailedItem>>;

/// Blocks read ahead.
const READ_AHEAD_CAPACITY: usize = 1;

/// Time that a URL waits for option lines that did not arrive in the same read.
const OPTION_TIMEOUT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

#[derive(Debug, Clone, Args)]
pub(super) struct ListOptions {
    /// URLs (https:// without a scheme); - for a list on stdin
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// List of URLs, one per line; - for stdin
    #[arg(short, long, value_name = "FILE", value_parser = home::path(), help_heading = "Files")]
    input_file: Option<PathBuf>,
    /// Process only shard I (from 0) of N, by a hash of each URL
    #[arg(long, value_name = "I/N", help_heading = "Files")]
    shard: Option<Shard>,
}

impl ListOptions {
    /// Returns whether neither a URL nor a list was given.
    pub(super) fn is_empty(&self) -> bool {
        self.urls.is_empty() && self.input_file.is_none()
    }

    /// Returns the URL, if there is exactly one and no list.
    pub(super) fn single(&self) -> Option<&str> {
        match &self.urls[..] {
            [url] if url != "-" && self.input_file.is_none() => Some(url),
            _ => None,
        }
    }

    /// Rejects arguments that are no URLs but could be taken for host names.
    pub(super) fn check(&self, is_parallel: bool) -> Result<(), CommandError> {
        for url in self.urls.iter().filter(|url| *url != "-") {
            if is_parallel && url.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(CommandError::usage("--parallel takes no number")
                    .hint(format!("use -j {url} for concurrent files")));
            }
            if Path::new(url).is_file() {
                let file = stderr::path(Path::new(url));
                return Err(
                    CommandError::usage(format!("{file} is a file, not a URL")).hint(format!(
                        "-i {file} reads URLs from it; https://{file} is a URL"
                    )),
                );
            }
        }
        Ok(())
    }

    /// Returns the note about a run without a URL, or nothing without a shard, which may be the
    /// cause.
    pub(super) fn empty_note(&self) -> String {
        self.shard
            .map(|shard| format!("note: no URL is in shard {shard}\n"))
            .unwrap_or_default()
    }

    /// Returns the number of files, or `None` if a list is a stream, which can be read only once.
    /// Reads a list file to its end.
    pub(super) fn count(&self) -> Option<u64> {
        if self.urls.iter().any(|url| url == "-") {
            return None;
        }
        let named = self.urls.iter().filter(|url| self.is_mine(url)).count() as u64;
        let listed = self
            .input_file
            .as_deref()
            .map_or(Some(0), |path| count(path, self.shard));
        Some(named + listed?)
    }

    /// Returns the items: the arguments in order, then the list file.
    pub(super) fn items(&self) -> Result<Boxed<Result<Item, FailedItem>>, CommandError> {
        let shard = self.shard;
        let urls: Vec<_> = self
            .urls
            .iter()
            .filter(|url| self.is_mine(url))
            .cloned()
            .collect();
        let named = stream::iter(urls).flat_map(move |url| match url.as_str() {
            "-" => from_stdin(shard),
            url => stream::once(Item::parse(url)).boxed(),
        });
        let list = match self.input_file.as_deref() {
            None => stream::empty().boxed(),
            Some(path) if path == Path::new("-") => from_stdin(shard),
            Some(path) => from_file(path, shard)?,
        };
        Ok(named.chain(list).boxed())
    }

    fn is_mine(&self, url: &str) -> bool {
        url == "-" || self.shard.is_none_or(|shard| shard.has(url))
    }
}

/// Returns the number of items of a list, if it is a readable regular file.
fn count(path: &Path, shard: Option<Shard>) -> Option<u64> {
    fs::metadata(path).ok().filter(|list| list.is_file())?;
    let mut input = BufReader::new(File::open(path).ok()?);
    let mut list = List::new(stderr::path(path)).part(shard);
    let mut items = 0;
    while let Some(line) = next_line(&mut input, List::MAX_LINE_LEN).ok()? {
        items += u64::from(list.line(&line).is_some());
    }
    Some(items + u64::from(list.flush().is_some()))
}

fn from_stdin(shard: Option<Shard>) -> Boxed<Result<Item, FailedItem>> {
    // Opened late, so that preceding URLs are downloaded even if stdin cannot be read.
    match stdin::unbuffered() {
        Ok(stdin) => read(stdin, "stdin".to_owned(), shard).boxed(),
        Err(error) => stream::once(Err(unread("stdin", error))).boxed(),
    }
}

fn from_file(
    path: &Path,
    shard: Option<Shard>,
) -> Result<Boxed<Result<Item, FailedItem>>, CommandError> {
    let name = stderr::path(path);
    let file = File::open(path).with_context(|| format!("open list {name}"));
    let file = file.map_err(|error| CommandError::new(ExitCode::LocalFile, error))?;
    Ok(read(file, name, shard).boxed())
}

/// Streams the items of a list as its lines arrive, with bounded read-ahead.
fn read(
    file: File,
    name: String,
    shard: Option<Shard>,
) -> impl Stream<Item = Result<Item, FailedItem>> + Send {
    let (items, received) = bounded(READ_AHEAD_CAPACITY);
    // A blocking read needs a thread of its own; it would stall the executor.
    thread::spawn(move || {
        let list = List::new(name.as_str()).part(shard);
        if let Err(error) = send_items(file, list, &items) {
            // Fails if the run was cancelled and the receiver is gone.
            let _ = items.send_blocking(vec![Err(unread(&name, error))]);
        }
    });
    received.flat_map(stream::iter)
}

fn unread(name: &str, source: io::Error) -> FailedItem {
    FailedItem {
        url: name.to_owned(),
        source: DownloadError::List { source },
    }
}

/// Sends all complete items of a read together. An item is complete when the next one starts, when
/// the list ends, or when no option line follows in time: a writer that keeps the pipe open expects
/// its URL to be downloaded at once.
fn send_items(file: File, mut list: List, items: &Sender<Block>) -> io::Result<()> {
    let mut input = BufReader::new(file);
    let mut block = Block::new();
    loop {
        let buffered = input.buffer();
        if !buffered.contains(&b'\n') {
            let is_option = matches!(buffered.first(), Some(b' ' | b'\t'));
            if !send(&mut block, items) {
                return Ok(());
            }
            if !is_option && !is_readable_soon(input.get_ref())? {
                block.extend(list.flush());
                if !send(&mut block, items) {
                    return Ok(());
                }
            }
        }
        let line = next_line(&mut input, List::MAX_LINE_LEN)?;
        block.extend(match &line {
            Some(line) => list.line(line),
            None => list.flush(),
        });
        if line.is_none() {
            send(&mut block, items);
            return Ok(());
        }
    }
}

/// Sends a block unless it is empty; returns whether the receiver still exists.
fn send(block: &mut Block, items: &Sender<Block>) -> bool {
    block.is_empty() || items.send_blocking(std::mem::take(block)).is_ok()
}

/// Returns whether the input becomes readable, or ends, within [`OPTION_TIMEOUT`].
fn is_readable_soon(input: &File) -> io::Result<bool> {
    let mut fds = [PollFd::new(input, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut fds, Some(&OPTION_TIMEOUT)))? > 0)
}
