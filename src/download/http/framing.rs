//! Where the body of an answer ends (RFC 9112 section 6): pure, over bytes.

use super::chunks::Chunks;
use super::error::ProtocolError;
use super::head::Head;
use crate::escape::Escaped;

/// How much of a body is still to come, and how one knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Framing {
    /// This many bytes.
    Length(u64),
    /// Chunks, up to the last one.
    Chunked(Chunks),
    /// Everything until the server closes the connection.
    UntilClose,
}

impl Framing {
    /// Reads how the body of the answer to a GET is framed (RFC 9112 section 6.3).
    ///
    /// Chunked beats `Content-Length`. A transfer coding other than `chunked` alone was not asked
    /// for and cannot be decoded.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] for lengths that differ or are no numbers, and for other codings.
    pub fn of(head: &Head) -> Result<Self, ProtocolError> {
        if matches!(head.status(), 204 | 304) {
            return Ok(Self::Length(0));
        }
        if head.values("transfer-encoding").next().is_some() {
            return is_chunked(head).map(|()| Self::Chunked(Chunks::default()));
        }
        Ok(content_length(head)?.map_or(Self::UntilClose, Self::Length))
    }

    /// The bytes of data that are still to come, where that is known.
    pub fn length(&self) -> Option<u64> {
        if let Self::Length(left) = self {
            Some(*left)
        } else {
            None
        }
    }

    /// Reads what is not data at the beginning of `bytes`, as [`Chunks::advance`].
    ///
    /// # Errors
    ///
    /// Those of [`Chunks::advance`].
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, ProtocolError> {
        if let Self::Chunked(chunks) = self {
            chunks.advance(bytes)
        } else {
            Ok(0)
        }
    }

    /// How many bytes of data come next, at most.
    pub fn data(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunks) => chunks.data(),
            Self::UntilClose => u64::MAX,
        }
    }

    /// Tells that `count` bytes of data were read: no more than [`data`](Self::data) tells.
    pub fn took(&mut self, count: u64) {
        match self {
            Self::Length(left) => *left = left.saturating_sub(count),
            Self::Chunked(chunks) => chunks.took(count),
            Self::UntilClose => {}
        }
    }

    /// Whether the body has been read to its end.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_whole(),
            Self::UntilClose => false,
        }
    }
}

/// Whether the connection may serve another request once this answer has been read to its end
/// (RFC 9112 section 9.3).
///
/// An answer whose framing contradicts itself ends the connection (RFC 9112 section 6.1): what
/// stands behind it may be the rest of what its server took for the body.
pub fn keeps_connection(head: &Head) -> bool {
    let says = |token: &str| {
        head.list("connection")
            .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    };
    let coded = head.values("transfer-encoding").next().is_some();
    let sized = head.values("content-length").next().is_some();
    let contradicts = match head.status() {
        204 => coded || sized,
        304 => coded,
        _ => coded && (sized || head.is_http_10()),
    };
    let open = if head.is_http_10() {
        says("keep-alive")
    } else {
        !says("close")
    };
    open && !contradicts
}

fn is_chunked(head: &Head) -> Result<(), ProtocolError> {
    let codings: Vec<_> = head.list("transfer-encoding").collect();
    if matches!(codings[..], [only] if only.eq_ignore_ascii_case(b"chunked")) {
        return Ok(());
    }
    let codings = codings.join(b", ".as_slice());
    Err(ProtocolError::TransferEncoding {
        value: Escaped(&codings).to_string(),
    })
}

/// The one length that all fields and their members name (RFC 9110 section 8.6).
fn content_length(head: &Head) -> Result<Option<u64>, ProtocolError> {
    let mut length = None;
    for value in head
        .values("content-length")
        .flat_map(|value| value.split(|&b| b == b','))
    {
        let value = value.trim_ascii();
        let number = parse_number(value).ok_or_else(|| ProtocolError::ContentLength {
            value: Escaped(value).to_string(),
        })?;
        if length.replace(number).is_some_and(|other| other != number) {
            return Err(ProtocolError::ContentLengths);
        }
    }
    Ok(length)
}

fn parse_number(text: &[u8]) -> Option<u64> {
    // `parse` would also take a sign.
    let digits = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| digits)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &str, fields: &str) -> Head {
        let fields = fields.replace('|', "\r\n");
        Head::parse(format!("HTTP/{line}\r\n{fields}\r\n\r\n").as_bytes()).unwrap()
    }

    #[track_caller]
    fn frames(line: &str, fields: &str, framing: Framing) {
        assert_eq!(
            Framing::of(&head(line, fields)),
            Ok(framing),
            "{line} {fields}"
        );
    }

    fn chunked() -> Framing {
        Framing::Chunked(Chunks::default())
    }

    #[test]
    fn the_framing_is_that_of_the_strongest_field() {
        frames("1.1 200 OK", "X: y", Framing::UntilClose);
        frames("1.0 200 OK", "X: y", Framing::UntilClose);
        frames("1.1 200 OK", "Content-Length: 5", Framing::Length(5));
        frames("1.1 404 No", "content-length: 0", Framing::Length(0));
        frames(
            "1.1 200 OK",
            "Content-Length: 5, 5|Content-Length: 05",
            Framing::Length(5),
        );
        frames(
            "1.1 200 OK",
            "Content-Length: 18446744073709551615",
            Framing::Length(u64::MAX),
        );
        frames("1.1 200 OK", "Transfer-Encoding: Chunked", chunked());
        frames("1.1 200 OK", "Transfer-Encoding: , chunked ,", chunked());
        frames(
            "1.1 200 OK",
            "Content-Length: 5|Transfer-Encoding: chunked",
            chunked(),
        );
        frames(
            "1.1 200 OK",
            "Transfer-Encoding: chunked|Content-Length: x",
            chunked(),
        );
        frames("1.0 200 OK", "Transfer-Encoding: chunked", chunked());
        frames("1.1 204 None", "Content-Length: 5", Framing::Length(0));
        frames(
            "1.1 304 Same",
            "Transfer-Encoding: chunked",
            Framing::Length(0),
        );
    }

    #[test]
    fn a_length_that_is_none_is_refused() {
        for value in [
            "",
            "x",
            "-1",
            "+5",
            "5 5",
            "0x5",
            "5.0",
            "18446744073709551616",
            "5,",
            "5,x",
        ] {
            let error = Framing::of(&head("1.1 200 OK", &format!("Content-Length: {value}")));
            assert!(
                matches!(error, Err(ProtocolError::ContentLength { .. })),
                "{value}: {error:?}"
            );
        }
        for fields in [
            "Content-Length: 5, 6",
            "Content-Length: 5|Content-Length: 6",
        ] {
            let error = Framing::of(&head("1.1 200 OK", fields));
            assert_eq!(error, Err(ProtocolError::ContentLengths), "{fields}");
        }
    }

    #[test]
    fn a_coding_other_than_chunked_alone_is_refused() {
        for value in [
            "",
            "gzip",
            "gzip, chunked",
            "chunked, gzip",
            "chunked, chunked",
            "chunked;q=1",
        ] {
            let error = Framing::of(&head("1.1 200 OK", &format!("Transfer-Encoding: {value}")));
            let wanted = ProtocolError::TransferEncoding {
                value: value.into(),
            };
            assert_eq!(error, Err(wanted), "{value}");
        }
        let error = Framing::of(&head(
            "1.1 200 OK",
            "Transfer-Encoding: a|Transfer-Encoding: b",
        ));
        assert_eq!(
            error,
            Err(ProtocolError::TransferEncoding {
                value: "a, b".into()
            })
        );
    }

    #[test]
    fn a_connection_is_kept_only_where_both_sides_know_that_it_is() {
        for (line, fields, kept) in [
            ("1.1 200 OK", "Content-Length: 5", true),
            ("1.1 200 OK", "Connection: Close", false),
            ("1.1 200 OK", "Connection: x|Connection: y, close", false),
            ("1.1 200 OK", "Connection: closed", true),
            ("1.0 200 OK", "Content-Length: 5", false),
            ("1.0 200 OK", "Connection: Keep-Alive", true),
            (
                "1.0 200 OK",
                "Connection: keep-alive|Transfer-Encoding: chunked",
                false,
            ),
            ("1.1 200 OK", "Transfer-Encoding: chunked", true),
            (
                "1.1 200 OK",
                "Transfer-Encoding: chunked|Content-Length: 5",
                false,
            ),
            ("1.1 204 None", "X: y", true),
            ("1.1 204 None", "Content-Length: 5", false),
            ("1.1 304 Same", "Content-Length: 5", true),
            ("1.1 304 Same", "Transfer-Encoding: chunked", false),
        ] {
            assert_eq!(
                keeps_connection(&head(line, fields)),
                kept,
                "{line} {fields}"
            );
        }
    }
}
