//! Reception of a response body, over one connection or several.

use std::sync::Arc;

use futures_lite::AsyncReadExt as _;

use tracing::warn;

use super::{Attempt, AttemptOutcome, MirrorUse, RangeSupport};
use crate::download::body::copy::BodyCopy;
use crate::download::body::decode::{Coding, DecodedBody, codings};
use crate::download::body::hash::HashedBody;
use crate::download::body::source::DirectRead;
use crate::download::body::throttle::Throttled;
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::http::{HttpError, Response, redact_url};
use crate::download::request::redirect::RedirectChain;
use crate::download::transfer::parallel::{ParallelTransfer, RunResult};
use crate::download::transfer::resume::ResponseMeta;
use crate::download::transfer::sources::SourceSet;
use crate::escape::Escaped;

impl<F: Fn(Event<'_>) + Sync> Attempt<'_, F> {
    /// Stores a complete body from its start.
    pub(super) async fn replace(
        &mut self,
        response: Response,
        meta: ResponseMeta,
        chain: &RedirectChain,
    ) -> Result<Option<AttemptOutcome>, Error> {
        let is_encoded_file = self.is_encoded_file(&response, chain, &meta);
        let codings = if is_encoded_file {
            None
        } else {
            self.codings(&response, &meta)
        };
        match codings {
            None => {
                if !is_encoded_file && let Some(encoding) = &meta.validators.encoding {
                    let encoding = Escaped(encoding.as_bytes());
                    let url = redact_url(chain.url());
                    warn!(%url, %encoding, "unsupported Content-Encoding, saved undecoded");
                }
                self.begin(meta.validators, chain)?;
                self.store_body(response, meta.length).await?;
            }
            Some(codings) => {
                let digest = meta.validators.digest.clone();
                self.begin(meta.validators.of_decoded_body(), chain)?;
                let algorithm = digest.as_ref().map(|digest| digest.checksum().algorithm());
                if algorithm.is_some() {
                    self.sink.set_digest(algorithm);
                }
                let mut encoded = HashedBody::new(response, algorithm);
                let body = DecodedBody::new(&mut encoded, &codings).map_err(HttpError::from_io)?;
                self.store_body(body, None).await?;
                if let (Some(digest), Some(found)) = (&digest, encoded.finish()) {
                    self.check_decoded_body(digest, &found, chain.url())?;
                }
            }
        }
        self.outcome(0)
    }

    /// Stores a complete body of the same version from its start: the server ignores ranges.
    pub(super) async fn rewind(
        &mut self,
        response: Response,
        length: Option<u64>,
        have: u64,
    ) -> Result<Option<AttemptOutcome>, Error> {
        self.source.range_support = RangeSupport::Missing;
        self.warn_of_restart("the server ignores range requests");
        self.sink.rewind()?;
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

    /// Stores a body, of `length` bytes if known.
    pub(super) async fn store_body(
        &mut self,
        body: impl DirectRead + Send,
        length: Option<u64>,
    ) -> Result<(), Error> {
        let total = self.total();
        let limit = self.max_size();
        if total.is_some_and(|total| total > limit) {
            return Err(Error::TooLarge { limit });
        }
        let start = self.sink.layout().position();
        // Bytes behind the next gap may be present already.
        let present_after_gap = self.sink.layout().bytes_after_gap(total);
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
        if !is_requested || self.if_range().is_none() || !self.accepts_segments() {
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
        ParallelTransfer::new(
            sources,
            checksum,
            validators,
            &self.sink,
            self.source.response_time,
            &self.on_event,
        )
    }

    /// Returns whether segments can be written at their offsets.
    fn accepts_segments(&self) -> bool {
        self.sink.is_file() && !self.sink.layout().is_rewound()
    }

    /// Stores a body that is received over one connection.
    async fn store_sequentially(
        &self,
        body: impl DirectRead + Send,
        length: Option<u64>,
        present_after_gap: u64,
    ) -> Result<(), Error> {
        let limit = self.max_size();
        let start = self.sink.layout().position();
        // Bytes behind the gap are present already.
        let gap = self.sink.layout().gap_at_position(self.total());
        let length = length.map(|length| length.min(gap));
        // One byte more than the limit proves that the body is too long.
        let body = body.take(limit.saturating_sub(start).saturating_add(1).min(gap));
        let low_speed_limit = self.request.context.config.limits.low_speed_limit;
        let body = Throttled::new(body, low_speed_limit, self.request.rate_limits());
        let on_progress = |position| {
            (self.on_event)(Event::Progress {
                downloaded: position + present_after_gap,
            });
        };
        let body = BodyCopy::new(body, start, on_progress);
        let sink = Arc::clone(&self.sink);
        let result = if sink.is_file() {
            body.into_file(length, sink).await
        } else {
            body.into_writer(sink).await
        };
        result.map_err(|error| self.failed(error.into_error(&self.sink)))?;
        if self.sink.layout().position() > limit {
            return Err(Error::TooLarge { limit });
        }
        Ok(())
    }

    fn max_size(&self) -> u64 {
        let limits = &self.request.context.config.limits;
        limits.max_size.unwrap_or(u64::MAX)
    }
}
