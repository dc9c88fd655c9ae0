//! `myapp serve`.

mod failed;
mod faults;
mod tls;

use std::io;
use std::net::{AddrParseError, IpAddr};
use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::OwnedFd;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};
use futures_lite::{StreamExt as _, future};
use myapp::error_chain::ErrorChain;
use myapp::limits::timeout::race;
use myapp::limits::{nofile, shutdown};
use myapp::net::address::{Address, Endpoint};
use myapp::serve::{Config, Figures, IpNet, LONGEST_DATAGRAM, Mode, Server};
use myapp::units::{parse_duration, parse_size};
use smol::Timer;
use tracing::{info, warn};

use crate::commands::serve::failed::not_started;
use crate::commands::serve::faults::FaultOptions;
use crate::commands::serve::tls::TlsOptions;
use crate::commands::{number, threads};
use crate::exit_code::{Code, Failure};
use crate::output::log::Log;
use crate::output::serve::Events;
use crate::output::stderr;
use crate::signals::Ending;
use crate::systemd;

const EXAMPLES: &str = "\
Examples:
  myapp serve                    echo lines on 127.0.0.1:8888
  myapp serve :9000              on every interface, IPv4 and IPv6
  myapp serve 8888 '[::1]:8888' unix:/run/echo.sock
  myapp serve 8888 udp://8888    connections and datagrams
  myapp serve tls://:9443 --tls-cert cert.pem --tls-key key.pem
  myapp serve --mode chunk --chunk 100 --prefix 'You said: '
  myapp serve --idle-timeout 1m --max-connections 1000
  myapp serve :9000 --max-per-ip 10 --allow 10.0.0.0/8 --deny 10.66.0.0/16
  myapp serve --delay 200ms --jitter 100ms --drop-rate 5% --seed 7
  myapp serve --stats 10s --metrics 9100

ADDRESS is PORT (on 127.0.0.1), HOST:PORT, [::1]:PORT, [fe80::1%eth0]:PORT or
:PORT (on every interface), with udp:// before it for datagrams or tls:// for
TLS, or unix:PATH; port 0 lets the system choose. When all of them accept, each
is printed. SIZE is a number with nothing, K, M or G behind it (powers of 1024);
DUR a number with ms, s, m or h; CIDR a network such as 10.0.0.0/8 or
2001:db8::/32, or an address. --allow and --deny may be given several times;
they and --max-per-ip are not for Unix sockets.

On SIGINT or SIGTERM nothing new is accepted, what has been received is
answered, and the program ends with code 0; a second signal ends it at once.";

/// How long who reads stdout may take once a signal has come.
const LAST_LINE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Where to listen [default: 127.0.0.1:8888]
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<Address>,

    /// Answer each line, each chunk as it comes, or nothing
    #[arg(long, value_enum, default_value = "line", help_heading = "Answers")]
    mode: ModeName,
    /// Put TEXT before each answer
    #[arg(
        long,
        value_name = "TEXT",
        help_heading = "Answers",
        allow_hyphen_values = true
    )]
    prefix: Option<String>,
    /// In chunk mode, read at most so much at once [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Answers")]
    chunk: Option<NonZeroUsize>,
    /// In line mode, refuse longer lines [default: 1M]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Answers")]
    max_line: Option<NonZeroUsize>,
    /// Drop longer datagrams [default: 65507]
    #[arg(long, value_name = "SIZE", value_parser = datagram_size, help_heading = "Answers")]
    udp_max: Option<usize>,

    /// Threads that serve; 0 means one a core [default: half the cores]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(..=1024))]
    #[arg(help_heading = "Limits")]
    threads: Option<u16>,
    /// Connections at once; more wait [default: what the descriptor limit allows]
    #[arg(long, value_name = "N", value_parser = number::<NonZeroUsize>, help_heading = "Limits")]
    max_connections: Option<NonZeroUsize>,
    /// Connections of one address at once; more are closed [default: any number]
    #[arg(long, value_name = "N", value_parser = number::<NonZeroUsize>, help_heading = "Limits")]
    max_per_ip: Option<NonZeroUsize>,
    /// Serve this network, and others only if they are named so too
    #[arg(long, value_name = "CIDR", value_parser = network, help_heading = "Limits")]
    allow: Vec<IpNet>,
    /// Close connections from this network, also if it is allowed
    #[arg(long, value_name = "CIDR", value_parser = network, help_heading = "Limits")]
    deny: Vec<IpNet>,
    /// Close a connection that is silent for so long [default: never]
    #[arg(long, value_name = "DUR", value_parser = parse_duration, help_heading = "Limits")]
    idle_timeout: Option<Duration>,
    /// How long open connections may take to end after a signal
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "10s")]
    #[arg(help_heading = "Limits")]
    drain: Duration,

    /// Keep asking for so long before sleeping: a core for latency
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "0")]
    #[arg(help_heading = "Limits")]
    busy_poll: Duration,

    /// Permissions of Unix sockets, in octal
    #[arg(long, value_name = "OCTAL", value_parser = permissions, help_heading = "Listening")]
    #[arg(default_value = "600")]
    unix_mode: u32,

    #[command(flatten)]
    tls: TlsOptions,

    #[command(flatten)]
    faults: FaultOptions,

    /// Log a line of figures this often
    #[arg(long, value_name = "DUR", value_parser = parse_duration, help_heading = "Figures")]
    stats: Option<Duration>,
    /// Answer HTTP requests for /metrics here, for Prometheus
    #[arg(long, value_name = "ADDRESS", value_parser = tcp, help_heading = "Figures")]
    metrics: Option<Endpoint>,
    /// Tell addresses, figures and summary as JSON lines on stdout
    #[arg(long, help_heading = "Figures")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeName {
    Line,
    Chunk,
    Discard,
}

fn size(text: &str) -> Result<NonZeroUsize, String> {
    wide_size(text)?.try_into().map_err(|_| "too large".into())
}

/// A size that a datagram can have.
fn datagram_size(text: &str) -> Result<usize, String> {
    let size = size(text)?.get();
    let possible = Some(size).filter(|size| *size <= LONGEST_DATAGRAM);
    possible.ok_or_else(|| format!("no datagram is longer than {LONGEST_DATAGRAM} bytes"))
}

fn wide_size(text: &str) -> Result<NonZeroU64, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    NonZeroU64::new(size).ok_or_else(|| "must be more than 0".into())
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let single = |_| text.parse().map(|ip: IpAddr| IpNet::from(ip));
    let unread = |_: AddrParseError| "not a network such as 10.0.0.0/8 or 2001:db8::/32".into();
    text.parse().or_else(single).map_err(unread)
}

/// An address for TCP.
fn tcp(text: &str) -> Result<Endpoint, String> {
    match text.parse() {
        Ok(Address::Tcp(endpoint)) => Ok(endpoint),
        Ok(_) => Err("only TCP is possible here (HOST:PORT)".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The permissions of a file.
fn permissions(text: &str) -> Result<u32, &'static str> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or("not permissions in octal, such as 660")
}

impl Options {
    fn to_config(&self) -> Result<Config, Failure> {
        self.check()?;
        let default = Config::default();
        Ok(Config {
            mode: match self.mode {
                ModeName::Line => Mode::Line,
                ModeName::Chunk => Mode::Chunk,
                ModeName::Discard => Mode::Discard,
            },
            prefix: self.prefix.clone().unwrap_or_default().into(),
            chunk: self.chunk.unwrap_or(default.chunk),
            max_line: self.max_line.map_or(default.max_line, NonZeroUsize::get),
            udp_max: self.udp_max.unwrap_or(default.udp_max),
            max_partial: default.max_partial,
            threads: self.threads.map_or(default.threads, threads),
            max_connections: self.max_connections,
            max_per_ip: self.max_per_ip,
            allow: self.allow.clone(),
            deny: self.deny.clone(),
            idle_timeout: self.idle_timeout,
            drain: self.drain,
            unix_mode: self.unix_mode,
            busy_poll: self.busy_poll,
            tls: self.tls.to_config(),
            metrics: self.metrics.clone(),
            faults: self.faults.to_config(),
        })
    }

    /// Makes room for as many connections as there may be.
    pub(crate) fn make_room(&self) -> io::Result<()> {
        nofile::raise_limit()?;
        nofile::preallocate_fd_table(self.max_connections.unwrap_or_else(nofile::available).get())
    }

    /// Refuses options that would have no effect.
    fn check(&self) -> Result<(), Failure> {
        if self.chunk.is_some() && self.mode != ModeName::Chunk {
            return Err(Failure::usage("--chunk has no effect without --mode chunk"));
        }
        if self.max_line.is_some() && self.mode != ModeName::Line {
            return Err(Failure::usage(
                "--max-line has no effect without --mode line",
            ));
        }
        let over_udp = |address: &Address| matches!(address, Address::Udp(_));
        if self.udp_max.is_some() && !self.addresses.iter().any(over_udp) {
            return Err(Failure::usage(
                "--udp-max has no effect without a udp:// address",
            ));
        }
        if self.prefix.is_some() && self.mode == ModeName::Discard {
            return Err(Failure::usage("--prefix has no effect with --mode discard"));
        }
        if self.idle_timeout == Some(Duration::ZERO) {
            let failure = Failure::usage("--idle-timeout 0 would close every connection at once");
            return Err(failure.hint("leave it out to close none"));
        }
        if self.stats == Some(Duration::ZERO) {
            return Err(Failure::usage("--stats 0 would never stop telling figures"));
        }
        if !self.busy_poll.is_zero() && cfg!(not(target_os = "linux")) {
            return Err(Failure::usage("--busy-poll works on Linux alone"));
        }
        self.tls.check(&self.addresses)?;
        self.faults.check(self.mode)
    }
}

pub(crate) fn run(options: Options, room: io::Result<()>, _log: &Log) -> Result<Code, Failure> {
    let config = options.to_config()?;
    let sockets = systemd::sockets().map_err(|error| {
        let error = anyhow::Error::new(error).context("take over the sockets of LISTEN_FDS");
        Failure::new(Code::Usage, error)
    })?;
    if let Err(error) = room {
        warn!(error = %ErrorChain(&error), "cannot make room for many open files");
    }
    let of_a_thread = nofile::FDS_PER_WORKER + options.addresses.len().max(1);
    let room = nofile::available_after(config.threads.get() * of_a_thread);
    if let Some(wanted) = config.max_connections.filter(|wanted| *wanted > room) {
        warn!(%wanted, %room, "the limit of open files allows fewer connections than wanted");
    }
    if let Some(faults) = config
        .faults
        .as_ref()
        .filter(|_| options.faults.are_random())
    {
        info!(seed = faults.seed, "faults at random; --seed repeats them");
    }
    myapp::runtime::block_on(serve(&options, sockets, config))
}

async fn serve(options: &Options, sockets: Vec<OwnedFd>, config: Config) -> Result<Code, Failure> {
    let addresses = match options.addresses.as_slice() {
        [] if sockets.is_empty() => vec![Address::loopback(8888)],
        addresses => addresses.to_vec(),
    };
    let mut ending = Ending::catch().map_err(|error| Failure::new(Code::Failure, error))?;
    let server = Server::bind_with(sockets, &addresses, config)
        .await
        .map_err(not_started)?;
    if let Some(fingerprint) = server.fingerprint().filter(|_| options.tls.tls_self_signed) {
        stderr::say(&format!("certificate SHA-256: {fingerprint}\n"));
    }
    let events = Events { json: options.json };
    let Some(asked_to_end) = announce(&server, events, &mut ending).await? else {
        return Ok(Code::Success);
    };
    systemd::tell_ready();
    let figures = server.figures();
    let (stopper, stop) = shutdown::channel();
    let all = async {
        server.run(stop.wait()).await;
    };
    let signals = async {
        if !asked_to_end {
            ending.next().await;
        }
        info!(
            open = figures.summary().open,
            "stopping; a second signal ends at once"
        );
        stopper.trigger();
        systemd::tell_stopping();
        ending.next().await;
    };
    let end = async {
        future::or(all, signals).await;
        Ok(())
    };
    future::or(end, tell_stats(options.stats, &figures, events)).await?;
    let summary = figures.summary();
    match race(Timer::after(LAST_LINE), events.summary(&summary)).await {
        Ok(told) => told?,
        Err(_) => warn!("nobody reads the summary on stdout"),
    }
    Ok(Code::Success)
}

/// Tells the addresses, and returns whether a signal has come meanwhile: clients may wait all the
/// same. Nothing if nobody has read them when it had come; else it could not end the program.
async fn announce(
    server: &Server,
    events: Events,
    ending: &mut Ending,
) -> Result<Option<bool>, Failure> {
    let mut asked_to_end = false;
    let told = async {
        events
            .listening(server.local_addrs(), server.metrics_addr())
            .await
            .map(Some)
    };
    let given_up = async {
        ending.next().await;
        asked_to_end = true;
        Timer::after(LAST_LINE).await;
        Ok(None)
    };
    let told = future::or(told, given_up).await?;
    Ok(told.map(|()| asked_to_end))
}

/// Tells figures this often, or never, until stdout takes no more.
async fn tell_stats(
    period: Option<Duration>,
    figures: &Figures,
    events: Events,
) -> Result<(), Failure> {
    let Some(period) = period else {
        return future::pending().await;
    };
    let mut ticks = Timer::interval(period);
    let mut last = figures.summary();
    while ticks.next().await.is_some() {
        let now = figures.summary();
        events.stats(&last, &now).await?;
        last = now;
        // A period that is over at once must not keep the end from its turn.
        future::yield_now().await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use myapp::serve::Faults;
    use std::thread::available_parallelism;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        options: Options,
    }

    fn config(arguments: &[&str]) -> Result<Config, Failure> {
        let arguments = [&["serve"], arguments].concat();
        Only::try_parse_from(arguments).unwrap().options.to_config()
    }

    #[test]
    fn without_options_everything_is_the_librarys_default() {
        assert_eq!(config(&[]).unwrap(), Config::default());
        let default = Config::default();
        assert_eq!(default.chunk.get(), 64 << 10, "the help says 64K");
        assert_eq!(default.max_line, 1 << 20, "the help says 1M");
        assert_eq!(default.udp_max, 65_507, "the help says so");
    }

    #[test]
    fn every_option_arrives() {
        let line = config(&[
            "--prefix",
            "-> ",
            "--max-line",
            "1K",
            "--max-connections",
            "7",
        ]);
        let wanted = Config {
            prefix: b"-> ".into(),
            max_line: 1024,
            max_connections: NonZeroUsize::new(7),
            ..Config::default()
        };
        assert_eq!(line.unwrap(), wanted);
        let datagrams = config(&["udp://1", "--udp-max=1K"]);
        assert_eq!(
            datagrams.unwrap(),
            Config {
                udp_max: 1024,
                ..Config::default()
            }
        );
        let doors = [
            "--max-per-ip=2",
            "--allow=10.0.0.0/8",
            "--allow=::1",
            "--deny=10.1.0.0/16",
            "--metrics=9100",
        ];
        let network = |text: &str| text.parse().unwrap();
        let wanted = Config {
            max_per_ip: NonZeroUsize::new(2),
            allow: vec![network("10.0.0.0/8"), network("::1/128")],
            deny: vec![network("10.1.0.0/16")],
            metrics: Some(Endpoint::loopback(9100)),
            ..Config::default()
        };
        assert_eq!(config(&doors).unwrap(), wanted);
        let chunk = [
            "--mode=chunk",
            "--chunk=100",
            "--idle-timeout=90s",
            "--drain=1m",
            "--threads=3",
            "--busy-poll=50us",
        ];
        let wanted = Config {
            mode: Mode::Chunk,
            chunk: NonZeroUsize::new(100).unwrap(),
            idle_timeout: Some(Duration::from_secs(90)),
            drain: Duration::from_secs(60),
            busy_poll: Duration::from_micros(50),
            threads: NonZeroUsize::new(3).unwrap(),
            ..Config::default()
        };
        assert_eq!(config(&chunk).unwrap(), wanted);
        let faults = [
            "--delay=1s",
            "--jitter=2s",
            "--drop-rate=5%",
            "--reset-after=6G",
            "--seed=7",
        ];
        let wanted = Faults {
            delay: Duration::from_secs(1),
            jitter: Duration::from_secs(2),
            drop_rate: 0.05,
            reset_after: NonZeroU64::new(6 << 30),
            seed: 7,
        };
        assert_eq!(config(&faults).unwrap().faults, Some(wanted));
        assert_eq!(config(&["--mode", "discard"]).unwrap().mode, Mode::Discard);
        let cores = available_parallelism().unwrap();
        assert_eq!(config(&["--threads", "0"]).unwrap().threads, cores);
    }

    #[test]
    fn an_option_without_effect_is_refused() {
        for arguments in [
            &["--chunk", "100"] as &[_],
            &["--mode", "chunk", "--max-line", "100"],
            &["--mode", "discard", "--prefix", "x"],
            &["--idle-timeout", "0"],
            &["--stats", "0"],
            &["--seed", "7", "--delay", "1s"],
            &["--mode", "discard", "--reset-after", "1"],
        ] {
            assert_eq!(
                config(arguments).unwrap_err().code,
                Code::Usage,
                "{arguments:?}"
            );
        }
    }
}
