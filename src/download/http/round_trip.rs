//! One request and its response head on one connection.

use std::io;

use futures_lite::future;

use super::connection::Connection;
use super::error::{ProtocolError, RoundTripError};
use super::response_head::{MAX_HEAD_LEN, ResponseHead, check_start, find_end};

/// Maximum number of informational responses (1xx) that are skipped.
const MAX_INFORMATIONAL: usize = 10;

/// Connection positioned after the response head.
pub(super) type ConnectionWithHead = (Box<Connection>, ResponseHead);

/// Sends a request and reads the head of the final response.
pub(super) async fn round_trip(
    mut connection: Box<Connection>,
    request: &[u8],
) -> Result<ConnectionWithHead, RoundTripError> {
    send(&mut connection, request).await?;
    for _ in 0..=MAX_INFORMATIONAL {
        let head = read_head(&mut connection).await?;
        match head.status() {
            101 => return Err(ProtocolError::UnexpectedUpgrade.into()),
            100..200 => {}
            _ => return Ok((connection, head)),
        }
    }
    Err(ProtocolError::TooManyInformational.into())
}

/// Sends a request and waits for the first bytes of the response.
async fn send(connection: &mut Connection, request: &[u8]) -> Result<(), RoundTripError> {
    let first = async {
        connection.write_all(request).await?;
        // Other tasks run first: the response may arrive meanwhile, which saves registering with
        // the reactor.
        future::yield_now().await;
        connection.fill().await
    };
    match first.await {
        Ok(0) => Err(RoundTripError::ClosedBeforeResponse),
        Ok(_) => Ok(()),
        Err(error) if is_closed(&error) => Err(RoundTripError::ClosedBeforeResponse),
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

async fn read_head(connection: &mut Connection) -> Result<ResponseHead, RoundTripError> {
    let mut seen = 0_usize;
    loop {
        let buffered = connection.buffered();
        if let Some(end) = find_end(buffered, seen.saturating_sub(2)) {
            let head = ResponseHead::parse(&buffered[..end])?;
            connection.consume(end);
            return Ok(head);
        }
        check_start(buffered)?;
        seen = buffered.len();
        if seen >= MAX_HEAD_LEN {
            return Err(ProtocolError::HeadTooLong.into());
        }
        if connection.fill().await? == 0 {
            return Err(RoundTripError::UnexpectedEof);
        }
    }
}
