//! Name resolution: cached lookups and static hosts.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType};
use nix::net::if_::if_nametoindex;
use smol::lock::OnceCell;
use smol::unblock;

use crate::net::address::{AddressError, Endpoint, Host};

/// The maximum number of cached names; beyond it, the cache is cleared.
const MAX_NAMES: usize = 1024;

type Found = Arc<OnceCell<Vec<SocketAddr>>>;

/// Configuration of name resolution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolverConfig {
    /// The accepted address families. Default: all.
    pub family: AddressFamily,
    /// Static hosts, which are not looked up. Default: none.
    pub fixed: Vec<StaticHost>,
}

/// Accepted address families.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddressFamily {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// Static addresses of a host and port. They are tried like resolved ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticHost {
    /// The host and port; the name is in lower case, as in URLs.
    pub address: Endpoint,
    /// The addresses.
    pub ips: Vec<IpAddr>,
}

/// Error of parsing a [`StaticHost`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseStaticHostError {
    /// A part is missing.
    #[error("not of the form HOST:PORT:IP[,IP]...")]
    Form,
    /// The host and port are invalid.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The text after the second colon is not an IP address.
    #[error("text after the port is not an IP address")]
    Ip,
}

impl FromStr for StaticHost {
    type Err = ParseStaticHostError;

    /// Parses `HOST:PORT:IP[,IP]...`; an IPv6 address may be in brackets.
    fn from_str(text: &str) -> Result<Self, ParseStaticHostError> {
        let colon = text
            .match_indices(':')
            .nth(1)
            .ok_or(ParseStaticHostError::Form)?
            .0;
        let host = &text[..colon];
        let parse_ip = |ip: &str| {
            let inner = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
            let ip = inner.unwrap_or(ip).parse();
            ip.map_err(|_| ParseStaticHostError::Ip)
        };
        let ips = text[colon + 1..].split(',').map(parse_ip);
        let ips = ips.collect::<Result<_, _>>()?;
        match host.to_ascii_lowercase().parse()? {
            Endpoint {
                host: Host::Any, ..
            } => Err(ParseStaticHostError::Form),
            address => Ok(Self { address, ips }),
        }
    }
}

impl ResolverConfig {
    /// Returns the static addresses of an endpoint, if there are any.
    fn known(&self, address: &Endpoint) -> Option<Vec<SocketAddr>> {
        let same = self.fixed.iter().filter(|fixed| fixed.address == *address);
        let all: Vec<_> = same
            .flat_map(|fixed| &fixed.ips)
            .map(|ip| SocketAddr::new(*ip, address.port))
            .collect();
        (!all.is_empty()).then_some(all)
    }

    /// Removes addresses of other families.
    fn pick(
        &self,
        address: &Endpoint,
        mut found: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let (v6, missing) = match self.family {
            AddressFamily::Any => return Ok(found),
            AddressFamily::V4 => (false, "it has no IPv4 address"),
            AddressFamily::V6 => (true, "it has no IPv6 address"),
        };
        found.retain(|socket| socket.is_ipv6() == v6);
        if found.is_empty() {
            let source = io::Error::new(io::ErrorKind::NotFound, missing);
            return Err(ResolveError::Name {
                host: address.host.to_string(),
                source,
            });
        }
        Ok(found)
    }
}

/// Error of resolving an [`Endpoint`] to socket addresses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The name does not resolve, or to no address of the requested family.
    #[error("resolve {host}")]
    Name {
        /// The name.
        host: String,
        /// Error of the resolver.
        source: io::Error,
    },
    /// The zone of the address names no interface of this machine.
    #[error("find the interface of {host}")]
    Zone {
        /// The address with its zone.
        host: Host,
        /// Error of the interface lookup.
        source: io::Error,
    },
}

impl ResolveError {
    /// Returns whether a later lookup may succeed: not if the name or the interface does not exist.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Name { source, .. } => source.kind() != io::ErrorKind::NotFound,
            Self::Zone { .. } => false,
        }
    }
}

/// Resolves `endpoint` to socket addresses. A name is resolved off the executor.
///
/// # Errors
///
/// [`ResolveError::Name`] if the name does not resolve; [`ResolveError::Zone`].
///
/// # Cancel safety
///
/// If the future is dropped, the lookup continues in the background and its result is discarded.
pub(crate) async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, ResolveError> {
    let port = endpoint.port;
    let name = match &endpoint.host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
        Host::Zoned { ip, zone } => {
            let failed = |source| ResolveError::Zone {
                host: endpoint.host.clone(),
                source,
            };
            let scope = interface(zone).map_err(failed)?;
            return Ok(vec![SocketAddrV6::new(*ip, port, 0, scope).into()]);
        }
        Host::Any => {
            let both: [IpAddr; 2] = [Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()];
            return Ok(both.map(|ip| SocketAddr::new(ip, port)).into());
        }
        Host::Name(name) => name,
    };
    let failed = |source| ResolveError::Name {
        host: name.clone(),
        source,
    };
    let looked_up = name.clone();
    let found = unblock(move || look_up(&looked_up)).await;
    let mut found = found.map_err(failed)?;
    if found.is_empty() {
        return Err(failed(io::Error::new(
            io::ErrorKind::NotFound,
            "no address",
        )));
    }
    for address in &mut found {
        address.set_port(port);
    }
    Ok(found)
}

/// Calls getaddrinfo(3). The error of a name that does not exist, or has no address, has the kind
/// `NotFound`.
fn look_up(name: &str) -> io::Result<Vec<SocketAddr>> {
    let stream = AddrInfoHints {
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let found = dns_lookup::getaddrinfo(Some(name), None, Some(stream)).map_err(|error| {
        let is_missing = matches!(
            error.kind(),
            LookupErrorKind::NoName | LookupErrorKind::NoData
        );
        let error = io::Error::from(error);
        if is_missing {
            io::Error::new(io::ErrorKind::NotFound, error)
        } else {
            error
        }
    })?;
    found.map(|found| Ok(found?.sockaddr)).collect()
}

/// Returns the index of an interface, given by name or index.
fn interface(zone: &str) -> io::Result<u32> {
    let number = || zone.parse().ok().map(NonZeroU32::get);
    Ok(if_nametoindex(zone).or_else(|error| number().ok_or(error))?)
}

/// Cache of resolved names. Concurrent lookups of one name share the result. Failures are not
/// cached.
#[derive(Debug, Default)]
pub(crate) struct DnsCache {
    lookup: ResolverConfig,
    known: Mutex<HashMap<Endpoint, Found>>,
}

impl DnsCache {
    /// Creates an empty cache.
    pub(crate) fn new(lookup: ResolverConfig) -> Self {
        Self {
            lookup,
            known: Mutex::default(),
        }
    }

    /// Resolves `address` like [`resolve`].
    ///
    /// # Errors
    ///
    /// The errors of [`resolve`], also if no address has an accepted family.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, other waiters for the same name repeat the lookup.
    pub(crate) async fn resolve(
        &self,
        address: &Endpoint,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = match self.lookup.known(address) {
            Some(known) => known,
            None => self
                .entry(address)
                .get_or_try_init(|| resolve(address))
                .await
                .cloned()?,
        };
        self.lookup.pick(address, found)
    }

    /// Removes `address` from the cache, because it did not answer.
    pub(crate) fn invalidate(&self, address: &Endpoint) {
        self.lock().remove(address);
    }

    fn entry(&self, address: &Endpoint) -> Found {
        let mut known = self.lock();
        if let Some(found) = known.get(address) {
            return found.clone();
        }
        if known.len() >= MAX_NAMES {
            known.clear();
        }
        known.entry(address.clone()).or_default().clone()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Endpoint, Found>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, zip};

    #[test]
    fn resolved_name_is_cached_until_invalidated() {
        let names = DnsCache::default();
        let localhost = Endpoint {
            host: Host::Name("localhost".into()),
            port: 80,
        };
        let (one, other) = block_on(zip(names.resolve(&localhost), names.resolve(&localhost)));
        assert_eq!(one.unwrap(), other.unwrap());
        assert!(names.entry(&localhost).is_initialized());
        names.invalidate(&localhost);
        assert!(!names.entry(&localhost).is_initialized());
    }

    #[test]
    fn static_host_is_host_port_and_address() {
        for (text, host, port, ip) in [
            (
                "Example.org:443:127.0.0.1",
                Host::Name("example.org".into()),
                443,
                "127.0.0.1",
            ),
            ("a:1:[::1]", Host::Name("a".into()), 1, "::1"),
            ("a:1:::1", Host::Name("a".into()), 1, "::1"),
            (
                "10.0.0.1:1:127.0.0.1",
                Host::Ip([10, 0, 0, 1].into()),
                1,
                "127.0.0.1",
            ),
        ] {
            let fixed = StaticHost {
                address: Endpoint { host, port },
                ips: vec![ip.parse().unwrap()],
            };
            assert_eq!(text.parse(), Ok(fixed), "{text}");
        }
        for (text, error) in [
            ("a:1", ParseStaticHostError::Form),
            (":1:127.0.0.1", ParseStaticHostError::Form),
            (
                "a:x:127.0.0.1",
                ParseStaticHostError::Address(AddressError::Port),
            ),
            ("a:1:b", ParseStaticHostError::Ip),
            ("a:1:127.0.0.1,", ParseStaticHostError::Ip),
            ("a:1:[127.0.0.1", ParseStaticHostError::Ip),
        ] {
            assert_eq!(text.parse::<StaticHost>(), Err(error), "{text}");
        }
    }

    #[test]
    fn static_host_is_not_looked_up_and_filtered_by_family() {
        let fixed = ["a.invalid:1:127.0.0.1,[::1]", "a.invalid:1:127.0.0.2"];
        let fixed: Vec<StaticHost> = fixed.map(|text| text.parse().unwrap()).into();
        let find = |family, address: &str| {
            let names = DnsCache::new(ResolverConfig {
                family,
                fixed: fixed.clone(),
            });
            let found = block_on(names.resolve(&address.parse().unwrap()));
            found.map(|all| {
                all.iter()
                    .map(|socket| socket.ip().to_string())
                    .collect::<Vec<_>>()
            })
        };
        let all = ["127.0.0.1", "::1", "127.0.0.2"];
        assert_eq!(find(AddressFamily::Any, "a.invalid:1").unwrap(), all);
        assert_eq!(
            find(AddressFamily::V4, "a.invalid:1").unwrap(),
            ["127.0.0.1", "127.0.0.2"]
        );
        assert_eq!(find(AddressFamily::V6, "a.invalid:1").unwrap(), ["::1"]);
        assert!(find(AddressFamily::Any, "a.invalid:2").is_err());
        let error = find(AddressFamily::V6, "127.0.0.1:1").unwrap_err();
        assert_eq!(error.to_string(), "resolve 127.0.0.1");
        assert!(find(AddressFamily::V4, "[::1]:1").is_err());
    }

    #[test]
    fn cache_size_is_bounded() {
        let names = DnsCache::default();
        for port in 1..=u16::try_from(MAX_NAMES).unwrap() + 1 {
            block_on(names.resolve(&Endpoint::loopback(port))).unwrap();
        }
        assert_eq!(names.lock().len(), 1);
    }
}
