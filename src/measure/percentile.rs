//! Percentiles to report.

use std::fmt;
use std::str::FromStr;

/// The percentiles of a report if no others are requested.
#[doc(hidden)]
pub const DEFAULT_PERCENTILES: [f64; 6] = [50.0, 75.0, 90.0, 95.0, 99.0, 99.9];

/// The maximum number of percentiles of a report.
#[doc(hidden)]
pub const MAX_PERCENTILES: usize = 20;

/// A percentile between 0 and 100, such as 99.9.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percentile(f64);

impl Percentile {
    /// Returns the percentile as a quantile between 0 and 1.
    pub fn quantile(self) -> f64 {
        // A division would give 0.9990000000000001 for 99.9, which may be the next rank.
        let quantile = format!("{}e-2", self.0).parse();
        quantile.unwrap_or(self.0 / 100.0)
    }

    /// Returns the number of values of which ten lie above the percentile.
    pub(crate) fn required_count(self) -> u64 {
        // 1 - 0.9 is a little less than 0.1.
        (10.0 / (1.0 - self.quantile()) * (1.0 - 1e-9)).ceil() as u64
    }
}

/// The name in texts: `p99.9`.
impl fmt::Display for Percentile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl FromStr for Percentile {
    type Err = ParsePercentilesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `f64` also accepts signs, exponents and names.
        let is_decimal = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        match text.parse() {
            Ok(value) if text.bytes().all(is_decimal) => {
                if value > 0.0 && value < 100.0 {
                    Ok(Self(value))
                } else {
                    Err(ParsePercentilesError::OutOfRange(text.into()))
                }
            }
            _ => Err(ParsePercentilesError::NotANumber(text.into())),
        }
    }
}

/// Percentiles of a report, in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub struct PercentileList(Vec<Percentile>);

impl PercentileList {
    /// Returns the percentiles in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Percentile> {
        self.0.iter().copied()
    }
}

impl Default for PercentileList {
    fn default() -> Self {
        Self(DEFAULT_PERCENTILES.map(Percentile).into())
    }
}

/// Parses a list such as `50,90,99.99`.
impl FromStr for PercentileList {
    type Err = ParsePercentilesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut list = text
            .split(',')
            .map(|item| item.trim().parse())
            .collect::<Result<Vec<Percentile>, _>>()?;
        if list.len() > MAX_PERCENTILES {
            return Err(ParsePercentilesError::TooMany(list.len()));
        }
        list.sort_by(|one, other| one.0.total_cmp(&other.0));
        match list.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ParsePercentilesError::Repeated(pair[0].0.to_string())),
            None => Ok(Self(list)),
        }
    }
}

/// Error of a list of percentiles, with the invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParsePercentilesError {
    /// The value is not a decimal number.
    #[error("'{0}' is not a percentile such as 50 or 99.99")]
    NotANumber(String),
    /// The value is not between 0 and 100.
    #[error("'{0}' is not above 0 and below 100; minimum and maximum are always reported")]
    OutOfRange(String),
    /// The value occurs twice.
    #[error("'{0}' occurs more than once")]
    Repeated(String),
    /// The list is too long.
    #[error("{0} percentiles, but at most {MAX_PERCENTILES} are reported")]
    TooMany(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_exact() {
        let list: PercentileList = "99.90, 50,099,.5,99.999".parse().unwrap();
        let names: Vec<_> = list.iter().map(|one| one.to_string()).collect();
        assert_eq!(names, ["p0.5", "p50", "p99", "p99.9", "p99.999"]);
        let quantiles: Vec<_> = list.iter().map(Percentile::quantile).collect();
        assert_eq!(quantiles, [0.005, 0.5, 0.99, 0.999, 0.99999]);
        let counts: Vec<_> = list.iter().map(Percentile::required_count).collect();
        assert_eq!(counts, [11, 20, 1000, 10_000, 1_000_000]);
        let default: Vec<_> = PercentileList::default().iter().map(|one| one.0).collect();
        assert_eq!(default, [50.0, 75.0, 90.0, 95.0, 99.0, 99.9]);
        assert_eq!("90".parse::<Percentile>().unwrap().required_count(), 100);
    }

    #[test]
    fn errors_name_the_invalid_value() {
        let many = ["1.5"; 21].join(",");
        for (list, message) in [
            ("", "'' is not a percentile such as 50 or 99.99"),
            ("50,,99", "'' is not a percentile such as 50 or 99.99"),
            ("50,p99", "'p99' is not a percentile such as 50 or 99.99"),
            ("1e1", "'1e1' is not a percentile such as 50 or 99.99"),
            ("inf", "'inf' is not a percentile such as 50 or 99.99"),
            ("-1", "'-1' is not a percentile such as 50 or 99.99"),
            ("50;90", "'50;90' is not a percentile such as 50 or 99.99"),
            (
                "0",
                "'0' is not above 0 and below 100; minimum and maximum are always reported",
            ),
            (
                "50,100",
                "'100' is not above 0 and below 100; minimum and maximum are always reported",
            ),
            ("90,50,90.0", "'90' occurs more than once"),
            (&many, "21 percentiles, but at most 20 are reported"),
        ] {
            let error = list.parse::<PercentileList>().unwrap_err();
            assert_eq!(error.to_string(), message, "{list}");
        }
    }
}
