//! Through a SOCKS5 proxy (RFC 1928), with a name and password where it wants them (RFC 1929).

use std::io;
use std::net::IpAddr;

use async_net::TcpStream;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};

use super::error::ProxyError;
use super::login::Login;
use crate::net::address::Host;

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const LOGIN: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Asks the proxy at the other end of `stream` for a connection, which the stream then is.
pub(super) async fn connect(
    stream: &mut TcpStream,
    login: Option<&Login>,
    host: &Host,
    port: u16,
) -> Result<(), ProxyError> {
    stream.write_all(&greeting(login)).await?;
    match (read::<2>(stream).await?, login) {
        ([VERSION, NO_LOGIN], _) => {}
        ([VERSION, LOGIN], Some(login)) => log_in(stream, login).await?,
        ([VERSION, NO_METHOD], None) => return Err(ProxyError::LoginRequired),
        ([VERSION, NO_METHOD], Some(_)) => return Err(ProxyError::LoginRefused),
        _ => return Err(ProxyError::NotSocks),
    }
    stream.write_all(&request(host, port)?).await?;
    let [version, reply, _, kind] = read(stream).await?;
    match (version, reply) {
        (VERSION, 0) => skip_address(stream, kind).await,
        (VERSION, reply) => Err(ProxyError::Socks { reply }),
        _ => Err(ProxyError::NotSocks),
    }
}

/// The ways to log in that are offered (RFC 1928 section 3).
fn greeting(login: Option<&Login>) -> Vec<u8> {
    match login {
        None => vec![VERSION, 1, NO_LOGIN],
        Some(_) => vec![VERSION, 2, NO_LOGIN, LOGIN],
    }
}

async fn log_in(stream: &mut TcpStream, login: &Login) -> Result<(), ProxyError> {
    let mut message = vec![1];
    for part in [login.user(), login.password()] {
        message.push(length(part)?);
        message.extend_from_slice(part.as_bytes());
    }
    stream.write_all(&message).await?;
    match read::<2>(stream).await? {
        [_, 0] => Ok(()),
        _ => Err(ProxyError::LoginRefused),
    }
}

/// What is wanted (RFC 1928 section 4).
fn request(host: &Host, port: u16) -> Result<Vec<u8>, ProxyError> {
    let mut message = vec![VERSION, CONNECT, 0];
    match host {
        Host::Ip(IpAddr::V4(ip)) => {
            message.push(IPV4);
            message.extend(ip.octets());
        }
        Host::Ip(IpAddr::V6(ip)) => {
            message.push(IPV6);
            message.extend(ip.octets());
        }
        Host::Name(name) => {
            message.extend([NAME, length(name)?]);
            message.extend(name.bytes());
        }
        Host::Any | Host::Zoned { .. } => return Err(ProxyError::Name),
    }
    message.extend(port.to_be_bytes());
    Ok(message)
}

fn length(text: &str) -> Result<u8, ProxyError> {
    u8::try_from(text.len()).map_err(|_| ProxyError::Name)
}

/// Where the proxy connects from is nothing to us.
async fn skip_address(stream: &mut TcpStream, kind: u8) -> Result<(), ProxyError> {
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(read::<1>(stream).await?[0]),
        _ => return Err(ProxyError::NotSocks),
    };
    let mut rest = vec![0; length + 2];
    Ok(stream.read_exact(&mut rest).await?)
}

async fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N], io::Error> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_a_host_in_the_form_that_it_has() {
        let asks = |host: Host| request(&host, 443).unwrap();
        assert_eq!(
            asks(Host::Ip([1, 2, 3, 4].into())),
            [5, 1, 0, 1, 1, 2, 3, 4, 1, 187]
        );
        assert_eq!(
            asks(Host::Name("ab".into())),
            [5, 1, 0, 3, 2, b'a', b'b', 1, 187]
        );
        let v6 = asks(Host::Ip("::1".parse().unwrap()));
        assert_eq!((&v6[..4], v6.len()), (&[5, 1, 0, 4][..], 22));
        assert!(matches!(
            request(&Host::Name("x".repeat(256)), 1),
            Err(ProxyError::Name)
        ));
    }
}
