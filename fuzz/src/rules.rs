//! Deliberate differences between our transport and hyper, and the comparison that allows them.
//!
//! | response with | ours | hyper |
//! |---|---|---|
//! | control bytes in the head | spaces, but an error in framing headers | error |
//! | a folded line in the head | spaces (RFC 9112 section 5.2) | error |
//! | HTTP/1.0 and `Transfer-Encoding: chunked` | chunked | error |
//! | empty members in `Transfer-Encoding`, or `identity` | ignored (RFC 9110 section 5.6.1) | the last one counts |
//! | a malformed field that does not frame the body | skipped | error |
//! | a status line with several blanks, in lower case, or of version 2 or 3 | accepted | error |
//! | a chunk line that ends with LF alone | accepted | error |
//! | malformed trailers, or up to 16 KiB of them | ignored | error |
//! | long extensions of many chunks | at most 4 KiB per line | at most 16 KiB per body |
//! | a `Transfer-Encoding` other than chunked alone | error | decoded if chunked is last, else until the end |
//! | status 101, or more than 10 of 100 to 199 | error | response, ignored |
//! | a control byte or more than 4 KiB in a chunk size line | error | accepted |
//! | a trailer line that ends with LF alone | error | accepted |
//! | more than one empty line before it | error | ignored |
//! | a head over 256 KiB | error | up to 400 KiB |

use std::collections::BTreeMap;

use myapp::download::http::{HttpError, ProtocolError};

use crate::outcome::{Outcome, Response};

/// Errors of hyper for heads that we repair.
const HEAD_ERRORS: [&str; 3] = [
    "invalid HTTP header parsed",
    "invalid HTTP version parsed",
    "invalid HTTP status-code parsed",
];

/// Number of occurrences of each deliberate difference.
pub type Counts = BTreeMap<&'static str, u64>;

/// Compares the results of both clients for `bytes`.
///
/// # Errors
///
/// A description of a difference that is not deliberate.
pub fn compare(
    bytes: &[u8],
    ours: &Outcome<HttpError>,
    hypers: &Outcome<String>,
    counts: &mut Counts,
) -> Result<(), String> {
    let rule = match (ours, hypers) {
        (Outcome::Complete(ours), Outcome::Complete(hypers)) => {
            same(ours, hypers)?;
            "both accept it"
        }
        (Outcome::Complete(_), Outcome::Failed { body, error })
            if body.is_empty() && HEAD_ERRORS.iter().any(|text| error.contains(text)) =>
        {
            "more lenient: a malformed head"
        }
        (Outcome::Complete(ours), Outcome::Failed { body, error })
            if ours.body.starts_with(body)
                && error.contains("reading a body")
                && has_bare_lf(bytes) =>
        {
            "more lenient: a chunk line without CR"
        }
        (Outcome::Complete(ours), Outcome::Failed { body, error }) => {
            if ours.body != *body {
                return Err(format!(
                    "ours accepts {}, hyper fails: {error}",
                    shown(&ours.body)
                ));
            }
            lenient_rule(error).ok_or_else(|| format!("ours accepts, hyper fails: {error}"))?
        }
        (Outcome::Failed { error, body }, Outcome::Complete(hypers)) => {
            if !hypers.body.starts_with(body) {
                return Err(format!("ours fails after {}", shown(body)));
            }
            strict_rule(bytes, error)
                .ok_or_else(|| format!("hyper accepts, ours fails: {error:?}"))?
        }
        (Outcome::Failed { body: ours, .. }, Outcome::Failed { body: hypers, .. }) => {
            if !ours.starts_with(hypers) && !hypers.starts_with(ours) {
                return Err(format!(
                    "before both fail: {} and {}",
                    shown(ours),
                    shown(hypers)
                ));
            }
            "both reject it"
        }
    };
    *counts.entry(rule).or_default() += 1;
    Ok(())
}

fn same(ours: &Response, hypers: &Response) -> Result<(), String> {
    if ours.status != hypers.status {
        return Err(format!("status {} and {}", ours.status, hypers.status));
    }
    if ours.body != hypers.body {
        return Err(format!(
            "bodies {} and {}",
            shown(&ours.body),
            shown(&hypers.body)
        ));
    }
    // The transfer codings were normalized for hyper.
    let others = |response: &Response| {
        let fields = response
            .fields
            .iter()
            .filter(|(name, _)| name != "transfer-encoding");
        fields.cloned().collect::<Vec<_>>()
    };
    if others(ours) != others(hypers) {
        return Err(format!("fields {:?} and {:?}", ours.fields, hypers.fields));
    }
    Ok(())
}

fn shown(body: &[u8]) -> String {
    format!(
        "{} bytes \"{}\"",
        body.len(),
        body[..body.len().min(60)].escape_ascii()
    )
}

/// Returns the rule by which we accept what hyper rejects after [`normalize`].
fn lenient_rule(error: &str) -> Option<&'static str> {
    const TRAILERS: [&str; 6] = [
        "trailers",
        "Invalid header",
        "header name",
        "header value",
        "Partial header",
        "new line",
    ];
    if error.contains("chunk extensions over limit") {
        return Some("more lenient: long extensions of many chunks");
    }
    let is_trailer =
        error.contains("reading a body") && TRAILERS.iter().any(|text| error.contains(text));
    (is_trailer || error.contains("too many headers")).then_some("more lenient: malformed trailers")
}

/// Returns the rule by which we reject what hyper accepts.
fn strict_rule(bytes: &[u8], error: &HttpError) -> Option<&'static str> {
    Some(match protocol(error)? {
        ProtocolError::ControlByte => "stricter: a control byte in a framing header",
        ProtocolError::TransferEncoding { .. } => "stricter: other transfer codings",
        ProtocolError::UnexpectedUpgrade => "stricter: status 101",
        ProtocolError::TooManyInformational => "stricter: too many informational responses",
        ProtocolError::ChunkSize { .. } => "stricter: a chunk size line",
        ProtocolError::Trailers => "stricter: a trailer line",
        ProtocolError::HeadTooLong => "stricter: a long head",
        ProtocolError::StatusLine { .. } if empty_lines(bytes) => "stricter: empty lines before it",
        _ => return None,
    })
}

fn protocol(error: &HttpError) -> Option<&ProtocolError> {
    if let HttpError::Protocol { source, .. } = error {
        Some(source)
    } else {
        None
    }
}

/// Returns whether any head, also of an informational response, has more than one empty line
/// before it.
fn empty_lines(bytes: &[u8]) -> bool {
    let heads = bytes
        .split_inclusive(|&byte| byte == b'\n')
        .collect::<Vec<_>>();
    let is_empty = |line: &[u8]| line == b"\n" || line == b"\r\n";
    let starts = |at: usize| at == 0 || is_empty(heads[at - 1]);
    (0..heads.len()).any(|at| starts(at) && is_empty(heads[at]))
}

/// Returns whether a line after the first head ends with LF alone.
fn has_bare_lf(bytes: &[u8]) -> bool {
    let body = head_end(bytes).map_or(&[][..], |end| &bytes[end - 1..]);
    body.windows(2)
        .any(|pair| pair[1] == b'\n' && pair[0] != b'\r')
}

/// Normalises a response where we are more lenient than hyper.
pub fn normalize(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = bytes;
    while let Some(end) = head_end(rest) {
        let (head, behind) = rest.split_at(end);
        let head = normalize_head(head);
        let line = head.trim_ascii_start();
        let is_informational = line.get(9) == Some(&b'1') && !line[9..].starts_with(b"101");
        plain.extend(head);
        rest = behind;
        if !is_informational {
            break;
        }
    }
    plain.extend_from_slice(rest);
    plain
}

/// Returns the end of a head: after an empty line that is not the first.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut lines = 0;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        at += line.len();
        let is_empty = line == b"\r\n" || line == b"\n";
        if is_empty && lines > 0 {
            return Some(at);
        }
        lines += usize::from(!is_empty);
    }
    None
}

fn normalize_head(head: &[u8]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    for at in 1..bytes.len() {
        if bytes[at - 1] == b'\n' && matches!(bytes[at], b' ' | b'\t') {
            bytes[at - 1] = b' ';
            if at > 1 && bytes[at - 2] == b'\r' {
                bytes[at - 2] = b' ';
            }
        }
    }
    let is_control = |byte: &u8| byte.is_ascii_control() && !b"\t\r\n".contains(byte);
    bytes
        .iter_mut()
        .filter(|byte| is_control(byte))
        .for_each(|byte| *byte = b' ');
    let mut is_coded = false;
    let lines = bytes.split_inclusive(|&byte| byte == b'\n').map(|line| {
        let coding = coding(line);
        is_coded |= coding.is_some();
        coding.unwrap_or_else(|| line.to_vec())
    });
    let mut plain = lines.collect::<Vec<_>>().concat();
    if is_coded && plain.starts_with(b"HTTP/1.0") {
        plain[7] = b'1';
    }
    plain
}

/// Returns a Transfer-Encoding line without members that we ignore; empty if no member is left.
fn coding(line: &[u8]) -> Option<Vec<u8>> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let value = line[colon + 1..].strip_suffix(b"\n")?;
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    // Both clients reject a CR in the value.
    if !line[..colon].eq_ignore_ascii_case(b"transfer-encoding") || value.contains(&b'\r') {
        return None;
    }
    let members = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let is_ignored = |member: &[u8]| member.is_empty() || member.eq_ignore_ascii_case(b"identity");
    let members: Vec<_> = members.filter(|member| !is_ignored(member)).collect();
    let value = members.join(b", ".as_slice());
    // hyper would treat an empty value as the last coding.
    Some(if value.is_empty() {
        Vec::new()
    } else {
        [b"Transfer-Encoding: ", &value[..], b"\r\n"].concat()
    })
}
