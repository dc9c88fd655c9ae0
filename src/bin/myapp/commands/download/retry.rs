//! Transfer time limits and retries.

use std::time::Duration;

use clap::Args;
use myapp::download::{Config, Limits, LowSpeedLimit, RetryPolicy};
use myapp::units::{parse_duration, parse_size};

#[derive(Debug, Args)]
#[command(next_help_heading = "Transfers")]
pub(super) struct RetryOptions {
    /// Retries per file since its last progress; each resumes where it failed
    #[arg(long, value_name = "N", default_value = "5")]
    retry: u32,
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

impl RetryOptions {
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
                max_retries: self.retry,
                base_delay: self.retry_delay,
                max_elapsed: self.retry_max_time,
            },
            ..config
        }
    }
}
