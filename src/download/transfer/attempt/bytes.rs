//! Bytes that are present: their number and their media type.

use super::{Attempt, MediaTypeChange};
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::transfer::resume::{
    Action, Mismatch, RangeRequest, ResponseMeta, ResumeProof, classify,
};
use crate::download::transfer::retry::StoredBytes;

impl<F: Fn(Event<'_>) + Sync> Attempt<'_, F> {
    /// Returns the bytes that are present.
    pub(crate) fn stored_bytes(&self) -> StoredBytes {
        let layout = self.sink.layout();
        let total = self.total();
        let count = match total {
            Some(total) if layout.has_gaps(Some(total)) => {
                let gaps = layout.gaps(total);
                let missing: u64 = gaps.iter().map(|gap| gap.end - gap.start).sum();
                total - missing
            }
            _ => layout.prefix_len(),
        };
        StoredBytes {
            count,
            total,
            restarts: self.restarts,
        }
    }

    /// Classifies a response. A checksum verifies the file, whatever the media type; without a
    /// strong validator, or of another version by its validators, whatever they are.
    pub(super) fn classify(
        &self,
        have: u64,
        request: &RangeRequest,
        meta: &ResponseMeta,
    ) -> Action {
        let mut validators = self.validators.clone();
        let mut meta = meta.clone();
        if self.checksum.is_some()
            && let Some(validators) = &mut validators
        {
            validators.media_type = None;
            if self.resume_proof == ResumeProof::Checksum || validators.if_range().is_none() {
                for ignored in [validators, &mut meta.validators] {
                    ignored.etag = None;
                    ignored.last_modified = None;
                }
            }
        }
        classify(validators.as_ref(), have, request, &meta)
    }

    /// Returns the error of a response that would replace or continue bytes of another media type.
    /// It is often a login page or an error page, and the bytes are worth more.
    pub(super) fn media_type_error(&self, action: &Action, meta: &ResponseMeta) -> Option<Error> {
        let is_concerned = matches!(
            action,
            Action::Replace { .. } | Action::Restart(Mismatch::MediaType)
        );
        // Bytes that were written to a stream cannot be discarded anyway.
        let is_allowed = self.checksum.is_some()
            || self.media_type_change == MediaTypeChange::Accept
            || !self.sink.is_file();
        if !is_concerned || is_allowed || self.stored_bytes().count == 0 {
            return None;
        }
        // Not the validators of this source: it may be a mirror that has none in common.
        let state = self.sink.state()?;
        let (expected, received) = state.validators.other_media_type(&meta.validators)?;
        Some(Error::MediaType {
            expected: expected.to_owned(),
            received: received.to_owned(),
        })
    }
}
