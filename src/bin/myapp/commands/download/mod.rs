//! `myapp download`.

mod checksums;
mod connection;
mod credentials;
mod errors;
mod files;
mod limits;
mod list;
mod retry;
mod split;

use std::cell::Cell;
use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use futures_lite::stream::Boxed;
use futures_lite::{Stream, StreamExt as _, future, stream};
use myapp::download::http::ClientConfig;
use myapp::download::{
    Config, Downloader, Event, FailedItem, Header, HttpsDowngrade, Item, Jobs, Limits,
    OutputPolicy, PlannedDownload, RedirectPolicy, Report, Saved, Target,
};
use myapp::internals::{Escaped, nofile, redact_query};
use myapp::limits::shutdown;
use myapp::runtime;
use myapp::units::{Elapsed, Size, parse_duration};

use self::connection::ConnectionOptions;
use self::credentials::CredentialOptions;
use self::errors::{Hints, code};
use self::list::ListOptions;
use crate::commands::number;
use crate::exit_code::{CommandError, ExitCode};
use crate::home;
use crate::output::download_events::JsonLines;
use crate::output::log::Log;
use crate::output::progress::Progress;
use crate::output::stderr;
use crate::output::stdout::print;
use crate::output::style::{Role, paint};
use crate::redacted_arg::secret;
use crate::signals::Ending;

/// Maximum number of failures listed in the summary; each was logged when it occurred.
const MAX_FAILURES_LISTED: usize = 20;

#[derive(Debug, Args)]
#[command(after_long_help = include_str!("help.txt"))]
pub(crate) struct Options {
    #[command(flatten)]
    list: ListOptions,

    /// Output directory [default: .]
    #[arg(
        short,
        long,
        visible_alias = "output-dir",
        value_name = "DIR",
        value_parser = home::path(),
        help_heading = "Files"
    )]
    dir: Option<PathBuf>,
    /// Output file of a single URL; - for stdout
    #[arg(short, long, value_name = "PATH", value_parser = home::path(), help_heading = "Files")]
    output: Option<PathBuf>,
    #[command(flatten)]
    files: files::FileOptions,
    #[command(flatten)]
    checksums: checksums::ChecksumOptions,
    /// Print the output path of each URL; send no request, write no file
    #[arg(long, help_heading = "Files", conflicts_with = "json")]
    dry_run: bool,
    /// Print one JSON line per finished file to stdout, then a summary
    #[arg(long, help_heading = "Files")]
    json: bool,

    /// Concurrent files, or auto (up to 64)
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "5",
        help_heading = "Transfers"
    )]
    #[arg(value_parser = parse_jobs)]
    jobs: Jobs,
    /// Maximum number of redirects per file
    #[arg(
        long,
        value_name = "N",
        value_parser = number::<usize>,
        default_value = "20",
        help_heading = "Transfers"
    )]
    max_redirs: usize,
    /// Follow redirects from https to http
    #[arg(long, help_heading = "Transfers")]
    allow_http_redirect: bool,
    /// Maximum time to connect
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "10s", help_heading = "Transfers")]
    connect_timeout: Duration,
    /// Maximum time without receiving a byte
    #[arg(short = 'T', long, value_name = "DUR", value_parser = parse_duration, default_value = "30s", help_heading = "Transfers")]
    timeout: Duration,
    #[command(flatten)]
    limits: limits::LimitOptions,
    #[command(flatten)]
    split: split::SplitOptions,
    #[command(flatten)]
    retry: retry::RetryOptions,

    /// Request header; secrets stay with the first origin
    #[arg(short = 'H', long, value_name = "NAME: VALUE", value_parser = secret::<Header>(), help_heading = "Requests")]
    header: Vec<Header>,
    /// User-Agent header [default: myapp/VERSION]
    #[arg(short = 'A', long, value_name = "TEXT", help_heading = "Requests")]
    user_agent: Option<String>,

    #[command(flatten)]
    credentials: CredentialOptions,
    #[command(flatten)]
    connection: ConnectionOptions,

    // curl flags whose behaviour is already the default.
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
        let default = self.checksums.apply(self.limits.apply(default));
        Config {
            output: OutputPolicy {
                dir: self.dir.clone().unwrap_or(default.output.dir),
                ..default.output
            },
            limits: Limits {
                jobs: self.jobs,
                ..default.limits
            },
            redirect: RedirectPolicy {
                max_redirects: self.max_redirs,
                https_downgrade: if self.allow_http_redirect {
                    HttpsDowngrade::Follow
                } else {
                    HttpsDowngrade::Refuse
                },
            },
            connect: ClientConfig {
                user_agent: self
                    .user_agent
                    .clone()
                    .unwrap_or(default.connect.user_agent),
                connect_timeout: self.connect_timeout,
                idle_timeout: self.timeout,
                ..default.connect
            },
            headers: self.header.clone(),
            credentials: default.credentials,
            ..default
        }
    }

    /// Rejects contradictory options before any file or server is touched.
    fn check(&self) -> Result<(), CommandError> {
        if self.list.is_empty() {
            return Err(CommandError::usage("no URL to download")
                .hint("give a URL, or - to read URLs from stdin"));
        }
        self.list.check(self.parallel)?;
        let is_single = self.list.single().is_some();
        if self.output.is_some() && !is_single {
            return Err(CommandError::usage("-o PATH requires a single URL")
                .hint("use -d DIR for several URLs"));
        }
        if self.json && self.is_to_stdout() {
            return Err(
                CommandError::usage("--json and -o would both write to stdout").hint("use -o FILE"),
            );
        }
        if self.checksums.checksum.is_some() && !is_single {
            return Err(CommandError::usage("--checksum requires a single URL")
                .hint("use --checksums FILE for several URLs"));
        }
        self.check_dir()
    }

    /// Rejects a `-d` argument that looks like curl's request data.
    fn check_dir(&self) -> Result<(), CommandError> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let looks_like_data = dir
            .as_os_str()
            .as_bytes()
            .iter()
            .any(|byte| b"=@".contains(byte));
        if !looks_like_data || dir.exists() {
            return Ok(());
        }
        let text = format!("-d: no directory {}", stderr::path(dir));
        Err(CommandError::usage(text)
            .hint("create the directory first; request data is not supported"))
    }

    fn is_to_stdout(&self) -> bool {
        let path = self.output.as_deref().and_then(Path::to_str);
        matches!(
            path,
            Some("-" | "/dev/stdout" | "/dev/fd/1" | "/proc/self/fd/1")
        )
    }

    fn target(&self) -> Result<Target, CommandError> {
        match &self.output {
            None => Ok(Target::Named),
            Some(_) if self.is_to_stdout() => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = stdout.map_err(|error| {
                    CommandError::new(
                        ExitCode::LocalFile,
                        anyhow::Error::new(error).context("open stdout"),
                    )
                })?;
                Ok(Target::Writer(Box::new(File::from(stdout))))
            }
            Some(path) => Ok(Target::File(path.clone())),
        }
    }

    /// Returns the items in the order of the arguments.
    fn items(&self) -> Result<Boxed<Result<Item, FailedItem>>, CommandError> {
        let items = self.list.items()?;
        if self.list.single().is_none() {
            return Ok(items);
        }
        let mut own = Some((self.target()?, self.checksums.checksum.clone()));
        let with_own = move |item: Result<Item, FailedItem>| {
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

/// Raises the limit of descriptors, which the number of concurrent files must fit into.
pub(crate) fn raise_fd_limit() {
    // The soft limit remains if that is not permitted.
    let _ = nofile::raise_limit();
}

pub(crate) fn run(options: Options, log: &Log) -> Result<ExitCode, CommandError> {
    options.check()?;
    let items = options.items()?;
    let mut config = options.to_config();
    options.credentials.apply(&mut config)?;
    options.connection.apply(&mut config, |name| {
        // Other bytes than UTF-8 are an error of the value, not the absence of a proxy.
        let value = env::var_os(name)?;
        Some(value.to_string_lossy().into_owned())
    });
    if !options.dry_run {
        config = options.checksums.read(config)?;
    }
    let jar = config.credentials.jar.clone();
    let downloader =
        Downloader::new(config).map_err(|error| CommandError::new(code(&error), error))?;
    if options.dry_run {
        return runtime::block_on(plan(&downloader, items, &options.list));
    }
    let cookie_file = options.credentials.create_cookie_file()?;
    let ended = download(&options, &downloader, items, log);
    if let Some(file) = cookie_file {
        file.write(jar.to_netscape().as_bytes())?;
    }
    ended
}

/// Runs the downloads until the list or a signal ends them.
fn download(
    options: &Options,
    downloader: &Downloader,
    items: Boxed<Result<Item, FailedItem>>,
    log: &Log,
) -> Result<ExitCode, CommandError> {
    let mut ending = Ending::catch()?.second_ends_at_once()?;

    let codes = Mutex::new(ExitCode::Success);
    let parts = OpenParts::default();
    let lines = options.json.then(JsonLines::start);
    // Progress bars would mix with the file printed on the same terminal.
    let quiet = log.quiet || options.is_to_stdout() && io::stdout().is_terminal();
    let list = options.list.clone();
    let progress = Progress::start(&log.draw_target, quiet);
    progress.count(move || list.count());
    let items = counted(items, &progress);
    let is_resumable = !options.files.compressed();
    let hints = Hints {
        has_certificate: options.connection.has_certificate(),
        has_part: false,
    };
    let observer = |number, event: Event<'_>| {
        if let Event::Failed(failed) = &event {
            let mut codes = codes.lock().unwrap_or_else(PoisonError::into_inner);
            *codes = ExitCode::of_all([*codes, code(&failed.source)]);
        }
        if let Some(lines) = &lines {
            lines.record(number, &event, |failed| {
                (failed.cause(), code(&failed.source))
            });
        }
        let has_part = parts.record(number, &event) && is_resumable;
        let hints = Hints { has_part, ..hints };
        show(&progress, number, event, hints);
        progress.set_auto_jobs(downloader.auto_concurrency().map(|auto| auto.last));
    };
    let ended = Cell::new(None);
    let (trigger, shutdown) = shutdown::channel();
    let signal = async {
        ended.set(Some(ending.next().await));
        trigger.trigger();
        future::pending().await
    };
    let unread = async {
        match &lines {
            Some(lines) => Err(lines.failed().await),
            None => future::pending().await,
        }
    };
    let run = async { Ok(downloader.run(items, &observer, shutdown.wait()).await) };
    let report = runtime::block_on(future::or(future::or(run, signal), unread));
    drop(progress);
    let report = report?;
    if !quiet {
        let has_parts = parts.was_one_cancelled.into_inner() && is_resumable;
        stderr::write(&summary(&report, ended.get().is_some(), has_parts));
        if total(&report) == 0 && ended.get().is_none() {
            stderr::write(&options.list.empty_note());
        }
    }
    let code = codes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let code = ended.get().unwrap_or(code);
    lines.map_or(Ok(()), |lines| lines.finish(&report, code))?;
    Ok(code)
}

/// Unfinished files, without those that are written into a stream.
#[derive(Debug, Default)]
struct OpenParts {
    /// Whether bytes of each file were received, in this run or an earlier one.
    have_bytes: Mutex<HashMap<u64, bool>>,
    /// Whether the partial file of a cancelled download can be resumed.
    was_one_cancelled: AtomicBool,
}

impl OpenParts {
    /// Records an event. Returns whether the file that it ends has left a part.
    fn record(&self, number: u64, event: &Event<'_>) -> bool {
        let mut have_bytes = self
            .have_bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let has_received = match event {
            Event::Started { path: Some(_), .. } => {
                have_bytes.insert(number, false);
                false
            }
            Event::BodyStarted { offset, .. } => *offset > 0,
            Event::Progress { downloaded } => *downloaded > 0,
            Event::Saved(_) | Event::Failed(_) => return have_bytes.remove(&number) == Some(true),
            Event::Cancelled => {
                let has_part = have_bytes.remove(&number) == Some(true);
                self.was_one_cancelled.fetch_or(has_part, SeqCst);
                return has_part;
            }
            _ => false,
        };
        if has_received && let Some(has_bytes) = have_bytes.get_mut(&number) {
            *has_bytes = true;
        }
        false
    }
}

/// Reports the number of items to `progress` at the end of the stream.
fn counted<T>(items: impl Stream<Item = T>, progress: &Progress) -> impl Stream<Item = T> {
    let mut count = 0;
    items
        .map(Some)
        .chain(stream::once(None))
        .filter_map(move |item| {
            match item {
                Some(_) => count += 1,
                None => progress.set_expected(count),
            }
            item
        })
}

/// Prints the planned downloads (dry run).
async fn plan(
    downloader: &Downloader,
    mut items: Boxed<Result<Item, FailedItem>>,
    list: &ListOptions,
) -> Result<ExitCode, CommandError> {
    let mut all = ExitCode::Success;
    let mut is_empty = true;
    while let Some(item) = items.next().await {
        is_empty = false;
        match item {
            Ok(item) => print(planned_line(&downloader.plan(item)).into_bytes()).await?,
            Err(failed) => {
                all = ExitCode::of_all([all, code(&failed.source)]);
                stderr::write(&Hints::default().error_text(&failed));
            }
        }
    }
    if is_empty {
        stderr::write(&list.empty_note());
    }
    Ok(all)
}

fn planned_line(planned: &PlannedDownload) -> String {
    let PlannedDownload { url, path, skipped } = planned;
    let url = redact_query(url.as_str());
    let url = Escaped(url.as_bytes());
    let path = path
        .as_deref()
        .map_or_else(|| "stdout".to_owned(), stderr::path);
    let suffix = if *skipped { " (exists)" } else { "" };
    format!("{url} -> {path}{suffix}\n")
}

/// Parses a number of jobs, or `auto`.
fn parse_jobs(text: &str) -> Result<Jobs, &'static str> {
    if text == "auto" {
        return Ok(Jobs::Auto);
    }
    number::<NonZeroUsize>(text).map(Jobs::Fixed)
}

/// Forwards an event to the progress display.
fn show(progress: &Progress, number: u64, event: Event<'_>, hints: Hints) {
    match event {
        Event::Started { url, path } => match path.and_then(Path::file_name) {
            Some(name) => progress.start_file(number, name.as_bytes()),
            None => progress.start_file(number, redact_query(url.as_str()).as_bytes()),
        },
        Event::BodyStarted { offset, total } => progress.start_body(number, offset, total),
        Event::Progress { downloaded } => progress.set_position(number, downloaded),
        Event::Saved(saved) => progress.finish_file(number, saved.bytes, || saved_line(saved)),
        Event::Failed(failed) => progress.fail_file(number, hints.error_text(failed)),
        Event::Cancelled => progress.cancel_file(number),
        _ => {}
    }
}

/// Returns the line for a completed file, or `None` for stdout.
fn saved_line(saved: &Saved) -> Option<String> {
    let path = stderr::path(saved.path.as_deref()?);
    if saved.skipped {
        let kept = paint(Role::Saved, "kept");
        return Some(format!("{kept} {path}: already complete\n"));
    }
    let elapsed = Elapsed(saved.elapsed);
    Some(format!(
        "{} {path}: {} in {elapsed}\n",
        paint(Role::Saved, "saved"),
        Size(saved.bytes)
    ))
}

/// Returns the number of files of a run.
fn total(report: &Report) -> u64 {
    report.saved + report.skipped + report.failed + report.cancelled
}

/// Returns the summary of a run with its failures. Empty for a single file, whose result was
/// already printed.
fn summary(report: &Report, interrupted: bool, has_parts: bool) -> String {
    let total = total(report);
    if total <= 1 && !interrupted {
        return String::new();
    }
    let rate = report.bytes as f64 / report.elapsed.as_secs_f64().max(1e-3);
    let mut text = if interrupted { "interrupted: " } else { "" }.to_owned();
    text += &format!("{} of {total} files saved", report.saved);
    text += &format!(", {} in {}", Size(report.bytes), Elapsed(report.elapsed));
    text += &format!(" ({}/s)", Size(rate as u64));
    for (count, what) in [
        (report.skipped, "already there"),
        (report.failed, "failed"),
        (report.cancelled, "not finished"),
    ] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text = paint(Role::Total, &text) + "\n";
    if has_parts {
        let hint = paint(Role::Hint, "hint:");
        text += &format!("{hint} -c resumes partial downloads\n");
    }
    for failed in report.failures.iter().take(MAX_FAILURES_LISTED) {
        let url = redact_query(&failed.url);
        let url = Escaped(url.as_bytes());
        text += &format!("  {url}: {}\n", failed.cause());
    }
    if report.failed > MAX_FAILURES_LISTED as u64 {
        text += &format!(
            "  and {} more, reported above\n",
            report.failed - MAX_FAILURES_LISTED as u64
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use myapp::download::{LowSpeedLimit, NameSource, OnConflict};
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
    fn documented_defaults_match_config() {
        let config = options(&["u"]).to_config();
        assert_eq!(format!("{config:?}"), format!("{:?}", Config::default()));
    }

    #[test]
    fn options_reach_the_configuration() {
        let line = "-j 3 -d . --max-redirs 1 --allow-http-redirect --connect-timeout 1m \
                    -T 1 -A me -c --overwrite --fsync --compressed --remote-time \
                    --max-filesize 1K -J --max-time 9 --speed-limit 1K --retry 7 --retry-delay 2s \
                    --retry-max-time 3s -s 4 -k 5M -x 2 --limit-rate 1M --limit-rate-per-file 64K u";
        let mut line: Vec<_> = line.split_whitespace().collect();
        line.extend(["-H", "A: b", "-H", "C: d"]);
        let config = options(&line).to_config();
        assert_eq!(
            config.limits.jobs,
            Jobs::Fixed(NonZeroUsize::new(3).unwrap())
        );
        assert_eq!(
            options(&["-jauto", "u"]).to_config().limits.jobs,
            Jobs::Auto
        );
        assert_eq!(config.output.dir, Path::new("."));
        assert_eq!(config.redirect.max_redirects, 1);
        assert_eq!(config.redirect.https_downgrade, HttpsDowngrade::Follow);
        assert_eq!(config.connect.connect_timeout, Duration::from_secs(60));
        assert_eq!(config.connect.idle_timeout, Duration::from_secs(1));
        assert_eq!(config.connect.user_agent, "me");
        assert_eq!(config.headers.len(), 2);
        assert!(
            config.output.fsync
                && config.output.remote_time
                && config.limits.max_size == Some(1024)
        );
        assert!(
            config.compressed
                && config.output.name_source == NameSource::ContentDisposition
                && config.limits.max_time == Some(Duration::from_secs(9))
        );
        let rate = NonZeroU64::new;
        let slowest = LowSpeedLimit {
            bytes_per_sec: 1024,
            window: Duration::from_secs(30),
        };
        assert_eq!(config.limits.low_speed_limit, Some(slowest));
        assert_eq!(config.limits.connections_per_host, NonZeroUsize::new(2));
        assert_eq!(
            (config.limits.rate, config.limits.rate_per_file),
            (rate(1 << 20), rate(64 << 10))
        );
        assert!(config.output.resume && config.output.on_conflict == OnConflict::Overwrite);
        assert_eq!(
            (config.retry.max_retries, config.retry.base_delay),
            (7, Duration::from_secs(2))
        );
        assert_eq!(config.retry.max_elapsed, Some(Duration::from_secs(3)));
        assert_eq!(
            (
                config.limits.connections_per_file.get(),
                config.limits.min_segment_len
            ),
            (4, 5 << 20)
        );
    }
}
