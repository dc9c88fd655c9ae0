//! `myapp download`.

mod checksums;
mod connection;
mod credentials;
mod failed;
mod files;
mod limits;
mod list;
mod retry;
mod split;

use std::cell::Cell;
use std::env;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use futures_lite::stream::Boxed;
use futures_lite::{Stream, StreamExt as _, future, stream};
use myapp::download::{
    Config, Downgrade, Downloader, Event, Failure as Failed, Foreseen, Header, Item, Report, Saved,
    Target,
};
use myapp::escape::Escaped;
use myapp::limits::shutdown;
use myapp::runtime;
use myapp::units::{Elapsed, Size, parse_duration};

use self::connection::ConnectionOptions;
use self::credentials::CredentialOptions;
use self::failed::{code, problem};
use crate::commands::number;
use crate::exit_code::{Code, Failure};
use crate::output::download::Lines;
use crate::output::log::Log;
use crate::output::progress::Progress;
use crate::output::stderr;
use crate::output::stdout::print;
use crate::redacted_arg::secret;
use crate::signals::Ending;

/// Failures that the summary names; a line has told each already when it happened.
const NAMED: usize = 20;

const EXAMPLES: &str = "\
Examples:
  myapp download https://example.com/a.iso https://example.org/b.iso
  myapp download -d isos -j 3 -i urls.txt
  generate-urls | myapp download -
  myapp download -o - https://example.com/data.csv | head
  myapp download -s 8 -c https://example.com/a.iso

A file appears under its name when it is whole; until then a longer one is called
NAME.part.
Where a file of that name is there already, the new one becomes NAME.1, NAME.2 …
What broke off goes on with -c, if the server still has the same file.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(flatten)]
    list: list::ListOptions,

    /// The folder for the files, made if missing [default: the current one]
    #[arg(
        short,
        long,
        visible_alias = "output-dir",
        value_name = "DIR",
        help_heading = "Files"
    )]
    dir: Option<PathBuf>,
    /// The file for a single URL; - for stdout
    #[arg(short, long, value_name = "PATH", help_heading = "Files")]
    output: Option<PathBuf>,
    #[command(flatten)]
    files: files::FileOptions,
    #[command(flatten)]
    checksums: checksums::ChecksumOptions,
    /// Only tell on stdout which file would go where; ask no server, make nothing
    #[arg(long, help_heading = "Files", conflicts_with = "json")]
    dry_run: bool,
    /// Tell on stdout as a line of JSON how each file ended, then how the run did
    #[arg(long, help_heading = "Files")]
    json: bool,

    /// Files at once
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "5",
        help_heading = "Transfers"
    )]
    #[arg(value_parser = number::<NonZeroUsize>)]
    jobs: NonZeroUsize,
    /// Redirects to follow for one file
    #[arg(
        long,
        value_name = "N",
        default_value = "20",
        help_heading = "Transfers"
    )]
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
    limits: limits::LimitOptions,
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

    // What fingers type that know curl: already the default.
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
}

impl Options {
    fn to_config(&self) -> Config {
        let default = self.files.apply(Config::default());
        let default = self.split.apply(self.retry.apply(default));
        let default = self.limits.apply(default);
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
        if self.list.is_empty() {
            return Err(Failure::usage("no URL to download")
                .hint("name one, or write - to read URLs from stdin"));
        }
        let is_single = self.list.single().is_some();
        if self.output.is_some() && !is_single {
            return Err(
                Failure::usage("-o names the file of a single URL, and here are several")
                    .hint("-d DIR names the folder for all"),
            );
        }
        if self.json && self.is_to_stdout() {
            return Err(Failure::usage("--json and -o - would both write to stdout")
                .hint("-o FILE names a file"));
        }
        if self.checksums.checksum.is_some() && !is_single {
            return Err(
                Failure::usage("--checksum is that of a single URL, and here are several")
                    .hint("--checksums FILE holds those of many"),
            );
        }
        self.check_dir()
    }

    /// In other programs `-d` is the data to send.
    fn check_dir(&self) -> Result<(), Failure> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let looks_like_data = dir
            .as_os_str()
            .as_bytes()
            .iter()
            .any(|byte| b"=@".contains(byte));
        if !looks_like_data || dir.exists() {
            return Ok(());
        }
        let text = format!(
            "-d names a folder, and there is none called {}",
            stderr::path(dir)
        );
        Err(Failure::usage(text).hint("make the folder first if you mean it; data cannot be sent"))
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
                    Failure::new(
                        Code::LocalFile,
                        anyhow::Error::new(error).context("open stdout"),
                    )
                })?;
                Ok(Target::Sink(Box::new(File::from(stdout))))
            }
            Some(path) => Ok(Target::File(path.clone())),
        }
    }

    /// What to fetch, in the order of the arguments.
    fn items(&self) -> Result<Boxed<Result<Item, Failed>>, Failure> {
        let items = self.list.items()?;
        if self.list.single().is_none() {
            return Ok(items);
        }
        let mut own = Some((self.target()?, self.checksums.checksum.clone()));
        let with_own = move |item: Result<Item, Failed>| {
            let Some((target, checksum)) = own.take() else {
                return item;
            };
            item.map(|item| Item {
                target,
                checksum,
                ..item
            })
        };
        Ok(items.map(with_own).boxed())
    }
}

pub(crate) fn run(options: Options, log: &Log) -> Result<Code, Failure> {
    options.check()?;
    let items = options.items()?;
    let mut config = options.to_config();
    options.credentials.apply(&mut config)?;
    options
        .connection
        .apply(&mut config, |name| env::var(name).ok())?;
    if !options.dry_run {
        config = options.checksums.read(config)?;
    }
    let downloader = Downloader::new(config).map_err(|error| Failure::new(code(&error), error))?;
    if options.dry_run {
        return runtime::block_on(foresee(&downloader, items));
    }
    let ending = Ending::catch().and_then(Ending::second_ends_at_once);
    let mut ending = ending.map_err(|error| Failure::new(Code::Failure, error))?;

    let codes = Mutex::new(Code::Success);
    let lines = options.json.then(Lines::start);
    // Bars between the lines of the file itself would be no help.
    let quiet = log.quiet || options.is_to_stdout() && io::stdout().is_terminal();
    let list = options.list.clone();
    let progress = Progress::start(&log.screen, quiet, move || list.count());
    let items = counted(items, &progress);
    let observer = |number, event: Event<'_>| {
        if let Event::Failed(failed) = &event {
            let mut codes = codes.lock().unwrap_or_else(PoisonError::into_inner);
            *codes = Code::of_all([*codes, code(&failed.source)]);
        }
        if let Some(lines) = &lines {
            lines.tell(number, &event, |failed| {
                (failed.cause(), code(&failed.source))
            });
        }
        tell(&progress, number, event);
    };
    let ended = Cell::new(None);
    let (stopper, stopped) = shutdown::channel();
    let signal = async {
        ended.set(Some(ending.next().await));
        stopper.trigger();
        future::pending().await
    };
    let unread = async {
        match &lines {
            Some(lines) => Err(lines.failed().await),
            None => future::pending().await,
        }
    };
    let run = async { Ok(downloader.run(items, &observer, stopped.wait()).await) };
    let report = runtime::block_on(future::or(future::or(run, signal), unread));
    progress.end();
    let report = report?;
    if !quiet {
        stderr::say(&summary(&report, ended.get().is_some()));
    }
    let code = codes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let code = ended.get().unwrap_or(code);
    lines.map_or(Ok(()), |lines| lines.end(&report, code))?;
    Ok(code)
}

/// Tells how many items there are, once the last has come.
fn counted<T>(items: impl Stream<Item = T>, progress: &Progress) -> impl Stream<Item = T> {
    let mut count = 0;
    items
        .map(Some)
        .chain(stream::once(None))
        .filter_map(move |item| {
            match item {
                Some(_) => count += 1,
                None => progress.listed(count),
            }
            item
        })
}

/// Tells what a run would do.
async fn foresee(
    downloader: &Downloader,
    mut items: Boxed<Result<Item, Failed>>,
) -> Result<Code, Failure> {
    let mut all = Code::Success;
    while let Some(item) = items.next().await {
        match item {
            Ok(item) => print(foreseen_line(&downloader.foresee(item)).into_bytes()).await?,
            Err(failed) => {
                all = Code::of_all([all, code(&failed.source)]);
                stderr::say(&problem(&failed));
            }
        }
    }
    Ok(all)
}

fn foreseen_line(foreseen: &Foreseen) -> String {
    let Foreseen { url, path, skipped } = foreseen;
    let url = Escaped(url.as_str().as_bytes());
    let path = path
        .as_deref()
        .map_or_else(|| "stdout".to_owned(), stderr::path);
    let kept = if *skipped { " (there already)" } else { "" };
    format!("{url} -> {path}{kept}\n")
}

/// Hands on what the run tells.
fn tell(progress: &Progress, number: u64, event: Event<'_>) {
    match event {
        Event::Started { url, path } => match path.and_then(Path::file_name) {
            Some(name) => progress.started(number, name.as_bytes()),
            None => progress.started(number, url.as_str().as_bytes()),
        },
        Event::Answered { from, length } => progress.answered(number, from, length),
        Event::Received { position } => progress.received(number, position),
        Event::Saved(saved) => progress.saved(number, saved.bytes, || saved_line(saved)),
        Event::Failed(failed) => progress.failed(number, problem(failed)),
        Event::Stopped => progress.stopped(number),
        _ => {}
    }
}

/// A line for a file that is whole; what went to stdout needs none.
fn saved_line(saved: &Saved) -> Option<String> {
    let path = stderr::path(saved.path.as_deref()?);
    if saved.skipped {
        return Some(format!("kept {path}: it is there already\n"));
    }
    let elapsed = Elapsed(saved.elapsed);
    Some(format!(
        "saved {path}: {} in {elapsed}\n",
        Size(saved.bytes)
    ))
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
    if report.stopped > 0 {
        text += "hint: -c goes on with what has come\n";
    }
    for failed in report.failures.iter().take(NAMED) {
        let url = Escaped(failed.url.as_bytes());
        text += &format!("  {url}: {}\n", failed.cause());
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
    use std::num::NonZeroU64;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &[&str]) -> Options {
        Line::try_parse_from([&["download"], line].concat())
            .unwrap()
            .options
    }

    #[test]
    fn what_help_says_are_the_defaults_are_the_defaults() {
        let config = options(&["u"]).to_config();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn each_option_reaches_the_configuration() {
        let line = "-j 3 -d . --max-redirs 1 --allow-http-redirect --connect-timeout 1m \
                    -T 1 -A me -c --overwrite --fsync --compressed --remote-time \
                    --max-filesize 1K -J --max-time 9 --speed-limit 1K --retry 7 --retry-delay 2s \
                    --retry-max-time 3s -s 4 -k 5M -x 2 --limit-rate 1M --limit-rate-per-file 64K u";
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
        assert!(
            config.compressed
                && config.server_names
                && config.max_time == Some(Duration::from_secs(9))
        );
        let rate = NonZeroU64::new;
        let slowest = SlowestPace {
            rate: 1024,
            time: Duration::from_secs(30),
        };
        assert_eq!(config.slowest, Some(slowest));
        assert_eq!(config.per_host, NonZeroUsize::new(2));
        assert_eq!(
            (config.rate, config.rate_per_file),
            (rate(1 << 20), rate(64 << 10))
        );
        assert!(config.resume && config.existing == Existing::Replace);
        assert_eq!(
            (config.retries, config.retry_delay),
            (7, Duration::from_secs(2))
        );
        assert_eq!(config.retry_time, Some(Duration::from_secs(3)));
        assert_eq!((config.split.get(), config.min_split), (4, 5 << 20));
    }
}
