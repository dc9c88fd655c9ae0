//! Hosts that bypass the proxy, with curl's `NO_PROXY` rules.

use std::net::IpAddr;

use ipnet::IpNet;
use url::{Host as UrlHost, Url};

/// List of hosts that are contacted without a proxy.
///
/// Entries are separated by commas or whitespace: domain names (which include their subdomains),
/// IP addresses, networks (`10.0.0.0/8`), or `*` for all hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(Vec<NoProxyRule>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum NoProxyRule {
    All,
    Network(IpNet),
    Domain(String),
}

impl From<&str> for NoProxy {
    fn from(list: &str) -> Self {
        let entries = list
            .split([',', ' ', '\t'])
            .filter(|entry| !entry.is_empty());
        Self(entries.map(NoProxyRule::from).collect())
    }
}

impl From<&str> for NoProxyRule {
    fn from(entry: &str) -> Self {
        if entry == "*" {
            return Self::All;
        }
        // An invalid network is kept as a domain that no host has, so it matches nothing.
        parse_network(entry).map_or_else(
            || Self::Domain(entry.trim_matches('.').to_lowercase()),
            Self::Network,
        )
    }
}

impl NoProxy {
    /// Returns whether the host of `url` matches an entry.
    pub(super) fn matches(&self, url: &Url) -> bool {
        self.0.iter().any(|rule| rule.matches(url))
    }
}

impl NoProxyRule {
    fn matches(&self, url: &Url) -> bool {
        match (self, url.host()) {
            (Self::All, _) => true,
            (Self::Network(network), Some(UrlHost::Ipv4(ip))) => {
                network.contains(&IpAddr::from(ip))
            }
            (Self::Network(network), Some(UrlHost::Ipv6(ip))) => {
                network.contains(&IpAddr::from(ip))
            }
            (Self::Domain(domain), Some(UrlHost::Domain(host))) => is_subdomain(host, domain),
            _ => false,
        }
    }
}

/// Parses `IP`, `[IP]` or `IP/BITS`.
fn parse_network(entry: &str) -> Option<IpNet> {
    let (ip, bits) = entry.split_once('/').unwrap_or((entry, ""));
    let ip = ip
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>()
        .ok()?;
    if bits.is_empty() {
        return Some(ip.into());
    }
    IpNet::new(ip, bits.parse().ok()?).ok()
}

/// Returns whether `host` is `domain` or one of its subdomains.
fn is_subdomain(host: &str, domain: &str) -> bool {
    let prefix = host.trim_end_matches('.').strip_suffix(domain);
    !domain.is_empty() && prefix.is_some_and(|prefix| prefix.is_empty() || prefix.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(list: &str, host: &str, wanted: bool) {
        let url = format!("http://{host}:8080/").parse().unwrap();
        assert_eq!(
            NoProxy::from(list).matches(&url),
            wanted,
            "{host} in {list:?}"
        );
    }

    #[test]
    fn domains_match_with_their_subdomains() {
        check("", "a.example", false);
        check("*", "a.example", true);
        check("*", "127.0.0.1", true);
        check("example", "example", true);
        check("example", "a.example", true);
        check(".example", "example", true);
        check("example.", "a.b.example.", true);
        check("EXAMPLE", "A.Example", true);
        check("example", "badexample", false);
        check("a.example", "example", false);
        check("b, c.example d", "d", true);
        check("b, c.example d", "x.c.example", true);
        check(",. ,", "a.example", false);
    }

    #[test]
    fn addresses_match_by_network() {
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("192.168.1.128/25", "192.168.1.127", false);
        check("192.168.1.128/25", "192.168.1.200", true);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("0.0.0.0/0", "1.2.3.4", true);
        check("0.0.0.0/0", "[::1]", false);
        check("::/0", "[::1]", true);
        check("fe80::/10", "[fe81::1]", true);
        check("[::1]", "[::1]", true);
        check("10.0.0.0/33", "10.0.0.0", false);
        check("10.0.0.0/x", "10.0.0.0", false);
        check("0.1", "127.0.0.1", false);
    }

    #[test]
    fn random_hosts_match_by_prefix_or_suffix() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let name = |random: &mut fastrand::Rng| {
            let labels = (0..random.usize(1..4)).filter_map(|_| random.choice(["a", "b", "ab"]));
            labels.collect::<Vec<_>>()
        };
        for _ in 0..10_000 {
            let host = random.u32(..);
            let bits = random.usize(..=32);
            // One bit differs, so that the host is inside the network in some of the cases.
            let network = host ^ (1_u64 << random.u32(..33)) as u32;
            let first = |address: u32| format!("{address:032b}")[..bits].to_owned();
            let wanted = first(host) == first(network);
            let ip = std::net::Ipv4Addr::from;
            let list = format!("x,{}/{bits}", ip(network));
            let url = format!("http://{}/", ip(host)).parse().unwrap();
            assert_eq!(
                NoProxy::from(&list[..]).matches(&url),
                wanted,
                "seed {seed}: {list} {url}"
            );

            let host = name(&mut random);
            let domain = name(&mut random);
            let list = format!("x {}", domain.join("."));
            let url = format!("http://{}/", host.join(".")).parse().unwrap();
            let found = NoProxy::from(&list[..]).matches(&url);
            assert_eq!(found, host.ends_with(&domain), "seed {seed}: {list} {url}");
        }
    }
}
