//! How many connections fetch one file.

use std::num::NonZeroUsize;

use clap::Args;
use myapp::download::Config;
use myapp::units::parse_size;

use crate::commands::number;

#[derive(Debug, Args)]
#[command(next_help_heading = "Transfers")]
pub(super) struct SplitOptions {
    /// Connections for one large file, if its server can send parts of it
    #[arg(short, long, value_name = "N", value_parser = number::<NonZeroUsize>, default_value = "1")]
    split: NonZeroUsize,
    /// Open none for a smaller part
    #[arg(short = 'k', long, value_name = "SIZE", value_parser = parse_size, default_value = "20M")]
    min_split_size: u64,
}

impl SplitOptions {
    pub(super) fn apply(&self, config: Config) -> Config {
        Config {
            split: self.split,
            min_split: self.min_split_size,
            ..config
        }
    }
}
