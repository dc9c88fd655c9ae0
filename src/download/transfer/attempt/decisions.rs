//! Requests for missing bytes, and restarts from the first one.

use std::fmt::Display;

use tracing::{info, warn};

use super::{Attempt, RestartReport};
use crate::download::event::Event;
use crate::download::http::redact_url;
use crate::download::transfer::resume::{
    Action, Mismatch, RangeRequest, ResponseMeta, ResumeProof, plan,
};

impl<F: Fn(Event<'_>) + Sync> Attempt<'_, F> {
    /// Returns the first request for the missing bytes.
    pub(super) fn first_request(&self, have: u64) -> RangeRequest {
        if self.request.context.config.compressed {
            // Offsets in the decoded body have no meaning for the server.
            return RangeRequest::Full;
        }
        if let Some(validator) = self.if_range()
            && self.sink.layout().has_gaps(self.total())
        {
            // Even without the first bytes, later ones may be present.
            return RangeRequest::From {
                offset: have,
                if_range: Some(validator.to_owned()),
            };
        }
        let proof = if !self.sink.is_file() {
            ResumeProof::Condition
        } else if self.checksum.is_some() && self.if_range().is_none() {
            ResumeProof::Checksum
        } else {
            self.resume_proof
        };
        let request = plan(self.validators.as_ref(), have, proof);
        if let Some(checksum) = &self.checksum
            && proof == ResumeProof::Checksum
            && request != RangeRequest::Full
        {
            self.sink.require_checksum(checksum);
        }
        request
    }

    /// Returns the request that continues bytes of another version, by the validators in the
    /// response to `request`: servers behind one name may differ in theirs, and a checksum verifies
    /// the file in any case.
    pub(super) fn continue_by_checksum(
        &mut self,
        request: &RangeRequest,
        action: &Action,
        meta: &ResponseMeta,
    ) -> Option<RangeRequest> {
        let is_other_version = matches!(
            action,
            Action::Replace { changed: true } | Action::Restart(Mismatch::Etag | Mismatch::Date)
        );
        if !is_other_version || *request == RangeRequest::Full {
            return None;
        }
        let checksum = self.checksum.as_deref()?;
        let validators = self.validators.clone()?.for_other_source(true)?;
        if self.resume_proof == ResumeProof::Checksum || meta.total() != validators.total {
            return None;
        }
        self.sink.require_checksum(checksum);
        self.validators = Some(validators);
        self.resume_proof = ResumeProof::Checksum;
        let next = self.first_request(self.sink.prefix_len());
        if next == RangeRequest::Full {
            return None;
        }
        info!(
            url = %redact_url(self.url()),
            "other ETag or date, continuing because the checksum decides"
        );
        Some(next)
    }

    pub(super) fn restart(&mut self, mismatch: Mismatch) -> RangeRequest {
        self.warn_of_restart(mismatch);
        self.restart_report = RestartReport::Done;
        RangeRequest::Full
    }

    /// Reports that a response replaces the bytes that are present, unless that is reported.
    pub(super) fn report_restart(&mut self, request: &RangeRequest, changed: bool) {
        let is_reported = self.restart_report == RestartReport::Done || self.validators.is_none();
        self.restart_report = RestartReport::Due;
        if changed {
            warn!(url = %redact_url(self.url()), "file changed on the server, restarting");
        } else if !is_reported && self.stored_bytes().count > 0 {
            self.warn_of_restart(match request {
                RangeRequest::From { .. } => "the server ignores range requests",
                RangeRequest::Full if self.request.context.config.compressed => {
                    "the bytes are decoded"
                }
                RangeRequest::Full => "nothing proves that the server has the same version",
            });
        }
    }

    pub(super) fn warn_of_restart(&self, reason: impl Display) {
        warn!(url = %redact_url(self.url()), "cannot resume, restarting: {reason}");
    }
}
