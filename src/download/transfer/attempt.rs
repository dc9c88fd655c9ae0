//! Attempts to transfer a file, or its missing part, from one source at a time.

use std::path::PathBuf;
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::AsyncReadExt as _;
use smol::Timer;
use tracing::{debug, warn};
use url::Url;

use crate::download::body::copy::Body;
use crate::download::body::decode::{Coding, Decoded, accept, codings};
use crate::download::body::source::SpliceRead;
use crate::download::body::throttle::Paced;
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::http::{HttpError, Response, redact_url};
use crate::download::request::redirect::RedirectChain;
use crate::download::request::send::{RequestContext, drain_body, range_headers};
use crate::download::store::checksum::Checksum;
use crate::download::store::existing::Previous;
use crate::download::store::part::Part;
use crate::download::store::resume_state::State;
use crate::download::store::sink::Store;
use crate::download::transfer::parallel::{ParallelTransfer, RunResult};
use crate::download::transfer::resume::{
    Action, Mismatch, RangeRequest, ResponseMeta, ResumeProof, Validators, classify, plan,
};
use crate::download::transfer::sources::{Mirror, SourceSet};
use crate::escape::Escaped;

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
    Unchanged(Previous),
    /// The response names a file that an earlier run finished.
    Finished(&'a Part),
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

/// State of the current source.
#[derive(Debug)]
struct SourceState {
    rank: SourceRank,
    range_support: RangeSupport,
    expired_redirect: ExpiredRedirect,
    /// URL of the last response.
    server: Option<Url>,
}

impl SourceState {
    fn new(rank: SourceRank) -> Self {
        Self {
            rank,
            range_support: RangeSupport::Assumed,
            expired_redirect: ExpiredRedirect::NotSeen,
            server: None,
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
    store: Arc<Store>,
    on_event: F,
    validators: Option<Validators>,
    resume_proof: ResumeProof,
    skip_if: SkipIf<'a>,
    /// Expected checksum, as `ALGORITHM=HEX`.
    checksum: Option<String>,
}

impl<'a, F: Fn(Event<'_>) + Sync> Attempt<'a, F> {
    pub(crate) fn new(
        request: RequestContext<'a>,
        mirrors: &'a [Mirror],
        store: Arc<Store>,
        skip_if: SkipIf<'a>,
        checksum: Option<&Checksum>,
        on_event: F,
    ) -> Self {
        let checksum = if store.is_file() { checksum } else { None };
        let checksum = checksum.map(|sum| format!("{}={}", sum.algorithm(), sum.hex()));
        let is_usable = |state: &State| state.held_to.is_none() || state.held_to == checksum;
        let validators = store.state().filter(is_usable).map(|state| state.known);
        // A checksum was required for a file with bytes of several sources.
        let resume_proof = if validators.is_some() && store.is_mixed() {
            ResumeProof::Overlap
        } else {
            ResumeProof::Validator
        };
        Self {
            request,
            first_url: &request.source.url,
            mirrors: mirrors.iter(),
            mirror_use: MirrorUse::Concurrent,
            source: SourceState::new(SourceRank::First),
            store,
            on_event,
            validators,
            resume_proof,
            skip_if,
            checksum,
        }
    }

    /// Returns the URL of the current source.
    pub(crate) fn url(&self) -> &Url {
        &self.request.source.url
    }

    /// Selects the next source after `error`, which is final for the current one: the next
    /// mirror, or the same source from the start if the bytes of several sources do not match.
    /// Returns whether there is one.
    pub(crate) fn next_source(&mut self, error: &Error) -> bool {
        let is_mismatch = matches!(error, Error::ChecksumMismatch { .. });
        let validators = if is_mismatch {
            None
        } else {
            let validators = self.validators.clone();
            validators.and_then(|validators| validators.for_other_source(self.checksum.is_some()))
        };
        // Bytes that were written to a stream cannot be undone.
        let can_restart = self.store.is_file() || self.store.length() == 0;
        if !error.depends_on_source() || !(can_restart || validators.is_some()) {
            return false;
        }
        let rank = if is_mismatch && self.store.is_mixed() {
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
            self.store.hold_to(checksum);
            if self.store.is_mixed() {
                self.resume_proof = ResumeProof::Overlap;
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
        let timer = async {
            Timer::after(wait).await;
        };
        match self.request.slot {
            Some(slot) if error.retry_after().is_some() => slot.release_while(timer).await,
            _ => timer.await,
        }
    }

    /// Returns the store of the file.
    pub(crate) fn store(&self) -> Arc<Store> {
        Arc::clone(&self.store)
    }

    /// Returns the validators of the file.
    pub(crate) fn validators(&self) -> Validators {
        self.validators.clone().unwrap_or_default()
    }

    /// Returns whether another attempt could add bytes. Output written to a stream cannot be
    /// restarted.
    pub(crate) fn can_continue(&self) -> bool {
        let have = self.store.length();
        let request = plan(self.validators.as_ref(), have, ResumeProof::Validator);
        self.store.is_file() || have == 0 || request != RangeRequest::Full
    }

    /// Sends requests until the file is complete or one fails.
    pub(crate) async fn until_complete(&mut self) -> Result<AttemptOutcome, Error> {
        loop {
            if let Some(outcome) = self.fetch_missing().await? {
                return Ok(outcome);
            }
        }
    }

    /// Returns the first request for the missing bytes.
    fn first_request(&self, have: u64) -> RangeRequest {
        if self.request.context.config.compressed {
            // Offsets in the decoded body have no meaning for the server.
            return RangeRequest::Full;
        }
        if let Some(validator) = self.if_range()
            && self.store.has_gaps(self.total())
        {
            // Even without the first bytes, later ones may be present.
            return RangeRequest::From {
                offset: have,
                if_range: Some(validator.to_owned()),
            };
        }
        let proof = if self.store.is_file() {
            self.resume_proof
        } else {
            ResumeProof::Validator
        };
        plan(self.validators.as_ref(), have, proof)
    }

    /// Requests the missing bytes and stores the body. Returns `None` if bytes are still missing.
    /// Each further request has fewer conditions than the one before, so there are at most three.
    async fn fetch_missing(&mut self) -> Result<Option<AttemptOutcome>, Error> {
        let have = self.store.length();
        let mut request = self.first_request(have);
        loop {
            let (mut response, chain) = self.request.send(&self.fields(&request)).await?;
            (self.on_event)(Event::ResponseReceived {
                url: chain.url(),
                status: response.status(),
            });
            self.source.server = Some(chain.url().clone());
            let meta = ResponseMeta::new(response.status(), response.length(), |name| {
                response.header(name)
            });
            let action = classify(self.validators.as_ref(), have, &request, &meta);
            debug!(url = %redact_url(self.url()), have, ?request, ?action, "response classified");
            if request == RangeRequest::Full
                && let Some(outcome) = self.skipped(&meta)
            {
                Box::pin(drain_body(response)).await;
                return Ok(Some(outcome));
            }
            match (action, &request) {
                (Action::Replace { changed }, _) => {
                    return self.replace(response, meta, &chain, changed).await;
                }
                (Action::Rewind, _) => return self.rewind(response, meta.length, have).await,
                (Action::Append { count, total }, RangeRequest::From { offset, .. }) => {
                    let overlap = have - offset;
                    if self.overlap_matches(&mut response, overlap).await? {
                        let count = count - overlap.min(count);
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

    /// Stores a complete body from its start.
    async fn replace(
        &mut self,
        response: Response,
        meta: ResponseMeta,
        chain: &RedirectChain,
        changed: bool,
    ) -> Result<Option<AttemptOutcome>, Error> {
        match self.codings(&response, &meta) {
            None => {
                self.begin(meta.validators, chain, changed)?;
                self.store_body(response, meta.length).await?;
            }
            Some(codings) => {
                self.begin(meta.validators.of_decoded_body(), chain, changed)?;
                let body = Decoded::new(response, &codings).map_err(HttpError::from_io)?;
                self.store_body(body, None).await?;
            }
        }
        self.outcome(0)
    }

    /// Stores a complete body of the same version from its start: the server ignores ranges.
    async fn rewind(
        &mut self,
        response: Response,
        length: Option<u64>,
        have: u64,
    ) -> Result<Option<AttemptOutcome>, Error> {
        self.source.range_support = RangeSupport::Missing;
        self.store.overtake()?;
        self.store_body(response, length).await?;
        self.outcome(have)
    }

    /// Returns the codings to decode, if the body is to be decoded. Some servers declare a coding
    /// for an empty body, which is not valid in any coding.
    fn codings(&self, response: &Response, meta: &ResponseMeta) -> Option<Vec<Coding>> {
        if !self.request.context.config.compressed || meta.length == Some(0) {
            return None;
        }
        codings(response.headers("content-encoding")).filter(|codings| !codings.is_empty())
    }

    /// Returns the outcome if the file that a response describes exists already.
    fn skipped(&self, meta: &ResponseMeta) -> Option<AttemptOutcome> {
        let existing = match &self.skip_if {
            SkipIf::Unchanged(_) if meta.status == 304 => None,
            SkipIf::Unchanged(file) if meta.status == 200 && file.is(&meta.validators) => None,
            SkipIf::Finished(part) if meta.status == 200 => {
                Some(part.finished_before(&meta.validators)?)
            }
            _ => return None,
        };
        Some(AttemptOutcome::Skipped { existing })
    }

    fn restart(&self, mismatch: Mismatch) -> RangeRequest {
        warn!(url = %redact_url(self.url()), "cannot resume, restarting: {mismatch}");
        RangeRequest::Full
    }

    /// Discards the bytes that are present and starts a file with these validators.
    fn begin(
        &mut self,
        validators: Validators,
        chain: &RedirectChain,
        changed: bool,
    ) -> Result<(), Error> {
        if changed {
            warn!(url = %redact_url(self.url()), "file changed on the server, restarting");
        }
        if let Some(encoding) = &validators.encoding {
            let encoding = Escaped(encoding.as_bytes());
            let url = redact_url(chain.url());
            warn!(%url, %encoding, "unsupported Content-Encoding, saved undecoded");
        }
        let persistent = self.persistent(validators.clone());
        let state = State::new(self.first_url, chain.url(), persistent);
        self.store.begin(state)?;
        self.validators = Some(validators);
        self.resume_proof = ResumeProof::Overlap;
        Ok(())
    }

    /// Returns whether a response starts with the last `count` bytes of the file.
    async fn overlap_matches(&self, response: &mut Response, count: u64) -> Result<bool, Error> {
        let local = self
            .store
            .tail(count)
            .map_err(|error| self.store.failed(error))?;
        let mut received = Vec::with_capacity(local.len());
        response
            .take(local.len() as u64)
            .read_to_end(&mut received)
            .await
            .map_err(HttpError::from_io)?;
        Ok(local == received)
    }

    async fn append(
        &mut self,
        response: Response,
        count: u64,
        total: Option<u64>,
    ) -> Result<Option<AttemptOutcome>, Error> {
        self.store.append();
        if let Some(validators) = &mut self.validators {
            validators.total = total;
        }
        if let Some(validators) = &self.validators
            && self.store.is_mixed()
        {
            self.store.learn(self.persistent(validators.clone()));
        }
        let before = self.store.length();
        self.store_body(response.take(count), Some(count)).await?;
        let have = self.store.length();
        if have == before && Some(have) != total {
            return Err(Error::EmptyRangeResponse);
        }
        Ok((Some(have) == total).then_some(AttemptOutcome::Complete))
    }

    /// Returns the outcome after a complete body, before which `before` bytes were present. Bytes
    /// may still be missing if several connections received it.
    fn outcome(&self, before: u64) -> Result<Option<AttemptOutcome>, Error> {
        if !self.store.has_gaps(self.total()) {
            Ok(Some(AttemptOutcome::Complete))
        } else if self.store.length() == before {
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

    /// Stores a body, of `length` bytes if known.
    async fn store_body(
        &mut self,
        body: impl SpliceRead + Send,
        length: Option<u64>,
    ) -> Result<(), Error> {
        let total = self.total();
        let limit = self.max_size();
        if total.is_some_and(|total| total > limit) {
            return Err(Error::TooLarge { limit });
        }
        let start = self.store.position();
        // Bytes behind the next gap may be present already.
        let present_after_gap = self.store.beyond(total);
        (self.on_event)(Event::BodyStarted {
            offset: start + present_after_gap,
            total,
        });
        if let Some(length) = length
            && let Some(transfer) = self.parallel_transfer()
        {
            if transfer.run(body, start + length).await? == RunResult::Exhausted {
                self.source.range_support = RangeSupport::Missing;
            }
            return Ok(());
        }
        self.store_sequentially(body, length, present_after_gap)
            .await
    }

    /// Returns a transfer over several connections, if enough is missing and the version of the
    /// file is certain.
    fn parallel_transfer(&self) -> Option<ParallelTransfer<'_, F>> {
        let limits = &self.request.context.config.limits;
        let is_requested = limits.connections_per_file.get() > 1
            && self.source.range_support == RangeSupport::Assumed;
        if !is_requested || self.if_range().is_none() || !self.store.takes_parts() {
            return None;
        }
        let validators = self.validators.as_ref()?;
        let server = self.source.server.as_ref()?;
        let mirrors = match self.mirror_use {
            MirrorUse::Concurrent => self.mirrors.as_slice(),
            MirrorUse::Fallback => &[],
        };
        let checksum = self.checksum.as_deref();
        let sources = SourceSet::new(
            self.request,
            server,
            validators,
            mirrors,
            checksum.is_some(),
        );
        ParallelTransfer::new(sources, checksum, validators, &self.store, &self.on_event)
    }

    /// Stores a body that is received over one connection.
    async fn store_sequentially(
        &self,
        body: impl SpliceRead + Send,
        length: Option<u64>,
        present_after_gap: u64,
    ) -> Result<(), Error> {
        let limit = self.max_size();
        let start = self.store.position();
        // Bytes behind the gap are present already.
        let gap = self.store.gap(self.total());
        let length = length.map(|length| length.min(gap));
        // One byte more than the limit proves that the body is too long.
        let body = body.take(limit.saturating_sub(start).saturating_add(1).min(gap));
        let low_speed_limit = self.request.context.config.limits.low_speed_limit;
        let body = Paced::new(body, low_speed_limit, self.request.rate_limits());
        let on_progress = |position| {
            (self.on_event)(Event::Progress {
                downloaded: position + present_after_gap,
            });
        };
        let body = Body::new(body, start, on_progress);
        let store = Arc::clone(&self.store);
        let result = if store.is_file() {
            body.save(length, store).await
        } else {
            body.send(store).await
        };
        result.map_err(|error| error.into_error(&self.store))?;
        if self.store.position() > limit {
            return Err(Error::TooLarge { limit });
        }
        Ok(())
    }

    fn max_size(&self) -> u64 {
        let limits = &self.request.context.config.limits;
        limits.max_size.unwrap_or(u64::MAX)
    }

    /// Returns the header fields of a request.
    fn fields(&self, request: &RangeRequest) -> Vec<(String, String)> {
        match request {
            RangeRequest::Full => {
                let accept_encoding = self.request.context.config.compressed.then(accept);
                let condition = match &self.skip_if {
                    SkipIf::Unchanged(file) => Some(file.condition()),
                    SkipIf::Never | SkipIf::Finished(_) => None,
                };
                condition.into_iter().chain(accept_encoding).collect()
            }
            RangeRequest::From { offset, if_range } => {
                range_headers(*offset, None, if_range.as_deref())
            }
        }
    }
}
