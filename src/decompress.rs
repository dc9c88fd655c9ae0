//! Streaming decompression in bounded memory.

use std::error::Error;
use std::fmt;
use std::io::{self, BufRead, Read, Write};

use brotli_decompressor::Decompressor;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, DEFAULT_MAX_WINDOW_SIZE, FrameDecoder};

/// The size of a read or write.
pub(crate) const CHUNK_LEN: usize = 64 << 10;

/// Decompresses gzip (RFC 1952): all members. Trailing data is an error.
///
/// # Errors
///
/// The errors of reading and writing; [`io::ErrorKind::InvalidData`] for corrupt or truncated data.
pub(crate) fn gzip(from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    copy(MultiGzDecoder::new(from), to).map_err(|error| map_decode_error("gzip", error))
}

/// Decompresses zlib (RFC 1950) or, without its header, raw deflate (RFC 1951): one stream.
/// Trailing data is an error.
///
/// # Errors
///
/// The errors of [`gzip`].
pub(crate) fn deflate(mut from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let mut start = Vec::with_capacity(2);
    from.by_ref().take(2).read_to_end(&mut start)?;
    // The method is 8, and the two bytes are a multiple of 31.
    let is_zlib = matches!(start[..], [first, second]
        if first & 0x0f == 8 && u16::from_be_bytes([first, second]) % 31 == 0);
    let mut from = start.as_slice().chain(from);
    let decoded = if is_zlib {
        copy(ZlibDecoder::new(&mut from), to)
    } else {
        copy(DeflateDecoder::new(&mut from), to)
    };
    decoded.map_err(|error| map_decode_error("deflate", error))?;
    if from.fill_buf()?.is_empty() {
        Ok(())
    } else {
        Err(map_decode_error(
            "deflate",
            io::Error::other("trailing data"),
        ))
    }
}

/// Decompresses zstd (RFC 8878): all frames.
///
/// # Errors
///
/// The errors of [`gzip`].
pub(crate) fn zstd(mut from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let mut decode_frames = || {
        while !from.fill_buf()?.is_empty() {
            copy(ZstdFrame::new(&mut from, DEFAULT_MAX_WINDOW_SIZE), to)?;
        }
        Ok(())
    };
    decode_frames().map_err(|error| map_decode_error("zstd", error))
}

/// Decompresses brotli (RFC 7932): one stream. Trailing data is an error.
///
/// # Errors
///
/// The errors of [`gzip`].
pub(crate) fn brotli(mut from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let mut stream = Decompressor::new(&mut from, CHUNK_LEN);
    copy(&mut stream, to).map_err(|error| map_decode_error("brotli", error))?;
    // A read after the end reports trailing data that the decoder has buffered.
    if stream.read(&mut [0]).is_err() || !from.fill_buf()?.is_empty() {
        return Err(map_decode_error(
            "brotli",
            io::Error::other("trailing data"),
        ));
    }
    Ok(())
}

/// Converts the error of a decoder. Errors of the kernel are kept. Others mean corrupt data, or a limit
/// or feature of this decoder ([`io::ErrorKind::OutOfMemory`], [`io::ErrorKind::Unsupported`]).
pub(crate) fn map_decode_error(name: &str, error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::BrokenPipe {
        return error;
    }
    let (kind, text) = match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            let kind = io::ErrorKind::InvalidData;
            (kind, format!("truncated {name} data"))
        }
        kind @ io::ErrorKind::OutOfMemory => (kind, format!("{name} data needs {error}")),
        kind @ io::ErrorKind::Unsupported => (kind, format!("unsupported {name} data: {error}")),
        _ => {
            let kind = io::ErrorKind::InvalidData;
            (kind, format!("corrupt {name} data: {error}"))
        }
    };
    io::Error::new(kind, text)
}

/// Reader of one zstd frame, or of a skippable frame, which gives no bytes. The checksum is verified.
pub(crate) struct ZstdFrame<R> {
    from: R,
    decoder: FrameDecoder,
    is_started: bool,
}

impl<R: Read> ZstdFrame<R> {
    /// Reads a frame with a window of at most `max_window` bytes.
    pub(crate) fn new(from: R, max_window: u64) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(max_window);
        Self {
            from,
            decoder,
            is_started: false,
        }
    }

    /// Returns the reader, after the end of the frame at the byte that follows it.
    pub(crate) fn into_inner(self) -> R {
        self.from
    }

    fn start(&mut self) -> io::Result<()> {
        match self.decoder.init(&mut self.from) {
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let length = length.into();
                let skipped = io::copy(&mut self.from.by_ref().take(length), &mut io::sink())?;
                if skipped < length {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(())
            }
            result => result.map_err(map_zstd_error),
        }
    }

    fn verify_checksum(&self) -> io::Result<()> {
        match self.decoder.get_checksum_from_data() {
            Some(checksum) if self.decoder.get_calculated_checksum() != Some(checksum) => {
                Err(io::Error::other("checksum mismatch"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for ZstdFrame<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.is_started, true) {
            self.start()?;
        }
        loop {
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            if self.decoder.is_finished() {
                self.verify_checksum()?;
                return Ok(0);
            }
            self.decoder
                .decode_blocks(&mut self.from, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(map_zstd_error)?;
        }
    }
}

/// Size of memory, rounded down to KiB.
pub(crate) struct BinarySize(pub u64);

impl fmt::Display for BinarySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        if bytes.is_multiple_of(1 << 20) {
            write!(f, "{} MiB", bytes >> 20)
        } else {
            write!(f, "{} KiB", bytes >> 10)
        }
    }
}

/// Converts an error of the zstd decoder, some of whose texts are for debugging only.
fn map_zstd_error(error: FrameDecoderError) -> io::Error {
    match error {
        FrameDecoderError::WindowSizeTooBig { requested, max } => {
            let requested = BinarySize(requested);
            let max = BinarySize(max);
            let text = format!("a window of {requested}, more than the limit of {max}");
            return io::Error::new(io::ErrorKind::OutOfMemory, text);
        }
        FrameDecoderError::DictNotProvided { dict_id } => {
            let text = format!("compressed with the dictionary {dict_id}");
            return io::Error::new(io::ErrorKind::Unsupported, text);
        }
        _ => {}
    }
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            let code = error.raw_os_error();
            return code.map_or(error.kind().into(), io::Error::from_raw_os_error);
        }
        cause = error.source();
    }
    io::Error::other("a frame cannot be decoded")
}

/// Copies to the end of input. Each read is written before the next.
///
/// # Errors
///
/// The errors of reading and writing.
pub(crate) fn copy(mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
