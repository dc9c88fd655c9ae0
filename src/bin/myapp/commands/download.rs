//! `myapp download`.

mod checksums;
mod connection;
mod credentials;
mod failed;
mod files;
mod retry;
mod split;

use std::cell::Cell;
use std::env;
use std::fs::File;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::Args;
use futures_lite::stream::Boxed;
use futures_lite::{Stream, StreamExt as _, future, stream};
use myapp::download::{
    Config, Downgrade, DownloadError, Downloader, Event, Failure as Failed, Header, Item, Report,
    Saved, Target,
};
use myapp::escape::Escaped;
use myapp::limits::stop::stop;
use myapp::runtime;
use myapp::units::{Elapsed, Size, parse_duration};

use self::connection::ConnectionOptions;
use self::credentials::CredentialOptions;
use self::failed::{cause, code, problem};
use crate::exit::{Code, Failure};
use crate::output::log::Log;
use crate::output::progress::Progress;
use crate::output::terminal;
use crate::secret::secret;
use crate::signals::Ending;

/// A line of standard input that is longer is no URL.
const LONGEST_LINE: u64 = 64 * 1024;

/// Lines that are read ahead: to wake the other thread for each would cost more than the line.
const LINES_AHEAD: usize = 64;

/// Failures that the summary names; a line has told each already when it happened.
const NAMED: usize = 20;

const EXAMPLES: &str = "\
Examples:
  myapp download https://example.com/a.iso https://example.org/b.iso
  myapp download -d isos -j 3 - < urls.txt
  myapp download -o - https://example.com/data.csv | head
  myapp download -s 8 -c https://example.com/a.iso

A file appears under its name when it is whole; until then it is called NAME.part.
Where a file of that name is there already, the new one becomes NAME.1, NAME.2 …
What broke off goes on with -c, if the server still has the same file.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// What to fetch; without :// https:// is meant; - reads URLs from stdin, one a line
    #[arg(value_name = "URL")]
    urls: Vec<String>,

    /// The folder for the files, made if missing [default: the current one]
    #[arg(short, long, visible_alias = "output-dir", value_name = "DIR", help_heading = "Files")]
    dir: Option<PathBuf>,
    /// The file for a single URL; - for stdout
    #[arg(short, long, value_name = "PATH", help_heading = "Files")]
    output: Option<PathBuf>,
    #[command(flatten)]
    files: files::FileOptions,
    #[command(flatten)]
    checksums: checksums::ChecksumOptions,

    /// Files at once
    #[arg(short, long, value_name = "N", default_value = "5", help_heading = "Transfers")]
    jobs: NonZeroUsize,
    /// Redirects to follow for one file
    #[arg(long, value_name = "N", default_value = "20", help_heading = "Transfers")]
    max_redirs: usize,
    /// Follow redirects from https to http too
    #[arg(long, help_heading = "Transfers")]
    allow_http_redirect: bool,
    /// How long connecting may take
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "10s", help_heading = "Transfers")]
    connect_timeout: Duration,
    /// How long a server may send nothing
    #[arg(short = 'T', long, value_name = "DUR", value_parser = parse_duration, default_value = "30s", help_heading = "Transfers")]
    timeout: Duration,
    #[command(flatten)]
    split: split::SplitOptions,
    #[command(flatten)]
    retry: retry::RetryOptions,

    /// Add a header field; one that looks like a credential stays with the first server
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = secret::<Header>(), help_heading = "Requests")]
    header: Vec<Header>,
    /// The program's name for servers [default: myapp/VERSION]
    #[arg(short = 'A', long, value_name = "TEXT", help_heading = "Requests")]
    user_agent: Option<String>,

    #[command(flatten)]
    credentials: CredentialOptions,
    #[command(flatten)]
    connection: ConnectionOptions,

    // What fingers type that know curl and wget: already the default, or ours by another name.
    #[arg(short = 'L', long, hide = true)]
    location: bool,
    #[arg(short = 'f', long, hide = true)]
    fail: bool,
    #[arg(short = 'Z', long, hide = true)]
    parallel: bool,
    #[arg(long, hide = true)]
    remote_name_all: bool,
    #[arg(long, hide = true)]
    create_dirs: bool,
    #[arg(short = 'O', hide = true)]
    foreign_o: bool,
    #[arg(short = 'n', hide = true, value_name = "c")]
    foreign_n: Option<String>,
    #[arg(short = 'C', hide = true)]
    foreign_c: bool,
}

impl Options {
    fn to_config(&self) -> Config {
        let default = self.files.apply(Config::default());
        let default = self.split.apply(self.retry.apply(default));
        Config {
            jobs: self.jobs,
            dir: self.dir.clone().unwrap_or(default.dir),
            max_redirects: self.max_redirs,
            downgrade: match self.allow_http_redirect {
                true => Downgrade::Followed,
                false => Downgrade::Refused,
            },
            headers: self.header.clone(),
            credentials: default.credentials,
            user_agent: self.user_agent.clone().unwrap_or(default.user_agent),
            connect_timeout: self.connect_timeout,
            idle_timeout: self.timeout,
            ..default
        }
    }

    /// Refuses what cannot be meant, before anything is touched.
    fn check(&self) -> Result<(), Failure> {
        if self.foreign_o {
            return Err(Failure::usage("there is no -O")
                .hint("files are named after their URLs anyway; -o PATH names a single one"));
        }
        if self.foreign_n.is_some() {
            return Err(Failure::usage("there is no -n or -nc")
                .hint("--no-clobber keeps a file that is there and fetches nothing"));
        }
        if self.foreign_c {
            return Err(Failure::usage("there is no -C")
                .hint("-c goes on with what an earlier run has left"));
        }
        if self.urls.is_empty() {
            return Err(Failure::usage("no URL to download")
                .hint("name one, or write - to read URLs from stdin"));
        }
        if self.output.is_some() && (self.urls.len() > 1 || self.urls[0] == "-") {
            return Err(Failure::usage("-o names the file of a single URL, and here are several")
                .hint("-d DIR names the folder for all"));
        }
        if self.checksums.checksum.is_some() && (self.urls.len() > 1 || self.urls[0] == "-") {
            return Err(Failure::usage("--checksum is that of a single URL, and here are several")
                .hint("--checksums FILE holds those of many"));
        }
        self.check_dir()
    }

    /// In other programs `-d` is the data to send.
    fn check_dir(&self) -> Result<(), Failure> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let looks_like_data = dir.as_os_str().as_bytes().iter().any(|byte| b"=@".contains(byte));
        if !looks_like_data || dir.exists() {
            return Ok(());
        }
        let text = format!("-d names a folder, and there is none called {}", terminal::path(dir));
        Err(Failure::usage(text).hint("make the folder first if you mean it; data cannot be sent"))
    }

    /// The number of files, if it is known before stdin has been read.
    fn expected(&self) -> Option<u64> {
        let known = !self.urls.iter().any(|url| url == "-");
        known.then_some(self.urls.len() as u64)
    }

    fn is_to_stdout(&self) -> bool {
        self.output.as_deref() == Some(Path::new("-"))
    }

    fn target(&self) -> Result<Target, Failure> {
        match &self.output {
            None => Ok(Target::Named),
            Some(_) if self.is_to_stdout() => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = stdout.map_err(|error| {
                    Failure::new(Code::LocalFile, anyhow::Error::new(error).context("open stdout"))
                })?;
                Ok(Target::Sink(Box::new(File::from(stdout))))
            }
            Some(path) => Ok(Target::File(path.clone())),
        }
    }

    /// The list of what to fetch, in the order of the arguments.
    fn items(&self) -> Result<Boxed<Result<Item, Failed>>, Failure> {
        if let [url] = &self.urls[..]
            && url != "-"
        {
            let (target, checksum) = (self.target()?, self.checksums.checksum.clone());
            return Ok(stream::once(Item::parse(url).map(|item| Item {
                target,
                checksum,
                ..item
            }))
            .boxed());
        }
        let items = stream::iter(self.urls.clone()).flat_map(|url| match url.as_str() {
            "-" => from_stdin().boxed(),
            url => stream::once(Item::parse(url)).boxed(),
        });
        Ok(items.boxed())
    }
}

pub(crate) fn run(options: Options, log: &Log) -> Result<Code, Failure> {
    options.check()?;
    let items = options.items()?;
    let mut config = options.to_config();
    options.credentials.apply(&mut config)?;
    options.connection.apply(&mut config, |name| env::var(name).ok())?;
    let downloader = Downloader::new(options.checksums.read(config)?)
        .map_err(|error| Failure::new(code(&error), error))?;
    let ending = Ending::catch().and_then(Ending::second_ends_at_once);
    let mut ending = ending.map_err(|error| Failure::new(Code::Failure, error))?;

    let codes = Mutex::new(Code::Success);
    // Bars between the lines of the file itself would be no help.
    let quiet = log.quiet || options.is_to_stdout() && io::stdout().is_terminal();
    let progress = Progress::start(&log.screen, quiet, options.expected());
    let observer = |number, event: Event<'_>| {
        if let Event::Failed(failed) = &event {
            let mut codes = codes.lock().unwrap_or_else(PoisonError::into_inner);
            *codes = Code::of_all([*codes, code(&failed.source)]);
        }
        tell(&progress, number, event);
    };
    let ended = Cell::new(None);
    let (stopper, stopped) = stop();
    let signal = async {
        ended.set(Some(ending.next().await));
        stopper.stop();
        future::pending().await
    };
    let run = downloader.run(items, &observer, stopped.stopped());
    let report = runtime::run(future::or(run, signal));
    progress.end();
    if !quiet {
        terminal::say(&summary(&report, ended.get().is_some()));
    }
    let code = codes.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(ended.get().unwrap_or(code))
}

/// URLs from stdin, a line each, as the lines come, no more than a few ahead.
fn from_stdin() -> impl Stream<Item = Result<Item, Failed>> + Send {
    let (send, items) = smol::channel::bounded(LINES_AHEAD);
    // A thread of its own: nothing else can wait for a line without holding up the others.
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut line = Vec::new();
        while let Some(item) = next_item(&mut input, &mut line) {
            let is_last = matches!(&item, Err(Failed { source: DownloadError::List { .. }, .. }));
            // Nobody receives any more when the run has been stopped.
            if send.send_blocking(item).is_err() || is_last {
                break;
            }
        }
    });
    items
}

/// The URL in the next line that is not blank.
fn next_item(input: &mut impl io::BufRead, line: &mut Vec<u8>) -> Option<Result<Item, Failed>> {
    let failed =
        |source| Some(Err(Failed { url: "-".to_owned(), source: DownloadError::List { source } }));
    loop {
        line.clear();
        match input.take(LONGEST_LINE).read_until(b'\n', line) {
            Ok(0) => return None,
            Ok(count) if count as u64 == LONGEST_LINE => {
                return failed(io::Error::new(io::ErrorKind::InvalidData, "a line is too long"));
            }
            Ok(_) => {}
            Err(error) => return failed(error),
        }
        let text = String::from_utf8_lossy(line);
        if !text.trim().is_empty() {
            return Some(Item::parse(text.trim()));
        }
    }
}

/// Hands on what the run tells.
fn tell(progress: &Progress, number: u64, event: Event<'_>) {
    match event {
        Event::Started { url, path } => match path.and_then(Path::file_name) {
            Some(name) => progress.started(number, name.as_bytes()),
            None => progress.started(number, url.as_str().as_bytes()),
        },
        Event::Answered { length } => progress.answered(number, length),
        Event::Received { position } => progress.received(number, position),
        Event::Saved(saved) => progress.saved(number, saved.bytes, saved_line(saved)),
        Event::Failed(failed) => progress.failed(number, problem(failed)),
        Event::Stopped => progress.stopped(number),
        _ => {}
    }
}

/// A line for a file that is whole; what went to stdout needs none.
fn saved_line(saved: &Saved) -> Option<String> {
    let path = terminal::path(saved.path.as_deref()?);
    if saved.skipped {
        return Some(format!("kept {path}: it is there already\n"));
    }
    let elapsed = Elapsed(saved.elapsed);
    Some(format!("saved {path}: {} in {elapsed}\n", Size(saved.bytes)))
}

/// What a run of several files has done, and what failed in it; nothing about a single file, of
/// which all has been said.
fn summary(report: &Report, interrupted: bool) -> String {
    let asked = report.saved + report.skipped + report.failed + report.stopped;
    if asked <= 1 && !interrupted {
        return String::new();
    }
    let rate = report.bytes as f64 / report.elapsed.as_secs_f64().max(1e-3);
    let mut text = if interrupted { "interrupted: " } else { "" }.to_owned();
    text += &format!("{} of {asked} files saved", report.saved);
    text += &format!(", {} in {}", Size(report.bytes), Elapsed(report.elapsed));
    text += &format!(" ({}/s)", Size(rate as u64));
    for (count, what) in [
        (report.skipped, "there already"),
        (report.failed, "failed"),
        (report.stopped, "not finished"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text.push('\n');
    for failed in report.failures.iter().take(NAMED) {
        let url = Escaped(failed.url.as_bytes());
        text += &format!("  {url}: {}\n", cause(failed));
    }
    if report.failed > NAMED as u64 {
        text += &format!("  and {} more, named above\n", report.failed - NAMED as u64);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use myapp::download::{Existing, SlowestPace};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &[&str]) -> Options {
        Line::try_parse_from([&["download"], line].concat()).unwrap().options
    }

    #[test]
    fn what_help_says_are_the_defaults_are_the_defaults() {
        let config = options(&["u"]).to_config();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn each_option_reaches_the_configuration() {
        let line = "-j 3 -d . --max-redirs 1 --allow-http-redirect --connect-timeout 1m \
                    -T 1 -A me -c --overwrite --fsync --remote-time \
                    --max-filesize 1K -J --max-time 9 --speed-limit 1K --retry 7 --retry-delay 2s \
                    --retry-max-time 3s -s 4 -k 5M u";
        let mut line: Vec<_> = line.split_whitespace().collect();
        line.extend(["-H", "A: b", "-H", "C: d"]);
        let config = options(&line).to_config();
        assert_eq!(config.jobs.get(), 3);
        assert_eq!(config.dir, Path::new("."));
        assert_eq!(config.max_redirects, 1);
        assert_eq!(config.downgrade, Downgrade::Followed);
        assert_eq!(config.connect_timeout, Duration::from_secs(60));
        assert_eq!(config.idle_timeout, Duration::from_secs(1));
        assert_eq!(config.user_agent, "me");
        assert_eq!(config.headers.len(), 2);
        assert!(config.sync && config.remote_time && config.max_size == Some(1024));
        assert!(config.server_names && config.max_time == Some(Duration::from_secs(9)));
        let slowest = SlowestPace { rate: 1024, time: Duration::from_secs(30) };
        assert_eq!(config.slowest, Some(slowest));
        assert!(config.resume && config.existing == Existing::Replace);
        assert_eq!((config.retries, config.retry_delay), (7, Duration::from_secs(2)));
        assert_eq!(config.retry_time, Some(Duration::from_secs(3)));
        assert_eq!((config.split.get(), config.min_split), (4, 5 << 20));
    }

    #[test]
    fn lines_are_urls_and_blank_ones_are_none() {
        let mut input = io::Cursor::new("\n http://a/1 \r\n\t\nhttp://a/2");
        let mut line = Vec::new();
        let mut next =
            || next_item(&mut input, &mut line).map(|item| item.unwrap().source.url.to_string());
        assert_eq!(next().as_deref(), Some("http://a/1"));
        assert_eq!(next().as_deref(), Some("http://a/2"));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_line_without_end_is_an_error_and_costs_no_memory() {
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        let mut line = Vec::new();
        let failed = next_item(&mut endless, &mut line).unwrap().unwrap_err();
        assert!(matches!(failed.source, DownloadError::List { .. }));
        assert!(line.len() as u64 <= LONGEST_LINE);
    }
}
