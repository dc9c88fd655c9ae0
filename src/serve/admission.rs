//! Who may come in: by address, and how many of one address at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use crate::limits::throttle::LogThrottle;
use crate::net::stream::Peer;
use crate::serve::config::Config;

/// The least time between two log lines about sockets that do not work.
const QUIET: Duration = Duration::from_secs(1);

/// What every thread of a server asks before it serves a connection.
#[derive(Debug)]
pub(super) struct Admission {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    max_per_ip: Option<NonZeroUsize>,
    /// The open connections of each address, while there is a limit; so there are never more
    /// entries than connections.
    inside: Mutex<HashMap<IpAddr, usize>>,
    /// Of all threads and sockets: nobody wants to read the same of each of them.
    pub(super) complaints: LogThrottle,
}

/// Why a connection is closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its address is denied, or not among those that are allowed.
    Denied,
    /// Its address has as many connections as one may have.
    TooMany,
}

impl Admission {
    pub(super) fn new(config: &Config) -> Self {
        let Config {
            allow,
            deny,
            max_per_ip,
            ..
        } = config.clone();
        let complaints = LogThrottle::new(QUIET);
        Self {
            allow,
            deny,
            max_per_ip,
            inside: Mutex::default(),
            complaints,
        }
    }

    /// Lets a connection from `peer` in until it [leaves](Self::leave), or says why not. Who comes
    /// over a Unix socket has no address, and got past the permissions of its path.
    pub(super) fn admit(&self, peer: &Peer) -> Result<(), Refusal> {
        let Some(ip) = peer.ip() else { return Ok(()) };
        if !self.is_allowed(ip) {
            return Err(Refusal::Denied);
        }
        let Some(most) = self.max_per_ip else {
            return Ok(());
        };
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inside.entry(ip).or_default();
        if *count >= most.get() {
            return Err(Refusal::TooMany);
        }
        *count += 1;
        Ok(())
    }

    /// Whether `ip` is served at all.
    pub(super) fn is_allowed(&self, ip: IpAddr) -> bool {
        // On a socket of both families IPv4 arrives as ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2).
        let ip = ip.to_canonical();
        let in_any = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        !in_any(&self.deny) && (self.allow.is_empty() || in_any(&self.allow))
    }

    /// Frees the place of a connection that was let in.
    pub(super) fn leave(&self, peer: &Peer) {
        let (Some(_), Some(ip)) = (self.max_per_ip, peer.ip()) else {
            return;
        };
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = inside.entry(ip) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn peer(ip: &str) -> Peer {
        SocketAddr::new(ip.parse().unwrap(), 1).into()
    }

    #[track_caller]
    fn decides(allow: &[&str], deny: &[&str], ip: &str, allowed: bool) {
        let (allow, deny) = (networks(allow), networks(deny));
        let admission = Admission::new(&Config {
            allow,
            deny,
            ..Config::default()
        });
        let decided = admission.admit(&peer(ip));
        assert_eq!(
            decided,
            if allowed {
                Ok(())
            } else {
                Err(Refusal::Denied)
            },
            "{ip}"
        );
    }

    #[test]
    fn who_is_denied_or_not_among_the_allowed_stays_out() {
        decides(&[], &[], "192.0.2.1", true);
        decides(&["10.0.0.0/8"], &[], "10.255.0.1", true);
        decides(&["10.0.0.0/8"], &[], "11.0.0.1", false);
        decides(&["10.0.0.0/8", "11.0.0.1/32"], &[], "11.0.0.1", true);
        decides(&["10.0.0.0/8"], &["10.1.0.0/16"], "10.1.2.3", false);
        decides(&["10.1.2.3/32"], &["10.0.0.0/8"], "10.1.2.3", false);
        decides(&[], &["10.1.0.0/16"], "10.2.0.1", true);
        decides(&["2001:db8::/32"], &[], "2001:db8:1::1", true);
        decides(&["2001:db8::/32"], &[], "10.0.0.1", false);
        decides(&["0.0.0.0/0"], &[], "::1", false);
    }

    #[test]
    fn ipv4_on_a_socket_of_both_families_is_still_ipv4() {
        decides(&["10.0.0.0/8"], &[], "::ffff:10.0.0.1", true);
        decides(&[], &["10.0.0.0/8"], "::ffff:10.0.0.1", false);
    }

    #[test]
    fn each_address_has_its_own_places_and_gets_them_back() {
        let max_per_ip = NonZeroUsize::new(2);
        let admission = Admission::new(&Config {
            max_per_ip,
            ..Config::default()
        });
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(peer);
        let mapped = peer("::ffff:192.0.2.1");
        assert_eq!(
            [&one, &mapped].map(|peer| admission.admit(peer)),
            [Ok(()); 2]
        );
        assert_eq!(admission.admit(&one), Err(Refusal::TooMany));
        assert_eq!(admission.admit(&other), Ok(()));
        admission.leave(&mapped);
        assert_eq!(admission.admit(&one), Ok(()));
        assert_eq!(admission.admit(&one), Err(Refusal::TooMany));
        for peer in [&one, &one, &other] {
            admission.leave(peer);
        }
        assert!(
            admission.inside.lock().unwrap().is_empty(),
            "nothing is left behind"
        );
    }

    #[test]
    fn who_comes_over_a_unix_socket_has_no_address_to_be_refused_for() {
        let (allow, max_per_ip) = (networks(&["10.0.0.0/8"]), NonZeroUsize::new(1));
        let admission = Admission::new(&Config {
            allow,
            max_per_ip,
            ..Config::default()
        });
        let local = Peer::Unix {
            process: 1,
            user: 0,
        };
        let both = [admission.admit(&local), admission.admit(&local)];
        assert!(both.iter().all(Result::is_ok));
    }
}
