//! `myapp serve`.

use std::io::{self, ErrorKind, Write as _};
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::{Args, ValueEnum, value_parser};
use futures_lite::future;
use myapp::limits::{descriptors, stop};
use myapp::net::address::Address;
use myapp::net::listener::ListenError;
use myapp::serve::{Config, Error, Mode, Server, Summary};
use myapp::units::{UnitError, parse_duration, parse_size};
use tracing::{info, warn};

use crate::exit::{Code, Failure};
use crate::output::log::Log;
use crate::signals::Ending;

const EXAMPLES: &str = "\
Examples:
  myapp serve                    echo lines on 127.0.0.1:8888
  myapp serve :9000              on every interface, IPv4 and IPv6
  myapp serve 8888 '[::1]:8888'  on several addresses
  myapp serve --mode chunk --chunk 100 --prefix 'You said: '
  myapp serve --idle-timeout 1m --max-connections 1000

ADDRESS is PORT (on 127.0.0.1), HOST:PORT, [::1]:PORT or :PORT (on every
interface); port 0 lets the system choose. When all of them accept, each is
printed. SIZE is a number with nothing, K, M or G behind it (powers of 1024);
DUR a number with ms, s, m or h.

On SIGINT or SIGTERM nothing new is accepted, what has been received is
answered, and the program ends with code 0; a second signal ends it at once.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Where to listen
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:8888")]
    addresses: Vec<Address>,

    /// Answer each line, each chunk as it comes, or nothing
    #[arg(long, value_enum, default_value = "line", help_heading = "Answers")]
    mode: ModeName,
    /// Put TEXT before each answer
    #[arg(long, value_name = "TEXT", help_heading = "Answers", allow_hyphen_values = true)]
    prefix: Option<String>,
    /// In chunk mode, read at most so much at once [default: 64K]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Answers")]
    chunk: Option<NonZeroUsize>,
    /// In line mode, refuse longer lines [default: 1M]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Answers")]
    max_line: Option<NonZeroUsize>,

    /// Threads that serve; 0 means one a core [default: half the cores]
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(..=1024))]
    #[arg(help_heading = "Limits")]
    threads: Option<u16>,
    /// Connections at once; more wait [default: what the descriptor limit allows]
    #[arg(long, value_name = "N", help_heading = "Limits")]
    max_connections: Option<NonZeroUsize>,
    /// Close a connection that is silent for so long [default: never]
    #[arg(long, value_name = "DUR", value_parser = parse_duration, help_heading = "Limits")]
    idle_timeout: Option<Duration>,
    /// How long open connections may take to end after a signal
    #[arg(long, value_name = "DUR", value_parser = parse_duration, default_value = "10s")]
    #[arg(help_heading = "Limits")]
    drain: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeName {
    Line,
    Chunk,
    Discard,
}

fn size(text: &str) -> Result<NonZeroUsize, UnitError> {
    let size = usize::try_from(parse_size(text)?).map_err(|_| UnitError::Size)?;
    NonZeroUsize::new(size).ok_or(UnitError::Size)
}

/// A number of threads; for 0, one a core.
fn threads(count: u16) -> NonZeroUsize {
    let one_a_core = || available_parallelism().unwrap_or(NonZeroUsize::MIN);
    NonZeroUsize::new(count.into()).unwrap_or_else(one_a_core)
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
            max_partial: default.max_partial,
            threads: self.threads.map_or(default.threads, threads),
            max_connections: self.max_connections,
            idle_timeout: self.idle_timeout,
            drain: self.drain,
        })
    }

    /// Refuses options that would have no effect.
    fn check(&self) -> Result<(), Failure> {
        if self.chunk.is_some() && self.mode != ModeName::Chunk {
            return Err(Failure::usage("--chunk has no effect without --mode chunk"));
        }
        if self.max_line.is_some() && self.mode != ModeName::Line {
            return Err(Failure::usage("--max-line has no effect without --mode line"));
        }
        if self.prefix.is_some() && self.mode == ModeName::Discard {
            return Err(Failure::usage("--prefix has no effect with --mode discard"));
        }
        if self.idle_timeout == Some(Duration::ZERO) {
            let failure = Failure::usage("--idle-timeout 0 would close every connection at once");
            return Err(failure.hint("leave it out to close none"));
        }
        Ok(())
    }
}

pub(crate) fn run(options: Options, _log: &Log) -> Result<Code, Failure> {
    let config = options.to_config()?;
    if let Err(error) = descriptors::raise() {
        warn!(%error, "cannot raise the limit of open files");
    }
    let room = descriptors::room();
    if let Some(wanted) = config.max_connections.filter(|wanted| *wanted > room) {
        warn!(%wanted, %room, "the limit of open files allows fewer connections than wanted");
    }
    myapp::runtime::run(serve(&options.addresses, config))
}

async fn serve(addresses: &[Address], config: Config) -> Result<Code, Failure> {
    let mut ending = Ending::catch().map_err(|error| Failure::new(Code::Failure, error))?;
    let server = Server::bind(addresses, config).await.map_err(not_started)?;
    announce(&server).map_err(not_announced)?;
    let figures = server.figures();
    let (stopper, stop) = stop::stop();
    let all = async {
        server.run(stop.stopped()).await;
    };
    let signals = async {
        ending.next().await;
        info!(open = figures.summary().open, "stopping; a second signal ends at once");
        stopper.stop();
        ending.next().await;
    };
    future::or(all, signals).await;
    log_summary(&figures.summary());
    Ok(Code::Success)
}

/// Says where the server listens: a line an address.
fn announce(server: &Server) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for address in server.local_addrs() {
        writeln!(stdout, "listening on tcp://{address}")?;
    }
    stdout.flush()
}

fn not_announced(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe => Failure::new(Code::BrokenPipe, error),
        _ => Failure::new(Code::LocalFile, anyhow::Error::new(error).context("write to stdout")),
    }
}

fn not_started(error: Error) -> Failure {
    let hint = hint(&error);
    let failure = Failure::new(Code::Network, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What helps against an address that cannot be had.
fn hint(error: &Error) -> Option<&'static str> {
    let Error::Listen(ListenError::Bind { source, .. }) = error else { return None };
    match source.kind() {
        ErrorKind::AddrInUse => Some("choose another port, or 0 to have a free one chosen"),
        ErrorKind::PermissionDenied => {
            Some("ports below 1024 need privileges (CAP_NET_BIND_SERVICE); choose a higher one")
        }
        ErrorKind::AddrNotAvailable => {
            Some("no interface of this machine has this address; :PORT listens on all of them")
        }
        _ => None,
    }
}

fn log_summary(summary: &Summary) {
    let Summary { connections, messages, received, sent, failed, refused, idle, cut, .. } = summary;
    let seconds = summary.elapsed.as_secs_f64();
    info!(connections, messages, received, sent, failed, refused, idle, cut, seconds, "summary");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

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
    }

    #[test]
    fn every_option_arrives() {
        let line = config(&["--prefix", "-> ", "--max-line", "1K", "--max-connections", "7"]);
        let wanted = Config {
            prefix: b"-> ".into(),
            max_line: 1024,
            max_connections: NonZeroUsize::new(7),
            ..Config::default()
        };
        assert_eq!(line.unwrap(), wanted);
        let chunk =
            ["--mode=chunk", "--chunk=100", "--idle-timeout=90s", "--drain=1m", "--threads=3"];
        let wanted = Config {
            mode: Mode::Chunk,
            chunk: NonZeroUsize::new(100).unwrap(),
            idle_timeout: Some(Duration::from_secs(90)),
            drain: Duration::from_secs(60),
            threads: NonZeroUsize::new(3).unwrap(),
            ..Config::default()
        };
        assert_eq!(config(&chunk).unwrap(), wanted);
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
        ] {
            assert_eq!(config(arguments).unwrap_err().code, Code::Usage, "{arguments:?}");
        }
    }
}
