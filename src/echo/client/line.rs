//! Line client: one message and one reply at a time over a connection.

use std::io;

use futures_lite::io::{ReadHalf, WriteHalf, split};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tracing::debug;

use super::duplex::duplex;
use super::verify::verify;
use crate::echo::config::Config;
use crate::echo::error::Error;
use crate::echo::message::{LineBuffer, MAX_MESSAGE_LEN, Message, Reply, trim_newline};
use crate::escape::Escaped;
use crate::limits::timeout::timeout;

/// Bytes per read.
const READ_CHUNK_LEN: usize = 16 << 10;

/// Client on an open connection, which is closed and logged as such on drop.
#[derive(Debug)]
pub(crate) struct LineClient<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    buffer: LineBuffer,
    intact: bool,
}

/// Reason for an incomplete reply.
enum ReceiveError {
    Eof,
    TooLong,
    Io(io::Error),
    Timeout,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LineClient<S> {
    pub(crate) fn new(stream: S) -> Self {
        let (reader, writer) = split(stream);
        Self {
            reader,
            writer,
            buffer: LineBuffer::default(),
            intact: true,
        }
    }

    /// Returns whether another message can follow: the last one was sent completely and has its
    /// reply.
    pub(crate) fn is_intact(&self) -> bool {
        self.intact
    }

    /// Sends a message and waits for the line in reply.
    pub(crate) async fn exchange(&mut self, message: &Message, config: &Config) -> Reply {
        debug!(target: "myapp::traffic", text = %Escaped(message.text()), "sending");
        // Cleared first, so that a connection is not reused after a cancelled exchange.
        self.intact = false;
        // With verification, a reply longer than its message is already known to be wrong.
        let limit = if config.verify {
            message.bytes().len()
        } else {
            MAX_MESSAGE_LEN
        };
        let sending = send(&mut self.writer, message.bytes());
        let work = duplex(sending, receive(&mut self.reader, &mut self.buffer, limit));
        let finished = timeout(Some(config.target.timeout), work).await;
        let (sent, received) = finished.unwrap_or((None, Err(ReceiveError::Timeout)));
        self.intact = received.is_ok() && matches!(sent, Some(Ok(())));
        match received {
            Ok(bytes) if message.is_rejected_by(&bytes) => {
                // The server closes the connection.
                self.intact = false;
                let address = config.target.address.clone();
                Reply {
                    bytes: Vec::new(),
                    outcome: Err(Error::LineRejected { address }),
                    discarded: 0,
                }
            }
            Ok(bytes) => {
                debug!(target: "myapp::traffic", text = %Escaped(trim_newline(&bytes)), "received");
                let outcome = verify(message, &bytes, config);
                Reply {
                    bytes,
                    outcome,
                    discarded: 0,
                }
            }
            Err(error) => {
                let bytes = self.buffer.take_all();
                let send_error = sent.and_then(Result::err);
                let outcome = Err(to_error(error, send_error, config, message, &bytes));
                Reply {
                    bytes,
                    outcome,
                    discarded: 0,
                }
            }
        }
    }
}

impl<S> Drop for LineClient<S> {
    fn drop(&mut self) {
        debug!(target: "myapp::traffic", "closed");
    }
}

/// Returns the error for an incomplete reply of which `bytes` were received.
fn to_error(
    error: ReceiveError,
    send_error: Option<io::Error>,
    config: &Config,
    message: &Message,
    bytes: &[u8],
) -> Error {
    let address = config.target.address.clone();
    let received = bytes.len() as u64;
    match (error, send_error) {
        // Sending failed; the missing reply is only a consequence.
        (ReceiveError::Eof | ReceiveError::Io(_), Some(source)) => Error::send(address, source),
        (ReceiveError::Io(source), None) => Error::receive(address, source),
        (ReceiveError::Eof, None) => Error::UnexpectedEof { address, received },
        (ReceiveError::Timeout, _) => Error::ReplyTimeout {
            address,
            limit: config.target.timeout,
            received,
        },
        (ReceiveError::TooLong, _) => match verify(message, bytes, config) {
            Err(mismatch) => mismatch,
            Ok(()) => Error::ReplyTooLong {
                address,
                limit: MAX_MESSAGE_LEN,
            },
        },
    }
}

async fn send(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}

/// Reads until a line is complete. Received bytes stay in `buffer` if the future is dropped.
async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut LineBuffer,
    limit: usize,
) -> Result<Vec<u8>, ReceiveError> {
    let mut chunk = vec![0; READ_CHUNK_LEN];
    loop {
        if let Some(line) = buffer.take_line() {
            return Ok(line);
        }
        if buffer.len() > limit {
            return Err(ReceiveError::TooLong);
        }
        match reader.read(&mut chunk).await {
            Ok(0) => return Err(ReceiveError::Eof),
            Ok(count) => buffer.add(&chunk[..count]),
            Err(error) => return Err(ReceiveError::Io(error)),
        }
    }
}
