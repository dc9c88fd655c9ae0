//! Parts of earlier runs whose URL differs in its query, as that of a signed link does when it is
//! renewed.
//!
//! Two URLs that differ in their query may as well be two files, even of one list. The download
//! therefore has a part of its own from the start, and takes over another one only after its bytes
//! were compared with those of the server.

use std::fmt;

use tracing::info;

use super::Attempt;
use super::foreign::ServerFile;
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::http::redact_url;
use crate::download::store::foreign::Sample;
use crate::download::store::part::Part;
use crate::download::store::resume_state::ResumeState;
use crate::download::store::sink::FileSink;
use crate::download::transfer::resume::{LONG_OVERLAP_LEN, ResumeProof, Validators, is_strong};

/// Reason why no part of another query is continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unproven {
    NoRanges,
    NoValidator,
    OtherFile,
    OtherBytes,
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the part is of a URL with another query, and ")?;
        f.write_str(match self {
            Self::NoRanges => "the server ignores range requests",
            Self::NoValidator => "nothing proves that it is the same file",
            Self::OtherFile => "no long one has the same ETag, length and time",
            Self::OtherBytes => "its bytes differ from those of the server",
        })
    }
}

impl<F: Fn(Event<'_>) + Sync> Attempt<'_, F> {
    /// Continues the part of an earlier run whose URL differs in its query, in place of the new
    /// `part`, if it is of the same file: by a strong ETag, or if a checksum verifies the file, in
    /// any case by its length and its last bytes.
    pub(super) async fn continue_other_query(&mut self, part: &Part) -> Result<(), Error> {
        let server_file = self.request_first_byte().await?;
        if let Err(unproven) = self.find_other_query(part, &server_file).await? {
            self.warn_of_restart(unproven);
        }
        Ok(())
    }

    async fn find_other_query(
        &mut self,
        part: &Part,
        server_file: &ServerFile,
    ) -> Result<Result<(), Unproven>, Error> {
        let received = &server_file.validators;
        let is_verified = self.checksum.is_some();
        if !server_file.has_ranges {
            return Ok(Err(Unproven::NoRanges));
        }
        let has_strong_etag = received.etag.as_deref().is_some_and(is_strong);
        if received.total.is_none() || !(has_strong_etag || is_verified) {
            return Ok(Err(Unproven::NoValidator));
        }
        let is_candidate = |state: &ResumeState, len: u64| {
            let stored = &state.validators;
            // Some servers make ETags of length and time, so that other files have the same.
            let has_etag = is_verified
                || stored.etag == received.etag && stored.last_modified == received.last_modified;
            let has_checksum =
                state.required_checksum.is_none() || state.required_checksum == self.checksum;
            len >= LONG_OVERLAP_LEN && stored.total == received.total && has_etag && has_checksum
        };
        let Some(sink) = part.open_other_query(self.first_url, is_candidate) else {
            return Ok(Err(Unproven::OtherFile));
        };
        let Some(validators) = self.validators_of_other_query(&sink) else {
            return Ok(Err(Unproven::OtherFile));
        };
        let bytes = sink
            .read_tail(LONG_OVERLAP_LEN)
            .map_err(|error| sink.write_error(error))?;
        let offset = sink.prefix_len() - bytes.len() as u64;
        let sample = Sample { offset, bytes };
        // Equal bytes prove little if they are all the same.
        let is_proof = is_verified || !sample.is_uniform();
        let doubt = self.compare_sample(&sample, &validators).await?;
        if doubt.is_some() || !is_proof {
            return Ok(Err(Unproven::OtherBytes));
        }
        let bytes = sink.prefix_len();
        let url = redact_url(self.url());
        info!(%url, bytes, "continuing the part of a URL with another query");
        self.sink.adopt(sink);
        self.validators = Some(validators);
        self.resume_proof = if is_verified {
            ResumeProof::Checksum
        } else {
            ResumeProof::Validator
        };
        Ok(Ok(()))
    }

    /// Returns the validators that responses must match to continue the part in `sink`.
    fn validators_of_other_query(&self, sink: &FileSink) -> Option<Validators> {
        let mut validators = sink.state()?.validators;
        if self.checksum.is_some() {
            validators = validators.for_other_source(true)?;
            validators.last_modified = None;
            validators.digest = None;
        }
        Some(validators)
    }
}
