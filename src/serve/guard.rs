//! Whose datagrams are never answered, because the answer would be answered, and so on for ever.

use std::net::SocketAddr;

use crate::net::address::Address;
use crate::net::udp::is_local_address;

/// Ports of services that answer whatever they get, echo (RFC 862) and chargen (RFC 864); and 0,
/// at which nobody is.
const ANSWERING: [u16; 3] = [0, 7, 19];

/// Knows who would answer an answer.
#[derive(Debug)]
pub(super) struct Guard {
    /// The addresses at which this server answers datagrams.
    own: Vec<SocketAddr>,
}

impl Guard {
    /// Starts for a server that listens on these addresses.
    pub(super) fn new(listening: &[Address]) -> Self {
        let over_udp = listening
            .iter()
            .filter(|address| matches!(address, Address::Udp(_)));
        Self {
            own: over_udp.filter_map(Address::socket_addr).collect(),
        }
    }

    /// Whether what comes from `peer` must not be answered. Whoever sends it can put any address
    /// there.
    pub(super) fn refuses(&self, peer: SocketAddr) -> bool {
        let is_peer = |own: &SocketAddr| own.port() == peer.port() && has_ip_of(*own, peer);
        ANSWERING.contains(&peer.port()) || self.own.iter().any(is_peer)
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
    fn refuses(own: &[&str], peer: &str, refused: bool) {
        let own: Vec<_> = own
            .iter()
            .map(|own| format!("udp://{own}").parse().unwrap())
            .collect();
        let guard = Guard::new(&own);
        assert_eq!(
            guard.refuses(peer.parse().unwrap()),
            refused,
            "{peer} at {own:?}"
        );
    }

    #[test]
    fn who_answers_everything_is_not_answered() {
        for port in [0, 7, 19] {
            refuses(&[], &format!("192.0.2.1:{port}"), true);
            refuses(&[], &format!("[2001:db8::1]:{port}"), true);
        }
        refuses(&[], "192.0.2.1:70", false);
    }

    #[test]
    fn we_do_not_answer_ourselves() {
        refuses(&["127.0.0.1:8888"], "127.0.0.1:8888", true);
        refuses(&["127.0.0.1:8888"], "127.0.0.1:8889", false);
        refuses(&["127.0.0.1:8888"], "127.0.0.2:8888", false);
        refuses(&["127.0.0.1:8888", "[::1]:8889"], "[::1]:8889", true);
        refuses(&["[::]:8888"], "127.0.0.2:8888", true);
        refuses(&["[::]:8888"], "[::ffff:127.0.0.2]:8888", true);
        refuses(&["[::]:8888"], "[::1]:8888", true);
        let connections = Guard::new(&["tcp://127.0.0.1:8888".parse().unwrap()]);
        assert!(!connections.refuses("127.0.0.1:8888".parse().unwrap()));
        refuses(&["0.0.0.0:8888"], "192.0.2.1:8888", false);
        refuses(&["[::]:8888"], "[2001:db8::1]:8888", false);
    }
}
