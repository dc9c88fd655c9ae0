//! Fault injection options of `myapp serve`.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::Args;
use myapp::serve::FaultInjection;
use myapp::units::parse_duration;

use crate::commands::number;
use crate::commands::serve::values::{ModeName, wide_size};
use crate::exit_code::CommandError;

// A doc comment would replace that of the command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Faults")]
pub(super) struct FaultOptions {
    /// Delay each reply
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    delay: Option<Duration>,
    /// Add up to DUR of random delay
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    jitter: Option<Duration>,
    /// Drop this share of replies (0.05 or 5%)
    #[arg(long, value_name = "P", value_parser = share)]
    drop_rate: Option<f64>,
    /// Reset connections after this many bytes of replies
    #[arg(long, value_name = "SIZE", value_parser = wide_size)]
    reset_after: Option<NonZeroU64>,
    /// Seed of the random faults [default: random]
    #[arg(long, value_name = "N", value_parser = number::<u64>)]
    seed: Option<u64>,
}

impl FaultOptions {
    pub(super) fn to_config(&self) -> Option<FaultInjection> {
        let Self {
            delay,
            jitter,
            drop_rate,
            reset_after,
            seed,
        } = *self;
        self.are_enabled().then(|| FaultInjection {
            delay: delay.unwrap_or_default(),
            jitter: jitter.unwrap_or_default(),
            drop_rate: drop_rate.unwrap_or_default(),
            reset_after,
            seed: seed.unwrap_or_else(|| fastrand::u64(..)),
        })
    }

    fn are_enabled(&self) -> bool {
        self.are_random() || self.delay.is_some() || self.reset_after.is_some()
    }

    pub(super) fn are_random(&self) -> bool {
        self.jitter.is_some() || self.drop_rate.is_some()
    }

    /// Rejects options without effect.
    pub(super) fn check(&self, mode: ModeName) -> Result<(), CommandError> {
        if self.seed.is_some() && !self.are_random() {
            return Err(CommandError::usage(
                "--seed has no effect without --jitter or --drop-rate",
            ));
        }
        if self.are_enabled() && mode == ModeName::Discard {
            let failure = CommandError::usage("faults have no effect with --mode discard");
            return Err(failure.hint("discard mode sends no replies"));
        }
        Ok(())
    }
}

/// Parses a share: a number from 0 to 1, or a percentage.
fn share(text: &str) -> Result<f64, &'static str> {
    let (number, divisor) = text
        .strip_suffix('%')
        .map_or((text, 1.0), |number| (number, 100.0));
    let share = number.parse().map(|number: f64| number / divisor).ok();
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or("not a share from 0 to 1 (or 0% to 100%)")
}
