//! Bodies that were compressed for their way (RFC 9110 section 8.4), unpacked as they come.
//!
//! Unpacking is work, and its libraries wait where they stand: each coding has a thread of its
//! own, which ends with the body.

use std::future::Future;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use futures_lite::{AsyncRead, AsyncReadExt as _, Stream as _};
use smol::channel::{Receiver, Sender, bounded};

use crate::decompress::{self, CHUNK_LEN};
use crate::download::body::source::SpliceRead;

/// More codings than these on one body are nothing that an honest server sends.
const MOST: usize = 4;

/// Pieces on their way between two threads.
const AHEAD: usize = 2;

/// The field with which a request says what can be unpacked.
pub(crate) fn accept() -> (String, String) {
    ("Accept-Encoding".to_owned(), "gzip, br, zstd".to_owned())
}

/// A way of compressing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Brotli,
    Zstd,
}

/// What came is not what its coding makes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Damaged(String);

type Pieces = Receiver<io::Result<Vec<u8>>>;

/// The codings that the values of `Content-Encoding` name, in the order in which they were put
/// on; `None` where one is not known here.
pub(crate) fn codings<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Coding>> {
    let names = values.flat_map(|value| value.split(|byte| *byte == b','));
    let names = names.map(|name| name.trim_ascii().to_ascii_lowercase());
    let known = names.filter_map(|name| match &name[..] {
        b"" | b"identity" => None,
        b"gzip" | b"x-gzip" => Some(Some(Coding::Gzip)),
        b"br" => Some(Some(Coding::Brotli)),
        b"zstd" => Some(Some(Coding::Zstd)),
        _ => Some(None),
    });
    known
        .collect::<Option<Vec<_>>>()
        .filter(|codings| codings.len() <= MOST)
}

/// A body without its codings. Dropped halfway, its threads end.
pub(crate) struct Decoded<'a> {
    /// Hands the body to the first thread.
    pump: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>>,
    /// How that ended.
    pumped: io::Result<()>,
    plain: Pin<Box<Pieces>>,
    piece: Cursor<Vec<u8>>,
}

impl<'a> Decoded<'a> {
    /// Starts to unpack what `body` holds.
    ///
    /// # Errors
    ///
    /// Those of starting a thread.
    pub(crate) fn new(
        body: impl AsyncRead + Unpin + Send + 'a,
        codings: &[Coding],
    ) -> io::Result<Self> {
        let (packed, mut plain) = bounded(AHEAD);
        for coding in codings.iter().rev() {
            plain = coding.unpack(plain)?;
        }
        let (pump, plain) = (Some(Box::pin(pump(body, packed)) as _), Box::pin(plain));
        Ok(Self {
            pump,
            pumped: Ok(()),
            plain,
            piece: Cursor::default(),
        })
    }

    fn end(&mut self) -> io::Result<usize> {
        std::mem::replace(&mut self.pumped, Ok(())).map(|()| 0)
    }
}

async fn pump(
    mut body: impl AsyncRead + Unpin,
    packed: Sender<io::Result<Vec<u8>>>,
) -> io::Result<()> {
    loop {
        let mut piece = vec![0; CHUNK_LEN];
        let count = body.read(&mut piece).await?;
        piece.truncate(count);
        if piece.is_empty() {
            return Ok(());
        }
        // Who wants no more of it has found damage.
        if packed.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
    }
}

fn damaged(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Damaged(text))
}

impl SpliceRead for Decoded<'_> {}

impl AsyncRead for Decoded<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let decoded = self.get_mut();
        loop {
            let count = Read::read(&mut decoded.piece, into)?;
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if let Some(pump) = &mut decoded.pump
                && let Poll::Ready(pumped) = pump.as_mut().poll(cx)
            {
                (decoded.pumped, decoded.pump) = (pumped, None);
            }
            match ready!(decoded.plain.as_mut().poll_next(cx)) {
                Some(Ok(piece)) => decoded.piece = Cursor::new(piece),
                // That the body broke off counts more than what was missing for it.
                Some(Err(error)) => {
                    return Poll::Ready(match decoded.end() {
                        Err(broken) => Err(broken),
                        Ok(_) => Err(damaged(error.to_string())),
                    });
                }
                // The end of the body proves that it is whole.
                None if decoded.pump.is_some() => return Poll::Pending,
                None => return Poll::Ready(decoded.end()),
            }
        }
    }
}

impl Coding {
    /// Unpacks in a thread of its own.
    fn unpack(self, packed: Pieces) -> io::Result<Pieces> {
        let (send, plain) = bounded(AHEAD);
        let work = move || {
            let from = BufReader::with_capacity(CHUNK_LEN, Packed(packed, Cursor::default()));
            let mut to = DecodedSender(send.clone());
            let unpacked = match self {
                Self::Gzip => decompress::gzip(from, &mut to),
                Self::Brotli => decompress::brotli(from, &mut to),
                Self::Zstd => decompress::zstd(from, &mut to),
            };
            if let Err(error) = unpacked {
                // Where nobody reads any more, nobody asks.
                let _ = send.send_blocking(Err(error));
            }
        };
        thread::Builder::new()
            .name("unpack".to_owned())
            .spawn(work)?;
        Ok(plain)
    }
}

/// What comes from the thread before.
struct Packed(Pieces, Cursor<Vec<u8>>);

impl Read for Packed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.1.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            match self.0.recv_blocking() {
                Ok(piece) => self.1 = Cursor::new(piece?),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// What goes to the next.
struct DecodedSender(Sender<io::Result<Vec<u8>>>);

impl Write for DecodedSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.send_blocking(Ok(bytes.to_vec()));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_lite::future::block_on;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(bytes, level)
    }

    /// "hello" in brotli: one block that is not compressed, then the end.
    const BROTLI: &[u8] = b"\x0b\x02\x80hello\x03";

    fn decode(packed: &[u8], codings: &[Coding]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut decoded = Decoded::new(packed, codings).unwrap();
        let read = block_on(decoded.read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn codings_are_read_as_they_are_listed() {
        let read = |values: &[&str]| codings(values.iter().map(|value| value.as_bytes()));
        assert_eq!(read(&[]), Some(vec![]));
        assert_eq!(read(&["", "identity"]), Some(vec![]));
        assert_eq!(read(&["GZip"]), Some(vec![Coding::Gzip]));
        assert_eq!(
            read(&["x-gzip ,br", "zstd"]),
            Some(vec![Coding::Gzip, Coding::Brotli, Coding::Zstd])
        );
        assert_eq!(read(&["gzip, compress"]), None);
        assert_eq!(read(&["gzip,gzip,gzip,gzip,gzip"]), None);
    }

    #[test]
    fn each_coding_and_several_on_one_another_are_unpacked() {
        let text: Vec<u8> = (0..500_000_u32).flat_map(u32::to_le_bytes).collect();
        assert!(decode(&gzip(&text), &[Coding::Gzip]).unwrap() == text);
        assert!(decode(&zstd(&text), &[Coding::Zstd]).unwrap() == text);
        assert_eq!(decode(BROTLI, &[Coding::Brotli]).unwrap(), b"hello");
        let twice = gzip(&zstd(&text));
        assert!(decode(&twice, &[Coding::Zstd, Coding::Gzip]).unwrap() == text);
        let members = [gzip(b"a"), gzip(b""), gzip(b"b")].concat();
        assert_eq!(decode(&members, &[Coding::Gzip]).unwrap(), b"ab");
        let frames = [zstd(b"a"), zstd(b"b")].concat();
        assert_eq!(decode(&frames, &[Coding::Zstd]).unwrap(), b"ab");
    }

    #[test]
    fn what_is_damaged_cut_or_followed_by_something_is_an_error() {
        let text = b"some text that is long enough".repeat(1000);
        for (packed, coding) in [
            (gzip(&text), Coding::Gzip),
            (zstd(&text), Coding::Zstd),
            (BROTLI.to_vec(), Coding::Brotli),
        ] {
            for at in [1, packed.len() / 2, packed.len() - 1] {
                decode(&packed[..at], &[coding]).unwrap_err();
            }
            decode(b"this is plain text", &[coding]).unwrap_err();
            decode(&[&packed[..], b"garbage"].concat(), &[coding]).unwrap_err();
            let far = [&packed[..], &[b'x'; 3 * CHUNK_LEN]].concat();
            decode(&far, &[coding]).unwrap_err();
        }
        let mut flipped = gzip(&text);
        let end = flipped.len() - 6;
        flipped[end] ^= 1;
        decode(&flipped, &[Coding::Gzip]).unwrap_err();
    }
}
