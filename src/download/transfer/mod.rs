//! Transfer of one item, from its URL to its final name.
//!
//! Four nested loops: [`for_each_source`] tries the source and then its mirrors, [`with_retries`]
//! retries one source after transient errors, [`Attempt::until_complete`] sends requests until
//! nothing is missing, and one request follows its redirects.

pub(crate) mod attempt;
pub(crate) mod changes;
pub(crate) mod content_range;
pub(crate) mod output;
pub(crate) mod parallel;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod segment_queue;
pub(crate) mod sources;
mod verify;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;
use url::Url;

use crate::checksum::Checksum;
use crate::download::config::{NameSource, OnConflict};
use crate::download::context::Context;
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::http::redact_url;
use crate::download::input::item::{Item, Target};
use crate::download::report::Saved;
use crate::download::request::send::RequestContext;
use crate::download::store::existing::ExistingFile;
use crate::download::store::filename;
use crate::download::store::part::Part;
use crate::download::store::sink::FileSink;
use crate::error_chain::ErrorChain;
use crate::limits::rate::SharedRateLimiter;
use crate::limits::semaphore::JobSlot;
use crate::limits::timeout::timeout;
use attempt::{Attempt, AttemptOutcome, SkipIf};
use output::Output;
use resume::Validators;
use retry::{RetryDecision, RetryState, is_retryable};
use sources::Mirror;
use verify::{file_digest, verify, verify_existing, verify_server_digest};

pub(crate) use output::plan;

/// Outcome of the transfer of one item.
enum Outcome {
    Complete {
        bytes: u64,
        /// Name that the server chose.
        name: Option<String>,
    },
    /// The file existed, under the requested name or at `existing`.
    Skipped { existing: Option<PathBuf> },
}

/// Downloads one item.
pub(crate) async fn download(
    context: &Context,
    item: Item,
    slot: &JobSlot,
    on_event: impl Fn(Event<'_>) + Sync,
) -> Result<Saved, Error> {
    let start = Instant::now();
    let limits = &context.config.limits;
    let rate = limits.rate_per_file.map(SharedRateLimiter::new);
    let request = RequestContext {
        context,
        source: &item.source,
        headers: &item.headers,
        slot: Some(slot),
        rate: rate.as_ref(),
        start,
    };
    // No file is created before the host accepts requests.
    with_time_limit(context, start, request.wait_for_host()).await?;
    let _running = context.descriptors.begin();
    let mirrors = Mirror::all(&item.source, item.mirrors, &item.headers, &context.config);
    let url = &item.source.url;
    let (dir, target) = output::locate(context, &item.dir, item.target);
    let checksum = expected_checksum(context, url, &target, item.checksum)?;
    let is_named = matches!(target, Target::Named);
    let output = Output::open(context, url, &dir, target).await?;
    let output = verify_existing(context, url, output, checksum.as_ref()).await?;
    on_event(Event::Started {
        url,
        path: output.path().as_deref(),
    });
    let transfer = |sink: Arc<FileSink>, skip_if, part| {
        let checksum = checksum.as_ref();
        let attempt = Attempt::new(request, &mirrors, sink, skip_if, checksum, &on_event);
        let attempt = match part {
            Some(part) => attempt.with_new_part(part),
            None => attempt,
        };
        let work = for_each_source(context, attempt, checksum, start);
        with_time_limit(context, start, work)
    };
    let saved = |path: Option<PathBuf>, bytes: u64, skipped: bool| Saved {
        url: url.clone(),
        path,
        bytes,
        elapsed: start.elapsed(),
        checksum: if skipped { None } else { checksum.clone() },
        skipped,
    };
    match output {
        Output::Part(part) => {
            let is_renamed = is_named && context.config.output.name_source != NameSource::FirstUrl;
            let skip_if = skip_condition(context, &part, is_renamed, checksum.as_ref()).await?;
            let outcome = transfer(part.sink(), skip_if, Some(&part)).await;
            let outcome = save_on_error(&part, outcome).await?;
            let skipped = matches!(outcome, Outcome::Skipped { .. });
            let (path, bytes) = finish_part(context, part, is_renamed, outcome).await?;
            Ok(saved(Some(path), bytes, skipped))
        }
        Output::Writer(sink) => match transfer(sink, SkipIf::Never, None).await? {
            Outcome::Complete { bytes, .. } => Ok(saved(None, bytes, false)),
            Outcome::Skipped { .. } => Ok(saved(None, 0, false)),
        },
        Output::Existing { path, .. } => Ok(saved(Some(path), 0, true)),
    }
}

/// Saves the state of a part on the blocking pool if its transfer failed, because that may wait for
/// the disk. If the future is dropped, dropping the part saves it.
async fn save_on_error<T>(part: &Part, outcome: Result<T, Error>) -> Result<T, Error> {
    if outcome.is_err() {
        let sink = part.sink();
        smol::unblock(move || sink.save_for_resume()).await;
    }
    outcome
}

/// Gives a complete part its final name. Returns the path and the number of bytes; of a skipped
/// download, the existing path and 0.
async fn finish_part(
    context: &Context,
    part: Part,
    is_renamed: bool,
    outcome: Outcome,
) -> Result<(PathBuf, u64), Error> {
    match outcome {
        Outcome::Complete { bytes, name } => {
            let name = if is_renamed { name } else { None };
            let path = if context.config.output.in_place {
                smol::unblock(move || part.finish(name)).await?
            } else {
                part.finish(name)?
            };
            sync_directory(context, &path).await?;
            Ok((path, bytes))
        }
        Outcome::Skipped { existing } => Ok((existing.unwrap_or_else(|| part.target()), 0)),
    }
}

/// Returns the checksum that the bytes must have.
fn expected_checksum(
    context: &Context,
    url: &Url,
    target: &Target,
    own: Option<Checksum>,
) -> Result<Option<Checksum>, Error> {
    let (None, Some(list)) = (&own, &context.config.checksums) else {
        return Ok(own);
    };
    let name = match target {
        Target::File(path) => path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into(),
        Target::Named | Target::Writer(_) => filename::from_url(url),
    };
    let found = list.find(url, &name).cloned();
    found.map(Some).ok_or(Error::MissingChecksum)
}

/// Returns the responses after which the download is skipped.
async fn skip_condition<'a>(
    context: &Context,
    part: &'a Part,
    is_renamed: bool,
    checksum: Option<&Checksum>,
) -> Result<SkipIf<'a>, Error> {
    if part.foreign().is_some() && checksum.is_none() {
        return Ok(SkipIf::Foreign(part));
    }
    if updates(context) {
        let target = part.target();
        let Some(file) = ExistingFile::read(&target) else {
            return Ok(SkipIf::Never);
        };
        return Ok(match checksum {
            Some(checksum) if !checksum.matches(&file_digest(&target, checksum).await?) => {
                SkipIf::Never
            }
            _ => SkipIf::Unchanged(file),
        });
    }
    Ok(if is_renamed {
        SkipIf::Finished(part)
    } else {
        SkipIf::Never
    })
}

fn updates(context: &Context) -> bool {
    context.config.output.on_conflict == OnConflict::IfModified
}

/// Runs `work` until the time limit of the file, which began at `start`.
async fn with_time_limit<T>(
    context: &Context,
    start: Instant,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let limit = context.config.limits.max_time;
    // An async fn stores a future argument twice: as the argument and where it is awaited. This
    // one is large, and moving it cost more than the request for a small file.
    let work = Box::pin(work);
    let timed_out = |_| Error::Timeout {
        limit: limit.unwrap_or_default(),
    };
    let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
    timeout(left, work).await.map_err(timed_out)?
}

/// Transfers a file from the first source that succeeds.
async fn for_each_source(
    context: &Context,
    mut attempt: Attempt<'_, impl Fn(Event<'_>) + Sync>,
    checksum: Option<&Checksum>,
    start: Instant,
) -> Result<Outcome, Error> {
    loop {
        let error = match from_source(context, &mut attempt, checksum, start).await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        let failed = redact_url(attempt.url());
        if !attempt.next_source(&error) {
            return Err(attempt.final_error(error));
        }
        let next = redact_url(attempt.url());
        let cause = ErrorChain(&error);
        if failed == next {
            warn!(url = %failed, "restarting: {cause}");
        } else {
            warn!(url = %failed, %next, "trying another source: {cause}");
        }
    }
}

/// Transfers a file from one source, verifies it and sets its metadata.
async fn from_source(
    context: &Context,
    attempt: &mut Attempt<'_, impl Fn(Event<'_>) + Sync>,
    checksum: Option<&Checksum>,
    start: Instant,
) -> Result<Outcome, Error> {
    let sink = attempt.sink();
    if let Some(checksum) = checksum {
        sink.set_digest(Some(checksum.algorithm()));
    }
    let outcome = with_retries(context, attempt, start).await?;
    if let AttemptOutcome::Skipped { existing } = outcome {
        return Ok(Outcome::Skipped { existing });
    }
    let validators = attempt.validators();
    let bytes = sink.finish()?;
    match (checksum, &validators.digest) {
        (Some(checksum), _) => verify(&sink, checksum).await?,
        (None, Some(digest)) => verify_server_digest(&sink, digest, attempt.url()).await?,
        (None, None) => {}
    }
    set_metadata(context, &sink, attempt.url(), &validators).await?;
    let name = attempt.server_name(&validators);
    Ok(Outcome::Complete { bytes, name })
}

/// Sets the modification time, marks the file as complete and syncs it, as configured.
async fn set_metadata(
    context: &Context,
    sink: &Arc<FileSink>,
    url: &Url,
    validators: &Validators,
) -> Result<(), Error> {
    let Some(file) = sink.file() else {
        return Ok(());
    };
    if (context.config.output.remote_time || updates(context))
        && let Some(modified) = validators.modified()
        && let Err(error) = file.set_modified(modified)
    {
        // The file is complete. Some file systems and file owners do not permit it.
        warn!(
            "cannot set the modification time: {}",
            ErrorChain(&sink.write_error(error))
        );
    }
    sink.mark_complete(validators.etag.as_deref())
        .map_err(|error| sink.write_error(error))?;
    if context.config.output.fsync {
        let synced = Arc::clone(sink);
        smol::unblock(move || synced.sync())
            .await
            .inspect_err(|_| {
                let url = redact_url(url);
                warn!(%url, "data may be lost on the disk, received bytes discarded");
            })?;
    }
    Ok(())
}

/// Syncs the directory of a file, without which its name may be lost in a crash.
async fn sync_directory(context: &Context, path: &Path) -> Result<(), Error> {
    if !context.config.output.fsync {
        return Ok(());
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let sync = async { async_fs::File::open(dir).await?.sync_all().await };
    sync.await.map_err(|error| Error::file("sync", dir, error))
}

/// Transfers all bytes from one source, in as many attempts as the retry policy allows.
async fn with_retries(
    context: &Context,
    attempt: &mut Attempt<'_, impl Fn(Event<'_>) + Sync>,
    start: Instant,
) -> Result<AttemptOutcome, Error> {
    let mut retry = RetryState::with_stored(&context.config.retry, attempt.stored_bytes());
    let mut had_other_media_type = false;
    loop {
        let error = match attempt.until_complete().await {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        if attempt.can_continue() && context.descriptors.wait_after(&error).await {
            continue;
        }
        // A login page does not change with time, so one retry is enough.
        let has_other_media_type = matches!(error, Error::MediaType { .. });
        let is_final = has_other_media_type && had_other_media_type;
        had_other_media_type |= has_other_media_type;
        let max_wait = max_wait(context, &error, attempt.url(), start);
        let is_retryable = is_retryable(&context.config.retry, &error)
            && !is_final
            && !max_wait.is_zero()
            && attempt.can_continue();
        retry.record(attempt.stored_bytes());
        match retry.after_failure(is_retryable, error.retry_after(), start.elapsed()) {
            RetryDecision::GiveUp => return Err(error),
            RetryDecision::DeadlineExceeded { wait, left } => {
                return Err(Error::RetryDeadline {
                    wait,
                    left,
                    source: Box::new(error),
                });
            }
            RetryDecision::Retry(wait) => {
                let wait = wait.min(max_wait);
                let url = redact_url(attempt.url());
                warn!(%url, ?wait, "retrying: {}", ErrorChain(&error));
                attempt.pause(wait, &error).await;
            }
        }
    }
}

/// Returns the maximum delay before a retry. It is limited for a refused connection to a server
/// that has not responded yet, which rarely starts to listen just then.
fn max_wait(context: &Context, error: &Error, url: &Url, start: Instant) -> Duration {
    match context.config.retry.max_refused {
        Some(limit) if error.is_refused() && !context.hosts.has_responded(url) => {
            let left = limit.saturating_sub(start.elapsed());
            // Whole milliseconds, as the other delays in the log.
            Duration::from_millis(left.as_millis() as u64)
        }
        _ => Duration::MAX,
    }
}
