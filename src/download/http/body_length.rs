//! Message body length (RFC 9112 section 6) and connection persistence.

use tracing::debug;

use super::chunked::ChunkedDecoder;
use super::error::ProtocolError;
use super::response_head::ResponseHead;
use crate::digits::parse_digits;
use crate::escape::Escaped;

/// Remaining length of a response body.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum BodyLength {
    /// This many bytes remain.
    ContentLength(u64),
    /// Chunked transfer coding.
    Chunked(ChunkedDecoder),
    /// The body ends when the server closes the connection.
    CloseDelimited,
}

impl BodyLength {
    /// Determines the body length of a response to GET (RFC 9112 section 6.3).
    ///
    /// `Transfer-Encoding: chunked` takes precedence over `Content-Length`; `identity` and a
    /// repeated `chunked` are ignored. Other transfer codings were not requested and are not
    /// supported.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] for conflicting or invalid lengths, and for other transfer codings.
    pub(crate) fn from_head(head: &ResponseHead) -> Result<Self, ProtocolError> {
        if matches!(head.status(), 204 | 304) {
            return Ok(Self::ContentLength(0));
        }
        if is_chunked(head)? {
            return Ok(Self::Chunked(ChunkedDecoder::default()));
        }
        Ok(content_length(head)?.map_or(Self::CloseDelimited, Self::ContentLength))
    }

    /// Returns the remaining length where `Content-Length` gives it.
    pub(crate) fn content_length(&self) -> Option<u64> {
        if let Self::ContentLength(left) = self {
            Some(*left)
        } else {
            None
        }
    }

    /// Parses framing at the start of `bytes`, see [`ChunkedDecoder::advance`].
    ///
    /// # Errors
    ///
    /// The errors of [`ChunkedDecoder::advance`].
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> Result<usize, ProtocolError> {
        if let Self::Chunked(chunks) = self {
            chunks.advance(bytes)
        } else {
            Ok(0)
        }
    }

    /// Returns the maximum number of data bytes that follow.
    pub(crate) fn data_remaining(&self) -> u64 {
        match self {
            Self::ContentLength(left) => *left,
            Self::Chunked(chunks) => chunks.data_remaining(),
            Self::CloseDelimited => u64::MAX,
        }
    }

    /// Records that `count` bytes of data were read, at most
    /// [`data_remaining`](Self::data_remaining).
    pub(crate) fn consume_data(&mut self, count: u64) {
        match self {
            Self::ContentLength(left) => *left = left.saturating_sub(count),
            Self::Chunked(chunks) => chunks.consume_data(count),
            Self::CloseDelimited => {}
        }
    }

    /// Returns whether the framing was as RFC 9112 requires, so that the end of the response is
    /// certain.
    pub(crate) fn is_strict(&self) -> bool {
        match self {
            Self::Chunked(chunks) => chunks.is_strict(),
            Self::ContentLength(_) | Self::CloseDelimited => true,
        }
    }

    /// Returns whether the body has been read completely.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::ContentLength(left) => *left == 0,
            Self::Chunked(chunks) => chunks.is_complete(),
            Self::CloseDelimited => false,
        }
    }
}

/// Returns whether the connection is persistent after this response (RFC 9112 section 9.3).
///
/// Contradictory framing closes the connection (RFC 9112 section 6.1): bytes after the response
/// may belong to what its server considers the body.
pub(crate) fn is_keep_alive(head: &ResponseHead) -> bool {
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
    let is_usual = matches!(
        head.list("transfer-encoding").collect::<Vec<_>>()[..],
        [] | [_]
    );
    open && !contradicts && is_usual && !head.is_repaired()
}

/// Returns whether the transfer coding is chunked.
fn is_chunked(head: &ResponseHead) -> Result<bool, ProtocolError> {
    if head.values("transfer-encoding").next().is_none() {
        return Ok(false);
    }
    let codings: Vec<_> = head.list("transfer-encoding").collect();
    let mut others = codings
        .iter()
        .filter(|coding| !coding.eq_ignore_ascii_case(b"identity"));
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if !codings.is_empty() && others.clone().all(is_chunked) {
        if codings.len() > 1 || others.clone().next().is_none() {
            debug!("ignored a repeated or empty Transfer-Encoding");
        }
        return Ok(others.next().is_some());
    }
    let codings = codings.join(b", ".as_slice());
    Err(ProtocolError::TransferEncoding {
        value: Escaped(&codings).to_string(),
    })
}

/// Returns the length on which all `Content-Length` values agree (RFC 9110 section 8.6).
fn content_length(head: &ResponseHead) -> Result<Option<u64>, ProtocolError> {
    let mut length = None;
    for value in head
        .values("content-length")
        .flat_map(|value| value.split(|&b| b == b','))
    {
        let value = value.trim_ascii();
        let number = parse_digits(value).ok_or_else(|| ProtocolError::ContentLength {
            value: Escaped(value).to_string(),
        })?;
        if length.replace(number).is_some_and(|other| other != number) {
            return Err(ProtocolError::ContentLengths);
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &str, fields: &str) -> ResponseHead {
        let fields = fields.replace('|', "\r\n");
        ResponseHead::parse(format!("HTTP/{line}\r\n{fields}\r\n\r\n").as_bytes()).unwrap()
    }

    #[track_caller]
    fn frames(line: &str, fields: &str, framing: BodyLength) {
        assert_eq!(
            BodyLength::from_head(&head(line, fields)),
            Ok(framing),
            "{line} {fields}"
        );
    }

    fn chunked() -> BodyLength {
        BodyLength::Chunked(ChunkedDecoder::default())
    }

    #[test]
    fn transfer_encoding_overrides_content_length() {
        frames("1.1 200 OK", "X: y", BodyLength::CloseDelimited);
        frames("1.0 200 OK", "X: y", BodyLength::CloseDelimited);
        frames(
            "1.1 200 OK",
            "Content-Length: 5",
            BodyLength::ContentLength(5),
        );
        frames(
            "1.1 404 No",
            "content-length: 0",
            BodyLength::ContentLength(0),
        );
        frames(
            "1.1 200 OK",
            "Content-Length: 5, 5|Content-Length: 05",
            BodyLength::ContentLength(5),
        );
        frames(
            "1.1 200 OK",
            "Content-Length: 18446744073709551615",
            BodyLength::ContentLength(u64::MAX),
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
        frames(
            "1.1 204 None",
            "Content-Length: 5",
            BodyLength::ContentLength(0),
        );
        frames(
            "1.1 304 Same",
            "Transfer-Encoding: chunked",
            BodyLength::ContentLength(0),
        );
    }

    #[test]
    fn invalid_content_length_is_rejected() {
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
            let error =
                BodyLength::from_head(&head("1.1 200 OK", &format!("Content-Length: {value}")));
            assert!(
                matches!(error, Err(ProtocolError::ContentLength { .. })),
                "{value}: {error:?}"
            );
        }
        for fields in [
            "Content-Length: 5, 6",
            "Content-Length: 5|Content-Length: 6",
        ] {
            let error = BodyLength::from_head(&head("1.1 200 OK", fields));
            assert_eq!(error, Err(ProtocolError::ContentLengths), "{fields}");
        }
    }

    #[test]
    fn transfer_coding_other_than_chunked_is_rejected() {
        for value in [
            "",
            "gzip",
            "gzip, chunked",
            "chunked, gzip",
            "chunked, gzip, chunked",
            "identity, gzip",
            ",",
            "chunked;q=1",
        ] {
            let error =
                BodyLength::from_head(&head("1.1 200 OK", &format!("Transfer-Encoding: {value}")));
            let wanted = ProtocolError::TransferEncoding {
                value: value.trim_matches(',').into(),
            };
            assert_eq!(error, Err(wanted), "{value}");
        }
        let error = BodyLength::from_head(&head(
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
    fn identity_and_repeated_chunked_are_ignored() {
        let chunked = BodyLength::Chunked(ChunkedDecoder::default());
        for (value, length) in [
            ("chunked, chunked", chunked.clone()),
            ("chunked|Transfer-Encoding: Chunked", chunked.clone()),
            ("identity, chunked", chunked),
            ("identity", BodyLength::ContentLength(5)),
        ] {
            let fields = format!("Content-Length: 5|Transfer-Encoding: {value}");
            let head = head("1.1 200 OK", &fields);
            assert_eq!(BodyLength::from_head(&head), Ok(length), "{value}");
            assert!(!is_keep_alive(&head), "{value}");
        }
        let twice = head("1.1 200 OK", "Transfer-Encoding: chunked, chunked");
        assert!(!is_keep_alive(&twice));
    }

    #[test]
    fn connection_persistence_follows_the_response_head() {
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
            assert_eq!(is_keep_alive(&head(line, fields)), kept, "{line} {fields}");
        }
    }
}
