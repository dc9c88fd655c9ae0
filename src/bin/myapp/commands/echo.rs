//! `myapp echo`.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal as _};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use clap::Args;
use futures_lite::{Stream, StreamExt, future, stream};
use myapp::echo::{self, Config, Connections, EchoError, LONGEST, Message, Reply, without_end};
use myapp::escape::Escaped;
use myapp::net::address::Address;
use myapp::{runtime, units};
use smol::Unblock;

use crate::exit::{Code, Failure};
use crate::input;
use crate::output::log::Log;
use crate::output::{results, terminal};
use crate::signals::Ending;

/// Bytes of stdin and stdout that wait for each other with `--raw`.
const PIECE: usize = 64 << 10;

const EXAMPLES: &str = "\
Examples:
  myapp echo '¡Hola, servidor!' '¿Cómo estás?' Adiós
  myapp echo -c echo.example.com:7 -j 100 --verify < messages.txt
  tar c folder | myapp echo --raw | tar t

Replies come in the order of the messages. What could harm a terminal is shown
escaped on one, but not with --raw.

Exit code: 0 all replies came, 1 one differs from its message, 2 usage,
3 a local file, 4 network, 10 timeout, 11 too long; of several the lowest from
3 up.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// What to send; without any, each line of standard input, as it comes
    #[arg(value_name = "MESSAGE")]
    messages: Vec<OsString>,
    /// PORT, HOST:PORT, [::1]:PORT or :PORT [default: 127.0.0.1:8888]
    #[arg(short, long, value_name = "ADDRESS", help_heading = "Server")]
    connect: Option<Address>,
    /// For connecting, and for each reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = some_time)]
    #[arg(help_heading = "Server")]
    timeout: Duration,
    /// Try a failed connection again so many times, after growing delays
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Server")]
    retry: u32,
    /// Connections at once; each message has one of its own
    #[arg(short, long, value_name = "N", default_value = "8", help_heading = "Messages")]
    jobs: NonZeroUsize,
    /// All messages in order over one connection
    #[arg(long, conflicts_with = "jobs", help_heading = "Messages")]
    one_connection: bool,
    /// Exit with 1 if a reply differs from its message
    #[arg(long, help_heading = "Messages")]
    verify: bool,
    /// Standard input to the server and its answer to standard output, byte for byte
    #[arg(long, help_heading = "Messages")]
    #[arg(conflicts_with_all = ["messages", "jobs", "one_connection", "verify"])]
    raw: bool,
}

/// Reads a duration of more than nothing.
fn some_time(text: &str) -> Result<Duration, String> {
    match units::parse_duration(text) {
        Ok(Duration::ZERO) => Err("must be more than 0".into()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(error.to_string()),
    }
}

impl Options {
    fn to_config(&self) -> Config {
        Config {
            address: self.connect.clone().unwrap_or(Config::default().address),
            connections: match self.one_connection {
                true => Connections::One,
                false => Connections::Each(self.jobs),
            },
            timeout: self.timeout,
            retries: self.retry,
            verify: self.verify,
        }
    }
}

/// Runs the command until it is done or a signal ends it.
pub(crate) fn run(options: Options, _log: &Log) -> Result<Code, Failure> {
    let mut ending = Ending::catch().map_err(|error| Failure::new(Code::Failure, error))?;
    let config = options.to_config();
    let work = async {
        match options.raw {
            true => raw(&config, options.connect.is_none()).await,
            false => messages(options, &config).await,
        }
    };
    runtime::run(future::or(async { Ok(ending.next().await) }, work))
}

async fn raw(config: &Config, default_address: bool) -> Result<Code, Failure> {
    let stdin = input::unbuffered().map_err(unreadable)?;
    let stdin = Unblock::with_capacity(PIECE, stdin);
    let stdout = Unblock::with_capacity(PIECE, results::unbuffered()?);
    match echo::stream(stdin, stdout, config).await {
        Ok(()) => Ok(Code::Success),
        Err(EchoError::Output { source }) => Err(results::failed(source)),
        Err(EchoError::Input { source }) => Err(unreadable(source)),
        Err(error) => Err(failure(error, default_address)),
    }
}

async fn messages(options: Options, config: &Config) -> Result<Code, Failure> {
    let tally = Tally {
        numbered: options.messages.len() != 1,
        default_address: options.connect.is_none(),
        ..Tally::default()
    };
    let on_terminal = io::stdout().is_terminal();
    let print = async |number, reply: Reply| {
        let line = shown(reply.bytes, on_terminal);
        if !line.is_empty() {
            results::print(line).await?;
        }
        if let Err(error) = reply.outcome {
            tally.count(Some(number), failure(error, tally.default_address));
        }
        Ok(())
    };
    if options.messages.is_empty() {
        echo::run(typed(&tally), config, print).await?;
    } else {
        let messages: Result<Vec<_>, _> = options.messages.into_iter().map(argument).collect();
        echo::run(stream::iter(messages?), config, print).await?;
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
    input::lines(LONGEST - 1).filter_map(|line| {
        let message = line.and_then(|text| Message::new(text).map_err(io::Error::other));
        message.map_err(|error| tally.count(None, unreadable(error))).ok()
    })
}

/// What a reply looks like on stdout: as it is, or on a terminal so that it cannot harm it; in
/// both cases one line, also of a reply that broke off in the middle.
fn shown(mut reply: Vec<u8>, on_terminal: bool) -> Vec<u8> {
    if reply.is_empty() {
        return reply;
    }
    if on_terminal {
        reply = Escaped(without_end(&reply)).to_string().into_bytes();
    }
    if !reply.ends_with(b"\n") {
        reply.push(b'\n');
    }
    reply
}

/// The failures of a run, told as they come.
#[derive(Default)]
struct Tally {
    numbered: bool,
    default_address: bool,
    hinted: Cell<bool>,
    code: Cell<Code>,
}

impl Tally {
    fn count(&self, number: Option<u64>, mut failure: Failure) {
        self.code.set(Code::of_all([self.code.get(), failure.code]));
        if let Some(number) = number.filter(|_| self.numbered) {
            failure.error = failure.error.context(format!("message {number}"));
        }
        // A thousand messages that are refused need one hint.
        failure.hint = failure.hint.filter(|_| !self.hinted.replace(true));
        terminal::report(&failure);
    }
}

fn failure(error: EchoError, default_address: bool) -> Failure {
    let code = match &error {
        EchoError::Differs { .. } => Code::Failure,
        EchoError::TooLong { .. } => Code::TooLarge,
        error if error.is_timeout() => Code::Timeout,
        _ => Code::Network,
    };
    let refused = error.is_refused();
    let failure = Failure::new(code, error);
    if default_address && refused {
        return failure.hint("-c HOST:PORT names the server; 'myapp serve' starts one here");
    }
    failure
}

fn unreadable(error: io::Error) -> Failure {
    let code = match error.kind() {
        ErrorKind::InvalidData => Code::TooLarge,
        _ => Code::LocalFile,
    };
    Failure::new(code, anyhow::Error::new(error).context("read standard input"))
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
    fn the_defaults_are_those_of_the_library() {
        let options = Echo::parse_from(["echo"]).options;
        assert_eq!(options.to_config(), Config::default());
        let help = Echo::command().render_help().to_string();
        assert!(help.contains(&format!("[default: {}]", Config::default().address)), "{help}");
    }

    #[track_caller]
    fn shows(reply: &[u8], raw: &[u8], on_terminal: &str) {
        assert_eq!(shown(reply.to_vec(), false), raw);
        assert_eq!(String::from_utf8(shown(reply.to_vec(), true)).unwrap(), on_terminal);
    }

    #[test]
    fn a_reply_is_one_line_and_harmless_on_a_terminal() {
        shows(b"hola\n", b"hola\n", "hola\n");
        shows(b"ho", b"ho\n", "ho\n");
        shows(b"\n", b"\n", "\n");
        shows(b"", b"", "");
        shows(b"\x1b[2J\xff\r\n", b"\x1b[2J\xff\r\n", "\\x1b[2J\\xff\\r\n");
    }
}
