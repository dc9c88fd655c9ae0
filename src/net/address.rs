//! Addresses as people type them: `8888`, `localhost:8888`, `[::1]:8888`, `:8888`,
//! `tcp://localhost:8888`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Where to listen or what to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The machine.
    pub host: Host,
    /// The TCP port; 0 lets the system choose one to listen on.
    pub port: u16,
}

/// The machine of an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// Every interface of this machine, IPv4 and IPv6; to connect to, this machine.
    Any,
    /// One address.
    Ip(IpAddr),
    /// A name that is to be resolved.
    Name(String),
}

/// A text that is no [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The port is missing.
    #[error("a port is missing (HOST:PORT)")]
    NoPort,
    /// The port is no number from 0 to 65535.
    #[error("the port is no number from 0 to 65535")]
    Port,
    /// An IPv6 address without brackets: where it ends and the port begins is anyone's guess.
    #[error("an IPv6 address needs brackets ([::1]:PORT)")]
    Brackets,
    /// Between the brackets stands no IPv6 address.
    #[error("between [ and ] stands no IPv6 address")]
    Ipv6,
    /// A host name with characters that no host name has.
    #[error("not a host name")]
    Name,
    /// A scheme other than `tcp://`.
    #[error("the scheme is not tcp://")]
    Scheme,
}

impl Address {
    /// An address on this machine's IPv4 loopback interface.
    pub const fn loopback(port: u16) -> Self {
        Self { host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)), port }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("tcp") => rest,
            Some(_) => return Err(AddressError::Scheme),
        };
        if let Some(bracketed) = rest.strip_prefix('[') {
            let (ip, port) = bracketed.split_once(']').ok_or(AddressError::Ipv6)?;
            let ip = ip.parse::<Ipv6Addr>().map_err(|_| AddressError::Ipv6)?;
            let port = port.strip_prefix(':').ok_or(AddressError::NoPort)?;
            return Ok(Self { host: Host::Ip(ip.into()), port: parse_port(port)? });
        }
        match rest.split_once(':') {
            Some((_, port)) if port.contains(':') => Err(AddressError::Brackets),
            Some((host, port)) => Ok(Self { host: parse_host(host)?, port: parse_port(port)? }),
            None if rest.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Self::loopback(parse_port(rest)?))
            }
            None => Err(AddressError::NoPort),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    // `parse` would also take a sign.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(AddressError::Port)
}

fn parse_host(text: &str) -> Result<Host, AddressError> {
    if text.is_empty() {
        return Ok(Host::Any);
    }
    if let Ok(ip) = text.parse() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    // Underscores stand in no host name of the standards, but in many of Docker and Kubernetes.
    let named = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if named && text.len() <= 253 { Ok(Host::Name(text.into())) } else { Err(AddressError::Name) }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, host: Host, port: u16) {
        assert_eq!(text.parse(), Ok(Address { host, port }), "{text}");
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        let v4 = |ip: [u8; 4]| Host::Ip(IpAddr::from(ip));
        let localhost = || Host::Name("localhost".into());
        reads("8888", v4([127, 0, 0, 1]), 8888);
        reads("0", v4([127, 0, 0, 1]), 0);
        reads(":8888", Host::Any, 8888);
        reads("localhost:8888", localhost(), 8888);
        reads("10.0.0.1:1", v4([10, 0, 0, 1]), 1);
        reads("[::1]:8888", Host::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST)), 8888);
        reads("tcp://localhost:8888", localhost(), 8888);
        reads("TCP://[::]:0", Host::Ip(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), 0);
        reads(
            "my_service-1.example.com:65535",
            Host::Name("my_service-1.example.com".into()),
            65535,
        );
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        for (text, error) in [
            ("", AddressError::Port),
            ("localhost", AddressError::NoPort),
            ("localhost:", AddressError::Port),
            ("localhost:+1", AddressError::Port),
            ("65536", AddressError::Port),
            ("localhost:http", AddressError::Port),
            ("::1:8888", AddressError::Brackets),
            ("[::1]", AddressError::NoPort),
            ("[::1", AddressError::Ipv6),
            ("[127.0.0.1]:1", AddressError::Ipv6),
            ("a b:1", AddressError::Name),
            ("http://localhost:1", AddressError::Scheme),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["127.0.0.1:8888", ":0", "[::1]:1", "localhost:80"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }
}
