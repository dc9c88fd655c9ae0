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

/// Number of present bytes that are compared if the validator is a weak ETag.
const WEAK_OVERLAP_LEN: u64 = 64 * 1024;

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
            _ if self.has_weak_etag() => self.strong_date().map(|_| WEAK_OVERLAP_LEN),
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
mod tests {
    use super::*;

    const OLD: &str = "Sun, 06 Nov 1994 08:00:00 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:01:00 GMT";

    fn response(status: u16, fields: &[(&str, &'static str)]) -> ResponseMeta {
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| *field == name);
            found.map(|(_, value)| value.as_bytes())
        };
        let length = field("content-length")
            .map(|length| std::str::from_utf8(length).unwrap().parse().unwrap());
        ResponseMeta::new(status, length, field)
    }

    fn known(fields: &[(&str, &'static str)]) -> Validators {
        response(200, fields).validators
    }

    /// Asserts the action for a file of 100 bytes with the ETag `"a"`, of which 40 are present.
    #[track_caller]
    fn assert_classified(status: u16, fields: &[(&str, &'static str)], action: Action) {
        let known = known(&[("content-length", "100"), ("etag", "\"a\"")]);
        let request = plan(Some(&known), 40, ResumeProof::Validator);
        assert_eq!(
            request,
            RangeRequest::From {
                offset: 40,
                if_range: Some("\"a\"".to_owned())
            }
        );
        let response = response(status, fields);
        assert_eq!(
            classify(Some(&known), 40, &request, &response),
            action,
            "{status} {fields:?}"
        );
    }

    #[test]
    fn if_range_is_a_strong_etag_or_an_old_date() {
        for (fields, condition) in [
            (&[("etag", "\"a\"")][..], Some("\"a\"")),
            (&[("etag", "\"\"")], Some("\"\"")),
            (&[("etag", "W/\"a\"")], None),
            (&[("etag", "a")], None),
            (&[("etag", "\"")], None),
            (&[("last-modified", OLD), ("date", LATER)], Some(OLD)),
            (
                &[
                    ("last-modified", OLD),
                    ("date", "Sun, 06 Nov 1994 08:00:59 GMT"),
                ],
                None,
            ),
            (&[("last-modified", LATER), ("date", OLD)], None),
            (&[("last-modified", OLD)], None),
            (&[("last-modified", "yesterday"), ("date", LATER)], None),
            (
                &[("etag", "W/\"a\""), ("last-modified", OLD), ("date", LATER)],
                None,
            ),
            (&[], None),
        ] {
            assert_eq!(known(fields).if_range(), condition, "{fields:?}");
        }
    }

    #[test]
    fn overlap_resumes_only_within_a_run() {
        let known = known(&[]);
        assert_eq!(
            plan(Some(&known), OVERLAP_LEN, ResumeProof::Overlap),
            RangeRequest::Full
        );
        let rest = RangeRequest::From {
            offset: 7,
            if_range: None,
        };
        assert_eq!(
            plan(Some(&known), OVERLAP_LEN + 7, ResumeProof::Overlap),
            rest.clone()
        );
        assert_eq!(
            plan(Some(&known), OVERLAP_LEN + 7, ResumeProof::Validator),
            RangeRequest::Full
        );
        assert_eq!(
            plan(Some(&known), OVERLAP_LEN + 7, ResumeProof::Checksum),
            rest
        );
        assert_eq!(
            plan(Some(&known), 0, ResumeProof::Overlap),
            RangeRequest::Full
        );
        assert_eq!(plan(None, 1, ResumeProof::Overlap), RangeRequest::Full);
    }

    #[test]
    fn weak_etag_needs_a_date_and_a_longer_overlap() {
        let weak = ("etag", "W/\"a\"");
        let length = ("content-length", "100000");
        let settled = [weak, length, ("last-modified", OLD), ("date", LATER)];
        let rest = RangeRequest::From {
            offset: 7,
            if_range: None,
        };
        let have = WEAK_OVERLAP_LEN + 7;
        for proof in [ResumeProof::Validator, ResumeProof::Overlap] {
            let known = |fields| plan(Some(&known(fields)), have, proof);
            assert_eq!(known(&settled), rest);
            assert_eq!(known(&settled[..3]), RangeRequest::Full);
            let recent = [weak, ("last-modified", LATER), ("date", LATER)];
            assert_eq!(known(&recent), RangeRequest::Full);
        }
        let known = known(&settled);
        let full = RangeRequest::Full;
        assert_eq!(plan(Some(&known), have - 7, ResumeProof::Validator), full);
        assert_eq!(plan(Some(&known), have, ResumeProof::Condition), full);
        let classified = |fields: &[(&str, &'static str)]| {
            classify(Some(&known), have, &rest, &response(206, fields))
        };
        let range = ("content-range", "bytes 7-99999/100000");
        let date = ("last-modified", OLD);
        let append = Action::Append {
            count: 99_993,
            total: Some(100_000),
        };
        assert_eq!(classified(&[range, weak, date]), append);
        for (fields, mismatch) in [
            ([range, ("etag", "\"a\""), date], Mismatch::Etag),
            ([range, weak, ("last-modified", LATER)], Mismatch::Date),
            ([range, weak, ("x", "no date")], Mismatch::Date),
            (
                [("content-range", "bytes 7-99999/*"), weak, date],
                Mismatch::Total,
            ),
        ] {
            assert_eq!(classified(&fields), Action::Restart(mismatch), "{fields:?}");
        }
    }

    const ETAG: (&str, &str) = ("etag", "\"a\"");

    #[test]
    fn partial_response_of_the_same_version_is_appended() {
        for (range, other, count) in [
            ("bytes 40-99/100", None, 60),
            ("bytes 40-99/*", None, 60),
            ("bytes 40-49/100", None, 10),
            ("bytes 40-99/100", Some(("content-length", "60")), 60),
            (
                "bytes 40-99/100",
                Some(("content-encoding", "Identity")),
                60,
            ),
        ] {
            let mut fields = vec![("content-range", range), ETAG];
            fields.extend(other);
            let total = Some(100);
            assert_classified(206, &fields, Action::Append { count, total });
        }
    }

    #[test]
    fn partial_response_must_match_the_file() {
        let range = ("content-range", "bytes 40-99/100");
        let multipart = ("content-type", "Multipart/Byteranges; boundary=x");
        for (fields, mismatch) in [
            (
                &[range, ETAG, ("content-length", "61")][..],
                Mismatch::Length,
            ),
            (&[ETAG], Mismatch::NoRange),
            (&[range, ETAG, multipart], Mismatch::NoRange),
            (&[range, ("etag", "\"b\"")], Mismatch::Etag),
            (&[range], Mismatch::Etag),
            (
                &[range, ETAG, ("content-encoding", "gzip")],
                Mismatch::Encoding,
            ),
        ] {
            assert_classified(206, fields, Action::Restart(mismatch));
        }
        for (range, mismatch) in [
            ("bytes 39-99/100", Mismatch::Start),
            ("bytes 0-99/100", Mismatch::Start),
            ("bytes 40-99/101", Mismatch::Total),
            ("bytes 40-100/*", Mismatch::Total),
            ("lines 40-99/100", Mismatch::NoRange),
            ("bytes */100", Mismatch::NoRange),
        ] {
            let fields = [("content-range", range), ETAG];
            assert_classified(206, &fields, Action::Restart(mismatch));
        }
    }

    /// Regression: such a part was once appended to one of the older version. The server ignores
    /// `If-Range`.
    #[test]
    fn partial_response_of_another_date_restarts() {
        let range = ("content-range", "bytes 40-99/100");
        let length = ("content-length", "100");
        let append = Action::Append {
            count: 60,
            total: Some(100),
        };
        let over = Action::Restart(Mismatch::Date);
        for (validators, now, action) in [
            (
                &[("last-modified", OLD), ("date", LATER)][..],
                LATER,
                over.clone(),
            ),
            (&[("last-modified", OLD), ("etag", "W/\"a\"")], LATER, over),
            (
                &[("last-modified", OLD), ("date", LATER)],
                OLD,
                append.clone(),
            ),
            (
                &[("last-modified", OLD), ("etag", "\"a\"")],
                LATER,
                append.clone(),
            ),
            (&[], LATER, append),
        ] {
            let known = known(&[&[length], validators].concat());
            let request = RangeRequest::From {
                offset: 40,
                if_range: None,
            };
            let etag = validators
                .iter()
                .filter(|(name, _)| *name == "etag")
                .copied();
            let fields: Vec<_> = etag.chain([range, ("last-modified", now)]).collect();
            assert_eq!(
                classify(Some(&known), 40, &request, &response(206, &fields)),
                action,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn full_response_replaces_or_retries() {
        assert_classified(200, &[("etag", "\"b\"")], Action::Replace { changed: true });
        assert_classified(200, &[], Action::Replace { changed: true });
        assert_classified(200, &[("etag", "\"a\"")], Action::RetryUnconditional);
        let known = known(&[("etag", "\"a\"")]);
        let again = RangeRequest::From {
            offset: 40,
            if_range: None,
        };
        let same = response(200, &[("etag", "\"a\"")]);
        assert_eq!(classify(Some(&known), 40, &again, &same), Action::Rewind);
    }

    #[test]
    fn full_response_with_a_date_replaces() {
        let known = known(&[("last-modified", OLD), ("date", LATER)]);
        let request = plan(Some(&known), 40, ResumeProof::Validator);
        for (modified, changed) in [(OLD, false), (LATER, true)] {
            let response = response(200, &[("last-modified", modified)]);
            assert_eq!(
                classify(Some(&known), 40, &request, &response),
                Action::Replace { changed }
            );
        }
    }

    #[test]
    fn unsatisfiable_range_completes_only_the_same_file() {
        let known = known(&[("content-length", "40"), ("etag", "\"a\"")]);
        let unknown = Validators {
            total: None,
            ..known.clone()
        };
        let request = RangeRequest::From {
            offset: 40,
            if_range: None,
        };
        let over = Action::Restart(Mismatch::Surplus);
        for (known, fields, action) in [
            (
                &known,
                &[("content-range", "bytes */40")][..],
                Action::Complete,
            ),
            (
                &known,
                &[("content-range", "bytes */40"), ("etag", "\"a\"")],
                Action::Complete,
            ),
            (
                &unknown,
                &[("content-range", "bytes */40"), ("etag", "\"a\"")],
                Action::Complete,
            ),
            (&unknown, &[("content-range", "bytes */40")], over.clone()),
            (
                &known,
                &[("content-range", "bytes */40"), ("etag", "\"b\"")],
                over.clone(),
            ),
            (&known, &[("content-range", "bytes */39")], over.clone()),
            (&known, &[("content-range", "bytes */41")], over.clone()),
            (&known, &[], over.clone()),
        ] {
            assert_eq!(
                classify(Some(known), 40, &request, &response(416, fields)),
                action,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn full_request_accepts_a_206_of_all_bytes() {
        for (range, length, is_accepted) in [
            ("bytes 0-9/10", "10", true),
            ("bytes 0-9/10", "9", false),
            ("bytes 0-8/10", "9", false),
            ("bytes 1-9/10", "9", false),
            ("bytes 0-9/*", "10", false),
            ("bytes */10", "10", false),
        ] {
            let fields = [("content-range", range), ("content-length", length)];
            let action = classify(None, 0, &RangeRequest::Full, &response(206, &fields));
            let begin = Action::Replace { changed: false };
            let wanted = if is_accepted { begin } else { Action::Reject };
            assert_eq!(action, wanted, "{range} {length}");
        }
    }

    #[test]
    fn full_request_accepts_only_a_complete_file() {
        let begin = Action::Replace { changed: false };
        for (status, action) in [
            (200, begin.clone()),
            (203, begin),
            (202, Action::Reject),
            (204, Action::Reject),
            (205, Action::Reject),
            (206, Action::Reject),
            (304, Action::Reject),
            (404, Action::Reject),
            (416, Action::Reject),
        ] {
            assert_eq!(
                classify(None, 0, &RangeRequest::Full, &response(status, &[])),
                action,
                "{status}"
            );
        }
        for status in [202, 204, 205] {
            assert_classified(status, &[ETAG], Action::Reject);
        }
        assert_classified(404, &[], Action::Reject);
        assert_classified(304, &[], Action::Reject);
    }

    #[test]
    fn media_type_has_no_parameters_and_is_in_lower_case() {
        for (value, found) in [
            ("text/html", Some("text/html")),
            (" Text/HTML ; charset=utf-8", Some("text/html")),
            ("application/vnd.a+zip;q", Some("application/vnd.a+zip")),
            ("text", None),
            ("text/", None),
            ("/html", None),
            ("a b/c", None),
            ("a/b/c", None),
            ("a/\u{1b}", None),
            ("", None),
        ] {
            assert_eq!(media_type(value.as_bytes()).as_deref(), found, "{value:?}");
        }
        assert_eq!(
            media_type(format!("a/{}", "b".repeat(128)).as_bytes()),
            None
        );
    }

    #[test]
    fn partial_response_of_another_media_type_needs_an_equal_etag() {
        let zip = ("content-type", "application/zip");
        let html = ("content-type", "text/html");
        let range = ("content-range", "bytes 40-99/100");
        let request = RangeRequest::From {
            offset: 40,
            if_range: None,
        };
        for (etag, other, is_accepted) in [
            (("etag", "\"a\""), html, true),
            (("etag", "W/\"a\""), html, false),
            (("etag", ""), html, false),
            (("etag", ""), zip, true),
            (("etag", ""), ("x", "y"), true),
        ] {
            let known = known(&[("content-length", "100"), etag, zip]);
            let response = response(206, &[range, etag, other]);
            let action = classify(Some(&known), 40, &request, &response);
            let is_append = matches!(action, Action::Append { .. });
            assert_eq!(is_append, is_accepted, "{etag:?} {other:?} {action:?}");
        }
    }

    /// Server with correct bodies and ranges that changes versions and ignores conditions at random.
    struct UnreliableServer {
        random: fastrand::Rng,
        version: usize,
        lengths: Vec<u64>,
    }

    impl UnreliableServer {
        /// Returns the head, the version and the offset of the body, whose length the head states.
        fn response(&mut self, request: &RangeRequest) -> (ResponseMeta, usize, u64) {
            if self.version + 1 < self.lengths.len() && self.random.u8(..4) == 0 {
                self.version += 1;
            }
            let version = self.version;
            let total = self.lengths[version];
            let etag = format!("\"{version}\"");
            let complete = ResponseMeta {
                status: 200,
                length: Some(total),
                validators: Validators {
                    total: Some(total),
                    etag: self.random.u8(..8).ne(&0).then_some(etag.clone()),
                    ..Validators::default()
                },
                range: None,
            };
            let RangeRequest::From { offset, if_range } = request else {
                return (complete, version, 0);
            };
            let matches = if_range.as_ref().is_none_or(|condition| *condition == etag);
            if !matches || self.random.u8(..4) == 0 {
                return (complete, version, 0);
            }
            let (status, range, start) = self.range(*offset, total);
            let meta = ResponseMeta {
                status,
                length: None,
                range: Some(range),
                ..complete
            };
            (meta, version, start)
        }

        /// Returns the status, the `Content-Range` and the offset of the body.
        fn range(&mut self, offset: u64, total: u64) -> (u16, ContentRange, u64) {
            if offset >= total {
                return (416, ContentRange::None { total }, 0);
            }
            let first = if self.random.u8(..4) == 0 {
                self.random.u64(..total)
            } else {
                offset
            };
            let range = ContentRange::Part {
                first,
                last: self.random.u64(first..total),
                total: self.random.bool().then_some(total),
            };
            (206, range, first)
        }
    }

    /// Client with a partial file, whose bytes are stored as `(version, offset)`.
    #[derive(Default)]
    struct ModelClient {
        part: Vec<(usize, u64)>,
        known: Option<Validators>,
        next_request: Option<RangeRequest>,
    }

    /// Result of classifying a response in the model.
    enum ModelStep {
        /// The body has these offsets in the file.
        Body {
            start: u64,
            end: u64,
        },
        Complete,
        NextRequest,
    }

    impl ModelClient {
        fn request(&mut self) -> RangeRequest {
            let have = self.part.len() as u64;
            let next = self.next_request.take();
            next.unwrap_or_else(|| plan(self.known.as_ref(), have, ResumeProof::Validator))
        }

        fn classify(&mut self, request: &RangeRequest, response: &ResponseMeta) -> ModelStep {
            let have = self.part.len() as u64;
            let total = response.validators.total;
            match classify(self.known.as_ref(), have, request, response) {
                Action::Replace { .. } => {
                    self.part.clear();
                    self.known = Some(response.validators.clone());
                    ModelStep::Body {
                        start: 0,
                        end: total.unwrap(),
                    }
                }
                Action::Rewind => ModelStep::Body {
                    start: 0,
                    end: total.unwrap(),
                },
                Action::Append { count, total } => {
                    self.known.as_mut().unwrap().total = total;
                    ModelStep::Body {
                        start: have,
                        end: have + count,
                    }
                }
                Action::Complete => ModelStep::Complete,
                Action::RetryUnconditional => {
                    self.next_request = Some(RangeRequest::From {
                        offset: have,
                        if_range: None,
                    });
                    ModelStep::NextRequest
                }
                Action::Restart(_) => {
                    self.next_request = Some(RangeRequest::Full);
                    ModelStep::NextRequest
                }
                Action::Reject => ModelStep::NextRequest,
            }
        }

        fn write(&mut self, offset: u64, byte: (usize, u64)) {
            match self.part.get_mut(offset as usize) {
                Some(old) => *old = byte,
                None => self.part.push(byte),
            }
        }

        fn is_complete(&self, end: u64) -> bool {
            let known = self.known.as_ref();
            known.is_some_and(|known| known.total == Some(end))
        }
    }

    /// Downloads a file with interruptions at random bytes.
    fn fetch(seed: u64) -> Option<ModelClient> {
        let mut random = fastrand::Rng::with_seed(seed);
        let lengths = (0..3).map(|_| random.u64(1..60)).collect();
        let mut server = UnreliableServer {
            random: random.fork(),
            version: 0,
            lengths,
        };
        let mut client = ModelClient::default();
        for _ in 0..200 {
            let request = client.request();
            let (response, version, first) = server.response(&request);
            let (start, end) = match client.classify(&request, &response) {
                ModelStep::Body { start, end } => (start, end),
                ModelStep::Complete => return Some(client),
                ModelStep::NextRequest => continue,
            };
            let received_end = if random.bool() {
                end
            } else {
                random.u64(start..=end)
            };
            for offset in start..received_end {
                client.write(offset, (version, offset - start + first));
            }
            if received_end == end && client.is_complete(end) {
                return Some(client);
            }
        }
        None
    }

    #[test]
    fn versions_are_never_mixed() {
        let seed = fastrand::u64(..);
        let mut finished = 0;
        for seed in (0..20_000).map(|round| seed.wrapping_add(round)) {
            let Some(ModelClient { part, known, .. }) = fetch(seed) else {
                continue;
            };
            finished += 1;
            let version = part[0].0;
            let is_one_version = (0..)
                .zip(&part)
                .all(|(offset, byte)| *byte == (version, offset));
            let is_complete = known.unwrap().total == Some(part.len() as u64);
            assert!(is_one_version && is_complete, "seed {seed}: {part:?}");
        }
        assert!(finished > 10_000, "only {finished} finished");
    }
}
