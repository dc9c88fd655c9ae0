//! Builds conditional range requests for a partial file and classifies the responses (RFC 9110
//! sections 13.1.5, 14.2, 15.3.7 and 15.5.17).
//!
//! Bytes of two versions are never combined: a partial file is continued only if the server
//! proves that it still has the same version. Otherwise the file is requested again from its
//! start; this is never an error.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::download::body::decode::is_no_coding;
use crate::download::request::status::unix_seconds;
use crate::download::store::content_disposition::file_name;
use crate::download::store::server_digest::ServerDigest;
use crate::download::transfer::content_range::ContentRange;

/// Number of present bytes that are requested again and compared, if the server sends no
/// validator.
pub(crate) const OVERLAP_LEN: u64 = 32 * 1024;

/// Number of present bytes that are compared if the validator is a weak ETag, or that of a URL with
/// another query.
pub(crate) const LONG_OVERLAP_LEN: u64 = 64 * 1024;

/// Minimum age in seconds of a `Last-Modified` date, at the time of the response, to prove a
/// version. Within the resolution of a date there may be two versions.
const MIN_DATE_AGE: u64 = 60;

/// Maximum length of a type or a subtype (RFC 6838 section 4.2).
const MAX_MEDIA_TYPE_LEN: usize = 127;

/// Validator fields and other metadata of the first response (RFC 9110 section 8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validators {
    pub(crate) total: Option<u64>,
    pub(crate) etag: Option<String>,
    pub(crate) last_modified: Option<String>,
    pub(crate) date: Option<String>,
    /// `Content-Encoding`, if the bytes are encoded.
    pub(crate) encoding: Option<String>,
    /// File name in `Content-Disposition`.
    pub(crate) name: Option<String>,
    /// `Content-Type` in lower case, without parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    /// Digest of the file, if it is to be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<ServerDigest>,
}

/// Metadata of a response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResponseMeta {
    pub(crate) status: u16,
    /// Length of this body.
    pub(crate) length: Option<u64>,
    pub(crate) validators: Validators,
    pub(crate) range: Option<ContentRange>,
}

/// Requested part of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RangeRequest {
    /// The complete file.
    Full,
    /// The bytes from `offset` on. With `if_range`, the server sends the complete file if that
    /// version is outdated.
    From {
        offset: u64,
        if_range: Option<String>,
    },
}

/// Proof that present bytes belong to the file of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResumeProof {
    /// A condition in the request is required: the bytes cannot be read again.
    Condition,
    /// A validator is required.
    Validator,
    /// Without a validator, comparing an overlap is sufficient: the bytes were received in this
    /// run.
    Overlap,
    /// Comparing an overlap is sufficient: a checksum verifies the file.
    Checksum,
}

/// Consequence of a response for the partial file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// The body is the complete file; the present bytes are obsolete.
    Replace { changed: bool },
    /// The body is the same file from its start; the present bytes remain valid.
    Rewind,
    /// The first `count` bytes of the body continue the file at the requested offset.
    Append { count: u64, total: Option<u64> },
    /// The file is complete.
    Complete,
    /// The same range is to be requested without a condition.
    RetryUnconditional,
    /// The response cannot be used: the file is to be requested from its start.
    Restart(Mismatch),
    /// The status is an error or does not match the request.
    Reject,
}

/// Difference between a response and the partial file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Mismatch {
    #[error("missing or invalid Content-Range")]
    NoRange,
    #[error("response starts at another offset")]
    Start,
    #[error("different file length")]
    Total,
    #[error("Content-Length does not match Content-Range")]
    Length,
    #[error("different ETag")]
    Etag,
    #[error("different Last-Modified")]
    Date,
    #[error("different Content-Encoding")]
    Encoding,
    #[error("different media type")]
    MediaType,
    #[error("416 Range Not Satisfiable, but the local part is not the complete file")]
    Surplus,
    #[error("local bytes differ from those of the server")]
    Overlap,
}

impl Validators {
    /// Returns the metadata that remain valid for the decoded body. The server has no file of
    /// these bytes, so no validator does.
    pub(crate) fn of_decoded_body(self) -> Self {
        Self {
            name: self.name,
            last_modified: self.last_modified,
            media_type: self.media_type,
            ..Self::default()
        }
    }

    /// Returns the validators that other sources of the file must match: a strong ETag, which
    /// promises identical bytes. If the file `has_checksum`, its length is sufficient, and the
    /// ETag is omitted, because each server has its own. Returns `None` if nothing proves the
    /// version.
    pub(crate) fn for_other_source(self, has_checksum: bool) -> Option<Self> {
        if has_checksum && self.total.is_some() {
            return Some(Self {
                etag: None,
                date: None,
                media_type: None,
                ..self
            });
        }
        self.etag.as_deref().is_some_and(is_strong).then_some(self)
    }

    /// Returns the media types of this and a response, if they differ. An equal strong ETag proves
    /// that the bytes are the same anyway.
    pub(crate) fn other_media_type<'a>(&'a self, response: &'a Self) -> Option<(&'a str, &'a str)> {
        let expected = self.media_type.as_deref()?;
        let received = response.media_type.as_deref()?;
        let has_equal_etag =
            self.etag == response.etag && self.etag.as_deref().is_some_and(is_strong);
        (expected != received && !has_equal_etag).then_some((expected, received))
    }

    /// Returns the modification time.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        httpdate::parse_http_date(self.last_modified.as_deref()?).ok()
    }

    /// Returns the value of `If-Range`, if the version can be proven. A weak ETag cannot: it may
    /// stay the same when bytes change (RFC 9110 section 8.8.1).
    pub(crate) fn if_range(&self) -> Option<&str> {
        match (&self.etag, &self.last_modified) {
            (Some(etag), _) => Some(etag.as_str()).filter(|etag| is_strong(etag)),
            (None, _) => self.strong_date(),
        }
    }

    /// Returns `Last-Modified` if it is a strong validator (RFC 9110 section 8.8.2.2).
    fn strong_date(&self) -> Option<&str> {
        let modified = self.last_modified.as_deref()?;
        let modified_at = unix_seconds(modified)?;
        let sent_at = unix_seconds(self.date.as_deref()?)?;
        (sent_at.checked_sub(modified_at)? >= MIN_DATE_AGE).then_some(modified)
    }

    fn has_weak_etag(&self) -> bool {
        self.etag.as_deref().is_some_and(|etag| !is_strong(etag))
    }

    /// Returns the number of present bytes that must be equal, if a request without a condition
    /// may continue them. A weak ETag proves a version only together with a date.
    fn overlap_len(&self, proof: ResumeProof) -> Option<u64> {
        match proof {
            ResumeProof::Checksum => Some(OVERLAP_LEN),
            ResumeProof::Condition => None,
            _ if self.has_weak_etag() => self.strong_date().map(|_| LONG_OVERLAP_LEN),
            ResumeProof::Overlap => Some(OVERLAP_LEN),
            ResumeProof::Validator => None,
        }
    }
}

impl ResponseMeta {
    /// Returns the length of the file.
    pub(crate) fn total(&self) -> Option<u64> {
        match self.range {
            Some(ContentRange::Part { total, .. }) => total,
            _ => self.length,
        }
    }

    /// Extracts the metadata of a response head.
    pub(crate) fn new<'a>(
        status: u16,
        length: Option<u64>,
        field: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Self {
        // A value that is not UTF-8 could not be sent back unchanged.
        let text = |name| Some(std::str::from_utf8(field(name)?).ok()?.to_owned());
        let encoding = text("content-encoding").map(|value| encoding(&value));
        let validators = Validators {
            total: length,
            etag: text("etag").filter(|etag| !etag.is_empty()),
            last_modified: text("last-modified"),
            date: text("date"),
            name: field("content-disposition").and_then(file_name),
            encoding: encoding.filter(|encoding| !encoding.is_empty()),
            media_type: field("content-type").and_then(media_type),
            digest: None,
        };
        // A multipart response has its ranges inside the body (RFC 9110 section 14.6).
        let is_multipart = field("content-type").is_some_and(|kind| {
            kind.get(..10)
                .is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"))
        });
        let range = if is_multipart {
            None
        } else {
            field("content-range").and_then(ContentRange::parse)
        };
        Self {
            status,
            length,
            validators,
            range,
        }
    }
}

/// Returns the request for the missing bytes of a file of which the first `have` bytes are
/// present.
pub(crate) fn plan(validators: Option<&Validators>, have: u64, proof: ResumeProof) -> RangeRequest {
    let Some(validators) = validators else {
        return RangeRequest::Full;
    };
    if have == 0 {
        return RangeRequest::Full;
    }
    if let Some(if_range) = validators.if_range()
        && proof != ResumeProof::Checksum
    {
        return RangeRequest::From {
            offset: have,
            if_range: Some(if_range.to_owned()),
        };
    }
    match validators.overlap_len(proof) {
        Some(overlap) if have > overlap => RangeRequest::From {
            offset: have - overlap,
            if_range: None,
        },
        _ => RangeRequest::Full,
    }
}

/// Classifies the response to a request, for a file of which the first `have` bytes are present.
pub(crate) fn classify(
    validators: Option<&Validators>,
    have: u64,
    request: &RangeRequest,
    response: &ResponseMeta,
) -> Action {
    let (RangeRequest::From { offset, if_range }, Some(validators)) = (request, validators) else {
        return match response.status {
            // Any other unrequested 206 would be mistaken for the complete file.
            206 if covers_file(response) => Action::Replace { changed: false },
            202 | 204..=206 => Action::Reject,
            200..300 => Action::Replace { changed: false },
            _ => Action::Reject,
        };
    };
    match response.status {
        // These never have the file (RFC 9110 sections 15.3.3, 15.3.5 and 15.3.6).
        202 | 204 | 205 => Action::Reject,
        206 => match check_partial(validators, *offset, response) {
            Ok((count, total)) => Action::Append { count, total },
            Err(mismatch) => Action::Restart(mismatch),
        },
        200..300 => classify_full(validators, if_range.is_some(), &response.validators),
        416 => classify_unsatisfiable(validators, have, response),
        _ => Action::Reject,
    }
}

/// Returns whether a 206 response has all bytes of the file, as some servers answer a request
/// without a range.
fn covers_file(response: &ResponseMeta) -> bool {
    let Some(ContentRange::Part { first, last, total }) = response.range else {
        return false;
    };
    first == 0 && total == last.checked_add(1) && response.length == total
}

/// Checks a 206 response. Returns the number of bytes in its body, and the length of the file.
fn check_partial(
    validators: &Validators,
    offset: u64,
    response: &ResponseMeta,
) -> Result<(u64, Option<u64>), Mismatch> {
    let Some(ContentRange::Part { first, last, total }) = response.range else {
        return Err(Mismatch::NoRange);
    };
    let count = last - first + 1;
    if first != offset {
        return Err(Mismatch::Start);
    }
    if let Some(known_total) = validators.total
        && (total.is_some_and(|total| total != known_total) || last >= known_total)
    {
        return Err(Mismatch::Total);
    }
    if response.length.is_some_and(|length| length != count) {
        return Err(Mismatch::Length);
    }
    if validators.etag.is_some() && validators.etag != response.validators.etag {
        return Err(Mismatch::Etag);
    }
    // Many servers ignore If-Range; a 206 may omit the date (RFC 9110 section 15.3.7).
    let has_strong_etag = validators.etag.as_deref().is_some_and(is_strong);
    let dates = validators
        .last_modified
        .as_ref()
        .zip(response.validators.last_modified.as_ref());
    if !has_strong_etag && dates.is_some_and(|(before, now)| before != now) {
        return Err(Mismatch::Date);
    }
    // A weak ETag may stay the same when bytes change, so all else must be stated and equal.
    if validators.has_weak_etag() {
        if dates.is_none() {
            return Err(Mismatch::Date);
        }
        if total.is_none() || total != validators.total {
            return Err(Mismatch::Total);
        }
    }
    if validators.encoding != response.validators.encoding {
        return Err(Mismatch::Encoding);
    }
    if validators.other_media_type(&response.validators).is_some() {
        return Err(Mismatch::MediaType);
    }
    Ok((count, validators.total.or(total)))
}

/// Classifies a complete file in response to a range request.
fn classify_full(known: &Validators, was_conditional: bool, received: &Validators) -> Action {
    if known.etag != received.etag
        || known.etag.is_none() && known.last_modified != received.last_modified
    {
        return Action::Replace { changed: true };
    }
    match &known.etag {
        // Some servers fail to recognize their own ETag, but only in If-Range.
        Some(etag) if is_strong(etag) && was_conditional => Action::RetryUnconditional,
        Some(etag) if is_strong(etag) && known.encoding == received.encoding => Action::Rewind,
        _ => Action::Replace { changed: false },
    }
}

/// Classifies a 416 response.
fn classify_unsatisfiable(validators: &Validators, have: u64, response: &ResponseMeta) -> Action {
    let is_same = match &response.validators.etag {
        Some(etag) => validators.etag.as_ref() == Some(etag),
        None => validators.total == Some(have),
    };
    match response.range {
        Some(ContentRange::None { total }) if total == have && is_same => Action::Complete,
        _ => Action::Restart(Mismatch::Surplus),
    }
}

/// Returns a `Content-Encoding` in lower case, without words that change no byte.
fn encoding(value: &str) -> String {
    let names = value
        .split(',')
        .map(|name| name.trim().to_ascii_lowercase());
    let codings: Vec<_> = names
        .filter(|name| !is_no_coding(name.as_bytes()))
        .collect();
    codings.join(", ")
}

/// Returns type and subtype of a `Content-Type` in lower case, without parameters (RFC 9110 section
/// 8.3.1). Returns `None` if it is invalid.
fn media_type(value: &[u8]) -> Option<String> {
    let essence = std::str::from_utf8(value).ok()?.split(';').next()?.trim();
    let is_token = |text: &str| {
        let is_valid =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.len() <= MAX_MEDIA_TYPE_LEN && text.bytes().all(is_valid)
    };
    let (kind, subtype) = essence.split_once('/')?;
    (is_token(kind) && is_token(subtype)).then(|| essence.to_ascii_lowercase())
}

/// Returns whether an ETag is strong, that is, promises identical bytes (RFC 9110 section 8.8.3).
pub(crate) fn is_strong(etag: &str) -> bool {
    etag.len() >= 2 && etag.starts_with('"') && etag.ends_with('"')
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
