//! Streaming decompression in bounded memory.

use std::io::{self, BufRead, Read, Write};

use brotli_decompressor::Decompressor;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The size of a read or write.
pub const CHUNK_LEN: usize = 64 << 10;

/// Decompresses gzip (RFC 1952): all members. Trailing data is an error.
///
/// # Errors
///
/// The errors of reading and writing; [`io::ErrorKind::InvalidData`] for corrupt or truncated data.
pub fn gzip(from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    copy(MultiGzDecoder::new(from), to).map_err(|error| map_decode_error("gzip", error))
}

/// Decompresses zlib (RFC 1950) or, without its header, raw deflate (RFC 1951): one stream.
/// Trailing data is an error.
///
/// # Errors
///
/// The errors of [`gzip`].
pub fn deflate(mut from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
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
pub fn zstd(from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    frames(from, to).map_err(|error| map_decode_error("zstd", error))
}

/// Decompresses brotli (RFC 7932): one stream. Trailing data is an error.
///
/// # Errors
///
/// The errors of [`gzip`].
pub fn brotli(mut from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
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

/// Converts the error of a decoder. Errors of the kernel are kept; others mean corrupt data.
pub fn map_decode_error(name: &str, error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::BrokenPipe {
        return error;
    }
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("truncated {name} data"),
        _ => format!("corrupt {name} data: {error}"),
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Decodes all frames. The decoder handles one frame and does not verify its checksum.
fn frames(mut from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    while !from.fill_buf()?.is_empty() {
        let mut frame = FrameDecoder::new();
        match frame.init(&mut from) {
            Ok(()) => {}
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length,
                ..
            })) => {
                let skipped = io::copy(&mut from.by_ref().take(length.into()), &mut io::sink())?;
                if skipped < length.into() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        while !frame.is_finished() || frame.can_collect() > 0 {
            frame
                .decode_blocks(&mut from, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(io::Error::other)?;
            copy(&mut frame, to)?;
        }
        if let Some(checksum) = frame.get_checksum_from_data()
            && frame.get_calculated_checksum() != Some(checksum)
        {
            return Err(io::Error::other("checksum mismatch"));
        }
    }
    Ok(())
}

/// Copies to the end of input. Each read is written before the next.
///
/// # Errors
///
/// The errors of reading and writing.
pub fn copy(mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
