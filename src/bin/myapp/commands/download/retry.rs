//! Transfer time limits and retries.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use myapp::download::{Config, Limits, LowSpeedLimit, RetryPolicy};
use myapp::units::{parse_duration, parse_size};

use crate::commands::number;

#[derive(Debug, Args)]
#[command(next_help_heading = "Transfers")]
pub(super) struct RetryOptions {
    /// Retries per file since its last progress; each resumes [default: 5]
    // Given, it also applies to refused connections to a server that has not responded yet.
    #[arg(long, value_name = "N", value_parser = number::<u32>)]
    retry: Option<u32>,
    /// HTTP statuses to retry in addition, such as 404,510-599
    #[arg(long, value_name = "LIST")]
    retry_on_http_error: Option<Statuses>,
    /// Retry all HTTP statuses from 400 on
    #[arg(long)]
    retry_all_errors: bool,
    /// Maximum delay before the first retry; doubles up to a minute
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "1s")]
    retry_delay: Duration,
    /// Stop retrying a file after this long [default: unlimited; Retry-After: 10m]
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    retry_max_time: Option<Duration>,
    /// Maximum time per file [default: unlimited]
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    max_time: Option<Duration>,
    /// Abort transfers slower than this many bytes per second
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    speed_limit: Option<u64>,
    /// Time over which --speed-limit is measured
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "30s")]
    speed_time: Duration,
}

/// Ranges of HTTP statuses.
#[derive(Debug, Clone)]
struct Statuses(Vec<RangeInclusive<u16>>);

impl FromStr for Statuses {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let status = |text: &str| {
            let is_valid = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            let status: u16 = text.parse().ok()?;
            (is_valid && (400..600).contains(&status)).then_some(status)
        };
        let range = |item: &str| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let range = status(first)?..=status(last)?;
            (!range.is_empty()).then_some(range)
        };
        let ranges: Option<_> = text.split(',').map(range).collect();
        ranges
            .map(Self)
            .ok_or("not a list of statuses from 400 to 599, such as 404,500-599")
    }
}

impl RetryOptions {
    fn http_statuses(&self) -> Vec<u16> {
        let ranges = self.retry_on_http_error.iter();
        ranges
            .flat_map(|Statuses(all)| all.iter().cloned().flatten())
            .collect()
    }

    pub(super) fn apply(&self, config: Config) -> Config {
        Config {
            limits: Limits {
                max_time: self.max_time,
                low_speed_limit: self.speed_limit.map(|rate| LowSpeedLimit {
                    bytes_per_sec: rate,
                    window: self.speed_time,
                }),
                ..config.limits
            },
            retry: RetryPolicy {
                max_retries: self.retry.unwrap_or(config.retry.max_retries),
                base_delay: self.retry_delay,
                max_elapsed: self.retry_max_time,
                http_statuses: self.http_statuses(),
                all_http_errors: self.retry_all_errors,
                max_refused: match self.retry {
                    Some(_) => None,
                    None => config.retry.max_refused,
                },
            },
            ..config
        }
    }
}
