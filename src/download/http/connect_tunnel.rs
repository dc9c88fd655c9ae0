//! Connection through a proxy (CONNECT or SOCKS5).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use async_net::TcpStream;

use super::connection::{Connection, Stream};
use super::error::{ProxyError, RoundTripError};
use super::proxy::socks;
use super::proxy::{Kind, Proxy};
use super::proxy_auth::ProxyAuth;
use super::round_trip::round_trip;
use crate::net::address::{Endpoint, Host};
use crate::net::connect::{ConnectError, connect_to, happy_eyeballs};
use crate::net::resolver::DnsCache;
use crate::net::tls::{TlsClient, TlsError};

/// Connects to the proxy, by TLS if `proxy_tls` is given, and opens a tunnel to `to`. Plain HTTP
/// through an HTTP proxy needs no tunnel: the request itself names the host.
pub(super) async fn open(
    proxy: &Proxy,
    auth: &mut ProxyAuth<'_>,
    proxy_tls: Option<&TlsClient>,
    to: &Endpoint,
    tls: bool,
    names: &DnsCache,
    idle: Duration,
) -> Result<Stream, ProxyError> {
    let socks = async |host: &Host| {
        let mut stream = dial(&proxy.address, names).await?;
        socks::connect(&mut stream, proxy.basic_auth.as_ref(), host, to.port).await?;
        Ok(Stream::Plain(stream))
    };
    match proxy.kind {
        Kind::Http | Kind::Https => loop {
            let stream = dial_http(proxy, proxy_tls, names).await?;
            if !tls {
                break Ok(stream);
            }
            if let Some(stream) = tunnel(stream, auth, to, idle).await? {
                break Ok(stream);
            }
        },
        Kind::Socks5h => socks(&to.host).await,
        Kind::Socks5 => {
            let found = names.resolve(to).await.map_err(ConnectError::from)?;
            let reached = happy_eyeballs(found, async |address: SocketAddr| {
                match socks(&Host::Ip(address.ip())).await {
                    // The error concerns this address only; another one may work.
                    Err(error @ ProxyError::Socks { .. }) => Err(error),
                    ended => Ok(ended),
                }
            });
            reached
                .await
                .unwrap_or(Err(ProxyError::UnsupportedHost))
                .flatten()
        }
    }
}

/// Resolves `address` and connects to it, without a proxy.
pub(super) async fn dial(address: &Endpoint, names: &DnsCache) -> Result<TcpStream, ConnectError> {
    let found = names.resolve(address).await.map_err(ConnectError::from)?;
    // The DNS entry may be stale.
    connect_to(address, found)
        .await
        .inspect_err(|_| names.invalidate(address))
}

/// Connects to an HTTP proxy, by TLS if `tls` is given.
async fn dial_http(
    proxy: &Proxy,
    tls: Option<&TlsClient>,
    names: &DnsCache,
) -> Result<Stream, ProxyError> {
    let tcp = dial(&proxy.address, names).await?;
    let Some(tls) = tls else {
        return Ok(Stream::Plain(tcp));
    };
    let connected = tls.connect(&proxy.address.host, tcp).await;
    Ok(Stream::Tls(Box::new(connected.map_err(tls_error)?)))
}

/// Performs a handshake with an origin over a stream that may be one to a proxy.
pub(super) async fn start_tls(
    tls: &TlsClient,
    host: &Host,
    stream: Stream,
) -> Result<Stream, TlsError> {
    match stream {
        Stream::Plain(tcp) => Ok(Stream::Tls(Box::new(tls.connect(host, tcp).await?))),
        Stream::Tls(outer) => {
            let inner = tls.connect(host, *outer).await?;
            Ok(Stream::TlsInTls(Box::new(inner)))
        }
        // A tunnel has no further layer.
        Stream::TlsInTls(_) => Err(TlsError::Io {
            source: io::ErrorKind::InvalidInput.into(),
        }),
    }
}

/// Requests a tunnel from an HTTP proxy (RFC 9110 section 9.3.6). Returns `None` if the request is
/// to be repeated with another authorization, over a new connection: many proxies close this one.
async fn tunnel(
    stream: Stream,
    auth: &mut ProxyAuth<'_>,
    to: &Endpoint,
    idle: Duration,
) -> Result<Option<Stream>, ProxyError> {
    let connection = Box::new(Connection::new(stream, idle));
    let authorization = auth.value("CONNECT", &to.to_string());
    let request = request(to, authorization.as_deref());
    let result = round_trip(connection, request.as_bytes()).await;
    let (connection, head) = result.map_err(|failure| match failure {
        RoundTripError::ClosedBeforeResponse | RoundTripError::UnexpectedEof => ProxyError::Closed,
        RoundTripError::TimedOut(limit) => ProxyError::TimedOut { limit },
        RoundTripError::Io(source) => ProxyError::Io { source },
        RoundTripError::Protocol(source) => ProxyError::Protocol { source },
        RoundTripError::Tls(source) => tls_error(source),
        // Unreachable: CONNECT has no body.
        RoundTripError::RequestBody(_) => ProxyError::Closed,
    })?;
    match head.status() {
        200..300 => match connection.into_stream() {
            Some(stream) => Ok(Some(stream)),
            None => Err(ProxyError::UnexpectedData),
        },
        // 401 is not valid here, but tinyproxy sends it for a wrong password.
        401 | 407 => auth.check_challenge(&head).map(|()| None),
        status => Err(ProxyError::Refused { status }),
    }
}

fn tls_error(source: TlsError) -> ProxyError {
    ProxyError::Tls {
        source: Box::new(source),
    }
}

fn request(to: &Endpoint, authorization: Option<&str>) -> String {
    let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n"));
    format!(
        "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n",
        authorization.unwrap_or_default()
    )
}
