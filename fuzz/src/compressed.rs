//! Compressed bodies, complete and damaged. The decoded bytes or the error do not depend on how a
//! body is split into pieces, and an undamaged body is decoded exactly.

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;

use fastrand::Rng;
use flate2::Compression;
use flate2::write::GzEncoder;
use myapp::download::{Config, Item, Limits, OutputPolicy, RetryPolicy, Target};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::files::{Sink, run};
use crate::grammar::{cuts, pieces};
use crate::server::{Reply, Server};

/// Damaged data may declare a large length.
const MAX_DECODED_LEN: u64 = 4 << 20;

/// Runs one case, which depends only on the seed.
///
/// # Errors
///
/// A description of the failed check.
pub fn check(server: &Server, random: &mut Rng) -> Result<(), String> {
    let coding = ["gzip", "br", "zstd"][random.usize(..3)];
    let plain = text(random);
    let mut encoded = encode(coding, &plain, random);
    let is_damaged = random.bool();
    if is_damaged {
        damage(&mut encoded, random);
    }
    let whole = decoded(server, coding, vec![encoded.clone()]);
    let describe = || {
        format!(
            "{coding}, {} bytes: {}",
            plain.len(),
            encoded.escape_ascii()
        )
    };
    if !is_damaged && whole.as_ref() != Ok(&plain) {
        return Err(format!("decoded to {whole:?}\n{}", describe()));
    }
    let cuts = cuts(&encoded, random);
    let in_pieces = decoded(server, coding, pieces(&encoded, &cuts));
    if in_pieces != whole {
        let [pieces, whole] = [in_pieces, whole].map(|decoded| decoded.map(|it| it.len()));
        return Err(format!(
            "split at {cuts:?}: {pieces:?}, whole: {whole:?}\n{}",
            describe()
        ));
    }
    Ok(())
}

/// Returns data that compresses well, badly, or not at all.
fn text(random: &mut Rng) -> Vec<u8> {
    let letters = [1, 2, 20, 256][random.usize(..4)];
    let length = [0, 10, 2000, 200_000][random.usize(..4)];
    let length = random.usize(..=length);
    (0..length).map(|_| random.u32(..letters) as u8).collect()
}

fn encode(coding: &str, plain: &[u8], random: &mut Rng) -> Vec<u8> {
    // Only gzip and zstd allow several concatenated streams.
    if coding == "br" || random.bool() {
        return encode_one(coding, plain);
    }
    let (first, second) = plain.split_at(random.usize(..=plain.len()));
    [first, second]
        .map(|part| encode_one(coding, part))
        .concat()
}

fn encode_one(coding: &str, plain: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder
                .write_all(plain)
                .and_then(|()| encoder.finish())
                .expect("memory has room")
        }
        "br" => {
            let mut encoded = Vec::new();
            let params = brotli::enc::BrotliEncoderParams {
                quality: 3,
                ..Default::default()
            };
            brotli::BrotliCompress(&mut &plain[..], &mut encoded, &params)
                .expect("memory has room");
            encoded
        }
        _ => compress_to_vec(plain, CompressionLevel::Fastest),
    }
}

fn damage(encoded: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=encoded.len());
        match random.u8(..4) {
            0 => encoded.truncate(at),
            1 => encoded.insert(at, random.u8(..)),
            2 => encoded.extend_from_within(at..),
            _ => encoded
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << random.u8(..8)),
        }
    }
}

/// Returns the decoded bytes of a compressed body that is sent in these pieces.
fn decoded(server: &Server, coding: &str, pieces: Vec<Vec<u8>>) -> Result<Vec<u8>, String> {
    let length: usize = pieces.iter().map(Vec::len).sum();
    let head = format!("Content-Encoding: {coding}\r\nContent-Length: {length}\r\n");
    let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes();
    let pieces: Vec<_> = [head].into_iter().chain(pieces).collect();
    server.set_handler(move |_| Reply {
        pieces: pieces.clone(),
        ..Reply::default()
    });
    let config = Config {
        output: OutputPolicy {
            dir: Path::new("").to_owned(),
            ..OutputPolicy::default()
        },
        limits: Limits {
            connections_per_file: NonZeroUsize::MIN,
            max_size: Some(MAX_DECODED_LEN),
            ..Limits::default()
        },
        retry: RetryPolicy {
            max_retries: 0,
            ..RetryPolicy::default()
        },
        compressed: true,
        ..Config::default()
    };
    let sink = Sink::default();
    let item = Item::parse(&server.url("f")).expect("a URL");
    let report = run(
        config,
        Item {
            target: Target::Writer(Box::new(sink.clone())),
            ..item
        },
    );
    match report.failures.first() {
        Some(failure) => Err(failure.cause()),
        None => Ok(std::mem::take(&mut sink.0.lock().expect("no panic"))),
    }
}
