//! Connection and rate limits.

use std::num::{NonZeroU64, NonZeroUsize};

use clap::Args;
use myapp::download::{Config, Limits};
use myapp::units::parse_rate;

use crate::commands::number;

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitOptions {
    /// Connections per host [default: max(-j, -s)]
    #[arg(short = 'x', long, value_name = "N", value_parser = number::<NonZeroUsize>)]
    per_host: Option<NonZeroUsize>,
    /// Total bytes per second [default: unlimited]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    limit_rate: Option<NonZeroU64>,
    /// Bytes per second per file [default: unlimited]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    limit_rate_per_file: Option<NonZeroU64>,
}

impl LimitOptions {
    pub(super) fn apply(&self, config: Config) -> Config {
        Config {
            limits: Limits {
                connections_per_host: self.per_host,
                rate: self.limit_rate,
                rate_per_file: self.limit_rate_per_file,
                ..config.limits
            },
            ..config
        }
    }
}
