//! Where the list of what to fetch comes from: arguments, files, stdin.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use clap::Args;
use futures_lite::stream::Boxed;
use futures_lite::{Stream, StreamExt as _, stream};
use myapp::download::{DownloadError, Failure as Failed, Item, List, Shard};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use smol::channel::{Sender, bounded};

use crate::exit_code::{Code, Failure};
use crate::output::stderr;
use crate::stdin::{self, next_line};

/// What a read of a list has brought: to wake the other thread for each line would cost more than
/// a small file.
type Block = Vec<Result<Item, Failed>>;

/// Blocks that are read ahead.
const AHEAD: usize = 1;

/// A URL waits this long for options in the next lines, where these do not come with it.
const GRACE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

#[derive(Debug, Clone, Args)]
pub(super) struct ListOptions {
    /// What to fetch; without :// https:// is meant; - reads a list from stdin, as -i does
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// A list: a URL a line, its mirrors behind tabs, its options indented below; - for stdin
    #[arg(short, long, value_name = "FILE", help_heading = "Files")]
    input_file: Option<PathBuf>,
    /// Only the I-th (from 0) of N parts of the list, by a hash of each URL
    #[arg(long, value_name = "I/N", help_heading = "Files")]
    shard: Option<Shard>,
}

impl ListOptions {
    /// Whether nothing is named at all.
    pub(super) fn is_empty(&self) -> bool {
        self.urls.is_empty() && self.input_file.is_none()
    }

    /// The URL, if there is only one and no list.
    pub(super) fn single(&self) -> Option<&str> {
        match &self.urls[..] {
            [url] if url != "-" && self.input_file.is_none() => Some(url),
            _ => None,
        }
    }

    /// The number of files. None where a list is a stream, which can be read only once; a list
    /// that is a file is read to its end.
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

    /// What to fetch: the arguments in their order, then the file.
    pub(super) fn items(&self) -> Result<Boxed<Result<Item, Failed>>, Failure> {
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

/// The number of items of a list, if it is a file that can be read.
fn count(path: &Path, shard: Option<Shard>) -> Option<u64> {
    fs::metadata(path).ok().filter(|list| list.is_file())?;
    let mut input = BufReader::new(File::open(path).ok()?);
    let mut list = List::new(stderr::path(path)).part(shard);
    let mut items = 0;
    while let Some(line) = next_line(&mut input, List::LONGEST).ok()? {
        items += u64::from(list.line(&line).is_some());
    }
    Some(items + u64::from(list.flush().is_some()))
}

fn from_stdin(shard: Option<Shard>) -> Boxed<Result<Item, Failed>> {
    // Opened in its turn: what stands before it is fetched in any case.
    match stdin::unbuffered() {
        Ok(stdin) => read(stdin, "stdin".to_owned(), shard).boxed(),
        Err(error) => stream::once(Err(unread("stdin", error))).boxed(),
    }
}

fn from_file(path: &Path, shard: Option<Shard>) -> Result<Boxed<Result<Item, Failed>>, Failure> {
    let name = stderr::path(path);
    let file = File::open(path).with_context(|| format!("open the list {name}"));
    let file = file.map_err(|error| Failure::new(Code::LocalFile, error))?;
    Ok(read(file, name, shard).boxed())
}

/// The items of a list as its lines come, no more than a few ahead.
fn read(
    file: File,
    name: String,
    shard: Option<Shard>,
) -> impl Stream<Item = Result<Item, Failed>> + Send {
    let (items, received) = bounded(AHEAD);
    // A thread of its own: nothing else can wait for a line without holding up the others.
    thread::spawn(move || {
        let list = List::new(name.as_str()).part(shard);
        if let Err(error) = send_items(file, list, &items) {
            // Nobody receives any more when the run has been stopped.
            let _ = items.send_blocking(vec![Err(unread(&name, error))]);
        }
    });
    received.flat_map(stream::iter)
}

fn unread(name: &str, source: io::Error) -> Failed {
    Failed {
        url: name.to_owned(),
        source: DownloadError::List { source },
    }
}

/// Sends all complete items of a read together, each as soon as it is complete: when the next one
/// begins, when the list ends, and when nothing more comes for a while. Who writes a URL and
/// leaves the pipe open wants it now.
fn send_items(file: File, mut list: List, items: &Sender<Block>) -> io::Result<()> {
    let mut input = BufReader::new(file);
    let mut block = Block::new();
    loop {
        let held = input.buffer();
        if !held.contains(&b'\n') {
            let is_option = matches!(held.first(), Some(b' ' | b'\t'));
            if !send(&mut block, items) {
                return Ok(());
            }
            if !is_option && !is_at_hand(input.get_ref())? {
                block.extend(list.flush());
                if !send(&mut block, items) {
                    return Ok(());
                }
            }
        }
        let line = next_line(&mut input, List::LONGEST)?;
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

/// Sends a block, if there is anything in it; whether anybody receives more.
fn send(block: &mut Block, items: &Sender<Block>) -> bool {
    block.is_empty() || items.send_blocking(std::mem::take(block)).is_ok()
}

/// Whether more can be read within a moment, or the end has come.
fn is_at_hand(input: &File) -> io::Result<bool> {
    let mut fds = [PollFd::new(input, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut fds, Some(&GRACE)))? > 0)
}
