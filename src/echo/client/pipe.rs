//! Bytes as they are: an input to the server, the server to an output, both at once.

use std::cell::Cell;
use std::io;
use std::time::{Duration, Instant};

use futures_lite::io::split;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::echo::client::line::both;
use crate::echo::config::Server;
use crate::echo::error::EchoError;
use crate::limits::timeout::timeout;

/// Bytes that are on the way at once, in each direction.
const PIECE: usize = 64 << 10;

/// How long the end of the input may be behind the end of the server's bytes: a server that was
/// told to close may be quicker than our look at the input.
const GRACE: Duration = Duration::from_millis(100);

/// Why nothing more goes to the server.
enum Unsent {
    Input(io::Error),
    Server(io::Error),
}

/// Carries bytes over an open connection. See [`stream`](crate::echo::stream).
pub(crate) async fn carry(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    server: &Server,
) -> Result<(), EchoError> {
    let (mut reader, mut writer) = split(connection);
    // Since when it is the server's turn: to take what is written, or to answer all of it.
    let waiting = Cell::new(None);
    let sending = send(&mut input, &mut writer, &waiting);
    let receiving = receive(&mut reader, &mut output, &waiting, server);
    let (sent, received) = both(sending, receiving).await;
    let address = server.address.clone();
    match (sent, received) {
        (Some(Ok(())), received) => received,
        (Some(Err(Unsent::Server(source))), Ok(()) | Err(EchoError::Receive { .. })) => {
            Err(EchoError::send(address, source))
        }
        (Some(Err(Unsent::Input(source))), Ok(())) => Err(EchoError::Input { source }),
        (None, Ok(())) if waiting.get().is_none() && has_ended(&mut input).await => Ok(()),
        (None, Ok(())) => Err(EchoError::ClosedEarly { address }),
        (_, Err(error)) => Err(error),
    }
}

/// Sends the input to its end, then shuts down writing.
async fn send(
    input: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    waiting: &Cell<Option<Instant>>,
) -> Result<(), Unsent> {
    let mut piece = vec![0; PIECE];
    loop {
        let read = input.read(&mut piece).await;
        waiting.set(Some(Instant::now()));
        let count = match read {
            Ok(0) => return writer.close().await.map_err(Unsent::Server),
            Ok(count) => count,
            Err(error) => {
                // The server answers what it got; that it is not all is told at the end.
                writer.close().await.map_err(Unsent::Server)?;
                return Err(Unsent::Input(error));
            }
        };
        writer
            .write_all(&piece[..count])
            .await
            .map_err(Unsent::Server)?;
        waiting.set(None);
    }
}

/// Writes what comes to the output, each piece at once, to the end.
async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
    waiting: &Cell<Option<Instant>>,
    server: &Server,
) -> Result<(), EchoError> {
    let (address, limit) = (&server.address, server.timeout);
    let mut piece = vec![0; PIECE];
    loop {
        let count = match timeout(Some(limit), reader.read(&mut piece)).await {
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(count)) => count,
            Ok(Err(source)) => return Err(EchoError::receive(address.clone(), source)),
            // Silence is no failure while the input has more to come.
            Err(_) if waiting.get().is_none_or(|since| since.elapsed() < limit) => continue,
            Err(_) => {
                return Err(EchoError::Silent {
                    address: address.clone(),
                    limit,
                });
            }
        };
        let written = async {
            output.write_all(&piece[..count]).await?;
            output.flush().await
        };
        written
            .await
            .map_err(|source| EchoError::Output { source })?;
    }
}

/// Whether the input has nothing more.
async fn has_ended(input: &mut (impl AsyncRead + Unpin)) -> bool {
    matches!(timeout(Some(GRACE), input.read(&mut [0])).await, Ok(Ok(0)))
}
