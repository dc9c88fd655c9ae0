//! Parallel connections per file.

use std::num::NonZeroUsize;

use clap::Args;
use myapp::download::{Config, Limits};
use myapp::units::parse_size;

use crate::commands::number;

#[derive(Debug, Args)]
#[command(next_help_heading = "Transfers")]
pub(super) struct SplitOptions {
    /// Connections per large file
    #[arg(short, long, value_name = "N", value_parser = number::<NonZeroUsize>, default_value = "1")]
    split: NonZeroUsize,
    /// Minimum segment size per connection
    #[arg(short = 'k', long, value_name = "SIZE", value_parser = parse_size, default_value = "20M")]
    min_split_size: u64,
}

impl SplitOptions {
    pub(super) fn apply(&self, config: Config) -> Config {
        Config {
            limits: Limits {
                connections_per_file: self.split,
                min_segment_len: self.min_split_size,
                ..config.limits
            },
            ..config
        }
    }
}
