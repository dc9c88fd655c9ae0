//! Addresses in their textual form: `8888`, `localhost:8888`, `[::1]:8888`, `[fe80::1%eth0]:8888`,
//! `:8888`, `tcp://localhost:8888`, `udp://…`, `tls://…`, `unix:/run/echo.sock`, `unix:@name`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::digits::parse_digits;

/// Address to listen on or to connect to, with its transport.
///
/// Displayed in the form in which it is parsed, without `tcp://`; [`to_url`](Self::to_url) always
/// includes the scheme.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// TCP: `HOST:PORT` or `tcp://HOST:PORT`.
    Tcp(Endpoint),
    /// UDP: `udp://HOST:PORT`.
    Udp(Endpoint),
    /// TLS over TCP: `tls://HOST:PORT`.
    Tls(Endpoint),
    /// Unix stream socket: `unix:PATH`, or `unix:@NAME` in the abstract namespace.
    Unix(UnixPath),
}

/// Host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The host.
    pub host: Host,
    /// The port; a listener with port 0 gets a free port from the kernel.
    pub port: u16,
}

/// Combines an endpoint with a transport.
type Transport = fn(Endpoint) -> Address;

const TRANSPORTS: [(&str, Transport); 3] = [
    ("tcp://", Address::Tcp),
    ("udp://", Address::Udp),
    ("tls://", Address::Tls),
];

/// Host of an [`Endpoint`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Host {
    /// All interfaces, IPv4 and IPv6; when connecting, the loopback interface.
    Any,
    /// An IP address.
    Ip(IpAddr),
    /// A link-local address, which is unique per link only: `fe80::1%eth0` (RFC 4007 section 11,
    /// notation of RFC 9844).
    Zoned {
        /// The address.
        ip: Ipv6Addr,
        /// The interface, by name or index.
        zone: String,
    },
    /// A host name.
    Name(String),
}

/// Path of a Unix socket, or `@` and its abstract name (unix(7)), short enough for `sockaddr_un`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixPath(PathBuf);

/// Error of parsing an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The port is missing.
    #[error("missing port (HOST:PORT)")]
    NoPort,
    /// The port is not a number from 0 to 65535.
    #[error("port is not a number from 0 to 65535")]
    Port,
    /// An IPv6 address without brackets is ambiguous.
    #[error("IPv6 address without brackets ([::1]:PORT)")]
    Brackets,
    /// The text in brackets is not an IPv6 address.
    #[error("text in brackets is not an IPv6 address")]
    Ipv6,
    /// The zone is empty, or the address is not link-local.
    #[error("zone is not the interface of a link-local address ([fe80::1%eth0]:PORT)")]
    Zone,
    /// The host name contains invalid characters.
    #[error("not a host name")]
    Name,
    /// The scheme is unknown.
    #[error("scheme is not tcp://, udp://, tls:// or unix:")]
    Scheme,
    /// Two slashes after `unix:` are ambiguous: a path, or a host as in other schemes.
    #[error("ambiguous slashes after unix: (unix:PATH)")]
    Slashes,
    /// The path of a Unix socket is invalid.
    #[error(transparent)]
    Path(#[from] UnixPathError),
}

/// Error of an invalid Unix socket path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnixPathError {
    /// The path or name is empty.
    #[error("empty path or name")]
    Empty,
    /// The path contains a NUL byte.
    #[error("path contains a NUL byte")]
    Nul,
    /// The path does not fit into `sockaddr_un`.
    #[error("path of a Unix socket is longer than 107 bytes ({0})")]
    Long(usize),
}

impl Address {
    /// Returns a TCP address on the IPv4 loopback interface.
    pub const fn loopback(port: u16) -> Self {
        Self::Tcp(Endpoint::loopback(port))
    }

    /// Returns the endpoint, or `None` for a path.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Tcp(endpoint) | Self::Udp(endpoint) | Self::Tls(endpoint) => Some(endpoint),
            Self::Unix(_) => None,
        }
    }

    /// Returns the socket address without a zone, or `None` for a path or a host name.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        let Endpoint { host, port } = self.endpoint()?;
        match host {
            Host::Ip(ip) => Some(SocketAddr::new(*ip, *port)),
            Host::Zoned { ip, .. } => Some(SocketAddr::new((*ip).into(), *port)),
            Host::Any | Host::Name(_) => None,
        }
    }

    /// Returns the address with its scheme: `tcp://127.0.0.1:8888`.
    pub fn to_url(&self) -> String {
        match self {
            Self::Tcp(endpoint) => format!("tcp://{endpoint}"),
            other => other.to_string(),
        }
    }
}

impl Endpoint {
    /// Returns an endpoint on the IPv4 loopback interface.
    pub const fn loopback(port: u16) -> Self {
        Self {
            host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port,
        }
    }

    /// Returns the endpoint of a socket that was bound to this endpoint and has the address
    /// `local`. The kernel reports a zone by its index only, so the name is kept.
    pub(crate) fn bound(&self, local: SocketAddr) -> Self {
        match &self.host {
            Host::Zoned { .. } => Self {
                host: self.host.clone(),
                port: local.port(),
            },
            _ => local.into(),
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => Host::Zoned {
                ip: *v6.ip(),
                zone: v6.scope_id().to_string(),
            },
            _ => Host::Ip(address.ip()),
        };
        Self {
            host,
            port: address.port(),
        }
    }
}

impl UnixPath {
    /// The maximum length of a path: `sockaddr_un` has 108 bytes, the last of which is NUL.
    const LONGEST: usize = 107;

    /// Validates a path.
    ///
    /// # Errors
    ///
    /// [`UnixPathError`] if no Unix socket can have this path.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, UnixPathError> {
        let path = path.into();
        match path.as_os_str().as_bytes() {
            [] | [b'@'] => Err(UnixPathError::Empty),
            bytes if bytes.contains(&0) => Err(UnixPathError::Nul),
            bytes if bytes.len() > Self::LONGEST => Err(UnixPathError::Long(bytes.len())),
            _ => Ok(Self(path)),
        }
    }

    /// Returns the abstract name, or `None` for a path in the file system. `./@x` is such a path.
    pub fn abstract_name(&self) -> Option<&[u8]> {
        self.0.as_os_str().as_bytes().strip_prefix(b"@")
    }
}

impl AsRef<Path> for UnixPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

/// A TCP address.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address.into())
    }
}

impl From<&Self> for Address {
    fn from(address: &Self) -> Self {
        address.clone()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = without_scheme(text, "unix:") {
            return parse_path(path).map(Self::Unix);
        }
        for (scheme, of) in TRANSPORTS {
            if let Some(rest) = without_scheme(text, scheme) {
                return rest.parse().map(of);
            }
        }
        if text.contains("://") {
            Err(AddressError::Scheme)
        } else {
            text.parse().map(Self::Tcp)
        }
    }
}

fn without_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn parse_path(text: &str) -> Result<UnixPath, AddressError> {
    // `unix:///run/x` is the URL form; `unix://run/x` is ambiguous.
    let path = match text.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err(AddressError::Slashes),
        None => text,
    };
    Ok(UnixPath::new(path)?)
}

impl FromStr for Endpoint {
    type Err = AddressError;

    /// Parses `PORT` (on 127.0.0.1), `HOST:PORT`, `[::1]:PORT`, `:PORT`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(bracketed) = text.strip_prefix('[') {
            let (ip, port) = bracketed.split_once(']').ok_or(AddressError::Ipv6)?;
            let host = parse_ipv6(ip)?;
            let port = port.strip_prefix(':').ok_or(AddressError::NoPort)?;
            return Ok(Self {
                host,
                port: parse_port(port)?,
            });
        }
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => Err(AddressError::Brackets),
            Some((host, port)) => Ok(Self {
                host: parse_host(host)?,
                port: parse_port(port)?,
            }),
            None if text.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(Self::loopback(parse_port(text)?))
            }
            None => Err(AddressError::NoPort),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let port = parse_digits(text.as_bytes()).and_then(|port| port.try_into().ok());
    port.ok_or(AddressError::Port)
}

fn parse_ipv6(text: &str) -> Result<Host, AddressError> {
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (text, None),
    };
    let ip = ip.parse::<Ipv6Addr>().map_err(|_| AddressError::Ipv6)?;
    let Some(zone) = zone else {
        return Ok(Host::Ip(ip.into()));
    };
    let is_of_a_link = ip.is_unicast_link_local() || ip.is_loopback();
    let is_named = !zone.is_empty() && zone.bytes().all(|b| b.is_ascii_graphic());
    if !is_of_a_link || !is_named {
        return Err(AddressError::Zone);
    }
    Ok(Host::Zoned {
        ip,
        zone: zone.into(),
    })
}

fn parse_host(text: &str) -> Result<Host, AddressError> {
    if text.is_empty() {
        return Ok(Host::Any);
    }
    if let Ok(ip) = text.parse() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    // Underscores are invalid in standard host names but common with Docker and Kubernetes.
    let named = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if named && text.len() <= 253 {
        Ok(Host::Name(text.into()))
    } else {
        Err(AddressError::Name)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(endpoint) => write!(f, "{endpoint}"),
            Self::Udp(endpoint) => write!(f, "udp://{endpoint}"),
            Self::Tls(endpoint) => write!(f, "tls://{endpoint}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Zoned { ip, zone } => write!(f, "[{ip}%{zone}]"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, host: Host, port: u16) {
        let endpoint = Endpoint { host, port };
        assert_eq!(text.parse(), Ok(endpoint.clone()), "{text}");
        assert_eq!(text.parse(), Ok(Address::Tcp(endpoint.clone())), "{text}");
        assert_eq!(
            format!("TCP://{text}").parse(),
            Ok(Address::Tcp(endpoint.clone())),
            "{text}"
        );
        assert_eq!(
            format!("udp://{text}").parse(),
            Ok(Address::Udp(endpoint.clone())),
            "{text}"
        );
        assert_eq!(
            format!("tls://{text}").parse(),
            Ok(Address::Tls(endpoint)),
            "{text}"
        );
    }

    #[test]
    fn endpoints_parse_with_and_without_a_scheme() {
        let v4 = |ip: [u8; 4]| Host::Ip(IpAddr::from(ip));
        let name = |name: &str| Host::Name(name.into());
        reads("8888", v4([127, 0, 0, 1]), 8888);
        reads("0", v4([127, 0, 0, 1]), 0);
        reads(":8888", Host::Any, 8888);
        reads("localhost:8888", name("localhost"), 8888);
        reads("10.0.0.1:1", v4([10, 0, 0, 1]), 1);
        reads(
            "[::1]:8888",
            Host::Ip(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            8888,
        );
        reads("[::]:0", Host::Ip(IpAddr::V6(Ipv6Addr::UNSPECIFIED)), 0);
        let zoned = |ip: &str, zone: &str| Host::Zoned {
            ip: ip.parse().unwrap(),
            zone: zone.into(),
        };
        reads("[fe80::1%eth0]:8888", zoned("fe80::1", "eth0"), 8888);
        reads("[fe80::a:1%2]:1", zoned("fe80::a:1", "2"), 1);
        reads("[::1%lo]:0", zoned("::1", "lo"), 0);
        reads(
            "my_service-1.example.com:65535",
            name("my_service-1.example.com"),
            65535,
        );
    }

    #[test]
    fn path_is_parsed_unchanged() {
        for (text, path) in [
            ("unix:/run/echo.sock", "/run/echo.sock"),
            ("UNIX:echo.sock", "echo.sock"),
            ("unix:8888", "8888"),
            ("unix:a:b ¿?://", "a:b ¿?://"),
            ("unix:///run/x", "/run/x"),
        ] {
            assert_eq!(
                text.parse(),
                Ok(Address::Unix(UnixPath(path.into()))),
                "{text}"
            );
        }
        let most = "x".repeat(107);
        assert_eq!(UnixPath::new(&most), Ok(UnixPath(most.into())));
    }

    #[test]
    fn abstract_name_begins_with_an_at_sign() {
        let path = |text: &str| match text.parse() {
            Ok(Address::Unix(path)) => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path("unix:@echo").abstract_name(), Some(&b"echo"[..]));
        assert_eq!(path("unix:@/run/x").abstract_name(), Some(&b"/run/x"[..]));
        assert_eq!(path("unix:./@echo").abstract_name(), None);
        assert_eq!(path("unix:@echo").to_string(), "@echo");
    }

    #[test]
    fn invalid_addresses_are_rejected_with_a_reason() {
        let long = format!("unix:{}", "x".repeat(108));
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
            ("[fe80::1%]:1", AddressError::Zone),
            ("[fe80::1%eth 0]:1", AddressError::Zone),
            ("[2001:db8::1%eth0]:1", AddressError::Zone),
            ("[%eth0]:1", AddressError::Ipv6),
            ("fe80::1%eth0:1", AddressError::Brackets),
            ("192.0.2.1%eth0:1", AddressError::Name),
            ("a b:1", AddressError::Name),
            ("http://localhost:1", AddressError::Scheme),
            ("tls://localhost", AddressError::NoPort),
            ("unix:", AddressError::Path(UnixPathError::Empty)),
            ("unix:@", AddressError::Path(UnixPathError::Empty)),
            ("unix:a\0b", AddressError::Path(UnixPathError::Nul)),
            ("unix://run/x", AddressError::Slashes),
            (&long, AddressError::Path(UnixPathError::Long(108))),
        ] {
            assert_eq!(text.parse::<Address>(), Err(error), "{text}");
        }
    }

    #[test]
    fn displayed_addresses_parse_back() {
        for (text, url) in [
            ("127.0.0.1:8888", "tcp://127.0.0.1:8888"),
            (":0", "tcp://:0"),
            ("[::1]:1", "tcp://[::1]:1"),
            ("localhost:80", "tcp://localhost:80"),
            ("udp://[::1]:1", "udp://[::1]:1"),
            ("[fe80::1%eth0]:1", "tcp://[fe80::1%eth0]:1"),
            ("tls://localhost:1", "tls://localhost:1"),
            ("unix:/run/a b", "unix:/run/a b"),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.to_url().as_str()),
                (text, url)
            );
            assert_eq!(url.parse(), Ok(address));
        }
    }

    #[test]
    fn only_numeric_addresses_are_socket_addresses() {
        let socket = |text: &str| text.parse::<Address>().unwrap().socket_addr();
        for text in ["1", "udp://1", "tls://1"] {
            assert_eq!(socket(text), Some(SocketAddr::from(([127, 0, 0, 1], 1))));
        }
        assert_eq!(socket("[::1]:2"), Some("[::1]:2".parse().unwrap()));
        assert_eq!(
            socket("[fe80::1%2]:3"),
            Some("[fe80::1]:3".parse().unwrap())
        );
        for text in [":1", "localhost:1", "unix:x"] {
            assert_eq!(socket(text), None);
        }
    }

    #[test]
    fn zone_is_displayed_as_given_or_by_number() {
        let local = "[fe80::1%2]:7".parse::<SocketAddr>().unwrap();
        assert_eq!(Endpoint::from(local).to_string(), "[fe80::1%2]:7");
        for (asked, shown) in [
            ("[fe80::1%eth0]:0", "[fe80::1%eth0]:7"),
            (":0", "[fe80::1%2]:7"),
        ] {
            assert_eq!(
                asked.parse::<Endpoint>().unwrap().bound(local).to_string(),
                shown
            );
        }
    }
}
