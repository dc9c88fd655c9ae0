//! When a transfer is given up, and how often and when it is tried again.

use std::time::Duration;

use clap::Args;
use myapp::download::{Config, SlowestPace};
use myapp::units::{parse_duration, parse_size};

#[derive(Debug, Args)]
#[command(next_help_heading = "Transfers")]
pub(super) struct RetryOptions {
    /// Further tries for a file, each going on where the last one broke
    #[arg(long, value_name = "N", default_value = "5")]
    retry: u32,
    /// The longest wait before the second try; it doubles up to a minute
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "1s")]
    retry_delay: Duration,
    /// Begin no try later than this after a file's start [default: no limit]
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    retry_max_time: Option<Duration>,
    /// How long a file may take in all [default: no limit]
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    max_time: Option<Duration>,
    /// Give a body up that comes more slowly, in bytes a second
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    speed_limit: Option<u64>,
    /// The time over which --speed-limit is measured
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "30s")]
    speed_time: Duration,
}

impl RetryOptions {
    pub(super) fn apply(&self, config: Config) -> Config {
        Config {
            retries: self.retry,
            retry_delay: self.retry_delay,
            retry_time: self.retry_max_time,
            max_time: self.max_time,
            slowest: self.speed_limit.map(|rate| SlowestPace {
                rate,
                time: self.speed_time,
            }),
            ..config
        }
    }
}
