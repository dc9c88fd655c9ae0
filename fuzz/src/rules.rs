//! Deliberate differences between our transport and hyper, and the comparison that allows them.
//!
//! | an answer with | ours | hyper |
//! |---|---|---|
//! | control bytes in the head | spaces, but an error where the end of the body is told | error |
//! | a folded line in the head | spaces (RFC 9112 section 5.2) | error |
//! | HTTP/1.0 and `Transfer-Encoding: chunked` | chunked | error |
//! | empty members in `Transfer-Encoding` | left out (RFC 9110 section 5.6.1) | the last one counts |
//! | trailers that are no fields, or up to 16 KiB of them | passed over | error |
//! | long extensions of many chunks | at most 4 KiB a line | at most 16 KiB a body |
//! | a `Transfer-Encoding` other than chunked alone | error | decoded if chunked is last, else until the end |
//! | status 101, or more than 10 of 100 to 199 | error | an answer, passed over |
//! | a control byte or more than 4 KiB in a line with a chunk's size | error | taken |
//! | a trailer line that ends with LF alone | error | taken |
//! | more than one empty line before it | error | passed over |
//! | a head over 256 KiB | error | up to 400 KiB |

use std::collections::BTreeMap;

use myapp::download::http::{HttpError, ProtocolError};

use crate::outcome::{Answer, Outcome};

/// Number of occurrences of each deliberate difference.
pub type Met = BTreeMap<&'static str, u64>;

/// Compares the results of both clients for `bytes`.
///
/// # Errors
///
/// A description of a difference that is not deliberate.
pub fn compare(
    bytes: &[u8],
    ours: &Outcome<HttpError>,
    hypers: &Outcome<String>,
    met: &mut Met,
) -> Result<(), String> {
    let rule = match (ours, hypers) {
        (Outcome::Whole(ours), Outcome::Whole(hypers)) => {
            same(ours, hypers)?;
            "both take it"
        }
        (Outcome::Whole(ours), Outcome::Failed { body, error }) => {
            if ours.body != *body {
                return Err(format!(
                    "ours takes {}, hyper fails: {error}",
                    shown(&ours.body)
                ));
            }
            laxer(error).ok_or_else(|| format!("ours takes what hyper does not: {error}"))?
        }
        (Outcome::Failed { error, body }, Outcome::Whole(hypers)) => {
            if !hypers.body.starts_with(body) {
                return Err(format!("ours fails behind {}", shown(body)));
            }
            stricter(bytes, error)
                .ok_or_else(|| format!("hyper takes what ours does not: {error:?}"))?
        }
        (Outcome::Failed { body: ours, .. }, Outcome::Failed { body: hypers, .. }) => {
            if !ours.starts_with(hypers) && !hypers.starts_with(ours) {
                return Err(format!(
                    "before both fail: {} and {}",
                    shown(ours),
                    shown(hypers)
                ));
            }
            "both refuse it"
        }
    };
    *met.entry(rule).or_default() += 1;
    Ok(())
}

fn same(ours: &Answer, hypers: &Answer) -> Result<(), String> {
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
    // Of its codings hyper was shown another spelling.
    let others = |answer: &Answer| {
        let fields = answer
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

/// Returns the rule by which we accept what hyper rejects after [`plain`].
fn laxer(error: &str) -> Option<&'static str> {
    const TRAILERS: [&str; 6] = [
        "trailers",
        "Invalid header",
        "header name",
        "header value",
        "Partial header",
        "new line",
    ];
    if error.contains("chunk extensions over limit") {
        return Some("laxer: long extensions of many chunks");
    }
    let is_trailer =
        error.contains("reading a body") && TRAILERS.iter().any(|text| error.contains(text));
    (is_trailer || error.contains("too many headers")).then_some("laxer: odd trailers")
}

/// Returns the rule by which we reject what hyper accepts.
fn stricter(bytes: &[u8], error: &HttpError) -> Option<&'static str> {
    Some(match protocol(error)? {
        ProtocolError::ControlByte => "stricter: a control byte where the end is told",
        ProtocolError::TransferEncoding { .. } => "stricter: other transfer codings",
        ProtocolError::UnexpectedUpgrade => "stricter: status 101",
        ProtocolError::TooManyInformational => "stricter: too many interim answers",
        ProtocolError::ChunkSize { .. } => "stricter: a line with a chunk's size",
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

/// Whether any head, an interim one too, has more than one empty line before it.
fn empty_lines(bytes: &[u8]) -> bool {
    let heads = bytes
        .split_inclusive(|&byte| byte == b'\n')
        .collect::<Vec<_>>();
    let is_empty = |line: &[u8]| line == b"\n" || line == b"\r\n";
    let starts = |at: usize| at == 0 || is_empty(heads[at - 1]);
    (0..heads.len()).any(|at| starts(at) && is_empty(heads[at]))
}

/// Normalises a response where we are more lenient than hyper.
pub fn plain(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = bytes;
    while let Some(end) = head_end(rest) {
        let (head, behind) = rest.split_at(end);
        let head = plain_head(head);
        let line = head.trim_ascii_start();
        let is_interim = line.get(9) == Some(&b'1') && !line[9..].starts_with(b"101");
        plain.extend(head);
        rest = behind;
        if !is_interim {
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

fn plain_head(head: &[u8]) -> Vec<u8> {
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

/// The line of a transfer coding without its empty members; none if nothing is left.
fn coding(line: &[u8]) -> Option<Vec<u8>> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let value = line[colon + 1..].strip_suffix(b"\n")?;
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    // A line end inside is wrong for both.
    if !line[..colon].eq_ignore_ascii_case(b"transfer-encoding") || value.contains(&b'\r') {
        return None;
    }
    let members = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let members: Vec<_> = members.filter(|member| !member.is_empty()).collect();
    let value = members.join(b", ".as_slice());
    // An empty value would be the last coding for hyper.
    Some(if value.is_empty() {
        Vec::new()
    } else {
        [b"Transfer-Encoding: ", &value[..], b"\r\n"].concat()
    })
}
