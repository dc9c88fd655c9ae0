//! Decompression in a build without the feature `decompress`: each format is an error.

use std::io::{self, BufRead, Write};

/// The size of a read or write.
pub const CHUNK_LEN: usize = 64 << 10;

fn unsupported(name: &str) -> io::Result<()> {
    let text = format!("{name} is not compiled in: feature `decompress`");
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

pub(crate) fn gzip(_: impl BufRead, _: &mut impl Write) -> io::Result<()> {
    unsupported("gzip")
}

pub(crate) fn deflate(_: impl BufRead, _: &mut impl Write) -> io::Result<()> {
    unsupported("deflate")
}

pub(crate) fn zstd(_: impl BufRead, _: &mut impl Write) -> io::Result<()> {
    unsupported("zstd")
}

pub(crate) fn brotli(_: impl BufRead, _: &mut impl Write) -> io::Result<()> {
    unsupported("brotli")
}
