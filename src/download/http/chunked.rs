//! Decoder of the chunked transfer coding (RFC 9112 section 7.1).

use memchr::memchr;
use tracing::debug;

use super::error::ProtocolError;
use crate::escape::Escaped;

/// Maximum length of a chunk-size line including extensions, in bytes.
pub(crate) const MAX_CHUNK_LINE_LEN: usize = 4096;

/// Maximum total length of the trailer section, in bytes.
pub(crate) const MAX_TRAILERS_LEN: usize = 16 * 1024;

/// State machine of a chunked body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkedDecoder {
    state: ChunkedState,
    /// Whether all lines ended with CR LF.
    is_strict: bool,
    /// Whether the last size line ended with CR LF.
    has_cr: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ChunkedState {
    /// Before a chunk-size line.
    Size,
    /// In chunk data, with this many bytes remaining.
    Body(u64),
    /// Before the CR LF that terminates a chunk.
    BodyEnd,
    /// In the trailer section, after this many bytes of it.
    Trailer(usize),
    /// After the trailers.
    End,
}

impl Default for ChunkedDecoder {
    fn default() -> Self {
        Self {
            state: ChunkedState::Size,
            is_strict: true,
            has_cr: true,
        }
    }
}

impl ChunkedDecoder {
    /// Parses the framing at the start of `bytes` and returns its length.
    ///
    /// After it, either chunk data follows, or the body is [complete](Self::is_complete), or the
    /// rest of `bytes` is an incomplete line, to be passed again with more bytes appended. The
    /// rest is never longer than 16 KiB.
    ///
    /// Sizes must be hexadecimal digits. Whitespace after the size, and lines that end with LF
    /// alone, are accepted because real servers send them; after the latter the body is not
    /// [strict](Self::is_strict). The line end after chunk data must be that of its size line.
    /// Trailer fields are ignored (RFC 9110 section 6.5.1).
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] for invalid chunked coding and for lines that exceed a limit.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, ProtocolError> {
        let mut used = 0;
        while let Some(count) = self.step(&bytes[used..])? {
            used += count;
        }
        Ok(used)
    }

    /// Returns the number of data bytes remaining in the current chunk.
    pub fn data_remaining(&self) -> u64 {
        if let ChunkedState::Body(left) = self.state {
            left
        } else {
            0
        }
    }

    /// Records that `count` bytes of data were read, at most
    /// [`data_remaining`](Self::data_remaining).
    pub fn consume_data(&mut self, count: u64) {
        self.state = match self.data_remaining().saturating_sub(count) {
            0 => ChunkedState::BodyEnd,
            left => ChunkedState::Body(left),
        };
    }

    /// Returns whether all lines ended with CR LF. Otherwise the server and a proxy may disagree
    /// about the end of the body, and the connection must not be reused.
    pub fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Returns whether the body and its trailers have been read completely.
    pub fn is_complete(&self) -> bool {
        self.state == ChunkedState::End
    }

    /// Parses one line. Returns `None` if data follows, the body is complete, or the line is
    /// incomplete.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        match self.state {
            ChunkedState::Body(_) | ChunkedState::End => Ok(None),
            ChunkedState::Size => self.read_size(bytes),
            ChunkedState::BodyEnd => self.read_end(bytes),
            ChunkedState::Trailer(before) => self.read_trailer(bytes, before),
        }
    }

    fn read_size(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some((line, length)) = line(bytes, MAX_CHUNK_LINE_LEN, ProtocolError::chunk_size)?
        else {
            return Ok(None);
        };
        self.has_cr = length == line.len() + 2;
        self.record_line_end(self.has_cr);
        self.state = match parse_size(line).ok_or_else(|| ProtocolError::chunk_size(line))? {
            0 => ChunkedState::Trailer(0),
            size => ChunkedState::Body(size),
        };
        Ok(Some(length))
    }

    /// Records whether a line ended with CR LF.
    fn record_line_end(&mut self, has_cr: bool) {
        if self.is_strict && !has_cr {
            debug!("accepted chunk lines that end with LF alone");
        }
        self.is_strict &= has_cr;
    }

    fn read_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        match bytes {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => {
                self.state = ChunkedState::Size;
                Ok(Some(2))
            }
            // After a size line with CR, this is the rest of a chunk that is one byte too short.
            [b'\n', ..] if !self.has_cr => {
                self.state = ChunkedState::Size;
                Ok(Some(1))
            }
            _ => Err(ProtocolError::MissingChunkTerminator),
        }
    }

    fn read_trailer(
        &mut self,
        bytes: &[u8],
        before: usize,
    ) -> Result<Option<usize>, ProtocolError> {
        let Some((line, length)) = line(bytes, MAX_TRAILERS_LEN - before, |_| {
            ProtocolError::Trailers
        })?
        else {
            return Ok(None);
        };
        self.record_line_end(length == line.len() + 2);
        if line.contains(&b'\r') {
            return Err(ProtocolError::Trailers);
        }
        self.state = if line.is_empty() {
            ChunkedState::End
        } else {
            ChunkedState::Trailer(before + length)
        };
        Ok(Some(length))
    }
}

/// Returns the first line without its CR LF or LF, and its length with it, or `None` if it is
/// incomplete. Fails if it does not end within `limit` bytes.
fn line(
    bytes: &[u8],
    limit: usize,
    error: impl FnOnce(&[u8]) -> ProtocolError,
) -> Result<Option<(&[u8], usize)>, ProtocolError> {
    let seen = &bytes[..bytes.len().min(limit)];
    match memchr(b'\n', seen) {
        Some(at) => {
            let line = &seen[..at];
            Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), at + 1)))
        }
        None if seen.len() < limit => Ok(None),
        None => Err(error(seen)),
    }
}

fn parse_size(line: &[u8]) -> Option<u64> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (size, extension) = line.split_at(digits);
    let extension = extension.trim_ascii_start();
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if !(extension.is_empty() || extension.starts_with(b";")) || line.iter().any(control) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()
}

impl ProtocolError {
    fn chunk_size(line: &[u8]) -> Self {
        Self::ChunkSize {
            line: Escaped(&line[..line.len().min(40)]).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decoded data, and the number of bytes after the end of the body (`None`: incomplete).
    type Read = (Vec<u8>, Result<Option<usize>, ProtocolError>);

    /// Decodes a body received in these pieces, buffered as a connection does.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let mut chunks = ChunkedDecoder::default();
        let mut buffer = Vec::new();
        let mut data = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match chunks.advance(&buffer) {
                    Ok(used) => buffer.drain(..used),
                    Err(error) => return (data, Err(error)),
                };
                let count = buffer
                    .len()
                    .min(chunks.data_remaining().min(1 << 20) as usize);
                if count == 0 {
                    break;
                }
                data.extend(buffer.drain(..count));
                chunks.consume_data(count as u64);
            }
        }
        (data, Ok(chunks.is_complete().then_some(buffer.len())))
    }

    fn size(line: &str) -> ProtocolError {
        ProtocolError::ChunkSize { line: line.into() }
    }

    #[track_caller]
    fn reads(bytes: &[u8], data: &str, end: Result<Option<usize>, ProtocolError>) {
        let wanted = (data.as_bytes().to_vec(), end);
        assert_eq!(read([bytes]), wanted, "{}", Escaped(bytes));
        assert_eq!(
            read(bytes.chunks(1)),
            wanted,
            "{} byte by byte",
            Escaped(bytes)
        );
    }

    #[test]
    fn data_is_decoded_and_framing_is_skipped() {
        reads(b"0\r\n\r\n", "", Ok(Some(0)));
        reads(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", Ok(Some(0)));
        reads(
            b"003;a=b;c=\"d\"\r\nabc\r\n0;x\r\nT: u\r\nV: w\r\n\r\n",
            "abc",
            Ok(Some(0)),
        );
        reads(b"3  \r\nabc\r\n0 ;x\r\n\r\n", "abc", Ok(Some(0)));
        reads(
            b"A\r\n0123456789\r\n0\r\n\r\nHTTP/1.1",
            "0123456789",
            Ok(Some(8)),
        );
    }

    #[test]
    fn truncated_body_is_not_complete() {
        for bytes in [
            b"3\r\nab".as_slice(),
            b"2\r\nab\r\n0\r\n\r",
            b"2\r\nab",
            b"2\r\nab\r",
            b"2\r\nab\r\n",
            b"2\r\nab\r\n0",
            b"2\r\nab\r\n0\r\n",
            b"2\r\nab\r\n0\r\nT: u\r\n",
        ] {
            assert_eq!(read([bytes]).1, Ok(None), "{}", Escaped(bytes));
        }
    }

    #[test]
    fn invalid_chunk_size_is_rejected() {
        for line in [
            "zz", "", " 3", "-3", "+3", "0x3", "3 3", "3g", "3\r", "3;\u{7f}", "ü",
        ] {
            let bytes = format!("{line}\r\nabc\r\n0\r\n\r\n");
            let shown = Escaped(line.as_bytes()).to_string();
            reads(bytes.as_bytes(), "", Err(size(&shown)));
        }
        reads(b"ffffffffffffffff\r\nab", "ab", Ok(None));
        reads(
            b"400000000000000000\r\nab",
            "",
            Err(size("400000000000000000")),
        );
        reads(
            b"2\r\nabc\r\n0\r\n\r\n",
            "ab",
            Err(ProtocolError::MissingChunkTerminator),
        );
        reads(
            b"2\r\nab\n0\r\n\r\n",
            "ab",
            Err(ProtocolError::MissingChunkTerminator),
        );
        reads(
            b"2\r\nab\r\r0\r\n\r\n",
            "ab",
            Err(ProtocolError::MissingChunkTerminator),
        );
    }

    #[test]
    fn lines_without_carriage_return_are_accepted_once() {
        for bytes in [
            b"3\nabc\n0\n\n".as_slice(),
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabc\r\n0\n\r\n",
            b"3\r\nabc\r\n0\r\n\n",
            b"3\r\nabc\r\n0\r\nT: u\n\r\n",
        ] {
            reads(bytes, "abc", Ok(Some(0)));
            let mut chunks = ChunkedDecoder::default();
            let mut rest = bytes;
            while !chunks.is_complete() {
                let used = chunks.advance(rest).unwrap();
                let data = chunks.data_remaining();
                if data > 0 {
                    chunks.consume_data(data);
                }
                rest = &rest[used + data as usize..];
            }
            assert!(!chunks.is_strict(), "{}", Escaped(bytes));
        }
    }

    #[test]
    fn long_lines_are_rejected() {
        let line = |length: usize| format!("1;{}\r\nx", "e".repeat(length - 4));
        reads(line(MAX_CHUNK_LINE_LEN).as_bytes(), "x", Ok(None));
        let shown = format!("1;{}", "e".repeat(38));
        reads(
            line(MAX_CHUNK_LINE_LEN + 1).as_bytes(),
            "",
            Err(size(&shown)),
        );
        reads(&[b'0'; MAX_CHUNK_LINE_LEN], "", Err(size(&"0".repeat(40))));

        let trailers = |count: usize| format!("0\r\n{}\r\n", "T: 34\r\n".repeat(count));
        reads(trailers(MAX_TRAILERS_LEN / 7).as_bytes(), "", Ok(Some(0)));
        reads(
            trailers(MAX_TRAILERS_LEN / 7 + 1).as_bytes(),
            "",
            Err(ProtocolError::Trailers),
        );
        for trailer in ["T: u\r\r\n", "\r\r\n", "T: \ru\r\n"] {
            let bytes = format!("0\r\n{trailer}\r\n");
            reads(bytes.as_bytes(), "", Err(ProtocolError::Trailers));
        }
    }

    #[test]
    #[allow(clippy::print_stdout, reason = "a failure is repeated with its seed")]
    fn any_split_reads_the_same_and_no_bytes_make_it_panic() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..2_000 {
            let bytes = body(&mut random);
            let whole = read([bytes.as_slice()]);
            assert_eq!(
                read(split(&bytes, &mut random)),
                whole,
                "{}",
                Escaped(&bytes)
            );
        }
    }

    /// Returns a random chunked body, usually with an error in it.
    fn body(random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..random.usize(..5) {
            let data: Vec<u8> = (0..random.usize(1..300)).map(|_| random.u8(..)).collect();
            bytes.extend(format!("{:x};e\r\n", data.len()).into_bytes());
            bytes.extend(data);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\nT: u\r\n\r\nmore");
        for _ in 0..random.usize(..3) {
            let at = random.usize(..bytes.len());
            bytes[at] = *random.choice(b"\r\n0f;z \0").unwrap();
        }
        bytes
    }

    fn split<'a>(mut bytes: &'a [u8], random: &mut fastrand::Rng) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(random.usize(1..=bytes.len().min(50)));
            pieces.push(piece);
            bytes = rest;
        }
        pieces
    }
}
