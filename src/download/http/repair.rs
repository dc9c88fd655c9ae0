//! Repair of response heads that the strict parser refuses, as browsers and curl accept them.
//!
//! Fields that decide about the bytes of the file stay strict. The connection of a repaired head is
//! not reused, because the peers may disagree about the end of the response.

use tracing::debug;

use super::error::ProtocolError;
use super::request::is_token;
use crate::escape::Escaped;

/// Header fields in which a malformed line is an error: they frame, encode or locate the body.
const STRICT_FIELDS: [&[u8]; 5] = [
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"location",
    b"transfer-encoding",
];

/// Returns the head with a status line and fields that the strict parser accepts. Malformed fields
/// are left out. `raw` is the head as it was received, for the text of errors.
///
/// # Errors
///
/// [`ProtocolError::StatusLine`] if the first line is not a status line, and
/// [`ProtocolError::MalformedHeader`] for a malformed field of [`STRICT_FIELDS`].
pub(super) fn repair(head: &[u8], raw: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let mut lines = head
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .skip_while(|line| line.is_empty());
    let status_line = lines.next().unwrap_or_default();
    let is_complete = head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n");
    let (Some(mut repaired), true) = (repair_status_line(status_line), is_complete) else {
        return Err(status_line_error(raw));
    };
    if repaired.strip_suffix(b"\r\n") != Some(status_line) {
        debug!(line = %Escaped(status_line), "accepted a malformed status line");
    }
    for line in lines.take_while(|line| !line.is_empty()) {
        if is_field(line) {
            repaired.extend_from_slice(line);
            repaired.extend_from_slice(b"\r\n");
        } else if line.split(|&byte| byte == b'\r').any(is_strict) {
            return Err(ProtocolError::MalformedHeader);
        } else {
            let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
            debug!(name = %Escaped(name), "skipped a malformed header field");
        }
    }
    repaired.extend_from_slice(b"\r\n");
    Ok(repaired)
}

/// Returns the error of a head that does not start with a status line.
pub(super) fn status_line_error(head: &[u8]) -> ProtocolError {
    let line = head
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default()
        .trim_ascii_end();
    ProtocolError::StatusLine {
        line: Escaped(line).to_string(),
    }
}

/// Returns whether bytes can be the start of a status line. `HTTP/2` and `HTTP/3` are versions that
/// some servers and gateways write into HTTP/1.1 responses.
pub(super) fn may_be_status_line(bytes: &[u8]) -> bool {
    let is_prefix = bytes
        .iter()
        .zip(b"HTTP/")
        .all(|(byte, wanted)| byte.eq_ignore_ascii_case(wanted));
    is_prefix && matches!(bytes.get(5), None | Some(b'1'..=b'3'))
}

/// Rewrites a status line with a version in lower case, a later version, or several blanks.
fn repair_status_line(line: &[u8]) -> Option<Vec<u8>> {
    if !may_be_status_line(line) {
        return None;
    }
    let end_of_version = line.iter().position(|&byte| byte == b' ')?;
    let (version, rest) = line.split_at(end_of_version);
    let minor = match version.get(5..)? {
        b"1.0" => b'0',
        [_] | [_, b'.', b'0'..=b'9'] => b'1',
        _ => return None,
    };
    let rest = rest.trim_ascii_start();
    let mut repaired = b"HTTP/1._ ".to_vec();
    repaired[7] = minor;
    repaired.extend_from_slice(rest);
    repaired.extend_from_slice(b"\r\n");
    Some(repaired)
}

/// Returns whether a line is a field (RFC 9112 section 5). Control bytes were replaced before.
fn is_field(line: &[u8]) -> bool {
    let colon = line.iter().position(|&byte| byte == b':');
    let name = colon.map_or(&[][..], |colon| &line[..colon]);
    !name.is_empty() && name.iter().copied().all(is_token) && !line.contains(&b'\r')
}

/// Returns whether a line seems to be one of [`STRICT_FIELDS`]: after removing everything but
/// letters and hyphens from its name.
fn is_strict(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let is_kept = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'-';
    let name: Vec<u8> = name.iter().copied().filter(is_kept).collect();
    let is_name = |field: &&[u8]| name.eq_ignore_ascii_case(field);
    STRICT_FIELDS.iter().any(is_name)
}
