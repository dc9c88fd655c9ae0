//! Options of `myapp serve`.

use std::io;
use std::net::{AddrParseError, IpAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;
use myapp::internals::nofile;
use myapp::net::address::{Address, Endpoint};
use myapp::serve::{Config, IpNet, MAX_DATAGRAM_LEN, MAX_KEEPALIVE, Mode, ProxyProtocol};
use myapp::units::parse_duration;

use crate::commands::serve::faults::FaultOptions;
use crate::commands::serve::tls::TlsOptions;
use crate::commands::serve::values::{ModeName, ProxyHeader, size};
use crate::commands::{number, thread_count, threads};
use crate::exit_code::CommandError;
use crate::systemd::PassedSocket;

#[derive(Debug, Args)]
#[command(after_long_help = include_str!("help.txt"))]
pub(crate) struct Options {
    /// Addresses to listen on [default: 127.0.0.1:8888]
    #[arg(value_name = "ADDRESS")]
    pub(super) addresses: Vec<Address>,

    /// line, chunk, discard or whoami
    #[arg(long, value_enum, default_value = "line", help_heading = "Replies")]
    #[arg(hide_possible_values = true)]
    mode: ModeName,
    /// Prepend TEXT to each reply
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "Replies",
        allow_hyphen_values = true
    )]
    prefix: Option<String>,
    /// Maximum read size in chunk mode [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Replies")]
    chunk: Option<NonZeroUsize>,
    /// Maximum line length in line mode [default: 1M]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Replies")]
    max_line: Option<NonZeroUsize>,
    /// Maximum datagram length; drop longer ones [default: 65507]
    #[arg(long, value_name = "SIZE", value_parser = datagram_size, help_heading = "Replies")]
    udp_max: Option<usize>,

    /// Worker threads; 0 for one per core [default: half the cores]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    #[arg(help_heading = "Limits")]
    threads: Option<u16>,
    /// Maximum connections; more wait [default: ulimit -n]
    #[arg(long, value_name = "N", value_parser = number::<NonZeroUsize>, help_heading = "Limits")]
    max_connections: Option<NonZeroUsize>,
    /// Maximum connections per IP address; more are refused
    #[arg(long, value_name = "N", value_parser = number::<NonZeroUsize>, help_heading = "Limits")]
    max_per_ip: Option<NonZeroUsize>,
    /// Accept connections only from this network (repeatable)
    #[arg(long, value_name = "CIDR", value_parser = network, help_heading = "Limits")]
    allow: Vec<IpNet>,
    /// Refuse connections from this network (repeatable, overrides --allow)
    #[arg(long, value_name = "CIDR", value_parser = network, help_heading = "Limits")]
    deny: Vec<IpNet>,
    /// Require the PROXY protocol (version 1 or 2) from proxies
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        requires = "proxy_from",
        help_heading = "Limits"
    )]
    proxy_protocol: Option<ProxyHeader>,
    /// Network of the proxies (repeatable); Unix peers always are proxies
    #[arg(long, value_name = "CIDR", value_parser = network, requires = "proxy_protocol")]
    #[arg(help_heading = "Limits")]
    proxy_from: Vec<IpNet>,
    /// Probe TCP peers idle for this long; 0 turns it off [default: 60s]
    #[arg(long, value_name = "DUR", value_parser = keepalive, help_heading = "Limits")]
    keepalive: Option<Duration>,
    /// Close connections idle for DUR [default: never]
    #[arg(long, value_name = "DUR", value_parser = parse_duration, help_heading = "Limits")]
    idle_timeout: Option<Duration>,
    /// Keep accepting for DUR after a signal, while /readyz fails
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "0")]
    #[arg(help_heading = "Limits")]
    pub(super) shutdown_delay: Duration,
    /// Time to finish after a signal
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "10s")]
    #[arg(help_heading = "Limits")]
    drain: Duration,

    /// Spin for up to DUR before blocking: lower latency, one full core
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "0")]
    #[arg(help_heading = "Limits")]
    busy_poll: Duration,

    /// Permissions of Unix sockets in octal
    #[arg(long, value_name = "OCTAL", value_parser = permissions, help_heading = "Listening")]
    #[arg(default_value = "600")]
    unix_mode: u32,

    #[command(flatten)]
    pub(super) tls: TlsOptions,

    #[command(flatten)]
    pub(super) faults: FaultOptions,

    /// Log statistics at this interval
    #[arg(long, value_name = "DUR", value_parser = parse_duration, help_heading = "Metrics")]
    pub(super) stats: Option<Duration>,
    /// Serve /metrics, /healthz and /readyz over HTTP
    #[arg(long, value_name = "ADDRESS", value_parser = tcp, help_heading = "Metrics")]
    metrics: Option<Endpoint>,
    /// Print events as JSON lines to stdout
    #[arg(long, help_heading = "Metrics")]
    pub(super) json: bool,
}

/// Parses the length of a datagram.
fn datagram_size(text: &str) -> Result<usize, String> {
    let size = size(text)?.get();
    if size > MAX_DATAGRAM_LEN {
        return Err(format!("must be at most {MAX_DATAGRAM_LEN} bytes"));
    }
    Ok(size)
}

/// Parses the idle time of keepalive.
fn keepalive(text: &str) -> Result<Duration, String> {
    let idle = parse_duration(text).map_err(|error| error.to_string())?;
    if idle > MAX_KEEPALIVE {
        return Err(format!("must be at most {}s", MAX_KEEPALIVE.as_secs()));
    }
    Ok(idle)
}

/// Parses a network or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let single = |_| text.parse().map(|ip: IpAddr| IpNet::from(ip));
    let not_a_network =
        |_: AddrParseError| "not a network such as 10.0.0.0/8 or 2001:db8::/32".into();
    text.parse().or_else(single).map_err(not_a_network)
}

/// Parses a TCP address.
fn tcp(text: &str) -> Result<Endpoint, String> {
    match text.parse() {
        Ok(Address::Tcp(endpoint)) => Ok(endpoint),
        Ok(_) => Err("not a TCP address (HOST:PORT)".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses file permissions.
fn permissions(text: &str) -> Result<u32, &'static str> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or("not octal permissions such as 660")
}

impl Options {
    /// Returns the configuration of a server that also gets `sockets`.
    pub(super) fn to_config(&self, sockets: &[PassedSocket]) -> Result<Config, CommandError> {
        self.check(sockets)?;
        let default = Config::default();
        Ok(Config {
            mode: match self.mode {
                ModeName::Line => Mode::Line,
                ModeName::Chunk => Mode::Chunk,
                ModeName::Discard => Mode::Discard,
                ModeName::Whoami => Mode::Whoami,
            },
            prefix: self.prefix.clone().unwrap_or_default().into(),
            chunk: self.chunk.unwrap_or(default.chunk),
            max_line: self.max_line.map_or(default.max_line, NonZeroUsize::get),
            max_datagram: self.udp_max.unwrap_or(default.max_datagram),
            max_buffered_bytes: default.max_buffered_bytes,
            threads: self.threads.map_or(default.threads, threads),
            max_connections: self.max_connections,
            max_per_ip: self.max_per_ip,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            proxy_protocol: self
                .proxy_protocol
                .map(|ProxyHeader::Require| ProxyProtocol {
                    trusted: self.proxy_from.clone(),
                }),
            keepalive: self.keepalive.unwrap_or(default.keepalive),
            idle_timeout: self.idle_timeout,
            shutdown_delay: self.shutdown_delay,
            drain_timeout: self.drain,
            unix_socket_mode: self.unix_mode,
            busy_poll: self.busy_poll,
            tls: self.tls.to_config(),
            metrics: self.metrics.clone(),
            admin: self.faults.admin(),
            fault_injection: self.faults.to_config(),
        })
    }

    /// Raises the descriptor limit and preallocates the table for the maximum number of
    /// connections.
    pub(super) fn raise_fd_limit(&self) -> io::Result<()> {
        nofile::raise_limit()?;
        nofile::preallocate_fd_table(self.max_connections.unwrap_or_else(nofile::available).get())
    }

    /// Rejects options without effect.
    fn check(&self, sockets: &[PassedSocket]) -> Result<(), CommandError> {
        if self.chunk.is_some() && self.mode != ModeName::Chunk {
            return Err(CommandError::usage(
                "--chunk has no effect without --mode chunk",
            ));
        }
        let has_lines = matches!(self.mode, ModeName::Line | ModeName::Whoami);
        if self.max_line.is_some() && !has_lines {
            return Err(CommandError::usage(
                "--max-line has no effect without --mode line or whoami",
            ));
        }
        let is_udp = |address: &Address| matches!(address, Address::Udp(_));
        let has_udp =
            self.addresses.iter().any(is_udp) || sockets.iter().any(|passed| passed.is_datagram);
        if self.udp_max.is_some() && !has_udp {
            return Err(CommandError::usage(
                "--udp-max has no effect without a udp:// address",
            ));
        }
        let only_udp = !self.addresses.is_empty() && self.addresses.iter().all(is_udp);
        if self.proxy_protocol.is_some() && only_udp {
            return Err(CommandError::usage(
                "--proxy-protocol has no effect on udp:// addresses",
            ));
        }
        if self.prefix.is_some() && self.mode == ModeName::Discard {
            return Err(CommandError::usage(
                "--prefix has no effect with --mode discard",
            ));
        }
        if self.idle_timeout == Some(Duration::ZERO) {
            let failure = CommandError::usage("--idle-timeout must be greater than 0");
            return Err(failure.hint("omit it to keep idle connections open"));
        }
        if self.stats == Some(Duration::ZERO) {
            return Err(CommandError::usage("--stats must be greater than 0"));
        }
        if !self.busy_poll.is_zero() && cfg!(not(target_os = "linux")) {
            return Err(CommandError::usage(
                "--busy-poll is only supported on Linux",
            ));
        }
        self.tls.check(&self.addresses, sockets)?;
        self.faults.check(self.mode, has_udp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use myapp::serve::{FaultInjection, LossBurst};
    use std::num::NonZeroU64;
    use std::thread::available_parallelism;

    use crate::exit_code::ExitCode;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn config(arguments: &[&str]) -> Result<Config, CommandError> {
        let arguments = [&["serve"], arguments].concat();
        Command::try_parse_from(arguments)
            .unwrap()
            .options
            .to_config(&[])
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        assert_eq!(config(&[]).unwrap(), Config::default());
        let default = Config::default();
        assert_eq!(default.chunk.get(), 64 << 10, "the help says 64K");
        assert_eq!(default.max_line, 1 << 20, "the help says 1M");
        assert_eq!(default.max_datagram, 65_507, "the help says 65507");
    }

    #[track_caller]
    fn assert_config(arguments: &[&str], expected: Config) {
        assert_eq!(config(arguments).unwrap(), expected, "{arguments:?}");
    }

    #[test]
    fn framing_options_set_their_fields() {
        let expected = Config {
            prefix: b"-> ".into(),
            max_line: 1024,
            ..Config::default()
        };
        assert_config(&["--prefix", "-> ", "--max-line", "1K"], expected);
        let expected = Config {
            mode: Mode::Chunk,
            chunk: NonZeroUsize::new(100).unwrap(),
            ..Config::default()
        };
        assert_config(&["--mode=chunk", "--chunk=100"], expected);
        let expected = Config {
            max_datagram: 1024,
            ..Config::default()
        };
        assert_config(&["udp://1", "--udp-max=1K"], expected);
        assert_eq!(config(&["--mode", "discard"]).unwrap().mode, Mode::Discard);
        let expected = Config {
            mode: Mode::Whoami,
            max_line: 9,
            ..Config::default()
        };
        assert_config(&["--mode=whoami", "--max-line=9"], expected);
    }

    #[test]
    fn access_options_set_their_fields() {
        let arguments = [
            "--max-connections=7",
            "--max-per-ip=2",
            "--allow=10.0.0.0/8",
            "--allow=::1",
            "--deny=10.1.0.0/16",
            "--metrics=9100",
            "--proxy-protocol=require",
            "--proxy-from=10.2.0.0/16",
            "--proxy-from=::2",
        ];
        let network = |text: &str| text.parse().unwrap();
        let expected = Config {
            max_connections: NonZeroUsize::new(7),
            max_per_ip: NonZeroUsize::new(2),
            allow: vec![network("10.0.0.0/8"), network("::1/128")],
            deny: vec![network("10.1.0.0/16")],
            metrics: Some(Endpoint::loopback(9100)),
            proxy_protocol: Some(ProxyProtocol {
                trusted: vec![network("10.2.0.0/16"), network("::2/128")],
            }),
            ..Config::default()
        };
        assert_config(&arguments, expected);
    }

    #[test]
    fn time_and_thread_options_set_their_fields() {
        let arguments = [
            "--idle-timeout=90s",
            "--drain=1m",
            "--threads=3",
            "--busy-poll=50us",
        ];
        let expected = Config {
            idle_timeout: Some(Duration::from_secs(90)),
            drain_timeout: Duration::from_secs(60),
            busy_poll: Duration::from_micros(50),
            threads: NonZeroUsize::new(3).unwrap(),
            ..Config::default()
        };
        assert_config(&arguments, expected);
        let cores = available_parallelism().unwrap();
        assert_eq!(config(&["--threads", "0"]).unwrap().threads, cores);
    }

    #[test]
    fn fault_options_set_their_fields() {
        let arguments = [
            "--delay=1s",
            "--jitter=2s",
            "--drop-rate=5%",
            "--loss-burst=1%,0.1,90%,0.1%",
            "--corrupt-rate=1%",
            "--duplicate-rate=2%",
            "--reorder-rate=3%",
            "--close-rate=4%",
            "--close-after=3s",
            "--reset-after=6G",
            "--accept-delay=4s",
            "--bandwidth=1M",
            "--slice=100",
            "--seed=7",
            "udp://1",
        ];
        let loss_burst = LossBurst {
            begin: 0.01,
            end: 0.1,
            loss_in_burst: 0.9,
            loss_otherwise: 0.001,
        };
        let expected = FaultInjection {
            delay: Duration::from_secs(1),
            jitter: Duration::from_secs(2),
            drop_rate: 0.05,
            loss_burst: Some(loss_burst),
            corrupt_rate: 0.01,
            duplicate_rate: 0.02,
            reorder_rate: 0.03,
            close_rate: 0.04,
            close_after: Some(Duration::from_secs(3)),
            reset_after: NonZeroU64::new(6 << 30),
            accept_delay: Duration::from_secs(4),
            bandwidth: NonZeroU64::new(1 << 20),
            slice: NonZeroUsize::new(100),
            seed: 7,
        };
        let fault_injection = config(&arguments).unwrap().fault_injection;
        assert_eq!(fault_injection, Some(expected));
    }

    #[test]
    fn options_without_effect_are_rejected() {
        for arguments in [
            &["--chunk", "100"] as &[_],
            &["--mode", "chunk", "--max-line", "100"],
            &["--mode", "discard", "--prefix", "x"],
            &["--idle-timeout", "0"],
            &["--stats", "0"],
            &["--seed", "7", "--delay", "1s"],
            &["--proxy-protocol=require", "--proxy-from=::1", "udp://1"],
            &["--mode", "discard", "--reset-after", "1"],
            &["--mode", "discard", "--slice", "1"],
            &["--loss-burst", "1%"],
            &["--duplicate-rate", "1%"],
            &["tcp://1", "--reorder-rate", "1%"],
        ] {
            assert_eq!(
                config(arguments).unwrap_err().code,
                ExitCode::Usage,
                "{arguments:?}"
            );
        }
    }
}
