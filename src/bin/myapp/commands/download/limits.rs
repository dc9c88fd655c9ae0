//! How many connections, and how fast.

use std::num::{NonZeroU64, NonZeroUsize};

use clap::Args;
use myapp::download::Config;
use myapp::units::parse_rate;

use crate::commands::number;

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitOptions {
    /// Connections a server [default: max(-j, -s)]
    #[arg(short = 'x', long, value_name = "N", value_parser = number::<NonZeroUsize>)]
    per_host: Option<NonZeroUsize>,
    /// Bytes a second, all files [default: none]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    limit_rate: Option<NonZeroU64>,
    /// Bytes a second, each file [default: none]
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    limit_rate_per_file: Option<NonZeroU64>,
}

impl LimitOptions {
    pub(super) fn apply(&self, config: Config) -> Config {
        Config {
            per_host: self.per_host,
            rate: self.limit_rate,
            rate_per_file: self.limit_rate_per_file,
            ..config
        }
    }
}
