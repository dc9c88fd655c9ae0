//! Prevention of reply loops between UDP services.

use std::net::SocketAddr;

use crate::net::address::Address;
use crate::net::udp::is_local_address;

/// Ports of services that reply to every datagram: echo (RFC 862) and chargen (RFC 864); and the
/// invalid port 0.
const REFLECTING_PORTS: [u16; 3] = [0, 7, 19];

/// Filter for peers that would reply to a reply.
#[derive(Debug)]
pub(in crate::serve) struct LoopGuard {
    /// UDP addresses of this server.
    own: Vec<SocketAddr>,
}

impl LoopGuard {
    /// Creates the filter of a server with these bound addresses.
    pub(in crate::serve) fn new(listening: &[Address]) -> Self {
        let udp_addresses = listening
            .iter()
            .filter(|address| matches!(address, Address::Udp(_)));
        Self {
            own: udp_addresses.filter_map(Address::socket_addr).collect(),
        }
    }

    /// Returns whether datagrams from `peer` must get no reply. The source address may be spoofed.
    pub(super) fn refuses(&self, peer: SocketAddr) -> bool {
        let is_peer = |own: &SocketAddr| own.port() == peer.port() && has_ip_of(*own, peer);
        REFLECTING_PORTS.contains(&peer.port()) || self.own.iter().any(is_peer)
    }
}

fn has_ip_of(own: SocketAddr, peer: SocketAddr) -> bool {
    let [own_ip, peer_ip] = [own, peer].map(|address| address.ip().to_canonical());
    own_ip == peer_ip || own_ip.is_unspecified() && is_local_address(peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_refused(own: &[&str], peer: &str, refused: bool) {
        let own: Vec<_> = own
            .iter()
            .map(|own| format!("udp://{own}").parse().unwrap())
            .collect();
        let loop_guard = LoopGuard::new(&own);
        assert_eq!(
            loop_guard.refuses(peer.parse().unwrap()),
            refused,
            "{peer} at {own:?}"
        );
    }

    #[test]
    fn reflecting_ports_get_no_reply() {
        for port in [0, 7, 19] {
            assert_refused(&[], &format!("192.0.2.1:{port}"), true);
            assert_refused(&[], &format!("[2001:db8::1]:{port}"), true);
        }
        assert_refused(&[], "192.0.2.1:70", false);
    }

    #[test]
    fn own_addresses_get_no_reply() {
        assert_refused(&["127.0.0.1:8888"], "127.0.0.1:8888", true);
        assert_refused(&["127.0.0.1:8888"], "127.0.0.1:8889", false);
        assert_refused(&["127.0.0.1:8888"], "127.0.0.2:8888", false);
        assert_refused(&["127.0.0.1:8888", "[::1]:8889"], "[::1]:8889", true);
        assert_refused(&["[::]:8888"], "127.0.0.2:8888", true);
        assert_refused(&["[::]:8888"], "[::ffff:127.0.0.2]:8888", true);
        assert_refused(&["[::]:8888"], "[::1]:8888", true);
        let connections = LoopGuard::new(&["tcp://127.0.0.1:8888".parse().unwrap()]);
        assert!(!connections.refuses("127.0.0.1:8888".parse().unwrap()));
        assert_refused(&["0.0.0.0:8888"], "192.0.2.1:8888", false);
        assert_refused(&["[::]:8888"], "[2001:db8::1]:8888", false);
    }
}
