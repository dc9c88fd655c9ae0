//! Access control by IP address and connections per address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use crate::limits::throttle::LogThrottle;
use crate::net::stream::Peer;
use crate::serve::config::Config;

/// Minimum time between two log lines about failed accepts.
const ERROR_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Access control that all workers of a server share.
#[derive(Debug)]
pub(super) struct AccessControl {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    /// Networks of the proxies, if there are any.
    proxies: Option<Vec<IpNet>>,
    max_per_ip: Option<NonZeroUsize>,
    /// Open connections per address. Only used with a limit, so there are never more entries than
    /// connections.
    active_per_ip: Mutex<HashMap<IpAddr, usize>>,
    /// Shared by all workers and sockets, because an error such as EMFILE affects all of them.
    pub(super) accept_error_log: LogThrottle,
}

/// Reason why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its address is denied, or not among those that are allowed.
    Acl,
    /// Its address has reached the limit of connections.
    MaxPerIp,
}

impl AccessControl {
    pub(super) fn new(config: &Config) -> Self {
        let canonical =
            |networks: &Vec<IpNet>| networks.iter().map(canonical_network).collect::<Vec<_>>();
        let proxies = config.proxy_protocol.as_ref();
        Self {
            allow: canonical(&config.allow),
            deny: canonical(&config.deny),
            proxies: proxies.map(|proxies| canonical(&proxies.trusted)),
            max_per_ip: config.max_per_ip,
            active_per_ip: Mutex::default(),
            accept_error_log: LogThrottle::new(ERROR_LOG_INTERVAL),
        }
    }

    /// Admits and counts a connection until its [`release`](Self::release), or returns why it is
    /// refused. Unix peers have no address: the permissions of the path have admitted them.
    pub(super) fn admit(&self, peer: &Peer) -> Result<(), Refusal> {
        let Some(ip) = peer.ip() else { return Ok(()) };
        if !self.is_allowed(ip) {
            return Err(Refusal::Acl);
        }
        let Some(limit) = self.max_per_ip else {
            return Ok(());
        };
        let mut active = self
            .active_per_ip
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = active.entry(ip).or_default();
        if *count >= limit.get() {
            return Err(Refusal::MaxPerIp);
        }
        *count += 1;
        Ok(())
    }

    /// Returns whether the address lists admit `ip`.
    pub(super) fn is_allowed(&self, ip: IpAddr) -> bool {
        !is_in(&self.deny, ip) && (self.allow.is_empty() || is_in(&self.allow, ip))
    }

    /// Returns whether a connection has to begin with the header of a proxy. Only processes that
    /// the permissions of the path admit are Unix peers, so these are proxies.
    pub(super) fn expects_header(&self, peer: &Peer) -> bool {
        let Some(proxies) = &self.proxies else {
            return false;
        };
        peer.ip().is_none_or(|ip| is_in(proxies, ip))
    }

    /// Releases the slot of an admitted connection.
    pub(super) fn release(&self, peer: &Peer) {
        let (Some(_), Some(ip)) = (self.max_per_ip, peer.ip()) else {
            return;
        };
        let mut active = self
            .active_per_ip
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = active.entry(ip) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Returns whether an address is in one of the networks.
fn is_in(networks: &[IpNet], ip: IpAddr) -> bool {
    // A dual-stack socket reports IPv4 as ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2).
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}

/// Length in bits of the prefix of IPv4-mapped addresses (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX_LEN: u8 = 96;

/// Converts a network of IPv4-mapped addresses to IPv4, as addresses are compared in this form.
fn canonical_network(network: &IpNet) -> IpNet {
    let IpNet::V6(v6) = network else {
        return *network;
    };
    let mapped = v6.addr().to_ipv4_mapped();
    let prefix_len = v6.prefix_len().checked_sub(MAPPED_PREFIX_LEN);
    let (Some(ip), Some(prefix_len)) = (mapped, prefix_len) else {
        return *network;
    };
    Ipv4Net::new(ip, prefix_len).map_or(*network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use fastrand::Rng;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn peer(ip: &str) -> Peer {
        SocketAddr::new(ip.parse().unwrap(), 1).into()
    }

    #[track_caller]
    fn assert_allowed(allow: &[&str], deny: &[&str], ip: &str, allowed: bool) {
        let access = AccessControl::new(&Config {
            allow: networks(allow),
            deny: networks(deny),
            ..Config::default()
        });
        let decided = access.admit(&peer(ip));
        assert_eq!(
            decided,
            if allowed { Ok(()) } else { Err(Refusal::Acl) },
            "{ip}"
        );
    }

    #[test]
    fn denied_or_not_allowed_address_is_refused() {
        assert_allowed(&[], &[], "192.0.2.1", true);
        assert_allowed(&["10.0.0.0/8"], &[], "10.255.0.1", true);
        assert_allowed(&["10.0.0.0/8"], &[], "11.0.0.1", false);
        assert_allowed(&["10.0.0.0/8", "11.0.0.1/32"], &[], "11.0.0.1", true);
        assert_allowed(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false);
        assert_allowed(&["10.1.2.3/32"], &["10.0.0.0/8"], "10.1.2.3", false);
        assert_allowed(&[], &["10.1.0.0/16"], "10.2.0.1", true);
        assert_allowed(&["2001:db8::/32"], &[], "2001:db8:1::1", true);
        assert_allowed(&["2001:db8::/32"], &[], "10.0.0.1", false);
        assert_allowed(&["0.0.0.0/0"], &[], "::1", false);
    }

    #[test]
    fn mapped_ipv4_address_matches_ipv4_networks() {
        assert_allowed(&["10.0.0.0/8"], &[], "::ffff:10.0.0.1", true);
        assert_allowed(&[], &["10.0.0.0/8"], "::ffff:10.0.0.1", false);
    }

    #[test]
    fn mapped_ipv4_network_matches_ipv4_addresses() {
        for network in [
            "::ffff:127.0.0.1/128",
            "::ffff:127.0.0.0/104",
            "::ffff:0:0/96",
        ] {
            for ip in ["127.0.0.1", "::ffff:127.0.0.1"] {
                assert_allowed(&[], &[network], ip, false);
                assert_allowed(&[network], &[], ip, true);
            }
            assert_allowed(&[], &[network], "::1", true);
            assert_allowed(&[], &[network], "::127.0.0.1", true);
        }
        assert_allowed(&[], &["::ffff:127.0.0.0/104"], "128.0.0.1", true);
        // Shorter prefixes are IPv6 networks.
        assert_allowed(&[], &["::/0"], "127.0.0.1", true);
        assert_allowed(&[], &["::/0"], "::1", false);
    }

    /// Returns spellings of an IPv6 address: each group with and without leading zeros, in lower
    /// and upper case, compressed, and with the last 32 bits as IPv4.
    fn spellings_v6(ip: Ipv6Addr) -> Vec<String> {
        let groups = ip.segments();
        let short = groups.map(|group| format!("{group:x}")).join(":");
        let long = groups.map(|group| format!("{group:04x}")).join(":");
        let bytes = ip.octets();
        let v4 = Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]);
        let head = groups[..6].iter().map(|group| format!("{group:x}"));
        let dotted = format!("{}:{v4}", head.collect::<Vec<_>>().join(":"));
        let mut all = vec![ip.to_string(), short, long, dotted];
        if groups[..5] == [0; 5] {
            all.push(format!("::{:x}:{v4}", groups[5]));
            all.push(format!("::{:x}:{:x}:{:x}", groups[5], groups[6], groups[7]));
        }
        let upper: Vec<_> = all.iter().map(|text| text.to_uppercase()).collect();
        all.extend(upper);
        all
    }

    /// Returns spellings of an address, with the number of bits to add to its prefix lengths.
    fn spellings(ip: IpAddr) -> Vec<(String, u8)> {
        match ip {
            IpAddr::V4(v4) => {
                let mapped = spellings_v6(v4.to_ipv6_mapped());
                let mapped = mapped.into_iter().map(|text| (text, MAPPED_PREFIX_LEN));
                mapped.chain([(v4.to_string(), 0)]).collect()
            }
            IpAddr::V6(v6) => spellings_v6(v6).into_iter().map(|text| (text, 0)).collect(),
        }
    }

    #[test]
    fn every_spelling_of_a_network_matches_the_same() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..60 {
            let ip: IpAddr = if rng.bool() {
                Ipv4Addr::from_bits(rng.u32(..)).into()
            } else {
                Ipv6Addr::from_bits(rng.u128(..) >> rng.u32(0..128)).into()
            };
            // The random address above may be a mapped one.
            let ip = ip.to_canonical();
            let bits = if ip.is_ipv4() { 32 } else { 128 };
            let prefix_len = rng.u8(1..=bits);
            let outside = flip_bit(ip, prefix_len - 1);
            for (network, added) in spellings(ip) {
                let network = format!("{network}/{}", prefix_len + added);
                for (inside, _) in spellings(ip) {
                    assert_allowed(&[], &[&network], &inside, false);
                }
                for (outside, _) in spellings(outside) {
                    assert_allowed(&[], &[&network], &outside, true);
                }
            }
        }
    }

    /// Returns the address with one bit flipped, counted from the most significant.
    fn flip_bit(ip: IpAddr, index: u8) -> IpAddr {
        match ip {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ (1 << (31 - index))).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ (1 << (127 - index))).into(),
        }
    }

    #[test]
    fn each_address_has_its_own_limit() {
        let max_per_ip = NonZeroUsize::new(2);
        let access = AccessControl::new(&Config {
            max_per_ip,
            ..Config::default()
        });
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(peer);
        let mapped = peer("::ffff:192.0.2.1");
        assert_eq!([&one, &mapped].map(|peer| access.admit(peer)), [Ok(()); 2]);
        assert_eq!(access.admit(&one), Err(Refusal::MaxPerIp));
        assert_eq!(access.admit(&other), Ok(()));
        access.release(&mapped);
        assert_eq!(access.admit(&one), Ok(()));
        assert_eq!(access.admit(&one), Err(Refusal::MaxPerIp));
        for peer in [&one, &one, &other] {
            access.release(peer);
        }
        assert!(
            access.active_per_ip.lock().unwrap().is_empty(),
            "all entries are removed"
        );
    }

    #[test]
    fn unix_peers_are_always_admitted() {
        let access = AccessControl::new(&Config {
            allow: networks(&["10.0.0.0/8"]),
            max_per_ip: NonZeroUsize::new(1),
            ..Config::default()
        });
        let local = Peer::Unix {
            process: 1,
            user: 0,
        };
        let both = [access.admit(&local), access.admit(&local)];
        assert!(both.iter().all(Result::is_ok));
    }
}
