//! Fault injection options of `myapp serve`.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use clap::Args;
use myapp::net::address::{Address, UnixPath};
use myapp::serve::{FaultInjection, LossBurst};
use myapp::units::{parse_duration, parse_rate};

use crate::commands::number;
use crate::commands::serve::values::{ModeName, size, wide_size};
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
    /// Drop datagrams in bursts: P[,R[,BAD[,GOOD]]]
    #[arg(long, value_name = "P", value_parser = loss_burst)]
    loss_burst: Option<LossBurst>,
    /// Flip a random bit in this share of replies
    #[arg(long, value_name = "P", value_parser = share)]
    corrupt_rate: Option<f64>,
    /// Send this share of datagrams twice
    #[arg(long, value_name = "P", value_parser = share)]
    duplicate_rate: Option<f64>,
    /// Send this share of datagrams after the next one
    #[arg(long, value_name = "P", value_parser = share)]
    reorder_rate: Option<f64>,
    /// Close connections in place of this share of replies
    #[arg(long, value_name = "P", value_parser = share)]
    close_rate: Option<f64>,
    /// Close each connection after DUR
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    close_after: Option<Duration>,
    /// Reset connections after this many bytes of replies
    #[arg(long, value_name = "SIZE", value_parser = wide_size)]
    reset_after: Option<NonZeroU64>,
    /// Serve each connection only after DUR
    #[arg(long, value_name = "DUR", value_parser = parse_duration)]
    accept_delay: Option<Duration>,
    /// Pace the replies of each connection
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    bandwidth: Option<NonZeroU64>,
    /// Write replies in pieces of at most SIZE
    #[arg(long, value_name = "SIZE", value_parser = size)]
    slice: Option<NonZeroUsize>,
    /// Seed of the random faults [default: random]
    #[arg(long, value_name = "N", value_parser = number::<u64>)]
    seed: Option<u64>,
    /// Read and change faults at run time: HTTP on a Unix socket
    #[arg(long, value_name = "unix:PATH", value_parser = unix_path)]
    admin: Option<UnixPath>,
}

impl FaultOptions {
    /// Returns the faults, if there are any or may be later.
    pub(super) fn to_config(&self) -> Option<FaultInjection> {
        let faults = FaultInjection {
            delay: self.delay.unwrap_or_default(),
            jitter: self.jitter.unwrap_or_default(),
            drop_rate: self.drop_rate.unwrap_or_default(),
            loss_burst: self.loss_burst,
            corrupt_rate: self.corrupt_rate.unwrap_or_default(),
            duplicate_rate: self.duplicate_rate.unwrap_or_default(),
            reorder_rate: self.reorder_rate.unwrap_or_default(),
            close_rate: self.close_rate.unwrap_or_default(),
            close_after: self.close_after,
            reset_after: self.reset_after,
            accept_delay: self.accept_delay.unwrap_or_default(),
            bandwidth: self.bandwidth,
            slice: self.slice,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
        };
        (faults.is_active() || self.admin.is_some()).then_some(faults)
    }

    /// Returns the socket of the admin endpoint.
    pub(super) fn admin(&self) -> Option<UnixPath> {
        self.admin.clone()
    }

    pub(super) fn are_random(&self) -> bool {
        self.admin.is_some()
            || self.jitter.is_some()
            || self.drop_rate.is_some()
            || self.loss_burst.is_some()
            || self.corrupt_rate.is_some()
            || self.duplicate_rate.is_some()
            || self.reorder_rate.is_some()
            || self.close_rate.is_some()
    }

    /// Rejects options without effect.
    pub(super) fn check(&self, mode: ModeName, has_udp: bool) -> Result<(), CommandError> {
        let of_datagrams = [
            ("--loss-burst", self.loss_burst.is_some()),
            ("--duplicate-rate", self.duplicate_rate.is_some()),
            ("--reorder-rate", self.reorder_rate.is_some()),
        ];
        if let Some((flag, _)) = of_datagrams.iter().find(|(_, is_given)| *is_given)
            && !has_udp
        {
            return Err(CommandError::usage(format!(
                "{flag} has no effect without a udp:// address"
            )));
        }
        if self.seed.is_some() && !self.are_random() {
            return Err(CommandError::usage(
                "--seed has no effect without a random fault such as --jitter or --drop-rate",
            ));
        }
        if self.to_config().is_some() && mode == ModeName::Discard {
            let failure =
                CommandError::usage("faults and --admin have no effect with --mode discard");
            return Err(failure.hint("discard mode sends no replies"));
        }
        Ok(())
    }
}

/// Parses the path of a Unix socket.
fn unix_path(text: &str) -> Result<UnixPath, String> {
    match text.parse() {
        Ok(Address::Unix(path)) => Ok(path),
        Ok(_) => Err("not a Unix socket (unix:PATH)".into()),
        Err(error) => Err(error.to_string()),
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

/// Parses the parameters of the Gilbert-Elliott model.
fn loss_burst(text: &str) -> Result<LossBurst, &'static str> {
    let shares: Result<Vec<_>, _> = text.split(',').map(share).collect();
    let shares = shares?;
    let [begin, rest @ ..] = shares.as_slice() else {
        return Err("no share");
    };
    if rest.len() > 3 {
        return Err("not up to four shares: P[,R[,BAD[,GOOD]]]");
    }
    let mut burst = LossBurst::new(*begin);
    let fields = [
        &mut burst.end,
        &mut burst.loss_in_burst,
        &mut burst.loss_otherwise,
    ];
    fields
        .into_iter()
        .zip(rest)
        .for_each(|(field, share)| *field = *share);
    Ok(burst)
}
