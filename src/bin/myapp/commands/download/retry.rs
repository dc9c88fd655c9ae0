//! How often and when a transfer that broke is tried again.

use std::time::Duration;

use clap::Args;
use myapp::download::Config;
use myapp::units::parse_duration;

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
}

impl RetryOptions {
    pub(super) fn apply(&self, config: Config) -> Config {
        Config {
            retries: self.retry,
            retry_delay: self.retry_delay,
            retry_time: self.retry_max_time,
            ..config
        }
    }
}
