//! The chunked transfer coding (RFC 9112 section 7.1): pure, over bytes.

use memchr::memchr;

use super::error::ProtocolError;
use crate::escape::Escaped;

/// The longest line with a chunk's size, extensions included, in bytes.
pub const MAX_LINE: usize = 4096;

/// The most bytes of trailer fields.
pub const MAX_TRAILERS: usize = 16 * 1024;

/// Where in a chunked body a reader is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunks {
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Before the line with a chunk's size.
    Size,
    /// In a chunk, this many bytes before its end.
    Data(u64),
    /// Before the line end behind a chunk.
    End,
    /// In the trailers, after this many bytes of them.
    Trailers(usize),
    /// Behind it all.
    Whole,
}

impl Default for Chunks {
    fn default() -> Self {
        Self { place: Place::Size }
    }
}

impl Chunks {
    /// Reads what is not data at the beginning of `bytes`, and tells how many bytes that is.
    ///
    /// Then either data comes next, or the body is [whole](Self::is_whole), or what is left of
    /// `bytes` is too little: the next call wants it again, with more behind it. That is never
    /// more than [`MAX_TRAILERS`].
    ///
    /// Lines end with CR LF only, and a size is hexadecimal digits: who is lenient here can be
    /// told other borders than the next reader. Blanks behind the size are allowed, for servers
    /// do send them. Trailer fields are passed over (RFC 9110 section 6.5.1).
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] for what is no chunked coding, or has too long lines.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, ProtocolError> {
        let mut used = 0;
        while let Some(count) = self.step(&bytes[used..])? {
            used += count;
        }
        Ok(used)
    }

    /// How many bytes of data come next.
    pub fn data(&self) -> u64 {
        if let Place::Data(left) = self.place {
            left
        } else {
            0
        }
    }

    /// Tells that `count` bytes of data were read: no more than [`data`](Self::data) tells.
    pub fn took(&mut self, count: u64) {
        self.place = match self.data().saturating_sub(count) {
            0 => Place::End,
            left => Place::Data(left),
        };
    }

    /// Whether the body and its trailers have been read to their end.
    pub fn is_whole(&self) -> bool {
        self.place == Place::Whole
    }

    /// Reads one line: `None` where data comes next, the body is whole, or the line is not.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        match self.place {
            Place::Data(_) | Place::Whole => Ok(None),
            Place::Size => self.read_size(bytes),
            Place::End => self.read_end(bytes),
            Place::Trailers(before) => self.read_trailer(bytes, before),
        }
    }

    fn read_size(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = line(bytes, MAX_LINE, ProtocolError::chunk_size)? else {
            return Ok(None);
        };
        self.place = match parse_size(line).ok_or_else(|| ProtocolError::chunk_size(line))? {
            0 => Place::Trailers(0),
            size => Place::Data(size),
        };
        Ok(Some(line.len() + 2))
    }

    fn read_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, ProtocolError> {
        match bytes {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => {
                self.place = Place::Size;
                Ok(Some(2))
            }
            _ => Err(ProtocolError::ChunkEnd),
        }
    }

    fn read_trailer(
        &mut self,
        bytes: &[u8],
        before: usize,
    ) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = line(bytes, MAX_TRAILERS - before, |_| ProtocolError::Trailers)? else {
            return Ok(None);
        };
        if line.contains(&b'\r') {
            return Err(ProtocolError::Trailers);
        }
        let length = line.len() + 2;
        self.place = if line.is_empty() {
            Place::Whole
        } else {
            Place::Trailers(before + length)
        };
        Ok(Some(length))
    }
}

/// The first line without its end; `None` while it has none, and an error when it has none
/// within `limit` bytes, or not CR LF.
fn line(
    bytes: &[u8],
    limit: usize,
    error: impl FnOnce(&[u8]) -> ProtocolError,
) -> Result<Option<&[u8]>, ProtocolError> {
    let seen = &bytes[..bytes.len().min(limit)];
    match memchr(b'\n', seen) {
        Some(at) => seen[..at]
            .strip_suffix(b"\r")
            .map(Some)
            .ok_or_else(|| error(&seen[..at])),
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

    /// What came of a body: its data, then whether and how it ended, with what was left over.
    type Read = (Vec<u8>, Result<Option<usize>, ProtocolError>);

    /// Reads a body that comes in these pieces, as a connection's buffer would hold them.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let (mut chunks, mut buffer, mut data) = (Chunks::default(), Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match chunks.advance(&buffer) {
                    Ok(used) => buffer.drain(..used),
                    Err(error) => return (data, Err(error)),
                };
                let count = buffer.len().min(chunks.data().min(1 << 20) as usize);
                if count == 0 {
                    break;
                }
                data.extend(buffer.drain(..count));
                chunks.took(count as u64);
            }
        }
        (data, Ok(chunks.is_whole().then_some(buffer.len())))
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
    fn data_is_read_and_the_rest_passed_over() {
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
    fn a_body_without_its_end_is_not_whole() {
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
    fn what_is_no_size_is_refused() {
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
        reads(b"3\nabc\n0\n\n", "", Err(size("3")));
        reads(b"2\r\nabc\r\n0\r\n\r\n", "ab", Err(ProtocolError::ChunkEnd));
        reads(b"2\r\nab\n0\r\n\r\n", "ab", Err(ProtocolError::ChunkEnd));
        reads(b"2\r\nab\r\r0\r\n\r\n", "ab", Err(ProtocolError::ChunkEnd));
    }

    #[test]
    fn lines_have_a_limit() {
        let line = |length: usize| format!("1;{}\r\nx", "e".repeat(length - 4));
        reads(line(MAX_LINE).as_bytes(), "x", Ok(None));
        let shown = format!("1;{}", "e".repeat(38));
        reads(line(MAX_LINE + 1).as_bytes(), "", Err(size(&shown)));
        reads(&[b'0'; MAX_LINE], "", Err(size(&"0".repeat(40))));

        let trailers = |count: usize| format!("0\r\n{}\r\n", "T: 34\r\n".repeat(count));
        reads(trailers(MAX_TRAILERS / 7).as_bytes(), "", Ok(Some(0)));
        reads(
            trailers(MAX_TRAILERS / 7 + 1).as_bytes(),
            "",
            Err(ProtocolError::Trailers),
        );
        for trailer in ["T: u\n", "T: u\r\r\n", "\r\r\n", "T: \ru\r\n"] {
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

    /// A body of some chunks; mostly with a mistake in it.
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
