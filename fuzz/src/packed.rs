//! Compressed bodies, whole and damaged. However such a body is cut into pieces, what is unpacked
//! is the same, or so is the error; and what is not damaged is unpacked to the last byte.

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
use crate::server::{Server, Turn};

/// Damaged data may say that it is long.
const LONGEST: u64 = 4 << 20;

/// One case; the same seed gives the same.
///
/// # Errors
///
/// What is wrong.
pub fn check(server: &Server, random: &mut Rng) -> Result<(), String> {
    let coding = ["gzip", "br", "zstd"][random.usize(..3)];
    let plain = text(random);
    let mut packed = pack(coding, &plain, random);
    let is_damaged = random.bool();
    if is_damaged {
        damage(&mut packed, random);
    }
    let whole = unpacked(server, coding, vec![packed.clone()]);
    let told = || format!("{coding}, {} bytes: {}", plain.len(), packed.escape_ascii());
    if !is_damaged && whole.as_ref() != Ok(&plain) {
        return Err(format!("not what was packed, but {whole:?}\n{}", told()));
    }
    let cuts = cuts(&packed, random);
    let in_pieces = unpacked(server, coding, pieces(&packed, &cuts));
    if in_pieces != whole {
        let [pieces, whole] = [in_pieces, whole].map(|unpacked| unpacked.map(|it| it.len()));
        return Err(format!(
            "cut at {cuts:?}: {pieces:?}, whole: {whole:?}\n{}",
            told()
        ));
    }
    Ok(())
}

/// What compresses well, badly, or not at all.
fn text(random: &mut Rng) -> Vec<u8> {
    let letters = [1, 2, 20, 256][random.usize(..4)];
    let length = [0, 10, 2000, 200_000][random.usize(..4)];
    let length = random.usize(..=length);
    (0..length).map(|_| random.u32(..letters) as u8).collect()
}

fn pack(coding: &str, plain: &[u8], random: &mut Rng) -> Vec<u8> {
    // One stream of brotli is all; of the others several may follow one another.
    if coding == "br" || random.bool() {
        return pack_one(coding, plain);
    }
    let (first, second) = plain.split_at(random.usize(..=plain.len()));
    [first, second].map(|part| pack_one(coding, part)).concat()
}

fn pack_one(coding: &str, plain: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder
                .write_all(plain)
                .and_then(|()| encoder.finish())
                .expect("memory has room")
        }
        "br" => {
            let mut packed = Vec::new();
            let params = brotli::enc::BrotliEncoderParams {
                quality: 3,
                ..Default::default()
            };
            brotli::BrotliCompress(&mut &plain[..], &mut packed, &params).expect("memory has room");
            packed
        }
        _ => compress_to_vec(plain, CompressionLevel::Fastest),
    }
}

fn damage(packed: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=packed.len());
        match random.u8(..4) {
            0 => packed.truncate(at),
            1 => packed.insert(at, random.u8(..)),
            2 => packed.extend_from_within(at..),
            _ => packed
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << random.u8(..8)),
        }
    }
}

/// What comes of a compressed body in these pieces.
fn unpacked(server: &Server, coding: &str, pieces: Vec<Vec<u8>>) -> Result<Vec<u8>, String> {
    let length: usize = pieces.iter().map(Vec::len).sum();
    let head = format!("Content-Encoding: {coding}\r\nContent-Length: {length}\r\n");
    let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes();
    let pieces: Vec<_> = [head].into_iter().chain(pieces).collect();
    server.answer(move |_| Turn {
        pieces: pieces.clone(),
        ..Turn::default()
    });
    let config = Config {
        output: OutputPolicy {
            dir: Path::new("").to_owned(),
            ..OutputPolicy::default()
        },
        limits: Limits {
            connections_per_file: NonZeroUsize::MIN,
            max_size: Some(LONGEST),
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
