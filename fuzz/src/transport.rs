//! Differential fuzzing over loopback: our transport against hyper on the same bytes.

use std::sync::mpsc::channel;
use std::time::Duration;

use fastrand::Rng;
use futures_lite::AsyncReadExt as _;
use myapp::download::http::{Client, ClientConfig, HttpError, Response};
use smol::block_on;

use crate::grammar;
use crate::hyper;
use crate::outcome::{self, Outcome};
use crate::rules::{Counts, compare, normalize};
use crate::server::{Reply, Server};

/// Longer than any wait of a client that does not hang.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Maximum bytes of an endless response sent before the client must give up, most of them into
/// kernel buffers.
const MAX_ENDLESS_SENT: usize = 16 << 20;

/// Two responses for one client: the second on the same connection if it is persistent.
#[derive(Clone)]
pub struct Case {
    first: Sent,
    second: Sent,
    /// Length of the read buffer.
    buffer_len: usize,
}

/// Response bytes and the offsets at which they are split.
#[derive(Clone)]
struct Sent {
    bytes: Vec<u8>,
    cuts: Vec<usize>,
}

impl Sent {
    fn new(bytes: Vec<u8>, random: &mut Rng) -> Self {
        let cuts = grammar::cuts(&bytes, random);
        Self { bytes, cuts }
    }

    fn reply(&self, keep_alive: bool) -> Reply {
        Reply {
            pieces: grammar::pieces(&self.bytes, &self.cuts),
            keep_alive,
            ..Reply::default()
        }
    }
}

impl Case {
    pub fn new(random: &mut Rng) -> Self {
        let first = Sent::new(grammar::response(random), random);
        let second = if random.bool() {
            grammar::response(random)
        } else {
            grammar::valid()
        };
        let second = Sent::new(second, random);
        let buffer_len = [7, 1000, 32 << 10, 100_000][random.usize(..4)];
        Self {
            first,
            second,
            buffer_len,
        }
    }

    /// Runs the case.
    ///
    /// # Errors
    ///
    /// A description of the difference.
    pub fn check(&self, server: &Server, counts: &mut Counts) -> Result<(), String> {
        let mut replies = Vec::new();
        let mut hypers = Vec::new();
        let (sender, sent) = channel();
        for case in [&self.first, &self.second] {
            let normalized = normalize(&case.bytes);
            let complete =
                hyper::read(&normalized, false).filter(|it| matches!(it, Outcome::Complete(_)));
            let reply = Reply {
                sent: Some(sender.clone()),
                ..case.reply(complete.is_some())
            };
            replies.push(reply);
            hypers.push(
                complete
                    .or_else(|| hyper::read(&normalized, true))
                    .ok_or("hyper hangs")?,
            );
        }
        let mut replies = replies.into_iter().peekable();
        let mut last = Vec::new();
        server.set_handler(move |_| {
            // A request without response on a pooled connection is sent once more.
            let reply = replies.next().unwrap_or_else(|| Reply {
                pieces: last.clone(),
                ..Reply::default()
            });
            last.clone_from(&reply.pieces);
            reply
        });
        let client = client();
        for (case, theirs) in [&self.first, &self.second].into_iter().zip(&hypers) {
            let names = match theirs {
                Outcome::Complete(theirs) => {
                    theirs.fields.iter().map(|(name, _)| name.clone()).collect()
                }
                Outcome::Failed { .. } => Vec::new(),
            };
            let ours = block_on(read(&client, &server.url("f"), names, self.buffer_len));
            let _ = sent
                .recv_timeout(TIMEOUT)
                .map_err(|_| "the server gets no request")?;
            compare(&case.bytes, &ours, theirs, counts)?;
        }
        Ok(())
    }

    /// Returns slightly smaller cases.
    pub fn smaller(&self) -> impl Iterator<Item = Self> + '_ {
        let with = |first: Sent| Self {
            first,
            ..self.clone()
        };
        let firsts = smaller(&self.first).map(with);
        let valid = (self.second.bytes != grammar::valid()).then(|| Sent {
            bytes: grammar::valid(),
            cuts: Vec::new(),
        });
        let seconds = valid.into_iter().chain(smaller(&self.second));
        firsts.chain(seconds.map(|second| Self {
            second,
            ..self.clone()
        }))
    }
}

fn smaller(sent: &Sent) -> impl Iterator<Item = Sent> + '_ {
    let uncut = (!sent.cuts.is_empty()).then(|| Sent {
        bytes: sent.bytes.clone(),
        cuts: Vec::new(),
    });
    let length = sent.bytes.len();
    let sizes = std::iter::successors(Some(length / 2), |size| Some(size / 2));
    let ranges = sizes.take_while(|size| *size > 0).flat_map(move |size| {
        (0..length)
            .step_by(size)
            .map(move |at| at..(at + size).min(length))
    });
    uncut.into_iter().chain(ranges.map(|range| {
        let mut bytes = sent.bytes.clone();
        bytes.drain(range);
        let cuts = sent
            .cuts
            .iter()
            .copied()
            .filter(|cut| *cut < bytes.len())
            .collect();
        Sent { bytes, cuts }
    }))
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, sent) in [("first", &self.first), ("second", &self.second)] {
            let bytes = sent.bytes.escape_ascii();
            let cuts = &sent.cuts;
            writeln!(f, "{name} response: b\"{bytes}\", split at {cuts:?}")?;
        }
        write!(f, "read {} bytes at a time", self.buffer_len)
    }
}

fn client() -> Client {
    let config = ClientConfig {
        connect_timeout: TIMEOUT,
        idle_timeout: TIMEOUT,
        ..ClientConfig::default()
    };
    Client::new(config).expect("the default user agent is one")
}

async fn read(
    client: &Client,
    url: &str,
    mut names: Vec<String>,
    buffer_len: usize,
) -> Outcome<HttpError> {
    let url = url.parse().expect("a URL");
    let mut response = match client.get(&url, &[]).await {
        Ok(response) => response,
        Err(error) => {
            return Outcome::Failed {
                body: Vec::new(),
                error,
            };
        }
    };
    let mut body = Vec::new();
    if let Err(error) = read_body(&mut response, &mut body, buffer_len, usize::MAX).await {
        return Outcome::Failed { body, error };
    }
    names.dedup();
    let fields = names.iter().flat_map(|name| {
        response
            .headers(name)
            .map(|value| (name.clone(), value.to_vec()))
            .collect::<Vec<_>>()
    });
    let fields = fields.collect();
    Outcome::Complete(outcome::Response {
        status: response.status(),
        fields,
        body,
    })
}

async fn read_body(
    response: &mut Response,
    body: &mut Vec<u8>,
    buffer_len: usize,
    max_len: usize,
) -> Result<(), HttpError> {
    let mut buffer = vec![0; buffer_len];
    while body.len() < max_len {
        match response
            .read(&mut buffer)
            .await
            .map_err(HttpError::from_io)?
        {
            0 => return Ok(()),
            count => body.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(())
}

/// Endless responses: prefix and repeated unit.
const ENDLESS: [(&str, &str); 9] = [
    ("", "x"),
    ("HTTP/1.1 200 ", "x"),
    ("HTTP/1.1 200 OK\r\n", "A: b\r\n"),
    ("HTTP/1.1 200 OK\r\nA: ", "x"),
    ("HTTP/1.1 200 OK\r\nA: b", "\r\n c"),
    ("", "HTTP/1.1 100 Continue\r\n\r\n"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "0"),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        "x",
    ),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
        "T: u\r\n",
    ),
];

/// Runs one endless response.
///
/// # Errors
///
/// A description of the failure.
pub fn check_endless(server: &Server, random: &mut Rng) -> Result<(), String> {
    let (begins, unit) = ENDLESS[random.usize(..ENDLESS.len())];
    let (sender, sent) = channel();
    let pieces = vec![begins.into()];
    let endless = Some(unit.repeat(10_000 / unit.len()).into());
    let mut reply = Some(Reply {
        pieces,
        endless,
        sent: Some(sender),
        ..Reply::default()
    });
    server.set_handler(move |_| reply.take().unwrap_or_default());
    let ended = block_on(read(&client(), &server.url("f"), Vec::new(), 1000));
    let sent = sent
        .recv_timeout(TIMEOUT)
        .map_err(|_| "an endless response is not abandoned")?;
    match ended {
        Outcome::Failed {
            error: HttpError::Protocol { .. },
            ..
        } if sent < MAX_ENDLESS_SENT => Ok(()),
        ended => Err(format!(
            "{begins:?} and {unit:?} forever, {sent} bytes sent: {ended:?}"
        )),
    }
}
