//! Local addresses of outgoing connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Local addresses for outgoing connections, used in turn. Without any, the kernel chooses one.
#[derive(Debug, Default)]
pub(crate) struct LocalAddrs {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    next: AtomicUsize,
}

/// Local addresses of one connection, one per family.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LocalAddr {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

/// A socket cannot be bound to a local address. It is the inner error of an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("bind to {local}")]
pub(crate) struct BindError {
    /// The local address.
    pub local: IpAddr,
    source: io::Error,
}

/// Wraps an error of `bind(2)`.
pub(crate) fn bind_error(local: IpAddr, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), BindError { local, source })
}

impl LocalAddrs {
    /// Creates a rotation of these addresses.
    pub(crate) fn new(addresses: &[IpAddr]) -> Self {
        let (v4, v6) = addresses.iter().partition(|address| address.is_ipv4());
        Self {
            v4,
            v6,
            next: AtomicUsize::new(0),
        }
    }

    /// Returns whether the kernel chooses.
    pub(crate) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Returns the addresses of the next connection.
    pub(crate) fn next(&self) -> LocalAddr {
        if self.is_empty() {
            return LocalAddr::default();
        }
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let in_turn = |addresses: &[IpAddr]| {
            let index = turn.checked_rem(addresses.len())?;
            addresses.get(index).copied()
        };
        LocalAddr {
            v4: in_turn(&self.v4),
            v6: in_turn(&self.v6),
        }
    }
}

impl LocalAddr {
    /// Returns the local address for a connection to `peer`; `None` if the kernel chooses.
    pub(crate) fn for_peer(self, peer: SocketAddr) -> Option<IpAddr> {
        if peer.is_ipv4() { self.v4 } else { self.v6 }
    }

    /// Returns the addresses of a server that can be reached from the local ones.
    ///
    /// # Errors
    ///
    /// No address has the family of a local address.
    pub(crate) fn reachable(self, mut peers: Vec<SocketAddr>) -> io::Result<Vec<SocketAddr>> {
        if self.v4.is_none() && self.v6.is_none() {
            return Ok(peers);
        }
        peers.retain(|peer| self.for_peer(*peer).is_some());
        if peers.is_empty() {
            let family = if self.v4.is_some() { "IPv4" } else { "IPv6" };
            let text = format!("no {family} address of the server, as the local address requires");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn local_addresses_of_each_family_are_used_in_turn() {
        let addresses = ["127.0.0.2", "::1", "127.0.0.3"].map(|text| text.parse().unwrap());
        let locals = LocalAddrs::new(&addresses);
        let peers = peers(&["127.0.0.1:7", "[::2]:7"]);
        let mut used = Vec::new();
        for _ in 0..3 {
            let local = locals.next();
            used.extend(peers.iter().map(|peer| local.for_peer(*peer).unwrap()));
        }
        let [first, v6, second] = addresses;
        assert_eq!(used, [first, v6, second, v6, first, v6]);
    }

    #[test]
    fn servers_of_another_family_are_unreachable() {
        let both = peers(&["127.0.0.1:7", "[::1]:7"]);
        let any = LocalAddrs::default().next();
        assert_eq!(any.reachable(both.clone()).unwrap(), both);
        let v6 = LocalAddrs::new(&["::1".parse().unwrap()]).next();
        assert_eq!(v6.reachable(both.clone()).unwrap(), both[1..]);
        let error = v6.reachable(peers(&["127.0.0.1:7"])).unwrap_err();
        let text = "no IPv6 address of the server, as the local address requires";
        assert_eq!(error.to_string(), text);
    }
}
