//! Options of `myapp echo`.

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use myapp::echo::{
    Config, ConnectionMode, LoadConfig, MAX_DATAGRAM_LEN, MIN_DATAGRAM_LEN, Message, Payload,
    PingConfig, RunLimit, Target,
};
use myapp::internals::{Escaped, nofile};
use myapp::measure::percentile::PercentileList;
use myapp::net::address::Address;
use myapp::units;

use super::tls::TlsOptions;
use crate::commands::{number, thread_count, threads};
use crate::exit_code::CommandError;

#[derive(Debug, Args)]
#[command(after_long_help = include_str!("help.txt"))]
#[command(group = ArgGroup::new("repeat").multiple(true))]
#[command(group = ArgGroup::new("load").multiple(true))]
#[command(group = ArgGroup::new("one-by-one").multiple(true).conflicts_with("repeat"))]
pub(crate) struct Options {
    /// Messages to send; without any, each line of stdin
    #[arg(value_name = "MESSAGE")]
    pub(super) messages: Vec<OsString>,
    /// Address of the server [default: 127.0.0.1:8888]
    #[arg(short, long, value_name = "ADDRESS", help_heading = "Server")]
    pub(super) connect: Option<Address>,
    /// Limit to connect and for each reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = some_time)]
    #[arg(help_heading = "Server")]
    timeout: Duration,
    /// Retries of a failed connection or a lost datagram
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Server")]
    #[arg(value_parser = number::<u32>)]
    retry: u32,
    /// Local addresses of the connections, used in turn
    #[arg(
        long,
        value_name = "ADDR,...",
        value_delimiter = ',',
        help_heading = "Server"
    )]
    bind: Vec<IpAddr>,
    /// First wait for up to TIME until the server accepts connections
    #[arg(long, value_name = "TIME", value_parser = some_time, help_heading = "Server")]
    pub(super) wait_ready: Option<Duration>,
    /// Concurrent connections, one per message
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "8",
        group = "one-by-one"
    )]
    #[arg(value_parser = jobs, help_heading = "Messages")]
    jobs: NonZeroUsize,
    /// Send all messages in order over one connection
    #[arg(
        long,
        conflicts_with = "jobs",
        help_heading = "Messages",
        group = "one-by-one"
    )]
    one_connection: bool,
    /// Exit with 1 if a reply differs from its message
    #[arg(long, help_heading = "Messages")]
    verify: bool,
    /// Copy stdin to the server and the server to stdout
    #[arg(long, help_heading = "Messages", group = "one-by-one")]
    #[arg(conflicts_with_all = ["messages", "jobs", "one_connection", "verify"])]
    pub(super) raw: bool,
    /// Number of pings, or total messages of a load
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        help_heading = "Ping",
        group = "repeat"
    )]
    #[arg(value_parser = number::<NonZeroU64>)]
    count: Option<NonZeroU64>,
    /// Time between pings [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    #[arg(help_heading = "Ping", group = "repeat", conflicts_with = "load")]
    interval: Option<Duration>,
    /// Generate a message of this size [default: 64]
    #[arg(long, value_name = "SIZE", value_parser = some_size, help_heading = "Ping and load")]
    #[arg(requires = "repeat", conflicts_with = "messages")]
    size: Option<NonZeroU64>,
    /// Do not verify the replies
    #[arg(
        long,
        help_heading = "Ping and load",
        requires = "repeat",
        conflicts_with = "verify"
    )]
    no_verify: bool,
    /// Print the report as one JSON object
    #[arg(long, help_heading = "Ping and load", requires = "repeat")]
    pub(super) json: bool,
    /// Percentiles of the report [default: 50,75,90,95,99,99.9]
    #[arg(
        long,
        value_name = "LIST",
        help_heading = "Ping and load",
        requires = "repeat"
    )]
    pub(super) percentiles: Option<PercentileList>,
    /// Spin for up to TIME before blocking: lower latency, one full core
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "0")]
    #[arg(help_heading = "Ping and load", requires = "repeat")]
    busy_poll: Duration,
    /// Connections of the load [default: 1]
    #[arg(long, value_name = "C", help_heading = "Load", groups = ["repeat", "load"])]
    #[arg(value_parser = number::<NonZeroU32>)]
    connections: Option<NonZeroU32>,
    /// Duration of the load, instead of -n [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = some_time, help_heading = "Load")]
    #[arg(groups = ["repeat", "load"], conflicts_with = "count")]
    duration: Option<Duration>,
    /// Total messages per second, on a fixed schedule
    #[arg(long, value_name = "R", value_parser = some_rate, help_heading = "Load")]
    #[arg(groups = ["repeat", "load"])]
    rate: Option<f64>,
    /// Messages in flight per connection [default: 1]
    #[arg(long, value_name = "N", help_heading = "Load", groups = ["repeat", "load"])]
    #[arg(value_parser = number::<NonZeroUsize>)]
    in_flight: Option<NonZeroUsize>,
    /// Exclude the first TIME from the statistics
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "0")]
    #[arg(help_heading = "Load", requires = "load", conflicts_with = "count")]
    warmup: Duration,
    /// Spread connection setup over TIME
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "0")]
    #[arg(help_heading = "Load", requires = "load")]
    ramp_up: Duration,
    /// Sending threads; 0 means one per core [default: half the cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    #[arg(help_heading = "Load", requires = "load")]
    threads: Option<u16>,
    /// Open a new connection per message, and measure connecting too
    #[arg(
        long,
        help_heading = "Load",
        requires = "load",
        conflicts_with = "in_flight"
    )]
    new_connections: bool,
    /// Also write the report with charts to an HTML file
    #[arg(
        long,
        value_name = "FILE.html",
        help_heading = "Load",
        requires = "load"
    )]
    pub(super) report: Option<PathBuf>,
    /// Also write the times of each second to an HdrHistogram interval log
    #[arg(long, value_name = "FILE", help_heading = "Load", requires = "load")]
    pub(super) hdr_log: Option<PathBuf>,
    /// Merge JSON reports and interval logs of several runs into one report
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Load")]
    #[arg(groups = ["repeat", "load"], conflicts_with_all = NOT_WITH_MERGE)]
    pub(super) merge: Vec<PathBuf>,
    #[command(flatten)]
    tls: TlsOptions,
}

/// Options that concern a server or a run; `--merge` has neither.
const NOT_WITH_MERGE: &[&str] = &[
    "messages",
    "connect",
    "bind",
    "timeout",
    "retry",
    "wait_ready",
    "jobs",
    "one_connection",
    "verify",
    "raw",
    "count",
    "interval",
    "size",
    "no_verify",
    "busy_poll",
    "connections",
    "duration",
    "rate",
    "in_flight",
    "warmup",
    "ramp_up",
    "threads",
    "new_connections",
    "hdr_log",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "tls_name",
    "pinned_sha256",
    "insecure",
];

/// Maximum number of concurrent connections of messages: more than ports of an address.
const MAX_JOBS: usize = 1_000_000;

/// Parses a number of concurrent connections.
fn jobs(text: &str) -> Result<NonZeroUsize, String> {
    let jobs = number::<NonZeroUsize>(text)?;
    if jobs.get() > MAX_JOBS {
        return Err(format!("at most {MAX_JOBS}"));
    }
    Ok(jobs)
}

/// Parses a duration above zero.
fn some_time(text: &str) -> Result<Duration, String> {
    match units::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be greater than 0".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses a size of at least one byte.
fn some_size(text: &str) -> Result<NonZeroU64, String> {
    let size = units::parse_size(text).map_err(|error| error.to_string())?;
    NonZeroU64::new(size).ok_or_else(|| "must be greater than 0".into())
}

/// Parses a rate in messages per second above zero, with the suffixes `k`, `M` and `G`.
fn some_rate(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.char_indices().last() {
        Some((end, 'k' | 'K')) => (&text[..end], 1e3),
        Some((end, 'M')) => (&text[..end], 1e6),
        Some((end, 'G')) => (&text[..end], 1e9),
        _ => (text, 1.0),
    };
    let rate = number.parse::<f64>().map(|number| number * factor);
    rate.ok()
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "not a number of messages per second such as 0.5, 1000, 20k or 1M".into())
}

impl Options {
    pub(super) fn to_target(&self) -> Target {
        Target {
            address: self.connect.clone().unwrap_or(Target::default().address),
            timeout: self.timeout,
            retries: self.retry,
            bind: self.bind.clone(),
            tls: self.tls.to_config(),
            tls_name: self.tls.tls_name.clone(),
        }
    }

    pub(super) fn to_config(&self) -> Config {
        let connection_mode = if self.one_connection {
            ConnectionMode::Single
        } else {
            ConnectionMode::PerMessage { max: self.jobs }
        };
        Config {
            target: self.to_target(),
            connection_mode,
            verify: self.verify,
        }
    }

    /// Rejects options that do not apply to the address.
    pub(super) fn check(&self) -> Result<(), CommandError> {
        if let (Some(Address::Unix(_)), [_, ..]) = (&self.connect, self.bind.as_slice()) {
            let failure = CommandError::usage("--bind requires TCP or UDP, not a Unix socket");
            return Err(failure);
        }
        match (self.tls.given(), &self.connect) {
            (None, _) | (_, Some(Address::Tls(_))) => Ok(()),
            (Some(name), _) => {
                let failure = CommandError::usage(format!("{name} requires a tls:// address"));
                Err(failure.hint("use -c tls://HOST:PORT"))
            }
        }
    }

    /// Raises the descriptor limit for the connections of a load.
    pub(crate) fn raise_fd_limit(&self) -> io::Result<()> {
        if !self.is_load() {
            return Ok(());
        }
        nofile::raise_limit()?;
        nofile::preallocate_fd_table(self.connections.map_or(1, |count| count.get() as usize))
    }

    /// Returns whether an option selects the load mode.
    pub(super) fn is_load(&self) -> bool {
        let Self {
            connections,
            duration,
            rate,
            in_flight,
            ..
        } = self;
        connections.is_some() || duration.is_some() || rate.is_some() || in_flight.is_some()
    }

    /// Returns whether an option selects the ping mode.
    pub(super) fn is_ping(&self) -> bool {
        !self.is_load() && (self.count.is_some() || self.interval.is_some())
    }

    pub(super) fn to_load(&self) -> Result<LoadConfig, CommandError> {
        let default = LoadConfig::default();
        let count = self.count.map(|count| RunLimit::Messages(count.get()));
        Ok(LoadConfig {
            target: self.to_target(),
            payload: self.to_payload()?,
            connections: self.connections.unwrap_or(default.connections),
            limit: self
                .duration
                .map(RunLimit::Duration)
                .or(count)
                .unwrap_or(default.limit),
            in_flight: self.in_flight.unwrap_or(default.in_flight),
            rate: self.rate,
            warmup: self.warmup,
            ramp_up: self.ramp_up,
            new_connections: self.new_connections,
            verify: !self.no_verify,
            threads: self.threads.map_or(default.threads, threads),
            busy_poll: self.busy_poll,
        })
    }

    pub(super) fn to_ping(&self) -> Result<PingConfig, CommandError> {
        let default = PingConfig::default();
        Ok(PingConfig {
            target: self.to_target(),
            payload: self.to_payload()?,
            count: self.count.map(NonZeroU64::get),
            interval: self.interval.unwrap_or(default.interval),
            verify: !self.no_verify,
            busy_poll: self.busy_poll,
        })
    }

    /// Returns the percentiles of the report.
    pub(super) fn to_percentiles(&self) -> PercentileList {
        self.percentiles.clone().unwrap_or_default()
    }

    /// Returns the percentiles of the summary line of a ping.
    pub(super) fn to_ping_percentiles(&self) -> PercentileList {
        let list = self.percentiles.clone();
        list.or_else(|| "99".parse().ok()).unwrap_or_default()
    }

    pub(super) fn is_over_udp(&self) -> bool {
        matches!(self.connect, Some(Address::Udp(_)))
    }

    /// Rejects a payload without room for a sequence number.
    fn check_datagram(&self, payload: &Payload) -> Result<(), CommandError> {
        let min = MIN_DATAGRAM_LEN as u64;
        let max = MAX_DATAGRAM_LEN as u64;
        let failure = match payload {
            _ if !self.is_over_udp() => return Ok(()),
            Payload::Message(_) => {
                "ping and load over udp:// cannot send a MESSAGE: it has no sequence number"
            }
            Payload::Generated(size) if size.get() < min => "--size is too small for udp://",
            Payload::Generated(size) if size.get() > max => "--size is too large for udp://",
            _ => return Ok(()),
        };
        let hint = format!(
            "use --size SIZE, from {min} to {max}: generated messages have a sequence number"
        );
        Err(CommandError::usage(failure).hint(hint))
    }

    /// Returns the payload of a ping or a load.
    fn to_payload(&self) -> Result<Payload, CommandError> {
        let payload = self.requested_payload()?;
        self.check_datagram(&payload)?;
        Ok(payload)
    }

    fn requested_payload(&self) -> Result<Payload, CommandError> {
        match (self.messages.as_slice(), self.size) {
            ([], None) => Ok(Payload::default()),
            ([], Some(size)) => Ok(Payload::Generated(size)),
            ([message], _) => parse_message(message.clone()).map(Payload::Message),
            _ => Err(CommandError::usage(
                "ping and load send one message, but several are given",
            )),
        }
    }
}

/// Converts an argument to a message.
pub(super) fn parse_message(text: OsString) -> Result<Message, CommandError> {
    let text = text.into_vec();
    let escaped = Escaped(&text).to_string();
    Message::new(text).map_err(|error| {
        CommandError::usage(format!("send message '{escaped}': {error}"))
            .hint("each line is a separate message; --raw sends standard input unchanged")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};
    use myapp::measure::percentile::DEFAULT_PERCENTILES;

    #[derive(Parser)]
    struct Echo {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn rate_accepts_decimal_suffixes() {
        for (text, rate) in [
            ("0.5", 0.5),
            ("1000", 1000.0),
            ("20k", 20e3),
            ("1.5M", 1.5e6),
            ("1G", 1e9),
        ] {
            assert_eq!(some_rate(text), Ok(rate));
        }
        for text in ["", "k", "0", "-1", "inf", "nan", "10MM", "1é"] {
            assert!(some_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn merge_accepts_only_options_of_the_report() {
        let mut command = Echo::command();
        command.build();
        let arguments = || command.get_arguments();
        let merge = arguments().find(|argument| *argument.get_id() == "merge");
        let conflicts = command.get_arg_conflicts_with(merge.unwrap());
        let allowed = ["json", "percentiles", "report", "merge", "help"];
        for argument in arguments() {
            let id = argument.get_id();
            let conflicts = conflicts.iter().any(|other| other.get_id() == id);
            assert_ne!(conflicts, allowed.contains(&id.as_str()), "{id}");
        }
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        let options = Echo::parse_from(["echo"]).options;
        assert_eq!(options.to_config(), Config::default());
        assert_eq!(options.to_ping().unwrap(), PingConfig::default());
        assert_eq!(options.to_load().unwrap(), LoadConfig::default());
        let help = Echo::command().render_help().to_string();
        let percentiles = DEFAULT_PERCENTILES.map(|percentile| percentile.to_string());
        for default in [Target::default().address.to_string(), percentiles.join(",")] {
            assert!(help.contains(&format!("[default: {default}]")), "{help}");
        }
    }
}
