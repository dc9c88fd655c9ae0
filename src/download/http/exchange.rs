//! One request and the head of its answer, on one connection.

use std::io;

use futures_lite::future;

use super::connection::Connection;
use super::error::{Failure, ProtocolError};
use super::head::{Head, MAX_HEAD, check_start, find_end};

/// The most interim answers (1xx) that are passed over.
const MAX_INTERIM: usize = 10;

/// A connection on which the head of an answer has been read.
pub(super) type Answered = (Box<Connection>, Head);

/// Sends a request and reads the head of its final answer.
pub(super) async fn ask(
    mut connection: Box<Connection>,
    request: &[u8],
) -> Result<Answered, Failure> {
    send(&mut connection, request).await?;
    for _ in 0..=MAX_INTERIM {
        let head = read_head(&mut connection).await?;
        match head.status() {
            101 => return Err(ProtocolError::Switch.into()),
            100..200 => {}
            _ => return Ok((connection, head)),
        }
    }
    Err(ProtocolError::Interim.into())
}

/// Sends a request and waits for the first bytes of the answer.
async fn send(connection: &mut Connection, request: &[u8]) -> Result<(), Failure> {
    let first = async {
        connection.write_all(request).await?;
        // An answer takes a moment: while others have their turn, it may come, and need not be
        // waited for, which costs as much as reading it.
        future::yield_now().await;
        connection.fill().await
    };
    match first.await {
        Ok(0) => Err(Failure::Closed),
        Ok(_) => Ok(()),
        Err(error) if is_closed(&error) => Err(Failure::Closed),
        Err(error) => Err(error.into()),
    }
}

fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

async fn read_head(connection: &mut Connection) -> Result<Head, Failure> {
    let mut seen = 0_usize;
    loop {
        let buffered = connection.buffered();
        if let Some(end) = find_end(buffered, seen.saturating_sub(2)) {
            let head = Head::parse(&buffered[..end])?;
            connection.consume(end);
            return Ok(head);
        }
        check_start(buffered)?;
        seen = buffered.len();
        if seen >= MAX_HEAD {
            return Err(ProtocolError::HeadTooLong.into());
        }
        if connection.fill().await? == 0 {
            return Err(Failure::Cut);
        }
    }
}
