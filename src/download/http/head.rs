//! The head of an answer (RFC 9112 sections 4 and 5): pure, over bytes.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

use httparse::ParserConfig;
use memchr::memchr_iter;

use super::error::ProtocolError;
use crate::escape::Escaped;

/// The longest head that is read, in bytes.
pub const MAX_HEAD: usize = 256 * 1024;

/// The most fields that a head may have.
pub const MAX_FIELDS: usize = 1000;

/// The head of an answer: a status and fields, as raw bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Head {
    status: u16,
    minor: u8,
    bytes: Vec<u8>,
    fields: Vec<Field>,
}

/// Where the name and the value of a field stand in the bytes of the head.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    name: Range<usize>,
    value: Range<usize>,
}

impl Head {
    /// Reads a head: everything up to and with the empty line, as [`find_end`] tells.
    ///
    /// A folded line (RFC 9112 section 5.2) counts as spaces. So does each control byte but
    /// HTAB (RFC 9110 section 5.5), except in the fields that tell where the body ends: servers
    /// do send such bytes in values, but a doubtful length is none.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] for what is no head of HTTP/1.0 or HTTP/1.1, or too large a one.
    pub fn parse(raw: &[u8]) -> Result<Self, ProtocolError> {
        if raw.len() > MAX_HEAD {
            return Err(ProtocolError::HeadTooLong);
        }
        let mut bytes = raw.to_vec();
        unfold(&mut bytes);
        replace_controls(&mut bytes)?;

        let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let end = ParserConfig::default()
            .parse_response_with_uninit_headers(&mut parsed, &bytes, &mut fields)
            .map_err(|error| malformed(error, raw))?;
        // Whoever found the end must agree with the parser on it, or the body begins elsewhere.
        let whole = end == httparse::Status::Complete(bytes.len());
        let (Some(status @ 100..), Some(minor), true) = (parsed.code, parsed.version, whole) else {
            return Err(status_line(raw));
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
        })
    }

    /// The status code, 100 to 999.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether this is an answer of HTTP/1.0.
    pub fn is_http_10(&self) -> bool {
        self.minor == 0
    }

    /// The values of all fields of that name, in their order, without the blanks around them.
    pub fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.fields
            .iter()
            .filter(move |field| {
                self.bytes[field.name.clone()].eq_ignore_ascii_case(name.as_bytes())
            })
            .map(|field| &self.bytes[field.value.clone()])
    }

    /// The members of a comma-separated list (RFC 9110 section 5.6.1) over all fields of that
    /// name; empty members are left out.
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }
}

impl fmt::Debug for Head {
    /// Tells no values: cookies are among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// Finds where a head ends: behind its first empty line. Looks from `from` on, which may be two
/// less than the number of bytes that were looked at before.
pub fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr_iter(b'\n', &bytes[from..])
        .map(|at| from + at + 1)
        .find_map(|next| match &bytes[next..] {
            [b'\n', ..] => Some(next + 1),
            [b'\r', b'\n', ..] => Some(next + 2),
            _ => None,
        })
}

/// Checks that bytes may be how a head begins: of what is none, no more may ever come.
///
/// # Errors
///
/// [`ProtocolError::StatusLine`] where they are none.
pub fn check_start(bytes: &[u8]) -> Result<(), ProtocolError> {
    let start = bytes
        .iter()
        .position(|byte| !b"\r\n".contains(byte))
        .unwrap_or(bytes.len());
    let start = &bytes[start..];
    let known = start
        .iter()
        .zip(b"HTTP/1.")
        .all(|(byte, wanted)| byte == wanted);
    if known {
        Ok(())
    } else {
        Err(status_line(start))
    }
}

/// Puts spaces for the end of each line that goes on in the next.
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

/// Whether a line is one of the fields that tell where the body ends, or would be one without
/// its control bytes and blanks.
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
        httparse::Error::HeaderName | httparse::Error::HeaderValue => ProtocolError::Field,
        _ => status_line(head),
    }
}

fn status_line(head: &[u8]) -> ProtocolError {
    let line = head
        .split(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default()
        .trim_ascii_end();
    ProtocolError::StatusLine {
        line: Escaped(line).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parses(raw: &[u8]) -> Head {
        assert_eq!(find_end(raw, 0), Some(raw.len()), "{}", Escaped(raw));
        Head::parse(raw).unwrap_or_else(|error| panic!("{}: {error}", Escaped(raw)))
    }

    #[track_caller]
    fn refuses(raw: &[u8], wanted: ProtocolError) {
        assert_eq!(Head::parse(raw), Err(wanted), "{}", Escaped(raw));
    }

    fn not_http(line: &str) -> ProtocolError {
        ProtocolError::StatusLine { line: line.into() }
    }

    #[test]
    fn fields_are_found_in_any_case_and_in_their_order() {
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
    fn what_servers_really_send_is_read() {
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
    fn bytes_of_values_survive_and_control_bytes_become_spaces() {
        let head = parses("HTTP/1.1 200 OK\r\nLocation: /ü\0\u{1b}?\r\n\r\n".as_bytes());
        assert_eq!(head.values("location").next(), Some("/ü  ?".as_bytes()));
    }

    #[test]
    fn a_folded_line_goes_on() {
        let head = parses(b"HTTP/1.1 200 OK\r\nX: a\r\n\tb\n c\r\nContent-Length:\r\n 5\r\n\r\n");
        assert_eq!(head.values("x").next(), Some(b"a  \tb  c".as_slice()));
        assert_eq!(head.values("content-length").next(), Some(b"5".as_slice()));
    }

    #[test]
    fn a_control_byte_where_the_end_of_the_body_is_told_is_refused() {
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
    fn what_is_no_head_is_refused() {
        refuses(b"SSH-2.0-x\x1b\r\n\r\n", not_http(r"SSH-2.0-x\x1b"));
        refuses(b"ICY 200 OK\r\n\r\n", not_http("ICY 200 OK"));
        refuses(b"HTTP/2.0 200 OK\r\n\r\n", not_http("HTTP/2.0 200 OK"));
        refuses(b"HTTP/1.1 99 Low\r\n\r\n", not_http("HTTP/1.1 99 Low"));
        refuses(b"HTTP/1.1 099 Low\r\n\r\n", not_http("HTTP/1.1 099 Low"));
        refuses(b"HTTP/1.1 200 OK\r\nA: b\r\n", not_http("HTTP/1.1 200 OK"));
        refuses(b"\r\n\r\n", not_http(""));
        for field in [
            "A : b",
            "A",
            ": b",
            "A: b\rc",
            "\u{1}A: b",
            "Content-Length : 5",
            "é: b",
        ] {
            let raw = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
            refuses(raw.as_bytes(), ProtocolError::Field);
        }
    }

    #[test]
    fn what_speaks_another_protocol_is_known_by_its_first_bytes() {
        for raw in [
            "",
            "\r\n",
            "H",
            "\nHTTP",
            "HTTP/1.",
            "HTTP/1.1 200 OK\r\nA: b",
        ] {
            assert_eq!(check_start(raw.as_bytes()), Ok(()), "{raw}");
        }
        for (raw, line) in [
            ("SSH-2.0-x\r\nmore", "SSH-2.0-x"),
            ("220 ready", "220 ready"),
            ("\x15\x03\x01", r"\x15\x03\x01"),
            ("HTTP/2", "HTTP/2"),
            ("hT", "hT"),
        ] {
            assert_eq!(check_start(raw.as_bytes()), Err(not_http(line)), "{raw}");
        }
    }

    #[test]
    fn a_head_is_read_up_to_its_limits() {
        let head = |fields: usize| {
            format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(fields)).into_bytes()
        };
        assert_eq!(parses(&head(MAX_FIELDS)).values("a").count(), MAX_FIELDS);
        refuses(&head(MAX_FIELDS + 1), ProtocolError::TooManyFields);

        let long = |length: usize| {
            let frame = b"HTTP/1.1 200 OK\r\nA: \r\n\r\n".len();
            format!(
                "HTTP/1.1 200 OK\r\nA: {}\r\n\r\n",
                "x".repeat(length - frame)
            )
            .into_bytes()
        };
        parses(&long(MAX_HEAD));
        refuses(&long(MAX_HEAD + 1), ProtocolError::HeadTooLong);
    }

    #[test]
    fn the_end_of_a_head_is_found_however_the_bytes_are_split() {
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
    fn no_bytes_make_it_panic() {
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
            if let Ok(head) = Head::parse(&raw) {
                assert!(head.status() >= 100 && head.values("x").count() <= 3);
            }
        }
    }
}
