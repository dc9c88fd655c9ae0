//! A connection to the server, over which messages go out and replies come back.

use std::future::Future;
use std::io;

use futures_lite::io::{ReadHalf, WriteHalf, split};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, future};
use tracing::info;

use crate::echo::config::Config;
use crate::echo::error::EchoError;
use crate::echo::message::{Inbox, LONGEST, Message, Reply, without_end};
use crate::escape::Escaped;
use crate::limits::timeout::timeout;

/// Bytes read at once.
const PIECE: usize = 16 << 10;

/// An open connection; closed, and logged as such, when dropped.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    inbox: Inbox,
    intact: bool,
}

/// Why a reply is not whole.
enum Cut {
    Closed,
    TooLong,
    Broken(io::Error),
    Late,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        let (reader, writer) = split(stream);
        Self {
            reader,
            writer,
            inbox: Inbox::default(),
            intact: true,
        }
    }

    /// Whether another message may follow: the last one was sent to its end and answered.
    pub(crate) fn is_intact(&self) -> bool {
        self.intact
    }

    /// Sends a message and waits for the line that answers it.
    pub(crate) async fn exchange(&mut self, message: &Message, config: &Config) -> Reply {
        info!(target: "myapp::traffic", text = %Escaped(message.text()), "sending");
        // Until the end, so that nobody goes on where this was dropped halfway.
        self.intact = false;
        // While verifying, a reply is known to be wrong as soon as it is longer than its message.
        let limit = if config.verify {
            message.bytes().len()
        } else {
            LONGEST
        };
        let sending = send(&mut self.writer, message.bytes());
        let work = both(sending, receive(&mut self.reader, &mut self.inbox, limit));
        let done = timeout(Some(config.server.timeout), work).await;
        let (sent, received) = done.unwrap_or((None, Err(Cut::Late)));
        self.intact = received.is_ok() && matches!(sent, Some(Ok(())));
        match received {
            Ok(bytes) => {
                info!(target: "myapp::traffic", text = %Escaped(without_end(&bytes)), "received");
                let outcome = if config.verify {
                    verify(message, &bytes, config)
                } else {
                    Ok(())
                };
                Reply { bytes, outcome }
            }
            Err(cut) => {
                let bytes = self.inbox.take_all();
                let unsent = sent.and_then(Result::err);
                let error = explain(cut, unsent, config, message, &bytes);
                Reply {
                    bytes,
                    outcome: Err(error),
                }
            }
        }
    }
}

impl<S> Drop for Connection<S> {
    fn drop(&mut self) {
        info!(target: "myapp::traffic", "closed");
    }
}

/// Why these bytes are not the reply.
fn explain(
    cut: Cut,
    unsent: Option<io::Error>,
    config: &Config,
    message: &Message,
    bytes: &[u8],
) -> EchoError {
    let (address, received) = (config.server.address.clone(), bytes.len() as u64);
    match (cut, unsent) {
        // It broke while sending: that the reply then did not come follows from it.
        (Cut::Closed | Cut::Broken(_), Some(source)) => EchoError::send(address, source),
        (Cut::Broken(source), None) => EchoError::receive(address, source),
        (Cut::Closed, None) => EchoError::Closed { address, received },
        (Cut::Late, _) => EchoError::TimedOut {
            address,
            limit: config.server.timeout,
            received,
        },
        (Cut::TooLong, _) => match message.difference(bytes) {
            Some(offset) if config.verify => EchoError::Differs { address, offset },
            _ => EchoError::TooLong {
                address,
                limit: LONGEST,
            },
        },
    }
}

pub(crate) fn verify(message: &Message, reply: &[u8], config: &Config) -> Result<(), EchoError> {
    let Some(offset) = message.difference(reply) else {
        return Ok(());
    };
    Err(EchoError::Differs {
        address: config.server.address.clone(),
        offset,
    })
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Reads until a line is whole. What came stays in the inbox if it is dropped halfway.
async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    inbox: &mut Inbox,
    limit: usize,
) -> Result<Vec<u8>, Cut> {
    let mut piece = vec![0; PIECE];
    loop {
        match inbox.take_line() {
            Some(line) => return Ok(line),
            None if inbox.len() > limit => return Err(Cut::TooLong),
            None => {}
        }
        match reader.read(&mut piece).await {
            Ok(0) => return Err(Cut::Closed),
            Ok(count) => inbox.add(&piece[..count]),
            Err(error) => return Err(Cut::Broken(error)),
        }
    }
}

/// Runs `send` beside `receive`, since a server may answer before it has read all; ends with
/// `receive`, and tells what came of `send` if that has ended too.
pub(crate) async fn both<T, U>(
    send: impl Future<Output = T>,
    receive: impl Future<Output = U>,
) -> (Option<T>, U) {
    let mut sent = None;
    let sending = async {
        sent = Some(send.await);
        future::pending().await
    };
    // `send` has the first turn: a line that is already here must not keep it from starting.
    let received = future::or(sending, receive).await;
    (sent, received)
}
