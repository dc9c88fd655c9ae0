//! Request body in wire format.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, future};
use http_client::Body;

use super::request::RequestLength;

/// Maximum number of body bytes per read and per chunk.
const MAX_CHUNK_LEN: usize = 32 * 1024;

/// Space for the size line of a chunk (RFC 9112 section 7.1).
const SIZE_LINE_LEN: usize = "8000\r\n".len();

/// Body that is read piece by piece and encoded with its framing.
pub(super) struct RequestBody {
    body: Body,
    framing: Framing,
    is_started: bool,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Known { sent: u64, length: u64 },
    Chunked,
    End,
}

impl RequestBody {
    pub(super) fn new(body: Body, length: RequestLength) -> Self {
        let framing = match length {
            RequestLength::NoBody | RequestLength::Known(0) => Framing::End,
            RequestLength::Known(length) => Framing::Known { sent: 0, length },
            RequestLength::Chunked => Framing::Chunked,
        };
        Self {
            body,
            framing,
            is_started: false,
            buffer: Vec::new(),
            start: 0,
            end: 0,
        }
    }

    /// Returns whether bytes of the body were read, so that it cannot be sent again.
    pub(super) fn is_started(&self) -> bool {
        self.is_started
    }

    /// Returns encoded bytes that were not sent yet.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Encodes the next piece, once the previous one was sent. Returns `false` at the end.
    ///
    /// # Errors
    ///
    /// The error of the reader, or `UnexpectedEof` if it has fewer bytes than announced.
    pub(super) fn poll_encode(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let max_len = match self.framing {
            Framing::End => return Poll::Ready(Ok(false)),
            Framing::Chunked => MAX_CHUNK_LEN,
            Framing::Known { sent, length } => {
                usize::try_from(length - sent).map_or(MAX_CHUNK_LEN, |left| left.min(MAX_CHUNK_LEN))
            }
        };
        self.buffer.resize(SIZE_LINE_LEN + MAX_CHUNK_LEN + 2, 0);
        self.is_started = true;
        let space = &mut self.buffer[SIZE_LINE_LEN..][..max_len];
        let count = ready!(Pin::new(&mut self.body).poll_read(cx, space))?;
        self.start = SIZE_LINE_LEN;
        self.end = SIZE_LINE_LEN + count;
        match &mut self.framing {
            Framing::Known { sent, length } => {
                if count == 0 {
                    let text = format!("request body ended after {sent} of {length} bytes");
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
                *sent += count as u64;
                if sent == length {
                    self.framing = Framing::End;
                }
            }
            _ => self.encode_chunk(count),
        }
        Poll::Ready(Ok(true))
    }

    /// Encodes the complete body.
    pub(super) async fn encode_to(&mut self, wire: &mut Vec<u8>) -> io::Result<()> {
        while future::poll_fn(|cx| self.poll_encode(cx)).await? {
            wire.extend_from_slice(self.buffered());
            self.consume(self.buffered().len());
        }
        Ok(())
    }

    /// Adds the chunk framing to `count` bytes at their place in the buffer.
    fn encode_chunk(&mut self, count: usize) {
        if count == 0 {
            self.framing = Framing::End;
        }
        let size = format!("{count:x}\r\n");
        self.start = SIZE_LINE_LEN - size.len();
        self.buffer[self.start..SIZE_LINE_LEN].copy_from_slice(size.as_bytes());
        // After the last chunk this is the end of the empty trailer section.
        self.buffer[self.end..self.end + 2].copy_from_slice(b"\r\n");
        self.end += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_fn};
    use futures_lite::io::{BufReader, Cursor};

    use crate::download::http::chunked::ChunkedDecoder;

    fn encode(body: Body, length: RequestLength) -> io::Result<Vec<u8>> {
        let mut body = RequestBody::new(body, length);
        assert!(!body.is_started());
        let mut wire = Vec::new();
        while block_on(poll_fn(|cx| body.poll_encode(cx)))? {
            assert!(body.is_started());
            // Taken in two steps, as by a socket with little space.
            let half = body.buffered().len() / 2;
            wire.extend_from_slice(&body.buffered()[..half]);
            body.consume(half);
            wire.extend_from_slice(body.buffered());
            body.consume(body.buffered().len());
        }
        Ok(wire)
    }

    fn unsized_body(bytes: &[u8]) -> Body {
        Body::from_reader(Cursor::new(bytes.to_vec()), None)
    }

    #[test]
    fn known_length_is_sent_without_framing() {
        let bytes = vec![7; 100_000];
        let wire = encode(bytes.clone().into(), RequestLength::Known(100_000)).unwrap();
        assert!(wire == bytes);
        assert_eq!(encode("".into(), RequestLength::Known(0)).unwrap(), b"");
        assert_eq!(encode("".into(), RequestLength::NoBody).unwrap(), b"");
    }

    #[test]
    fn chunks_are_encoded_byte_for_byte() {
        let wire = encode(unsized_body(b"hello, chunked"), RequestLength::Chunked).unwrap();
        assert_eq!(wire, b"e\r\nhello, chunked\r\n0\r\n\r\n");
        let wire = encode(unsized_body(b""), RequestLength::Chunked).unwrap();
        assert_eq!(wire, b"0\r\n\r\n");
    }

    #[test]
    fn chunks_decode_to_the_body() {
        let mut random = fastrand::Rng::with_seed(2);
        for _ in 0..50 {
            let body: Vec<u8> = (0..random.usize(..200_000))
                .map(|_| random.u8(..))
                .collect();
            let reader =
                BufReader::with_capacity(random.usize(1..70_000), Cursor::new(body.clone()));
            let wire = encode(Body::from_reader(reader, None), RequestLength::Chunked).unwrap();
            assert!(decode(&wire) == body);
        }
    }

    fn decode(mut wire: &[u8]) -> Vec<u8> {
        let mut decoder = ChunkedDecoder::default();
        let mut body = Vec::new();
        loop {
            wire = &wire[decoder.advance(wire).unwrap()..];
            if decoder.is_complete() {
                assert!(wire.is_empty());
                return body;
            }
            let (data, rest) = wire.split_at(decoder.data_remaining() as usize);
            body.extend_from_slice(data);
            decoder.consume_data(data.len() as u64);
            wire = rest;
        }
    }

    #[test]
    fn short_body_is_an_error() {
        let body = Body::from_reader(Cursor::new(b"hell".to_vec()), Some(5));
        let error = encode(body, RequestLength::Known(5)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(error.to_string(), "request body ended after 4 of 5 bytes");
    }
}
