//! Response head parser (RFC 9112 sections 4 and 5).

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::ParserConfig;
use memchr::memchr_iter;

use super::error::ProtocolError;
use super::repair::{may_be_status_line, repair, status_line_error};

/// Maximum length of a response head, in bytes.
pub(crate) const MAX_HEAD_LEN: usize = 256 * 1024;

/// Maximum number of headers in a response head.
pub const MAX_HEADERS: usize = 1000;

/// Response head: status and headers, as raw bytes.
///
/// A response of a [`Transport`](super::Transport) has it in its extensions, because http-types
/// holds neither non-ASCII values nor unknown statuses:
///
/// ```
/// # use myapp::download::http::surf;
/// use myapp::download::http::ResponseHead;
///
/// fn location(response: &surf::Response) -> Option<&[u8]> {
///     response.ext::<ResponseHead>()?.values("location").next()
/// }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ResponseHead {
    status: u16,
    minor: u8,
    bytes: Vec<u8>,
    fields: Vec<Field>,
    is_repaired: bool,
}

/// Byte ranges of a header's name and value in the head.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl ResponseHead {
    /// Parses a head that ends with its empty line, see [`find_end`].
    ///
    /// Malformed fields are skipped, and deviations of the status line accepted, as browsers and
    /// curl do: a lower-case or later version, several blanks. A malformed `Content-Encoding`,
    /// `Content-Length`, `Content-Range`, `Location` or `Transfer-Encoding` is an error.
    ///
    /// Line folding (RFC 9112 section 5.2) and control bytes other than HTAB (RFC 9110 section
    /// 5.5) are replaced by spaces, because real servers send them. In `Content-Length` and
    /// `Transfer-Encoding` control bytes are an error: the body length would be ambiguous.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if this is not an HTTP/1.0 or HTTP/1.1 head, or exceeds a limit.
    #[doc(hidden)]
    pub fn parse(raw: &[u8]) -> Result<Self, ProtocolError> {
        if raw.len() > MAX_HEAD_LEN {
            return Err(ProtocolError::HeadTooLong);
        }
        let mut bytes = raw.to_vec();
        unfold(&mut bytes);
        replace_controls(&mut bytes)?;
        match Self::parse_strict(bytes, raw) {
            Ok(head) => Ok(head),
            Err((ProtocolError::StatusLine { .. } | ProtocolError::MalformedHeader, bytes)) => {
                let repaired = repair(&bytes, raw)?;
                let head = Self::parse_strict(repaired, raw).map_err(|(error, _)| error)?;
                Ok(Self {
                    is_repaired: true,
                    ..head
                })
            }
            Err((error, _)) => Err(error),
        }
    }

    /// Parses a head without line folding and control bytes. An error contains the head; its text
    /// is that of `raw`.
    fn parse_strict(bytes: Vec<u8>, raw: &[u8]) -> Result<Self, (ProtocolError, Vec<u8>)> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let end = ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            &bytes,
            &mut fields,
        );
        let end = match end {
            Ok(end) => end,
            Err(error) => return Err((malformed(error, raw), bytes)),
        };
        // `find_end` and the parser must agree on the end, or the body would start elsewhere.
        let whole = end == httparse::Status::Complete(bytes.len());
        let (Some(status @ 100..), Some(minor), true) = (parsed.code, parsed.version, whole) else {
            return Err((status_line_error(raw), bytes));
        };
        let within = |part: &[u8]| {
            let start = part.as_ptr() as usize - bytes.as_ptr() as usize;
            start..start + part.len()
        };
        let fields = parsed
            .headers
            .iter()
            .map(|field| Field {
                name: within(field.name.as_bytes()),
                value: within(field.value),
            })
            .collect();
        Ok(Self {
            status,
            minor,
            bytes,
            fields,
            is_repaired: false,
        })
    }

    /// Returns whether malformed parts were skipped or replaced.
    pub(super) fn is_repaired(&self) -> bool {
        self.is_repaired
    }

    /// Returns the status code, 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns whether the version is HTTP/1.0.
    pub(crate) fn is_http_10(&self) -> bool {
        self.minor == 0
    }

    /// Returns the names and raw values of all headers, in order. The values are without
    /// surrounding whitespace.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.fields.iter().map(|field| {
            // The parser accepts ASCII names only.
            let name = str::from_utf8(&self.bytes[field.name.clone()]).unwrap_or_default();
            (name, &self.bytes[field.value.clone()])
        })
    }

    /// Returns the values of all headers of that name, in order, without surrounding whitespace.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |field| {
                self.bytes[field.name.clone()].eq_ignore_ascii_case(name.as_bytes())
            })
            .map(|field| &self.bytes[field.value.clone()])
    }

    /// Returns the non-empty members of a comma-separated list (RFC 9110 section 5.6.1) over all
    /// headers of that name.
    pub(crate) fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }
}

impl fmt::Debug for ResponseHead {
    /// Omits header values: they may contain cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseHead")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Returns the end of a head: the position after its first empty line. The search starts at
/// `from`, at most the number of bytes already searched minus two.
pub fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr_iter(b'\n', &bytes[from..])
        .map(|at| from + at + 1)
        .find_map(|next| match &bytes[next..] {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        })
}

/// Checks that `bytes` can be the start of a head, so that a peer of another protocol is detected
/// without waiting for more.
///
/// # Errors
///
/// [`ProtocolError::StatusLine`] otherwise.
pub(crate) fn check_start(bytes: &[u8]) -> Result<(), ProtocolError> {
    let start = bytes
        .iter()
        .position(|byte| !b"\r\n".contains(byte))
        .unwrap_or(bytes.len());
    let start = &bytes[start..];
    if may_be_status_line(start) {
        Ok(())
    } else {
        Err(status_line_error(start))
    }
}

/// Replaces line folding by spaces.
fn unfold(head: &mut [u8]) {
    for at in 0..head.len().saturating_sub(1) {
        if head[at] == b'\n' && matches!(head[at + 1], b' ' | b'\t') {
            head[at] = b' ';
            if at > 0 && head[at - 1] == b'\r' {
                head[at - 1] = b' ';
            }
        }
    }
}

fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n')
}

fn replace_controls(head: &mut [u8]) -> Result<(), ProtocolError> {
    for line in head.split_mut(|&byte| byte == b'\n') {
        if !line.iter().copied().any(is_control) {
            continue;
        }
        if frames_body(line) {
            return Err(ProtocolError::ControlByte);
        }
        line.iter_mut()
            .filter(|byte| is_control(**byte))
            .for_each(|byte| *byte = b' ');
    }
    Ok(())
}

/// Returns whether a line is `Content-Length` or `Transfer-Encoding`, also after removing control
/// bytes and whitespace from its name.
fn frames_body(line: &[u8]) -> bool {
    let name = line.split(|&byte| byte == b':').next().unwrap_or_default();
    let name: Vec<u8> = name.iter().copied().filter(u8::is_ascii_graphic).collect();
    [b"content-length".as_slice(), b"transfer-encoding"]
        .iter()
        .any(|framing| name.eq_ignore_ascii_case(framing))
}

fn malformed(error: httparse::Error, head: &[u8]) -> ProtocolError {
    match error {
        httparse::Error::TooManyHeaders => ProtocolError::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => {
            ProtocolError::MalformedHeader
        }
        _ => status_line_error(head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::escape::Escaped;

    #[track_caller]
    fn parses(raw: &[u8]) -> ResponseHead {
        assert_eq!(find_end(raw, 0), Some(raw.len()), "{}", Escaped(raw));
        ResponseHead::parse(raw).unwrap_or_else(|error| panic!("{}: {error}", Escaped(raw)))
    }

    #[track_caller]
    fn refuses(raw: &[u8], wanted: ProtocolError) {
        assert_eq!(ResponseHead::parse(raw), Err(wanted), "{}", Escaped(raw));
    }

    fn not_http(line: &str) -> ProtocolError {
        ProtocolError::StatusLine { line: line.into() }
    }

    #[test]
    fn headers_are_case_insensitive_and_ordered() {
        let head = parses(b"HTTP/1.1 299 Fine\r\nA: 1\r\nb:\t 2 \t\r\na:3,4 , ,5\r\n\r\n");
        assert_eq!((head.status(), head.is_http_10()), (299, false));
        assert_eq!(
            head.values("a").collect::<Vec<_>>(),
            [b"1".as_slice(), b"3,4 , ,5"]
        );
        assert_eq!(head.list("A").collect::<Vec<_>>(), [b"1", b"3", b"4", b"5"]);
        assert_eq!(head.values("B").collect::<Vec<_>>(), [b"2"]);
        assert_eq!(head.values("c").count(), 0);
    }

    #[test]
    fn common_deviations_are_accepted() {
        for raw in [
            b"HTTP/1.0 200\r\n\r\n".as_slice(),
            b"HTTP/1.1 200 \r\n\r\n",
            b"HTTP/1.1 200 OK\n\n",
            b"\r\nHTTP/1.1 200 OK\r\nX: y\n\r\n",
            b"HTTP/1.1 200 \xd6K \x01\x1b\r\nX: \x00\x07y\x7f\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded\r\nX: y\r\n\r\n",
        ] {
            assert_eq!(parses(raw).status(), 200);
        }
    }

    #[test]
    fn control_bytes_in_values_become_spaces() {
        let head = parses("HTTP/1.1 200 OK\r\nLocation: /ü\0\u{1b}?\r\n\r\n".as_bytes());
        assert_eq!(head.values("location").next(), Some("/ü  ?".as_bytes()));
    }

    #[test]
    fn folded_line_is_unfolded() {
        let head = parses(b"HTTP/1.1 200 OK\r\nX: a\r\n\tb\n c\r\nContent-Length:\r\n 5\r\n\r\n");
        assert_eq!(head.values("x").next(), Some(b"a  \tb  c".as_slice()));
        assert_eq!(head.values("content-length").next(), Some(b"5".as_slice()));
    }

    #[test]
    fn control_byte_in_framing_header_is_rejected() {
        for field in [
            "Content-Length: 5\0",
            "content-length\0: 5",
            "Content\0-Length: 5",
            "\0Content-Length: 5",
            "Transfer-Encoding: \u{b}chunked",
            "Transfer-Encoding:\r\n \u{1}chunked",
        ] {
            let raw = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
            refuses(raw.as_bytes(), ProtocolError::ControlByte);
        }
    }

    #[test]
    fn malformed_head_is_rejected() {
        refuses(b"SSH-2.0-x\x1b\r\n\r\n", not_http(r"SSH-2.0-x\x1b"));
        refuses(b"ICY 200 OK\r\n\r\n", not_http("ICY 200 OK"));
        refuses(b"HTTP/4 200 OK\r\n\r\n", not_http("HTTP/4 200 OK"));
        refuses(b"HTTP/1.1200 OK\r\n\r\n", not_http("HTTP/1.1200 OK"));
        refuses(b"HTTP/1.1 99 Low\r\n\r\n", not_http("HTTP/1.1 99 Low"));
        refuses(b"HTTP/1.1 099 Low\r\n\r\n", not_http("HTTP/1.1 099 Low"));
        refuses(b"HTTP/1.1 200 OK\r\nA: b\r\n", not_http("HTTP/1.1 200 OK"));
        refuses(b"\r\n\r\n", not_http(""));
        for field in [
            "Content-Length : 5",
            "Content-Length[]: 5",
            "content-length",
            "A: b\rContent-Length: 5",
            "Content-Range : bytes 0-1/2",
            "Location: /a\rb",
            "(Location): /a",
            "Content-Encoding : gzip",
        ] {
            let raw = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
            refuses(raw.as_bytes(), ProtocolError::MalformedHeader);
        }
    }

    #[test]
    fn malformed_fields_are_skipped() {
        for field in [
            "A : b",
            "A",
            ": b",
            "A: b\rc",
            "\u{1}A: b",
            "é: b",
            "A[0]: b",
            "A b: c",
        ] {
            let raw = format!("HTTP/1.1 200 OK\r\nX: 1\r\n{field}\r\nContent-Length: 5\r\n\r\n");
            let head = parses(raw.as_bytes());
            let names: Vec<_> = head.fields().map(|(name, _)| name).collect();
            assert_eq!(names, ["X", "Content-Length"], "{field:?}");
            assert!(head.is_repaired(), "{field:?}");
        }
        assert!(!parses(b"HTTP/1.1 200 OK\r\nX: \xff\x01\r\n\r\n").is_repaired());
    }

    #[test]
    fn unusual_status_lines_are_accepted() {
        for (line, is_http_10) in [
            ("HTTP/1.1  200  OK", false),
            ("HTTP/2 200", false),
            ("HTTP/2.0 200 OK", false),
            ("HTTP/3 200 OK", false),
            ("http/1.1 200 OK", false),
            ("Http/1.0 200 OK", true),
        ] {
            let head = parses(format!("{line}\r\nX: 1\r\n\r\n").as_bytes());
            assert_eq!(
                (head.status(), head.is_http_10()),
                (200, is_http_10),
                "{line}"
            );
            assert!(head.is_repaired(), "{line}");
        }
    }

    #[test]
    fn other_protocols_are_detected_by_the_first_bytes() {
        for raw in [
            "",
            "\r\n",
            "H",
            "\nHTTP",
            "hT",
            "HTTP/2",
            "HTTP/3 2",
            "HTTP/1.",
            "HTTP/1.1 200 OK\r\nA: b",
        ] {
            assert_eq!(check_start(raw.as_bytes()), Ok(()), "{raw}");
        }
        for (raw, line) in [
            ("SSH-2.0-x\r\nmore", "SSH-2.0-x"),
            ("220 ready", "220 ready"),
            ("\x15\x03\x01", r"\x15\x03\x01"),
            ("HTTP/4", "HTTP/4"),
            ("HTTP/ 1", "HTTP/ 1"),
            ("hTT1", "hTT1"),
        ] {
            assert_eq!(check_start(raw.as_bytes()), Err(not_http(line)), "{raw}");
        }
    }

    #[test]
    fn head_limits_are_enforced() {
        let head = |fields: usize| {
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(fields)).into_bytes()
        };
        assert_eq!(parses(&head(MAX_HEADERS)).values("a").count(), MAX_HEADERS);
        refuses(&head(MAX_HEADERS + 1), ProtocolError::TooManyFields);

        let long = |length: usize| {
            let frame = b"HTTP/1.1 200 OK\r\nA: \r\n\r\n".len();
            format!(
                "HTTP/1.1 200 OK\r\nA: {}\r\n\r\n",
                "x".repeat(length - frame)
            )
            .into_bytes()
        };
        parses(&long(MAX_HEAD_LEN));
        refuses(&long(MAX_HEAD_LEN + 1), ProtocolError::HeadTooLong);
    }

    #[test]
    fn head_end_is_found_for_any_split() {
        for (raw, end) in [
            (b"a\r\n\r\nbody\r\n\r\n".as_slice(), Some(5)),
            (b"a\n\nb", Some(3)),
            (b"a\n\r\nb", Some(4)),
            (b"\n\n", Some(2)),
            (b"a\r\n b\r\n \r\n", None),
            (b"a\r\rb\r\n\rc\n", None),
        ] {
            assert_eq!(find_end(raw, 0), end, "{}", Escaped(raw));
            let mut seen = 0;
            let grown = (1..=raw.len()).find_map(|length| {
                let found = find_end(&raw[..length], seen_before(seen));
                seen = length;
                found
            });
            assert_eq!(grown, end, "{} byte by byte", Escaped(raw));
        }
    }

    fn seen_before(seen: usize) -> usize {
        seen.saturating_sub(2)
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a failure is repeated with its seed")]
    fn random_heads_do_not_panic() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let good = b"HTTP/1.1 206 OK\r\nContent-Length: 5\r\nX: y\r\n z\r\n\r\n";
        for _ in 0..20_000 {
            let mut raw = good.to_vec();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..raw.len());
                match random.u8(..3) {
                    0 => raw[at] = random.u8(..),
                    1 => raw.insert(at, *random.choice(b"\r\n \t:\0\x7f\xff").unwrap()),
                    _ => raw.truncate(at.max(1)),
                }
            }
            if let Ok(head) = ResponseHead::parse(&raw) {
                assert!(head.status() >= 100 && head.values("x").count() <= 3);
            }
        }
    }
}
