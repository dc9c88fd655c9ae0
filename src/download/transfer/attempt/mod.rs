//! Attempts to transfer a file, or its missing part, from one source at a time.

mod bytes;
mod decisions;
pub(crate) mod foreign;
pub(crate) mod metadata;
mod other_query;
mod receive;

use std::path::PathBuf;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::AsyncReadExt as _;
use smol::Timer;
use tracing::{debug, warn};
use url::Url;

use crate::checksum::Checksum;
use crate::download::auto_jobs::is_overload;
use crate::download::body::decode::accept_encoding;
use crate::download::config::{OnConflict, ServerDigests};
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::http::{HttpError, Response, redact_url};
use crate::download::request::redirect::RedirectChain;
use crate::download::request::send::{RequestContext, drain_body, range_headers};
use crate::download::store::existing::ExistingFile;
use crate::download::store::part::Part;
use crate::download::store::resume_state::ResumeState;
use crate::download::store::sink::FileSink;
use crate::download::transfer::resume::{
    Action, Mismatch, RangeRequest, ResponseMeta, ResumeProof, Validators, plan,
};
use crate::download::transfer::sources::Mirror;

/// Outcome of a successful attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    /// The file is complete.
    Complete,
    /// The server has the file that existed before, under the requested name or at `existing`.
    Skipped { existing: Option<PathBuf> },
}

/// Responses after which the body is not needed.
pub(crate) enum SkipIf<'a> {
    Never,
    /// The response describes this existing file.
    Unchanged(ExistingFile),
    /// The response names a file that an earlier run finished.
    Finished(&'a Part),
    /// The server has the file beside this part, which another program wrote.
    Foreign(&'a Part),
}

/// Rank of the current source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceRank {
    First,
    Mirror,
}

/// Whether the current source is expected to serve ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RangeSupport {
    Assumed,
    /// It ignored a range request, or further connections received nothing.
    Missing,
}

/// Handling of a redirect whose target has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpiredRedirect {
    NotSeen,
    /// The first URL was requested again; a second expiry is an error.
    Renewed,
}

/// Use of mirrors that were not tried yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MirrorUse {
    /// They serve segments together with the current source.
    Concurrent,
    /// Only one source at a time, because the bytes of several had the wrong checksum.
    Fallback,
}

/// Handling of a response of another media type than the bytes that are present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MediaTypeChange {
    /// It never replaces them.
    Refuse,
    /// It replaces them: they are of an earlier run, and the user overwrites files.
    Accept,
}

/// Retry after bytes that differ from the digest of their server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DigestRetry {
    Allowed,
    Done,
}

/// Report of a restart that a request causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RestartReport {
    Due,
    Done,
}

/// State of the current source.
#[derive(Debug)]
struct SourceState {
    rank: SourceRank,
    range_support: RangeSupport,
    expired_redirect: ExpiredRedirect,
    /// URL of the last response.
    server: Option<Url>,
    /// Time that the last response took.
    response_time: Duration,
}

impl SourceState {
    fn new(rank: SourceRank) -> Self {
        Self {
            rank,
            range_support: RangeSupport::Assumed,
            expired_redirect: ExpiredRedirect::NotSeen,
            server: None,
            response_time: Duration::ZERO,
        }
    }
}

/// State that the attempts for one file share.
pub(crate) struct Attempt<'a, F> {
    request: RequestContext<'a>,
    /// The first URL: it identifies the partial file, whichever source sends the bytes.
    first_url: &'a Url,
    /// Mirrors that were not tried yet.
    mirrors: slice::Iter<'a, Mirror>,
    mirror_use: MirrorUse,
    source: SourceState,
    sink: Arc<FileSink>,
    on_event: F,
    validators: Option<Validators>,
    resume_proof: ResumeProof,
    skip_if: SkipIf<'a>,
    /// Part that may continue one of a URL with another query.
    new_part: Option<&'a Part>,
    /// Expected checksum, as `ALGORITHM=HEX`.
    checksum: Option<String>,
    media_type_change: MediaTypeChange,
    server_digests: ServerDigests,
    digest_retry: DigestRetry,
    restart_report: RestartReport,
    /// Number of times that bytes were discarded.
    restarts: u32,
}

impl<'a, F: Fn(Event<'_>) + Sync> Attempt<'a, F> {
    pub(crate) fn new(
        request: RequestContext<'a>,
        mirrors: &'a [Mirror],
        sink: Arc<FileSink>,
        skip_if: SkipIf<'a>,
        checksum: Option<&Checksum>,
        on_event: F,
    ) -> Self {
        // An expected checksum verifies the file.
        let server_digests = if checksum.is_some() {
            ServerDigests::Ignore
        } else {
            request.context.config.server_digests
        };
        let checksum = if sink.is_file() { checksum } else { None };
        let checksum = checksum.map(Checksum::to_text);
        let is_usable = |state: &ResumeState| {
            let required = &state.required_checksum;
            let is_usable = required.is_none() || *required == checksum;
            if let (false, Some(required)) = (is_usable, required) {
                let url = redact_url(&request.source.url);
                warn!(%url, "cannot resume, restarting: only {required} can verify the partial file");
            }
            is_usable
        };
        let mut validators = sink.state().filter(is_usable).map(|state| state.validators);
        if server_digests == ServerDigests::Ignore
            && let Some(validators) = &mut validators
        {
            validators.digest = None;
        }
        // A checksum was required for a file with bytes of several sources.
        let resume_proof = if validators.is_some() && sink.has_multiple_sources() {
            ResumeProof::Checksum
        } else {
            ResumeProof::Validator
        };
        let overwrites = request.context.config.output.on_conflict == OnConflict::Overwrite;
        let media_type_change = if overwrites {
            MediaTypeChange::Accept
        } else {
            MediaTypeChange::Refuse
        };
        Self {
            request,
            first_url: &request.source.url,
            mirrors: mirrors.iter(),
            mirror_use: MirrorUse::Concurrent,
            source: SourceState::new(SourceRank::First),
            sink,
            on_event,
            validators,
            resume_proof,
            skip_if,
            new_part: None,
            checksum,
            media_type_change,
            server_digests,
            digest_retry: DigestRetry::Allowed,
            restart_report: RestartReport::Due,
            restarts: 0,
        }
    }

    /// Allows to continue a part of an earlier run whose URL differs in its query, in place of `part`.
    pub(crate) fn with_new_part(self, part: &'a Part) -> Self {
        let new_part = part.may_continue_other_query().then_some(part);
        Self { new_part, ..self }
    }

    /// Returns the URL of the current source.
    pub(crate) fn url(&self) -> &Url {
        &self.request.source.url
    }

    /// Selects the next source after `error`, which is final for the current one: the next
    /// mirror, or the same source from the start if the bytes of several sources do not match, or
    /// once if those of one do not match its digest.
    /// Returns whether there is one.
    pub(crate) fn next_source(&mut self, error: &Error) -> bool {
        let is_other_digest = matches!(error, Error::DigestMismatch { .. });
        if is_other_digest && self.sink.is_file() && self.digest_retry == DigestRetry::Allowed {
            self.digest_retry = DigestRetry::Done;
            self.validators = None;
            return true;
        }
        let is_mismatch = is_other_digest || matches!(error, Error::ChecksumMismatch { .. });
        let validators = if is_mismatch {
            None
        } else {
            let validators = self.validators.clone();
            validators.and_then(|validators| validators.for_other_source(self.checksum.is_some()))
        };
        // Bytes that were written to a stream cannot be undone.
        let can_restart = self.sink.is_file() || self.sink.prefix_len() == 0;
        if !error.depends_on_source() || !(can_restart || validators.is_some()) {
            return false;
        }
        let rank = if is_mismatch && self.sink.has_multiple_sources() {
            self.mirror_use = MirrorUse::Fallback;
            self.source.rank
        } else {
            let Some(mirror) = self.mirrors.next() else {
                return false;
            };
            self.request.source = &mirror.source;
            self.request.headers = &mirror.headers;
            (self.on_event)(Event::MirrorFallback {
                url: self.url(),
                error,
            });
            SourceRank::Mirror
        };
        self.source = SourceState::new(rank);
        self.validators = validators;
        if let (Some(_), Some(checksum)) = (&self.validators, &self.checksum) {
            self.sink.require_checksum(checksum);
            if self.sink.has_multiple_sources() {
                self.resume_proof = ResumeProof::Checksum;
            }
        }
        true
    }

    /// Returns the error of the file. It names the mirror if that failed last.
    pub(crate) fn final_error(&self, error: Error) -> Error {
        if self.source.rank == SourceRank::First || !error.depends_on_source() {
            return error;
        }
        Error::Mirror {
            url: redact_url(self.url()),
            source: Box::new(error),
        }
    }

    /// Returns the validators to save for a later run. That run starts at the first URL, so the
    /// date of a mirror is omitted.
    fn persistent(&self, validators: Validators) -> Validators {
        match self.source.rank {
            SourceRank::First => validators,
            SourceRank::Mirror => Validators {
                date: None,
                ..validators
            },
        }
    }

    /// Waits after `error`. The job slot is released if the server requested the delay.
    pub(crate) async fn pause(&self, wait: Duration, error: &Error) {
        (self.on_event)(Event::Retrying { wait, error });
        if is_overload(error) {
            self.request.context.hosts.record_overload(self.url());
        }
        let timer = async {
            Timer::after(wait).await;
        };
        match self.request.slot {
            Some(slot) if error.retry_after().is_some() => slot.release_while(timer).await,
            _ => timer.await,
        }
    }

    /// Returns the sink of the file.
    pub(crate) fn sink(&self) -> Arc<FileSink> {
        Arc::clone(&self.sink)
    }

    /// Returns the validators of the file.
    pub(crate) fn validators(&self) -> Validators {
        self.validators.clone().unwrap_or_default()
    }

    /// Returns whether another attempt could add bytes. Output written to a stream cannot be
    /// restarted.
    pub(crate) fn can_continue(&self) -> bool {
        let have = self.sink.prefix_len();
        let request = plan(self.validators.as_ref(), have, ResumeProof::Condition);
        self.sink.is_file() || have == 0 || request != RangeRequest::Full
    }

    /// Sends requests until the file is complete or one fails. A request without progress is a
    /// failure, which bounds the number of requests.
    pub(crate) async fn until_complete(&mut self) -> Result<AttemptOutcome, Error> {
        if let SkipIf::Foreign(part) = self.skip_if
            && let Some(outcome) = Box::pin(self.examine_foreign(part)).await?
        {
            return Ok(outcome);
        }
        if let Some(part) = self.new_part {
            Box::pin(self.continue_other_query(part)).await?;
            self.new_part = None;
        }
        loop {
            let before = self.stored_bytes();
            let range_support = self.source.range_support;
            if let Some(outcome) = self.fetch_missing().await? {
                return Ok(outcome);
            }
            let after = self.stored_bytes();
            // The end of segments is no failure. It happens once per source.
            let has_segments_ended = self.source.range_support != range_support;
            if !after.is_progress_since(&before) && !has_segments_ended {
                let count = after.count.saturating_sub(before.count);
                return Err(Error::ShortRangeResponse { count });
            }
        }
    }

    /// Requests the missing bytes and stores the body. Returns `None` if bytes are still missing.
    /// Each further request has fewer conditions than the one before, so there are at most three.
    async fn fetch_missing(&mut self) -> Result<Option<AttemptOutcome>, Error> {
        let have = self.sink.prefix_len();
        let mut request = self.first_request(have);
        loop {
            let (mut response, chain) = self.request.send(&self.fields(&request)).await?;
            let meta = self.record_response(&response, &chain);
            let action = self.classify(have, &request, &meta);
            debug!(url = %redact_url(self.url()), have, ?request, ?action, "response classified");
            if request == RangeRequest::Full
                && let Some(outcome) = self.skipped(&meta)
            {
                Box::pin(drain_body(response)).await;
                return Ok(Some(outcome));
            }
            if let Some(next) = self.continue_by_checksum(&request, &action, &meta) {
                request = next;
                continue;
            }
            if let Some(error) = self.media_type_error(&action, &meta) {
                Box::pin(drain_body(response)).await;
                return Err(error);
            }
            match (action, &request) {
                (Action::Replace { changed }, _) => {
                    self.report_restart(&request, changed);
                    return self.replace(response, meta, &chain).await;
                }
                (Action::Rewind, _) => return self.rewind(response, meta.length, have).await,
                (Action::Append { count, total }, RangeRequest::From { offset, .. }) => {
                    let overlap = have - offset;
                    if self.overlap_matches(&mut response, overlap).await? {
                        let count = count - overlap.min(count);
                        self.add_digest(&meta);
                        return self.append(response, count, total).await;
                    }
                    request = self.restart(Mismatch::Overlap);
                }
                (Action::Complete, _) => return Ok(Some(AttemptOutcome::Complete)),
                (Action::RetryUnconditional, _) => {
                    request = RangeRequest::From {
                        offset: have,
                        if_range: None,
                    };
                }
                (Action::Restart(mismatch), _) => request = self.restart(mismatch),
                (Action::Reject | Action::Append { .. }, _) => {
                    self.reject(response, &chain, have).await?;
                }
            }
        }
    }

    /// Returns the error of a rejected response, unless the target of a redirect has expired:
    /// signed links do, and the first URL then redirects to a new one.
    async fn reject(
        &mut self,
        response: Response,
        chain: &RedirectChain,
        have: u64,
    ) -> Result<(), Error> {
        let error = self.request.status_error(response, chain).await;
        let status = if let Error::Status { status, .. } = &error {
            *status
        } else {
            0
        };
        let is_expired = matches!(status, 403 | 410) && have > 0 && chain.is_redirected();
        if !is_expired || self.source.expired_redirect == ExpiredRedirect::Renewed {
            return Err(error);
        }
        self.source.expired_redirect = ExpiredRedirect::Renewed;
        Ok(())
    }

    /// Returns the outcome if the file that a response describes exists already.
    fn skipped(&self, meta: &ResponseMeta) -> Option<AttemptOutcome> {
        let existing = match &self.skip_if {
            SkipIf::Unchanged(_) if meta.status == 304 => None,
            SkipIf::Unchanged(file) if meta.status == 200 && file.matches(&meta.validators) => None,
            SkipIf::Finished(part) if meta.status == 200 => {
                let name = self.server_name(&meta.validators)?;
                Some(part.existing_with_server_name(&name, meta.validators.total)?)
            }
            _ => return None,
        };
        Some(AttemptOutcome::Skipped { existing })
    }

    /// Discards the bytes that are present and starts a file with these validators.
    fn begin(&mut self, validators: Validators, chain: &RedirectChain) -> Result<(), Error> {
        let persistent = self.persistent(validators.clone());
        let state = ResumeState::new(self.first_url, chain.url(), persistent);
        if self.stored_bytes().count > 0 {
            self.restarts += 1;
        }
        self.sink.restart(state)?;
        if self.server_digests == ServerDigests::Verify {
            let digest = validators.digest.as_ref();
            self.sink
                .set_digest(digest.map(|digest| digest.checksum().algorithm()));
        }
        self.media_type_change = MediaTypeChange::Refuse;
        self.validators = Some(validators);
        self.resume_proof = ResumeProof::Overlap;
        Ok(())
    }

    /// Adds the URL to an error if a redirect led to it.
    fn failed(&self, error: impl Into<Error>) -> Error {
        self.request.failed(self.source.server.as_ref(), error)
    }

    /// Returns whether a response starts with the last `count` bytes of the file.
    async fn overlap_matches(&self, response: &mut Response, count: u64) -> Result<bool, Error> {
        let local = self
            .sink
            .read_tail(count)
            .map_err(|error| self.sink.write_error(error))?;
        self.starts_with(response, &local).await
    }

    /// Returns whether a response starts with these bytes.
    async fn starts_with(&self, response: &mut Response, bytes: &[u8]) -> Result<bool, Error> {
        let mut received = Vec::with_capacity(bytes.len());
        response
            .take(bytes.len() as u64)
            .read_to_end(&mut received)
            .await
            .map_err(|error| self.failed(HttpError::from_io(error)))?;
        Ok(bytes == received)
    }

    async fn append(
        &mut self,
        response: Response,
        count: u64,
        total: Option<u64>,
    ) -> Result<Option<AttemptOutcome>, Error> {
        self.sink.seek_to_end();
        if let Some(validators) = &mut self.validators {
            validators.total = total;
        }
        if let Some(validators) = &self.validators
            && self.sink.has_multiple_sources()
        {
            self.sink
                .update_validators(self.persistent(validators.clone()));
        }
        let before = self.sink.prefix_len();
        self.store_body(response.take(count), Some(count)).await?;
        let have = self.sink.prefix_len();
        if have == before && Some(have) != total {
            return Err(Error::EmptyRangeResponse);
        }
        Ok((Some(have) == total).then_some(AttemptOutcome::Complete))
    }

    /// Returns the outcome after a complete body, before which `before` bytes were present. Bytes
    /// may still be missing if several connections received it.
    fn outcome(&self, before: u64) -> Result<Option<AttemptOutcome>, Error> {
        if !self.sink.layout().has_gaps(self.total()) {
            Ok(Some(AttemptOutcome::Complete))
        } else if self.sink.prefix_len() == before {
            Err(Error::EmptyRangeResponse)
        } else {
            Ok(None)
        }
    }

    fn if_range(&self) -> Option<&str> {
        self.validators.as_ref()?.if_range()
    }

    fn total(&self) -> Option<u64> {
        self.validators
            .as_ref()
            .and_then(|validators| validators.total)
    }

    /// Returns the header fields of a request.
    fn fields(&self, request: &RangeRequest) -> Vec<(String, String)> {
        match request {
            RangeRequest::Full => {
                let accept_encoding = self.request.context.config.compressed.then(accept_encoding);
                let condition = match &self.skip_if {
                    SkipIf::Unchanged(file) => Some(file.condition()),
                    SkipIf::Never | SkipIf::Finished(_) | SkipIf::Foreign(_) => None,
                };
                condition.into_iter().chain(accept_encoding).collect()
            }
            RangeRequest::From { offset, if_range } => {
                range_headers(*offset, None, if_range.as_deref())
            }
        }
    }
}
