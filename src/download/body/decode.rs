//! Streaming decoder of content codings (RFC 9110 section 8.4).
//!
//! The decoder libraries are synchronous and use much CPU time, so each coding runs on its own
//! thread, which ends with the body.

use std::future::Future;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::thread;

use futures_lite::{AsyncRead, AsyncReadExt as _, Stream as _};
use smol::channel::{Receiver, Sender, bounded};

use crate::decompress::{self, CHUNK_LEN};
use crate::download::body::source::DirectRead;

/// Maximum number of codings of one body. No known server applies more than one; each further one
/// multiplies the work that a short body can cause.
const MAX_CODINGS: usize = 2;

/// Maximum number of bytes between two codings, per byte of the encoded and of the decoded body.
/// The bytes between them are a compressed form of the decoded body.
const MAX_INTERMEDIATE_RATIO: u64 = 16;

/// Number of bytes between two codings that is always permitted, because decoders hold bytes back.
const MIN_INTERMEDIATE_LEN: u64 = 1024 * 1024;

/// Capacity of the channel between two threads, in chunks.
const CHANNEL_CAPACITY: usize = 2;

/// Returns the `Accept-Encoding` field with the supported codings.
pub(crate) fn accept_encoding() -> (String, String) {
    (
        "Accept-Encoding".to_owned(),
        "gzip, deflate, br, zstd".to_owned(),
    )
}

/// Content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    /// zlib, or raw deflate as some servers send it.
    Deflate,
    Brotli,
    Zstd,
}

/// The body is not valid in its coding.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CorruptEncoding(String);

/// Numbers of bytes before, between and after the decoders of a body.
#[derive(Debug, Default)]
struct Volumes {
    encoded: AtomicU64,
    intermediate: AtomicU64,
    decoded: AtomicU64,
}

/// Position of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    /// Another decoder reads its output.
    Intermediate,
    Last,
}

impl Volumes {
    /// Adds output of a decoder.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] if there are too many bytes between two codings.
    fn add(&self, layer: Layer, len: usize) -> io::Result<()> {
        let total = match layer {
            Layer::Intermediate => &self.intermediate,
            Layer::Last => &self.decoded,
        };
        total.fetch_add(len as u64, Ordering::Relaxed);
        if self.is_exceeded() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    fn is_exceeded(&self) -> bool {
        let outer = self.encoded.load(Ordering::Relaxed) + self.decoded.load(Ordering::Relaxed);
        let limit = MIN_INTERMEDIATE_LEN + MAX_INTERMEDIATE_RATIO * outer;
        self.intermediate.load(Ordering::Relaxed) > limit
    }
}

type Chunks = Receiver<io::Result<Vec<u8>>>;

/// Returns the codings of the `Content-Encoding` values, in the order in which they were applied.
/// Returns `None` if one is not supported, or if there are too many.
pub(crate) fn codings<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<Coding>> {
    let names = values.flat_map(|value| value.split(|byte| *byte == b','));
    let names = names.map(|name| name.trim_ascii().to_ascii_lowercase());
    let codings = names.filter_map(|name| match &name[..] {
        name if is_no_coding(name) => None,
        b"gzip" | b"x-gzip" => Some(Some(Coding::Gzip)),
        b"deflate" => Some(Some(Coding::Deflate)),
        b"br" => Some(Some(Coding::Brotli)),
        b"zstd" => Some(Some(Coding::Zstd)),
        _ => Some(None),
    });
    codings
        .collect::<Option<Vec<_>>>()
        .filter(|codings| codings.len() <= MAX_CODINGS)
}

/// Returns whether a name in `Content-Encoding`, in lower case, changes no byte: servers send the
/// framing of an upload to S3, a charset, or a word for nothing.
pub(crate) fn is_no_coding(name: &[u8]) -> bool {
    matches!(
        name,
        b"" | b"identity" | b"none" | b"aws-chunked" | b"utf-8" | b"utf8"
    )
}

/// Returns whether a name ends like that of a file in this coding, such as `.tar.gz`: it is then
/// the file that is encoded, not its transfer.
pub(crate) fn is_name_of_encoded_file(name: &str, codings: &[Coding]) -> bool {
    let suffixes: &[&str] = match codings {
        [Coding::Gzip] => &[".gz", ".tgz", ".taz", ".svgz"],
        [Coding::Brotli] => &[".br"],
        [Coding::Zstd] => &[".zst", ".tzst"],
        _ => &[],
    };
    let name = name.to_ascii_lowercase();
    suffixes.iter().any(|suffix| name.ends_with(suffix))
}

/// Reader of a decoded body. If it is dropped before the end, its threads end.
pub(crate) struct DecodedBody<'a> {
    /// Sends the encoded body to the first thread.
    feed: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>>,
    /// Result of `feed`.
    fed: io::Result<()>,
    decoded: Pin<Box<Chunks>>,
    volumes: Arc<Volumes>,
    chunk: Cursor<Vec<u8>>,
}

impl<'a> DecodedBody<'a> {
    /// Starts to decode `body`.
    ///
    /// # Errors
    ///
    /// The error of starting a thread.
    pub(crate) fn new(
        body: impl AsyncRead + Unpin + Send + 'a,
        codings: &[Coding],
    ) -> io::Result<Self> {
        let (sender, mut chunks) = bounded(CHANNEL_CAPACITY);
        let volumes = Arc::new(Volumes::default());
        for (index, coding) in codings.iter().enumerate().rev() {
            let layer = if index == 0 {
                Layer::Last
            } else {
                Layer::Intermediate
            };
            chunks = coding.spawn_decoder(chunks, layer, Arc::clone(&volumes))?;
        }
        Ok(Self {
            feed: Some(Box::pin(feed(body, sender, Arc::clone(&volumes)))),
            fed: Ok(()),
            decoded: Box::pin(chunks),
            volumes,
            chunk: Cursor::default(),
        })
    }

    /// Returns the end of the body, or the error of reading the encoded body.
    fn end(&mut self) -> io::Result<usize> {
        std::mem::replace(&mut self.fed, Ok(())).map(|()| 0)
    }

    /// Returns the error of a decoder.
    fn decode_error(&self, error: &io::Error) -> io::Error {
        if self.volumes.is_exceeded() {
            return corrupt("codings expand to too many bytes between them".to_owned());
        }
        corrupt(error.to_string())
    }
}

/// Sends a body in chunks.
async fn feed(
    mut body: impl AsyncRead + Unpin,
    sender: Sender<io::Result<Vec<u8>>>,
    volumes: Arc<Volumes>,
) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK_LEN];
        let count = body.read(&mut chunk).await?;
        chunk.truncate(count);
        if chunk.is_empty() {
            return Ok(());
        }
        volumes.encoded.fetch_add(count as u64, Ordering::Relaxed);
        // The decoder ends early only if it has failed.
        if sender.send(Ok(chunk)).await.is_err() {
            return Ok(());
        }
    }
}

fn corrupt(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, CorruptEncoding(text))
}

impl DirectRead for DecodedBody<'_> {}

impl AsyncRead for DecodedBody<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let body = self.get_mut();
        loop {
            let count = Read::read(&mut body.chunk, into)?;
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if let Some(feed) = &mut body.feed
                && let Poll::Ready(fed) = feed.as_mut().poll(cx)
            {
                body.fed = fed;
                body.feed = None;
            }
            match ready!(body.decoded.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) => body.chunk = Cursor::new(chunk),
                // An error of the connection is the cause of the decoder's error.
                Some(Err(error)) => {
                    return Poll::Ready(match body.end() {
                        Err(cause) => Err(cause),
                        Ok(_) => Err(body.decode_error(&error)),
                    });
                }
                // The body is complete only if the encoded body was received to its end.
                None if body.feed.is_some() => return Poll::Pending,
                None => return Poll::Ready(body.end()),
            }
        }
    }
}

impl Coding {
    /// Spawns a thread that decodes chunks.
    fn spawn_decoder(
        self,
        encoded: Chunks,
        layer: Layer,
        volumes: Arc<Volumes>,
    ) -> io::Result<Chunks> {
        let (sender, decoded) = bounded(CHANNEL_CAPACITY);
        let work = move || {
            let chunks = ChunkReader(encoded, Cursor::default());
            let from = BufReader::with_capacity(CHUNK_LEN, chunks);
            let mut to = ChunkWriter {
                sender: sender.clone(),
                layer,
                volumes,
            };
            let result = match self {
                Self::Gzip => decompress::gzip(from, &mut to),
                Self::Deflate => decompress::deflate(from, &mut to),
                Self::Brotli => decompress::brotli(from, &mut to),
                Self::Zstd => decompress::zstd(from, &mut to),
            };
            if let Err(error) = result {
                // The receiver may have been dropped.
                let _ = sender.send_blocking(Err(error));
            }
        };
        thread::Builder::new()
            .name("decode".to_owned())
            .spawn(work)?;
        Ok(decoded)
    }
}

/// Reader of the chunks of the previous thread.
struct ChunkReader(Chunks, Cursor<Vec<u8>>);

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.1.read(into)?;
            if count > 0 || into.is_empty() {
                return Ok(count);
            }
            match self.0.recv_blocking() {
                Ok(chunk) => self.1 = Cursor::new(chunk?),
                Err(_) => return Ok(0),
            }
        }
    }
}

/// Writer of chunks to the next thread.
struct ChunkWriter {
    sender: Sender<io::Result<Vec<u8>>>,
    layer: Layer,
    volumes: Arc<Volumes>,
}

impl Write for ChunkWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.volumes.add(self.layer, bytes.len())?;
        let sent = self.sender.send_blocking(Ok(bytes.to_vec()));
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

    /// "hello" in brotli: one uncompressed block and the end marker.
    const BROTLI: &[u8] = b"\x0b\x02\x80hello\x03";

    fn decode(encoded: &[u8], codings: &[Coding]) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut body = DecodedBody::new(encoded, codings).unwrap();
        let read = block_on(body.read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn codings_are_listed_in_order() {
        let read = |values: &[&str]| codings(values.iter().map(|value| value.as_bytes()));
        assert_eq!(read(&[]), Some(vec![]));
        assert_eq!(read(&["", "identity"]), Some(vec![]));
        assert_eq!(read(&["GZip"]), Some(vec![Coding::Gzip]));
        assert_eq!(
            read(&["deflate, aws-chunked", "none"]),
            Some(vec![Coding::Deflate])
        );
        assert_eq!(
            read(&["x-gzip ,br", "identity"]),
            Some(vec![Coding::Gzip, Coding::Brotli])
        );
        assert_eq!(read(&["gzip, compress"]), None);
        assert_eq!(read(&["gzip, br", "zstd"]), None);
    }

    #[test]
    fn nested_codings_are_decoded() {
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
    fn bytes_between_codings_are_bounded() {
        // Empty gzip members, which compress well and decode to nothing.
        let member = gzip(b"");
        let stacked = |len: usize| gzip(&member.repeat(len / member.len()));
        let within = MIN_INTERMEDIATE_LEN as usize;
        let twice = [Coding::Gzip, Coding::Gzip];
        assert_eq!(decode(&stacked(within), &twice).unwrap(), b"");
        let error = decode(&stacked(3 * within), &twice).unwrap_err();
        assert_eq!(error, "codings expand to too many bytes between them");
        // Bytes that contribute to the decoded body are not restricted.
        let text = vec![7; 8 * within];
        assert!(decode(&gzip(&gzip(&text)), &twice).unwrap() == text);
    }

    #[test]
    fn corrupt_truncated_or_trailing_bytes_are_errors() {
        let text = b"some text that is long enough".repeat(1000);
        for (encoded, coding) in [
            (gzip(&text), Coding::Gzip),
            (zstd(&text), Coding::Zstd),
            (BROTLI.to_vec(), Coding::Brotli),
        ] {
            for at in [1, encoded.len() / 2, encoded.len() - 1] {
                decode(&encoded[..at], &[coding]).unwrap_err();
            }
            decode(b"this is plain text", &[coding]).unwrap_err();
            decode(&[&encoded[..], b"garbage"].concat(), &[coding]).unwrap_err();
            let far = [&encoded[..], &[b'x'; 3 * CHUNK_LEN]].concat();
            decode(&far, &[coding]).unwrap_err();
        }
        let mut flipped = gzip(&text);
        let end = flipped.len() - 6;
        flipped[end] ^= 1;
        decode(&flipped, &[Coding::Gzip]).unwrap_err();
    }
}
