//! Existing file of another program: whether the server has it, or has more of it.

use std::sync::Arc;

use tracing::{info, warn};
use url::Url;

use super::metadata::response_meta;
use super::{Attempt, AttemptOutcome, SkipIf};
use crate::download::error::Error;
use crate::download::event::Event;
use crate::download::request::send::{drain_body, range_headers};
use crate::download::store::foreign::{Doubt, ForeignFile, OpenForeignFile, Sample};
use crate::download::store::part::Part;
use crate::download::store::resume_state::ResumeState;
use crate::download::store::sink::FileSink;
use crate::download::transfer::content_range::ContentRange;
use crate::download::transfer::resume::{
    Action, RangeRequest, ResumeProof, Validators, classify, plan,
};
use crate::escape::Escaped;

/// File of the server.
pub(super) struct ServerFile {
    pub(super) validators: Validators,
    /// Whether the server sends ranges.
    pub(super) has_ranges: bool,
    /// URL of the response, after redirects.
    url: Url,
}

impl<F: Fn(Event<'_>) + Sync> Attempt<'_, F> {
    /// Compares the existing file beside `part` with that of the server. Returns the outcome if the
    /// download is unnecessary. The part gets a copy of a file that it continues.
    pub(super) async fn examine_foreign(
        &mut self,
        part: &Part,
    ) -> Result<Option<AttemptOutcome>, Error> {
        let Some(file) = part.foreign() else {
            return Ok(None);
        };
        let server_file = self.request_first_byte().await?;
        let validators = &server_file.validators;
        let has_same_length = validators.total == Some(file.len);
        let compared = self.compare(file, &server_file).await?;
        self.skip_if = SkipIf::Never;
        let path = Escaped(file.path.as_os_str().as_encoded_bytes()).to_string();
        let existing = match compared {
            Ok(open) if has_same_length && open.mark_complete(validators.etag.as_deref()) => {
                info!(path, "kept, equal to the file of the server");
                Some(file.path.clone())
            }
            Ok(open) if !has_same_length => {
                let bytes = file.len;
                info!(path, bytes, "continuing the existing file");
                self.continue_from(open, server_file).await?;
                None
            }
            Err(doubt) if !has_same_length || doubt.is_contradiction() => {
                let copy = part.existing_copy(validators);
                if copy.is_none() {
                    warn!(path, "existing file kept: {doubt}");
                }
                copy
            }
            Ok(_) | Err(_) => {
                warn!(path, "kept, not verified");
                Some(file.path.clone())
            }
        };
        Ok(existing.map(|path| AttemptOutcome::Skipped {
            existing: Some(path),
        }))
    }

    /// Requests the first byte, for the length and the validators of the file. An existing file
    /// that is to be kept then costs little, however long it is.
    pub(super) async fn request_first_byte(&mut self) -> Result<ServerFile, Error> {
        let fields = range_headers(0, Some(1), None);
        let (response, chain) = self.request.send(&fields).await?;
        let meta = self.record_response(&response, &chain);
        let total = match (meta.status, meta.range) {
            (
                206,
                Some(ContentRange::Part {
                    first: 0, total, ..
                }),
            ) => total,
            (416, Some(ContentRange::None { total })) => Some(total),
            (200 | 203, _) => meta.length,
            _ => return Err(self.request.status_error(response, &chain).await),
        };
        drain_body(response).await;
        Ok(ServerFile {
            validators: Validators {
                total,
                ..meta.validators
            },
            has_ranges: meta.status == 206,
            url: chain.url().clone(),
        })
    }

    /// Compares an existing file with that of the server. Returns it if it is that file or its
    /// start.
    async fn compare(
        &self,
        file: &ForeignFile,
        server_file: &ServerFile,
    ) -> Result<Result<Arc<OpenForeignFile>, Doubt>, Error> {
        let validators = &server_file.validators;
        let is_same_length = match validators.total {
            None => return Ok(Err(Doubt::UnknownLength)),
            Some(total) if file.len > total => return Ok(Err(Doubt::Longer)),
            Some(total) => file.len == total,
        };
        if let Some(name) = file.control_file() {
            return Ok(Err(Doubt::ControlFile { name }));
        }
        // Each run would fetch the samples of all its files again.
        if is_same_length && !file.can_be_marked {
            return Ok(Err(Doubt::NoAttributes));
        }
        if !server_file.has_ranges && file.len > 0 {
            return Ok(Err(Doubt::NoRanges));
        }
        let open = match file.open() {
            Ok(open) => Arc::new(open),
            Err(doubt) => return Ok(Err(doubt)),
        };
        let mut doubt = open.doubt(validators.modified());
        if !is_same_length
            && let Some(doubt) = doubt
                .take()
                .or_else(|| self.doubt_of_rest(&open, validators))
        {
            return Ok(Err(doubt));
        }
        let samples = match with_file(&open, OpenForeignFile::samples).await {
            Ok(samples) => samples,
            Err(error) => return Ok(Err(error.into())),
        };
        // Samples that differ are certain, whatever else is in doubt.
        for sample in &samples {
            if let Some(doubt) = self.compare_sample(sample, validators).await? {
                return Ok(Err(doubt));
            }
        }
        if is_same_length && open.is_sampled_completely() {
            return Ok(Ok(open));
        }
        let doubt = match doubt {
            None if samples.iter().any(Sample::is_uniform) => Some(Doubt::Uniform),
            None => with_file(&open, OpenForeignFile::doubt_of_content).await,
            Some(doubt) => Some(doubt),
        };
        Ok(match doubt {
            Some(doubt) => Err(doubt),
            None => Ok(open),
        })
    }

    /// Returns a reason for which the rest of a file cannot be requested.
    fn doubt_of_rest(&self, file: &OpenForeignFile, validators: &Validators) -> Option<Doubt> {
        if self.request.context.config.compressed {
            return Some(Doubt::Compressed);
        }
        let request = plan(Some(validators), file.len(), ResumeProof::Overlap);
        (request == RangeRequest::Full).then_some(Doubt::NoValidator)
    }

    /// Compares a sample with the bytes of the server.
    pub(super) async fn compare_sample(
        &self,
        sample: &Sample,
        validators: &Validators,
    ) -> Result<Option<Doubt>, Error> {
        let offset = sample.offset;
        let len = sample.bytes.len() as u64;
        let fields = range_headers(offset, Some(offset + len), None);
        let (mut response, chain) = self.request.send(&fields).await?;
        let request = RangeRequest::From {
            offset,
            if_range: None,
        };
        let meta = response_meta(&response);
        match classify(Some(validators), offset, &request, &meta) {
            Action::Append { count, .. } if count >= len => {
                let is_equal = self.starts_with(&mut response, &sample.bytes).await?;
                Ok((!is_equal).then_some(Doubt::Differs { offset }))
            }
            Action::Reject => Err(self.request.status_error(response, &chain).await),
            _ => Ok(Some(Doubt::NoRanges)),
        }
    }

    /// Copies an existing file into the part.
    async fn continue_from(
        &mut self,
        file: Arc<OpenForeignFile>,
        server_file: ServerFile,
    ) -> Result<(), Error> {
        let ServerFile {
            validators, url, ..
        } = server_file;
        let persistent = self.persistent(validators.clone());
        let state = ResumeState::new(self.first_url, &url, persistent);
        continue_file(&self.sink, file, state).await?;
        self.validators = Some(validators);
        self.resume_proof = ResumeProof::Overlap;
        Ok(())
    }
}

/// Copies an existing file into an empty part, which replaces it when it is complete.
pub(crate) async fn continue_file(
    sink: &FileSink,
    file: Arc<OpenForeignFile>,
    state: ResumeState,
) -> Result<(), Error> {
    let Some(part) = sink.file() else {
        return Ok(());
    };
    let copied = with_file(&file, move |file| file.copy_to(&part)).await;
    copied.map_err(|error| sink.write_error(error))?;
    let mut state = state;
    state.continued = Some(file.version());
    sink.record_copied(file.len(), state);
    Ok(())
}

/// Calls a function on the blocking pool.
async fn with_file<T: Send + 'static>(
    file: &Arc<OpenForeignFile>,
    call: impl FnOnce(&OpenForeignFile) -> T + Send + 'static,
) -> T {
    let file = Arc::clone(file);
    smol::unblock(move || call(&file)).await
}
