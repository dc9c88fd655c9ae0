//! SOCKS5 client (RFC 1928) with user name and password authentication (RFC 1929).

use std::io;
use std::net::IpAddr;

use async_net::TcpStream;
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::download::http::basic_auth::BasicAuth;
use crate::download::http::error::ProxyError;
use crate::net::address::Host;

const VERSION: u8 = 5;
const NO_AUTH: u8 = 0;
const USERNAME_PASSWORD: u8 = 2;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Performs the SOCKS5 handshake; `stream` is then connected to `host`.
pub(in crate::download::http) async fn connect(
    stream: &mut TcpStream,
    basic_auth: Option<&BasicAuth>,
    host: &Host,
    port: u16,
) -> Result<(), ProxyError> {
    stream.write_all(&greeting(basic_auth)).await?;
    match (read::<2>(stream).await?, basic_auth) {
        ([VERSION, NO_AUTH], _) => {}
        ([VERSION, USERNAME_PASSWORD], Some(basic_auth)) => {
            authenticate(stream, basic_auth).await?
        }
        ([VERSION, NO_METHOD], None) => return Err(ProxyError::AuthRequired),
        ([VERSION, NO_METHOD], Some(_)) => return Err(ProxyError::AuthRejected),
        _ => return Err(ProxyError::NotSocks5),
    }
    stream.write_all(&request(host, port)?).await?;
    let [version, reply, _, kind] = read(stream).await?;
    match (version, reply) {
        (VERSION, 0) => skip_address(stream, kind).await,
        (VERSION, reply) => Err(ProxyError::Socks { reply }),
        _ => Err(ProxyError::NotSocks5),
    }
}

/// Encodes the method selection message (RFC 1928 section 3).
fn greeting(basic_auth: Option<&BasicAuth>) -> Vec<u8> {
    match basic_auth {
        None => vec![VERSION, 1, NO_AUTH],
        Some(_) => vec![VERSION, 2, NO_AUTH, USERNAME_PASSWORD],
    }
}

async fn authenticate(stream: &mut TcpStream, basic_auth: &BasicAuth) -> Result<(), ProxyError> {
    let mut message = vec![1];
    for part in [basic_auth.user(), basic_auth.password()] {
        message.push(length(part)?);
        message.extend_from_slice(part.as_bytes());
    }
    stream.write_all(&message).await?;
    match read::<2>(stream).await? {
        [_, 0] => Ok(()),
        _ => Err(ProxyError::AuthRejected),
    }
}

/// Encodes the CONNECT request (RFC 1928 section 4).
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
        Host::Any | Host::Zoned { .. } => return Err(ProxyError::UnsupportedHost),
    }
    message.extend(port.to_be_bytes());
    Ok(message)
}

fn length(text: &str) -> Result<u8, ProxyError> {
    u8::try_from(text.len()).map_err(|_| ProxyError::UnsupportedHost)
}

/// Skips the bound address of the reply, which is not needed.
async fn skip_address(stream: &mut TcpStream, kind: u8) -> Result<(), ProxyError> {
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => usize::from(read::<1>(stream).await?[0]),
        _ => return Err(ProxyError::NotSocks5),
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
    fn request_encodes_each_host_type() {
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
            Err(ProxyError::UnsupportedHost)
        ));
    }
}
