//! Compressed bytes, unpacked as they come, in bounded memory.

use std::io::{self, BufRead, Read, Write};

use brotli_decompressor::Decompressor;
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// What is read or written at once.
pub const CHUNK: usize = 64 << 10;

/// Unpacks gzip (RFC 1952): all members, one after another; what is none behind them is damage.
///
/// # Errors
///
/// Those of both sides; [`io::ErrorKind::InvalidData`] for data that is damaged or ends early.
pub fn gzip(from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    copy(MultiGzDecoder::new(from), to).map_err(|error| map_decode_error("gzip", error))
}

/// Unpacks zstd (RFC 8878): all frames, as [`gzip`].
///
/// # Errors
///
/// As [`gzip`].
pub fn zstd(from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    frames(from, to).map_err(|error| map_decode_error("zstd", error))
}

/// Unpacks brotli (RFC 7932): one stream; what stands behind it is damage.
///
/// # Errors
///
/// As [`gzip`].
pub fn brotli(mut from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
    let mut stream = Decompressor::new(&mut from, CHUNK);
    copy(&mut stream, to).map_err(|error| map_decode_error("brotli", error))?;
    // It says so when it is asked once more after the end, of what it has read itself.
    if stream.read(&mut [0]).is_err() || !from.fill_buf()?.is_empty() {
        return Err(map_decode_error(
            "brotli",
            io::Error::other("more stands behind its end"),
        ));
    }
    Ok(())
}

/// What the system said stays as it is, anything else is the fault of the data.
pub fn map_decode_error(name: &str, error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() || error.kind() == io::ErrorKind::BrokenPipe {
        return error;
    }
    let text = match error.kind() {
        io::ErrorKind::UnexpectedEof => format!("{name} data ends early"),
        _ => format!("damaged {name} data: {error}"),
    };
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// All frames, one after another. The decoder knows one at a time, and leaves its checksum to us.
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
            return Err(io::Error::other("wrong checksum"));
        }
    }
    Ok(())
}

/// Reads to the end; what there is is written before more is waited for.
///
/// # Errors
///
/// Those of both sides.
pub fn copy(mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
