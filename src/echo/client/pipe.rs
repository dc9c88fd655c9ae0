//! Pipe: an input to the server and the server to an output, concurrently and byte for byte.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use futures_lite::io::split;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::duplex::duplex;
use crate::echo::config::Target;
use crate::echo::error::Error;
use crate::limits::timeout::timeout;

/// Bytes buffered in each direction.
const CHUNK_LEN: usize = 64 << 10;

/// Time allowed for the end of the input after the end of the server's bytes: a server that closes
/// on request may do so before the end of the input has been read here.
const INPUT_EOF_TIMEOUT: Duration = Duration::from_millis(100);

/// Reason for the end of sending.
enum SendError {
    Input(io::Error),
    Server(io::Error),
}

/// Copies bytes over an open connection. See [`pipe`](crate::echo::pipe()).
pub(crate) async fn run(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    target: &Target,
) -> Result<(), Error> {
    let (mut reader, mut writer) = split(connection);
    // Set while the server has to act: to read the written bytes, or to answer all of them.
    let waiting_since = Cell::new(None);
    let sending = send(&mut input, &mut writer, &waiting_since);
    let receiving = receive(&mut reader, &mut output, &waiting_since, target);
    let (sent, received) = duplex(sending, receiving).await;
    let address = target.address.clone();
    match (sent, received) {
        (Some(Ok(())), received) => received,
        (Some(Err(SendError::Server(source))), Ok(()) | Err(Error::Receive { .. })) => {
            Err(Error::send(address, source))
        }
        (Some(Err(SendError::Input(source))), Ok(())) => Err(Error::Input { source }),
        (None, Ok(())) if waiting_since.get().is_none() && is_at_eof(&mut input).await => Ok(()),
        (None, Ok(())) => Err(Error::ClosedBeforeEof { address }),
        (_, Err(error)) => Err(error),
    }
}

/// Sends the input to its end, then shuts down writing.
async fn send(
    input: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    waiting_since: &Cell<Option<Instant>>,
) -> Result<(), SendError> {
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        let read = input.read(&mut chunk).await;
        waiting_since.set(Some(Instant::now()));
        let count = match read {
            Ok(0) => return writer.close().await.map_err(SendError::Server),
            Ok(count) => count,
            Err(error) => {
                // The server still replies to the bytes sent so far; the error is returned
                // after that.
                writer.close().await.map_err(SendError::Server)?;
                return Err(SendError::Input(error));
            }
        };
        writer
            .write_all(&chunk[..count])
            .await
            .map_err(SendError::Server)?;
        waiting_since.set(None);
    }
}

/// Copies received bytes to the output, each read at once, until the server closes its side.
async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
    waiting_since: &Cell<Option<Instant>>,
    target: &Target,
) -> Result<(), Error> {
    let limit = target.timeout;
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        let count = match timeout(Some(limit), reader.read(&mut chunk)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(count)) => count,
            Ok(Err(source)) => return Err(Error::receive(target.address.clone(), source)),
            // Silence is no failure while the input is idle.
            Err(_)
                if waiting_since
                    .get()
                    .is_none_or(|since| since.elapsed() < limit) =>
            {
                continue;
            }
            Err(_) => {
                return Err(Error::IdleTimeout {
                    address: target.address.clone(),
                    limit,
                });
            }
        };
        let written = async {
            output.write_all(&chunk[..count]).await?;
            output.flush().await
        };
        written.await.map_err(|source| Error::Output { source })?;
    }
}

/// Returns whether the input ends within [`INPUT_EOF_TIMEOUT`].
async fn is_at_eof(input: &mut (impl AsyncRead + Unpin)) -> bool {
    let read = timeout(Some(INPUT_EOF_TIMEOUT), input.read(&mut [0])).await;
    matches!(read, Ok(Ok(0)))
}
