//! `myapp echo`.

mod tls;

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal as _};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, value_parser};
use futures_lite::{Stream, StreamExt, future, stream};
use myapp::echo::{
    self, Config, Connections, EchoError, LONGEST, LONGEST_DATAGRAM, Length, LoadConfig, Message,
    Payload, PingConfig, Reply, SMALLEST_DATAGRAM, Server,
};
use myapp::error_chain::ErrorChain;
use myapp::escape::Escaped;
use myapp::limits::nofile;
use myapp::measure::live::LiveStats;
use myapp::net::address::Address;
use myapp::net::connect::ConnectError;
use myapp::{runtime, units};
use smol::Unblock;
use tracing::warn;

use crate::commands::{number, threads};
use crate::exit_code::{Code, Failure};
use crate::output::atomic_file::NewFile;
use crate::output::echo::live::Line;
use crate::output::echo::origin::Origin;
use crate::output::log::Log;
use crate::output::{echo as output, stderr, stdout};
use crate::signals::Ending;
use crate::stdin;
use tls::TlsOptions;

/// Bytes of stdin and stdout that wait for each other with `--raw`.
const PIECE: usize = 64 << 10;

const EXAMPLES: &str = "\
Examples:
  myapp echo '¡Hola, servidor!' '¿Cómo estás?' Adiós
  myapp echo -c echo.example.com:7 -j 100 --verify < messages.txt
  tar c folder | myapp echo --raw | tar t
  myapp echo -c tls://echo.example.com:7007 --tls-ca ca.pem hello
  myapp echo -n 5
  myapp echo --interval 100ms --size 1K
  myapp echo --connections 50 --duration 30s --rate 10k --report report.html
  myapp echo -c udp://8888 -n 100 --interval 10ms --timeout 1s

Replies come in the order of the messages. What could harm a terminal is shown
escaped on one, but not with --raw.

Exit code: 0 all replies came, 1 one differs from its message, 2 usage,
3 a local file, 4 network, 5 TLS, 10 timeout, 11 too long; of several the lowest from
3 up.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("repeat").multiple(true))]
#[command(group = ArgGroup::new("load").multiple(true))]
#[command(group = ArgGroup::new("one-by-one").multiple(true).conflicts_with("repeat"))]
pub(crate) struct Options {
    /// What to send; without any, each line of standard input, as it comes
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
    /// [tcp|tls|udp://]HOST:PORT, PORT, unix:PATH [default: 127.0.0.1:8888]
    #[arg(short, long, value_name = "ADDRESS", help_heading = "Server")]
    connect: Option<Address>,
    /// For connecting, and for each reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = some_time)]
    #[arg(help_heading = "Server")]
    timeout: Duration,
    /// Try a failed connection, or a lost datagram, again so many times
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Server")]
    retry: u32,
    /// Connections at once; each message has one of its own
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "8",
        group = "one-by-one"
    )]
    #[arg(value_parser = number::<NonZeroUsize>, help_heading = "Messages")]
    jobs: NonZeroUsize,
    /// All messages in order over one connection
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
    /// Standard input to the server and its answer to standard output, byte for byte
    #[arg(long, help_heading = "Messages", group = "one-by-one")]
    #[arg(conflicts_with_all = ["messages", "jobs", "one_connection", "verify"])]
    raw: bool,
    /// Send a message N times and time each; with a load, N times in all
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        help_heading = "Ping",
        group = "repeat"
    )]
    #[arg(value_parser = number::<NonZeroU64>)]
    count: Option<NonZeroU64>,
    /// One so often, until there are N or Ctrl-C [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    #[arg(help_heading = "Ping", group = "repeat", conflicts_with = "load")]
    interval: Option<Duration>,
    /// Generate a message of this size [default: 64]
    #[arg(long, value_name = "SIZE", value_parser = some_size, help_heading = "Ping and load")]
    #[arg(requires = "repeat", conflicts_with = "messages")]
    size: Option<NonZeroU64>,
    /// Do not check every reply byte for byte
    #[arg(
        long,
        help_heading = "Ping and load",
        requires = "repeat",
        conflicts_with = "verify"
    )]
    no_verify: bool,
    /// The report as one JSON object
    #[arg(long, help_heading = "Ping and load", requires = "repeat")]
    json: bool,
    /// Keep asking for so long before sleeping: a core for latency
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "0")]
    #[arg(help_heading = "Ping and load", requires = "repeat")]
    busy_poll: Duration,
    /// Send a message again and again over C connections [default: 1]
    #[arg(long, value_name = "C", help_heading = "Load", groups = ["repeat", "load"])]
    #[arg(value_parser = number::<NonZeroU32>)]
    connections: Option<NonZeroU32>,
    /// For so long, if not -n times [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = some_time, help_heading = "Load")]
    #[arg(groups = ["repeat", "load"], conflicts_with = "count")]
    duration: Option<Duration>,
    /// Messages a second in all, on a fixed schedule
    #[arg(long, value_name = "R", value_parser = some_rate, help_heading = "Load")]
    #[arg(groups = ["repeat", "load"])]
    rate: Option<f64>,
    /// Messages on the way at once on each connection [default: 1]
    #[arg(long, value_name = "N", help_heading = "Load", groups = ["repeat", "load"])]
    #[arg(value_parser = number::<NonZeroUsize>)]
    in_flight: Option<NonZeroUsize>,
    /// Do not count what is due in the first so long
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "0")]
    #[arg(help_heading = "Load", requires = "load", conflicts_with = "count")]
    warmup: Duration,
    /// Open the connections over so long
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "0")]
    #[arg(help_heading = "Load", requires = "load")]
    ramp_up: Duration,
    /// Threads that send; 0 means one a core [default: half the cores]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(..=1024))]
    #[arg(help_heading = "Load", requires = "load")]
    threads: Option<u16>,
    /// A new connection for each message, to measure connecting too
    #[arg(
        long,
        help_heading = "Load",
        requires = "load",
        conflicts_with = "in_flight"
    )]
    new_connections: bool,
    /// The report as one HTML file too, with charts
    #[arg(
        long,
        value_name = "FILE.html",
        help_heading = "Load",
        requires = "load"
    )]
    report: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsOptions,
}

/// Reads a duration of more than nothing.
fn some_time(text: &str) -> Result<Duration, String> {
    match units::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than 0".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a size of at least one byte.
fn some_size(text: &str) -> Result<NonZeroU64, String> {
    let size = units::parse_size(text).map_err(|error| error.to_string())?;
    NonZeroU64::new(size).ok_or_else(|| "must be more than 0".into())
}

/// Reads a number of messages a second: more than 0, with `k`, `M` or `G` for thousands.
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
        .ok_or_else(|| "not a number of messages a second such as 0.5, 1000, 20k or 1M".into())
}

impl Options {
    fn to_server(&self) -> Server {
        Server {
            address: self.connect.clone().unwrap_or(Server::default().address),
            timeout: self.timeout,
            retries: self.retry,
            tls: self.tls.to_config(),
            tls_name: self.tls.tls_name.clone(),
        }
    }

    fn to_config(&self) -> Config {
        let connections = match self.one_connection {
            true => Connections::One,
            false => Connections::Each(self.jobs),
        };
        Config {
            server: self.to_server(),
            connections,
            verify: self.verify,
        }
    }

    /// Refuses what would have no effect.
    fn check(&self) -> Result<(), Failure> {
        match (self.tls.given(), &self.connect) {
            (None, _) | (_, Some(Address::Tls(_))) => Ok(()),
            (Some(name), _) => {
                let failure = Failure::usage(format!("{name} is for tls:// addresses"));
                Err(failure.hint("-c tls://HOST:PORT names such a server"))
            }
        }
    }

    /// Makes room for the connections of a load.
    pub(crate) fn make_room(&self) -> io::Result<()> {
        if !self.is_load() {
            return Ok(());
        }
        nofile::raise_limit()?;
        nofile::preallocate_fd_table(self.connections.map_or(1, |count| count.get() as usize))
    }

    /// Whether a server is put under load.
    fn is_load(&self) -> bool {
        let Self {
            connections,
            duration,
            rate,
            in_flight,
            ..
        } = self;
        connections.is_some() || duration.is_some() || rate.is_some() || in_flight.is_some()
    }

    /// Whether one message is sent again and again, each timed.
    fn is_ping(&self) -> bool {
        !self.is_load() && (self.count.is_some() || self.interval.is_some())
    }

    fn to_load(&self) -> Result<LoadConfig, Failure> {
        let default = LoadConfig::default();
        let count = self.count.map(|count| Length::Count(count.get()));
        Ok(LoadConfig {
            server: self.to_server(),
            payload: self.to_payload()?,
            connections: self.connections.unwrap_or(default.connections),
            length: self
                .duration
                .map(Length::Time)
                .or(count)
                .unwrap_or(default.length),
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

    fn to_ping(&self) -> Result<PingConfig, Failure> {
        let default = PingConfig::default();
        Ok(PingConfig {
            server: self.to_server(),
            payload: self.to_payload()?,
            count: self.count.map(NonZeroU64::get),
            interval: self.interval.unwrap_or(default.interval),
            verify: !self.no_verify,
            busy_poll: self.busy_poll,
        })
    }

    fn is_over_udp(&self) -> bool {
        matches!(self.connect, Some(Address::Udp(_)))
    }

    /// Refuses what has no number in it, or no room for one.
    fn check_datagram(&self, payload: &Payload) -> Result<(), Failure> {
        let (smallest, longest) = (SMALLEST_DATAGRAM as u64, LONGEST_DATAGRAM as u64);
        let failure = match payload {
            _ if !self.is_over_udp() => return Ok(()),
            Payload::Message(_) => "a message over udp:// again and again: it has no number in it",
            Payload::Generated(size) if size.get() < smallest => "--size is too small for udp://",
            Payload::Generated(size) if size.get() > longest => "--size is too large for udp://",
            Payload::Generated(_) => return Ok(()),
        };
        let hint = format!(
            "--size SIZE, from {smallest} to {longest}, makes messages that begin with their number"
        );
        Err(Failure::usage(failure).hint(hint))
    }

    /// What is sent again and again.
    fn to_payload(&self) -> Result<Payload, Failure> {
        let payload = self.any_payload()?;
        self.check_datagram(&payload)?;
        Ok(payload)
    }

    fn any_payload(&self) -> Result<Payload, Failure> {
        match (self.messages.as_slice(), self.size) {
            ([], None) => Ok(Payload::default()),
            ([], Some(size)) => Ok(Payload::Generated(size)),
            ([message], _) => argument(message.clone()).map(Payload::Message),
            _ => Err(Failure::usage(
                "send one message again and again: there are several",
            )),
        }
    }

    fn to_tally(&self, numbered: bool) -> Tally {
        Tally {
            numbered,
            default_address: self.connect.is_none(),
            ..Tally::default()
        }
    }
}

/// Runs the command until it is done or a signal ends it.
pub(crate) fn run(options: Options, room: io::Result<()>, log: &Log) -> Result<Code, Failure> {
    options.check()?;
    if let Err(error) = room {
        warn!(error = %ErrorChain(&error), "cannot make room for many open files");
    }
    let mut ending = Ending::catch().map_err(|error| Failure::new(Code::Failure, error))?;
    runtime::block_on(async {
        if options.is_load() {
            return load(&options, log, &mut ending).await;
        }
        if options.is_ping() {
            return ping(&options, &mut ending).await;
        }
        let work = async {
            match options.raw {
                true => raw(&options).await,
                false => messages(options).await,
            }
        };
        future::or(async { Ok(ending.next().await) }, work).await
    })
}

async fn raw(options: &Options) -> Result<Code, Failure> {
    if options.is_over_udp() {
        let failure = Failure::usage("--raw needs a stream, with an end to wait for: not udp://");
        return Err(failure.hint("without it, each line of standard input is a datagram"));
    }
    let stdin = stdin::unbuffered().map_err(unreadable)?;
    let stdin = Unblock::with_capacity(PIECE, stdin);
    let stdout = Unblock::with_capacity(PIECE, stdout::unbuffered()?);
    match echo::stream(stdin, stdout, &options.to_server()).await {
        Ok(()) => Ok(Code::Success),
        Err(EchoError::Output { source }) => Err(stdout::failed(source)),
        Err(EchoError::Input { source }) => Err(unreadable(source)),
        Err(error) => Err(failure(error, options.connect.is_none())),
    }
}

async fn ping(options: &Options, ending: &mut Ending) -> Result<Code, Failure> {
    let config = options.to_ping()?;
    let tally = options.to_tally(true);
    let sink = async |number, outcome: Result<Duration, EchoError>| {
        match outcome {
            Ok(_) if options.json => {}
            Ok(time) => {
                let line = output::ping_line(&config, number, time);
                stdout::print(line.into_bytes()).await?;
            }
            Err(error) => tally.count(Some(number), failure(error, tally.default_address)),
        }
        Ok::<_, Failure>(())
    };
    let ended = Cell::new(None);
    let stop = async { ended.set(Some(ending.next().await)) };
    let report = echo::ping(&config, stop, sink).await?;
    let text = match options.json {
        true => output::json::ping(&config, &report),
        false => output::ping_summary(&config, &report),
    };
    print_last(text, ending).await?;
    let lost = report.sent - report.times.count() - tally.failures.get();
    tally.count_silence(report.times.count(), lost, &config.server);
    Ok(ended.get().unwrap_or(tally.code.get()))
}

async fn load(options: &Options, log: &Log, ending: &mut Ending) -> Result<Code, Failure> {
    let config = options.to_load()?;
    check_room(&config)?;
    // What keeps it from being written is told before the load, not after it.
    let page = options.report.as_deref().map(NewFile::create).transpose()?;
    let ended = Cell::new(None);
    let stop = async { ended.set(Some(ending.next().await)) };
    let live = LiveStats::default();
    let line = (!log.quiet).then(|| Line::start(&log.screen, &config, &live));
    let report = echo::load(&config, stop, &live).await;
    drop(line);
    let report = report?;
    let written = page.map_or(Ok(()), |file| {
        let page = output::page::page(&config, &report, &Origin::here());
        file.write(
            page.map_err(|error| Failure::new(Code::Failure, error))?
                .as_bytes(),
        )
    });
    let text = match options.json {
        true => output::json::load(&config, &report),
        false => output::text::load(&config, &report),
    };
    print_last(text, ending).await?;
    written?;
    let tally = options.to_tally(false);
    let (answered, lost) = (report.answered(), report.lost);
    for failures in report.errors.into_values() {
        let more = failures.count - 1;
        let mut failure = failure(failures.first, tally.default_address);
        if more > 0 {
            failure.error = failure
                .error
                .context(format!("the first of {} like it", more + 1));
        }
        tally.count(None, failure);
    }
    tally.count_silence(answered, lost, &config.server);
    Ok(ended.get().unwrap_or(tally.code.get()))
}

/// Refuses more connections than the limit of file descriptors has room for beside the threads.
fn check_room(config: &LoadConfig) -> Result<(), Failure> {
    let connections = config.connections;
    let wanted = usize::try_from(connections.get()).unwrap_or(usize::MAX);
    let threads = config.threads.get().min(wanted);
    let room = nofile::available_after(threads * nofile::FDS_PER_WORKER);
    if wanted <= room.get() {
        return Ok(());
    }
    let text = format!("open {connections} connections: the descriptor limit allows {room}");
    Err(Failure::usage(text).hint("'ulimit -Hn' shows the limit; several runs share the load"))
}

/// Prints what is told at the end. If nobody reads it, another signal ends that too.
async fn print_last(text: String, ending: &mut Ending) -> Result<(), Failure> {
    let given_up = async {
        ending.next().await;
        Ok(())
    };
    future::or(given_up, stdout::print(text.into_bytes())).await
}

async fn messages(options: Options) -> Result<Code, Failure> {
    let config = options.to_config();
    let tally = options.to_tally(options.messages.len() != 1);
    let on_terminal = io::stdout().is_terminal();
    let print = async |number, reply: Reply| {
        let line = output::reply(reply.bytes, on_terminal);
        if !line.is_empty() {
            stdout::print(line).await?;
        }
        if let Err(error) = reply.outcome {
            tally.count(Some(number), failure(error, tally.default_address));
        }
        Ok::<_, Failure>(())
    };
    if options.messages.is_empty() {
        echo::run(typed(&tally), &config, print).await?;
    } else {
        let messages: Result<Vec<_>, _> = options.messages.into_iter().map(argument).collect();
        echo::run(stream::iter(messages?), &config, print).await?;
    }
    Ok(tally.code.get())
}

/// The message that an argument is.
fn argument(text: OsString) -> Result<Message, Failure> {
    let text = text.into_vec();
    let shown = Escaped(&text).to_string();
    Message::new(text).map_err(|error| {
        Failure::usage(format!("send message '{shown}': {error}"))
            .hint("each line is a message of its own; --raw sends standard input as it is")
    })
}

/// The messages that come as lines of stdin. What cannot be read is told and counted.
fn typed(tally: &Tally) -> impl Stream<Item = Message> {
    stdin::lines(LONGEST - 1).filter_map(|line| {
        let message = line.and_then(|text| Message::new(text).map_err(io::Error::other));
        message
            .map_err(|error| tally.count(None, unreadable(error)))
            .ok()
    })
}

/// The failures of a run, told as they come.
#[derive(Default)]
struct Tally {
    numbered: bool,
    default_address: bool,
    hinted: Cell<bool>,
    code: Cell<Code>,
    failures: Cell<u64>,
}

impl Tally {
    /// Datagrams get lost; if not one came back, that is a failure.
    fn count_silence(&self, answered: u64, lost: u64, server: &Server) {
        if answered == 0 && lost > 0 {
            let (address, limit) = (server.address.clone(), server.timeout);
            let error = EchoError::TimedOut {
                address,
                limit,
                received: 0,
            };
            self.count(None, failure(error, false));
        }
    }

    fn count(&self, number: Option<u64>, mut failure: Failure) {
        self.failures.set(self.failures.get() + 1);
        self.code.set(Code::of_all([self.code.get(), failure.code]));
        if let Some(number) = number.filter(|_| self.numbered) {
            failure.error = failure.error.context(format!("message {number}"));
        }
        // A thousand messages that are refused need one hint.
        failure.hint = failure.hint.filter(|_| !self.hinted.replace(true));
        stderr::report(&failure);
    }
}

impl From<EchoError> for Failure {
    fn from(error: EchoError) -> Self {
        failure(error, false)
    }
}

fn failure(error: EchoError, default_address: bool) -> Failure {
    let code = match &error {
        EchoError::Differs { .. } | EchoError::Mismatch { .. } | EchoError::Thread { .. } => {
            Code::Failure
        }
        EchoError::Connect(ConnectError::Zone { .. }) => Code::Usage,
        EchoError::TooLong { .. } => Code::TooLarge,
        EchoError::Setup(_) => Code::LocalFile,
        EchoError::Tls { .. } => Code::Tls,
        error if error.is_timeout() => Code::Timeout,
        _ => Code::Network,
    };
    let hint = match &error {
        EchoError::Tls { source, .. } => tls::hint(source),
        error if default_address && error.is_refused() => {
            Some("-c HOST:PORT names the server; 'myapp serve' starts one here".into())
        }
        _ => None,
    };
    Failure {
        hint,
        ..Failure::new(code, error)
    }
}

fn unreadable(error: io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::InvalidData => Code::TooLarge,
        _ => Code::LocalFile,
    };
    Failure::new(
        code,
        anyhow::Error::new(error).context("read standard input"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory as _, Parser};

    #[derive(Parser)]
    struct Echo {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn a_rate_is_a_number_of_messages_a_second() {
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
    fn the_defaults_are_those_of_the_library() {
        let options = Echo::parse_from(["echo"]).options;
        assert_eq!(options.to_config(), Config::default());
        assert_eq!(options.to_ping().unwrap(), PingConfig::default());
        assert_eq!(options.to_load().unwrap(), LoadConfig::default());
        let help = Echo::command().render_help().to_string();
        assert!(
            help.contains(&format!("[default: {}]", Server::default().address)),
            "{help}"
        );
    }
}
