//! From a name to a connection.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use async_net::TcpStream;

use crate::limits::deadline::within;
use crate::net::address::{Address, Host};
use crate::net::stream::Stream;

/// How long one address has a lead on the next (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name does not resolve.
    #[error("resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No address took the connection; the cause is that of the first one that was tried.
    #[error("connect to {address}")]
    Connect {
        /// What was connected to.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// Resolving and connecting took too long.
    #[error("connect to {address}: timed out after {limit:?}")]
    TimedOut {
        /// What was connected to.
        address: Address,
        /// How long was waited.
        limit: Duration,
    },
}

/// Resolves `address` and connects to it as [`connect_to`] does, for at most `limit`.
///
/// # Errors
///
/// [`ConnectError`]; when all addresses fail, the error of the first.
///
/// # Cancel safety
///
/// When this is dropped halfway, the sockets of all attempts are closed.
pub async fn connect(address: &Address, limit: Duration) -> Result<TcpStream, ConnectError> {
    let work = async {
        let found = resolve(address).await?;
        connect_to(address, found).await
    };
    within(Some(limit), work)
        .await
        .unwrap_or_else(|_| Err(ConnectError::TimedOut { address: address.clone(), limit }))
}

/// Connects to `address`, which has been resolved to `found`.
///
/// The addresses are tried as [`first_to`] does. Small messages are sent at once
/// (`TCP_NODELAY`).
///
/// # Errors
///
/// [`ConnectError::Connect`] when all addresses fail, with the cause of the first.
///
/// # Cancel safety
///
/// When this is dropped halfway, the sockets of all attempts are closed.
pub async fn connect_to(
    address: &Address,
    found: Vec<SocketAddr>,
) -> Result<TcpStream, ConnectError> {
    let stream = first_to(found, TcpStream::connect).await.unwrap_or_else(|| Err(no_address()));
    stream
        .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        .map_err(|source| ConnectError::Connect { address: address.clone(), source })
}

/// Connects to `address`, which has been resolved to `found`, with a stream that is bound to this
/// thread; otherwise as [`connect_to`].
///
/// # Errors
///
/// Those of [`connect_to`].
///
/// # Cancel safety
///
/// That of [`connect_to`].
pub(crate) async fn connect_here(
    address: &Address,
    found: Vec<SocketAddr>,
) -> Result<Stream, ConnectError> {
    first_to(found, Stream::connect)
        .await
        .unwrap_or_else(|| Err(no_address()))
        .map_err(|source| ConnectError::Connect { address: address.clone(), source })
}

/// Finds the socket addresses of `address`, off the executor where a name must be resolved.
///
/// # Errors
///
/// [`ConnectError::Resolve`] where the name does not resolve, or to nothing.
///
/// # Cancel safety
///
/// When this is dropped halfway, the resolver goes on in the background and its answer is lost.
pub async fn resolve(address: &Address) -> Result<Vec<SocketAddr>, ConnectError> {
    let port = address.port;
    let name = match &address.host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
        Host::Any => {
            let both: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
            return Ok(both.map(|ip| SocketAddr::new(ip, port)).into());
        }
        Host::Name(name) => name,
    };
    let failed = |source| ConnectError::Resolve { host: name.clone(), source };
    let found = async_net::resolve((name.as_str(), port)).await.map_err(failed)?;
    if found.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "no address")));
    }
    Ok(found)
}

/// Puts the families in turn, starting with that of the first address (RFC 8305 section 4).
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut all = Vec::new();
    for address in first {
        all.push(address);
        all.extend(second.next());
    }
    all.extend(second);
    all
}

/// Makes `attempt` at each of these addresses until one succeeds, as in RFC 8305 ("Happy
/// Eyeballs"): the families in turn, the next 250 ms after the last or as soon as one has failed;
/// the first success wins and the other attempts are dropped. `None` if there is no address.
///
/// # Errors
///
/// When all attempts fail, the error of the first.
///
/// # Cancel safety
///
/// When this is dropped halfway, all attempts are dropped.
pub async fn first_to<T, E, A: Future<Output = Result<T, E>>>(
    found: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> A,
) -> Option<Result<T, E>> {
    let mut waiting = interleave(found).into_iter();
    let (mut running, mut failed) = (Vec::new(), None);
    loop {
        running.extend(waiting.next().map(|address| Box::pin(attempt(address))));
        if running.is_empty() {
            return failed.map(Err);
        }
        let lead = (waiting.len() > 0).then_some(ATTEMPT_DELAY);
        match within(lead, first_of(&mut running)).await {
            Ok(Err(error)) => failed = failed.or(Some(error)),
            Ok(success) => return Some(success),
            // It goes on beside the next.
            Err(_) => {}
        }
    }
}

/// The result of the first that ends, which is taken out.
async fn first_of<F: Future + Unpin>(running: &mut Vec<F>) -> F::Output {
    poll_fn(|cx| {
        for index in 0..running.len() {
            if let Poll::Ready(output) = Pin::new(&mut running[index]).poll(cx) {
                drop(running.remove(index));
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const LIMIT: Duration = Duration::from_secs(10);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_are_tried_in_turn() {
        let found = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let order = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
        assert_eq!(interleave(found.map(address).into()), order.map(address));
    }

    #[test]
    fn an_address_that_refuses_does_not_hide_one_that_answers() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        let stream = smol::block_on(first_to(vec![closed, open], TcpStream::connect));
        let stream = stream.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
    }

    #[test]
    fn when_all_refuse_the_first_cause_is_told() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = smol::block_on(connect(&Address::loopback(port), LIMIT)).unwrap_err();
        let ConnectError::Connect { source, .. } = &error else { panic!("{error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(error.to_string(), format!("connect to 127.0.0.1:{port}"));
    }

    #[test]
    fn a_name_is_resolved() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let localhost = Address { host: Host::Name("localhost".into()), port };
        assert!(smol::block_on(connect(&localhost, LIMIT)).is_ok());
        let nowhere = Address { host: Host::Name("no.such.host.invalid".into()), port };
        let error = smol::block_on(connect(&nowhere, LIMIT)).unwrap_err();
        assert!(matches!(error, ConnectError::Resolve { .. }), "{error:?}");
    }
}
