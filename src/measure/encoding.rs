//! Histograms as text: the compressed HdrHistogram V2 format in Base64, as in interval logs.
//!
//! It has all counts, so that decoding and merging are exact.

use std::io::{self, Read as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};
use hdrhistogram::{Counter, Histogram};

/// Maximum length of a decompressed histogram: more than one of nine bytes per count has.
const MAX_DECOMPRESSED_LEN: u64 = 1 << 20;

/// First bytes of a compressed histogram, as the other implementations have them.
const COMPRESSED_COOKIE: [u8; 4] = 0x1c84_9314_u32.to_be_bytes();

/// Length of the cookie and the length before the compressed data.
const COMPRESSED_HEADER_LEN: usize = 8;

/// Length of the fields before the counts: an identifier, the length of the counts, the shape.
const HEADER_LEN: usize = 40;

/// Offset of the length of the counts.
const LENGTH_AT: usize = 4;

/// Offset of range and precision.
const SHAPE_AT: usize = 8;

/// Error of decoding a histogram.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The text is not Base64.
    #[error("not Base64")]
    Base64,
    /// The bytes are not a complete histogram.
    #[error("not a complete HdrHistogram V2")]
    Incomplete,
    /// The histogram has another range or precision, so that merging would not be exact.
    #[error("a histogram of another range or precision")]
    OtherPrecision,
}

/// Encodes a histogram.
pub(super) fn encode<T: Counter>(histogram: &Histogram<T>) -> String {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    if serializer.serialize(histogram, &mut bytes).is_err() {
        bytes.clear();
        // Cannot fail again.
        let _ = serializer.serialize(&with_signed_counts(histogram), &mut bytes);
    }
    BASE64_STANDARD.encode(bytes)
}

/// Returns a copy whose counts fit into the signed integers of the format.
fn with_signed_counts<T: Counter>(histogram: &Histogram<T>) -> Histogram<u64> {
    let mut copy = Histogram::new_from(histogram);
    for value in histogram.iter_recorded() {
        let count = value.count_at_value().as_u64().min(i64::MAX as u64);
        copy.saturating_record_n(value.value_iterated_to(), count);
    }
    copy
}

/// Decodes a histogram with the range and precision of `sum`, and adds it.
pub(super) fn decode_into<T: Counter>(
    text: &str,
    sum: &mut Histogram<T>,
) -> Result<(), DecodeError> {
    let bytes = BASE64_STANDARD.decode(text);
    let bytes = decompress(&bytes.map_err(|_| DecodeError::Base64)?);
    let bytes = bytes.map_err(|_| DecodeError::Incomplete)?;
    let (header, counts) = bytes
        .split_at_checked(HEADER_LEN)
        .ok_or(DecodeError::Incomplete)?;
    // The decoder allocates the length before it reads, and the negation of -2^63, nine times
    // 0xFF, overflows in it.
    let has_length = header[LENGTH_AT..SHAPE_AT] == (counts.len() as u32).to_be_bytes();
    if !has_length || counts.windows(9).any(|bytes| bytes == [0xFF; 9]) {
        return Err(DecodeError::Incomplete);
    }
    if header[SHAPE_AT..] != shape(sum) {
        return Err(DecodeError::OtherPrecision);
    }
    let decoded = Deserializer::new().deserialize(&mut bytes.as_slice());
    let decoded: Histogram<T> = decoded.map_err(|_| DecodeError::Incomplete)?;
    sum.add(&decoded).map_err(|_| DecodeError::OtherPrecision)
}

/// Returns the fields of the header that state range and precision: normalizing offset, digits,
/// lowest and highest value, conversion ratio.
fn shape<T: Counter>(histogram: &Histogram<T>) -> Vec<u8> {
    [
        &0_u32.to_be_bytes()[..],
        &u32::from(histogram.sigfig()).to_be_bytes(),
        &histogram.low().to_be_bytes(),
        &histogram.high().to_be_bytes(),
        &1_f64.to_be_bytes(),
    ]
    .concat()
}

/// Returns the bytes of the V2 format, of limited length.
fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    if !bytes.starts_with(&COMPRESSED_COOKIE) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let compressed = bytes.get(COMPRESSED_HEADER_LEN..).unwrap_or_default();
    let mut decompressed = Vec::new();
    ZlibDecoder::new(compressed)
        .take(MAX_DECOMPRESSED_LEN)
        .read_to_end(&mut decompressed)?;
    Ok(decompressed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[(u64, u64)]) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).unwrap();
        for (value, count) in values {
            histogram.record_n(*value, *count).unwrap();
        }
        histogram
    }

    fn decoded(text: &str) -> Result<Histogram<u64>, DecodeError> {
        let mut sum = histogram(&[]);
        decode_into(text, &mut sum).map(|()| sum)
    }

    #[test]
    fn encoded_histogram_has_all_counts() {
        let many: Vec<_> = (0..10_000).map(|n| (n * n * n, n + 1)).collect();
        for values in [&[][..], &[(0, 1)], &[(1, 1), (3_600_000_000_000, 7)], &many] {
            let histogram = histogram(values);
            assert_eq!(decoded(&encode(&histogram)).unwrap(), histogram);
        }
        let huge = histogram(&[(5, u64::MAX), (6, 1)]);
        let limited = histogram(&[(5, i64::MAX as u64), (6, 1)]);
        assert_eq!(decoded(&encode(&huge)).unwrap(), limited);
    }

    #[test]
    fn invalid_text_is_an_error() {
        let valid = encode(&histogram(&[(1000, 5), (2000, 6)]));
        let errors = |text: &str| decoded(text).unwrap_err().to_string();
        assert_eq!(errors("no base64!"), "not Base64");
        for end in (4..valid.len()).step_by(4) {
            assert_eq!(errors(&valid[..end]), "not a complete HdrHistogram V2");
        }
        let other = Histogram::<u64>::new_with_bounds(1, 1_000_000, 3).unwrap();
        let message = "a histogram of another range or precision";
        assert_eq!(errors(&encode(&other)), message);
        let coarse = Histogram::<u64>::new_with_bounds(1, 3_600_000_000_000, 2).unwrap();
        assert_eq!(errors(&encode(&coarse)), message);
    }

    #[test]
    fn damaged_bytes_neither_panic_nor_need_much_memory() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut plain = Vec::new();
        let histogram = histogram(&[(1000, 5), (2000, 600), (3_000_000, 1 << 40)]);
        let mut serializer = hdrhistogram::serialization::V2Serializer::new();
        serializer.serialize(&histogram, &mut plain).unwrap();
        for _ in 0..2000 {
            let mut bytes = plain.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                let other = random.u8(..);
                bytes[at] = random.choice([0, 0xFF, other]).unwrap();
            }
            let _ = decoded(&compressed(&bytes));
        }
        let mut longest = plain.clone();
        longest[LENGTH_AT..LENGTH_AT + 4].fill(0xFF);
        assert!(decoded(&compressed(&longest)).is_err(), "seed {seed}");
        let mut lowest = plain;
        lowest.extend([0xFF; 9]);
        let length = (lowest.len() - HEADER_LEN) as u32;
        lowest[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length.to_be_bytes());
        assert!(decoded(&compressed(&lowest)).is_err());
        assert!(decoded(&compressed(&vec![0; 1 << 26])).is_err());
    }

    fn compressed(bytes: &[u8]) -> String {
        let level = flate2::Compression::default();
        let header = [COMPRESSED_COOKIE, [0; 4]].concat();
        let mut encoder = flate2::write::ZlibEncoder::new(header, level);
        io::Write::write_all(&mut encoder, bytes).unwrap();
        BASE64_STANDARD.encode(encoder.finish().unwrap())
    }
}
