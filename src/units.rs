//! Parsing and formatting of sizes, rates and durations.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

use fundu::{CustomDurationParser, CustomTimeUnit, TimeUnit};
use parse_size::{ByteSuffix, Config};

/// Error of parsing a size, a rate or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnitError {
    /// Not a size such as `64`, `64K`, `1.5M` or `2G`.
    #[error("not a size such as 64, 64K, 1.5M or 2G")]
    Size,
    /// Not a rate such as `64`, `64K`, `1.5M` or `2G`, or zero.
    #[error("not a rate above 0 such as 64, 64K, 1.5M or 2G")]
    Rate,
    /// Not a duration such as `100ms`, `1.5s`, `2m` or `1h30m`.
    #[error("not a duration such as 100ms, 1.5s, 2m or 1h30m")]
    Duration,
}

/// Parses a size in bytes: a number with an optional unit `K`, `M`, `G`, `T`, `P` or `E`, which are
/// powers of 1024; `KiB`, `KB` and `k` mean the same as `K`.
///
/// # Errors
///
/// [`UnitError::Size`] for anything else, and for a size that does not fit into 64 bits.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    // The parser ignores blanks: "1 2" would be 12.
    if text.contains(char::is_whitespace) {
        return Err(UnitError::Size);
    }
    Config::new()
        .with_binary()
        .with_byte_suffix(ByteSuffix::Allow)
        .parse_size(text)
        .map_err(|_| UnitError::Size)
}

/// Parses a rate in bytes per second: a size greater than zero, with or without `/s`.
///
/// # Errors
///
/// [`UnitError::Rate`].
pub fn parse_rate(text: &str) -> Result<NonZeroU64, UnitError> {
    parse_size(text.strip_suffix("/s").unwrap_or(text))
        .ok()
        .and_then(NonZeroU64::new)
        .ok_or(UnitError::Rate)
}

/// Parses a duration: a number with a unit `ns`, `us` or `µs`, `ms`, `s`, `m`, `h`, `d`, several of
/// them (`1m30s`), or a number of seconds without a unit. `sec`, `min`, `hour`, `day` and their
/// plurals are units as well.
///
/// # Errors
///
/// [`UnitError::Duration`] for anything else: negative, infinite, or longer than a century.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let duration = match parse_number_with_unit(text) {
        Some(duration) => duration,
        None => components(text)
            .try_fold(Duration::ZERO, |sum, component| {
                if !component.ends_with(char::is_alphabetic) {
                    return None;
                }
                sum.checked_add(parse_number_with_unit(component)?)
            })
            .ok_or(UnitError::Duration)?,
    };
    if text.is_empty() || duration > CENTURY {
        Err(UnitError::Duration)
    } else {
        Ok(duration)
    }
}

/// Splits `1h30m` into `1h` and `30m`.
fn components(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let unit = rest.find(char::is_alphabetic).unwrap_or(rest.len());
        let end = rest[unit..].find(|c: char| c.is_ascii_digit());
        let component;
        (component, rest) = rest.split_at(end.map_or(rest.len(), |end| unit + end));
        (!component.is_empty()).then_some(component)
    })
}

fn parse_number_with_unit(text: &str) -> Option<Duration> {
    use TimeUnit::{Day, Hour, MicroSecond, MilliSecond, Minute, NanoSecond, Second};
    // Named here: fundu's own name of the microsecond is `Ms`.
    let units = [
        CustomTimeUnit::with_default(NanoSecond, &["ns"]),
        CustomTimeUnit::with_default(MicroSecond, &["us", "µs"]),
        CustomTimeUnit::with_default(MilliSecond, &["ms"]),
        CustomTimeUnit::with_default(Second, &["s", "sec", "secs", "second", "seconds"]),
        CustomTimeUnit::with_default(Minute, &["m", "min", "mins", "minute", "minutes"]),
        CustomTimeUnit::with_default(Hour, &["h", "hr", "hour", "hours"]),
        CustomTimeUnit::with_default(Day, &["d", "day", "days"]),
    ];
    let parsed = CustomDurationParser::with_time_units(&units)
        .parse(text)
        .ok()?;
    Duration::try_from(parsed).ok()
}

/// Prints a number of bytes with three digits: `812 B`, `1.50 KiB`, `64.0 MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        // 1023.5 would be rounded to "1024": it belongs to the next unit.
        while value >= 1023.5 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.*} {}", decimals(value), UNITS[unit])
    }
}

/// Formats a duration with three digits in its largest fitting unit: `15.6 µs`, `1.02 s`,
/// `2m 05s`, `1h 02m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Elapsed(pub Duration);

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.0.as_secs();
        if whole >= 3600 {
            return write!(f, "{}h {:02}m", whole / 3600, whole / 60 % 60);
        }
        if whole >= 60 {
            return write!(f, "{}m {:02}s", whole / 60, whole % 60);
        }
        let seconds = self.0.as_secs_f64();
        let (value, unit) = match self.0.as_nanos() {
            0..1_000 => (seconds * 1e9, "ns"),
            1_000..999_500 => (seconds * 1e6, "µs"),
            999_500..999_500_000 => (seconds * 1e3, "ms"),
            _ => (seconds, "s"),
        };
        write!(f, "{value:.*} {unit}", decimals(value))
    }
}

/// Returns the number of decimal places for three significant digits.
fn decimals(value: f64) -> usize {
    match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_count_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("64", 64),
            ("64K", 65_536),
            ("64k", 65_536),
            ("64KiB", 65_536),
            ("64kb", 65_536),
            ("1.5M", 1_572_864),
            ("2G", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "K",
            "-1",
            "1X",
            "1,000",
            "1,5M",
            "99999999999G",
            "1 2",
            "inf",
        ] {
            assert_eq!(parse_size(text), Err(UnitError::Size), "{text}");
        }
    }

    #[test]
    fn rate_is_a_size_above_zero() {
        assert_eq!(parse_rate("1.5K").map(NonZeroU64::get), Ok(1536));
        for text in ["100kB/s", "100K/s", "100k"] {
            assert_eq!(parse_rate(text).map(NonZeroU64::get), Ok(102_400), "{text}");
        }
        for text in ["0", "", "-1", "1X", "/s", "100kbit/s", "1K/h"] {
            assert_eq!(parse_rate(text), Err(UnitError::Rate), "{text}");
        }
    }

    #[test]
    fn duration_without_a_unit_is_in_seconds() {
        for (text, millis) in [
            ("0", 0),
            ("1", 1000),
            ("0.5", 500),
            ("100ms", 100),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("5min", 300_000),
            ("1m30s", 90_000),
            ("1h0.5m250ms", 3_630_250),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in ["50us", "50µs", "0.05ms"] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_micros(50)),
                "{text}"
            );
        }
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        for text in [
            "", "s", "-1s", "1x", "inf", "1e300", "1 s 2", "1m30", "1m-30s", "m30s",
        ] {
            assert_eq!(parse_duration(text), Err(UnitError::Duration), "{text}");
        }
    }

    #[test]
    fn sizes_print_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024, "10.0 KiB"),
            (1024 * 1024 - 1, "1.00 MiB"),
            (64 << 20, "64.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn durations_print_three_digits() {
        for (nanos, text) in [
            (0, "0.00 ns"),
            (15_600, "15.6 µs"),
            (999_600, "1.00 ms"),
            (250_000_000, "250 ms"),
            (999_900_000, "1.00 s"),
            (1_024_000_000, "1.02 s"),
            (125_000_000_000, "2m 05s"),
            (3_725_000_000_000, "1h 02m"),
        ] {
            assert_eq!(Elapsed(Duration::from_nanos(nanos)).to_string(), text);
        }
    }
}
