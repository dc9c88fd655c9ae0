//! A connection through a proxy.

use std::net::SocketAddr;
use std::time::Duration;

use async_net::TcpStream;

use super::connection::{Connection, Stream};
use super::error::{Failure, ProxyError};
use super::exchange::ask;
use super::proxy::{Kind, Proxy};
use super::socks;
use crate::net::address::{Endpoint, Host};
use crate::net::connect::{ConnectError, connect_to, happy_eyeballs};
use crate::net::resolver::DnsCache;

/// Connects to the proxy, and through it to `to`, unless the proxy takes whole requests, as one
/// for HTTP does where there is no TLS.
pub(super) async fn open(
    proxy: &Proxy,
    to: &Endpoint,
    tls: bool,
    names: &DnsCache,
    idle: Duration,
) -> Result<TcpStream, ProxyError> {
    let socks = async |host: &Host| {
        let mut stream = dial(&proxy.address, names).await?;
        socks::connect(&mut stream, proxy.login.as_ref(), host, to.port).await?;
        Ok(stream)
    };
    match proxy.kind {
        Kind::Http if tls => tunnel(dial(&proxy.address, names).await?, proxy, to, idle).await,
        Kind::Http => Ok(dial(&proxy.address, names).await?),
        Kind::Socks5h => socks(&to.host).await,
        Kind::Socks5 => {
            let found = names.resolve(to).await.map_err(ConnectError::from)?;
            let reached = happy_eyeballs(found, async |address: SocketAddr| {
                match socks(&Host::Ip(address.ip())).await {
                    // Only this address is to map_decode_error: another may be reached.
                    Err(error @ ProxyError::Socks { .. }) => Err(error),
                    ended => Ok(ended),
                }
            });
            reached.await.unwrap_or(Err(ProxyError::Name)).flatten()
        }
    }
}

/// Connects without a proxy, or to one.
pub(super) async fn dial(address: &Endpoint, names: &DnsCache) -> Result<TcpStream, ConnectError> {
    let found = names.resolve(address).await.map_err(ConnectError::from)?;
    // Its name may lead elsewhere by now.
    connect_to(address, found)
        .await
        .inspect_err(|_| names.invalidate(address))
}

/// Asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6).
async fn tunnel(
    stream: TcpStream,
    proxy: &Proxy,
    to: &Endpoint,
    idle: Duration,
) -> Result<TcpStream, ProxyError> {
    let connection = Box::new(Connection::new(Stream::TcpOrUnix(stream), idle));
    let asked = ask(connection, request(proxy, to).as_bytes()).await;
    let (connection, head) = asked.map_err(|failure| match failure {
        Failure::Closed | Failure::Cut => ProxyError::Closed,
        Failure::Silent(limit) => ProxyError::Silent { limit },
        Failure::Io(source) => ProxyError::Io { source },
        Failure::Protocol(source) => ProxyError::Protocol { source },
        // There is none yet.
        Failure::Tls(_) => ProxyError::Closed,
    })?;
    match head.status() {
        200..300 => connection.into_plain().ok_or(ProxyError::Surplus),
        // 401 is wrong here, but what some proxies say (tinyproxy, to a wrong password).
        401 | 407 => Err(proxy.refusal()),
        status => Err(ProxyError::Refused { status }),
    }
}

fn request(proxy: &Proxy, to: &Endpoint) -> String {
    let login = proxy.login.as_ref();
    let login = login.map(|login| format!("Proxy-Authorization: {}\r\n", login.to_basic()));
    format!(
        "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{}\r\n",
        login.unwrap_or_default()
    )
}

impl Proxy {
    /// What it means that the proxy asks for a login.
    pub(super) fn refusal(&self) -> ProxyError {
        match self.login {
            None => ProxyError::LoginRequired,
            Some(_) => ProxyError::LoginRefused,
        }
    }
}
